//! Socket errors in, refusals out: an ICMP "unreachable" never passes the packet hooks, but the
//! kernel reports it to the socket (tracepoint sock:inet_sk_error_report, Linux 5.14).
//!
//! Only connected sockets are told; an ICMP error for an unconnected UDP socket stays unseen and
//! its attempt `unanswered`.

use aya_ebpf::{
    helpers::{bpf_probe_read_kernel, bpf_sk_storage_get},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use parapet_common::{DIRECTION_EGRESS, SLOT_LIVE};

use crate::{
    flow,
    maps::{Offset, SOCKETS, SocketState},
    packet::{IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE},
    socket::{CachedFlow, PHASE_ENDED_EGRESS, PHASE_OPENING},
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

#[btf_tracepoint(function = "inet_sk_error_report")]
pub fn socket_error(ctx: BtfTracePointContext) -> i32 {
    let sk: *mut core::ffi::c_void = ctx.arg(0);
    // SAFETY: the tracepoint's argument is a trusted socket; nothing is created.
    let state = unsafe {
        bpf_sk_storage_get(SOCKETS.as_ptr(), sk, core::ptr::null_mut(), 0).cast::<SocketState>()
    };
    if state.is_null() {
        return 0;
    }
    // SAFETY: reads of kernel memory by the helper fail, they do not fault.
    let error =
        unsafe { bpf_probe_read_kernel(sk.byte_add(Offset::SockErr.bytes()).cast::<i32>()) };
    match error {
        Ok(ECONNREFUSED | ENOPROTOOPT) => refused(state, true, false),
        Ok(EHOSTUNREACH | ENETUNREACH | EHOSTDOWN | ENONET | EACCES) => {
            refused(state, false, false);
        }
        // The process was faster than this tracepoint and has taken the error already: which one it
        // was is not known, and most often nobody listened.
        Ok(0) => refused(state, true, true),
        _ => {}
    }
    0
}

#[inline(always)]
fn refused(state: *mut SocketState, is_port: bool, taken: bool) {
    // SAFETY: a live map value, null-checked by the caller.
    let cached = CachedFlow(unsafe { core::ptr::read_volatile(&raw const (*state).flow) });
    let Some(slot) = flow::slot(cached.slot()) else { return };
    // SAFETY: live map values.
    unsafe {
        if !cached.is_generation((*slot).generation)
            || (*slot).state != SLOT_LIVE
            || (*slot).key.direction != DIRECTION_EGRESS
        {
            return;
        }
        match (*slot).key.protocol {
            // What was taken may have been a time-out, but not before a SYN was sent again.
            IPPROTO_TCP
                if (*state).phase == PHASE_OPENING && !(taken && (*state).repeated_syns > 0) =>
            {
                (*state).phase = PHASE_ENDED_EGRESS;
            }
            // One attempt ends once: a refused one counts no answer any more.
            IPPROTO_UDP | IPPROTO_UDPLITE | IPPROTO_ICMP | IPPROTO_ICMPV6 if !cached.answered() => {
                core::ptr::write_volatile(&raw mut (*state).flow, cached.with_answer().0);
            }
            _ => return,
        }
        flow::refuse(slot, is_port);
    }
}
