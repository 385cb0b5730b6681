//! A check for people.
//!
//! In: a [`CheckResult`]. Out: text, the answer last. It says nothing that the JSON does not hold.

use std::fmt::Write;

use parapet_core::lint::Severity;
use parapet_core::verdict::Delta;

use super::lint::LintRow;
use super::result::{Answer, CheckResult, EdgeResult, Evidence, SetResult};
use crate::export::report::{form, words};

const COLUMNS: [&str; 8] =
    ["source", "target", "port", "protocol", "attempts", "answered", "last_seen", "why"];

/// The tables of the edges that are told one by one: delta, whether in use, title.
const SECTIONS: [(Delta, bool, &str); 6] = [
    (Delta::NewlyDenied, true, "In use, and would be newly denied"),
    (Delta::NewlyDenied, false, "Would be newly denied too, but nothing was ever answered"),
    (Delta::Undecidable, true, "In use, and undecidable"),
    (Delta::Undecidable, false, "Undecidable, and nothing was ever answered"),
    (Delta::NewlyAllowed, true, "In use although denied now, and would be newly allowed"),
    (Delta::NewlyAllowed, false, "Would be newly allowed"),
];

/// Pods isolated for the first time that are named before the tables; each edge names its own.
const CLIFFS_MAX: usize = 10;

/// Everything, for people.
pub(super) fn table(result: &CheckResult) -> String {
    let mut text = String::new();
    if let Some(evidence) = &result.evidence {
        for set in &result.policy_sets {
            of_set(&mut text, set);
        }
        of_evidence(&mut text, evidence);
    }
    of_lint(&mut text, &result.lint);
    // Writing to a string does not fail, here and below.
    let _ = writeln!(text, "{}", sentence(result));
    text
}

fn of_set(text: &mut String, set: &SetResult) {
    let deltas = set.deltas;
    let _ = writeln!(
        text,
        "{}: {} ({} newly_denied, {} newly_allowed, {} undecidable, {} unchanged_denied, {} \
         unchanged_allowed)",
        set.policy_set,
        answer(set.verdict),
        deltas.newly_denied,
        deltas.newly_allowed,
        deltas.undecidable,
        deltas.unchanged_denied,
        deltas.unchanged_allowed,
    );
    let cliffs = set.cliffs();
    for (cliff, edges) in cliffs.iter().take(CLIFFS_MAX) {
        let direction = words::direction(Some(cliff.direction));
        let edges = if *edges == 1 { "1 edge".to_owned() } else { format!("{edges} edges") };
        let subject = &cliff.subject;
        let _ = writeln!(text, "first policy to isolate {subject} for {direction}: {edges} below");
    }
    let more = cliffs.len().saturating_sub(CLIFFS_MAX);
    if more > 0 {
        let _ = writeln!(text, "and {more} more are isolated for the first time, see below");
    }
    text.push('\n');
    for (delta, in_use, title) in SECTIONS {
        let edges = set.edges.iter().filter(|edge| edge.delta == delta && edge.in_use == in_use);
        let rows: Vec<_> = edges.map(row).collect();
        if !rows.is_empty() {
            let header = COLUMNS.map(str::to_owned);
            let _ = writeln!(text, "{title}:\n{}", form::aligned(&header, rows));
        }
    }
}

fn row(edge: &EdgeResult) -> Vec<String> {
    let mut why = edge.why.clone();
    for cliff in &edge.newly_isolated {
        let direction = words::direction(Some(cliff.direction));
        let _ = write!(why, "; first policy to isolate {} for {direction}", cliff.subject);
    }
    for missing in &edge.missing {
        let _ = write!(why, "; {missing}");
    }
    vec![
        edge.source.to_string(),
        edge.target.to_string(),
        edge.target_port.to_string(),
        edge.protocol.clone(),
        edge.attempts.to_string(),
        edge.answered.to_string(),
        edge.last_seen.clone(),
        why,
    ]
}

fn of_evidence(text: &mut String, evidence: &Evidence) {
    let Evidence { at, observing_since, edges, nodes, gaps } = evidence;
    let of = if *nodes > 0 { format!(" of {nodes} nodes") } else { String::new() };
    let _ = writeln!(text, "evidence: {edges} edges{of}, watched from {observing_since} to {at}");
    for gap in gaps {
        let _ = writeln!(text, "evidence is not enough: {gap}");
    }
}

/// Findings by object, each with what to do about it.
fn of_lint(text: &mut String, rows: &[LintRow]) {
    let same = |a: &LintRow, b: &LintRow| {
        (&a.policy_set, &a.finding.object) == (&b.policy_set, &b.finding.object)
    };
    for rows in rows.chunk_by(same) {
        let Some(first) = rows.first() else { continue };
        let _ = writeln!(text, "{} ({})", first.finding.object, first.policy_set);
        for LintRow { finding, .. } in rows {
            let severity = match finding.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            let (field, problem) = (&finding.field, &finding.problem);
            let _ = writeln!(text, "  {severity}: {field}: {problem}\n    fix: {}", finding.fix);
        }
        text.push('\n');
    }
}

fn answer(answer: Answer) -> &'static str {
    match answer {
        Answer::Safe => "safe",
        Answer::Valid => "valid",
        Answer::Unsafe => "unsafe",
        Answer::InsufficientEvidence => "insufficient_evidence",
        Answer::Invalid => "invalid",
    }
}

fn sentence(result: &CheckResult) -> String {
    let why = match result.verdict {
        Answer::Safe => "nothing in use would be newly denied",
        Answer::Valid => "every policy can be read; without evidence nothing was judged",
        Answer::Unsafe => "something in use would be newly denied",
        Answer::InsufficientEvidence => "what was seen does not tell",
        Answer::Invalid if result.problems.is_empty() => "lint found an error",
        Answer::Invalid => "something was refused or could not be read, and was not judged",
    };
    format!("verdict: {} ({why})", answer(result.verdict))
}
