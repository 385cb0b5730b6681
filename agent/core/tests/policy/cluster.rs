//! A small cluster to ask about, and the notation of the tables.
//!
//! In: policies as `namespace/name: spec` in YAML, probes as "x/a y/b TCP 80". Out: one line a
//! probe with what both sides say. It never judges by itself.
//!
//! Ends: `x/a` a pod, `x/a@fd00::1` by that address, `node:n1` a node, `ip:198.51.100.7` an outside
//! address, `unknown:10.9.9.9` a pod nobody knows, `ambiguous:10.9.9.9`, `service:both`, whose
//! own port is 80.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use parapet_core::flow::{
    End, Endpoint, NamedPort, PodIdentity, Protocol, ServiceIdentity, UnknownEnd, Workload,
};
use parapet_core::object::{Meta, NetworkPolicy, NetworkPolicySpec};
use parapet_core::policy::{PolicySet, Probe, Selection, compile};
use parapet_core::verdict::{Profile, SideVerdict, Verdict};

/// Namespaces and pods under the names the tables use.
pub(crate) struct Cluster {
    pub(crate) selection: Selection,
    pub(crate) pods: BTreeMap<String, Arc<PodIdentity>>,
    pub(crate) services: BTreeMap<String, Vec<(String, u16)>>,
}

/// `(name, labels, node, host network, addresses, named ports)`.
type PodRow = (
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static str,
    bool,
    &'static [&'static str],
    &'static [(&'static str, Protocol, u16)],
);

const PODS: &[PodRow] = &[
    (
        "x/a",
        &[("note", ""), ("pod", "a")],
        "n1",
        false,
        &["10.0.1.1", "fd00:1::1"],
        &[("dns", Protocol::UDP, 53), ("web", Protocol::TCP, 80)],
    ),
    ("x/b", &[("pod", "b")], "n1", false, &["10.0.1.2"], &[("web", Protocol::TCP, 8080)]),
    ("y/a", &[("pod", "a")], "n2", false, &["10.0.2.1"], &[("web", Protocol::UDP, 80)]),
    ("y/b", &[("pod", "b")], "n2", false, &["10.0.2.2", "fd00:2::2"], &[]),
    ("z/c", &[], "n2", false, &["10.0.3.1"], &[]),
    ("q/d", &[("pod", "a")], "n2", false, &["10.0.4.1"], &[]),
    ("x/host", &[("pod", "a")], "n1", true, &["192.168.0.1"], &[("web", Protocol::TCP, 80)]),
    ("y/host", &[("pod", "a")], "n2", true, &["192.168.0.2"], &[("web", Protocol::TCP, 80)]),
];

const NODES: &[(&str, &str)] = &[("n1", "192.168.0.1"), ("n2", "192.168.0.2"), ("", "192.168.0.9")];

/// Namespaces x, y and z are known with labels; q has a pod but was never seen itself.
pub(crate) fn cluster() -> Cluster {
    let mut selection = Selection::default();
    for (name, team) in [("x", Some("red")), ("y", Some("blue")), ("z", None)] {
        let labels = team.map(|team| ("team".to_owned(), team.to_owned())).into_iter().collect();
        selection.insert_namespace(name, &labels);
    }
    let pods = PODS.iter().map(|row| (row.0.to_owned(), Arc::new(pod(row)))).collect();
    let service = |name: &str, backends: &[(&str, u16)]| {
        let backends = backends.iter().map(|(end, port)| ((*end).to_owned(), *port)).collect();
        (name.to_owned(), backends)
    };
    let services = BTreeMap::from([
        service("both", &[("x/a", 80), ("x/b", 8080)]),
        service("across", &[("x/b", 80), ("y/b", 80)]),
        service("outside", &[("ip:198.51.100.7", 443)]),
        service("moved", &[("x/b", 8080)]),
        service("empty", &[]),
    ]);
    Cluster { selection, pods, services }
}

fn pod(row: &PodRow) -> PodIdentity {
    let (id, labels, node, host_network, addrs, ports) = *row;
    let (namespace, name) = id.split_once('/').unwrap();
    PodIdentity {
        uid: format!("uid-{namespace}-{name}").into(),
        namespace: namespace.into(),
        name: name.into(),
        labels: labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
        node: node.into(),
        host_network,
        addrs: addrs.iter().map(|addr| addr.parse().unwrap()).collect(),
        named_ports: ports
            .iter()
            .map(|(name, protocol, port)| NamedPort {
                name: (*name).into(),
                protocol: *protocol,
                port: *port,
            })
            .collect(),
        workload: Workload { kind: "Pod".into(), name: name.into() },
        service_account: "default".into(),
    }
}

/// Policies as the table writes them: a map from `namespace/name` to the spec.
pub(crate) fn objects(yaml: &str) -> Vec<NetworkPolicy> {
    let specs: BTreeMap<String, NetworkPolicySpec> =
        serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
    specs.into_iter().map(|(id, spec)| object(&id, spec)).collect()
}

