//! TCP connections, and who listens for them: a packet's socket in, what is remembered of it out.
//!
//! In a table and not in the socket's own storage: that is two allocations and their release for
//! each connection, which is more than all else that a short one costs. The kernel numbers sockets
//! one after the other, so that a socket's place is its number: nothing is searched, and what is
//! used together is close together. Whose place an older connection still has is remembered in its
//! storage after all: nothing is lost for want of room, and no pod can take it from another.

use aya_ebpf::{
    bindings::bpf_sock,
    helpers::{bpf_skc_to_tcp_sock, bpf_tcp_sock},
    macros::btf_tracepoint,
    programs::{BtfTracePointContext, SkBuffContext},
};
use parapet_common::{SocketState, TcpSocket};

use crate::{
    maps::{self, Offset, TCP_SOCKETS},
    socket::{self, PHASE_ACCEPTED, PHASE_NEW, PHASE_OPEN_INGRESS, STATE_CLOSE, STATE_SYN_SENT},
    structs::{self, Pointer},
};

/// What an accepted connection may have received before its own first packet: the end of the
/// handshake, which is still the listener's, may carry data. Of one that received more the
/// handshake was before our time.
const FIRST_BYTES_MAX: u64 = 65_536;

/// What the table remembers of the packet's socket.
#[inline(always)]
pub fn known(ctx: &SkBuffContext) -> Option<*mut SocketState> {
    of(socket::cookie(ctx))
}

#[inline(always)]
fn of(cookie: u64) -> Option<*mut SocketState> {
    let place = place(cookie)?;
    // SAFETY: a live map value; one aligned word, read whole.
    unsafe {
        let is_owner = core::ptr::read_volatile(&raw const (*place).owner) == cookie;
        if is_owner { Some(&raw mut (*place).state) } else { None }
    }
}

#[inline(always)]
fn place(cookie: u64) -> Option<*mut TcpSocket> {
    TCP_SOCKETS.get_ptr_mut(cookie as u32 & maps::tcp_sockets_mask())
}

/// What is remembered of a socket that TCP came to or from, made if nothing is.
#[inline(always)]
pub fn state(ctx: &SkBuffContext, sk: *mut bpf_sock) -> Option<*mut SocketState> {
    known(ctx).or_else(|| keep(ctx, sk)).or_else(|| socket::state(sk))
}

/// A place in the table; none if it is taken, and none for a socket that had to go elsewhere before
/// or of whose end nobody would tell: a raw one, one of the kernel's own, one that is over.
#[inline(always)]
pub fn keep(ctx: &SkBuffContext, sk: *mut bpf_sock) -> Option<*mut SocketState> {
    // SAFETY: a field that all sockets have.
    let is_over = unsafe { (*sk).state } == STATE_CLOSE;
    if is_over || socket::is_raw(sk) || socket::known(sk).is_some() {
        return None;
    }
    let cookie = socket::cookie(ctx);
    let state = take(cookie, PHASE_NEW)?;
    // SAFETY: a field that all sockets have; volatile, for another CPU may end the connection: then
    // `connection_gone` came before this or finds it.
    if unsafe { core::ptr::read_volatile(&raw const (*sk).state) } == STATE_CLOSE {
        leave(cookie);
        return None;
    }
    Some(state)
}

/// The place of this cookie, if it is free. Two sockets could only meet here if each had its first
/// packet in the same nanoseconds as the other: then one of them goes elsewhere with its next one.
#[inline(always)]
pub fn take(cookie: u64, phase: u32) -> Option<*mut SocketState> {
    let place = place(cookie)?;
    // SAFETY: a live map value; the owner is one aligned word, read and written whole.
    unsafe {
        if core::ptr::read_volatile(&raw const (*place).owner) != 0 {
            return None;
        }
        (*place).state = SocketState { flow: 0, told_ns: 0, phase, last_syn_ms: 0 };
        core::ptr::write_volatile(&raw mut (*place).owner, cookie);
        Some(&raw mut (*place).state)
    }
}

/// Gives the place back. Who still writes there, on another CPU, harms nobody: it is not given away
/// again before the kernel has numbered as many sockets as there are places.
#[inline(always)]
fn leave(cookie: u64) {
    let Some(place) = place(cookie) else { return };
    // SAFETY: as above.
    unsafe {
        let owner = &raw mut (*place).owner;
        if core::ptr::read_volatile(owner) == cookie {
            core::ptr::write_volatile(owner, 0);
        }
    }
}

/// The phase of a connection that nothing is remembered of. Who connected has sent a SYN, and its
/// peer acknowledged that: a connection whose peer acknowledged nothing was accepted.
#[inline(always)]
pub fn beginning(sk: *mut bpf_sock) -> u32 {
    // SAFETY: the helper takes any socket, and its result is checked for null.
    unsafe {
        if (*sk).state == STATE_SYN_SENT {
            return PHASE_NEW;
        }
        let tcp = bpf_tcp_sock(sk);
        if tcp.is_null() || (*tcp).bytes_acked != 0 {
            PHASE_NEW
        } else if (*tcp).bytes_received > FIRST_BYTES_MAX {
            PHASE_OPEN_INGRESS
        } else {
            PHASE_ACCEPTED
        }
    }
}

/// Whether a listener holds any request for a connection that is still being made.
#[inline(always)]
pub fn is_asked(listener: *mut bpf_sock) -> bool {
    // SAFETY: the helper takes any socket; what it returns is checked for null, and the verifier
    // knows its type.
    unsafe {
        let tcp = bpf_skc_to_tcp_sock(listener.cast());
        let offset = Offset::IcskAcceptQueue.bytes() + Offset::QueueLength.bytes();
        tcp.is_null() || core::ptr::read_volatile(tcp.wrapping_byte_add(offset).cast::<u32>()) != 0
    }
}

/// What is remembered of the kernel's own socket.
#[inline(always)]
pub fn of_kernel(sk: Pointer) -> Option<*mut SocketState> {
    // SAFETY: the callers' socket is a tracepoint's argument.
    let cookie = unsafe { kernel_cookie(sk) };
    // Zero: nobody asked for it, so that nothing can be remembered.
    if cookie == 0 { None } else { of(cookie) }
}

/// # Safety
/// `sk` is a tracepoint's argument.
#[inline(always)]
unsafe fn kernel_cookie(sk: Pointer) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { structs::load(sk, Offset::SkcCookie) }
}

/// A TCP socket is gone.
#[btf_tracepoint(function = "tcp_destroy_sock")]
pub fn connection_gone(ctx: BtfTracePointContext) -> i32 {
    let sk: Pointer = ctx.arg(0);
    // SAFETY: the tracepoint's argument is a trusted socket.
    let cookie = unsafe { kernel_cookie(sk) };
    if cookie != 0 {
        leave(cookie);
    }
    0
}
