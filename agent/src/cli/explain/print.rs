//! An answer for people: the decision first, then what the other sets say, then each side with
//! every rule that was asked.
//!
//! In: one [`Answer`]. Out: lines of text. It adds nothing that is not in the answer.

use std::io::Write;

use parapet_core::engine::{DEFAULT_DENY, ENFORCED};
use parapet_core::flow::Direction;
use parapet_core::verdict::{Action, Delta, Effect, Profile, Reason, RuleMatch, SideVerdict, Tier};

use super::{Answer, SetAnswer};
use crate::export::report::words;

const PROFILE_HINT: &str = "choose the network plugin with --profile; what each of them does is \
                            printed by --show-profile";

/// Writes one answer.
pub(super) fn tree(out: &mut impl Write, answer: &Answer<'_>) -> std::io::Result<()> {
    let Answer { probe, policy_set, verdict, sets, input_problems } = answer;
    let port = probe.port.map_or_else(String::new, |port| format!(" port {port}"));
    writeln!(out, "{} -> {}{port}, {}", probe.from, probe.to, probe.protocol)?;
    writeln!(
        out,
        "{} under policy set {policy_set}, profile {}: {}",
        words::decision(verdict.decision),
        profile_name(verdict.profile),
        words::why(verdict),
    )?;
    for set in sets {
        set_line(out, set)?;
    }
    side_tree(out, Direction::Egress, &verdict.egress)?;
    side_tree(out, Direction::Ingress, &verdict.ingress)?;
    if [&verdict.egress, &verdict.ingress].iter().any(|s| s.reason == Reason::CniDependent) {
        writeln!(out, "  {PROFILE_HINT}")?;
    }
    if *input_problems > 0 {
        writeln!(out, "  not judged: what {input_problems} problems in the input are about")?;
    }
    Ok(())
}

/// Writes a profile's choices.
pub(super) fn profile(out: &mut impl Write, profile: Profile) -> std::io::Result<()> {
    writeln!(out, "profile {}", profile_name(profile))?;
    for row in profile.table() {
        writeln!(out, "  {}: {}\n      {}", row.question, row.choice, row.source)?;
    }
    Ok(())
}

fn set_line(out: &mut impl Write, set: &SetAnswer<'_>) -> std::io::Result<()> {
    let SetAnswer { policy_set, decision, delta, newly_isolated } = set;
    write!(out, "  {policy_set}: {}", words::decision(*decision))?;
    if *policy_set != ENFORCED && *delta != Delta::Undecidable {
        write!(out, ", {}", words::delta(*delta).replace('_', " "))?;
    }
    // Under default-deny that is so for every pod.
    if !newly_isolated.is_empty() && *policy_set != DEFAULT_DENY {
        write!(out, "{}", words::cliff(newly_isolated))?;
    }
    writeln!(out)
}

fn side_tree(
    out: &mut impl Write,
    direction: Direction,
    side: &SideVerdict,
) -> std::io::Result<()> {
    let name = words::direction(Some(direction));
    let (decision, reason) = (words::decision(side.decision), words::reason_in_words(side.reason));
    writeln!(out, "  {name}: {decision}, {reason}{}", tier(side.tier))?;
    for effect in &side.effects {
        writeln!(out, "    {}", effect_line(name, effect))?;
    }
    Ok(())
}

fn tier(tier: Option<Tier>) -> &'static str {
    match tier {
        Some(Tier::Admin) => " (admin tier)",
        Some(Tier::Baseline) => " (baseline tier)",
        Some(Tier::NetworkPolicy) | None => "",
    }
}

fn effect_line(direction: &str, effect: &Effect) -> String {
    let Effect { origin, rule, action, matched, wanted, tier, .. } = effect;
    let policy = words::policy(effect);
    let rule = rule.map_or_else(String::new, |rule| format!(" {direction}[{rule}]"));
    let action = match (tier, action) {
        (Tier::NetworkPolicy, _) => "",
        (_, Action::Allow) => ", to accept",
        (_, Action::Deny) => ", to deny",
        (_, Action::Pass) => ", to pass on to the next tier",
    };
    let said = match matched {
        RuleMatch::Matched => "matches",
        RuleMatch::NoRules => "isolates, and has no rule in this direction",
        other => words::matched_in_words(*other),
    };
    let wanted = wanted.as_ref().map_or_else(String::new, |text| format!("; it wants {text}"));
    format!("{policy} ({origin}){rule}{action}: {said}{wanted}")
}

fn profile_name(profile: Profile) -> &'static str {
    match profile {
        Profile::Common => "common",
        Profile::Spec => "spec",
        Profile::Cilium => "cilium",
        Profile::Calico => "calico",
        Profile::Aws => "aws",
        Profile::Antrea => "antrea",
        Profile::OvnKubernetes => "ovn-kubernetes",
        Profile::KubeNetworkPolicies => "kube-network-policies",
    }
}
