//! Counters that only grow, fed by snapshots whose edges may settle, be judged anew or be
//! forgotten.
//!
//! In: one snapshot after the other. Out: attempts by outcome and by verdict. It never counts an
//! attempt twice under one policy set and never takes anything back.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parapet_core::flow::{Direction, Outcome, Timestamp};
use parapet_core::snapshot::{Edge, EdgeKey, Snapshot};
use parapet_core::verdict::{Decision, Reason, SideVerdict, Verdict};

use super::labels::Ends;
use super::series::{Fold, Series};

/// An attempt that is still open is reported as unanswered by the ledger. Only what stayed open for
/// this long becomes part of a counter, because a counter cannot take back what is answered later.
const SETTLE_NANOS: u64 = 1_000_000_000;

/// Identifies a series of `flow_attempts_total`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct AttemptKey {
    pub(super) direction: Option<Direction>,
    pub(super) protocol: u8,
    pub(super) outcome: Outcome,
    pub(super) ends: Ends,
}

/// Identifies a series of `policy_verdicts_total`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct VerdictKey {
    pub(super) policy_set: Arc<str>,
    pub(super) direction: Option<Direction>,
    pub(super) decision: Decision,
    pub(super) reason: Reason,
    pub(super) ends: Ends,
}

impl Fold for AttemptKey {
    fn folded(&self) -> Self {
        Self { ends: Ends::Folded, ..self.clone() }
    }
}

impl Fold for VerdictKey {
    fn folded(&self) -> Self {
        Self { ends: Ends::Folded, ..self.clone() }
    }
}

/// The counters, and what of each edge they hold already.
#[derive(Debug)]
pub(super) struct Totals {
    pub(super) attempts: Series<AttemptKey>,
    pub(super) verdicts: Series<VerdictKey>,
    pub(super) series_max: usize,
    /// Additions that found no room in the gauges of all scrapes so far, by family.
    pub(super) gauge_overflow: BTreeMap<&'static str, u64>,
    edges: HashMap<EdgeKey, Counted, foldhash::fast::RandomState>,
    round: u64,
}

/// What of one edge is in the counters.
#[derive(Debug)]
struct Counted {
    edge: Arc<Edge>,
    outcomes: BTreeMap<Outcome, u64>,
    /// Unanswered at the last look, and when that was.
    open: u64,
    open_at: Timestamp,
    judged: u64,
    round: u64,
}

impl Totals {
    pub(super) fn new(series_max: usize) -> Self {
        Self {
            attempts: Series::new(series_max),
            verdicts: Series::new(series_max),
            series_max,
            gauge_overflow: BTreeMap::new(),
            edges: HashMap::default(),
            round: 0,
        }
    }

    /// Adds what is new.
    pub(super) fn observe(&mut self, snapshot: &Snapshot) {
        self.round += 1;
        for edge in &snapshot.edges {
            let counted = match self.edges.get_mut(&edge.key) {
                Some(counted) => {
                    counted.round = self.round;
                    if Arc::ptr_eq(&counted.edge, edge) && counted.complete() {
                        continue;
                    }
                    counted.edge = Arc::clone(edge);
                    counted
                }
                None => self
                    .edges
                    .entry(edge.key.clone())
                    .or_insert_with(|| Counted::nothing_of(edge, self.round)),
            };
            for (outcome, amount) in counted.take_outcomes(snapshot.at) {
                self.attempts.add(AttemptKey::of(&edge.key, outcome), amount);
            }
            let attempts = counted.take_judged();
            if attempts > 0 {
                for (policy_set, verdict) in &edge.verdicts {
                    self.verdicts.add(VerdictKey::of(&edge.key, policy_set, verdict), attempts);
                }
            }
        }
        // The ledger's bound is this table's bound: what it forgot is forgotten here.
        if self.edges.len() > snapshot.edges.len() {
            let round = self.round;
            self.edges.retain(|_, counted| counted.round == round);
        }
    }
}

impl Counted {
    fn nothing_of(edge: &Arc<Edge>, round: u64) -> Self {
        Self {
            edge: Arc::clone(edge),
            outcomes: BTreeMap::new(),
            open: 0,
            open_at: Timestamp::default(),
            judged: 0,
            round,
        }
    }

    /// Whether another look at the same edge would add nothing.
    fn complete(&self) -> bool {
        let counted = self.outcomes.get(&Outcome::Unanswered).copied().unwrap_or(0);
        self.now(Outcome::Unanswered) <= counted
    }

    fn now(&self, outcome: Outcome) -> u64 {
        self.edge.outcomes.get(&outcome).copied().unwrap_or(0)
    }

    /// What was added to each outcome since the last look.
    fn take_outcomes(&mut self, at: Timestamp) -> Vec<(Outcome, u64)> {
        let mut added = Vec::new();
        for outcome in [Outcome::Answered, Outcome::Refused, Outcome::Unanswered, Outcome::Unknown]
        {
            let now = self.now(outcome);
            let settled = if outcome == Outcome::Unanswered { self.settled(now, at) } else { now };
            let before = self.outcomes.entry(outcome).or_default();
            if settled > *before {
                added.push((outcome, settled - *before));
                *before = settled;
            } else if outcome != Outcome::Unanswered && settled < *before {
                // The ledger forgot the edge and saw it again.
                added.push((outcome, settled));
                *before = settled;
            }
        }
        added.retain(|(_, amount)| *amount > 0);
        added
    }

    /// As many attempts as were open both now and a while ago.
    fn settled(&mut self, now: u64, at: Timestamp) -> u64 {
        if at.0.saturating_sub(self.edge.last_seen.0) >= SETTLE_NANOS {
            (self.open, self.open_at) = (now, at);
            return now;
        }
        let settled = self.open.min(now);
        if at.0.saturating_sub(self.open_at.0) >= SETTLE_NANOS {
            (self.open, self.open_at) = (now, at);
            return settled;
        }
        0
    }

    /// Attempts that were not judged at the last look and are now.
    fn take_judged(&mut self) -> u64 {
        if self.edge.verdicts.is_empty() {
            return 0;
        }
        let now = self.edge.counts.attempts;
        let added = if now < self.judged { now } else { now - self.judged };
        self.judged = now;
        added
    }
}

impl AttemptKey {
    fn of(key: &EdgeKey, outcome: Outcome) -> Self {
        Self { direction: key.direction, protocol: key.protocol, outcome, ends: Ends::of(key) }
    }
}

impl VerdictKey {
    /// The side this node saw is the side that is counted: the other one is counted where it is
    /// seen.
    fn of(key: &EdgeKey, policy_set: &Arc<str>, verdict: &Verdict) -> Self {
        let side = seen_side(key, verdict);
        Self {
            policy_set: Arc::clone(policy_set),
            direction: key.direction,
            decision: side.decision,
            reason: side.reason,
            ends: Ends::of(key),
        }
    }
}

/// What the policies of the end on this node say.
pub(super) fn seen_side<'a>(key: &EdgeKey, verdict: &'a Verdict) -> &'a SideVerdict {
    match key.direction {
        Some(Direction::Egress) => &verdict.egress,
        Some(Direction::Ingress) => &verdict.ingress,
        None => verdict.deciding().1,
    }
}
