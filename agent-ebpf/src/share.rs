//! Each cgroup's share of the tables: who asks comes in, yes or no goes out. One noisy pod cannot
//! take the room of the others.
//!
//! The kernel counts what it gave, the agent what it took back, each in a map that only it writes.
//! What is asked for at the same time on several CPUs may exceed the share by as many entries.

use aya_ebpf::{bindings::BPF_NOEXIST, maps::HashMap, programs::SkBuffContext};
use parapet_common::{PAIRS_MAX, SHARE_DIVISOR, Share};

use crate::{
    count,
    maps::{self, RETURNED, TAKEN},
    opaque,
};

/// Whether this cgroup may have one more flow.
#[inline(always)]
pub fn has_flow(ctx: &SkBuffContext, cgroup_id: u64) -> bool {
    let (taken, returned) = of(cgroup_id);
    let has = taken.flows.saturating_sub(returned.flows) < u64::from(maps::flows_share());
    opaque::zero(ctx).u32(u32::from(has)) != 0
}

/// Whether this cgroup may have one more socket pair.
#[inline(always)]
pub fn has_pair(ctx: &SkBuffContext, cgroup_id: u64) -> bool {
    let (taken, returned) = of(cgroup_id);
    let has = taken.pairs.saturating_sub(returned.pairs) < u64::from(PAIRS_MAX / SHARE_DIVISOR);
    opaque::zero(ctx).u32(u32::from(has)) != 0
}

#[inline(always)]
fn of(cgroup_id: u64) -> (Share, Share) {
    // SAFETY: the values are copied at once.
    unsafe {
        (
            TAKEN.get(cgroup_id).copied().unwrap_or_default(),
            RETURNED.get(cgroup_id).copied().unwrap_or_default(),
        )
    }
}

/// It got a flow.
#[inline(always)]
pub fn took_flow(cgroup_id: u64) {
    if let Some(share) = own(&TAKEN, cgroup_id) {
        // SAFETY: a live map value.
        count::add(unsafe { &raw mut (*share).flows }, 1);
    }
}

/// It got a socket pair.
#[inline(always)]
pub fn took_pair(cgroup_id: u64) {
    if let Some(share) = own(&TAKEN, cgroup_id) {
        // SAFETY: a live map value.
        count::add(unsafe { &raw mut (*share).pairs }, 1);
    }
}

/// A cgroup's entry, made if it has none. None only if more cgroups are in use than there is room
/// for: then this one is unlimited.
#[inline(always)]
pub fn own<T: Default>(shares: &HashMap<u64, T>, cgroup_id: u64) -> Option<*mut T> {
    if let Some(share) = shares.get_ptr_mut(cgroup_id) {
        return Some(share);
    }
    // Another CPU may have been first.
    let _ = shares.insert(cgroup_id, T::default(), u64::from(BPF_NOEXIST));
    shares.get_ptr_mut(cgroup_id)
}
