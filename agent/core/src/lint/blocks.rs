//! Blocks of addresses that lead into the cluster.
//!
//! In: the blocks of all rules, the addresses of pods, nodes and Services. Out: findings about
//! blocks that hold pods or a Service and nothing else. A block that may hold anything besides is
//! left alone.

use std::net::IpAddr;

use foldhash::HashMap;
use ipnet::IpNet;

use super::world::{World, peers, rules, some_of};
use super::{Findings, LintRule, Said, peer_field};
use crate::flow::PodIdentity;
use crate::policy::rule::{Block, Peer};

/// A range that is this much wider than a node's range for pods may still be the cluster's range.
const CLUSTER_BITS_MAX: u8 = 8;

/// Addresses of the cluster, by what they are.
struct Addresses<'a> {
    pods: HashMap<IpAddr, &'a PodIdentity>,
    /// Sorted, so that a block's pods are one slice.
    sorted: Vec<IpAddr>,
    pod_ranges: Vec<IpNet>,
    nodes: Vec<IpAddr>,
}

pub(super) fn check(world: &World<'_>, findings: &mut Findings) {
    let addresses = Addresses::new(world);
    for policy in &world.policies {
        for (direction, at, rule) in rules(policy) {
            for (peer_at, peer) in peers(rule) {
                let Peer::Blocks(blocks) = peer else { continue };
                for block in blocks {
                    let said = addresses.check_pods(block).or_else(|| check_service(world, block));
                    if let Some(said) = said {
                        findings.add(policy, peer_field(direction, at, peer_at), said);
                    }
                }
            }
        }
    }
}

impl<'a> Addresses<'a> {
    fn new(world: &World<'a>) -> Self {
        let mut pods = HashMap::default();
        for group in world.groups.iter().filter(|group| !group.host_network) {
            for pod in &group.pods {
                pods.extend(pod.addrs.iter().map(|addr| (*addr, *pod)));
            }
        }
        let mut sorted: Vec<IpAddr> = pods.keys().copied().collect();
        sorted.sort_unstable();
        let mut pod_ranges: Vec<IpNet> = world.index.pod_ranges().copied().collect();
        pod_ranges.sort_unstable();
        let nodes = world.index.node_addrs().copied().collect();
        Self { pods, sorted, pod_ranges, nodes }
    }

    fn check_pods(&self, block: &Block) -> Option<Said> {
        let start = self.sorted.partition_point(|addr| *addr < block.net.network());
        let end = self.sorted.partition_point(|addr| *addr <= block.net.broadcast());
        let held = self.sorted.get(start..end)?;
        let mut held = held.iter().filter(|addr| {
            block.net.contains(*addr) && !block.except.iter().any(|each| each.contains(*addr))
        });
        held.clone().next()?;
        let one_address = block.net.prefix_len() == block.net.max_prefix_len();
        if !one_address && !self.is_for_pods(&block.net) {
            return None;
        }
        let pods = held.by_ref().filter_map(|addr| self.pods.get(addr).copied());
        let problem =
            format!("{} holds pods of this cluster and nothing else: {}", block.net, some_of(pods));
        let fix = "select the pods by their labels: pods change their addresses, and not every \
            implementation asks blocks about them";
        Some(Said::warning(LintRule::BlockHoldsPods, problem, fix))
    }

    /// Whether the net is inside of a node's range for pods, or is what these ranges are cut from.
    fn is_for_pods(&self, net: &IpNet) -> bool {
        let mut ranges = self.pod_ranges.iter();
        if ranges.clone().any(|range| range.contains(net)) {
            return true;
        }
        let cut_from = ranges.any(|range| {
            net.contains(range) && range.prefix_len() - net.prefix_len() <= CLUSTER_BITS_MAX
        });
        cut_from && !self.nodes.iter().any(|addr| net.contains(addr))
    }
}

fn check_service(world: &World<'_>, block: &Block) -> Option<Said> {
    if block.net.prefix_len() < block.net.max_prefix_len() {
        return None;
    }
    let (namespace, name) = world.index.service_with_addr(block.net.addr())?;
    let problem = format!(
        "{} is the address of Service {namespace}/{name}: where it is replaced by a pod's before \
         policies are asked, the block never matches",
        block.net.addr()
    );
    let fix = "select the Service's pods by their labels, with the pods' port";
    Some(Said::warning(LintRule::BlockHoldsService, problem, fix))
}
