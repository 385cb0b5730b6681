//! Packets in, flow counters out: the two cgroup programs, and how a packet finds its slot.
//!
//! What a packet means for who began and how it ended is said by `tcp` and `pair`; here it is
//! counted.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_NOEXIST, bpf_sock},
    helpers::bpf_skb_cgroup_id,
    macros::cgroup_skb,
    programs::SkBuffContext,
};
use parapet_common::{
    DIRECTION_EGRESS, DIRECTION_INGRESS, FlowKey, FlowSeen, FlowSlot, SERVICE_ONE_BY_ONE,
    SLOT_LIVE, STAGE_FLOW_QUOTA, STAGE_FLOW_TABLE_FULL, STAGE_LATER_FRAGMENT,
    STAGE_MALFORMED_PACKET, STAGE_NO_SOCKET, STAGE_SOCKET_STORAGE, ServicePort, SocketState,
    TOTAL_ANSWERED, TOTAL_ATTEMPTS, TOTAL_REFUSED,
};

use crate::{
    clock, count, echo, emit, hint,
    maps::{FLOWS, FREE_SLOTS, SERVICES, SLOTS},
    opaque,
    packet::{self, Address, IPPROTO_TCP, IPPROTO_UDP, Packet, Parsed, Plain, Way},
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
    let Some(plain) = Plain::read(ctx, way) else { return any(ctx, way) };
    if plain.protocol == IPPROTO_TCP {
        if let Some((slot, marks, handshake_ns)) = tcp::in_stream(ctx, way, &plain) {
            count_packet(slot, way, ctx.len(), clock::now_ns());
            if marks != NOTHING {
                count_meaning(slot, marks, handshake_ns);
            }
            return;
        }
    } else if plain.protocol == IPPROTO_UDP
        && let Some(slot) = pair::in_stream(ctx, way, &plain)
    {
        return count_packet(slot, way, ctx.len(), clock::now_ns());
    }
    any(ctx, way);
}

/// Any packet. A call of its own: most packets are in the middle of a stream, and what those need
/// is so little that it stays in the processor's caches.
#[inline(always)]
fn any(ctx: &SkBuffContext, way: Way) {
    match way {
        Way::Sent => any_sent(ctx.skb.skb),
        Way::Received => any_received(ctx.skb.skb),
    };
}

/// Verified once, as `share::charged_cgroup`, and so is the other one. The kernel wants a result,
/// and nobody reads it.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn any_sent(skb: *mut __sk_buff) -> u32 {
    observe_any(&SkBuffContext::new(skb), Way::Sent);
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn any_received(skb: *mut __sk_buff) -> u32 {
    observe_any(&SkBuffContext::new(skb), Way::Received);
    0
}

#[inline(always)]
fn observe_any(ctx: &SkBuffContext, way: Way) {
    let mut packet = Packet::new(ctx, way);
    let parsed = packet::parse(ctx, &mut packet);
    match parsed {
        Parsed::Flow | Parsed::Error => {}
        Parsed::Malformed => return count::lost(STAGE_MALFORMED_PACKET),
        Parsed::LaterFragment => return count::lost(STAGE_LATER_FRAGMENT),
        Parsed::Infrastructure => return,
    }
    if packet.protocol == IPPROTO_TCP {
        tcp::observe(ctx, &mut packet);
    } else if matches!(parsed, Parsed::Error) {
        echo::refuse(ctx, &mut packet);
    } else {
        pair::observe(ctx, &mut packet);
    }
}

/// A packet whose socket remembers nothing.
#[inline(always)]
pub fn unseen(sk: *mut bpf_sock) {
    let is_whole = socket::whole(sk).is_some();
    count::lost(if is_whole { STAGE_SOCKET_STORAGE } else { STAGE_NO_SOCKET });
}

