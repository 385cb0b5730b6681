//! Which addresses are nodes, and which ranges are for pods.
//!
//! In: Node objects and what the agent knows of its own node. Out: the node behind an address,
//! whether an address ought to be a pod's or means many at once. It never takes a pod's address for
//! its node's: what it only guesses it says apart from what it knows.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use foldhash::{HashMap, HashSet};
use ipnet::IpNet;

use super::few::Few;
use crate::flow::Group;
use crate::listing::Listing;
use crate::object::{NODE_ADDRESS_ANNOTATIONS, Node};

/// Nodes known at once. Further ones are refused and counted.
pub const NODES_MAX: usize = 16_384;
/// Addresses and ranges that count of one node.
const PER_NODE_MAX: usize = 1_024;

/// What the agent knows of the node it runs on without asking the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its name in the cluster; empty if not known.
    pub name: String,
    /// Every address of the host's network namespace.
    pub addrs: Vec<std::net::IpAddr>,
    /// The broadcast addresses of the networks it is in.
    pub broadcasts: Vec<std::net::IpAddr>,
}

/// Nodes by address.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    by_name: HashMap<Arc<str>, Known>,
    by_addr: HashMap<IpAddr, Few<Arc<str>>>,
    by_tunnel: HashMap<IpAddr, Few<Arc<str>>>,
    ranges: HashMap<IpNet, Few<Arc<str>>>,
    /// (is IPv6, prefix length) of the ranges to how many there are, so that a look-up needs one
    /// hash for each length.
    range_lengths: BTreeMap<(bool, u8), usize>,
    own: Own,
    listing: Listing<Arc<str>>,
    refused: u64,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Known {
    addrs: Vec<IpAddr>,
    /// Of its tunnels and bridges, as its network plugin says.
    tunnels: Vec<IpAddr>,
    pod_ranges: Vec<IpNet>,
}

#[derive(Debug)]
struct Own {
    name: Arc<str>,
    /// In the order they were given, and to look up.
    addrs: Vec<IpAddr>,
    known: HashSet<IpAddr>,
    broadcasts: HashSet<IpAddr>,
}

impl Default for Own {
    fn default() -> Self {
        let (known, broadcasts) = (HashSet::default(), HashSet::default());
        Self { name: "".into(), addrs: Vec::new(), known, broadcasts }
    }
}

impl Nodes {
    /// Whether anything about the node changed.
    pub(super) fn applied(&mut self, node: &Node) -> bool {
        let known = Known {
            addrs: node
                .status
                .addresses
                .iter()
                .filter_map(|address| address.address.parse::<IpAddr>().ok())
                .map(|addr| addr.to_canonical())
                .take(PER_NODE_MAX)
                .collect(),
            tunnels: tunnels_of(node),
            pod_ranges: node
                .spec
                .pod_cidrs
                .iter()
                .filter_map(|range| range.parse::<IpNet>().ok())
                .map(|range| range.trunc())
                .take(PER_NODE_MAX)
                .collect(),
        };
        let name = node.metadata.name.as_str();
        self.listing.named(name);
        match self.by_name.get(name) {
            Some(before) if *before == known => return false,
            None if self.by_name.len() >= NODES_MAX => {
                self.refused += 1;
                return false;
            }
            _ => {}
        }
        self.forget(name);
        self.insert(name.into(), known);
        true
    }

