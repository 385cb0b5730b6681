//! The time a packet was seen, from the cheapest clock that the running kernel offers. It never
//! reads a clock that another clock of the system can set.

use aya_ebpf::helpers::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};

use crate::maps;

/// Nanoseconds on the monotonic clock; a few milliseconds late where the kernel has the coarse
/// clock (Linux 5.11), which costs half.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: helpers without arguments. The verifier knows the constant and leaves out the branch
    // that is not taken, so that an older kernel never meets a helper it does not know.
    unsafe { if maps::has_coarse_time() { bpf_ktime_get_coarse_ns() } else { bpf_ktime_get_ns() } }
}
