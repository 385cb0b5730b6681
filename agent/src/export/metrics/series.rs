//! A bounded table of series: beyond its bound, what is new is folded and counted.
//!
//! In: keys and amounts. Out: one total a key. A key that was admitted once stays for as long as
//! there is what it is about, so that its counter never goes down; the sum over all keys is exact
//! however many were folded.

use std::collections::BTreeMap;

/// A key that has a coarser form without unbounded labels.
pub(super) trait Fold: Ord + Clone {
    /// The series this one is counted in when there is no room for it.
    fn folded(&self) -> Self;
}

/// The series of one family.
#[derive(Debug)]
pub(super) struct Series<K> {
    named: BTreeMap<K, u64>,
    folded: BTreeMap<K, u64>,
    series_max: usize,
    overflow_total: u64,
}

impl<K: Fold> Series<K> {
    pub(super) fn new(series_max: usize) -> Self {
        Self { named: BTreeMap::new(), folded: BTreeMap::new(), series_max, overflow_total: 0 }
    }

    /// Adds to a series, or to the folded one if the table is full.
    pub(super) fn add(&mut self, key: K, amount: u64) {
        let room = self.named.len() < self.series_max;
        let total = if room || self.named.contains_key(&key) {
            self.named.entry(key).or_default()
        } else {
            self.overflow_total = self.overflow_total.saturating_add(1);
            self.folded.entry(key.folded()).or_default()
        };
        *total = total.saturating_add(amount);
    }

    /// Ends the series of these keys; what comes of them later begins anew.
    pub(super) fn retain(&mut self, keep: impl Fn(&K) -> bool) {
        self.named.retain(|key, _| keep(key));
        self.folded.retain(|key, _| keep(key));
    }

    /// Every series in the order of its key, the folded ones last.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, u64)> {
        self.named.iter().chain(&self.folded).map(|(key, total)| (key, *total))
    }

    /// How many additions found no room.
    pub(super) fn overflow_total(&self) -> u64 {
        self.overflow_total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Fold for (&'static str, u8) {
        fn folded(&self) -> Self {
            (self.0, u8::MAX)
        }
    }

    #[test]
    fn beyond_the_bound_amounts_are_folded_and_none_is_lost() {
        let mut series = Series::new(2);
        for (key, amount) in [("a", 1), ("a", 2), ("b", 3), ("a", 1), ("b", 3)].into_iter().zip(1..)
        {
            series.add(key, amount);
        }
        let all: Vec<_> = series.iter().map(|(key, total)| (*key, total)).collect();
        let expected = vec![(("a", 1), 5), (("a", 2), 2), (("b", u8::MAX), 8)];
        assert_eq!(all, expected);
        assert_eq!(series.overflow_total(), 2);
        series.retain(|key| key.0 == "b");
        let left: Vec<_> = series.iter().map(|(key, total)| (*key, total)).collect();
        assert_eq!(left, [(("b", u8::MAX), 8)]);
    }
}