    /// Whether there was room for the node of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    pub(super) fn deleted(&mut self, name: &str) -> bool {
        self.forget(name)
    }

    pub(super) fn begin_list(&mut self) {
        self.listing.begin(self.by_name.keys().cloned());
    }

    /// The nodes that a full list did not hold.
    pub(super) fn end_list(&mut self) -> impl Iterator<Item = Arc<str>> + use<> {
        self.listing.end().into_iter().flatten()
    }

    pub(super) fn set_own(&mut self, facts: &NodeFacts) {
        let addrs: Vec<_> =
            facts.addrs.iter().map(|addr| addr.to_canonical()).take(PER_NODE_MAX).collect();
        let known = addrs.iter().copied().collect();
        let broadcasts = facts.broadcasts.iter().take(PER_NODE_MAX).copied().collect();
        self.own = Own { name: facts.name.as_str().into(), addrs, known, broadcasts };
    }

    fn insert(&mut self, name: Arc<str>, node: Known) {
        let one = || Few::One(name.clone());
        for addr in &node.addrs {
            self.by_addr.entry(*addr).or_insert_with(one).insert(name.clone());
        }
        for addr in &node.tunnels {
            self.by_tunnel.entry(*addr).or_insert_with(one).insert(name.clone());
        }
        for range in &node.pod_ranges {
            let names = self.ranges.entry(*range).or_insert_with(|| {
                *self.range_lengths.entry(length_of(range)).or_default() += 1;
                one()
            });
            names.insert(name.clone());
        }
        self.by_name.insert(name, node);
    }

    fn forget(&mut self, name: &str) -> bool {
        let Some((name, node)) = self.by_name.remove_entry(name) else { return false };
        for addr in &node.addrs {
            if self.by_addr.get_mut(addr).is_some_and(|names| names.remove(&name)) {
                self.by_addr.remove(addr);
            }
        }
        for addr in &node.tunnels {
            if self.by_tunnel.get_mut(addr).is_some_and(|names| names.remove(&name)) {
                self.by_tunnel.remove(addr);
            }
        }
        for range in &node.pod_ranges {
            if self.ranges.get_mut(range).is_some_and(|names| names.remove(&name)) {
                self.ranges.remove(range);
                let length = length_of(range);
                if let Some(count) = self.range_lengths.get_mut(&length) {
                    *count -= 1;
                    if *count == 0 {
                        self.range_lengths.remove(&length);
                    }
                }
            }
        }
        true
    }

    /// This node's name; empty if not known.
    pub(super) fn own_name(&self) -> &Arc<str> {
        &self.own.name
    }

    /// Every address of this node.
    pub(super) fn own_addrs(&self) -> &[IpAddr] {
        &self.own.addrs
    }

    /// This node's address of a family: what the cluster says first, bridges and tunnels last.
    pub(super) fn own_addr(&self, ipv6: bool) -> Option<IpAddr> {
        let listed = self.by_name.get(&self.own.name).map_or(&[][..], |node| &node.addrs);
        listed.iter().chain(&self.own.addrs).find(|addr| addr.is_ipv6() == ipv6).copied()
    }

    /// The addresses that the cluster says this node has.
    pub(super) fn addrs_of(&self, name: &str) -> &[IpAddr] {
        self.by_name.get(name).map_or(&[][..], |node| &node.addrs)
    }

    /// The node with this address: of several the first by name, so that there is one answer. What
    /// this node says of itself is surer than what the cluster says of any.
    pub(super) fn by_addr(&self, addr: IpAddr) -> Option<&Arc<str>> {
        if self.own.known.contains(&addr) {
            return Some(&self.own.name);
        }
        self.by_addr.get(&addr).and_then(|names| names.iter().next())
    }

    /// The node whose tunnel or bridge has this address, as its network plugin says.
    pub(super) fn by_tunnel(&self, addr: IpAddr) -> Option<&Arc<str>> {
        self.by_tunnel.get(&addr).and_then(|names| names.iter().next())
    }

    /// The node whose bridge or tunnel most likely has this address, if no pod does: the first two
    /// of a node's range for pods are those of flannel.1 and of cni0, of Cilium's router, of
    /// Antrea's and OVN's gateways. Calico gives them to pods.
    pub(super) fn by_range(&self, addr: IpAddr) -> Option<&Arc<str>> {
        let found = self.ranges_of(addr).find(|(range, _)| {
            let first = match range.network() {
                IpAddr::V4(first) => u128::from(first.to_bits()),
                IpAddr::V6(first) => first.to_bits(),
            };
            let asked = match addr {
                IpAddr::V4(addr) => u128::from(addr.to_bits()),
                IpAddr::V6(addr) => addr.to_bits(),
            };
            // A range of one or two addresses has none to spare.
            asked.wrapping_sub(first) < 2 && range.prefix_len() + 2 <= range.max_prefix_len()
        });
        found.and_then(|(_, names)| names.iter().next())
    }

    /// Whether the address is in a node's range for pods.
    pub(super) fn is_for_pods(&self, addr: IpAddr) -> bool {
        self.ranges_of(addr).next().is_some()
    }

    /// The ranges that hold the address, the widest first, with their nodes.
    fn ranges_of(&self, addr: IpAddr) -> impl Iterator<Item = (&IpNet, &Few<Arc<str>>)> {
        let lengths = self.range_lengths.keys().filter(move |(ipv6, _)| *ipv6 == addr.is_ipv6());
        lengths.filter_map(move |(_, length)| {
            let net = IpNet::new(addr, *length).ok()?;
            self.ranges.get_key_value(&net.trunc())
        })
    }

    /// What the address means if it means many at once.
    pub(super) fn group(&self, addr: IpAddr) -> Option<Group> {
        match addr {
            _ if addr.is_multicast() => Some(Group::Multicast),
            IpAddr::V4(Ipv4Addr::BROADCAST) => Some(Group::Broadcast),
            _ if self.own.broadcasts.contains(&addr) => Some(Group::Broadcast),
            _ => None,
        }
    }

    /// The nodes' ranges for pods, in no order.
    pub(super) fn pod_ranges(&self) -> impl Iterator<Item = &IpNet> {
        self.ranges.keys()
    }

    /// The addresses that the cluster gives its nodes, in no order: without this node's bridges,
    /// which are in its range for pods.
    pub(super) fn addrs(&self) -> impl Iterator<Item = &IpAddr> {
        self.by_addr.keys()
    }

    /// Entries, and how many were refused.
    pub(super) fn sizes(&self) -> (usize, u64) {
        (self.by_name.len(), self.refused)
    }
}

