//! The time a packet was seen, without the reading of a clock: the kernel's ticks, which are a
//! number in its memory and no call to a program.
//!
//! The agent says how long a tick is, and has [`set_clock`] look once how far the monotonic clock
//! is ahead of them. From there on both go together: the kernel counts its ticks by that clock.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::{
    helpers::{bpf_jiffies64, bpf_ktime_get_ns},
    macros::cgroup_skb,
    programs::SkBuffContext,
};

use crate::maps;

/// The monotonic time at which the kernel would have counted its tick number zero. It wraps, for
/// the kernel begins with another number.
#[unsafe(no_mangle)]
static mut TICKS_SINCE_NS: u64 = 0;

/// Nanoseconds on the monotonic clock; a tick or two (a few milliseconds) late. Early only if the
/// processor that counts the ticks stood still while the clock was set.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: a static of this object: one aligned word, read whole.
    ticks_ns().wrapping_add(unsafe { read_volatile(&raw const TICKS_SINCE_NS) })
}

#[inline(always)]
fn ticks_ns() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_jiffies64() }.wrapping_mul(maps::tick_ns())
}

/// Run by the agent before any packet is seen, and by nobody else.
#[cgroup_skb(egress)]
pub fn set_clock(_: SkBuffContext) -> i32 {
    // SAFETY: a helper without arguments.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    // The tick may be about to be counted.
    let since_ns = now_ns.wrapping_sub(ticks_ns()).wrapping_sub(maps::tick_ns());
    // SAFETY: a static of this object: one aligned word, written whole.
    unsafe { write_volatile(&raw mut TICKS_SINCE_NS, since_ns) };
    1
}
