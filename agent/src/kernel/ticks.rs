//! The clock of the packet programs, which count the kernel's ticks: how long one is, and from when
//! on they are counted. It keeps nothing.

use aya::programs::{CgroupSkb, TestRun as _, TestRunOptions};
use rustix::time::{ClockId, clock_getres};

use super::load::chain;

/// What the kernel wants to see before it runs a packet program: Ethernet and IP headers, of which
/// nobody reads anything.
const PACKET: [u8; 64] = [0; 64];

/// How long a tick is: the resolution of the clock that the kernel reads with each of them.
pub(super) fn tick_ns() -> u64 {
    let tick = clock_getres(ClockId::MonotonicCoarse);
    u64::try_from(tick.tv_nsec).unwrap_or_default()
}

/// Runs the loaded program that looks at both clocks. Before, the others tell no time.
pub(super) fn set_clock(program: &CgroupSkb) -> Result<(), String> {
    let options = TestRunOptions { data_in: Some(&PACKET), ..TestRunOptions::new() };
    program.test_run(options).map(drop).map_err(|error| chain(&error))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_tick_is_one_to_ten_milliseconds() {
        let tick_ns = super::tick_ns();
        assert!((1_000_000..=10_000_000).contains(&tick_ns), "{tick_ns}");
    }
}
