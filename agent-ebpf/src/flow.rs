//! Packets in, flow counters out: the two cgroup programs and how a packet finds its slot.
//!
//! Who began is read from the socket: a listener and what it accepted, the SYN we sent, for UDP who
//! was heard first on the socket pair. Never from port numbers. A TCP socket first seen in
//! mid-stream has an unknown direction and port 0.

use aya_ebpf::{
    bindings::{BPF_NOEXIST, bpf_sock},
    helpers::{bpf_ktime_get_coarse_ns, bpf_skb_cgroup_id},
    macros::cgroup_skb,
    programs::SkBuffContext,
};
use parapet_common::{
    DIRECTION_EGRESS, DIRECTION_INGRESS, DIRECTION_UNKNOWN, FlowKey, FlowSeen, FlowSlot, SLOT_LIVE,
    STAGE_FLOW_TABLE_FULL, STAGE_LATER_FRAGMENT, STAGE_MALFORMED_PACKET, STAGE_SOCKET_PAIR,
};

use crate::{
    count, emit,
    maps::{FLOWS, FREE_SLOTS, PAIRS, Pair, PairKey, SLOTS, SocketState},
    packet::{self, IPPROTO_UDP, NoFlow, Packet, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, Way},
    socket::{
        self, CachedFlow, PHASE_ENDED_EGRESS, PHASE_ENDED_INGRESS, PHASE_LISTENER, PHASE_MIDSTREAM,
        PHASE_NEW, PHASE_OPEN_EGRESS, PHASE_OPEN_INGRESS, PHASE_OPENING, STATE_CLOSE, STATE_LISTEN,
        STATE_SYN_SENT,
    },
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
    let packet = match packet::parse(ctx, way) {
        Ok(packet) => packet,
        Err(NoFlow::Malformed) => return count::lost(STAGE_MALFORMED_PACKET),
        Err(NoFlow::OtherProtocol) => return count::lost(STAGE_LATER_FRAGMENT),
    };
    let Some(sk) = socket::of(ctx) else {
        return count::lost(STAGE_MALFORMED_PACKET);
    };
    let state = socket::state(sk);
    if packet.protocol == IPPROTO_UDP {
        observe_udp(ctx, way, &packet, state);
    } else {
        observe_tcp(ctx, way, &packet, sk, state);
    }
}

/// What a packet adds beside itself.
#[derive(Clone, Copy, Default)]
struct Marks {
    attempt: bool,
    answer: bool,
    refusal: bool,
    close: bool,
}

#[inline(always)]
fn observe_udp(ctx: &SkBuffContext, way: Way, packet: &Packet, state: Option<*mut SocketState>) {
    if let Some(state) = state {
        // SAFETY: a live map value; one aligned word, so it is read whole.
        let cached = CachedFlow(unsafe { core::ptr::read_volatile(&raw const (*state).flow) });
        if let Some(slot) = cached_slot(cached, packet)
            && cached.peer_port() == packet.peer_port
        {
            // SAFETY: a live map value.
            let direction = unsafe { (*slot).key.direction };
            let answer = is_answer(direction, way) && !cached.answered();
            if answer {
                // SAFETY: as above.
                unsafe {
                    core::ptr::write_volatile(&raw mut (*state).flow, cached.with_answer().0);
                }
                remember_answer(ctx, packet);
            }
            return add(slot, way, packet, Marks { answer, ..Marks::default() });
        }
    }
    observe_udp_pair(ctx, way, packet, state);
}

#[inline(always)]
fn is_answer(direction: u8, way: Way) -> bool {
    match way {
        Way::Sent => direction == DIRECTION_INGRESS,
        Way::Received => direction == DIRECTION_EGRESS,
    }
}

#[inline(always)]
fn pair_key(ctx: &SkBuffContext, packet: &Packet) -> PairKey {
    PairKey {
        cookie: socket::cookie(ctx),
        peer_addr: packet.peer_addr,
        peer_port: u32::from(packet.peer_port),
        reserved: 0,
    }
}

#[inline(always)]
fn remember_answer(ctx: &SkBuffContext, packet: &Packet) {
    if let Some(pair) = PAIRS.get_ptr_mut(pair_key(ctx, packet)) {
        // SAFETY: a live map value.
        unsafe { (*pair).answered = 1 };
    }
}

