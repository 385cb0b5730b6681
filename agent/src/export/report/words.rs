//! Verdicts in words for people.
//!
//! In: the closed lists of the core. Out: short English. It adds nothing that the verdict does not
//! say.

use std::collections::BTreeMap;

use parapet_core::flow::{Direction, Outcome};
use parapet_core::verdict::{
    Action, Decision, Delta, Effect, PolicyKind, Reason, RuleMatch, SideVerdict, Tier, Verdict,
};

use super::EdgeRow;

/// `egress`, `ingress`, or `unknown` if nothing told who began.
#[must_use]
pub fn direction(direction: Option<Direction>) -> &'static str {
    match direction {
        Some(Direction::Egress) => "egress",
        Some(Direction::Ingress) => "ingress",
        None => "unknown",
    }
}

/// The ends at which an edge was seen: `egress`, or `egress, ingress` if many nodes were asked.
#[must_use]
pub fn seen_at(edge: &EdgeRow) -> String {
    let ends: Vec<&str> = edge.seen_at().into_iter().map(|end| direction(Some(end))).collect();
    if ends.is_empty() { direction(None).to_owned() } else { ends.join(", ") }
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

/// `3 answered, 1 refused, 1 open`; `none` if no attempt was seen.
#[must_use]
pub fn outcomes(outcomes: &BTreeMap<Outcome, u64>, open: u64) -> String {
    let word = |outcome| match outcome {
        Outcome::Answered => "answered",
        Outcome::Refused => "refused",
        Outcome::Unanswered => "unanswered",
        Outcome::Unknown => "unknown",
    };
    let parts: Vec<String> = outcomes
        .iter()
        .map(|(outcome, count)| (*count, word(*outcome)))
        .chain([(open, "open")])
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
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
    let deciding = |action: Action| {
        side.effects.iter().find(|effect| {
            effect.matched == RuleMatch::Matched
                && effect.action == action
                && side.tier.is_none_or(|tier| tier == effect.tier)
        })
    };
    match side.reason {
        Reason::RuleMatched => match deciding(Action::Allow) {
            Some(effect) => format!("{} matches", rule(effect)),
            None => "a rule matches".to_owned(),
        },
        Reason::RuleDenies => match deciding(Action::Deny) {
            Some(effect) => format!("{} denies it", rule(effect)),
            None => "a rule denies it".to_owned(),
        },
        Reason::NoRuleMatched if !side.effects.is_empty() => {
            format!("isolated by {}; {}", isolating(side), nearest(side))
        }
        reason => reason_in_words(reason).to_owned(),
    }
}

/// That a policy is the first one to select a pod in these directions: what follows from that is
/// more than what it says. Begins with a semicolon.
#[must_use]
pub fn cliff(directions: &[Direction]) -> String {
    let names: Vec<&str> = directions.iter().map(|each| direction(Some(*each))).collect();
    format!("; the first policy to isolate this pod for {}", names.join(" and "))
}

/// "rule 0 of shop/allow-web", "rule 2 of ClusterNetworkPolicy no-metadata".
fn rule(effect: &Effect) -> String {
    match effect.rule {
        Some(rule) => format!("rule {rule} of {}", policy(effect)),
        None => policy(effect),
    }
}

/// The policy's name; of a cluster-scoped one with its kind, because there are several.
#[must_use]
pub fn policy(effect: &Effect) -> String {
    match effect.kind {
        PolicyKind::NetworkPolicy => effect.policy.to_string(),
        kind => format!("{} {}", kind.name(), effect.policy),
    }
}

/// The NetworkPolicies of a side, each once, in the verdict's order.
fn isolating(side: &SideVerdict) -> String {
    let mut names: Vec<&str> = Vec::new();
    for effect in side.effects.iter().filter(|effect| effect.tier == Tier::NetworkPolicy) {
        if !names.contains(&effect.policy.as_ref()) {
            names.push(&effect.policy);
        }
    }
    names.join(", ")
}

/// The rule of a NetworkPolicy that came nearest to matching: one whose peers match comes before
/// one whose do not.
fn nearest(side: &SideVerdict) -> String {
    let rank = |matched: RuleMatch| match matched {
        RuleMatch::Matched => 0,
        RuleMatch::CniDependent | RuleMatch::PeerUnknown | RuleMatch::DomainNameUnknown => 1,
        RuleMatch::PortDiffers => 2,
        RuleMatch::ProtocolDiffers => 3,
        RuleMatch::PodLabelsDiffer => 4,
        RuleMatch::NamespaceLabelsDiffer | RuleMatch::NodeLabelsDiffer => 5,
        RuleMatch::BlockSkipsCluster | RuleMatch::DomainNameDiffers => 6,
        RuleMatch::AddressOutside => 7,
        RuleMatch::PeerIsNoPod | RuleMatch::PeerIsNoNode => 8,
        RuleMatch::NoRules | RuleMatch::FailsClosed => 9,
    };
    let of_tier = side.effects.iter().filter(|effect| effect.tier == Tier::NetworkPolicy);
    match of_tier.min_by_key(|effect| rank(effect.matched)) {
        Some(Effect { matched: RuleMatch::NoRules, .. }) | None => {
            "no rule allows anything".to_owned()
        }
        Some(effect) => {
            format!("nearest is {}: {}", rule(effect), matched_in_words(effect.matched))
        }
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
        RuleMatch::NamespaceLabelsDiffer => "the peer's namespace differs",
        RuleMatch::PodLabelsDiffer => "the peer's pod labels differ",
        RuleMatch::AddressOutside => "the peer's address is outside",
        RuleMatch::PeerIsNoPod => "it asks for pods and the peer is none",
        RuleMatch::CniDependent => "it depends on the network plugin",
        RuleMatch::PeerUnknown => "the peer is not known",
        RuleMatch::PeerIsNoNode => "it asks for nodes and the peer is none",
        RuleMatch::NodeLabelsDiffer => "the node's labels differ",
        RuleMatch::DomainNameDiffers => "it asks for other domain names",
        RuleMatch::DomainNameUnknown => "it is not known by which name the address was asked for",
        RuleMatch::BlockSkipsCluster => "blocks do not hold the cluster's own addresses here",
        RuleMatch::FailsClosed => "it holds something newer than Parapet, and lets nothing pass",
    }
}

/// Why a side decided as it did.
#[must_use]
pub fn reason_in_words(reason: Reason) -> &'static str {
    match reason {
        Reason::NotIsolated => "no NetworkPolicy isolates the pod in this direction",
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
        Reason::RuleDenies => "a rule denies it",
        Reason::PriorityTie => "policies of the same priority disagree",
        Reason::NameUnknown => "it is not known by which domain name the address was asked for",
        Reason::SourceRewritten => "the source address was rewritten on the way",
    }
}
