//! What the policies say of one pod's traffic in one direction, tier by tier.
//!
//! In: the subject, the other end, protocol and port. Out: one side's decision. Admin policies come
//! first, in the order of their priorities; what none of them decides is up to the NetworkPolicies
//! where any isolates the pod; the rest to the baseline, and what nobody speaks of is allowed.
//! Where a rule cannot be decided, evaluation goes on with both of its outcomes: it is undecidable
//! only if they end differently. Rules that no order is given for are never ordered by chance.

use super::case::{Case, Side};
use super::compiled::CompiledPolicy;
use super::effect::Sink;
use super::profile::{DenialChoice, PeerChoice};
use super::rule::{Answer, Question};
use super::selection::Identity;
use super::selector::Known;
use crate::flow::{Direction, End, PodIdentity, Protocol};
use crate::verdict::{Action, Decision, Reason, SideDecision, Tier};

/// How it may end, given what is known. Each end with the reason and tier that made it last.
#[derive(Clone, Copy, Debug, Default)]
struct Ends {
    allowed: Option<(Reason, Option<Tier>)>,
    denied: Option<(Reason, Option<Tier>)>,
    unknown: Option<Reason>,
}

/// What an ordered tier, policy or group of policies may do.
#[derive(Clone, Copy, Debug, Default)]
struct Outcomes {
    allow: bool,
    deny: bool,
    pass: bool,
    /// No rule matches.
    none: bool,
    unknown: Option<Reason>,
}

/// The subject, with what was resolved of it.
struct Subject<'a> {
    pod: &'a PodIdentity,
    identity: Option<&'a Identity>,
}

pub(super) fn judge(
    side: Side<'_>,
    pod: &PodIdentity,
    peer: &End,
    case: &Case<'_>,
    sink: &mut impl Sink,
) -> SideDecision {
    judge_tiers(side, pod, peer, case, sink).decision()
}

fn judge_tiers<S: Sink>(
    side: Side<'_>,
    pod: &PodIdentity,
    peer: &End,
    case: &Case<'_>,
    sink: &mut S,
) -> Ends {
    let Side { set, selection, choices, .. } = side;
    let probe = &case.probe;
    let (identity, peer_identity) = match side.direction {
        Direction::Egress => (case.source, case.target),
        Direction::Ingress => (case.target, case.source),
    };
    // Those who explain want the nearest miss, which only the long way tells.
    let peer_identity = peer_identity.filter(|_| !S::TAKES);
    // Of a pod on the host network the cluster-scoped APIs say that their selectors never mean it.
    let host_network_peer = PeerChoice::NeverMatches;
    let question = Question {
        selection,
        choices,
        probe,
        peer,
        peer_identity,
        host_network_peer,
        service_port: None,
    };
    let subject = Subject { pod, identity };
    let mut ends = Ends::default();
    let admin = ordered(side, set.admin(), &subject, &question, sink);
    if !ends.take(admin, Tier::Admin) {
        return ends;
    }
    let by_network_policies = Question {
        host_network_peer: choices.host_network_peer,
        service_port: case.service_port,
        ..question
    };
    if !network_policies(side, &subject, &by_network_policies, &mut ends, sink) {
        return ends;
    }
    let baseline = ordered(side, set.baseline(), &subject, &question, sink);
    if ends.take(baseline, Tier::Baseline) {
        ends.allowed = Some((Reason::NotIsolated, None));
    }
    ends
}

impl Ends {
    /// Whether evaluation may go on in the next tier.
    fn take(&mut self, outcomes: Outcomes, tier: Tier) -> bool {
        if outcomes.allow {
            self.allowed = Some((Reason::RuleMatched, Some(tier)));
        }
        if outcomes.deny {
            self.denied = Some((Reason::RuleDenies, Some(tier)));
        }
        self.does_not_know(outcomes.unknown);
        outcomes.pass || outcomes.none
    }

    /// The smallest reason is told, so that the order of rules and policies never shows.
    fn does_not_know(&mut self, reason: Option<Reason>) {
        self.unknown = self.unknown.into_iter().chain(reason).min();
    }

    fn decision(self) -> SideDecision {
        let decided = |decision, (reason, tier)| SideDecision { decision, reason, tier };
        match (self.allowed, self.denied) {
            (Some(allowed), None) => decided(Decision::Allowed, allowed),
            (None, Some(denied)) => decided(Decision::Denied, denied),
            (Some(_), Some(_)) | (None, None) => {
                let reason = self.unknown.unwrap_or(Reason::UnknownEnd);
                decided(Decision::Undecidable, (reason, None))
            }
        }
    }
}

