//! Counters that only grow, fed by snapshots whose edges may settle, be judged anew or be
//! forgotten.
//!
//! In: one snapshot after the other. Out: attempts by outcome and by verdict, refusals by kind, TCP
//! handshakes and their time, opens of secret files. It never counts an attempt twice under one
//! policy set and never takes anything back.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parapet_core::flow::{Direction, Outcome, Protocol};
use parapet_core::record::Counts;
use parapet_core::snapshot::{Edge, EdgeKey, Outcomes, Snapshot};
use parapet_core::verdict::{Decision, Reason, SideVerdict, Verdict};

use super::labels::Ends;
use super::secrets::SecretTotals;
use super::series::{Fold, Series};
use crate::export::report::Refusal;

/// Identifies a series of `flow_attempts_total`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct AttemptKey {
    pub(super) direction: Option<Direction>,
    pub(super) protocol: u8,
    pub(super) outcome: Outcome,
    pub(super) ends: Ends,
}

/// Identifies a series of `flow_refusals_total`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RefusalKey {
    pub(super) direction: Option<Direction>,
    pub(super) protocol: u8,
    pub(super) refusal: Refusal,
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

impl Fold for RefusalKey {
    fn folded(&self) -> Self {
        Self { ends: Ends::Folded, ..self.clone() }
    }
}

impl Fold for Ends {
    fn folded(&self) -> Self {
        Self::Folded
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
    pub(super) refusals: Series<RefusalKey>,
    pub(super) handshakes: Series<Ends>,
    pub(super) handshakes_ns: Series<Ends>,
    pub(super) verdicts: Series<VerdictKey>,
    pub(super) secrets: SecretTotals,
    /// As of the last look.
    policy_sets: Vec<Arc<str>>,
    pub(super) series_max: usize,
    /// Additions that found no room in the gauges of all scrapes so far, by family.
    pub(super) gauge_overflow: BTreeMap<&'static str, u64>,
    edges: HashMap<Arc<EdgeKey>, Counted, foldhash::fast::RandomState>,
    round: u64,
}

/// What of one edge is in the counters. It holds no edge: each version of one that anybody keeps is
/// a copy.
#[derive(Debug, Default)]
struct Counted {
    outcomes: Outcomes,
    counts: Counts,
    judged: u64,
    round: u64,
}

impl Totals {
    pub(super) fn new(series_max: usize) -> Self {
        Self {
            attempts: Series::new(series_max),
            refusals: Series::new(series_max),
            handshakes: Series::new(series_max),
            handshakes_ns: Series::new(series_max),
            verdicts: Series::new(series_max),
            secrets: SecretTotals::new(series_max),
            series_max,
            gauge_overflow: BTreeMap::new(),
            edges: HashMap::default(),
            policy_sets: Vec::new(),
            round: 0,
        }
    }

    /// Adds what is new.
    pub(super) fn observe(&mut self, snapshot: &Snapshot) {
        self.secrets.observe(&snapshot.secrets);
        self.round += 1;
        for edge in &snapshot.edges {
            let counted = match self.edges.get_mut(&edge.key) {
                Some(counted) => counted,
                None => self.edges.entry(Arc::clone(&edge.key)).or_default(),
            };
            counted.round = self.round;
            if counted.is_all_of(edge) {
                continue;
            }
            for (outcome, amount) in counted.take_outcomes(edge) {
                self.attempts.add(AttemptKey::of(&edge.key, outcome), amount);
            }
            let counts = counted.take_counts(edge);
            for (refusal, amount) in Refusal::counts(&counts).filter(|(_, amount)| *amount > 0) {
                self.refusals.add(RefusalKey::of(&edge.key, refusal), amount);
            }
            if has_handshakes(&edge.key) && counts.handshake_ns > 0 {
                self.handshakes.add(Ends::of(&edge.key), counts.answered);
                self.handshakes_ns.add(Ends::of(&edge.key), counts.handshake_ns);
            }
            let attempts = counted.take_judged(edge);
            if attempts > 0 {
                for (policy_set, verdict) in &edge.judgement.verdicts {
                    self.verdicts.add(VerdictKey::of(&edge.key, policy_set, verdict), attempts);
                }
            }
        }
        // A candidate that is gone leaves no series behind.
        if snapshot.policy_sets != self.policy_sets {
            self.policy_sets.clone_from(&snapshot.policy_sets);
            self.verdicts.retain(|key| snapshot.policy_sets.contains(&key.policy_set));
        }
        // The ledger's bound is this table's bound: what it forgot is forgotten here.
        if self.edges.len() > snapshot.edges.len() {
            let round = self.round;
            self.edges.retain(|_, counted| counted.round == round);
        }
    }
}

impl Counted {
    /// Whether nothing was added since the last look.
    fn is_all_of(&self, edge: &Edge) -> bool {
        self.counts == edge.counts
            && self.outcomes == edge.outcomes
            && (edge.judgement.verdicts.is_empty() || self.judged == edge.counts.attempts)
    }

    /// What was added to each outcome since the last look.
    fn take_outcomes(&mut self, edge: &Edge) -> Vec<(Outcome, u64)> {
        let before = std::mem::replace(&mut self.outcomes, edge.outcomes);
        let added = edge.outcomes.iter();
        let added = added.map(|(outcome, now)| (outcome, added_since(before.get(outcome), now)));
        added.filter(|(_, amount)| *amount > 0).collect()
    }

    /// What was counted since the last look.
    fn take_counts(&mut self, edge: &Edge) -> Counts {
        let added = edge.counts.since(&self.counts);
        self.counts = edge.counts;
        added
    }

    /// Attempts that were not judged at the last look and are now.
    fn take_judged(&mut self, edge: &Edge) -> u64 {
        if edge.judgement.verdicts.is_empty() {
            return 0;
        }
        let now = edge.counts.attempts;
        let added = added_since(self.judged, now);
        self.judged = now;
        added
    }
}

/// What went back was forgotten by the ledger and seen again.
fn added_since(before: u64, now: u64) -> u64 {
    if now < before { now } else { now - before }
}

impl AttemptKey {
    fn of(key: &EdgeKey, outcome: Outcome) -> Self {
        Self { direction: key.direction, protocol: key.protocol, outcome, ends: Ends::of(key) }
    }
}

impl RefusalKey {
    fn of(key: &EdgeKey, refusal: Refusal) -> Self {
        Self { direction: key.direction, protocol: key.protocol, refusal, ends: Ends::of(key) }
    }
}

/// Their time is known at the end that sent the SYN.
fn has_handshakes(key: &EdgeKey) -> bool {
    key.direction == Some(Direction::Egress) && key.protocol == Protocol::TCP.0
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
