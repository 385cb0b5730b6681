//! The time of day, which never goes back while the agent runs.
//!
//! In: the machine's clocks. Out: times since the Unix epoch, and what the kernel's monotonic times
//! mean on that scale. A clock that is set forward is followed: small machines learn the time after
//! they have started. One that is set back is not, because an attempt must not end before it began
//! and nobody hold an address before it was given: times stay ahead until the clock has caught up
//! or the agent starts anew.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parapet_core::flow::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// Nothing to say of a clock that is set back by less: time services do that all day.
const STEP: Duration = Duration::from_secs(1);

/// By how much the time of day was ahead of the monotonic clock at most.
static LEAD_NS: AtomicU64 = AtomicU64::new(0);

/// Both scales at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Nanoseconds on the monotonic clock.
    pub monotonic_ns: u64,
    /// Nanoseconds since the Unix epoch.
    pub unix_ns: u64,
}

/// The time of day.
#[must_use]
pub fn now() -> Timestamp {
    Timestamp(moment().unix_ns)
}

/// By how much [`now`] is ahead of the machine's clock, if that was set back.
#[must_use]
pub fn ahead() -> Duration {
    let ahead = Duration::from_nanos(moment().unix_ns.saturating_sub(unix_ns()));
    if ahead < STEP { Duration::ZERO } else { ahead }
}

/// Both clocks, read together.
#[must_use]
pub fn moment() -> Moment {
    // In this order: if something comes between, the lead is too small and not too large for ever.
    let unix_ns = unix_ns();
    let monotonic_ns = monotonic_ns();
    follow(&LEAD_NS, unix_ns, monotonic_ns)
}

fn follow(lead_ns: &AtomicU64, unix_ns: u64, monotonic_ns: u64) -> Moment {
    let lead = unix_ns.saturating_sub(monotonic_ns);
    let lead = lead_ns.fetch_max(lead, Ordering::Relaxed).max(lead);
    Moment { monotonic_ns, unix_ns: monotonic_ns.saturating_add(lead) }
}

fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn monotonic_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_followed_forward_and_never_back() {
        let lead = AtomicU64::new(0);
        let at = |unix_ns, monotonic_ns| follow(&lead, unix_ns, monotonic_ns).unix_ns;
        assert_eq!(at(1_000, 10), 1_000);
        assert_eq!(at(1_005, 15), 1_005);
        // Set forward by 500, then back.
        assert_eq!(at(1_510, 20), 1_510);
        assert_eq!(at(1_020, 30), 1_520);
        // It has caught up, and goes on from there.
        assert_eq!(at(1_700, 40), 1_700);
        // Before 1970, or nothing at all.
        assert_eq!(at(0, 50), 1_710);
        assert_eq!(at(u64::MAX, 60), u64::MAX);
    }

    #[test]
    fn this_machine_has_both_clocks() {
        let (first, second) = (moment(), moment());
        assert!(first.monotonic_ns > 0 && first.unix_ns > first.monotonic_ns);
        assert!(second.unix_ns >= first.unix_ns);
        assert_eq!(ahead(), Duration::ZERO);
    }
}
