//! Policies of the whole cluster, valid and not.
//!
//! In: the bytes that are left. Out: ClusterNetworkPolicies, AdminNetworkPolicies and baseline ones
//! as their APIs have them. It checks nothing: what is refused is for the compiler to say.

use arbitrary::Result;
use parapet_core::object::{
    AdminNetworkPolicy, AdminNetworkPolicySpec, AdminPolicyPort, AdminPolicyRule, AdminPortNumber,
    AdminPortRange, ClusterNetworkPolicy, ClusterNetworkPolicySpec, ClusterPolicyPeer,
    ClusterPolicyProtocol, ClusterPolicyRule, ClusterPolicySubject, Meta, NamespacedPods, Object,
    PortOrRange, PortRange, ProtocolPorts,
};

use super::draw::{Draw, cidr, flag, maybe, several, some, word};
use super::rules::{PORT_NAMES, selector};

const TIERS: [&str; 2] = ["Admin", "Baseline"];
const CLUSTER_ACTIONS: [&str; 3] = ["Accept", "Deny", "Pass"];
const ADMIN_ACTIONS: [&str; 3] = ["Allow", "Deny", "Pass"];
pub(super) const DOMAINS: [&str; 3] = ["example.com", "*.example.com", "a.example.com"];

/// Which of the two APIs' words are drawn.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Ingress,
    Egress,
}

pub(super) fn cluster_policy(u: &mut Draw<'_>, number: usize) -> Result<Object> {
    let metadata = Meta { name: format!("p{number}"), ..Meta::default() };
    let kind = u.int_in_range(0..=3_u8)?;
    // Few, so that some are equal.
    let priority =
        if u.is_odd()? { maybe(u, |u| u.arbitrary())? } else { Some(u.int_in_range(0..=2)?) };
    let subject = if u.is_odd()? { None } else { Some(subject(u)?) };
    if kind < 2 {
        let spec = ClusterNetworkPolicySpec {
            tier: Some(word(u, &TIERS)?),
            priority,
            subject,
            ingress: maybe(u, |u| several(u, 3, |u| cluster_rule(u, Direction::Ingress)))?,
            egress: maybe(u, |u| several(u, 3, |u| cluster_rule(u, Direction::Egress)))?,
        };
        return Ok(Object::ClusterNetworkPolicy(ClusterNetworkPolicy { metadata, spec }));
    }
    // The baseline has nothing to pass to.
    let actions = &ADMIN_ACTIONS[..if kind == 2 || u.is_odd()? { 3 } else { 2 }];
    let spec = AdminNetworkPolicySpec {
        priority: priority.filter(|_| kind == 2),
        subject,
        ingress: maybe(u, |u| several(u, 3, |u| admin_rule(u, actions, Direction::Ingress)))?,
        egress: maybe(u, |u| several(u, 3, |u| admin_rule(u, actions, Direction::Egress)))?,
    };
    if kind == 2 {
        return Ok(Object::AdminNetworkPolicy(AdminNetworkPolicy { metadata, spec }));
    }
    let metadata = Meta { name: word(u, &["default"])?, ..metadata };
    Ok(Object::BaselineAdminNetworkPolicy(AdminNetworkPolicy { metadata, spec }))
}

fn subject(u: &mut Draw<'_>) -> Result<ClusterPolicySubject> {
    let (namespaces, pods) = one_of_two(u)?;
    Ok(ClusterPolicySubject {
        namespaces: namespaces.then(|| selector(u)).transpose()?,
        pods: pods.then(|| namespaced_pods(u)).transpose()?,
    })
}

/// Or, oddly, anything: both and none included.
fn one_of_two(u: &mut Draw<'_>) -> Result<(bool, bool)> {
    if u.is_odd()? {
        return Ok((flag(u)?, flag(u)?));
    }
    let first = flag(u)?;
    Ok((first, !first))
}

fn namespaced_pods(u: &mut Draw<'_>) -> Result<NamespacedPods> {
    let pod_selector = Some(selector(u)?);
    Ok(NamespacedPods { namespace_selector: maybe(u, selector)?, pod_selector })
}

fn cluster_rule(u: &mut Draw<'_>, direction: Direction) -> Result<ClusterPolicyRule> {
    let action = word(u, &CLUSTER_ACTIONS)?;
    let (from, to) = peers(u, direction)?;
    Ok(ClusterPolicyRule { name: None, action, from, to, protocols: maybe(u, protocols)? })
}

