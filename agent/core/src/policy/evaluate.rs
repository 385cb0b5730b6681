//! One flow against one policy set: both sides, each by its own subject.
//!
//! In: resolved ends, protocol, target port. Out: what each side says and why. Here is what no
//! policy is asked about (loopback, the own node, ends that are no pods) and what a Service's
//! backends say together; what the policies say is in `tiers`. It allocates only for effects.

use std::collections::HashSet;
use std::net::IpAddr;

use super::case::{Case, Side, identity_of};
use super::cidr::unmap;
use super::effect::{Effects, Nothing, Sink};
use super::profile::{Choices, ExemptionChoice, GroupChoice, ServicePortChoice};
use super::tiers;
use super::{PolicySet, Probe, Selection};
use crate::flow::{Direction, End, Endpoint, PodIdentity, ServiceIdentity};
use crate::verdict::{
    Decision, Effect, Profile, Reason, SideDecision, SideSummary, SideVerdict, Verdict,
};

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
    pub fn evaluate(&self, selection: &Selection, profile: Profile, probe: &Probe<'_>) -> Verdict {
        self.verdict(selection, profile, probe, Effects::new(false))
    }

    /// The same, and of every miss what the rule asks for.
    #[must_use]
    pub fn explain(&self, selection: &Selection, profile: Profile, probe: &Probe<'_>) -> Verdict {
        self.verdict(selection, profile, probe, Effects::new(true))
    }

    fn verdict(
        &self,
        selection: &Selection,
        profile: Profile,
        probe: &Probe<'_>,
        effects: Effects,
    ) -> Verdict {
        let case = Case::new(selection, probe);
        let side = |direction| {
            let mut effects = effects.clone();
            let side = Side { set: self, selection, choices: profile.choices(), direction };
            let SideDecision { decision, reason, tier } = side.judge(&case, &mut effects);
            let mut effects = effects.taken();
            if matches!(probe.target.endpoint, Endpoint::Service(_)) {
                effects = distinct(effects);
            }
            SideVerdict { decision, reason, tier, effects }
        };
        let (egress, ingress) = (side(Direction::Egress), side(Direction::Ingress));
        let decision = Decision::of_both(egress.decision, ingress.decision);
        Verdict { decision, profile, egress, ingress }
    }

    /// The same answer without the effects, and without allocating.
    #[must_use]
    pub fn decide(
        &self,
        selection: &Selection,
        profile: Profile,
        probe: &Probe<'_>,
    ) -> (Decision, SideSummary) {
        let case = Case::new(selection, probe);
        let side = |direction| {
            let side = Side { set: self, selection, choices: profile.choices(), direction };
            side.judge(&case, &mut Nothing)
        };
        let (egress, ingress) = (side(Direction::Egress), side(Direction::Ingress));
        (Decision::of_both(egress.decision, ingress.decision), SideSummary { egress, ingress })
    }
}

