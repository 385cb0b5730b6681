//! Random clusters: policies of every tier, pods and probes in a world small enough for things to
//! match.
//!
//! In: nothing. Out: strategies that proptest shrinks. It judges nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use parapet_core::flow::{End, Endpoint, NamedPort, PodIdentity, Protocol, Workload};
use parapet_core::object::{
    AdminNetworkPolicy, AdminNetworkPolicySpec, AdminPolicyPort, AdminPolicyRule, AdminPortNumber,
    AdminPortRange, ClusterNetworkPolicy, ClusterNetworkPolicySpec, ClusterPolicyPeer,
    ClusterPolicyProtocol, ClusterPolicyRule, ClusterPolicySubject, EgressRule, IngressRule,
    IntOrString, IpBlock, LabelRequirement, LabelSelector, Meta, NamespacedPods, NetworkPolicy,
    NetworkPolicySpec, Object, PolicyPeer, PolicyPort, PortOrRange, PortRange, ProtocolPorts,
};
use parapet_core::policy::{PolicySet, Probe, Selection, compile_object};
use parapet_core::verdict::{Decision, Profile};
use proptest::collection::{btree_map, vec};
use proptest::option::{of, weighted};
use proptest::prelude::*;
use proptest::sample::select;

use crate::cluster::{object, protocol};
use crate::slow::{Connection, LabelsByName};

pub(crate) const NAMESPACES: [&str; 3] = ["x", "y", "z"];
pub(crate) const NODES: [&str; 2] = ["n1", "n2"];

pub(crate) type LabelMap = BTreeMap<String, String>;

/// One random cluster with one random connection.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) namespaces: LabelsByName,
    pub(crate) nodes: LabelsByName,
    pub(crate) policies: Vec<NetworkPolicy>,
    /// Of the admin and baseline tiers.
    pub(crate) cluster_policies: Vec<Object>,
    pub(crate) source: End,
    pub(crate) target: End,
    pub(crate) protocol: &'static str,
    pub(crate) port: u16,
}

fn key() -> impl Strategy<Value = String> {
    select(vec!["a", "b", "c"]).prop_map(str::to_owned)
}

fn value() -> impl Strategy<Value = String> {
    select(vec!["", "1", "2"]).prop_map(str::to_owned)
}

pub(crate) fn label_map() -> impl Strategy<Value = LabelMap> {
    btree_map(key(), value(), 0..3)
}

fn requirement() -> impl Strategy<Value = LabelRequirement> {
    let operators = select(vec!["In", "NotIn", "Exists", "DoesNotExist"]);
    (key(), operators, vec(value(), 1..3)).prop_map(|(key, operator, values)| {
        let values = matches!(operator, "In" | "NotIn").then_some(values);
        LabelRequirement { key, operator: operator.to_owned(), values }
    })
}

pub(crate) fn selector() -> impl Strategy<Value = LabelSelector> {
    (of(btree_map(key(), value(), 0..2)), of(vec(requirement(), 0..2))).prop_map(
        |(match_labels, match_expressions)| LabelSelector { match_labels, match_expressions },
    )
}

fn block() -> impl Strategy<Value = IpBlock> {
    let pairs = vec![
        ("10.0.0.0/8", "10.0.0.0/24"),
        ("10.0.0.3/30", "10.0.0.2/32"),
        ("0.0.0.0/0", "10.0.0.5/29"),
        ("::/0", "fd00::/126"),
        ("fd00::7/64", "fd00::4/127"),
        ("192.168.0.0/16", "192.168.0.1/32"),
    ];
    (select(pairs), any::<bool>()).prop_map(|((cidr, except), with_except)| IpBlock {
        cidr: cidr.to_owned(),
        except: with_except.then(|| except.to_owned()).into_iter().collect(),
    })
}