/// Policies in the order of their priorities, each rule by rule: the first match is final.
fn ordered<S: Sink>(
    side: Side<'_>,
    policies: &[std::sync::Arc<CompiledPolicy>],
    subject: &Subject<'_>,
    question: &Question<'_>,
    sink: &mut S,
) -> Outcomes {
    let mut total = Outcomes::default();
    for equals in policies.chunk_by(|a, b| a.priority == b.priority) {
        let mut group = Outcomes { none: true, ..Outcomes::default() };
        for policy in equals {
            let Some(rules) = policy.rules(side.direction) else { continue };
            let selected = policy.selects_known(side.selection, subject.identity, subject.pod);
            if selected == Known::No {
                continue;
            }
            let mut one = Outcomes::default();
            if selected == Known::Unknown {
                one.none = true;
                one.unknown = Some(Reason::UnknownEnd);
            }
            first_match(policy, rules, question, &mut one, sink);
            group.join_equal(one);
        }
        total.allow |= group.allow;
        total.deny |= group.deny;
        total.pass |= group.pass;
        total.unknown = total.unknown.into_iter().chain(group.unknown).min();
        if !group.none {
            return total;
        }
    }
    total.none = true;
    total
}

fn first_match<S: Sink>(
    policy: &CompiledPolicy,
    rules: &[super::rule::Rule],
    question: &Question<'_>,
    outcomes: &mut Outcomes,
    sink: &mut S,
) {
    for (index, rule) in rules.iter().enumerate() {
        let answer = rule.answer(question);
        sink.rule(policy, (index, rule), answer, question);
        let unknown = match answer {
            Answer::No(_) => continue,
            Answer::Yes => None,
            Answer::Unknown(reason, _) => Some(reason),
        };
        match rule.action {
            Action::Allow => outcomes.allow = true,
            Action::Deny => outcomes.deny = true,
            Action::Pass => outcomes.pass = true,
        }
        if unknown.is_none() {
            return;
        }
        outcomes.unknown = outcomes.unknown.into_iter().chain(unknown).min();
    }
    outcomes.none = true;
}

impl Outcomes {
    /// One more policy of the same priority: any that matches may be the one that is applied.
    fn join_equal(&mut self, other: Self) {
        let kinds = |o: &Self| (o.allow, o.deny, o.pass);
        let nothing = (false, false, false);
        let disagree =
            kinds(self) != nothing && kinds(&other) != nothing && kinds(self) != kinds(&other);
        let tie = disagree.then_some(Reason::PriorityTie);
        let unknown = self.unknown.into_iter().chain(other.unknown).min();
        *self = Self {
            allow: self.allow || other.allow,
            deny: self.deny || other.deny,
            pass: self.pass || other.pass,
            none: self.none && other.none,
            unknown: unknown.into_iter().chain(tie).min(),
        };
    }
}

/// The tier of NetworkPolicy v1: a union of allows for every pod that any of them isolates. Whether
/// evaluation may go on in the next tier.
fn network_policies<S: Sink>(
    side: Side<'_>,
    subject: &Subject<'_>,
    question: &Question<'_>,
    ends: &mut Ends,
    sink: &mut S,
) -> bool {
    const TIER: Option<Tier> = Some(Tier::NetworkPolicy);
    let mut isolated = side.set.denies_by_default();
    let mut allowed = false;
    let mut unknown: Option<Reason> = None;
    let mut ask = |policy: &CompiledPolicy| {
        let Some(rules) = policy.rules(side.direction) else { return true };
        isolated = true;
        if rules.is_empty() {
            sink.no_rules(Some(policy));
        }
        for (index, rule) in rules.iter().enumerate() {
            let answer = rule.answer(question);
            allowed |= answer == Answer::Yes;
            if allowed && !S::TAKES {
                return false;
            }
            if let Answer::Unknown(reason, _) = answer {
                unknown = unknown.into_iter().chain([reason]).min();
            }
            sink.rule(policy, (index, rule), answer, question);
        }
        true
    };
    let Subject { pod, identity } = *subject;
    if S::TAKES {
        let mut selecting = Vec::new();
        side.set.for_each_selecting(side.selection, identity, pod, |policy| {
            selecting.push(policy);
            true
        });
        selecting.sort();
        selecting.into_iter().for_each(|policy| {
            ask(policy);
        });
    } else {
        side.set.for_each_selecting(side.selection, identity, pod, ask);
    }
    if side.set.denies_by_default() {
        sink.no_rules(None);
    }
    if allowed {
        ends.allowed = Some((Reason::RuleMatched, TIER));
        return false;
    }
    if !isolated {
        return true;
    }
    let undefined = !is_defined(question.probe.protocol)
        && side.choices.undefined_protocol == DenialChoice::Undecidable;
    if unknown.is_some() || undefined {
        ends.allowed = Some((Reason::RuleMatched, TIER));
        ends.does_not_know(unknown.or(Some(Reason::ProtocolNotDefined)));
    }
    ends.denied = Some((Reason::NoRuleMatched, TIER));
    false
}

fn is_defined(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::TCP | Protocol::UDP | Protocol::SCTP)
}
