//! What a check found, as one stable document.
//!
//! In: what was judged, linted and refused. Out: [`CheckResult`] and its one [`Answer`]. Fields are
//! added, never renamed or removed, within one [`FORMAT`].

use std::collections::BTreeMap;

use parapet_core::engine::ENFORCED;
use parapet_core::flow::{Direction, Outcome};
use parapet_core::verdict::{Decision, Delta, Profile, Reason};
use serde::Serialize;

use super::lint::LintRow;
use crate::export::report::{EdgeRow, EndRow, Report};

/// Raised when a field changes its meaning or goes away.
pub(super) const FORMAT: u32 = 1;

/// Nodes without an answer that are named in a gap.
const SILENT_MAX: usize = 10;

/// Everything a check found.
#[derive(Debug, Serialize)]
pub(super) struct CheckResult {
    pub(super) format: u32,
    pub(super) profile: Profile,
    /// None: nothing was judged.
    pub(super) evidence: Option<Evidence>,
    /// In the order of their names.
    pub(super) policy_sets: Vec<SetResult>,
    /// Empty unless asked for.
    pub(super) lint: Vec<LintRow>,
    /// What was refused or could not be read.
    pub(super) problems: Vec<ProblemRow>,
    pub(super) verdict: Answer,
}

/// The answer to "is it safe".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// Nothing in use would be denied, and the evidence is whole.
    Safe,
    /// Nothing to object to, and nothing was judged: there was no evidence to judge.
    Valid,
    /// Something in use would be denied that is not denied now.
    Unsafe,
    /// The evidence does not tell.
    InsufficientEvidence,
    /// Something was refused, could not be read, or is a lint error.
    Invalid,
}

/// What was judged by.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Evidence {
    pub(super) at: String,
    pub(super) observing_since: String,
    /// As they are in the report: in that of one agent, what was seen at both ends is there twice.
    pub(super) edges: usize,
    /// In a merged report: nodes that were asked.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) nodes: usize,
    /// Why it cannot carry a `safe`, in words.
    pub(super) gaps: Vec<String>,
}

/// What one candidate would change.
#[derive(Debug, Serialize)]
pub(super) struct SetResult {
    pub(super) policy_set: String,
    pub(super) verdict: Answer,
    pub(super) deltas: Deltas,
    /// Those that are newly denied, newly allowed or undecidable, worst first.
    pub(super) edges: Vec<EdgeResult>,
}

/// Edges by delta; what was seen at both ends is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Deltas {
    pub(super) newly_denied: u64,
    pub(super) newly_allowed: u64,
    pub(super) undecidable: u64,
    pub(super) unchanged_denied: u64,
    pub(super) unchanged_allowed: u64,
}

/// One edge whose fate changes, or is not known.
#[derive(Debug, Serialize)]
pub(super) struct EdgeResult {
    pub(super) delta: Delta,
    /// Whether anything was answered. A scan is no use.
    pub(super) in_use: bool,
    pub(super) source: EndRow,
    pub(super) target: EndRow,
    pub(super) protocol: String,
    pub(super) target_port: u16,
    /// The ends it was seen at.
    pub(super) seen_at: Vec<Direction>,
    pub(super) attempts: u64,
    pub(super) answered: u64,
    pub(super) last_seen: String,
    /// What is enforced says.
    pub(super) enforced: Decision,
    /// The candidate says.
    pub(super) decision: Decision,
    /// The side that decided; null if nothing told who began.
    pub(super) decided_by: Option<Direction>,
    pub(super) reason: Reason,
    /// The policies that decided, in words.
    pub(super) why: String,
    /// Ends that the candidate's policies are the first to isolate.
    pub(super) newly_isolated: Vec<Cliff>,
    /// What is not declared any more, in words.
    pub(super) missing: Vec<String>,
}

/// The first policy that selects a pod denies it everything that the policy does not name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Cliff {
    pub(super) direction: Direction,
    pub(super) subject: String,
}

/// One thing that keeps policies from being judged as they are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct ProblemRow {
    /// The candidate; null for the manifests.
    pub(super) policy_set: Option<String>,
    pub(super) file: Option<String>,
    pub(super) document: Option<usize>,
    pub(super) line: Option<usize>,
    pub(super) object: Option<String>,
    pub(super) field: Option<String>,
    pub(super) problem: String,
}

impl CheckResult {
    /// What all of it comes to: something in use that would be denied weighs more than a policy
    /// that was refused, and that more than evidence that does not tell.
    pub(super) fn answer(&self, has_lint_error: bool) -> Answer {
        let any = |answer| self.policy_sets.iter().any(|set| set.verdict == answer);
        if any(Answer::Unsafe) {
            Answer::Unsafe
        } else if !self.problems.is_empty() || has_lint_error {
            Answer::Invalid
        } else if any(Answer::InsufficientEvidence) {
            Answer::InsufficientEvidence
        } else if self.evidence.is_some() {
            Answer::Safe
        } else {
            Answer::Valid
        }
    }
}