pub(crate) fn peer() -> impl Strategy<Value = PolicyPeer> {
    prop_oneof![
        1 => block()
            .prop_map(|block| PolicyPeer { ip_block: Some(block), ..PolicyPeer::default() }),
        3 => (of(selector()), of(selector())).prop_map(|(pods, namespaces)| {
            let pod_selector = match (&pods, &namespaces) {
                (None, None) => Some(LabelSelector::default()),
                _ => pods,
            };
            PolicyPeer { pod_selector, namespace_selector: namespaces, ip_block: None }
        }),
    ]
}

fn port_rule() -> impl Strategy<Value = PolicyPort> {
    let protocol = weighted(0.6, select(vec!["TCP", "UDP", "SCTP"]).prop_map(str::to_owned));
    let port = prop_oneof![
        Just((None, None)),
        (80_i64..83).prop_map(|port| (Some(IntOrString::Int(port)), None)),
        (79_i64..82, 0_i64..3)
            .prop_map(|(port, more)| { (Some(IntOrString::Int(port)), Some(port + more)) }),
        select(vec!["web", "api"]).prop_map(|name| (Some(IntOrString::String(name.into())), None)),
    ];
    (protocol, port).prop_map(|(protocol, (port, end_port))| PolicyPort {
        protocol,
        port,
        end_port,
    })
}

pub(crate) fn spec() -> impl Strategy<Value = NetworkPolicySpec> {
    let rule = || (of(vec(peer(), 0..3)), of(vec(port_rule(), 0..3)));
    let types = select(vec![
        None,
        Some(vec![]),
        Some(vec!["Ingress"]),
        Some(vec!["Egress"]),
        Some(vec!["Egress", "Ingress"]),
    ]);
    (of(selector()), types, of(vec(rule(), 0..3)), of(vec(rule(), 0..3))).prop_map(
        |(pod_selector, types, ingress, egress)| NetworkPolicySpec {
            pod_selector,
            policy_types: types.map(|all| all.into_iter().map(str::to_owned).collect()),
            ingress: ingress.map(|rules| {
                rules.into_iter().map(|(from, ports)| IngressRule { from, ports }).collect()
            }),
            egress: egress.map(|rules| {
                rules.into_iter().map(|(to, ports)| EgressRule { to, ports }).collect()
            }),
        },
    )
}

pub(crate) fn policies() -> impl Strategy<Value = Vec<NetworkPolicy>> {
    vec((select(NAMESPACES.to_vec()), spec()), 0..6).prop_map(|all| {
        let named = all.into_iter().enumerate();
        named.map(|(i, (namespace, spec))| object(&format!("{namespace}/p{i}"), spec)).collect()
    })
}

/// The number makes the address; namespace and number make the identity.
pub(crate) fn pod() -> impl Strategy<Value = End> {
    let ports = vec((select(vec!["web", "api"]), select(vec!["TCP", "UDP"]), 80_u16..82), 0..3);
    let place = (select(NAMESPACES.to_vec()), select(NODES.to_vec()), weighted(0.15, Just(())));
    (0_u8..8, any::<bool>(), place, label_map(), ports).prop_map(
        |(number, v6, (namespace, node, host), labels, ports)| {
            let text = match (host, v6) {
                (Some(()), _) => format!("192.168.0.{}", node.len()),
                (None, true) => format!("fd00::{number}"),
                (None, false) => format!("10.0.0.{number}"),
            };
            let addr: IpAddr = text.parse().unwrap();
            let named = |(name, protocol_name, port): (&str, &str, u16)| NamedPort {
                name: name.into(),
                protocol: protocol(protocol_name),
                port,
            };
            let identity = PodIdentity {
                uid: format!("{namespace}-{number}").into(),
                namespace: namespace.into(),
                name: format!("pod-{number}").into(),
                labels: labels.into_iter().map(|(k, v)| (k.into(), v.into())).collect(),
                node: node.into(),
                host_network: host.is_some(),
                addrs: [addr].into(),
                named_ports: ports.into_iter().map(named).collect(),
                workload: Workload { kind: "Pod".into(), name: "pod".into() },
                service_account: "default".into(),
            };
            End { addr: Some(addr), endpoint: Endpoint::Pod(Arc::new(identity)) }
        },
    )
}

