//! When the agent is woken to read a ring.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    maps::RingBuf,
};

/// Flags for an event in a ring of so many bytes. The agent reads on a timer; it is only woken when
/// the ring is filling faster than that. A forced wake-up costs about two hundred times as much as
/// the event itself.
#[inline(always)]
pub fn wake_up(ring: &RingBuf, bytes: u32) -> u64 {
    if ring.query(u64::from(BPF_RB_AVAIL_DATA)) > u64::from(bytes / 4) {
        u64::from(BPF_RB_FORCE_WAKEUP)
    } else {
        u64::from(BPF_RB_NO_WAKEUP)
    }
}
