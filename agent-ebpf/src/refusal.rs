//! Socket errors in, refusals out: an ICMP "unreachable" never passes the packet hooks, but the
//! kernel reports it to the socket (tracepoint sock:inet_sk_error_report, Linux 5.14).
//!
//! Only connected sockets are told; an ICMP error for an unconnected UDP socket stays unseen and
//! its attempt `unanswered`.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use parapet_common::{DIRECTION_EGRESS, SocketState, TOTAL_REFUSED};

use crate::{
    connection, count, flow,
    maps::Offset,
    packet::IPPROTO_TCP,
    socket::{self, PHASE_ENDED_EGRESS, PHASE_OPENING, SYN_MS, SYN_REFUSED},
    structs::{Pointer, read, within},
    tcp,
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
/// A SYN is sent again, or the last one given up, no sooner than a second after it was sent
/// (TCP_TIMEOUT_INIT of include/net/tcp.h; a process may ask for less by TCP_USER_TIMEOUT). What
/// ends sooner was refused by somebody.
const ANSWERED_WITHIN_MS: u32 = 900;
/// The process gave up (a reset from the peer is a packet, and was seen before).
const ECONNRESET: i32 = 104;
/// No answer to any of the SYNs.
const ETIMEDOUT: i32 = 110;

#[btf_tracepoint(function = "inet_sk_error_report")]
pub fn socket_error(ctx: BtfTracePointContext) -> i32 {
    let sk: Pointer = ctx.arg(0);
    let Some(state) = connection::of_kernel(sk).or_else(|| socket::storage(sk.cast_mut(), 0))
    else {
        return 0;
    };
    let Some((error, is_final)) = error(sk) else { return 0 };
    match error {
        ECONNREFUSED | ENOPROTOOPT => refused(state, true, is_final, false),
        EHOSTUNREACH | ENETUNREACH | EHOSTDOWN | ENONET | EACCES => {
            refused(state, false, is_final, false);
        }
        ETIMEDOUT | ECONNRESET => given_up(state),
        // Which one it was is not known, and most often nobody listened.
        0 => refused(state, true, true, true),
        _ => {}
    }
    0
}

/// The error that the socket is told of, and whether it is the end of an attempt; 0 if the process
/// was faster than the tracepoint and has taken it already. None of what is no error.
#[inline(always)]
fn error(sk: Pointer) -> Option<(i32, bool)> {
    let error = read::<i32>(sk, Offset::SockErr)?;
    if error != 0 {
        return Some((error, true));
    }
    let error = queued(sk)?;
    if error != 0 {
        return Some((error, false));
    }
    // What came for an earlier SYN while the process was still asking, and the kernel let pass.
    Some((read::<i32>(sk, Offset::SockErrSoft)?, true))
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
    let cached = socket::cached(state);
    let slot = flow::remembered(cached);
    // SAFETY: live map values.
    unsafe {
        if (*state).phase == PHASE_OPENING {
            // What was taken may have been a time-out, which comes long after the last SYN.
            let last_syn_ms = (*state).last_syn_ms & SYN_MS;
            let waited_ms = tcp::since_first_syn_ms(state).saturating_sub(last_syn_ms);
            if taken && waited_ms > ANSWERED_WITHIN_MS {
                return given_up(state);
            }
            let is_first = (*state).last_syn_ms & SYN_REFUSED == 0;
            if is_final {
                (*state).phase = PHASE_ENDED_EGRESS;
            } else {
                // The kernel may go on: what it sends then is still this attempt.
                (*state).last_syn_ms |= SYN_REFUSED;
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
