//! Where flows were found lately: a flow's key in, the slot it has out, without the two hashes that
//! say so for certain. What is told is held against the slot itself before it is believed.

use parapet_common::{FlowKey, FlowSlot, SLOT_LIVE};

use crate::{
    flow,
    maps::{HINTS, HINTS_BITS, SERVICES_VERSION},
};

/// Of which state of the Services hints are told: a port that becomes a divided Service's makes
/// other flows. Read before the Services are.
#[inline(always)]
pub fn version() -> u32 {
    // SAFETY: a live map value, read whole.
    SERVICES_VERSION.get_ptr(0).map_or(0, |version| unsafe { version.read_volatile() })
}

/// The number of the flow's slot, if that was found lately.
#[inline(always)]
pub fn of(key: &FlowKey, version: u32) -> Option<u32> {
    let place = HINTS.get_ptr(place(key))?;
    // SAFETY: a live map value, read whole.
    let word = unsafe { place.read_volatile() };
    let number = word as u32;
    if word >> 32 != told(version) {
        return None;
    }
    let slot = flow::slot(number)?;
    if is_of(slot, key) { Some(number) } else { None }
}

/// Tells where the flow was found, of no connection that is counted by itself.
#[inline(always)]
pub fn tell(key: &FlowKey, version: u32, number: u32) {
    if key.local_port == 0
        && let Some(place) = HINTS.get_ptr_mut(place(key))
    {
        // SAFETY: a live map value, written whole.
        unsafe { place.write_volatile(told(version) << 32 | u64::from(number)) };
    }
}

/// Not zero, which is of nothing.
#[inline(always)]
fn told(version: u32) -> u64 {
    u64::from(version.wrapping_add(1))
}

#[inline(always)]
fn place(key: &FlowKey) -> u32 {
    let [high, low] = flow::address(key.peer_addr);
    let rest = u64::from(key.service_port) << 48 | u64::from(key.direction) << 40;
    let mixed = high ^ low.rotate_left(32) ^ key.cgroup_id.rotate_left(20) ^ rest;
    // The upper bits of a product with the golden ratio depend on all of them.
    (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - HINTS_BITS)) as u32
}

#[inline(always)]
fn is_of(slot: *mut FlowSlot, key: &FlowKey) -> bool {
    // SAFETY: a live map value.
    unsafe {
        flow::same_address(&raw const (*slot).peer_addr, &flow::address(key.peer_addr))
            && (*slot).cgroup_id == key.cgroup_id
            && (*slot).service_port == key.service_port
            && (*slot).protocol == key.protocol
            && (*slot).family == key.family
            && (*slot).direction == key.direction
            && (*slot).local_port == key.local_port
            && core::ptr::read_volatile(&raw const (*slot).state) == SLOT_LIVE
    }
}
