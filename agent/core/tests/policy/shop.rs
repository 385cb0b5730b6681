//! A small shop to lint policies in, and the notation of its tables.
//!
//! In: a cluster in lines, policies as YAML. Out: every finding as one line. It asks each time with
//! policies that were linked and with the same ones that were not: the answer must be the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use parapet_core::flow::Timestamp;
use parapet_core::identity::Index;
use parapet_core::lint::{Finding, LintRule, Severity, lint};
use parapet_core::object::{
    AdminNetworkPolicy, AdminNetworkPolicySpec, Change, ClusterNetworkPolicy,
    ClusterNetworkPolicySpec, Container, ContainerPort, IntOrString, Meta, Namespace, Node,
    NodeAddress, Object, Pod, PodIp, Service, ServicePort,
};
use parapet_core::policy::{PolicySet, compile_object};

use crate::cluster::objects;

/// A shop, its DNS, and a node:
/// `ns NAME LABEL..`, `node NAME ADDRESS POD-RANGE LABEL..`,
/// `pod NAME ADDRESS ITEM..` with items `key=value`, `name:PROTOCOL/PORT` and `host`,
/// `svc NAME ADDRESS PROTOCOL PORT>TARGET LABEL..`.
pub(crate) const SHOP: &str = "
    ns shop team=red
    ns other
    ns kube-system
    node n1 192.168.0.1 10.0.1.0/24 zone=a
    pod shop/web 10.0.1.1 app=web http:TCP/8080
    pod shop/cart 10.0.1.2 app=cart grpc:TCP/7070
    pod other/batch 10.0.1.3 app=batch
    pod kube-system/dns 10.0.1.4 k8s-app=kube-dns
    pod kube-system/proxy 192.168.0.1 app=proxy host
    svc shop/web 10.96.0.2 TCP 80>http app=web
    svc shop/cart 10.96.0.3 TCP 7070>7070 app=cart
    svc kube-system/kube-dns 10.96.0.10 UDP 53>53 k8s-app=kube-dns
    svc kube-system/kube-dns-tcp 10.96.0.11 TCP 53>53 k8s-app=kube-dns
";

/// What every pod needs that is isolated for egress.
pub(crate) const DNS: &str =
    "{to: [{namespaceSelector: {}, podSelector: {matchLabels: {k8s-app: kube-dns}}}],
    ports: [{port: 53, protocol: UDP}, {port: 53}]}";