fn admin_rule(u: &mut Draw<'_>, actions: &[&str], direction: Direction) -> Result<AdminPolicyRule> {
    let action = word(u, actions)?;
    let (from, to) = peers(u, direction)?;
    Ok(AdminPolicyRule { name: None, action, from, to, ports: maybe(u, admin_ports)? })
}

type Peers = Option<Vec<ClusterPolicyPeer>>;

fn peers(u: &mut Draw<'_>, direction: Direction) -> Result<(Peers, Peers)> {
    let peers = Some(some(u, 3, |u| peer(u, direction))?);
    // On the wrong side it is refused.
    let is_ingress = (direction == Direction::Ingress) != u.is_odd()?;
    Ok(if is_ingress { (peers, None) } else { (None, peers) })
}

fn peer(u: &mut Draw<'_>, direction: Direction) -> Result<ClusterPolicyPeer> {
    let mut peer = ClusterPolicyPeer::default();
    // The last ones are for egress, and odd elsewhere.
    let most = if direction == Direction::Egress || u.is_odd()? { 9 } else { 4 };
    match u.int_in_range(0..=most)? {
        0..=1_u8 => peer.namespaces = Some(selector(u)?),
        2..=4 => peer.pods = Some(namespaced_pods(u)?),
        5 => peer.nodes = Some(selector(u)?),
        6..=7 => peer.networks = Some(some(u, 2, cidr)?),
        8 => peer.domain_names = Some(some(u, 2, |u| word(u, &DOMAINS))?),
        // Something newer.
        _ => drop(peer.unknown.insert("sets".to_owned(), Default::default())),
    }
    Ok(peer)
}

fn protocols(u: &mut Draw<'_>) -> Result<Vec<ClusterPolicyProtocol>> {
    some(u, 3, |u| {
        let mut protocol = ClusterPolicyProtocol::default();
        match u.int_in_range(0..=8_u8)? {
            0..=3 => protocol.tcp = Some(protocol_ports(u)?),
            4..=5 => protocol.udp = Some(protocol_ports(u)?),
            6 => protocol.sctp = Some(protocol_ports(u)?),
            7 => protocol.destination_named_port = Some(word(u, &PORT_NAMES)?),
            _ => drop(protocol.unknown.insert("icmp".to_owned(), Default::default())),
        }
        Ok(protocol)
    })
}

fn protocol_ports(u: &mut Draw<'_>) -> Result<ProtocolPorts> {
    let port_or_range = |u: &mut Draw<'_>| {
        let (is_number, is_range) = one_of_two(u)?;
        let number = is_number.then(|| port_number(u)).transpose()?;
        let range = is_range.then(|| port_range(u)).transpose()?;
        let range = range.map(|(start, end)| PortRange { start, end });
        Ok(PortOrRange { number, range, ..PortOrRange::default() })
    };
    let is_missing = u.is_odd()?;
    let destination_port = (!is_missing).then(|| port_or_range(u)).transpose()?;
    Ok(ProtocolPorts { destination_port, ..ProtocolPorts::default() })
}

fn port_number(u: &mut Draw<'_>) -> Result<i64> {
    if u.is_odd()? { u.arbitrary() } else { u.int_in_range(79..=83) }
}

fn port_range(u: &mut Draw<'_>) -> Result<(i64, i64)> {
    let start = port_number(u)?;
    let more = if u.is_odd()? { u.int_in_range(-1..=0)? } else { u.int_in_range(1..=4)? };
    Ok((start, start.saturating_add(more)))
}

fn admin_ports(u: &mut Draw<'_>) -> Result<Vec<AdminPolicyPort>> {
    some(u, 3, |u| {
        let mut port = AdminPolicyPort::default();
        let protocol = |u: &mut Draw<'_>| word(u, &["TCP", "UDP", "SCTP"]);
        match u.int_in_range(0..=8_u8)? {
            0..=3 => {
                let protocol = maybe(u, protocol)?;
                port.port_number = Some(AdminPortNumber { protocol, port: port_number(u)? });
            }
            4..=6 => {
                let protocol = maybe(u, protocol)?;
                let (start, end) = port_range(u)?;
                port.port_range = Some(AdminPortRange { protocol, start, end });
            }
            7 => port.named_port = Some(word(u, &PORT_NAMES)?),
            _ => drop(port.unknown.insert("icmp".to_owned(), Default::default())),
        }
        Ok(port)
    })
}
