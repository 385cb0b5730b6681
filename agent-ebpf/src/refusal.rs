//! Socket errors in, refusals out: an ICMP "unreachable" never passes the packet hooks, but the
//! kernel reports it to the socket (tracepoint sock:inet_sk_error_report, Linux 5.14).
//!
//! Only connected sockets are told; an ICMP error for an unconnected UDP socket stays unseen and
//! its attempt `unanswered`.

use aya_ebpf::{
    helpers::bpf_sk_storage_get, macros::btf_tracepoint, programs::BtfTracePointContext,
};
use parapet_common::{DIRECTION_EGRESS, TOTAL_REFUSED};

use crate::{
    count, flow,
    maps::{Offset, SOCKETS, SocketState},
    packet::IPPROTO_TCP,
    socket::{CachedFlow, PHASE_ENDED_EGRESS, PHASE_OPENING, SYN_REFUSED},
    structs::{Pointer, read, within},
};

/// errno of include/uapi/asm-generic/errno.h that ICMP unreachable codes turn into.
/// (net/ipv4/icmp.c, icmp_err_convert; net/ipv6/icmp.c, tab_unreach).
const ENETUNREACH: i32 = 101;
const EHOSTDOWN: i32 = 112;
const ENONET: i32 = 64;
const ECONNREFUSED: i32 = 111;
const EHOSTUNREACH: i32 = 113;
const EACCES: i32 = 13;
const ENOPROTOOPT: i32 = 92;
/// No answer to any of the SYNs.
const ETIMEDOUT: i32 = 110;

#[btf_tracepoint(function = "inet_sk_error_report")]
pub fn socket_error(ctx: BtfTracePointContext) -> i32 {
    let sk: Pointer = ctx.arg(0);
    // SAFETY: the tracepoint's argument is a trusted socket; nothing is created.
    let state = unsafe {
        bpf_sk_storage_get(SOCKETS.as_ptr(), sk.cast_mut(), core::ptr::null_mut(), 0)
            .cast::<SocketState>()
    };
    if state.is_null() {
        return 0;
    }
    let (error, is_final) = match read::<i32>(sk, Offset::SockErr) {
        Some(0) => match queued(sk) {
            Some(error) => (error, false),
            None => return 0,
        },
        Some(error) => (error, true),
        None => return 0,
    };
    match error {
        ECONNREFUSED | ENOPROTOOPT => refused(state, true, is_final, false),
        EHOSTUNREACH | ENETUNREACH | EHOSTDOWN | ENONET | EACCES => {
            refused(state, false, is_final, false);
        }
        ETIMEDOUT => given_up(state),
        // The process was faster than this tracepoint and has taken the error already: which one it
        // was is not known, and most often nobody listened.
        0 => refused(state, true, true, true),
        _ => {}
    }
    0
}

/// The newest error of the socket's error queue, 0 of an empty queue. Of an IPv4 connection that is
/// being made the kernel queues the error first, and only then makes it the socket's (tcp_v4_err,
/// Linux 5.9), if the socket is not in use just then. None if what was queued last is no error that
/// ICMP brought: when a packet was sent, or that its memory is free again, is told the same way.
#[inline(always)]
fn queued(sk: Pointer) -> Option<i32> {
    let queue = within(sk, Offset::SockErrorQueue);
    let newest = read::<Pointer>(queue, Offset::SkBuffHeadPrev)?;
    if newest == queue {
        return Some(0);
    }
    let error = read::<ExtendedError>(within(newest, Offset::SkBuffCb), Offset::ExtendedError)?;
    matches!(error.origin, ORIGIN_ICMP | ORIGIN_ICMP6).then_some(error.errno)
}

/// The part of `struct sock_extended_err` of include/uapi/linux/errqueue.h up to its origin.
#[repr(C)]
struct ExtendedError {
    errno: i32,
    origin: u8,
}

const ORIGIN_ICMP: u8 = 2;
const ORIGIN_ICMP6: u8 = 3;

/// The attempt is over without an answer: a SYN that the socket sends now is another one.
#[inline(always)]
fn given_up(state: *mut SocketState) {
    // SAFETY: a live map value, null-checked by the caller.
    unsafe {
        if (*state).phase == PHASE_OPENING {
            (*state).phase = PHASE_ENDED_EGRESS;
        }
    }
}

#[inline(always)]
fn refused(state: *mut SocketState, is_port: bool, is_final: bool, taken: bool) {
    // SAFETY: a live map value, null-checked by the caller.
    let cached = CachedFlow(unsafe { core::ptr::read_volatile(&raw const (*state).flow) });
    let slot = flow::remembered(cached);
    // SAFETY: live map values.
    unsafe {
        if (*state).phase == PHASE_OPENING {
            // What was taken may have been a time-out, but not before a SYN was sent again.
            if taken && (*state).repeated_syns > 0 {
                return given_up(state);
            }
            let is_first = (*state).repeated_syns & SYN_REFUSED == 0;
            if is_final {
                (*state).phase = PHASE_ENDED_EGRESS;
            } else {
                // The kernel may go on: what it sends then is still this attempt.
                (*state).repeated_syns |= SYN_REFUSED;
            }
            if !is_first {
                return;
            }
        } else {
            // One attempt ends once: a refused one counts no answer any more.
            let Some(slot) = slot else { return };
            let is_tcp = (*slot).protocol == IPPROTO_TCP;
            if is_tcp || (*slot).direction != DIRECTION_EGRESS || cached.answered() {
                return;
            }
            core::ptr::write_volatile(&raw mut (*state).flow, cached.with_answer().0);
        }
    }
    match slot {
        Some(slot) => flow::refuse(slot, is_port),
        // There was no room for its flow.
        None => count::total(TOTAL_REFUSED),
    }
}
