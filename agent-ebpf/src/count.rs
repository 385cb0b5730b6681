//! Adding to shared counters: amounts in, nothing out, nothing lost between CPUs.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use crate::maps::{LOST, TOTALS};

/// Adds without a result, which LLVM lowers to the atomic add that every supported kernel knows
/// (`BPF_XADD`); the fetching form would need 5.12.
#[inline(always)]
pub fn add(counter: *mut u64, amount: u64) {
    // SAFETY: the callers pass a field of a live map value, 8-byte aligned.
    unsafe {
        atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, amount);
    }
}

/// One loss at a `STAGE_*`.
#[inline(always)]
pub fn lost(stage: u32) {
    if let Some(counter) = LOST.get_ptr_mut(stage) {
        // A per-CPU value, but a softirq may interrupt a system call on the same CPU.
        add(counter, 1);
    }
}

/// More of a `TOTAL_*`.
#[inline(always)]
pub fn total(which: u32) {
    if let Some(counter) = TOTALS.get_ptr_mut(which) {
        add(counter, 1);
    }
}