impl Side<'_> {
    fn judge(self, case: &Case<'_>, sink: &mut impl Sink) -> SideDecision {
        match &case.probe.target.endpoint {
            Endpoint::Service(service) => self.judge_backends(service, case, sink),
            _ => self.judge_pair(case, sink),
        }
    }

    /// A Service may lead to any of its backends: it has an answer where they have one.
    fn judge_backends(
        self,
        service: &ServiceIdentity,
        case: &Case<'_>,
        sink: &mut impl Sink,
    ) -> SideDecision {
        let mut agreed: Option<SideDecision> = None;
        let mut disagree = false;
        for (target, port) in service.backends.iter() {
            let probe = Probe { target, port: *port, ..case.probe };
            let backend = Case { probe, target: identity_of(self.selection, target), ..*case };
            let one = self.judge_backend(service, &backend, sink);
            let both = agreed.map_or(Some(one), |before| agreement(before, one));
            disagree |= both.is_none();
            agreed = both.or(agreed);
        }
        match agreed {
            Some(_) if disagree => undecidable(Reason::EndpointsDisagree),
            Some(agreed) => agreed,
            None => match (self.direction, subject_of(case.probe.source)) {
                (Direction::Egress, Err(exempt)) if exempt.decision == Decision::Exempt => exempt,
                _ => undecidable(Reason::NoEndpoints),
            },
        }
    }

    /// One backend, at its own port. Some implementations see the Service's port instead, and some
    /// ask no policy about a pod that is its own backend.
    fn judge_backend(
        self,
        service: &ServiceIdentity,
        case: &Case<'_>,
        sink: &mut impl Sink,
    ) -> SideDecision {
        let Choices { itself_via_service, service_port, .. } = self.choices;
        if is_itself(&case.probe) && *itself_via_service != ExemptionChoice::Exempt {
            let judged = self.judge_policies(case, sink);
            return match (judged.decision, itself_via_service) {
                (Decision::Denied, ExemptionChoice::DeniedIsUndecidable) => {
                    undecidable(Reason::CniDependent)
                }
                (Decision::Allowed, ExemptionChoice::DeniedIsUndecidable) => {
                    exempt(Reason::Loopback)
                }
                _ => judged,
            };
        }
        let judged = self.judge_pair(case, sink);
        if self.direction == Direction::Ingress || service.port == case.probe.port {
            return judged;
        }
        let by_service = match service_port {
            ServicePortChoice::Pods => return judged,
            ServicePortChoice::ServiceOutsideOfSelectors => {
                Case { service_port: Some(service.port), ..*case }
            }
            ServicePortChoice::Undecidable => {
                Case { probe: Probe { port: service.port, ..case.probe }, ..*case }
            }
        };
        let by_service = self.judge_pair(&by_service, &mut Nothing);
        if by_service.decision == judged.decision {
            judged
        } else {
            undecidable(Reason::CniDependent)
        }
    }

    fn judge_pair(self, case: &Case<'_>, sink: &mut impl Sink) -> SideDecision {
        if is_loopback(&case.probe) || is_itself(&case.probe) {
            return exempt(Reason::Loopback);
        }
        self.judge_policies(case, sink)
    }

    fn judge_policies(self, case: &Case<'_>, sink: &mut impl Sink) -> SideDecision {
        let probe = &case.probe;
        let (subject, peer, own_node_choice) = match self.direction {
            Direction::Egress => (probe.source, probe.target, self.choices.to_own_node),
            Direction::Ingress => (probe.target, probe.source, self.choices.from_own_node),
        };
        let pod = match subject_of(subject) {
            Ok(pod) => pod,
            Err(without_policies) => return without_policies,
        };
        let own_node = own_node(pod, peer);
        if own_node == OwnNode::Yes && own_node_choice == ExemptionChoice::Exempt {
            return exempt(Reason::OwnNode);
        }
        let judged = tiers::judge(self, pod, peer, case, sink);
        // What no tier spoke of passes wherever policies are all there is to ask.
        if matches!(peer.endpoint, Endpoint::Group(_))
            && judged.tier.is_some()
            && self.choices.group_peer == GroupChoice::Undecidable
        {
            return undecidable(Reason::CniDependent);
        }
        match (judged.decision, own_node, own_node_choice) {
            // Were it the own node, it would be exempt.
            (Decision::Denied, OwnNode::Unknown, ExemptionChoice::Exempt) => {
                undecidable(Reason::UnknownEnd)
            }
            (
                Decision::Denied,
                OwnNode::Yes | OwnNode::Unknown,
                ExemptionChoice::DeniedIsUndecidable,
            ) => undecidable(Reason::CniDependent),
            _ => judged,
        }
    }
}

/// The pod whose policies decide, or what holds without asking any policy.
fn subject_of(end: &End) -> Result<&PodIdentity, SideDecision> {
    match &end.endpoint {
        Endpoint::Pod(pod) if pod.host_network => Err(exempt(Reason::HostNetwork)),
        Endpoint::Pod(pod) => Ok(pod),
        Endpoint::Node(_) | Endpoint::External | Endpoint::Named(_) | Endpoint::Group(_) => {
            Err(exempt(Reason::NotAPod))
        }
        Endpoint::Unknown(why) => Err(undecidable(why.reason())),
        Endpoint::Service(_) => Err(undecidable(Reason::UnknownEnd)),
    }
}

fn is_loopback(probe: &Probe<'_>) -> bool {
    let by_address = |end: &End| end.addr.map(unmap).is_some_and(|addr: IpAddr| addr.is_loopback());
    by_address(probe.source) || by_address(probe.target)
}

/// Within a pod, whatever address is used for it.
fn is_itself(probe: &Probe<'_>) -> bool {
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

/// What two backends say together; nothing if they differ. Exempt passes as allowed does.
fn agreement(a: SideDecision, b: SideDecision) -> Option<SideDecision> {
    match (a.decision, b.decision) {
        (x, y) if x == y => {
            // The same whichever comes first.
            let (reason, tier) = (a.reason, a.tier).min((b.reason, b.tier));
            Some(SideDecision { decision: x, reason, tier })
        }
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

fn exempt(reason: Reason) -> SideDecision {
    SideDecision { decision: Decision::Exempt, reason, tier: None }
}

fn undecidable(reason: Reason) -> SideDecision {
    SideDecision { decision: Decision::Undecidable, reason, tier: None }
}
