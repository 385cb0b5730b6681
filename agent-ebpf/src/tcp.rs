//! TCP: a packet and its socket's state in, what the packet means for the connection out.
//!
//! Who began is read from the socket: a listener and what it accepted, the SYN we sent. Never from
//! port numbers. A socket first seen in mid-stream has an unknown direction and port 0, unless it
//! was looked at when the sensor started (see `older`).

use aya_ebpf::{
    bindings::{BPF_F_CURRENT_NETNS, bpf_sock, bpf_sock_tuple},
    helpers::{bpf_ktime_get_ns, bpf_sk_release, bpf_skc_lookup_tcp},
    programs::SkBuffContext,
};
use parapet_common::{
    DIRECTION_EGRESS, DIRECTION_INGRESS, DIRECTION_UNKNOWN, FlowSlot, STAGE_NO_SOCKET, SocketState,
};

use crate::{
    connection, count,
    flow::{self, ANSWER, ATTEMPT, CLOSE, Marks, NO_SLOT, NOTHING, RESET},
    names::{self, DNS_PORT},
    opaque, opening,
    packet::{self, Address, Packet, Plain, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, Way},
    socket::{
        self, CachedFlow, PHASE_ACCEPTED, PHASE_ENDED_EGRESS, PHASE_ENDED_INGRESS, PHASE_LISTENER,
        PHASE_MIDSTREAM, PHASE_NEW, PHASE_OPEN_EGRESS, PHASE_OPEN_INGRESS, PHASE_OPENING,
        STATE_CLOSE, STATE_LISTEN, STATE_NEW_SYN_RECV, STATE_SYN_SENT, SYN_MS, TURNED,
    },
};

/// The slot of a packet of a connection whose slot the socket remembers, what the packet means, and
/// how long the handshake took that it completes; the connection's next phase is then written down.
/// A socket's peer is the same from its first packet to its last one, so that none of this needs
/// the packet's addresses. None of all other packets, and of those from DNS servers, which are
/// read.
#[inline(always)]
pub fn in_stream(
    ctx: &SkBuffContext,
    way: Way,
    plain: &Plain,
) -> Option<(*mut FlowSlot, Marks, u64)> {
    let sk = socket::of(ctx)?;
    let flags = plain.tcp_flags(ctx)?;
    let Some(state) = connection::known(ctx) else {
        let slot = opening::first(ctx, way, flags);
        let marks = if opening::is_request(way, flags) { ATTEMPT } else { ANSWER };
        return if slot.is_null() { None } else { Some((slot, marks, 0)) };
    };
    // SAFETY: a field that all sockets have.
    if unsafe { (*sk).state } == STATE_LISTEN {
        let is_request = asks(way, flags);
        if is_request && connection::is_asked(sk) {
            return None;
        }
        let marks = if is_request { ATTEMPT } else { NOTHING };
        return Some((at_listener(state, plain)?, marks, 0));
    }
    // SAFETY: a live map value.
    let phase = unsafe { (*state).phase };
    let cached = socket::cached(state);
    let is_open = (PHASE_OPEN_EGRESS..=PHASE_ENDED_INGRESS).contains(&phase);
    let is_answer = phase == PHASE_OPENING && matches!(way, Way::Received);
    if cached.peer_port() == DNS_PORT || !(is_answer || is_open && flags & TCP_SYN == 0) {
        return None;
    }
    let slot = flow::remembered(cached)?;
    // What has no SYN means the same whichever way it goes.
    let (next, marks) = advance(phase, Way::Received, flags, false);
    let handshake_ns = if next == phase { 0 } else { turn(state, phase, next, marks) };
    Some((slot, marks, handshake_ns))
}

/// The slot of what a listener hears of the peer that it heard of last, or says to it, while a
/// connection is being made.
#[inline(always)]
fn at_listener(state: *mut SocketState, plain: &Plain) -> Option<*mut FlowSlot> {
    let cached = socket::cached(state);
    let slot = flow::remembered(cached)?;
    // SAFETY: a live map value.
    let is_asked = unsafe { (*slot).direction == DIRECTION_INGRESS };
    if is_asked && flow::is_with(slot, &plain.peer, plain.protocol) { Some(slot) } else { None }
}

/// Whether we are asked for a connection.
#[inline(always)]
fn asks(way: Way, flags: u8) -> bool {
    matches!(way, Way::Received) && is_syn(flags)
}

/// Whether these are the flags of who asks for a connection.
#[inline(always)]
pub fn is_syn(flags: u8) -> bool {
    flags & (TCP_SYN | TCP_ACK | TCP_RST) == TCP_SYN
}

