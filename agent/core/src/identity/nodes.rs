//! Which addresses are nodes, and which ranges are for pods.
//!
//! In: Node objects and what the agent knows of its own node. Out: the node behind an address,
//! whether an address ought to be a pod's. It never takes a pod's address for its node's.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::{HashMap, HashSet};
use ipnet::IpNet;

use crate::object::Node;

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
}

/// Nodes by address.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    by_name: HashMap<Arc<str>, Known>,
    by_addr: HashMap<IpAddr, Arc<str>>,
    ranges: HashSet<IpNet>,
    /// (is IPv6, prefix length) of each range, so that a look-up needs one hash for each length.
    range_lengths: BTreeSet<(bool, u8)>,
    own: Own,
    refused: u64,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Known {
    addrs: Vec<IpAddr>,
    pod_ranges: Vec<IpNet>,
}

#[derive(Debug)]
struct Own {
    name: Arc<str>,
    addrs: Vec<IpAddr>,
}

impl Default for Own {
    fn default() -> Self {
        Self { name: "".into(), addrs: Vec::new() }
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
        match self.by_name.get(name) {
            Some(before) if *before == known => return false,
            None if self.by_name.len() >= NODES_MAX => {
                self.refused += 1;
                return false;
            }
            _ => {}
        }
        self.by_name.insert(name.into(), known);
        self.rebuild();
        true
    }

    pub(super) fn deleted(&mut self, name: &str) -> bool {
        let removed = self.by_name.remove(name).is_some();
        if removed {
            self.rebuild();
        }
        removed
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        let before = self.by_name.len();
        self.by_name.retain(|name, _| keep(name));
        if before != self.by_name.len() {
            self.rebuild();
        }
    }

    pub(super) fn set_own(&mut self, facts: &NodeFacts) {
        let addrs = facts.addrs.iter().map(|addr| addr.to_canonical()).take(PER_NODE_MAX).collect();
        self.own = Own { name: facts.name.as_str().into(), addrs };
        self.rebuild();
    }

    fn rebuild(&mut self) {
        self.by_addr.clear();
        self.ranges.clear();
        self.range_lengths.clear();
        // In the order of names, so that two nodes with one address make one answer.
        let mut known: Vec<_> = self.by_name.iter().collect();
        known.sort_by(|a, b| b.0.cmp(a.0));
        for (name, node) in known {
            self.by_addr.extend(node.addrs.iter().map(|addr| (*addr, name.clone())));
            self.ranges.extend(&node.pod_ranges);
        }
        // What this node says of itself is surer than what the cluster says of any.
        self.by_addr.extend(self.own.addrs.iter().map(|addr| (*addr, self.own.name.clone())));
        self.range_lengths
            .extend(self.ranges.iter().map(|range| (range.addr().is_ipv6(), range.prefix_len())));
    }

    /// This node's name; empty if not known.
    pub(super) fn own_name(&self) -> &Arc<str> {
        &self.own.name
    }

    /// This node's address of a family: what the cluster says first, bridges and tunnels last.
    pub(super) fn own_addr(&self, ipv6: bool) -> Option<IpAddr> {
        let listed = self.by_name.get(&self.own.name).map_or(&[][..], |node| &node.addrs);
        listed.iter().chain(&self.own.addrs).find(|addr| addr.is_ipv6() == ipv6).copied()
    }

    /// The node with this address.
    pub(super) fn by_addr(&self, addr: IpAddr) -> Option<&Arc<str>> {
        self.by_addr.get(&addr)
    }

    /// Whether the address is in a node's range for pods.
    pub(super) fn is_for_pods(&self, addr: IpAddr) -> bool {
        self.range_lengths.iter().any(|&(ipv6, length)| {
            ipv6 == addr.is_ipv6()
                && IpNet::new(addr, length).is_ok_and(|net| self.ranges.contains(&net.trunc()))
        })
    }

    /// Entries, and how many were refused.
    pub(super) fn sizes(&self) -> (usize, u64) {
        (self.by_name.len(), self.refused)
    }
}