/// The socket talks to more than one peer, or this is the first packet: the pair table knows.
#[inline(never)]
fn observe_udp_pair(
    ctx: &SkBuffContext,
    way: Way,
    packet: &Packet,
    state: Option<*mut SocketState>,
) {
    let pair_key = pair_key(ctx, packet);
    let Some(pair) = PAIRS.get_ptr_mut(pair_key) else {
        return begin_udp_pair(ctx, way, packet, state, &pair_key);
    };
    // SAFETY: a live map value; an entry evicted meanwhile is still mapped memory.
    let (direction, mut answered, cached) =
        unsafe { ((*pair).direction as u8, (*pair).answered != 0, CachedFlow((*pair).flow)) };
    let mut marks = Marks::default();
    if !answered && is_answer(direction, way) {
        // SAFETY: as above.
        unsafe { (*pair).answered = 1 };
        marks.answer = true;
        answered = true;
    }
    let known = match (cached.slot(), cached_slot(cached, packet)) {
        (Some(number), Some(slot)) => Some((number, slot)),
        _ => find(ctx, packet, direction),
    };
    let Some((number, slot)) = known else { return };
    let cached = remember(state, number, slot, packet, answered);
    // SAFETY: as above; one aligned word, written whole.
    unsafe { core::ptr::write_volatile(&raw mut (*pair).flow, cached.0) };
    add(slot, way, packet, marks);
}

/// Whoever is heard first on a socket pair began.
#[inline(always)]
fn begin_udp_pair(
    ctx: &SkBuffContext,
    way: Way,
    packet: &Packet,
    state: Option<*mut SocketState>,
    pair_key: &PairKey,
) {
    let direction = match way {
        Way::Sent => DIRECTION_EGRESS,
        Way::Received => DIRECTION_INGRESS,
    };
    let found = find(ctx, packet, direction);
    let flow = match found {
        Some((number, slot)) => remember(state, number, slot, packet, false),
        None => CachedFlow(0),
    };
    // Also without a slot: the answer must not be taken for a new beginning.
    let pair = Pair {
        direction: u32::from(direction),
        answered: 0,
        sequence: 0,
        reserved: 0,
        flow: flow.0,
    };
    if PAIRS.insert(pair_key, pair, 0).is_err() {
        count::lost(STAGE_SOCKET_PAIR);
    }
    if let Some((_, slot)) = found {
        add(slot, way, packet, Marks { attempt: true, ..Marks::default() });
    }
}

#[inline(always)]
fn observe_tcp(
    ctx: &SkBuffContext,
    way: Way,
    packet: &Packet,
    sk: *mut bpf_sock,
    state: Option<*mut SocketState>,
) {
    // SAFETY: `sk` is a whole socket, its fields may be read.
    let listening = unsafe { (*sk).state } == STATE_LISTEN;
    // SAFETY: as above.
    let connecting = unsafe { (*sk).state } == STATE_SYN_SENT;
    let phase = match state {
        // SAFETY: a live map value.
        Some(state) => unsafe { (*state).phase },
        None => PHASE_NEW,
    };
    // The kernel's own socket for resets and TIME_WAIT answers, on behalf of no process: no flow.
    // SAFETY: as above.
    if phase == PHASE_NEW && matches!(way, Way::Sent) && unsafe { (*sk).state } == STATE_CLOSE {
        return;
    }
    let (next, marks) = if listening {
        let attempt = matches!(way, Way::Received)
            && packet.tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST) == TCP_SYN
            && is_new_syn(ctx, packet);
        (PHASE_LISTENER, Marks { attempt, ..Marks::default() })
    } else {
        advance(phase, way, packet.tcp_flags, connecting)
    };
    let direction = match next {
        PHASE_LISTENER | PHASE_OPEN_INGRESS | PHASE_ENDED_INGRESS => DIRECTION_INGRESS,
        PHASE_OPENING | PHASE_OPEN_EGRESS | PHASE_ENDED_EGRESS => DIRECTION_EGRESS,
        _ => DIRECTION_UNKNOWN,
    };
    if let Some(state) = state {
        // SAFETY: a live map value.
        let cached = unsafe {
            if next != phase {
                (*state).phase = next;
                (*state).repeated_syns = 0;
            } else if next == PHASE_OPENING && matches!(way, Way::Sent) {
                (*state).repeated_syns += 1;
            }
            CachedFlow(core::ptr::read_volatile(&raw const (*state).flow))
        };
        if let Some(slot) = cached_slot(cached, packet) {
            // SAFETY: a live map value.
            if unsafe { (*slot).key.direction } == direction {
                return add(slot, way, packet, marks);
            }
        }
    }
    let Some((number, slot)) = find(ctx, packet, direction) else { return };
    remember(state, number, slot, packet, false);
    add(slot, way, packet, marks);
}

