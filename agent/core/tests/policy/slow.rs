//! The letter of the API once more: slow, obvious, on the objects themselves, sharing no code with
//! what it checks.
//!
//! In: objects that the API server would accept, known ends. Out: whether each side allows. It
//! knows nothing of profiles, unknown ends, or why.

use std::collections::BTreeMap;
use std::net::IpAddr;

use parapet_core::flow::{Direction, End, Endpoint, PodIdentity};
use parapet_core::object::{
    IntOrString, IpBlock, LabelSelector, NetworkPolicy, PolicyPeer, PolicyPort,
};

/// Namespace name to labels.
pub(crate) type NamespaceLabels = BTreeMap<String, BTreeMap<String, String>>;

/// One connection.
pub(crate) struct Connection<'a> {
    pub(crate) source: &'a End,
    pub(crate) target: &'a End,
    pub(crate) protocol: &'a str,
    pub(crate) port: u16,
}

/// Whether this side lets the connection pass.
pub(crate) fn allows(
    policies: &[NetworkPolicy],
    namespaces: &NamespaceLabels,
    direction: Direction,
    connection: &Connection<'_>,
) -> bool {
    let (subject, peer) = match direction {
        Direction::Egress => (connection.source, connection.target),
        Direction::Ingress => (connection.target, connection.source),
    };
    let Endpoint::Pod(pod) = &subject.endpoint else { return true };
    if pod.host_network {
        return true;
    }
    match &peer.endpoint {
        Endpoint::Pod(other) if other.uid == pod.uid => return true,
        // The host network of the pod's own node is that node.
        Endpoint::Pod(other)
            if direction == Direction::Ingress && other.host_network && other.node == pod.node =>
        {
            return true;
        }
        Endpoint::Node(name) if direction == Direction::Ingress && *name == pod.node => {
            return true;
        }
        _ => {}
    }
    let mut isolated = false;
    for policy in policies {
        let empty = LabelSelector::default();
        let selector = policy.spec.pod_selector.as_ref().unwrap_or(&empty);
        if policy.metadata.namespace != *pod.namespace || !selects(selector, &labels_of(pod)) {
            continue;
        }
        if !types(policy).contains(&direction) {
            continue;
        }
        isolated = true;
        for (peers, ports) in rules(policy, direction) {
            let peer_fits = peers.is_empty()
                || peers
                    .iter()
                    .any(|each| fits_peer(each, &policy.metadata.namespace, namespaces, peer));
            let port_fits =
                ports.is_empty() || ports.iter().any(|each| fits_port(each, connection));
            if peer_fits && port_fits {
                return true;
            }
        }
    }
    !isolated
}

fn types(policy: &NetworkPolicy) -> Vec<Direction> {
    let given = policy.spec.policy_types.clone().unwrap_or_default();
    if !given.is_empty() {
        let read = |each: &String| match each.as_str() {
            "Ingress" => Direction::Ingress,
            _ => Direction::Egress,
        };
        return given.iter().map(read).collect();
    }
    let has_egress = policy.spec.egress.as_ref().is_some_and(|rules| !rules.is_empty());
    if has_egress { vec![Direction::Ingress, Direction::Egress] } else { vec![Direction::Ingress] }
}

fn rules(policy: &NetworkPolicy, direction: Direction) -> Vec<(Vec<PolicyPeer>, Vec<PolicyPort>)> {
    let spec = policy.spec.clone();
    let ingress = spec.ingress.unwrap_or_default().into_iter().map(|rule| (rule.from, rule.ports));
    let egress = spec.egress.unwrap_or_default().into_iter().map(|rule| (rule.to, rule.ports));
    let rules: Vec<_> = match direction {
        Direction::Ingress => ingress.collect(),
        Direction::Egress => egress.collect(),
    };
    rules.into_iter().map(|(a, b)| (a.unwrap_or_default(), b.unwrap_or_default())).collect()
}

fn fits_peer(
    peer: &PolicyPeer,
    own_namespace: &str,
    namespaces: &NamespaceLabels,
    end: &End,
) -> bool {
    if let Some(block) = &peer.ip_block {
        return fits_block(block, end.addr.unwrap());
    }
    let Endpoint::Pod(pod) = &end.endpoint else { return false };
    if pod.host_network {
        return false;
    }
    let namespace_fits = match &peer.namespace_selector {
        None => *pod.namespace == *own_namespace,
        Some(selector) => selects(selector, &namespaces[&*pod.namespace]),
    };
    let pod_fits = match &peer.pod_selector {
        None => true,
        Some(selector) => selects(selector, &labels_of(pod)),
    };
    namespace_fits && pod_fits
}

fn fits_block(block: &IpBlock, addr: IpAddr) -> bool {
    in_cidr(&block.cidr, addr) && !block.except.iter().any(|except| in_cidr(except, addr))
}

/// Compares bit by bit.
fn in_cidr(cidr: &str, addr: IpAddr) -> bool {
    let (net, bits) = cidr.split_once('/').unwrap();
    let bits: usize = bits.parse().unwrap();
    let all_bits = |addr: IpAddr| -> String {
        match addr {
            IpAddr::V4(addr) => format!("{:032b}", u32::from(addr)),
            IpAddr::V6(addr) => format!("{:0128b}", u128::from(addr)),
        }
    };
    let (net, addr) = (all_bits(net.parse().unwrap()), all_bits(addr));
    net.len() == addr.len() && net[..bits] == addr[..bits]
}

fn fits_port(rule: &PolicyPort, connection: &Connection<'_>) -> bool {
    let protocol = rule.protocol.as_deref().unwrap_or("TCP");
    if protocol != connection.protocol {
        return false;
    }
    match &rule.port {
        None => true,
        Some(IntOrString::Int(first)) => {
            let last = rule.end_port.unwrap_or(*first);
            *first <= i64::from(connection.port) && i64::from(connection.port) <= last
        }
        Some(IntOrString::String(name)) => {
            let Endpoint::Pod(pod) = &connection.target.endpoint else { return false };
            !pod.host_network
                && pod.named_ports.iter().any(|port| {
                    *port.name == **name
                        && port.port == connection.port
                        && crate::cluster::protocol(protocol) == port.protocol
                })
        }
    }
}

fn labels_of(pod: &PodIdentity) -> BTreeMap<String, String> {
    pod.labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let equal = selector.match_labels.iter().flatten();
    let required = selector.match_expressions.iter().flatten();
    equal.into_iter().all(|(key, value)| labels.get(key) == Some(value))
        && required.into_iter().all(|requirement| {
            let value = labels.get(&requirement.key);
            let listed = |value: &String| requirement.values.iter().flatten().any(|v| v == value);
            match requirement.operator.as_str() {
                "In" => value.is_some_and(listed),
                "NotIn" => !value.is_some_and(listed),
                "Exists" => value.is_some(),
                _ => value.is_none(),
            }
        })
}