/// Calico writes some with a prefix length.
fn tunnels_of(node: &Node) -> Vec<IpAddr> {
    let texts = NODE_ADDRESS_ANNOTATIONS
        .into_iter()
        .filter_map(|name| node.metadata.annotations.get(name))
        .map(|text| text.split_once('/').map_or(text.as_str(), |(addr, _)| addr));
    texts.filter_map(|text| text.parse::<IpAddr>().ok()).map(|addr| addr.to_canonical()).collect()
}

fn length_of(range: &IpNet) -> (bool, u8) {
    (range.addr().is_ipv6(), range.prefix_len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, addrs: &[&str], ranges: &[&str]) -> Node {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": name},
            "spec": {"podCIDRs": ranges},
            "status": {"addresses":
                addrs.iter().map(|a| serde_json::json!({"type": "x", "address": a})).collect::<Vec<_>>()},
        }))
        .expect("the test's node is well-formed")
    }

    #[test]
    fn tunnels_and_the_first_of_a_range_are_forgotten_with_their_node() {
        let addr = |text: &str| text.parse::<IpAddr>().expect("an address");
        let with_tunnel = |name: &str, tunnel: &str| {
            let mut node = node(name, &["192.0.2.1"], &["10.0.0.0/24", "10.0.1.0/30", "fd00::/64"]);
            let annotation = "projectcalico.org/IPv4VXLANTunnelAddr".to_owned();
            node.metadata.annotations.insert(annotation, tunnel.to_owned());
            node
        };
        let mut nodes = Nodes::default();
        assert!(nodes.applied(&with_tunnel("b", "10.9.0.1")));
        assert!(nodes.applied(&with_tunnel("a", "10.9.0.1/32")));
        assert!(nodes.applied(&with_tunnel("b", "10.9.0.2")));
        let tunnels = |nodes: &Nodes| {
            ["10.9.0.1", "10.9.0.2"].map(|at| nodes.by_tunnel(addr(at)).map(ToString::to_string))
        };
        let name = |name: &str| Some(name.to_owned());
        assert_eq!(tunnels(&nodes), [name("a"), name("b")]);
        let firsts =
            ["10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.1.1", "fd00::", "fd00::1", "fd00::2"];
        let guessed = |nodes: &Nodes| {
            firsts.map(|first| nodes.by_range(addr(first)).map_or("", |name| &**name).to_owned())
        };
        assert_eq!(guessed(&nodes), ["a", "a", "", "a", "a", "a", ""].map(str::to_owned));
        assert!(nodes.deleted("a"));
        assert_eq!(tunnels(&nodes), [None, name("b")]);
        assert!(nodes.deleted("b"));
        assert_eq!(guessed(&nodes), [""; 7].map(str::to_owned));
        assert_eq!((nodes.by_tunnel.len(), nodes.ranges.len()), (0, 0));
    }

    #[test]
    fn what_two_nodes_have_stays_until_both_are_gone() {
        let addr = |text: &str| text.parse::<IpAddr>().expect("an address");
        let mut nodes = Nodes::default();
        let asked = |nodes: &Nodes| {
            let name = nodes.by_addr(addr("192.0.2.1")).map(ToString::to_string);
            (name, ["10.0.0.9", "10.0.1.9", "fd00::9"].map(|pod| nodes.is_for_pods(addr(pod))))
        };
        let shared = ["192.0.2.1", "192.0.2.1"];
        assert!(nodes.applied(&node("b", &shared, &["10.0.0.0/24", "10.0.1.0/24"])));
        assert!(nodes.applied(&node("a", &shared, &["10.0.0.0/24", "10.0.0.7/24", "fd00::/64"])));
        assert!(!nodes.applied(&node("a", &shared, &["10.0.0.0/24", "10.0.0.7/24", "fd00::/64"])));
        // Of two the first by name, in whatever order they came.
        assert_eq!(asked(&nodes), (Some("a".to_owned()), [true, true, true]));
        assert!(nodes.applied(&node("b", &["192.0.2.1"], &["10.0.0.0/24"])));
        assert_eq!(asked(&nodes), (Some("a".to_owned()), [true, false, true]));
        assert!(nodes.deleted("a") && !nodes.deleted("a"));
        assert_eq!(asked(&nodes), (Some("b".to_owned()), [true, false, false]));
        nodes.set_own(&NodeFacts {
            name: "own".to_owned(),
            addrs: vec![addr("::ffff:192.0.2.1")],
            ..NodeFacts::default()
        });
        assert_eq!(asked(&nodes).0, Some("own".to_owned()));
        nodes.set_own(&NodeFacts::default());
        assert!(nodes.deleted("b"));
        assert_eq!(asked(&nodes), (None, [false, false, false]));
        assert_eq!((nodes.by_addr.len(), nodes.ranges.len(), nodes.range_lengths.len()), (0, 0, 0));
    }
}
