//! One flow against one policy set: both sides, each by its own subject.
//!
//! In: resolved ends, protocol, target port. Out: what each side says and why. Rules that nobody
//! can decide make three-valued logic: a match anywhere allows, else an unknown anywhere is
//! undecidable, else it is denied. It never looks at the order of policies and allocates only for
//! effects.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::cidr::unmap;
use super::profile::{Choices, OwnNodeChoice, UndefinedProtocolChoice};
use super::rule::{Answer, CompiledPolicy, Question};
use super::{Namespaces, PolicySet, Probe};
use crate::flow::{Direction, End, Endpoint, PodIdentity, Protocol, ServiceIdentity};
use crate::verdict::{
    Decision, Effect, Profile, Reason, RuleMatch, SideDecision, SideSummary, SideVerdict, Tier,
    Verdict,
};

/// Name and origin of the policy that [`PolicySet::with_default_deny_everywhere`] stands for.
const DEFAULT_DENY: &str = "default-deny";

/// Takes the effects, or drops them.
trait Sink {
    /// Whether evaluation goes on after the answer is known, for the effects' sake.
    fn takes(&self) -> bool;
    fn take(&mut self, policy: Option<&CompiledPolicy>, rule: Option<usize>, matched: RuleMatch);
}

/// Drops them.
struct Nothing;

/// What a side is asked, whichever backend it is about.
#[derive(Clone, Copy)]
struct Side<'a> {
    set: &'a PolicySet,
    namespaces: &'a Namespaces,
    choices: &'static Choices,
    direction: Direction,
}

/// Whether the peer is the subject's own node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OwnNode {
    Yes,
    No,
    /// The peer is a node, but not known by name, or the pod's is not.
    Unknown,
}

impl PolicySet {
    /// What both sides say, with every policy's part in it.
    #[must_use]
    pub fn evaluate(
        &self,
        namespaces: &Namespaces,
        profile: Profile,
        probe: &Probe<'_>,
    ) -> Verdict {
        let side = |direction| {
            let mut effects = Vec::new();
            let side = Side { set: self, namespaces, choices: profile.choices(), direction };
            let SideDecision { decision, reason } = side.judge(probe, &mut effects);
            if matches!(probe.target.endpoint, Endpoint::Service(_)) {
                effects = distinct(effects);
            }
            SideVerdict { decision, reason, effects }
        };
        let (egress, ingress) = (side(Direction::Egress), side(Direction::Ingress));
        let decision = Decision::of_both(egress.decision, ingress.decision);
        Verdict { decision, profile, egress, ingress }
    }

    /// The same answer without the effects, and without allocating.
    #[must_use]
    pub fn decide(
        &self,
        namespaces: &Namespaces,
        profile: Profile,
        probe: &Probe<'_>,
    ) -> (Decision, SideSummary) {
        let side = |direction| {
            let side = Side { set: self, namespaces, choices: profile.choices(), direction };
            side.judge(probe, &mut Nothing)
        };
        let (egress, ingress) = (side(Direction::Egress), side(Direction::Ingress));
        (Decision::of_both(egress.decision, ingress.decision), SideSummary { egress, ingress })
    }
}

impl Side<'_> {
    fn judge(self, probe: &Probe<'_>, sink: &mut impl Sink) -> SideDecision {
        match &probe.target.endpoint {
            Endpoint::Service(service) => self.judge_backends(service, probe, sink),
            _ => self.judge_pair(probe, sink),
        }
    }

    /// A Service may lead to any of its backends: it has an answer where they have one.
    fn judge_backends(
        self,
        service: &ServiceIdentity,
        probe: &Probe<'_>,
        sink: &mut impl Sink,
    ) -> SideDecision {
        let mut agreed: Option<SideDecision> = None;
        let mut disagree = false;
        for (target, port) in service.backends.iter() {
            let one = self.judge_pair(&Probe { target, port: *port, ..*probe }, sink);
            let both = agreed.map_or(Some(one), |before| agreement(before, one));
            disagree |= both.is_none();
            agreed = both.or(agreed);
        }
        match agreed {
            Some(_) if disagree => undecidable(Reason::EndpointsDisagree),
            Some(agreed) => agreed,
            None => match (self.direction, subject_of(probe.source)) {
                (Direction::Egress, Err(exempt)) if exempt.decision == Decision::Exempt => exempt,
                _ => undecidable(Reason::NoEndpoints),
            },
        }
    }

    fn judge_pair(self, probe: &Probe<'_>, sink: &mut impl Sink) -> SideDecision {
        if is_loopback(probe) {
            return exempt(Reason::Loopback);
        }
        let (subject, peer, own_node_choice) = match self.direction {
            Direction::Egress => (probe.source, probe.target, self.choices.to_own_node),
            Direction::Ingress => (probe.target, probe.source, self.choices.from_own_node),
        };
        let pod = match subject_of(subject) {
            Ok(pod) => pod,
            Err(without_policies) => return without_policies,
        };
        let own_node = own_node(pod, peer);
        if own_node == OwnNode::Yes && own_node_choice == OwnNodeChoice::Exempt {
            return exempt(Reason::OwnNode);
        }
        let judged = self.judge_rules(pod, peer, probe, sink);
        if judged.decision != Decision::Denied {
            return judged;
        }
        match (own_node, own_node_choice) {
            // Were it the own node, it would be exempt.
            (OwnNode::Unknown, OwnNodeChoice::Exempt) => undecidable(Reason::UnknownEnd),
            (OwnNode::Yes | OwnNode::Unknown, OwnNodeChoice::DeniedIsUndecidable) => {
                undecidable(Reason::CniDependent)
            }
            _ if !is_defined(probe.protocol) => match self.choices.undefined_protocol {
                UndefinedProtocolChoice::Denied => judged,
                UndefinedProtocolChoice::Undecidable => undecidable(Reason::ProtocolNotDefined),
            },
            _ => judged,
        }
    }

    fn judge_rules(
        self,
        pod: &PodIdentity,
        peer: &End,
        probe: &Probe<'_>,
        sink: &mut impl Sink,
    ) -> SideDecision {
        let question = Question { namespaces: self.namespaces, choices: self.choices, probe, peer };
        let mut isolated = self.set.denies_by_default();
        let mut allowed = false;
        let mut unknown: Option<Reason> = None;
        for policy in self.set.in_namespace(&pod.namespace) {
            let Some(rules) = policy.rules(self.direction).filter(|_| policy.selects(pod)) else {
                continue;
            };
            isolated = true;
            if rules.is_empty() {
                sink.take(Some(policy), None, RuleMatch::NoRules);
            }
            for (index, rule) in rules.iter().enumerate() {
                let (reason, matched) = match rule.answer(&policy.namespace, &question) {
                    Answer::Yes => (None, RuleMatch::Matched),
                    Answer::No(miss) => (None, miss),
                    Answer::Unknown(reason, matched) => (Some(reason), matched),
                };
                allowed |= matched == RuleMatch::Matched;
                if allowed && !sink.takes() {
                    return decided(Decision::Allowed, Reason::RuleMatched);
                }
                // The smallest reason, so that the order of rules and policies never shows.
                unknown = unknown.into_iter().chain(reason).min();
                sink.take(Some(policy), Some(index), matched);
            }
        }
        if self.set.denies_by_default() {
            sink.take(None, None, RuleMatch::NoRules);
        }
        match (isolated, allowed, unknown) {
            (false, ..) => decided(Decision::Allowed, Reason::NotIsolated),
            (true, true, _) => decided(Decision::Allowed, Reason::RuleMatched),
            (true, false, Some(reason)) => undecidable(reason),
            (true, false, None) => decided(Decision::Denied, Reason::NoRuleMatched),
        }
    }
}

