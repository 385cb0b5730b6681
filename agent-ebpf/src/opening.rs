//! The first packet of a connection whose flow is known: its socket in, the slot out. Of short
//! connections this is a large part of what they cost; `tcp` decides on all that may be otherwise.

use aya_ebpf::{
    helpers::{bpf_ktime_get_ns, bpf_skb_cgroup_id},
    programs::SkBuffContext,
};
use parapet_common::{DIRECTION_EGRESS, DIRECTION_INGRESS, FlowKey, FlowSlot};

use crate::{
    connection,
    flow::{self, NO_SLOT},
    hint,
    names::DNS_PORT,
    packet::{IPPROTO_TCP, Plain, TCP_FIN, TCP_RST, TCP_SYN, Way},
    socket::{
        self, CachedFlow, PHASE_ACCEPTED, PHASE_OPEN_INGRESS, PHASE_OPENING, STATE_ESTABLISHED,
        STATE_SYN_SENT,
    },
    tcp,
};

/// Whether a packet asks its receiver for a connection: what else [`first`] takes is an answer.
#[inline(always)]
pub fn is_request(way: Way, flags: u8) -> bool {
    matches!(way, Way::Sent) && tcp::is_syn(flags)
}

/// The slot of a SYN that a socket sends for the first time, which is an attempt, or of the first
/// packet of a connection that a listener accepted, which is an answer; the connection is
/// remembered from here on. Null of all other packets, and of those that NAT led elsewhere.
#[inline(never)]
pub fn first(ctx: &SkBuffContext, way: Way, flags: u8) -> *mut FlowSlot {
    let none = core::ptr::null_mut();
    let Some(sk) = socket::of(ctx) else { return none };
    // SAFETY: a field that all sockets have.
    let tcp_state = unsafe { (*sk).state };
    let (phase, direction) = if is_request(way, flags) && tcp_state == STATE_SYN_SENT {
        (PHASE_OPENING, DIRECTION_EGRESS)
    } else if tcp_state == STATE_ESTABLISHED
        && flags & (TCP_SYN | TCP_FIN | TCP_RST) == 0
        && connection::beginning(sk) == PHASE_ACCEPTED
    {
        (PHASE_OPEN_INGRESS, DIRECTION_INGRESS)
    } else {
        return none;
    };
    // Once more: who calls this has no stack left to hand it over, on Linux before 6.12.
    let Some(plain) = Plain::read(ctx, way) else { return none };
    let Some([own_port, peer_port]) = plain.own_and_peer_port(ctx, way) else { return none };
    let is_asked = socket::asked(sk, plain.family) == Some((plain.peer, peer_port));
    if !is_asked || socket::own_port(sk) != own_port || peer_port == DNS_PORT {
        return none;
    }
    let key = FlowKey {
        // SAFETY: the context is valid for the whole program.
        cgroup_id: unsafe { bpf_skb_cgroup_id(ctx.skb.skb) },
        peer_addr: flow::bytes(plain.peer),
        service_port: if direction == DIRECTION_EGRESS { peer_port } else { own_port },
        protocol: IPPROTO_TCP,
        family: plain.family,
        direction,
        reserved: 0,
        local_port: 0,
    };
    let number = hint::of(&key, hint::version()).unwrap_or(NO_SLOT);
    let Some(slot) = flow::slot(number) else { return none };
    let Some(state) = connection::keep(ctx, sk) else { return none };
    // SAFETY: live map values.
    unsafe {
        flow::note(state, CachedFlow::new(number, (*slot).generation, peer_port, false));
        (*state).phase = phase;
        if phase == PHASE_OPENING {
            (*state).told_ns = bpf_ktime_get_ns();
        }
    }
    slot
}