/// What a packet makes of a connection (not of a listener): its next phase and what to count.
#[inline(always)]
fn advance(phase: u32, way: Way, flags: u8, connecting: bool) -> (u32, Marks) {
    let none = Marks::default();
    let ends = flags & (TCP_FIN | TCP_RST) != 0;
    let syn = flags & TCP_SYN != 0;
    let ack = flags & TCP_ACK != 0;
    let sent = matches!(way, Way::Sent);
    match phase {
        PHASE_NEW | PHASE_ENDED_EGRESS | PHASE_ENDED_INGRESS if sent && syn && !ack => {
            (PHASE_OPENING, Marks { attempt: true, ..none })
        }
        // The SYN was sent before we watched.
        PHASE_NEW if !sent && connecting && syn && ack => {
            (PHASE_OPEN_EGRESS, Marks { attempt: true, answer: true, ..none })
        }
        PHASE_NEW if !sent && connecting && flags & TCP_RST != 0 => {
            (PHASE_ENDED_EGRESS, Marks { attempt: true, refusal: true, ..none })
        }
        PHASE_NEW => (PHASE_MIDSTREAM, none),
        PHASE_OPENING if !sent && syn && ack => (PHASE_OPEN_EGRESS, Marks { answer: true, ..none }),
        PHASE_OPENING if !sent && flags & TCP_RST != 0 => {
            (PHASE_ENDED_EGRESS, Marks { refusal: true, ..none })
        }
        // The first packet of an accepted connection, whose memory is its listener's.
        PHASE_LISTENER if ends => {
            (PHASE_ENDED_INGRESS, Marks { answer: true, close: true, ..none })
        }
        PHASE_LISTENER => (PHASE_OPEN_INGRESS, Marks { answer: true, ..none }),
        PHASE_OPEN_EGRESS if ends => (PHASE_ENDED_EGRESS, Marks { close: true, ..none }),
        PHASE_OPEN_INGRESS if ends => (PHASE_ENDED_INGRESS, Marks { close: true, ..none }),
        other => (other, none),
    }
}

/// A repeated SYN has the sequence number of the first.
#[inline(always)]
fn is_new_syn(ctx: &SkBuffContext, packet: &Packet) -> bool {
    let key = pair_key(ctx, packet);
    if let Some(pair) = PAIRS.get_ptr_mut(key) {
        // SAFETY: a live map value.
        unsafe {
            let is_new = (*pair).sequence != packet.tcp_sequence;
            (*pair).sequence = packet.tcp_sequence;
            return is_new;
        }
    }
    let pair = Pair {
        direction: u32::from(DIRECTION_INGRESS),
        answered: 0,
        sequence: packet.tcp_sequence,
        reserved: 0,
        flow: 0,
    };
    if PAIRS.insert(key, pair, 0).is_err() {
        count::lost(STAGE_SOCKET_PAIR);
    }
    true
}