pub(crate) fn object(id: &str, spec: NetworkPolicySpec) -> NetworkPolicy {
    let (namespace, name) = id.split_once('/').unwrap();
    let (namespace, name) = (namespace.to_owned(), name.to_owned());
    NetworkPolicy { metadata: Meta { namespace, name, ..Meta::default() }, spec }
}

/// Panics on what `compile` refuses.
pub(crate) fn policy_set(objects: &[NetworkPolicy]) -> PolicySet {
    let compiled = objects.iter().map(|object| {
        Arc::new(compile(object, "enforced".into()).unwrap_or_else(|all| panic!("{all:?}")))
    });
    PolicySet::new("enforced".into(), compiled)
}

pub(crate) fn protocol(text: &str) -> Protocol {
    match text {
        "TCP" => Protocol::TCP,
        "UDP" => Protocol::UDP,
        "SCTP" => Protocol::SCTP,
        "ICMP" => Protocol(1),
        other => panic!("protocol {other}"),
    }
}

impl Cluster {
    pub(crate) fn end(&self, text: &str) -> End {
        let (kind, rest) = text.split_once(':').unwrap_or(("pod", text));
        let address = |text: &str| -> Option<IpAddr> { Some(text.parse().unwrap()) };
        match kind {
            "node" => {
                let (name, addr) = NODES.iter().find(|(name, _)| *name == rest).unwrap();
                End { addr: address(addr), endpoint: Endpoint::Node((*name).into()) }
            }
            "ip" => End { addr: address(rest), endpoint: Endpoint::External },
            "unknown" => {
                End { addr: address(rest), endpoint: Endpoint::Unknown(UnknownEnd::NoHolder) }
            }
            "ambiguous" => End {
                addr: address(rest),
                endpoint: Endpoint::Unknown(UnknownEnd::AmbiguousAddress),
            },
            "service" => {
                let backends = &self.services[rest];
                let backends = backends.iter().map(|(end, port)| (self.end(end), *port)).collect();
                let service = ServiceIdentity {
                    namespace: "x".into(),
                    name: rest.into(),
                    port: 80,
                    backends,
                };
                End { addr: None, endpoint: Endpoint::Service(Arc::new(service)) }
            }
            _ => {
                let (id, addr) = text.split_once('@').map_or((text, None), |(a, b)| (a, Some(b)));
                let pod = self.pods[id].clone();
                let addr = addr.map_or(pod.addrs.first().copied(), address);
                End { addr, endpoint: Endpoint::Pod(pod) }
            }
        }
    }

    /// Judges "source target protocol port"; both ways of asking must agree.
    pub(crate) fn judge(&self, set: &PolicySet, profile: Profile, probe: &str) -> Verdict {
        let words: Vec<&str> = probe.split_whitespace().collect();
        let [source, target, protocol_name, port] = *words else { panic!("probe {probe}") };
        let (source, target) = (self.end(source), self.end(target));
        let (protocol, port) = (protocol(protocol_name), port.parse().unwrap());
        let probe = Probe { source: &source, target: &target, protocol, port };
        let verdict = set.evaluate(&self.selection, profile, &probe);
        let (decision, summary) = set.decide(&self.selection, profile, &probe);
        let short = |side: &SideVerdict| (side.decision, side.reason);
        assert_eq!(
            (decision, summary.egress.decision, summary.egress.reason),
            (verdict.decision, short(&verdict.egress).0, short(&verdict.egress).1)
        );
        assert_eq!((summary.ingress.decision, summary.ingress.reason), short(&verdict.ingress));
        verdict
    }
}

/// "Decision: egress Reason, ingress Reason"; the sides' decisions follow from their reasons.
pub(crate) fn line(verdict: &Verdict) -> String {
    let (egress, ingress) = (&verdict.egress, &verdict.ingress);
    format!("{:?}: {:?}, {:?}", verdict.decision, egress.reason, ingress.reason)
}

/// Asks every probe of "probe = line" lines and compares all lines at once.
#[track_caller]
pub(crate) fn check(profile: Profile, yaml: &str, lines: &str) {
    check_set(&policy_set(&objects(yaml)), profile, lines);
}

/// The same for a set at hand.
#[track_caller]
pub(crate) fn check_set(set: &PolicySet, profile: Profile, lines: &str) {
    let cluster = cluster();
    let lines = lines.lines().map(str::trim).filter(|line| !line.is_empty());
    let (mut expected, mut got) = (Vec::new(), Vec::new());
    for wanted in lines {
        let (probe, _) = wanted.split_once(" = ").unwrap();
        expected.push(wanted.to_owned());
        got.push(format!("{probe} = {}", line(&cluster.judge(set, profile, probe))));
    }
    assert_eq!(got, expected);
}
