//! An answer for people: the decision first, then each side and every rule that was asked.
//!
//! In: one [`Answer`]. Out: lines of text. It adds nothing that is not in the answer.

use std::io::Write;

use parapet_core::flow::Direction;
use parapet_core::verdict::{Decision, Effect, Profile, Reason, RuleMatch, SideVerdict};

use super::Answer;

/// Writes one answer.
pub(super) fn tree(out: &mut impl Write, answer: &Answer<'_>) -> std::io::Result<()> {
    let Answer { probe, policy_set, verdict } = answer;
    let port = probe.port.map_or_else(String::new, |port| format!(" port {port}"));
    writeln!(out, "{} -> {}{port}, {}", probe.from, probe.to, probe.protocol)?;
    let profile = match verdict.profile {
        Profile::Common => "common",
        Profile::Spec => "spec",
    };
    let (direction, side) = verdict.deciding();
    writeln!(
        out,
        "{}: decided by {}, {} (policy set {policy_set}, profile {profile})",
        decision(verdict.decision),
        direction_name(direction),
        reason(side.reason),
    )?;
    side_tree(out, Direction::Egress, &verdict.egress)?;
    side_tree(out, Direction::Ingress, &verdict.ingress)
}

fn side_tree(
    out: &mut impl Write,
    direction: Direction,
    side: &SideVerdict,
) -> std::io::Result<()> {
    let name = direction_name(direction);
    writeln!(out, "  {name}: {}, {}", decision(side.decision), reason(side.reason))?;
    for Effect { policy, origin, rule, matched, .. } in &side.effects {
        let rule = rule.map_or_else(String::new, |rule| format!(" {name}[{rule}]"));
        writeln!(out, "    {policy} ({origin}){rule}: {}", rule_match(*matched))?;
    }
    Ok(())
}

fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Egress => "egress",
        Direction::Ingress => "ingress",
    }
}

fn decision(decision: Decision) -> &'static str {
    match decision {
        Decision::Allowed => "allowed",
        Decision::Denied => "denied",
        Decision::Undecidable => "undecidable",
        Decision::Exempt => "exempt",
    }
}

fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::NotIsolated => "no policy isolates the pod",
        Reason::RuleMatched => "a rule matches",
        Reason::NoRuleMatched => "isolated, and no rule matches",
        Reason::OwnNode => "it is the pod's own node",
        Reason::Loopback => "the pod talks to itself",
        Reason::HostNetwork => "the pod is on the host network",
        Reason::NotAPod => "this end is no pod",
        Reason::EstablishedReply => "an answer within an allowed connection",
        Reason::UnknownEnd => "an end is not known",
        Reason::UnknownDirection => "nothing told who began",
        Reason::AmbiguousAddress => "more than one pod holds the address",
        Reason::EndpointsDisagree => "the Service's endpoints are judged differently",
        Reason::NoEndpoints => "the Service has no endpoint",
        Reason::CniDependent => "implementations differ here",
        Reason::ProtocolNotDefined => "NetworkPolicy does not define this protocol",
        Reason::SourceRewritten => "the source address is rewritten on the way",
    }
}

fn rule_match(matched: RuleMatch) -> &'static str {
    match matched {
        RuleMatch::Matched => "matches",
        RuleMatch::NoRules => "isolates, and has no rule in this direction",
        RuleMatch::PortDiffers => "the peer matches, the port does not",
        RuleMatch::ProtocolDiffers => "the peer matches, the protocol does not",
        RuleMatch::NamespaceLabelsDiffer => "the peer's namespace labels differ",
        RuleMatch::PodLabelsDiffer => "the peer's pod labels differ",
        RuleMatch::AddressOutside => "the address is outside of its blocks",
        RuleMatch::PeerIsNoPod => "it asks for pods, and the peer is none",
        RuleMatch::CniDependent => "implementations differ here",
        RuleMatch::PeerUnknown => "the peer is not known",
    }
}