impl Evidence {
    /// The report's own account of what it did not see, and what the judged objects leave out.
    pub(super) fn of(report: &Report, left_out: Vec<String>) -> Self {
        let mut gaps = Vec::new();
        if report.edges.is_empty() {
            gaps.push("it holds no edge".to_owned());
        }
        if !report.synced {
            gaps.push("the agent was still reading objects".to_owned());
        }
        let lost: Vec<String> = report
            .lost
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(stage, count)| format!("{stage} {count}"))
            .collect();
        if !lost.is_empty() {
            gaps.push(format!("records or packets were lost: {}", lost.join(", ")));
        }
        let waiting = report.pending.saturating_add(report.unjudged);
        if waiting > 0 {
            gaps.push(format!("{waiting} records waited for an identity or a verdict"));
        }
        let silent: Vec<_> = report.silent().map(|(node, why)| format!("{node} ({why})")).collect();
        if !silent.is_empty() {
            let (count, all) = (silent.len(), report.nodes.len());
            let named = silent.iter().take(SILENT_MAX).cloned().collect::<Vec<_>>().join(", ");
            let more = if count > SILENT_MAX { ", .." } else { "" };
            gaps.push(format!("{count} of {all} nodes did not tell what they saw: {named}{more}"));
        }
        gaps.extend(left_out);
        let (at, observing_since) = (report.at.clone(), report.observing_since.clone());
        let nodes = report.nodes.len();
        Self { at, observing_since, edges: report.edges.len(), nodes, gaps }
    }
}

impl SetResult {
    pub(super) fn new(name: &str) -> Self {
        Self {
            policy_set: name.to_owned(),
            verdict: Answer::Safe,
            deltas: Deltas::default(),
            edges: Vec::new(),
        }
    }

    /// Orders the edges, and says what they come to. A set that lacks policies, because they were
    /// refused, is never safe.
    pub(super) fn finish(&mut self, evidence: &Evidence, problems: &[ProblemRow]) {
        self.edges.sort_by_key(|edge| {
            (std::cmp::Reverse(edge.delta.severity()), std::cmp::Reverse(edge.in_use))
        });
        let used = |delta| self.edges.iter().any(|edge| edge.in_use && edge.delta == delta);
        self.verdict = if used(Delta::NewlyDenied) {
            Answer::Unsafe
        } else if problems.iter().any(|problem| problem.is_of(&self.policy_set)) {
            Answer::Invalid
        } else if used(Delta::Undecidable) || !evidence.gaps.is_empty() {
            Answer::InsufficientEvidence
        } else {
            Answer::Safe
        };
    }

    /// Every pod that is isolated for the first time, once.
    pub(super) fn cliffs(&self) -> BTreeMap<&Cliff, usize> {
        let mut cliffs = BTreeMap::new();
        for cliff in self.edges.iter().flat_map(|edge| &edge.newly_isolated) {
            *cliffs.entry(cliff).or_default() += 1;
        }
        cliffs
    }
}

impl Deltas {
    pub(super) fn add(&mut self, delta: Delta) {
        let count = match delta {
            Delta::NewlyDenied => &mut self.newly_denied,
            Delta::NewlyAllowed => &mut self.newly_allowed,
            Delta::Undecidable => &mut self.undecidable,
            Delta::UnchangedDenied => &mut self.unchanged_denied,
            Delta::UnchangedAllowed => &mut self.unchanged_allowed,
        };
        *count += 1;
    }

    /// Whether edges of this delta are told one by one.
    pub(super) fn is_listed(delta: Delta) -> bool {
        matches!(delta, Delta::NewlyDenied | Delta::NewlyAllowed | Delta::Undecidable)
    }
}

impl ProblemRow {
    /// Whether the set is not judged as it is meant: its own policies, or those it is added to.
    fn is_of(&self, policy_set: &str) -> bool {
        self.policy_set.as_deref().is_none_or(|set| set == policy_set || set == ENFORCED)
    }
}

impl EdgeResult {
    /// What all rows of one edge say of it: each end counted the same attempts, and where that end
    /// is a node, each of its processes its own.
    pub(super) fn of(rows: &[&EdgeRow], delta: Delta) -> Self {
        let mut seen_at: Vec<Direction> = rows.iter().flat_map(|row| row.seen_at()).collect();
        seen_at.sort_unstable();
        seen_at.dedup();
        let seen_by = |direction, count: fn(&EdgeRow) -> u64| {
            let rows = rows.iter().filter(|row| row.direction == direction);
            rows.map(|row| count(row)).fold(0, u64::saturating_add)
        };
        let ends = [Some(Direction::Egress), Some(Direction::Ingress), None];
        let most = |count| ends.map(|direction| seen_by(direction, count)).into_iter().max();
        let row = rows.first();
        let end = |end: fn(&EdgeRow) -> &EndRow| {
            row.map_or(EndRow::Loopback, |row| end(row).without_cgroup().into_owned())
        };
        Self {
            delta,
            in_use: rows.iter().any(|row| in_use(row)),
            source: end(|row| &row.source),
            target: end(|row| &row.target),
            protocol: row.map(|row| row.protocol.clone()).unwrap_or_default(),
            target_port: row.map_or(0, |row| row.target_port),
            seen_at,
            attempts: most(|row| row.counts.attempts).unwrap_or(0),
            answered: most(|row| row.counts.answered).unwrap_or(0),
            last_seen: rows.iter().map(|row| row.last_seen.clone()).max().unwrap_or_default(),
            enforced: Decision::Undecidable,
            decision: Decision::Undecidable,
            decided_by: None,
            reason: Reason::UnknownDirection,
            why: String::new(),
            newly_isolated: Vec::new(),
            missing: Vec::new(),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// Whether anything was answered. What began before it was watched counts: nobody knows better.
fn in_use(row: &EdgeRow) -> bool {
    row.counts.answered > 0 || row.outcomes.get(&Outcome::Unknown).is_some_and(|count| *count > 0)
}
