//! Packets from DNS servers in, their bytes out, for the agent to read: which name led to which
//! address. The only writer of the ring of names.
//!
//! It reads nothing of DNS itself and asks nothing of a packet but that it comes from port 53.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{bpf_skb_cgroup_id, bpf_skb_load_bytes},
    programs::SkBuffContext,
};
use parapet_common::{
    DIRECTION_EGRESS, DNS_BYTES_MAX, DnsAnswer, EVENT_DNS_ANSWER, EventHeader, NAMES_BYTES,
    STAGE_MALFORMED_PACKET, STAGE_NAMES_FULL,
};

use crate::{
    clock, count,
    maps::{DnsEvent, NAMES, NAMES_SCRATCH},
    opaque,
    packet::{IPPROTO_TCP, IPPROTO_UDP, Packet, Way},
    ring, socket,
};

pub const DNS_PORT: u16 = 53;
/// Pieces of one packet at most: 64 KiB, the longest that receive offload makes without BIG TCP.
const PIECES_MAX: u32 = 16;
const UDP_HEADER_BYTES: u32 = 8;
const IPV6_HEADER_BYTES: usize = 40;
/// Where the IPv6 header says what follows it.
const IPV6_NEXT_HEADER: usize = 6;
/// Where the TCP header holds its sequence number and its length.
const TCP_SEQUENCE: usize = 4;
const TCP_LENGTH: usize = 12;

/// One compare for all other packets. Only what came on a pair of sockets that our side began is an
/// answer: anybody can send a pod something from port 53.
#[inline(always)]
pub fn answer(ctx: &SkBuffContext, packet: &Packet, direction: u8) {
    if packet.peer_port == DNS_PORT
        && direction == DIRECTION_EGRESS
        && matches!(packet.way, Way::Received)
    {
        take_answer(ctx.skb.skb, u32::from(packet.protocol));
    }
}

/// Verified once, as `share::charged_cgroup`. The kernel wants a result, and nobody reads it.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn take_answer(skb: *mut __sk_buff, protocol: u32) -> u32 {
    take(&SkBuffContext::new(skb), protocol as u8);
    0
}

#[inline(always)]
fn take(ctx: &SkBuffContext, protocol: u8) {
    let Some((start, sequence)) = payload(ctx, protocol) else { return };
    let total = ctx.len().saturating_sub(start);
    let Some(event) = NAMES_SCRATCH.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's own map value. Packets are received with softirqs off, so no other packet
    // comes in between. Helpers without preconditions.
    unsafe {
        (*event).header.kind = EVENT_DNS_ANSWER;
        // The clock of the flows: by a finer one the connection that follows an answer at once
        // would be older than it.
        (*event).header.time_ns = clock::now_ns();
        (*event).body = DnsAnswer {
            cgroup_id: bpf_skb_cgroup_id(ctx.skb.skb),
            cookie: socket::cookie(ctx),
            sequence,
            payload_bytes: total,
            protocol: u32::from(protocol),
            reserved: 0,
        };
    }
    let mut taken = 0;
    for _ in 0..PIECES_MAX {
        if taken >= total {
            return;
        }
        taken += piece(ctx, event, start + taken, total - taken);
        taken = opaque::zero(ctx).u32(taken);
        if protocol == IPPROTO_UDP {
            return;
        }
        // SAFETY: as above.
        unsafe {
            (*event).body.sequence = sequence.wrapping_add(taken);
            (*event).body.payload_bytes = total - taken;
        }
    }
}

/// Hands over as much as one event holds, of `left` bytes that are more than none, and says how
/// much that was.
#[inline(always)]
fn piece(ctx: &SkBuffContext, event: *mut DnsEvent, offset: u32, left: u32) -> u32 {
    let bytes = if left > DNS_BYTES_MAX as u32 { DNS_BYTES_MAX as u32 } else { left };
    // SAFETY: this CPU's own map value, and a length that was checked. The verifier must see a
    // bound right before each call: the compiler keeps the value on the stack in between, and Linux
    // before 5.12 forgets what it knew of it there. What was read from memory has no bound the
    // compiler could know, so it keeps the mask.
    unsafe {
        let last = &raw mut (*event).header.body_bytes;
        let fixed = size_of::<DnsAnswer>() as u32;
        core::ptr::write_volatile(last, bytes - 1);
        let length = (core::ptr::read_volatile(last) & (DNS_BYTES_MAX as u32 - 1)) + 1;
        let target = (&raw mut (*event).payload).cast();
        if bpf_skb_load_bytes(ctx.skb.skb.cast(), offset, target, length) != 0 {
            count::lost(STAGE_MALFORMED_PACKET);
            return bytes;
        }
        let length = (core::ptr::read_volatile(last) & (DNS_BYTES_MAX as u32 - 1)) + 1;
        core::ptr::write_volatile(last, length + fixed);
        let whole = (length + fixed) as usize + size_of::<EventHeader>();
        let whole = core::slice::from_raw_parts(event.cast::<u8>(), whole);
        if NAMES.output::<[u8]>(whole, ring::wake_up(&NAMES, NAMES_BYTES)).is_err() {
            count::lost(STAGE_NAMES_FULL);
        }
    }
    bytes
}

/// Where the bytes that TCP or UDP carries begin, and TCP's sequence number.
#[inline(always)]
fn payload(ctx: &SkBuffContext, protocol: u8) -> Option<(u32, u32)> {
    let at = transport(ctx, protocol)?;
    if protocol == IPPROTO_UDP {
        return Some((at as u32 + UDP_HEADER_BYTES, 0));
    }
    if protocol != IPPROTO_TCP {
        return None;
    }
    let sequence = ctx.load::<[u8; 4]>(at + TCP_SEQUENCE).ok()?;
    let words: u8 = ctx.load(at + TCP_LENGTH).ok()?;
    Some((at as u32 + u32::from(words >> 4) * 4, u32::from_be_bytes(sequence)))
}

/// Where the transport header begins. DNS servers send no IPv6 extension headers but the one of
/// fragments, which the kernel takes out when it puts them together; an answer behind others is not
/// read.
#[inline(always)]
fn transport(ctx: &SkBuffContext, protocol: u8) -> Option<usize> {
    let first: u8 = ctx.load(0).ok()?;
    if first >> 4 == 4 {
        return Some(usize::from(first & 0x0f) * 4);
    }
    let next: u8 = ctx.load(IPV6_NEXT_HEADER).ok()?;
    if next == protocol { Some(IPV6_HEADER_BYTES) } else { None }
}
