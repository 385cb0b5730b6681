//! Ambient meshes, whose traffic comes in on a port of its own.
//!
//! In: the world. Out: findings at ingress rules that let pods of the mesh in at their real port
//! but not at the tunnel's. Istio's documentation, "Ambient and Kubernetes NetworkPolicy": policies
//! see TCP 15008, and the real port is known only inside of the pod.

use super::cover::{covers_peers, may_admit};
use super::world::{Class, GroupId, World, some_of};
use super::{Findings, LintRule, Said, rule_field};
use crate::flow::{Direction, Protocol};
use crate::policy::compiled::CompiledPolicy;
use crate::policy::pattern::Linked;
use crate::policy::rule::{Peer, Peers, PortChoice, Rule};
use crate::policy::selector::Labels;
use crate::verdict::{Action, Tier};

/// HTTP-based overlay network encapsulation, the mesh's tunnel.
const HBONE_PORT: u16 = 15_008;
/// On a namespace or a pod; the pod's own wins.
const MODE_LABEL: &str = "istio.io/dataplane-mode";
const AMBIENT: &str = "ambient";

pub(super) fn check(world: &World<'_>, findings: &mut Findings) {
    let ambient: Vec<bool> = (0..world.groups.len()).map(|id| is_ambient(world, id)).collect();
    if !ambient.contains(&true) {
        return;
    }
    let is_ambient = |id: &GroupId| ambient.get(*id).copied().unwrap_or(false);
    for class in &world.classes {
        let groups: Vec<GroupId> = class.groups.iter().copied().filter(is_ambient).collect();
        if groups.is_empty() {
            continue;
        }
        for policy in network_policies(world, class) {
            for (at, rule) in ingress(policy).iter().enumerate() {
                if is_for_mesh(world, rule, is_ambient) && !is_tunnelled(world, class, rule) {
                    let problem = format!(
                        "lets traffic of the ambient mesh in at its real port only, but it comes \
                         to TCP {HBONE_PORT}: {}",
                        some_of(world.pods(&groups))
                    );
                    let fix = format!("add TCP {HBONE_PORT} to the rule's ports");
                    let said = Said::error(LintRule::AmbientWithoutHbone, problem, fix);
                    findings.add(policy, rule_field(Direction::Ingress, at), said);
                }
            }
        }
    }
}

fn network_policies<'a>(
    world: &World<'a>,
    class: &Class,
) -> impl Iterator<Item = &'a CompiledPolicy> {
    world.policies_of(class).filter(|policy| policy.tier == Tier::NetworkPolicy)
}

fn ingress(policy: &CompiledPolicy) -> &[Rule] {
    policy.rules(Direction::Ingress).unwrap_or_default()
}

/// Whether the rule has a TCP port for somebody in the mesh.
fn is_for_mesh(
    world: &World<'_>,
    rule: &Rule,
    is_ambient: impl Fn(&GroupId) -> bool + Copy,
) -> bool {
    let of_tcp = rule.ports.iter().any(|port| {
        port.protocol.is_none_or(|protocol| protocol == Protocol::TCP)
            && matches!(port.port, PortChoice::Range(..) | PortChoice::Named(_))
    });
    of_tcp
        && match &rule.peers {
            Peers::Everyone => true,
            Peers::FailsClosed => false,
            Peers::AnyOf(peers) => peers.iter().any(|peer| match peer {
                Peer::Pods(Linked { pattern, .. }) => world.held(pattern).iter().any(is_ambient),
                Peer::Blocks(_) | Peer::Nodes(_) | Peer::Domains(_) => false,
            }),
        }
}

/// Whether the same peers are let in by the tunnel's port, by this rule or by another one.
fn is_tunnelled(world: &World<'_>, class: &Class, rule: &Rule) -> bool {
    let admits = |other: &Rule| {
        other.action == Action::Allow
            && admits_tunnel(other)
            && covers_peers(&other.peers, &rule.peers)
    };
    world.policies_of(class).any(|policy| ingress(policy).iter().any(admits))
}

/// A named port is the pod's own, and the tunnel's has no name there.
fn admits_tunnel(rule: &Rule) -> bool {
    rule.ports.is_empty()
        || rule.ports.iter().any(|port| {
            !matches!(port.port, PortChoice::Named(_))
                && may_admit(std::slice::from_ref(port), Protocol::TCP, HBONE_PORT)
        })
}

fn is_ambient(world: &World<'_>, id: GroupId) -> bool {
    let Some(group) = world.groups.get(id).filter(|group| !group.host_network) else {
        return false;
    };
    let of_namespace = || value_of(world.selection().namespace_labels(group.namespace)?);
    value_of(group.labels).or_else(of_namespace) == Some(AMBIENT)
}

fn value_of(labels: &Labels) -> Option<&str> {
    labels.iter().find(|(key, _)| **key == *MODE_LABEL).map(|(_, value)| &**value)
}
