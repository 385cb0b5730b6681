//! Rules that change nothing because of others, and policies that nobody ordered.
//!
//! In: the policies in their order. Out: findings about shadowed and unreachable rules and ties of
//! priority. It compares policies by their words, and of pods only which are subjects of both. Only
//! one rule that covers another alone is seen, not several that do so together.

use super::cover::{covers_pattern, covers_rule, overlap_blocks, overlap_names, overlap_ports};
use super::world::{GroupId, World};
use super::{Findings, LintRule, Said, object_name, rule_field};
use crate::flow::Direction;
use crate::policy::compiled::CompiledPolicy;
use crate::policy::pattern::Linked;
use crate::policy::rule::{Peer, Peers, Rule};
use crate::verdict::Tier;

const DIRECTIONS: [Direction; 2] = [Direction::Ingress, Direction::Egress];

/// One rule with its place.
#[derive(Clone, Copy)]
struct Placed<'a> {
    policy: &'a CompiledPolicy,
    direction: Direction,
    at: usize,
    rule: &'a Rule,
}

pub(super) fn check(world: &World<'_>, findings: &mut Findings) {
    for tier in world.policies.chunk_by(|a, b| a.tier == b.tier) {
        if tier.first().is_some_and(|first| first.tier == Tier::NetworkPolicy) {
            for namespace in tier.chunk_by(|a, b| a.namespace == b.namespace) {
                for direction in DIRECTIONS {
                    shadowed(namespace, direction, findings);
                }
            }
            continue;
        }
        for direction in DIRECTIONS {
            unreachable(tier, direction, findings);
        }
        for equals in tier.chunk_by(|a, b| a.priority == b.priority) {
            ties(world, equals, findings);
        }
    }
}

/// NetworkPolicies of one namespace.
fn shadowed(policies: &[&CompiledPolicy], direction: Direction, findings: &mut Findings) {
    for (at, inner) in policies.iter().enumerate() {
        let Some(rules) = inner.rules(direction).filter(|rules| !rules.is_empty()) else {
            continue;
        };
        let wider: Vec<(usize, &CompiledPolicy)> = policies
            .iter()
            .enumerate()
            .filter(|(_, outer)| outer.rules(direction).is_some_and(|rules| !rules.is_empty()))
            .filter(|(_, outer)| covers_pattern(&outer.subject.pattern, &inner.subject.pattern))
            .map(|(at, outer)| (at, *outer))
            .collect();
        for (rule_at, rule) in rules.iter().enumerate() {
            let inner = Placed { policy: inner, direction, at: rule_at, rule };
            if let Some(outer) = shadowing((at, inner), &wider) {
                let problem = format!("allows nothing that {} does not", outer.name_for(&inner));
                let fix = "remove the rule, or narrow the other one if it is wider than meant";
                let said = Said::warning(LintRule::ShadowedRule, problem, fix);
                findings.add(inner.policy, rule_field(direction, rule_at), said);
            }
        }
    }
}

/// The first rule that covers this one. Of two that cover each other the later one is shadowed.
fn shadowing<'a>(
    (policy_at, inner): (usize, Placed<'_>),
    wider: &[(usize, &'a CompiledPolicy)],
) -> Option<Placed<'a>> {
    let direction = inner.direction;
    for (at, policy) in wider {
        for (rule_at, rule) in policy.rules(direction).unwrap_or_default().iter().enumerate() {
            let place = (*at, rule_at);
            if place == (policy_at, inner.at) || !covers_rule(rule, inner.rule) {
                continue;
            }
            let mutual = covers_rule(inner.rule, rule)
                && covers_pattern(&inner.policy.subject.pattern, &policy.subject.pattern);
            if !mutual || place < (policy_at, inner.at) {
                return Some(Placed { policy, direction, at: rule_at, rule });
            }
        }
    }
    None
}

impl Placed<'_> {
    /// "spec.ingress[0]", with the policy's name if it is another one.
    fn name_for(&self, other: &Placed<'_>) -> String {
        let field = rule_field(self.direction, self.at);
        if std::ptr::eq(self.policy, other.policy) {
            field
        } else {
            format!("{field} of {}", object_name(self.policy))
        }
    }
}

