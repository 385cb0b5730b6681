//! Each pod's share of the tables, and that of each cgroup in no pod: who asks comes in, yes or no
//! goes out. One noisy pod cannot take the room of the others, however many containers it has.
//!
//! The kernel counts what it gave, the agent what it took back, each in a map that only it writes.
//! What is asked for at the same time on several CPUs may exceed the share by as many entries.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_NOEXIST},
    helpers::{bpf_skb_ancestor_cgroup_id, bpf_skb_cgroup_id},
    maps::HashMap,
    programs::SkBuffContext,
};
use parapet_common::{PAIRS_MAX, SHARE_DIVISOR, Share};

use crate::{
    count,
    maps::{self, POD_CGROUPS, RETURNED, TAKEN},
    opaque,
};

/// Depth of a pod's cgroup where kubelet is a service of the node: below one folder for all pods,
/// and most often one more for their class.
const USUAL_LEVEL: i32 = 3;
/// The deepest that is looked for, as where the node itself is a container.
const LEVEL_MAX: i32 = 12;

/// The cgroup that is charged for what a packet's socket needs: its pod's, however deep in it the
/// socket is. Of a socket in no pod, or in one that the agent has not told of yet, its own.
#[inline(always)]
pub fn charged(ctx: &SkBuffContext) -> u64 {
    charged_cgroup(ctx.skb.skb)
}

/// With a name and of scalars only, so that the kernel verifies it once, and not again with each
/// way that leads to it.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn charged_cgroup(skb: *mut __sk_buff) -> u64 {
    // The agent tells of no pod inside of another: the order only says what is found soonest.
    for level in [USUAL_LEVEL, USUAL_LEVEL - 1] {
        let id = ancestor(skb, level);
        if is_pod(id) {
            return id;
        }
    }
    for level in USUAL_LEVEL + 1..=LEVEL_MAX {
        let id = ancestor(skb, level);
        if id == 0 {
            break;
        }
        if is_pod(id) {
            return id;
        }
    }
    // SAFETY: the context is valid for the whole program.
    unsafe { bpf_skb_cgroup_id(skb) }
}

/// The cgroup of this depth that the packet's socket is in; 0 if there is none.
#[inline(always)]
fn ancestor(skb: *mut __sk_buff, level: i32) -> u64 {
    // SAFETY: the context is valid for the whole program.
    unsafe { bpf_skb_ancestor_cgroup_id(skb, level) }
}

#[inline(always)]
fn is_pod(id: u64) -> bool {
    // SAFETY: the value is not used.
    unsafe { POD_CGROUPS.get(id).is_some() }
}

/// Whether there is one more flow for whom [`charged`] names.
#[inline(always)]
pub fn has_flow(ctx: &SkBuffContext, charged_id: u64) -> bool {
    let (taken, returned) = of(charged_id);
    let has = taken.flows.saturating_sub(returned.flows) < u64::from(maps::flows_share());
    opaque::zero(ctx).u32(u32::from(has)) != 0
}

/// Whether there is one more socket pair.
#[inline(always)]
pub fn has_pair(ctx: &SkBuffContext, charged_id: u64) -> bool {
    let (taken, returned) = of(charged_id);
    let has = taken.pairs.saturating_sub(returned.pairs) < u64::from(PAIRS_MAX / SHARE_DIVISOR);
    opaque::zero(ctx).u32(u32::from(has)) != 0
}

#[inline(always)]
fn of(charged_id: u64) -> (Share, Share) {
    // SAFETY: the values are copied at once.
    unsafe {
        (
            TAKEN.get(charged_id).copied().unwrap_or_default(),
            RETURNED.get(charged_id).copied().unwrap_or_default(),
        )
    }
}

/// It got a flow.
#[inline(always)]
pub fn took_flow(charged_id: u64) {
    if let Some(share) = own(&TAKEN, charged_id) {
        // SAFETY: a live map value.
        count::add(unsafe { &raw mut (*share).flows }, 1);
    }
}

/// It got a socket pair.
#[inline(always)]
pub fn took_pair(charged_id: u64) {
    if let Some(share) = own(&TAKEN, charged_id) {
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
