//! The kernel's tables of flows and socket pairs, kept in order: what was counted comes out as
//! records, what is idle leaves, and each pod gets back what it gave up of its share.

use std::collections::HashMap;

use parapet_common::Share;
use parapet_core::record::Record;

use super::clock::Clock;
use super::pairs::Pairs;
use super::shares::Shares;
use super::slots::Slots;

/// All of them.
pub(super) struct Tables {
    pub(super) slots: Slots,
    pairs: Pairs,
    shares: Shares,
}

impl Tables {
    pub(super) fn new(slots: Slots, pairs: Pairs, shares: Shares) -> Self {
        Self { slots, pairs, shares }
    }

    /// After an agent before us: each pod has what is really there.
    pub(super) fn reconcile(&mut self) -> Result<(), String> {
        let pairs = self.pairs.by_charged().map_err(|error| format!("socket pairs: {error}"))?;
        let live = shares(self.slots.by_charged(), pairs);
        self.shares.reconcile(&live).map_err(|error| format!("shares: {error}"))
    }

    /// Appends a record for every flow that counted something since the last read, and lets idle
    /// entries go.
    pub(super) fn read(&mut self, clock: &Clock, records: &mut Vec<Record>) {
        self.slots.read(clock, records);
        let pairs = self.pairs.sweep(clock.monotonic_ns()).unwrap_or_else(|error| {
            tracing::warn!(%error, "idle socket pairs could not be removed");
            HashMap::new()
        });
        for (charged_id, less) in shares(self.slots.take_returned(), pairs) {
            if let Err(error) = self.shares.give_back(charged_id, less) {
                tracing::warn!(%error, charged_id, "a share could not be given back");
            }
        }
    }

    /// (table, entries, capacity).
    pub(super) fn sizes(&self) -> Vec<(&'static str, u64, u64)> {
        let (pairs, pairs_max) = self.pairs.sizes();
        vec![
            ("flows", self.slots.entries(), self.slots.capacity()),
            ("socket_pairs", pairs, pairs_max),
        ]
    }
}

fn shares(flows: HashMap<u64, u64>, pairs: HashMap<u64, u64>) -> HashMap<u64, Share> {
    let mut shares: HashMap<u64, Share> = HashMap::new();
    for (charged_id, flows) in flows {
        shares.entry(charged_id).or_default().flows = flows;
    }
    for (charged_id, pairs) in pairs {
        shares.entry(charged_id).or_default().pairs = pairs;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_given_back_both_kinds_at_once() {
        let found = shares(HashMap::from([(1, 2), (3, 4)]), HashMap::from([(3, 5), (6, 7)]));
        let expected = HashMap::from([
            (1, Share { flows: 2, pairs: 0 }),
            (3, Share { flows: 4, pairs: 5 }),
            (6, Share { flows: 0, pairs: 7 }),
        ]);
        assert_eq!(found, expected);
    }
}