/// Any packet of TCP.
#[inline(never)]
pub fn observe(ctx: &SkBuffContext, packet: &mut Packet) {
    let Some(sk) = socket::of(ctx) else { return count::lost(STAGE_NO_SOCKET) };
    let Some(state) = connection::state(ctx, sk) else { return flow::unseen(sk) };
    // SAFETY: a live map value, and a field that all sockets have.
    let (phase, tcp_state) = unsafe { ((*state).phase, (*sk).state) };
    // No TCP socket at all: a raw one, or the kernel's own for resets and TIME_WAIT answers on
    // behalf of no process. What it reads are copies; what it sends belongs to no flow, but a SYN
    // that a process made itself is an attempt like any other.
    let is_none = phase == PHASE_NEW && (tcp_state == STATE_CLOSE || socket::is_raw(sk));
    let decision = if !is_none {
        decide(ctx, packet, sk, state, (phase, tcp_state))
    } else if matches!(packet.way, Way::Sent) && packet.kind & (TCP_SYN | TCP_ACK) == TCP_SYN {
        let direction = DIRECTION_EGRESS;
        Decision { number: NO_SLOT, direction, marks: ATTEMPT, handshake_ns: 0 }
    } else {
        return;
    };
    // What was known of each value by the way it was decided on is hidden from the verifier.
    let zero = opaque::zero(ctx);
    let direction = zero.u8(decision.direction);
    let marks = zero.u32(decision.marks);
    let handshake_ns = zero.u64(decision.handshake_ns);
    let mut number = zero.u32(decision.number);
    if number == NO_SLOT {
        number = zero.u32(flow::find(ctx, packet, direction));
        flow::note(state, flow::word(number, packet, false));
    }
    flow::settle(number, packet, marks, handshake_ns);
    names::answer(ctx, packet, direction);
}

/// What a packet means.
struct Decision {
    /// The slot of its flow; [`NO_SLOT`] if it is still to be found.
    number: u32,
    /// `DIRECTION_*`.
    direction: u8,
    marks: Marks,
    /// How long the handshake took that it completes; 0 for none.
    handshake_ns: u64,
}

/// Says what the packet means, and writes the connection's next phase.
#[inline(always)]
fn decide(
    ctx: &SkBuffContext,
    packet: &mut Packet,
    sk: *mut bpf_sock,
    state: *mut SocketState,
    (before, tcp_state): (u32, u32),
) -> Decision {
    let way = packet.way;
    socket::set_own_port(packet, sk);
    let (next, marks) = if tcp_state == STATE_LISTEN {
        let attempts =
            asks(way, packet.kind) && (!connection::is_asked(sk) || is_first_syn(ctx, packet));
        (PHASE_LISTENER, if attempts { ATTEMPT } else { NOTHING })
    } else {
        let phase = if before == PHASE_NEW { connection::beginning(sk) } else { before };
        set_connected(packet, sk, state, phase);
        advance(phase, way, packet.kind, tcp_state == STATE_SYN_SENT)
    };
    packet.hide(ctx);
    let zero = opaque::zero(ctx);
    let (before, next, marks) = (zero.u32(before), zero.u32(next), zero.u32(marks));
    let direction = zero.u8(match next {
        PHASE_LISTENER | PHASE_OPEN_INGRESS | PHASE_ENDED_INGRESS => DIRECTION_INGRESS,
        PHASE_OPENING | PHASE_OPEN_EGRESS | PHASE_ENDED_EGRESS => DIRECTION_EGRESS,
        _ => DIRECTION_UNKNOWN,
    });
    let handshake_ns = if next != before {
        turn(state, before, next, marks)
    } else {
        if next == PHASE_OPENING && matches!(way, Way::Sent) {
            // SAFETY: a live map value.
            unsafe {
                let marks = (*state).last_syn_ms & !SYN_MS;
                (*state).last_syn_ms = since_first_syn_ms(state) | marks;
            }
        }
        0
    };
    let cached = socket::cached(state);
    // A socket that connects again may ask another port of the same peer.
    let is_asked = direction != DIRECTION_EGRESS || cached.peer_port() == packet.pair_port;
    let cached = if is_asked { cached } else { CachedFlow::NONE };
    let number = flow::cached_slot(ctx, cached, packet, direction);
    Decision { number, direction, marks, handshake_ns }
}

/// Puts in the place of the packet's peer the one that the connection is with: the one that was
/// asked for, or a proxy in the same pod that the pod's own rules turned it to. (What that asks for
/// then is another connection.)
#[inline(always)]
fn set_connected(packet: &mut Packet, sk: *mut bpf_sock, state: *mut SocketState, phase: u32) {
    let (wire_addr, wire_port) = (packet.peer, packet.peer_port);
    let is_turned = matches!(packet.way, Way::Sent) && packet::is_loopback(packet);
    socket::set_asked(packet, sk);
    if matches!(packet.way, Way::Sent) {
        let is_turned = is_turned && packet.peer != wire_addr;
        // SAFETY: a live map value.
        unsafe {
            (*state).last_syn_ms &= !TURNED;
            if is_turned {
                (*state).last_syn_ms |= TURNED;
            }
        }
        if is_turned {
            packet.set_peer(wire_addr, wire_port);
        }
        return;
    }
    // SAFETY: a live map value.
    let marks = unsafe { (*state).last_syn_ms };
    let cached = socket::cached(state);
    // The proxy's answers have the address that was asked for again.
    if marks & TURNED != 0
        && matches!(phase, PHASE_OPENING | PHASE_OPEN_EGRESS | PHASE_ENDED_EGRESS)
    {
        let peer = match flow::remembered(cached) {
            // SAFETY: a live map value.
            Some(slot) => flow::address(unsafe { (*slot).peer_addr }),
            None => packet::loopback(packet),
        };
        packet.set_peer(peer, cached.peer_port());
    }
}