/// Policies of an ordered tier: whatever an earlier rule decides, a later one is not asked about.
fn unreachable(policies: &[&CompiledPolicy], direction: Direction, findings: &mut Findings) {
    for inner in policies {
        let Some(rules) = inner.rules(direction) else { continue };
        let before: Vec<&CompiledPolicy> = policies
            .iter()
            .take_while(|outer| outer.priority <= inner.priority)
            .filter(|outer| outer.priority < inner.priority || std::ptr::eq(**outer, *inner))
            .filter(|outer| covers_pattern(&outer.subject.pattern, &inner.subject.pattern))
            .copied()
            .collect();
        for (rule_at, rule) in rules.iter().enumerate() {
            let inner = Placed { policy: inner, direction, at: rule_at, rule };
            if let Some(outer) = deciding(&inner, &before) {
                let problem = format!("is never asked: {} decides first", outer.name_for(&inner));
                let fix = "remove the rule, or give it an earlier place or a lower priority number";
                let said = Said::warning(LintRule::UnreachableRule, problem, fix);
                findings.add(inner.policy, rule_field(direction, rule_at), said);
            }
        }
    }
}

fn deciding<'a>(inner: &Placed<'_>, before: &[&'a CompiledPolicy]) -> Option<Placed<'a>> {
    let direction = inner.direction;
    before.iter().find_map(|policy| {
        let own = std::ptr::eq(*policy, inner.policy);
        let rules = policy.rules(direction).unwrap_or_default().iter().enumerate();
        let mut earlier = rules.take_while(|(at, _)| !own || *at < inner.at);
        let (at, rule) = earlier.find(|(_, rule)| covers_rule(rule, inner.rule))?;
        Some(Placed { policy, direction, at, rule })
    })
}

/// Policies of one tier and priority.
fn ties(world: &World<'_>, equals: &[&CompiledPolicy], findings: &mut Findings) {
    for (at, later) in equals.iter().enumerate() {
        for earlier in equals.iter().take(at) {
            let subjects = |policy: &CompiledPolicy| -> Vec<GroupId> {
                let held = world.held(&policy.subject.pattern).iter().copied();
                held.filter(|id| world.is_subject(*id)).collect()
            };
            if !share(&subjects(earlier), &subjects(later)) {
                continue;
            }
            if let Some((a, b)) = contradicting(world, earlier, later) {
                let problem = format!(
                    "{} contradicts {} of {}, which has the same tier and priority {} and pods in \
                     common: which of them is applied is left open",
                    rule_field(b.direction, b.at),
                    rule_field(a.direction, a.at),
                    object_name(earlier),
                    later.priority
                );
                let fix = "give one of the policies another priority";
                let said = Said::error(LintRule::PriorityTie, problem, fix);
                findings.add(later, "spec.priority", said);
            }
        }
    }
}

fn contradicting<'a>(
    world: &World<'_>,
    earlier: &'a CompiledPolicy,
    later: &'a CompiledPolicy,
) -> Option<(Placed<'a>, Placed<'a>)> {
    for direction in DIRECTIONS {
        for (b_at, b) in later.rules(direction).unwrap_or_default().iter().enumerate() {
            for (a_at, a) in earlier.rules(direction).unwrap_or_default().iter().enumerate() {
                let differ = a.action != b.action;
                if differ && overlap_ports(&a.ports, &b.ports) && overlap_peers(world, a, b) {
                    let a = Placed { policy: earlier, direction, at: a_at, rule: a };
                    return Some((a, Placed { policy: later, direction, at: b_at, rule: b }));
                }
            }
        }
    }
    None
}

fn overlap_peers(world: &World<'_>, a: &Rule, b: &Rule) -> bool {
    let (a, b) = match (&a.peers, &b.peers) {
        (Peers::FailsClosed, _) | (_, Peers::FailsClosed) => return false,
        (Peers::Everyone, _) | (_, Peers::Everyone) => return true,
        (Peers::AnyOf(a), Peers::AnyOf(b)) => (a, b),
    };
    a.iter().any(|a| {
        b.iter().any(|b| match (a, b) {
            (Peer::Pods(Linked { pattern: a, .. }), Peer::Pods(Linked { pattern: b, .. })) => {
                share(world.held(a), world.held(b))
            }
            (Peer::Blocks(a), Peer::Blocks(b)) => overlap_blocks(a, b),
            (Peer::Nodes(a), Peer::Nodes(b)) => {
                let both = |labels: &_| a.matches(labels) && b.matches(labels);
                world.selection().nodes_labels().any(both)
            }
            (Peer::Domains(a), Peer::Domains(b)) => overlap_names(a, b),
            _ => false,
        })
    })
}

/// Whether two ascending lists have anything in common.
fn share(a: &[GroupId], b: &[GroupId]) -> bool {
    let (short, long) = if a.len() < b.len() { (a, b) } else { (b, a) };
    short.iter().any(|id| long.binary_search(id).is_ok())
}
