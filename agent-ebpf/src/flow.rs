//! Packets in, flow counters out: the two cgroup programs, and how a packet finds its slot.
//!
//! What a packet means for who began and how it ended is said by `tcp` and `pair`; here it is
//! counted.

use aya_ebpf::{
    bindings::BPF_NOEXIST, helpers::bpf_skb_cgroup_id, macros::cgroup_skb, programs::SkBuffContext,
};
use parapet_common::{
    DIRECTION_EGRESS, DIRECTION_INGRESS, FlowKey, FlowSeen, FlowSlot, SERVICE_ONE_BY_ONE,
    SLOT_LIVE, STAGE_FLOW_QUOTA, STAGE_FLOW_TABLE_FULL, STAGE_LATER_FRAGMENT,
    STAGE_MALFORMED_PACKET, STAGE_NO_SOCKET, STAGE_SOCKET_STORAGE, ServicePort, TOTAL_ANSWERED,
    TOTAL_ATTEMPTS, TOTAL_REFUSED,
};

use crate::{
    clock, count, emit,
    maps::{FLOWS, FREE_SLOTS, SERVICES, SLOTS},
    opaque,
    packet::{self, IPPROTO_TCP, Packet, Parsed, Way},
    pair, share,
    socket::{self, CachedFlow},
    tcp,
};

const PASS: i32 = 1;

/// Packets from the sockets of every cgroup.
#[cgroup_skb(egress)]
pub fn packet_sent(ctx: SkBuffContext) -> i32 {
    observe(&ctx, Way::Sent);
    PASS
}

/// Packets to the sockets of every cgroup.
#[cgroup_skb(ingress)]
pub fn packet_received(ctx: SkBuffContext) -> i32 {
    observe(&ctx, Way::Received);
    PASS
}

#[inline(always)]
fn observe(ctx: &SkBuffContext, way: Way) {
    let mut packet = Packet::new(ctx, way);
    match packet::parse(ctx, &mut packet) {
        Parsed::Flow => {}
        Parsed::Malformed => return count::lost(STAGE_MALFORMED_PACKET),
        Parsed::LaterFragment => return count::lost(STAGE_LATER_FRAGMENT),
        Parsed::Error => return pair::observe_error(ctx, &mut packet),
        Parsed::Infrastructure => return,
    }
    let Some(sk) = socket::of(ctx) else {
        return count::lost(STAGE_NO_SOCKET);
    };
    let Some(state) = socket::state(sk) else {
        return count::lost(STAGE_SOCKET_STORAGE);
    };
    if packet.protocol == IPPROTO_TCP {
        tcp::observe(ctx, &mut packet, sk, state);
    } else {
        pair::observe(ctx, &mut packet, sk, state);
    }
}

/// What a packet adds beside itself, a bit each.
pub type Marks = u32;

pub const NOTHING: Marks = 0;
pub const ATTEMPT: Marks = 1;
pub const ANSWER: Marks = 2;
pub const RESET: Marks = 4;
pub const CLOSE: Marks = 8;

/// Whoever began.
pub const ANY_DIRECTION: u8 = u8::MAX;
/// No slot: more than there can be.
pub const NO_SLOT: u32 = u32::MAX;

/// The number of the slot that a socket or pair remembers, if it still is this peer's and began so.
#[inline(always)]
pub fn cached_slot(ctx: &SkBuffContext, cached: CachedFlow, packet: &Packet, direction: u8) -> u32 {
    let number = cached.slot();
    let Some(slot) = SLOTS.get_ptr_mut(number) else { return NO_SLOT };
    // SAFETY: a live map value.
    let same = unsafe {
        cached.is_generation((*slot).generation)
            && core::ptr::read_volatile(&raw const (*slot).state) == SLOT_LIVE
            && same_address(&raw const (*slot).key.peer_addr, &packet.peer_addr)
            && (*slot).key.protocol == packet.protocol
            && (direction == ANY_DIRECTION || (*slot).key.direction == direction)
    };
    // One value for the verifier, however the comparison ended.
    opaque::u32(ctx, if same { number } else { NO_SLOT })
}

/// The flow that a slot is in: nothing to believe of a slot that is not there.
#[inline(always)]
pub fn slot(number: u32) -> Option<*mut FlowSlot> {
    SLOTS.get_ptr_mut(number)
}

/// Two words instead of sixteen bytes; the slot's field is 8-byte aligned.
///
/// # Safety
/// `slot` points into a live map value.
#[inline(always)]
unsafe fn same_address(slot: *const [u8; 16], packet: &[u8; 16]) -> bool {
    let slot = slot.cast::<u64>();
    let packet = packet.as_ptr().cast::<u64>();
    // SAFETY: both are 16 bytes; the packet's copy may be unaligned.
    unsafe { *slot == packet.read_unaligned() && *slot.add(1) == packet.add(1).read_unaligned() }
}

/// The word by which a socket or a pair finds this slot again.
#[inline(always)]
pub fn word(number: u32, packet: &Packet, answered: bool) -> CachedFlow {
    // SAFETY: a live map value.
    match slot(number) {
        Some(slot) => {
            let generation = unsafe { (*slot).generation };
            CachedFlow::new(number, generation, packet.pair_port, answered)
        }
        None => CachedFlow::NONE,
    }
}