pub(crate) fn end() -> impl Strategy<Value = End> {
    let address = |text: &str| Some(text.parse::<IpAddr>().unwrap());
    let node =
        |name: &str, addr| End { addr: address(addr), endpoint: Endpoint::Node(name.into()) };
    let outside = |addr| End { addr: address(addr), endpoint: Endpoint::External };
    prop_oneof![
        8 => pod(),
        1 => select(vec![node("n1", "192.168.0.1"), node("n2", "192.168.0.2")]),
        1 => select(vec![outside("198.51.100.7"), outside("2001:db8::1"), outside("10.0.0.200")]),
    ]
}

fn cluster_peer(egress: bool) -> impl Strategy<Value = ClusterPolicyPeer> {
    let pods = (of(selector()), selector()).prop_map(|(namespaces, pods)| ClusterPolicyPeer {
        pods: Some(NamespacedPods { namespace_selector: namespaces, pod_selector: Some(pods) }),
        ..ClusterPolicyPeer::default()
    });
    let namespaces = selector().prop_map(|selector| ClusterPolicyPeer {
        namespaces: Some(selector),
        ..ClusterPolicyPeer::default()
    });
    let nodes = selector().prop_map(|selector| ClusterPolicyPeer {
        nodes: Some(selector),
        ..ClusterPolicyPeer::default()
    });
    let networks = block().prop_map(|block| ClusterPolicyPeer {
        networks: Some(vec![block.cidr]),
        ..ClusterPolicyPeer::default()
    });
    let only_egress = u32::from(egress);
    prop_oneof![
        3 => pods,
        3 => namespaces,
        only_egress => nodes,
        only_egress => networks,
    ]
}

fn cluster_peers() -> impl Strategy<Value = (Vec<ClusterPolicyPeer>, Vec<ClusterPolicyPeer>)> {
    (vec(cluster_peer(false), 1..3), vec(cluster_peer(true), 1..3))
}