/// Writes the next phase and its times; how long the handshake took that this completes, or 0,
/// comes out.
#[inline(always)]
fn turn(state: *mut SocketState, phase: u32, next: u32, marks: Marks) -> u64 {
    // SAFETY: a live map value.
    unsafe {
        (*state).phase = next;
        (*state).last_syn_ms &= TURNED;
        if next == PHASE_OPENING {
            (*state).told_ns = bpf_ktime_get_ns();
        } else if phase == PHASE_OPENING && marks & ANSWER != 0 {
            return bpf_ktime_get_ns().saturating_sub((*state).told_ns);
        }
    }
    0
}

/// Milliseconds since the first SYN, as `SocketState::last_syn_ms` counts them.
#[inline(always)]
pub fn since_first_syn_ms(state: *mut SocketState) -> u32 {
    // SAFETY: a live map value, and a helper without arguments.
    let ns = unsafe { bpf_ktime_get_ns().saturating_sub((*state).told_ns) };
    (ns / 1_000_000) as u32 & SYN_MS
}

/// What a packet makes of a connection (not of a listener): its next phase and what to count.
#[inline(always)]
fn advance(phase: u32, way: Way, flags: u8, connecting: bool) -> (u32, Marks) {
    let ends = flags & (TCP_FIN | TCP_RST) != 0;
    let syn = flags & TCP_SYN != 0;
    let ack = flags & TCP_ACK != 0;
    let sent = matches!(way, Way::Sent);
    match phase {
        PHASE_NEW | PHASE_LISTENER | PHASE_ENDED_EGRESS | PHASE_ENDED_INGRESS
            if sent && syn && !ack =>
        {
            (PHASE_OPENING, ATTEMPT)
        }
        // The SYN was sent before we watched.
        PHASE_NEW if !sent && connecting && syn && ack => (PHASE_OPEN_EGRESS, ATTEMPT | ANSWER),
        PHASE_NEW if !sent && connecting && flags & TCP_RST != 0 => {
            (PHASE_ENDED_EGRESS, ATTEMPT | RESET)
        }
        PHASE_NEW => (PHASE_MIDSTREAM, NOTHING),
        PHASE_OPENING if !sent && syn && ack => (PHASE_OPEN_EGRESS, ANSWER),
        PHASE_OPENING if !sent && flags & TCP_RST != 0 => (PHASE_ENDED_EGRESS, RESET),
        PHASE_ACCEPTED if ends => (PHASE_ENDED_INGRESS, ANSWER | CLOSE),
        PHASE_ACCEPTED => (PHASE_OPEN_INGRESS, ANSWER),
        PHASE_OPEN_EGRESS if ends => (PHASE_ENDED_EGRESS, CLOSE),
        PHASE_OPEN_INGRESS if ends => (PHASE_ENDED_INGRESS, CLOSE),
        other => (other, NOTHING),
    }
}

/// A SYN is repeated if the kernel already holds the request that the first one made. (A listener
/// that had no room for the first one holds none: then the repetition is a new attempt.)
#[inline(never)]
fn is_first_syn(ctx: &SkBuffContext, packet: &Packet) -> bool {
    let local = words(packet::local_address(ctx, packet));
    let peer = words(packet.peer);
    let [a, b] = packet.peer_port.to_be_bytes();
    let [c, d] = packet.local_port.to_be_bytes();
    let ports = u32::from_ne_bytes([a, b, c, d]);
    // `struct bpf_sock_tuple` of include/uapi/linux/bpf.h: source, destination, both ports.
    let (mut tuple, bytes) = if packet.family == 4 {
        ([peer[0], local[0], ports, 0, 0, 0, 0, 0, 0], 12)
    } else {
        let [a, b, c, d] = peer;
        let [e, f, g, h] = local;
        ([a, b, c, d, e, f, g, h, ports], 36)
    };
    // SAFETY: the tuple is a whole one of its family; a socket that is found is given back.
    unsafe {
        let found = bpf_skc_lookup_tcp(
            ctx.skb.skb.cast(),
            (&raw mut tuple).cast::<bpf_sock_tuple>(),
            bytes,
            BPF_F_CURRENT_NETNS as i64 as u64,
            0,
        );
        if found.is_null() {
            return true;
        }
        let state = (*found).state;
        bpf_sk_release(found.cast());
        state != STATE_NEW_SYN_RECV
    }
}

#[inline(always)]
fn words(addr: Address) -> [u32; 4] {
    let [high, low] = addr;
    [high as u32, (high >> 32) as u32, low as u32, (low >> 32) as u32]
}