/// The slot a socket remembers, if it still is this peer's.
#[inline(always)]
fn cached_slot(cached: CachedFlow, packet: &Packet) -> Option<*mut FlowSlot> {
    let slot = SLOTS.get_ptr_mut(cached.slot()?)?;
    // SAFETY: a live map value.
    unsafe {
        let same = cached.is_generation((*slot).generation)
            && core::ptr::read_volatile(&raw const (*slot).state) == SLOT_LIVE
            && same_address(&raw const (*slot).key.peer_addr, &packet.peer_addr)
            && (*slot).key.protocol == packet.protocol;
        if same { Some(slot) } else { None }
    }
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

#[inline(always)]
fn remember(
    state: Option<*mut SocketState>,
    number: u32,
    slot: *mut FlowSlot,
    packet: &Packet,
    answered: bool,
) -> CachedFlow {
    // SAFETY: a live map value.
    let generation = unsafe { (*slot).generation };
    let cached = CachedFlow::new(number, generation, packet.peer_port, answered);
    if let Some(state) = state {
        // SAFETY: a live map value; one aligned word, written whole.
        unsafe { core::ptr::write_volatile(&raw mut (*state).flow, cached.0) };
    }
    cached
}

/// The flow's slot, taken from the free ones if the flow is new. None, and the packet counted as
/// lost, if there is no room.
#[inline(never)]
fn find(ctx: &SkBuffContext, packet: &Packet, direction: u8) -> Option<(u32, *mut FlowSlot)> {
    let service_port = match direction {
        DIRECTION_EGRESS => packet.peer_port,
        DIRECTION_INGRESS => packet.local_port,
        _ => 0,
    };
    let key = FlowKey {
        // SAFETY: the context is valid for the whole program.
        cgroup_id: unsafe { bpf_skb_cgroup_id(ctx.skb.skb) },
        peer_addr: packet.peer_addr,
        service_port,
        protocol: packet.protocol,
        family: packet.family,
        direction,
        reserved: 0,
        local_port: 0,
    };
    // SAFETY: the value is copied at once.
    let known = unsafe { FLOWS.get(key).copied() };
    let number = match known {
        Some(number) => Some(number),
        None => take_slot(&key),
    };
    let Some(number) = number else {
        count::lost(STAGE_FLOW_TABLE_FULL);
        return None;
    };
    SLOTS.get_ptr_mut(number).map(|slot| (number, slot))
}

#[inline(always)]
fn take_slot(key: &FlowKey) -> Option<u32> {
    let number = FREE_SLOTS.pop().ok()??;
    let slot = SLOTS.get_ptr_mut(number)?;
    // SAFETY: a live map value; nobody else has this number until it is in FLOWS.
    let generation = unsafe {
        (*slot).key = *key;
        let now = bpf_ktime_get_coarse_ns();
        (*slot).first_seen_ns = now;
        (*slot).last_seen_ns = now;
        (*slot).generation
    };
    if FLOWS.insert(key, number, u64::from(BPF_NOEXIST)).is_err() {
        // Another CPU was first, or the table is full. It cannot fail: the number was taken from
        // here.
        let _ = FREE_SLOTS.push(number, 0);
        // SAFETY: the value is copied at once.
        return unsafe { FLOWS.get(key).copied() };
    }
    // SAFETY: as above; the agent reads nothing before it sees this.
    unsafe { core::ptr::write_volatile(&raw mut (*slot).state, SLOT_LIVE) };
    emit::flow_seen(FlowSeen { key: *key, slot: number, generation });
    Some(number)
}

#[inline(always)]
fn add(slot: *mut FlowSlot, way: Way, packet: &Packet, marks: Marks) {
    // SAFETY: a live map value.
    unsafe {
        core::ptr::write_volatile(&raw mut (*slot).last_seen_ns, bpf_ktime_get_coarse_ns());
        let bytes = u64::from(packet.bytes);
        match way {
            Way::Sent => {
                count::add(&raw mut (*slot).sent_packets_total, 1);
                count::add(&raw mut (*slot).sent_bytes_total, bytes);
            }
            Way::Received => {
                count::add(&raw mut (*slot).received_packets_total, 1);
                count::add(&raw mut (*slot).received_bytes_total, bytes);
            }
        }
        if marks.attempt {
            count::add(&raw mut (*slot).attempts_total, 1);
        }
        if marks.answer {
            count::add(&raw mut (*slot).answered_total, 1);
        }
        if marks.refusal {
            count::add(&raw mut (*slot).refused_reset_total, 1);
        }
        if marks.close {
            count::add(&raw mut (*slot).closed_total, 1);
        }
    }
}