/// Of the same shape for both APIs: protocol, first and last port. None of both: by name.
#[derive(Clone, Debug)]
enum AnyPort {
    Range(&'static str, i64, i64),
    Named(&'static str),
}

fn any_ports() -> impl Strategy<Value = Option<Vec<AnyPort>>> {
    let numbered = (select(vec!["TCP", "UDP", "SCTP"]), 79_i64..83, 0_i64..3)
        .prop_map(|(protocol, port, more)| AnyPort::Range(protocol, port, port + more));
    let named = select(vec!["web", "api"]).prop_map(AnyPort::Named);
    of(vec(prop_oneof![3 => numbered, 1 => named], 1..3))
}

/// The CRDs refuse names beside peers that have none.
fn fits_named_ports(peers: &[ClusterPolicyPeer], ports: &Option<Vec<AnyPort>>) -> bool {
    let named = ports.iter().flatten().any(|port| matches!(port, AnyPort::Named(_)));
    !named || peers.iter().all(|peer| peer.nodes.is_none() && peer.networks.is_none())
}

fn cluster_rule_ports(ports: Option<Vec<AnyPort>>) -> Option<Vec<ClusterPolicyProtocol>> {
    let port = |port| match port {
        AnyPort::Named(name) => ClusterPolicyProtocol {
            destination_named_port: Some(name.to_owned()),
            ..ClusterPolicyProtocol::default()
        },
        AnyPort::Range(protocol, start, end) => {
            let destination_port = if start == end {
                PortOrRange { number: Some(start), ..PortOrRange::default() }
            } else {
                let range = Some(PortRange { start, end });
                PortOrRange { range, ..PortOrRange::default() }
            };
            let destination_port = Some(destination_port);
            let ports = Some(ProtocolPorts { destination_port, ..ProtocolPorts::default() });
            let empty = ClusterPolicyProtocol::default();
            match protocol {
                "TCP" => ClusterPolicyProtocol { tcp: ports, ..empty },
                "UDP" => ClusterPolicyProtocol { udp: ports, ..empty },
                _ => ClusterPolicyProtocol { sctp: ports, ..empty },
            }
        }
    };
    ports.map(|ports| ports.into_iter().map(port).collect())
}

fn admin_rule_ports(ports: Option<Vec<AnyPort>>) -> Option<Vec<AdminPolicyPort>> {
    let port = |port| match port {
        AnyPort::Named(name) => {
            AdminPolicyPort { named_port: Some(name.to_owned()), ..AdminPolicyPort::default() }
        }
        AnyPort::Range("TCP", port, end) if port == end => AdminPolicyPort {
            port_number: Some(AdminPortNumber { protocol: None, port }),
            ..AdminPolicyPort::default()
        },
        AnyPort::Range(protocol, start, end) => AdminPolicyPort {
            port_range: Some(AdminPortRange { protocol: Some(protocol.to_owned()), start, end }),
            ..AdminPolicyPort::default()
        },
    };
    ports.map(|ports| ports.into_iter().map(port).collect())
}

type AnyRule = (usize, Vec<ClusterPolicyPeer>, Option<Vec<AnyPort>>);

fn any_rules(egress: bool) -> impl Strategy<Value = Option<Vec<AnyRule>>> {
    let peers = cluster_peers().prop_map(move |(from, to)| if egress { to } else { from });
    let rule = (0..3_usize, peers, any_ports())
        .prop_filter("no names beside networks", |(_, peers, ports)| {
            fits_named_ports(peers, ports)
        });
    of(vec(rule, 0..3))
}

fn subject() -> impl Strategy<Value = ClusterPolicySubject> {
    prop_oneof![
        selector()
            .prop_map(|selector| ClusterPolicySubject { namespaces: Some(selector), pods: None }),
        (of(selector()), selector()).prop_map(|(namespace_selector, pods)| ClusterPolicySubject {
            namespaces: None,
            pods: Some(NamespacedPods { namespace_selector, pod_selector: Some(pods) }),
        }),
    ]
}

/// One policy of either API; `number` is its name and, unless it is the baseline one, its priority.
fn cluster_policy(number: i64) -> impl Strategy<Value = Object> {
    (subject(), any_rules(false), any_rules(true), 0..4_u8).prop_map(
        move |(subject, ingress, egress, kind)| {
            let metadata = Meta { name: format!("p{number}"), ..Meta::default() };
            let rule = |ingress: bool, (action, peers, ports): AnyRule| ClusterPolicyRule {
                name: None,
                action: ["Accept", "Deny", "Pass"][action].to_owned(),
                from: ingress.then(|| peers.clone()),
                to: (!ingress).then_some(peers),
                protocols: cluster_rule_ports(ports),
            };
            let admin_rule = |ingress: bool, (action, peers, ports): AnyRule| AdminPolicyRule {
                name: None,
                action: ["Allow", "Deny", if kind == 3 { "Deny" } else { "Pass" }][action].into(),
                from: ingress.then(|| peers.clone()),
                to: (!ingress).then_some(peers),
                ports: admin_rule_ports(ports),
            };
            if kind < 2 {
                let spec = ClusterNetworkPolicySpec {
                    tier: Some(["Admin", "Baseline"][usize::from(kind)].to_owned()),
                    priority: Some(number),
                    subject: Some(subject),
                    ingress: ingress.map(|r| r.into_iter().map(|r| rule(true, r)).collect()),
                    egress: egress.map(|r| r.into_iter().map(|r| rule(false, r)).collect()),
                };
                return Object::ClusterNetworkPolicy(ClusterNetworkPolicy { metadata, spec });
            }
            let spec = AdminNetworkPolicySpec {
                priority: (kind == 2).then_some(number),
                subject: Some(subject),
                ingress: ingress.map(|r| r.into_iter().map(|r| admin_rule(true, r)).collect()),
                egress: egress.map(|r| r.into_iter().map(|r| admin_rule(false, r)).collect()),
            };
            if kind == 2 {
                return Object::AdminNetworkPolicy(AdminNetworkPolicy { metadata, spec });
            }
            let metadata = Meta { name: "default".to_owned(), ..metadata };
            Object::BaselineAdminNetworkPolicy(AdminNetworkPolicy { metadata, spec })
        },
    )
}

/// At most one BaselineAdminNetworkPolicy, as in any cluster.
fn cluster_policies() -> impl Strategy<Value = Vec<Object>> {
    let some = |count: i64| (0..count).map(cluster_policy).collect::<Vec<_>>();
    (0..4_i64).prop_flat_map(some).prop_map(|policies| {
        let is_baseline = |object: &Object| matches!(object, Object::BaselineAdminNetworkPolicy(_));
        let first = policies.iter().position(is_baseline);
        let numbered = policies.into_iter().enumerate();
        let kept = numbered.filter(|(at, each)| !is_baseline(each) || first == Some(*at));
        kept.map(|(_, policy)| policy).collect()
    })
}

pub(crate) fn world() -> impl Strategy<Value = World> {
    let protocols = select(vec!["TCP", "TCP", "UDP", "SCTP", "ICMP"]);
    let connection = (end(), end(), protocols, 78_u16..84);
    (vec(label_map(), 3), vec(label_map(), 2), policies(), cluster_policies(), connection).prop_map(
        |(labels, node_labels, policies, cluster_policies, connection)| {
            let (source, target, protocol, port) = connection;
            let named = NAMESPACES.iter().zip(labels).map(|(name, mut labels)| {
                labels.insert("kubernetes.io/metadata.name".into(), (*name).into());
                ((*name).to_owned(), labels)
            });
            let namespaces = named.collect();
            let nodes = NODES.map(str::to_owned).into_iter().zip(node_labels).collect();
            World { namespaces, nodes, policies, cluster_policies, source, target, protocol, port }
        },
    )
}

/// Panics on what the API server would refuse.
pub(crate) fn set_of(objects: &[Object], mut selection: Option<&mut Selection>) -> PolicySet {
    let compiled = objects.iter().map(|object| {
        let compiled = compile_object(object, &"enforced".into()).unwrap();
        let compiled = compiled.unwrap_or_else(|all| panic!("{all:?}"));
        match &mut selection {
            Some(selection) => selection.link(compiled),
            None => Arc::new(compiled),
        }
    });
    PolicySet::new("enforced".into(), compiled)
}

impl World {
    /// Policies of all tiers.
    pub(crate) fn objects(&self) -> Vec<Object> {
        let namespaced = self.policies.iter().cloned().map(Object::NetworkPolicy);
        namespaced.chain(self.cluster_policies.iter().cloned()).collect()
    }

    pub(crate) fn connection(&self) -> Connection<'_> {
        let Self { source, target, protocol, port, .. } = self;
        Connection { source, target, protocol, port: *port }
    }

    pub(crate) fn selection(&self) -> Selection {
        let mut selection = Selection::default();
        self.namespaces.iter().for_each(|(name, labels)| {
            selection.insert_namespace(name, labels);
        });
        self.nodes.iter().for_each(|(name, labels)| {
            selection.insert_node(name, labels);
        });
        selection
    }

    pub(crate) fn probe(&self) -> Probe<'_> {
        let protocol: Protocol = protocol(self.protocol);
        Probe { source: &self.source, target: &self.target, protocol, port: self.port }
    }

    /// (both, egress, ingress)
    pub(crate) fn decide(&self, set: &PolicySet, profile: Profile) -> [Decision; 3] {
        let (both, sides) = set.decide(&self.selection(), profile, &self.probe());
        [both, sides.egress.decision, sides.ingress.decision]
    }
}
