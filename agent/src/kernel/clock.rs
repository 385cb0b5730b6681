//! The kernel's monotonic time in, time since the Unix epoch out.

use std::time::Duration;

use parapet_core::flow::Timestamp;

use crate::clock;

/// Both clocks, read together. Taken anew at each read, so that a clock that is set is followed.
pub(super) struct Clock {
    monotonic_ns: u64,
    unix_ns: u64,
}

impl Clock {
    pub(super) fn now() -> Self {
        let clock::Moment { monotonic_ns, unix_ns } = clock::moment();
        Self { monotonic_ns, unix_ns }
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

/// A time as the kernel counts it; of one that is too long for that, the longest.
pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
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
