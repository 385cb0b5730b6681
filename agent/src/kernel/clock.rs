//! The kernel's monotonic time in, time since the Unix epoch out.

use parapet_core::flow::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// Both clocks, read together. Taken anew at each read, so that a set clock is followed.
pub(super) struct Clock {
    monotonic_ns: u64,
    unix_ns: u64,
}

impl Clock {
    pub(super) fn now() -> Self {
        Self { monotonic_ns: read(ClockId::Monotonic), unix_ns: read(ClockId::Realtime) }
    }

    /// Nanoseconds on the monotonic clock, now.
    pub(super) fn monotonic_ns(&self) -> u64 {
        self.monotonic_ns
    }

    pub(super) fn timestamp(&self, monotonic_ns: u64) -> Timestamp {
        let age_ns = self.monotonic_ns.saturating_sub(monotonic_ns);
        Timestamp(self.unix_ns.saturating_sub(age_ns))
    }
}

fn read(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_monotonic_time_is_as_old_on_the_other_clock() {
        let clock = Clock { monotonic_ns: 5_000, unix_ns: 1_000_000 };
        assert_eq!(clock.timestamp(4_000), Timestamp(999_000));
        // Read a moment after the clocks were: now, not the future.
        assert_eq!(clock.timestamp(6_000), Timestamp(1_000_000));
    }
}