#[inline(always)]
pub fn key(ctx: &SkBuffContext, packet: &Packet, direction: u8, local_port: u16) -> FlowKey {
    FlowKey {
        // SAFETY: the context is valid for the whole program.
        cgroup_id: unsafe { bpf_skb_cgroup_id(ctx.skb.skb) },
        peer_addr: packet.peer_addr,
        service_port: match direction {
            DIRECTION_EGRESS => packet.peer_port,
            DIRECTION_INGRESS => packet.local_port,
            _ => 0,
        },
        protocol: packet.protocol,
        family: packet.family,
        direction,
        reserved: 0,
        local_port,
    }
}

/// Whether this flow is known.
#[inline(never)]
pub fn is_known(ctx: &SkBuffContext, packet: &Packet, direction: u8) -> bool {
    // SAFETY: the value is not used.
    unsafe { FLOWS.get(key(ctx, packet, direction, 0)).is_some() }
}

/// What the agent said of the peer's port: a Service's, and how its connections are counted.
#[inline(always)]
pub fn service(packet: &Packet) -> Option<u32> {
    let port = ServicePort {
        addr: packet.peer_addr,
        port: packet.peer_port,
        protocol: packet.protocol,
        family: packet.family,
    };
    // SAFETY: the value is copied at once.
    unsafe { SERVICES.get(port).copied() }
}

/// The number of the flow's slot, taken from the free ones if the flow is new. [`NO_SLOT`], and the
/// packet counted as lost, if there is no room.
#[inline(never)]
pub fn find(ctx: &SkBuffContext, packet: &Packet, direction: u8) -> u32 {
    let bits = if direction == DIRECTION_EGRESS { service(packet).unwrap_or(0) } else { 0 };
    let one_by_one = opaque::u32(ctx, bits) & SERVICE_ONE_BY_ONE != 0;
    let key = key(ctx, packet, direction, if one_by_one { packet.local_port } else { 0 });
    // SAFETY: the value is copied at once.
    if let Some(number) = unsafe { FLOWS.get(key).copied() } {
        return number;
    }
    match take_slot(ctx, &key, packet.way) {
        Ok(number) => number,
        Err(stage) => {
            count::lost(stage);
            NO_SLOT
        }
    }
}

#[inline(always)]
fn take_slot(ctx: &SkBuffContext, key: &FlowKey, way: Way) -> Result<u32, u32> {
    if !share::has_flow(ctx, key.cgroup_id) {
        return Err(STAGE_FLOW_QUOTA);
    }
    let Ok(Some(number)) = FREE_SLOTS.pop() else { return Err(STAGE_FLOW_TABLE_FULL) };
    let Some(slot) = SLOTS.get_ptr_mut(number) else { return Err(STAGE_FLOW_TABLE_FULL) };
    // SAFETY: a live map value; nobody else has this number until it is in FLOWS.
    let generation = unsafe {
        (*slot).key = *key;
        let now = clock::now_ns();
        (*slot).first_seen_ns = now;
        (*slot).last_seen_ns = now;
        (*slot).local_addr = packet::local_address(ctx, way);
        (*slot).generation
    };
    if FLOWS.insert(key, number, u64::from(BPF_NOEXIST)).is_err() {
        // Another CPU was first, or the table is full. It cannot fail: the number was taken from
        // here.
        let _ = FREE_SLOTS.push(number, 0);
        // SAFETY: the value is copied at once.
        return unsafe { FLOWS.get(key).copied() }.ok_or(STAGE_FLOW_TABLE_FULL);
    }
    // SAFETY: as above; the agent reads nothing before it sees this.
    unsafe { core::ptr::write_volatile(&raw mut (*slot).state, SLOT_LIVE) };
    share::took_flow(key.cgroup_id);
    emit::flow_seen(FlowSeen { key: *key, slot: number, generation });
    Ok(number)
}

/// Counts what has no slot to be counted in.
#[inline(always)]
pub fn add_totals(marks: Marks) {
    if marks & ATTEMPT != 0 {
        count::total(TOTAL_ATTEMPTS);
    }
    if marks & ANSWER != 0 {
        count::total(TOTAL_ANSWERED);
    }
    if marks & RESET != 0 {
        count::total(TOTAL_REFUSED);
    }
}

/// Counts an attempt that ICMP refused.
#[inline(always)]
pub fn refuse(slot: *mut FlowSlot, is_port: bool) {
    // SAFETY: a live map value.
    let counter = unsafe {
        if is_port {
            &raw mut (*slot).refused_port_total
        } else {
            &raw mut (*slot).refused_route_total
        }
    };
    count::add(counter, 1);
    count::total(TOTAL_REFUSED);
}

/// Counts the packet and what it means.
#[inline(always)]
pub fn add(slot: *mut FlowSlot, packet: &Packet, marks: Marks) {
    // SAFETY: a live map value.
    unsafe {
        core::ptr::write_volatile(&raw mut (*slot).last_seen_ns, clock::now_ns());
        let bytes = u64::from(packet.bytes);
        match packet.way {
            Way::Sent => {
                count::add(&raw mut (*slot).sent_packets_total, 1);
                count::add(&raw mut (*slot).sent_bytes_total, bytes);
            }
            Way::Received => {
                count::add(&raw mut (*slot).received_packets_total, 1);
                count::add(&raw mut (*slot).received_bytes_total, bytes);
            }
        }
        if marks & ATTEMPT != 0 {
            count::add(&raw mut (*slot).attempts_total, 1);
        }
        if marks & ANSWER != 0 {
            count::add(&raw mut (*slot).answered_total, 1);
        }
        if marks & RESET != 0 {
            count::add(&raw mut (*slot).refused_reset_total, 1);
        }
        if marks & CLOSE != 0 {
            count::add(&raw mut (*slot).closed_total, 1);
        }
    }
    add_totals(marks);
}
