//! Parapet's BPF programs: packets and cgroup events in, counters and a few events out.
//!
//! They watch. No program here ever drops, changes or delays a packet: every path of the packet
//! programs returns "pass". Counters live in [`maps::SLOTS`]; [`emit`] is the only writer of the
//! ring.
#![no_std]
#![no_main]
#![feature(core_intrinsics, asm_experimental_arch)]
#![allow(internal_features, reason = "the bpf target has no stable atomic add; see count.rs")]

mod bench;
mod cast;
mod cgroup;
mod clock;
mod connection;
mod count;
mod echo;
mod emit;
mod flow;
mod hint;
mod maps;
mod names;
mod older;
mod opaque;
mod opening;
mod packet;
mod pair;
mod refusal;
mod rewrite;
mod ring;
mod secret;
mod secret_held;
mod secret_opens;
mod secret_uses;
mod share;
mod socket;
mod structs;
mod tcp;

/// Some helpers are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier proves that this is never reached.
    // SAFETY: as above.
    unsafe { core::hint::unreachable_unchecked() }
}
