//! How often the API server is asked.
//!
//! In: what became of the last question, and monotonic time. Out: how long to wait before the next.
//! It never waits itself and knows no wall clock, so that a clock that jumps changes nothing.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

/// Between two full lists of a kind, after its first.
pub(super) const LIST_EVERY: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Longest a `Retry-After` is followed.
const TOLD_PAUSE_MAX: Duration = Duration::from_secs(300);

/// The pace of one kind.
#[derive(Debug, Default)]
pub(super) struct Pace {
    failures: u32,
    told: Option<Duration>,
    listed_at: Option<Instant>,
    /// Until the first list is complete, only failures hold up the next.
    has_list: bool,
}

impl Pace {
    /// Something was answered as it should be.
    pub(super) fn succeeded(&mut self) {
        (self.failures, self.told) = (0, None);
    }

    /// Nothing was, and the server may have said how long to leave it alone.
    pub(super) fn failed(&mut self, told: Option<Duration>) {
        self.failures = self.failures.saturating_add(1);
        self.told = told.map(|told| told.min(TOLD_PAUSE_MAX));
    }

    /// A list that was answered begins now.
    pub(super) fn listed(&mut self, now: Instant) {
        self.listed_at = Some(now);
    }

    /// The list is complete.
    pub(super) fn complete(&mut self) {
        self.succeeded();
        self.has_list = true;
    }

    /// How long to wait before the next question; `chance` is between 0 and 1.
    pub(super) fn pause(&self, is_list: bool, now: Instant, chance: f64) -> Duration {
        let doubled = FIRST_PAUSE.saturating_mul(1 << self.failures.saturating_sub(1).min(10));
        let grown = if self.failures == 0 { Duration::ZERO } else { doubled.min(PAUSE_MAX) };
        // Never less than half, so that many nodes that failed at once come back spread out.
        let spread = grown.mul_f64(0.5 + chance / 2.0);
        let told = self.told.map(|told| told.mul_f64(1.0 + chance / 10.0)).unwrap_or_default();
        let since = self.listed_at.map(|at| now.saturating_duration_since(at));
        let gate = match since {
            Some(since) if is_list && self.has_list => LIST_EVERY.saturating_sub(since),
            _ => Duration::ZERO,
        };
        spread.max(told).max(gate)
    }
}

/// Between 0 and 1, other each time.
pub(super) fn chance() -> f64 {
    let bits = u32::try_from(RandomState::new().hash_one(0) >> 32).unwrap_or_default();
    f64::from(bits) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_double_up_to_half_a_minute_and_end_with_a_success() {
        let mut pace = Pace::default();
        let now = Instant::now();
        assert_eq!(pace.pause(true, now, 1.0), Duration::ZERO);
        let longest: Vec<_> = (0..9)
            .map(|_| {
                pace.failed(None);
                pace.pause(false, now, 1.0).as_millis()
            })
            .collect();
        assert_eq!(longest, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
        assert_eq!(pace.pause(false, now, 0.0), 15 * SECOND);
        pace.succeeded();
        assert_eq!(pace.pause(false, now, 1.0), Duration::ZERO);
    }

    #[test]
    fn what_the_server_says_is_followed_within_reason() {
        let mut pace = Pace::default();
        let now = Instant::now();
        pace.failed(Some(7 * SECOND));
        assert_eq!(pace.pause(false, now, 0.0), 7 * SECOND);
        pace.failed(Some(86_400 * SECOND));
        assert_eq!(pace.pause(false, now, 0.0), TOLD_PAUSE_MAX);
    }

    #[test]
    fn a_kind_is_listed_again_after_half_a_minute_and_watched_again_at_once() {
        let mut pace = Pace::default();
        let now = Instant::now();
        pace.listed(now);
        assert_eq!(pace.pause(true, now + SECOND, 0.0), Duration::ZERO);
        pace.complete();
        assert_eq!(pace.pause(true, now + 10 * SECOND, 0.0), 20 * SECOND);
        assert_eq!(pace.pause(true, now + 31 * SECOND, 0.0), Duration::ZERO);
        assert_eq!(pace.pause(false, now + 10 * SECOND, 0.0), Duration::ZERO);
    }

    #[test]
    fn chances_differ_and_stay_in_bounds() {
        let chances: Vec<f64> = (0..16).map(|_| chance()).collect();
        assert!(chances.iter().all(|chance| (0.0..=1.0).contains(chance)));
        assert!(chances.iter().any(|chance| *chance != chances[0]));
    }
}
