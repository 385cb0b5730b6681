//! What all policy sets say of one pair of ends, kept once for all edges of which they say the
//! same.
//!
//! In: the verdicts of a pair of ends, by policy set. Out: shared [`Judgement`]s. It judges
//! nothing, and holds on to nothing that no edge needs for longer than until the next sweep.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::HashSet;
use serde::Serialize;

use crate::verdict::{Delta, Verdict};

/// Different judgements kept to be found again. What is new beyond that is not shared, which costs
/// memory and nothing else.
pub const JUDGEMENTS_MAX: usize = 16_384;
/// So many new ones, at least, are between two sweeps for those that nobody needs.
const SWEEP_AFTER_MIN: usize = 256;

/// What every policy set says, and what would change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Judgement {
    /// Policy set name to what it says. Empty while unjudged.
    pub verdicts: BTreeMap<Arc<str>, Arc<Verdict>>,
    /// Candidate (or `default-deny`) name to how it differs from `enforced`.
    pub deltas: BTreeMap<Arc<str>, Delta>,
}

impl Judgement {
    /// Of one pair of ends: a verdict for each set, the one all others are held against first.
    #[must_use]
    pub fn new(sets: &[Arc<str>], verdicts: Vec<Arc<Verdict>>) -> Self {
        let Some(base) = verdicts.first().map(|base| base.decision) else {
            return Self::default();
        };
        let compared = sets.iter().zip(&verdicts).skip(1);
        let deltas = compared
            .map(|(name, verdict)| (name.clone(), Delta::between(base, verdict.decision)))
            .collect();
        Self { verdicts: sets.iter().cloned().zip(verdicts).collect(), deltas }
    }

    /// Takes over what is worse in another one: denied before undecidable before allowed before
    /// exempt, the first of equals. Deltas are compared by themselves, so that one pod's new denial
    /// is not hidden by another's old one.
    pub fn add_worse(&mut self, other: &Self) {
        for (name, verdict) in &other.verdicts {
            let known = self.verdicts.get(name).map(|known| known.decision.severity());
            if known.is_none_or(|known| verdict.decision.severity() > known) {
                self.verdicts.insert(name.clone(), verdict.clone());
            }
        }
        for (name, delta) in &other.deltas {
            let known = self.deltas.get(name).map(|known| known.severity());
            if known.is_none_or(|known| delta.severity() > known) {
                self.deltas.insert(name.clone(), *delta);
            }
        }
    }
}

/// The judgements that edges have, each once.
#[derive(Debug)]
pub struct Judgements {
    known: HashSet<Arc<Judgement>>,
    judgements_max: usize,
    /// New ones, kept or not, until those that nobody needs are looked for.
    sweep_after: usize,
}

impl Default for Judgements {
    fn default() -> Self {
        Self::with_capacity(JUDGEMENTS_MAX)
    }
}

impl Judgements {
    /// Keeps so many at most.
    #[must_use]
    pub fn with_capacity(judgements_max: usize) -> Self {
        Self { known: HashSet::default(), judgements_max, sweep_after: SWEEP_AFTER_MIN }
    }

    /// The equal one that others have, or this one for others to come.
    pub fn share(&mut self, judgement: Judgement) -> Arc<Judgement> {
        if let Some(known) = self.known.get(&judgement) {
            return Arc::clone(known);
        }
        if self.sweep_after == 0 {
            self.sweep();
        }
        self.sweep_after -= 1;
        let judgement = Arc::new(judgement);
        if self.known.len() < self.judgements_max {
            self.known.insert(Arc::clone(&judgement));
        }
        judgement
    }

    /// Forgets those that nobody else has any more.
    pub fn sweep(&mut self) {
        self.known.retain(|judgement| Arc::strong_count(judgement) > 1);
        self.known.shrink_to(2 * self.known.len());
        // Looking at all of them is paid for by as many new ones.
        self.sweep_after = self.known.len().max(SWEEP_AFTER_MIN);
    }