impl Sink for Nothing {
    fn takes(&self) -> bool {
        false
    }

    fn take(&mut self, _: Option<&CompiledPolicy>, _: Option<usize>, _: RuleMatch) {}
}

impl Sink for Vec<Effect> {
    fn takes(&self) -> bool {
        true
    }

    fn take(&mut self, policy: Option<&CompiledPolicy>, rule: Option<usize>, matched: RuleMatch) {
        let (policy, origin) = match policy {
            Some(policy) => (policy.id.clone(), policy.origin.clone()),
            None => (Arc::from(DEFAULT_DENY), Arc::from(DEFAULT_DENY)),
        };
        self.push(Effect { policy, origin, tier: Tier::NetworkPolicy, rule, matched });
    }
}

/// The pod whose isolation decides, or what holds without asking any policy.
fn subject_of(end: &End) -> Result<&PodIdentity, SideDecision> {
    match &end.endpoint {
        Endpoint::Pod(pod) if pod.host_network => Err(exempt(Reason::HostNetwork)),
        Endpoint::Pod(pod) => Ok(pod),
        Endpoint::Node(_) | Endpoint::External => Err(exempt(Reason::NotAPod)),
        Endpoint::Unknown(why) => Err(undecidable(why.reason())),
        Endpoint::Service(_) => Err(undecidable(Reason::UnknownEnd)),
    }
}

/// Within a pod, whatever address is used for it.
fn is_loopback(probe: &Probe<'_>) -> bool {
    let by_address = |end: &End| end.addr.map(unmap).is_some_and(|addr: IpAddr| addr.is_loopback());
    if by_address(probe.source) || by_address(probe.target) {
        return true;
    }
    match (&probe.source.endpoint, &probe.target.endpoint) {
        (Endpoint::Pod(a), Endpoint::Pod(b)) => {
            a.uid == b.uid && a.name == b.name && a.namespace == b.namespace
        }
        _ => false,
    }
}

fn own_node(pod: &PodIdentity, peer: &End) -> OwnNode {
    let node = match &peer.endpoint {
        Endpoint::Node(name) => name,
        Endpoint::Pod(peer) if peer.host_network => &peer.node,
        _ => return OwnNode::No,
    };
    if node.is_empty() || pod.node.is_empty() {
        OwnNode::Unknown
    } else if *node == pod.node {
        OwnNode::Yes
    } else {
        OwnNode::No
    }
}

fn is_defined(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::TCP | Protocol::UDP | Protocol::SCTP)
}

/// What two backends say together; nothing if they differ. Exempt passes as allowed does.
fn agreement(a: SideDecision, b: SideDecision) -> Option<SideDecision> {
    match (a.decision, b.decision) {
        (x, y) if x == y => Some(decided(x, a.reason.min(b.reason))),
        (Decision::Allowed, Decision::Exempt) => Some(a),
        (Decision::Exempt, Decision::Allowed) => Some(b),
        _ => None,
    }
}

/// Each once, in the order of their first appearance: the backends of a Service repeat them.
fn distinct(mut effects: Vec<Effect>) -> Vec<Effect> {
    let mut seen = HashSet::new();
    effects.retain(|effect| seen.insert(effect.clone()));
    effects
}

fn decided(decision: Decision, reason: Reason) -> SideDecision {
    SideDecision { decision, reason }
}

fn exempt(reason: Reason) -> SideDecision {
    decided(Decision::Exempt, reason)
}

fn undecidable(reason: Reason) -> SideDecision {
    decided(Decision::Undecidable, reason)
}
