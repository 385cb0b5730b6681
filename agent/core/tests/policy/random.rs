//! Properties on random clusters.
//!
//! In: random policies, pods and probes in a world small enough for things to match. Out: passed,
//! or the smallest failing cluster.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use parapet_core::flow::{
    Direction, End, Endpoint, NamedPort, PodIdentity, Protocol, UnknownEnd, Workload,
};
use parapet_core::object::{
    EgressRule, IngressRule, IntOrString, IpBlock, LabelRequirement, LabelSelector, NetworkPolicy,
    NetworkPolicySpec, PolicyPeer, PolicyPort,
};
use parapet_core::policy::{PolicySet, Probe, Selection};
use parapet_core::verdict::{Decision, Profile, Reason};
use proptest::collection::{btree_map, vec};
use proptest::option::{of, weighted};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::cluster::{object, policy_set, protocol};
use crate::slow::{self, Connection, NamespaceLabels};

const NAMESPACES: [&str; 3] = ["x", "y", "z"];
const NODES: [&str; 2] = ["n1", "n2"];

type LabelMap = BTreeMap<String, String>;

/// One random cluster with one random connection.
#[derive(Clone, Debug)]
struct World {
    namespaces: NamespaceLabels,
    policies: Vec<NetworkPolicy>,
    source: End,
    target: End,
    protocol: &'static str,
    port: u16,
}

fn key() -> impl Strategy<Value = String> {
    select(vec!["a", "b", "c"]).prop_map(str::to_owned)
}

fn value() -> impl Strategy<Value = String> {
    select(vec!["", "1", "2"]).prop_map(str::to_owned)
}

fn label_map() -> impl Strategy<Value = LabelMap> {
    btree_map(key(), value(), 0..3)
}

fn requirement() -> impl Strategy<Value = LabelRequirement> {
    let operators = select(vec!["In", "NotIn", "Exists", "DoesNotExist"]);
    (key(), operators, vec(value(), 1..3)).prop_map(|(key, operator, values)| {
        let values = matches!(operator, "In" | "NotIn").then_some(values);
        LabelRequirement { key, operator: operator.to_owned(), values }
    })
}