    /// How many are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::{Decision, Profile, Reason, SideVerdict};

    fn verdict(decision: Decision) -> Arc<Verdict> {
        let side =
            SideVerdict { decision, reason: Reason::NotIsolated, tier: None, effects: Vec::new() };
        let profile = Profile::default();
        Arc::new(Verdict { decision, profile, egress: side.clone(), ingress: side })
    }

    fn judgement(decisions: &[Decision]) -> Judgement {
        let sets = ["enforced", "default-deny", "c"].map(Arc::from);
        Judgement::new(&sets, decisions.iter().copied().map(verdict).collect())
    }

    /// Different ones as often as wanted.
    fn numbered(number: usize) -> Judgement {
        let said = vec![verdict(Decision::Allowed)];
        Judgement::new(&[number.to_string().into()], said)
    }

    #[test]
    fn deltas_are_against_the_first_set() {
        use Decision::{Allowed, Denied, Exempt};
        let judged = judgement(&[Allowed, Denied, Exempt]);
        let deltas = [("default-deny", Delta::NewlyDenied), ("c", Delta::UnchangedAllowed)];
        let deltas = deltas.map(|(name, delta)| (Arc::from(name), delta));
        assert_eq!(judged.deltas, BTreeMap::from(deltas));
        assert_eq!(judged.verdicts["c"], verdict(Exempt));
        assert_eq!(judged.verdicts.len(), 3);
        assert_eq!(judgement(&[]), Judgement::default());
    }

    #[test]
    fn the_worst_verdict_and_the_worst_delta_may_be_of_different_pods() {
        use Decision::{Allowed, Denied};
        let mut worst = judgement(&[Denied, Denied, Denied]);
        worst.add_worse(&judgement(&[Allowed, Allowed, Denied]));
        let decisions = worst.verdicts.values().map(|verdict| verdict.decision);
        assert_eq!(decisions.collect::<Vec<_>>(), [Denied; 3]);
        let deltas = worst.deltas.values().copied().collect::<Vec<_>>();
        assert_eq!(deltas, [Delta::NewlyDenied, Delta::UnchangedDenied]);
    }

    #[test]
    fn equal_judgements_are_one() {
        let mut judgements = Judgements::default();
        let first = judgements.share(numbered(1));
        let again = judgements.share(numbered(1));
        let other = judgements.share(numbered(2));
        assert!(Arc::ptr_eq(&first, &again) && !Arc::ptr_eq(&first, &other));
        assert_eq!((judgements.len(), &*other), (2, &numbered(2)));
    }

    #[test]
    fn what_nobody_needs_is_forgotten() {
        let mut judgements = Judgements::default();
        let held = judgements.share(numbered(0));
        for number in 1..10 * SWEEP_AFTER_MIN {
            judgements.share(numbered(number));
            assert!(judgements.len() <= SWEEP_AFTER_MIN + 1);
        }
        judgements.sweep();
        assert_eq!(judgements.len(), 1);
        assert!(Arc::ptr_eq(&held, &judgements.share(numbered(0))));
    }

    #[test]
    fn beyond_the_bound_nothing_is_shared_and_room_is_found_again() {
        let mut judgements = Judgements::with_capacity(2);
        let mut held: Vec<_> = (0..2).map(|number| judgements.share(numbered(number))).collect();
        let (one, other) = (judgements.share(numbered(2)), judgements.share(numbered(2)));
        assert!(one == other && !Arc::ptr_eq(&one, &other));
        assert!(Arc::ptr_eq(&held[1], &judgements.share(numbered(1))));
        held.clear();
        let kept = (3..SWEEP_AFTER_MIN + 4).filter(|number| {
            judgements.share(numbered(*number));
            judgements.known.contains(&numbered(*number))
        });
        assert_eq!(kept.count(), 2);
        assert!(judgements.len() <= 2);
    }
}
