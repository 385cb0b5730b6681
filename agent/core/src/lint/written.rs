//! What is odd in the text of a policy, whatever the cluster is like.
//!
//! In: what compiling remarked, and selectors. Out: findings. It looks at no pod.

use super::cover::contradiction;
use super::world::{World, peers, rules};
use super::{Findings, LintRule, Said, peer_field, subject_field};
use crate::flow::Direction;
use crate::policy::compiled::Oddity;
use crate::policy::pattern::{Linked, NamespaceChoice, Pattern};
use crate::policy::rule::Peer;
use crate::policy::selector::Selector;

pub(super) fn check(world: &World<'_>, findings: &mut Findings) {
    for policy in &world.policies {
        policy.notices.iter().for_each(|notice| findings.add_notice(policy, notice));
        for remark in &policy.remarks {
            findings.add(policy, remark.field.clone(), said_of(&remark.oddity));
        }
        if let Some(said) = contradicted(&policy.subject.pattern) {
            findings.add(policy, subject_field(policy.kind), said);
        }
        for (direction, at, rule) in rules(policy) {
            for (peer_at, peer) in peers(rule) {
                let said = match peer {
                    Peer::Pods(Linked { pattern, .. }) => contradicted(pattern),
                    Peer::Nodes(selector) => contradicted_selector(selector),
                    Peer::Blocks(_) | Peer::Domains(_) => None,
                };
                if let Some(said) = said {
                    findings.add(policy, peer_field(direction, at, peer_at), said);
                }
            }
        }
    }
}

fn said_of(oddity: &Oddity) -> Said {
    match oddity {
        Oddity::HostBits { written, read } => Said::warning(
            LintRule::CidrHostBits,
            format!("{written} has bits beyond its prefix: the API reads it as {read}"),
            host_bits_fix(written, read),
        ),
        Oddity::RulesWithoutType(direction) => {
            let name = match direction {
                Direction::Ingress => "Ingress",
                Direction::Egress => "Egress",
            };
            Said::error(
                LintRule::IgnoredRules,
                format!("spec.policyTypes does not hold {name}: these rules are ignored"),
                format!("add {name} to spec.policyTypes, or remove the rules"),
            )
        }
    }
}

fn host_bits_fix(written: &str, read: &ipnet::IpNet) -> String {
    let address = written.split('/').next().unwrap_or_default();
    let bits = read.max_prefix_len();
    format!("write {read} if the whole network is meant, or {address}/{bits} for the one address")
}

fn contradicted(pattern: &Pattern) -> Option<Said> {
    let of_namespaces = match &pattern.namespaces {
        NamespaceChoice::Only(_) => None,
        NamespaceChoice::Labelled(selector) => contradicted_selector(selector),
    };
    of_namespaces.or_else(|| contradicted_selector(&pattern.pods))
}

fn contradicted_selector(selector: &Selector) -> Option<Said> {
    let key = contradiction(selector)?;
    Some(Said::error(
        LintRule::SelectorContradiction,
        format!("{selector}: no object can satisfy all that is asked of the label {key}"),
        "remove one of the requirements; for either of two values use one In with both",
    ))
}