fn selector() -> impl Strategy<Value = LabelSelector> {
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

fn peer() -> impl Strategy<Value = PolicyPeer> {
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

fn spec() -> impl Strategy<Value = NetworkPolicySpec> {
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

fn policies() -> impl Strategy<Value = Vec<NetworkPolicy>> {
    vec((select(NAMESPACES.to_vec()), spec()), 0..6).prop_map(|all| {
        let named = all.into_iter().enumerate();
        named.map(|(i, (namespace, spec))| object(&format!("{namespace}/p{i}"), spec)).collect()
    })
}

/// The number makes the address; namespace and number make the identity.
fn pod() -> impl Strategy<Value = End> {
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

fn end() -> impl Strategy<Value = End> {
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

fn world() -> impl Strategy<Value = World> {
    let protocols = select(vec!["TCP", "TCP", "UDP", "SCTP", "ICMP"]);
    (vec(label_map(), 3), policies(), end(), end(), protocols, 78_u16..84).prop_map(
        |(labels, policies, source, target, protocol, port)| {
            let named = NAMESPACES.iter().zip(labels).map(|(name, mut labels)| {
                labels.insert("kubernetes.io/metadata.name".into(), (*name).into());
                ((*name).to_owned(), labels)
            });
            let namespaces = named.collect();
            World { namespaces, policies, source, target, protocol, port }
        },
    )
}

impl World {
    fn selection(&self) -> Selection {
        let mut selection = Selection::default();
        self.namespaces.iter().for_each(|(name, labels)| {
            selection.insert_namespace(name, labels);
        });
        selection
    }

    fn probe(&self) -> Probe<'_> {
        let protocol: Protocol = protocol(self.protocol);
        Probe { source: &self.source, target: &self.target, protocol, port: self.port }
    }

    /// (both, egress, ingress)
    fn decide(&self, set: &PolicySet, profile: Profile) -> [Decision; 3] {
        let (both, sides) = set.decide(&self.selection(), profile, &self.probe());
        [both, sides.egress.decision, sides.ingress.decision]
    }
}

fn passes(decision: Decision) -> Option<bool> {
    match decision {
        Decision::Allowed | Decision::Exempt => Some(true),
        Decision::Denied => Some(false),
        Decision::Undecidable => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(3_000)
    })]

    #[test]
    fn the_letter_is_what_the_slow_evaluator_reads(world in world()) {
        let connection = Connection {
            source: &world.source,
            target: &world.target,
            protocol: world.protocol,
            port: world.port,
        };
        let slow = |direction| {
            slow::allows(&world.policies, &world.namespaces, direction, &connection)
        };
        let (egress, ingress) = (slow(Direction::Egress), slow(Direction::Ingress));
        let fast = world.decide(&policy_set(&world.policies), Profile::Spec);
        prop_assert_eq!(fast.map(passes), [egress && ingress, egress, ingress].map(Some));
    }

    #[test]
    fn both_ways_of_asking_agree(world in world(), common: bool, deny: bool) {
        let profile = if common { Profile::Common } else { Profile::Spec };
        let mut set = policy_set(&world.policies);
        if deny {
            set = set.with_default_deny_everywhere();
        }
        let verdict = set.evaluate(&world.selection(), profile, &world.probe());
        let sides = [verdict.decision, verdict.egress.decision, verdict.ingress.decision];
        prop_assert_eq!(sides, world.decide(&set, profile));
    }

    #[test]
    fn the_order_of_policies_and_rules_never_shows(
        (world, shuffled) in world().prop_flat_map(|world| {
            let policies = world.policies.clone();
            (Just(world), Just(policies).prop_shuffle())
        }),
        common: bool,
    ) {
        let profile = if common { Profile::Common } else { Profile::Spec };
        let (selection, probe) = (world.selection(), world.probe());
        let one = policy_set(&world.policies).evaluate(&selection, profile, &probe);
        let other = policy_set(&shuffled).evaluate(&selection, profile, &probe);
        prop_assert_eq!(&one, &other);
        let mut reversed = world.policies.clone();
        for policy in &mut reversed {
            policy.spec.ingress.iter_mut().for_each(|rules| rules.reverse());
            policy.spec.egress.iter_mut().for_each(|rules| rules.reverse());
        }
        let (decision, sides) = policy_set(&reversed).decide(&selection, profile, &probe);
        prop_assert_eq!((decision, sides.egress.reason), (one.decision, one.egress.reason));
        prop_assert_eq!(sides.ingress.reason, one.ingress.reason);
    }

    #[test]
    fn one_more_rule_never_denies(world in world(), at: Index, peers in vec(peer(), 0..3)) {
        prop_assume!(!world.policies.is_empty());
        let before = world.decide(&policy_set(&world.policies), Profile::Spec);
        let mut more = world.policies.clone();
        let spec = &mut more[at.index(world.policies.len())].spec;
        spec.ingress.get_or_insert_default().push(IngressRule { from: Some(peers), ports: None });
        let after = world.decide(&policy_set(&more), Profile::Spec);
        for (before, after) in before.into_iter().zip(after) {
            prop_assert!(passes(before) <= passes(after), "{:?} became {:?}", before, after);
        }
    }

    #[test]
    fn common_is_silent_or_says_what_the_letter_says(world in world()) {
        let set = policy_set(&world.policies);
        let common = world.decide(&set, Profile::Common).map(passes);
        let letter = world.decide(&set, Profile::Spec).map(passes);
        for (common, letter) in common.into_iter().zip(letter) {
            prop_assert!(common.is_none() || common == letter, "{:?} {:?}", common, letter);
        }
    }

    #[test]
    fn what_is_decided_of_an_unknown_pod_holds_for_every_pod(world in world(), at_source: bool) {
        let set = policy_set(&world.policies);
        let mut unknown = world.clone();
        let end = if at_source { &mut unknown.source } else { &mut unknown.target };
        // Only pods may be meant by an unknown pod, and not the other end itself.
        if !matches!(&end.endpoint, Endpoint::Pod(pod) if !pod.host_network) {
            return Ok(());
        }
        end.endpoint = Endpoint::Unknown(UnknownEnd::NoHolder);
        let known = set.decide(&world.selection(), Profile::Spec, &world.probe()).1;
        if known.egress.reason == Reason::Loopback {
            return Ok(());
        }
        let unknown = set.decide(&unknown.selection(), Profile::Spec, &unknown.probe()).1;
        for (unknown, known) in [(unknown.egress, known.egress), (unknown.ingress, known.ingress)] {
            let (unknown, known) = (passes(unknown.decision), passes(known.decision));
            prop_assert!(unknown.is_none() || unknown == known, "{:?} {:?}", unknown, known);
        }
    }
}
