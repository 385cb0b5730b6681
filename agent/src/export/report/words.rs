//! Verdicts in words for people.
//!
//! In: the closed lists of the core. Out: short English. It adds nothing that the verdict does not
//! say.

use std::collections::BTreeMap;

use parapet_core::flow::{Direction, Outcome, Protocol};
use parapet_core::verdict::{Decision, Delta, Effect, Reason, RuleMatch, SideVerdict, Verdict};

/// `TCP`, `UDP`, `SCTP` or the number.
#[must_use]
pub fn protocol(number: u8) -> String {
    match Protocol(number) {
        Protocol::TCP => "TCP".to_owned(),
        Protocol::UDP => "UDP".to_owned(),
        Protocol::SCTP => "SCTP".to_owned(),
        Protocol(other) => other.to_string(),
    }
}

/// `egress`, `ingress`, or `unknown` if nothing told who began.
#[must_use]
pub fn direction(direction: Option<Direction>) -> &'static str {
    match direction {
        Some(Direction::Egress) => "egress",
        Some(Direction::Ingress) => "ingress",
        None => "unknown",
    }
}

/// The decision's word.
#[must_use]
pub fn decision(decision: Decision) -> &'static str {
    match decision {
        Decision::Allowed => "allowed",
        Decision::Denied => "denied",
        Decision::Undecidable => "undecidable",
        Decision::Exempt => "exempt",
    }
}

/// The delta's word.
#[must_use]
pub fn delta(delta: Delta) -> &'static str {
    match delta {
        Delta::UnchangedAllowed => "unchanged_allowed",
        Delta::UnchangedDenied => "unchanged_denied",
        Delta::NewlyDenied => "newly_denied",
        Delta::NewlyAllowed => "newly_allowed",
        Delta::Undecidable => "undecidable",
    }
}

/// `3 answered, 1 refused`; `none` if no attempt was seen.
#[must_use]
pub fn outcomes(outcomes: &BTreeMap<Outcome, u64>) -> String {
    let word = |outcome| match outcome {
        Outcome::Answered => "answered",
        Outcome::Refused => "refused",
        Outcome::Unanswered => "unanswered",
        Outcome::Unknown => "unknown",
    };
    let parts: Vec<String> = outcomes
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(outcome, count)| format!("{count} {}", word(*outcome)))
        .collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

/// Which policies decided and why: `egress: isolated by shop/deny-all; no rule allows anything`.
#[must_use]
pub fn why(verdict: &Verdict) -> String {
    let (decided, side) = verdict.deciding();
    format!("{}: {}", direction(Some(decided)), why_side(side))
}

/// The same for one side.
#[must_use]
pub fn why_side(side: &SideVerdict) -> String {
    match side.reason {
        Reason::RuleMatched => {
            match side.effects.iter().find(|effect| effect.matched == RuleMatch::Matched) {
                Some(Effect { policy, rule: Some(rule), .. }) => {
                    format!("rule {rule} of {policy} matches")
                }
                Some(Effect { policy, .. }) => format!("{policy} matches"),
                None => "a rule matches".to_owned(),
            }
        }
        Reason::NoRuleMatched if !side.effects.is_empty() => {
            format!("isolated by {}; {}", policies(side), nearest(side))
        }
        reason => reason_in_words(reason).to_owned(),
    }
}

/// The policies of a side, each once, in the verdict's order.
fn policies(side: &SideVerdict) -> String {
    let mut names: Vec<&str> = Vec::new();
    for effect in &side.effects {
        if !names.contains(&effect.policy.as_ref()) {
            names.push(&effect.policy);
        }
    }
    names.join(", ")
}

/// The rule that came nearest to matching: one whose peers match comes before one whose do not.
fn nearest(side: &SideVerdict) -> String {
    let rank = |matched: RuleMatch| match matched {
        RuleMatch::Matched => 0,
        RuleMatch::CniDependent | RuleMatch::PeerUnknown => 1,
        RuleMatch::PortDiffers => 2,
        RuleMatch::ProtocolDiffers => 3,
        RuleMatch::PodLabelsDiffer => 4,
        RuleMatch::NamespaceLabelsDiffer => 5,
        RuleMatch::AddressOutside => 6,
        RuleMatch::PeerIsNoPod => 7,
        RuleMatch::NoRules => 8,
    };
    match side.effects.iter().min_by_key(|effect| rank(effect.matched)) {
        Some(Effect { matched: RuleMatch::NoRules, .. }) | None => {
            "no rule allows anything".to_owned()
        }
        Some(Effect { policy, rule: Some(rule), matched, .. }) => {
            format!("nearest is rule {rule} of {policy}: {}", matched_in_words(*matched))
        }
        Some(effect) => matched_in_words(effect.matched).to_owned(),
    }
}

/// Why a rule did not match.
#[must_use]
pub fn matched_in_words(matched: RuleMatch) -> &'static str {
    match matched {
        RuleMatch::Matched => "it matches",
        RuleMatch::NoRules => "it has no rule in this direction",
        RuleMatch::PortDiffers => "the port differs",
        RuleMatch::ProtocolDiffers => "the protocol differs",
        RuleMatch::NamespaceLabelsDiffer => "the peer's namespace labels differ",
        RuleMatch::PodLabelsDiffer => "the peer's pod labels differ",
        RuleMatch::AddressOutside => "the peer's address is outside",
        RuleMatch::PeerIsNoPod => "it asks for pods and the peer is none",
        RuleMatch::CniDependent => "it depends on the network plugin",
        RuleMatch::PeerUnknown => "the peer is not known",
    }
}

/// Why a side decided as it did.
#[must_use]
pub fn reason_in_words(reason: Reason) -> &'static str {
    match reason {
        Reason::NotIsolated => "no policy selects the pod in this direction",
        Reason::RuleMatched => "a rule matches",
        Reason::NoRuleMatched => "isolated, and no rule matches",
        Reason::OwnNode => "the peer is the pod's own node",
        Reason::Loopback => "traffic of a pod with itself",
        Reason::HostNetwork => "the pod is on the host network",
        Reason::NotAPod => "this end is no pod",
        Reason::EstablishedReply => "an answer within an allowed connection",
        Reason::UnknownEnd => "an end is not known",
        Reason::UnknownDirection => "nothing told who began",
        Reason::AmbiguousAddress => "more than one pod held the address",
        Reason::EndpointsDisagree => "the Service's endpoints are judged differently",
        Reason::NoEndpoints => "the Service has no known endpoint",
        Reason::CniDependent => "network plugins differ here and the profile does not choose",
        Reason::ProtocolNotDefined => "NetworkPolicy does not define this protocol",
        Reason::SourceRewritten => "the source address was rewritten on the way",
    }
}
