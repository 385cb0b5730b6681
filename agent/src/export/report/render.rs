//! A report as a table, CSV or Markdown.
//!
//! In: a [`Report`]. Out: text, the same for the same report. It fits nothing to a terminal:
//! whoever pipes a table gets whole words.

use std::fmt::Write;

use parapet_core::engine::DEFAULT_DENY;
use parapet_core::verdict::{Decision, Delta};

use super::{EdgeRow, Report, form, words};

pub mod secrets;

/// The columns of `parapet report flows` before those of the policy sets.
const COLUMNS: [&str; 7] =
    ["source", "target", "port", "protocol", "direction", "attempts", "outcomes"];

/// Nodes without an answer that are named.
const SILENT_MAX: usize = 10;

/// The header and a row an edge: for each policy set its decision, then delta and reason of the set
/// that changes most.
#[must_use]
pub fn rows(report: &Report) -> (Vec<String>, Vec<Vec<String>>) {
    let columns = COLUMNS.iter().map(|column| (*column).to_owned());
    let sets = report.policy_sets.iter().cloned();
    let header = columns.chain(sets).chain(["delta", "why"].map(str::to_owned)).collect();
    let rows = report.edges.iter().map(|edge| row(report, edge)).collect();
    (header, rows)
}

fn row(report: &Report, edge: &EdgeRow) -> Vec<String> {
    let mut cells = vec![
        edge.source.to_string(),
        edge.target.to_string(),
        edge.target_port.to_string(),
        edge.protocol.clone(),
        words::seen_at(edge),
        edge.counts.attempts.to_string(),
        words::outcomes(&edge.outcomes, edge.open),
    ];
    for set in &report.policy_sets {
        let decision = edge.verdicts.get(set).map(|verdict| words::decision(verdict.decision));
        cells.push(decision.unwrap_or("unjudged").to_owned());
    }
    let set = telling_set(report, edge);
    let delta = set.and_then(|set| edge.deltas.get(set)).map(|delta| words::delta(*delta));
    cells.push(delta.unwrap_or_default().to_owned());
    let verdict = set.and_then(|set| edge.verdicts.get_key_value(set));
    let why = verdict.map(|(set, verdict)| {
        let first = edge.newly_isolated.get(set).map(|directions| words::cliff(directions));
        format!("{set}: {}{}", words::why(verdict), first.unwrap_or_default())
    });
    cells.push(why.unwrap_or_default());
    cells
}

/// The set whose delta and reason are shown: the candidate that changes most, the first of equals;
/// `default-deny` only where there is no candidate.
fn telling_set<'a>(report: &'a Report, edge: &EdgeRow) -> Option<&'a String> {
    let rank = |set: &&String| match edge.deltas.get(*set) {
        _ if set.as_str() == DEFAULT_DENY => 5,
        Some(Delta::NewlyDenied) => 0,
        Some(Delta::Undecidable) => 1,
        Some(Delta::NewlyAllowed) => 2,
        Some(Delta::UnchangedDenied) => 3,
        _ => 4,
    };
    let compared = report.policy_sets.iter().filter(|set| edge.deltas.contains_key(*set));
    compared.min_by_key(rank)
}

/// As a table with its summary.
#[must_use]
pub fn table(report: &Report) -> String {
    let mut text = if report.edges.is_empty() {
        "No flow was seen yet.\n".to_owned()
    } else {
        let (header, rows) = rows(report);
        form::aligned(&header, rows)
    };
    text.push('\n');
    text.push_str(&summary(report));
    text
}

/// As Markdown: a table, then the summary as a list.
#[must_use]
pub fn markdown(report: &Report) -> String {
    let (header, rows) = rows(report);
    let mut text = form::markdown(&header, &rows);
    text.push('\n');
    for sentence in summary(report).lines() {
        // Writing to a string does not fail.
        let _ = writeln!(text, "- {sentence}");
    }
    text
}

/// As CSV (RFC 4180), header first, without the summary.
#[must_use]
pub fn csv(report: &Report) -> String {
    let (header, rows) = rows(report);
    form::csv(&header, &rows)
}

/// A line a policy set with its delta counts, then what a reader must know before trusting them.
#[must_use]
pub fn summary(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a string does not fail, here and below.
    let _ = writeln!(text, "{} edges since {}", report.edges.len(), since(report));
    nodes(&mut text, report);
    let counts = report.delta_counts();
    for set in &report.policy_sets {
        let Some(deltas) = counts.get(set.as_str()) else { continue };
        let parts: Vec<String> = [
            Delta::NewlyDenied,
            Delta::NewlyAllowed,
            Delta::UnchangedDenied,
            Delta::UnchangedAllowed,
            Delta::Undecidable,
        ]
        .into_iter()
        .map(|delta| {
            format!("{} {}", deltas.get(&delta).copied().unwrap_or(0), words::delta(delta))
        })
        .collect();
        let _ = writeln!(text, "{set}: {}", parts.join(", "));
    }
    let passing = report.edges.iter().filter(|edge| denied_but_passing(edge)).count();
    if passing > 0 {
        let _ = writeln!(text, "{passing} edges pass although enforced policies deny them");
    }
    if !report.synced {
        let _ = writeln!(text, "objects are still being read: nothing is judged yet");
    }
    let lost: u64 = report.lost.values().sum();
    if lost > 0 {
        let _ = writeln!(text, "{lost} records or packets were not followed (see /status)");
    }
    let waiting = report.pending + report.unjudged;
    if waiting > 0 {
        let _ = writeln!(text, "{waiting} records wait for an identity or a verdict");
    }
    text
}

/// From how many nodes it is, and which are missing.
pub(super) fn nodes(text: &mut String, report: &Report) {
    if report.nodes.is_empty() {
        return;
    }
    let silent: Vec<_> = report.silent().collect();
    let (all, answered) = (report.nodes.len(), report.nodes.len() - silent.len());
    let _ = writeln!(text, "from {answered} of {all} nodes");
    for (node, problem) in silent.iter().take(SILENT_MAX) {
        let _ = writeln!(text, "not from {node}: {problem}");
    }
    if silent.len() > SILENT_MAX {
        let _ = writeln!(text, "and not from {} more nodes", silent.len() - SILENT_MAX);
    }
}

fn since(report: &Report) -> &str {
    if report.observing_since.is_empty() { "the start" } else { &report.observing_since }
}

/// What the enforced policies deny and the network lets through.
fn denied_but_passing(edge: &EdgeRow) -> bool {
    let denied = edge.verdicts.get("enforced").is_some_and(|v| v.decision == Decision::Denied);
    denied && edge.counts.answered > 0
}
