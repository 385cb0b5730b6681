//! What the demo prints.
//!
//! In: a report. Out: text for people, wide as its longest words. It decides nothing.

use std::collections::{BTreeMap, BTreeSet};

use support::report::{Edge, Report, Verdict};

/// `a/b -> c/d TCP/80`.
fn flow(edge: &Edge) -> String {
    let (source, target) = (edge.source.shown(), edge.target.shown());
    format!("{source} -> {target} {}/{}", edge.protocol, edge.target_port)
}

/// Flows that the candidate would cut, by the side that decides.
pub(crate) fn would_be_denied(report: &Report, candidate: &str) -> String {
    // A flow inside the node is seen at both of its ends and takes one row.
    let mut rows = BTreeMap::new();
    for edge in &report.edges {
        let is_cut = edge.deltas.get(candidate).is_some_and(|delta| delta == "newly_denied");
        let Some(verdict) = edge.verdicts.get(candidate).filter(|_| is_cut) else { continue };
        let (side, reason, policies) = why(verdict);
        let attempts = edge.counts.attempts.to_string();
        rows.insert(flow(edge), [flow(edge), attempts, side.to_string(), reason, policies]);
    }
    let head = ["FLOW", "ATTEMPTS", "DENIED BY", "REASON", "POLICIES THAT ISOLATE"];
    let mut lines = vec![head.map(String::from)];
    lines.extend(rows.into_values());
    format!("\nwould be denied by `{candidate}`\n\n{}", aligned(&lines))
}

/// How many edges fall into each delta, for each policy set that is not in force.
pub(crate) fn deltas(report: &Report) -> String {
    let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for edge in &report.edges {
        for (set, delta) in &edge.deltas {
            *counts.entry((set, delta)).or_default() += 1;
        }
    }
    let mut lines = vec![["POLICY SET", "DELTA", "EDGES"].map(String::from)];
    for ((set, delta), edges) in counts {
        lines.push([set.to_string(), delta.to_string(), edges.to_string()]);
    }
    format!("against what is in force now\n\n{}", aligned(&lines))
}

/// The side that denies, egress first as the agent has it.
fn why(verdict: &Verdict) -> (&'static str, String, String) {
    let (word, side) = if verdict.egress.decision == "denied" {
        ("egress", &verdict.egress)
    } else {
        ("ingress", &verdict.ingress)
    };
    let policies: BTreeSet<_> = side.effects.iter().map(|effect| effect.policy.as_str()).collect();
    (word, side.reason.clone(), policies.into_iter().collect::<Vec<_>>().join(", "))
}

fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
            line.push_str(&format!("{cell:width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
