//! Selectors and port names that hold of nothing that is there now.
//!
//! In: the world as it is. Out: findings about subjects, peers and named ports. It says nothing of
//! selectors that ask for nothing: all pods of a namespace without pods is no mistake.

use super::cover::contradiction;
use super::world::{GroupId, World, peers, rules, some_of};
use super::{Findings, LintRule, Said, name_of, peer_field, port_field, subject_field};
use crate::flow::{Direction, Protocol};
use crate::policy::compiled::CompiledPolicy;
use crate::policy::pattern::{Linked, NamespaceChoice, Pattern};
use crate::policy::rule::{Peer, Peers, PortChoice, PortRule, Rule};
use crate::policy::selector::{Known, Selector};

pub(super) fn check(world: &World<'_>, findings: &mut Findings) {
    // Without a cluster nothing can be said of what selectors hold of.
    if world.groups.is_empty() {
        return;
    }
    for policy in &world.policies {
        check_subject(world, policy, findings);
        for (direction, at, rule) in rules(policy) {
            for (peer_at, peer) in peers(rule) {
                let said = match peer {
                    Peer::Pods(Linked { pattern, .. }) => {
                        check_pattern(world, rule, (peer_at, pattern))
                    }
                    Peer::Nodes(selector) => check_nodes(world, selector),
                    Peer::Blocks(_) | Peer::Domains(_) => None,
                };
                if let Some(said) = said {
                    findings.add(policy, peer_field(direction, at, peer_at), said);
                }
            }
            check_named_ports(world, policy, (direction, at, rule), findings);
        }
    }
}

fn check_subject(world: &World<'_>, policy: &CompiledPolicy, findings: &mut Findings) {
    let subject = &policy.subject.pattern;
    let of_one = matches!(subject.namespaces, NamespaceChoice::Only(_));
    let field = subject_field(policy.kind);
    let held = world.held(subject);
    let selection = world.selection();
    if held.is_empty() {
        if of_one && selection.namespaces().len() > 0 && !selection.has_namespace(&policy.namespace)
        {
            let problem = format!("there is no namespace {}", policy.namespace);
            let fix = "correct metadata.namespace, or create the namespace first";
            let said = Said::warning(LintRule::NamespaceMissing, problem, fix);
            return findings.add(policy, "metadata.namespace", said);
        }
        if !asks_for_nothing(subject) && !is_contradictory(subject) {
            let problem = format!("selects nothing that is there now: {subject}");
            let fix = "compare the selector with the labels of the pods it is for";
            findings.add(policy, field, Said::warning(LintRule::SelectsNoPods, problem, fix));
        }
        return;
    }
    let hosts: Vec<GroupId> = held.iter().copied().filter(|id| !world.is_subject(*id)).collect();
    // Nearly every cluster-wide subject holds of some.
    if hosts.is_empty() || hosts.len() < held.len() && !of_one {
        return;
    }
    let problem = format!(
        "selects pods on the host network, where policies have no effect: {}",
        some_of(world.pods(&hosts))
    );
    let said = if hosts.len() == held.len() {
        let fix = "remove the policy, or take the pods off the host network (spec.hostNetwork)";
        Said::error(LintRule::HostNetworkSubject, problem, fix)
    } else {
        let fix = "do not count on it for these pods; guard them by a firewall on their nodes";
        Said::warning(LintRule::HostNetworkSubject, problem, fix)
    };
    findings.add(policy, field, said);
}

fn asks_for_nothing(pattern: &Pattern) -> bool {
    let namespaces = match &pattern.namespaces {
        NamespaceChoice::Only(_) => true,
        NamespaceChoice::Labelled(selector) => selector.is_everything(),
    };
    namespaces && pattern.pods.is_everything()
}

fn is_contradictory(pattern: &Pattern) -> bool {
    let namespaces = match &pattern.namespaces {
        NamespaceChoice::Only(_) => None,
        NamespaceChoice::Labelled(selector) => contradiction(selector),
    };
    namespaces.or_else(|| contradiction(&pattern.pods)).is_some()
}

fn check_pattern(world: &World<'_>, rule: &Rule, (at, pattern): (usize, &Pattern)) -> Option<Said> {
    let held = world.held(pattern);
    if held.iter().any(|id| world.is_subject(*id)) || is_contradictory(pattern) {
        return None;
    }
    if !held.is_empty() {
        let problem = format!(
            "matches pods on the host network only, which have their nodes' addresses: {}",
            some_of(world.pods(held))
        );
        let fix = "allow the nodes' addresses with an ipBlock (or a nodes peer) instead";
        return Some(Said::warning(LintRule::PeerIsHostNetwork, problem, fix));
    }
    let selection = world.selection();
    if let NamespaceChoice::Labelled(selector) = &pattern.namespaces
        && selection.namespaces().len() > 0
    {
        let mut known = selection.namespaces().filter(|name| {
            let labels = selection.namespace_labels(name);
            pattern.holds_namespace(name, labels) != Known::No
        });
        if known.next().is_none() {
            let problem = format!("matches no namespace that is there now: {selector}");
            let fix = "compare the selector with the labels of the namespaces it is for; each has \
                kubernetes.io/metadata.name with its own name";
            return Some(Said::warning(LintRule::PeerMatchesNoNamespace, problem, fix));
        }
    }
    // The namespaces are right, and who may be in them is not for the rule to know.
    if pattern.pods.is_everything() {
        return None;
    }
    let problem = format!("matches nothing that is there now: {pattern}");
    let fix = match split_peer(world, rule, (at, pattern)) {
        Some(other) => format!(
            "items of the list are alternatives: for these pods of the namespaces of item {other} \
             put both selectors into one item"
        ),
        None => "compare the selector with the labels of the pods it is for; a podSelector alone \
             means the policy's own namespace"
            .to_owned(),
    };
    Some(Said::warning(LintRule::PeerMatchesNoPods, problem, fix))
}