fn labels<'a>(words: impl Iterator<Item = &'a str>) -> BTreeMap<String, String> {
    let pairs = words.filter_map(|word| word.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn meta(id: &str, labels: BTreeMap<String, String>) -> Meta {
    let (namespace, name) = id.split_once('/').unwrap_or(("", id));
    let (namespace, name) = (namespace.to_owned(), name.to_owned());
    Meta { namespace, name, labels, ..Meta::default() }
}

fn pod(id: &str, addr: &str, items: &[&str]) -> Pod {
    let port = |item: &&str| {
        let (name, rest) = item.split_once(':')?;
        let (protocol, port) = rest.split_once('/')?;
        Some(ContainerPort {
            name: name.to_owned(),
            container_port: port.parse().unwrap(),
            protocol: Some(protocol.to_owned()),
        })
    };
    let mut pod = Pod { metadata: meta(id, labels(items.iter().copied())), ..Pod::default() };
    pod.spec.node_name = "n1".to_owned();
    pod.spec.host_network = items.contains(&"host");
    let ports = items.iter().filter_map(port).collect();
    pod.spec.containers = vec![Container { ports, ..Container::default() }];
    pod.status.pod_ips = vec![PodIp { ip: addr.to_owned() }];
    pod
}

fn service(id: &str, addr: &str, protocol: &str, ports: &str, labelled: &[&str]) -> Service {
    let (port, target) = ports.split_once('>').unwrap();
    let target = match target.parse() {
        Ok(number) => IntOrString::Int(number),
        Err(_) => IntOrString::String(target.to_owned()),
    };
    let mut service = Service { metadata: meta(id, BTreeMap::new()), ..Service::default() };
    service.spec.cluster_ip = addr.to_owned();
    service.spec.selector = labels(labelled.iter().copied());
    service.spec.ports = vec![ServicePort {
        protocol: Some(protocol.to_owned()),
        port: port.parse().unwrap(),
        target_port: Some(target),
        ..ServicePort::default()
    }];
    service
}

fn object(line: &str) -> Object {
    let words: Vec<&str> = line.split_whitespace().collect();
    match *words {
        ["ns", name, ref rest @ ..] => {
            Object::Namespace(Namespace { metadata: meta(name, labels(rest.iter().copied())) })
        }
        ["node", name, addr, range, ref rest @ ..] => {
            let metadata = meta(name, labels(rest.iter().copied()));
            let mut node = Node { metadata, ..Node::default() };
            node.spec.pod_cidrs = vec![range.to_owned()];
            let (kind, address) = ("InternalIP".to_owned(), addr.to_owned());
            node.status.addresses = vec![NodeAddress { kind, address }];
            Object::Node(node)
        }
        ["pod", id, addr, ref items @ ..] => Object::Pod(Box::new(pod(id, addr, items))),
        ["svc", id, addr, protocol, ports, ref rest @ ..] => {
            Object::Service(service(id, addr, protocol, ports, rest))
        }
        _ => panic!("line {line}"),
    }
}

pub(crate) fn index(lines: &str) -> Index {
    let mut index = Index::default();
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        index.apply(&Change::Applied(object(line)), Timestamp(1));
    }
    index
}

/// `namespace/name` is a NetworkPolicy, `cnp:name`, `anp:name` and `banp:name` are of the others.
fn policies(yaml: &str) -> Vec<Object> {
    let (cluster_wide, namespaced): (Vec<&str>, Vec<&str>) =
        yaml.lines().partition(|line| line.split(':').next().is_some_and(|key| key.contains("np")));
    let mut all: Vec<Object> = if namespaced.iter().all(|line| line.trim().is_empty()) {
        Vec::new()
    } else {
        objects(&namespaced.join("\n")).into_iter().map(Object::NetworkPolicy).collect()
    };
    for line in cluster_wide {
        let (kind, rest) = line.split_once(':').unwrap();
        let (name, spec) = rest.split_once(':').unwrap();
        let metadata = meta(name.trim(), BTreeMap::new());
        let admin = |spec: &str| AdminNetworkPolicy {
            metadata: metadata.clone(),
            spec: serde_saphyr::from_str::<AdminNetworkPolicySpec>(spec).unwrap(),
        };
        all.push(match kind.trim() {
            "cnp" => {
                let spec = serde_saphyr::from_str::<ClusterNetworkPolicySpec>(spec).unwrap();
                Object::ClusterNetworkPolicy(ClusterNetworkPolicy { metadata, spec })
            }
            "anp" => Object::AdminNetworkPolicy(admin(spec)),
            "banp" => Object::BaselineAdminNetworkPolicy(admin(spec)),
            other => panic!("kind {other}"),
        });
    }
    all
}

pub(crate) fn found(lines: &str, yaml: &str) -> Vec<Finding> {
    let mut index = index(lines);
    let compiled: Vec<_> = policies(yaml)
        .iter()
        .map(|object| compile_object(object, &"enforced".into()).unwrap().unwrap())
        .collect();
    let unlinked = PolicySet::new("enforced".into(), compiled.iter().cloned().map(Arc::new));
    let findings = lint(&index, &unlinked);
    let linked: Vec<_> =
        compiled.into_iter().map(|policy| index.selection_mut().link(policy)).collect();
    let pods: Vec<_> = index.pods_now().cloned().collect();
    pods.iter().for_each(|pod| index.selection_mut().identify(pod));
    assert_eq!(lint(&index, &PolicySet::new("enforced".into(), linked)), findings);
    findings
}

fn name_of(rule: LintRule) -> String {
    serde_json::to_value(rule).unwrap().as_str().unwrap().to_owned()
}

/// "error selects-no-pods NetworkPolicy shop/p spec.podSelector: problem".
fn lines_of(findings: &[Finding]) -> Vec<String> {
    let line = |finding: &Finding| {
        let severity = match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let rule = name_of(finding.rule);
        let Finding { object, field, problem, .. } = finding;
        format!("{severity} {rule} {object} {field}: {problem}")
    };
    findings.iter().map(line).collect()
}

#[track_caller]
pub(crate) fn check_in(cluster: &str, yaml: &str, expected: &[&str]) {
    assert_eq!(lines_of(&found(cluster, yaml)), expected, "{yaml}");
}

#[track_caller]
pub(crate) fn check(yaml: &str, expected: &[&str]) {
    check_in(SHOP, yaml, expected);
}