/// Has the socket remember its flow.
#[inline(always)]
pub fn note(state: *mut SocketState, word: CachedFlow) {
    if socket::cached(state).0 != word.0 {
        // SAFETY: a live map value; one aligned word, written whole.
        unsafe { core::ptr::write_volatile(&raw mut (*state).flow, word.0) };
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
    let Some(slot) = remembered(cached) else { return NO_SLOT };
    let same = is_with(slot, &packet.peer, packet.protocol)
        // SAFETY: a live map value.
        && (direction == ANY_DIRECTION || unsafe { (*slot).direction } == direction);
    // One value for the verifier, however the comparison ended.
    opaque::zero(ctx).u32(if same { number } else { NO_SLOT })
}

/// The slot of a remembered flow, if it still is that flow's.
#[inline(always)]
pub fn remembered(cached: CachedFlow) -> Option<*mut FlowSlot> {
    let slot = slot(cached.slot())?;
    // SAFETY: a live map value.
    unsafe {
        let same = cached.is_generation((*slot).generation)
            && core::ptr::read_volatile(&raw const (*slot).state) == SLOT_LIVE;
        if same { Some(slot) } else { None }
    }
}

/// The flow that a slot is in: nothing to believe of a slot that is not there.
#[inline(always)]
pub fn slot(number: u32) -> Option<*mut FlowSlot> {
    SLOTS.get_ptr_mut(number)
}

/// Has the processor fetch what the packet will be counted in, which is far away if the flow was
/// quiet for a while, while other things of it are looked at.
#[inline(always)]
pub fn touch(slot: *mut FlowSlot, way: Way) {
    // SAFETY: a live map value.
    unsafe {
        core::ptr::read_volatile(match way {
            Way::Sent => &raw const (*slot).last_sent_ns,
            Way::Received => &raw const (*slot).last_received_ns,
        });
    }
}

/// Whether the slot's flow is with this peer.
#[inline(always)]
pub fn is_with(slot: *mut FlowSlot, peer: &Address, protocol: u8) -> bool {
    // SAFETY: a live map value.
    unsafe { same_address(&raw const (*slot).peer_addr, peer) && (*slot).protocol == protocol }
}

/// Two words instead of sixteen bytes; the slot's field is 8-byte aligned.
///
/// # Safety
/// `slot` points into a live map value.
#[inline(always)]
pub unsafe fn same_address(slot: *const [u8; 16], packet: &Address) -> bool {
    // SAFETY: as above.
    let [high, low] = unsafe { *slot.cast::<Address>() };
    high == packet[0] && low == packet[1]
}

/// Two words as the sixteen bytes of the shared structs, which align them to 8.
#[inline(always)]
pub fn bytes(addr: Address) -> [u8; 16] {
    // SAFETY: two words are sixteen bytes.
    unsafe { core::mem::transmute::<Address, [u8; 16]>(addr) }
}

/// The other way round.
#[inline(always)]
pub fn address(bytes: [u8; 16]) -> Address {
    // SAFETY: sixteen bytes are two words.
    unsafe { core::mem::transmute::<[u8; 16], Address>(bytes) }
}

/// The word by which a socket or a pair finds this slot again.
#[inline(always)]
pub fn word(number: u32, packet: &Packet, answered: bool) -> CachedFlow {
    match slot(number) {
        Some(slot) => {
            // SAFETY: a live map value.
            let generation = unsafe { (*slot).generation };
            CachedFlow::new(number, generation, packet.pair_port, answered)
        }
        None => CachedFlow::NONE,
    }
}

#[inline(always)]
fn key(ctx: &SkBuffContext, packet: &Packet, direction: u8) -> FlowKey {
    FlowKey {
        // SAFETY: the context is valid for the whole program.
        cgroup_id: unsafe { bpf_skb_cgroup_id(ctx.skb.skb) },
        peer_addr: bytes(packet.peer),
        service_port: match direction {
            DIRECTION_EGRESS => packet.peer_port,
            DIRECTION_INGRESS => packet.local_port,
            _ => 0,
        },
        protocol: packet.protocol,
        family: packet.family,
        direction,
        reserved: 0,
        local_port: 0,
    }
}

/// Whether this flow is known.
#[inline(never)]
pub fn is_known(ctx: &SkBuffContext, packet: &Packet, direction: u8) -> bool {
    // SAFETY: the value is not used.
    unsafe { FLOWS.get(key(ctx, packet, direction)).is_some() }
}

/// What the agent said of the peer's port: a Service's, and how its connections are counted.
#[inline(always)]
pub fn service(packet: &Packet) -> Option<u32> {
    let port = ServicePort {
        addr: bytes(packet.peer),
        port: packet.peer_port,
        protocol: packet.protocol,
        family: packet.family,
        reserved: 0,
    };
    // SAFETY: the value is copied at once.
    unsafe { SERVICES.get(port).copied() }
}

/// The number of the flow's slot, taken from the free ones if the flow is new. [`NO_SLOT`], and the
/// packet counted as lost, if there is no room.
#[inline(never)]
pub fn find(ctx: &SkBuffContext, packet: &Packet, direction: u8) -> u32 {
    let version = hint::version();
    let mut key = key(ctx, packet, direction);
    if let Some(number) = hint::of(&key, version) {
        return number;
    }
    let bits = if direction == DIRECTION_EGRESS { service(packet).unwrap_or(0) } else { 0 };
    let one_by_one = opaque::zero(ctx).u32(bits) & SERVICE_ONE_BY_ONE != 0;
    key.local_port = if one_by_one { packet.local_port } else { 0 };
    // SAFETY: the value is copied at once.
    let found = unsafe { FLOWS.get(key).copied() };
    match found.map_or_else(|| take_slot(ctx, &key, packet), Ok) {
        Ok(number) => {
            hint::tell(&key, version, number);
            number
        }
        Err(stage) => {
            count::lost(stage);
            NO_SLOT
        }
    }
}

#[inline(always)]
fn take_slot(ctx: &SkBuffContext, key: &FlowKey, packet: &Packet) -> Result<u32, u32> {
    let charged_id = share::charged(ctx);
    if !share::has_flow(ctx, charged_id) {
        return Err(STAGE_FLOW_QUOTA);
    }
    let Ok(Some(number)) = FREE_SLOTS.pop() else { return Err(STAGE_FLOW_TABLE_FULL) };
    let Some(slot) = SLOTS.get_ptr_mut(number) else { return Err(STAGE_FLOW_TABLE_FULL) };
    // SAFETY: a live map value; nobody else has this number until it is in FLOWS.
    let generation = unsafe {
        (*slot).cgroup_id = key.cgroup_id;
        (*slot).peer_addr = key.peer_addr;
        (*slot).service_port = key.service_port;
        (*slot).protocol = key.protocol;
        (*slot).family = key.family;
        (*slot).direction = key.direction;
        (*slot).local_port = key.local_port;
        (*slot).charged_id = charged_id;
        (*slot).first_seen_ns = packet.time_ns;
        (*slot).last_sent_ns = packet.time_ns;
        (*slot).last_received_ns = packet.time_ns;
        (*slot).local_addr = bytes(local_address(ctx, packet));
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
    share::took_flow(charged_id);
    emit::flow_seen(FlowSeen { key: *key, slot: number, generation });
    Ok(number)
}

/// Our own address: a connected socket's, because on its way out the packet has been through the
/// node's NAT already.
#[inline(always)]
fn local_address(ctx: &SkBuffContext, packet: &Packet) -> Address {
    let own = socket::of(ctx)
        .filter(|_| matches!(packet.way, Way::Sent))
        .map_or([0; 2], |sk| socket::own_address(sk, packet.family));
    if own == [0; 2] { packet::local_address(ctx, packet) } else { own }
}

/// Counts what has no slot to be counted in.
#[inline(always)]
fn add_totals(marks: Marks) {
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

/// Counts a packet and what it means, or only that if its flow has no slot.
#[inline(always)]
pub fn settle(number: u32, packet: &Packet, marks: Marks, handshake_ns: u64) {
    match slot(number) {
        Some(slot) => {
            count_packet(slot, packet.way, packet.bytes, packet.time_ns);
            count_meaning(slot, marks, handshake_ns);
        }
        None => add_totals(marks),
    }
}

/// Counts the packet.
#[inline(always)]
fn count_packet(slot: *mut FlowSlot, way: Way, bytes: u32, time_ns: u64) {
    // SAFETY: a live map value.
    unsafe {
        match way {
            Way::Sent => {
                core::ptr::write_volatile(&raw mut (*slot).last_sent_ns, time_ns);
                count::add(&raw mut (*slot).sent_packets_total, 1);
                count::add(&raw mut (*slot).sent_bytes_total, u64::from(bytes));
            }
            Way::Received => {
                core::ptr::write_volatile(&raw mut (*slot).last_received_ns, time_ns);
                count::add(&raw mut (*slot).received_packets_total, 1);
                count::add(&raw mut (*slot).received_bytes_total, u64::from(bytes));
            }
        }
    }
}

/// Counts what a packet means; 0 for how long a handshake took if it completes none.
#[inline(always)]
fn count_meaning(slot: *mut FlowSlot, marks: Marks, handshake_ns: u64) {
    if handshake_ns != 0 {
        // SAFETY: a live map value.
        count::add(unsafe { &raw mut (*slot).handshake_ns_total }, handshake_ns);
    }
    // SAFETY: a live map value.
    unsafe {
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