/// The peer beside this one whose namespaces have the pods this one looks for in its own.
fn split_peer(world: &World<'_>, rule: &Rule, (at, pattern): (usize, &Pattern)) -> Option<usize> {
    let NamespaceChoice::Only(_) = pattern.namespaces else { return None };
    let found = peers(rule).find(|(other_at, other)| match other {
        Peer::Pods(Linked { pattern: other, .. }) => {
            let wide = matches!(other.namespaces, NamespaceChoice::Labelled(_))
                && other.pods.is_everything();
            let held = || world.held(other).iter().filter_map(|id| world.groups.get(*id));
            *other_at != at && wide && held().any(|group| pattern.pods.matches(group.labels))
        }
        Peer::Blocks(_) | Peer::Nodes(_) | Peer::Domains(_) => false,
    });
    found.map(|(other_at, _)| other_at)
}

fn check_nodes(world: &World<'_>, selector: &Selector) -> Option<Said> {
    let mut nodes = world.selection().nodes_labels();
    if nodes.len() == 0 || contradiction(selector).is_some() {
        return None;
    }
    if nodes.any(|labels| selector.matches(labels)) {
        return None;
    }
    let problem = format!("matches no node that is there now: {selector}");
    let fix = "compare the selector with the labels of the nodes it is for";
    Some(Said::warning(LintRule::PeerMatchesNoNodes, problem, fix))
}

fn check_named_ports(
    world: &World<'_>,
    policy: &CompiledPolicy,
    (direction, at, rule): (Direction, usize, &Rule),
    findings: &mut Findings,
) {
    for (port_at, PortRule { protocol, port }) in rule.ports.iter().enumerate() {
        let PortChoice::Named(name) = port else { continue };
        // Asked for a named port is always the target.
        let targets: Vec<GroupId> = match (direction, &rule.peers) {
            (_, Peers::FailsClosed) => continue,
            (Direction::Ingress, _) => world.held(&policy.subject.pattern).to_vec(),
            (Direction::Egress, Peers::Everyone) => (0..world.groups.len()).collect(),
            (Direction::Egress, Peers::AnyOf(_)) => held_by_peers(world, rule),
        };
        let subjects = || targets.iter().copied().filter(|id| world.is_subject(*id));
        let of_pods = peers(rule).any(|(_, peer)| matches!(peer, Peer::Pods(_)));
        let by_address_only =
            direction == Direction::Egress && matches!(rule.peers, Peers::AnyOf(_)) && !of_pods;
        if subjects().next().is_none() && !by_address_only {
            continue;
        }
        let ids: Vec<GroupId> = subjects().collect();
        let mut other_protocol = false;
        let found = world.pods(&ids).flat_map(|pod| pod.named_ports.iter()).any(|each| {
            let same_name = each.name == *name;
            let same_protocol = protocol.is_none_or(|own| own == each.protocol);
            other_protocol |= same_name && !same_protocol;
            same_name && same_protocol
        });
        if !found {
            let field = port_field(policy, direction, at, port_at);
            let what = (name.as_ref(), *protocol, by_address_only, other_protocol);
            findings.add(policy, field, missing_port(what));
        }
    }
}

fn held_by_peers(world: &World<'_>, rule: &Rule) -> Vec<GroupId> {
    let mut all: Vec<GroupId> = peers(rule)
        .filter_map(|(_, peer)| match peer {
            Peer::Pods(Linked { pattern, .. }) => Some(world.held(pattern)),
            Peer::Blocks(_) | Peer::Nodes(_) | Peer::Domains(_) => None,
        })
        .flatten()
        .copied()
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn missing_port(
    (name, protocol, by_address_only, other_protocol): (&str, Option<Protocol>, bool, bool),
) -> Said {
    let protocol = protocol.map_or(String::new(), |protocol| format!(" for {}", name_of(protocol)));
    let (problem, fix) = if by_address_only {
        let problem = format!("{name:?} is a pod's port name, and addresses have no named ports");
        (problem, "write the port's number")
    } else if other_protocol {
        let problem = format!("the pods that are asked have {name:?} for another protocol only");
        (problem, "write the protocol of the container port")
    } else {
        let problem = format!("none of the pods that are asked has a port {name:?}{protocol}");
        (problem, "name the container's port so, or write the port's number")
    };
    Said::error(LintRule::NamedPortMissing, problem, fix)
}
