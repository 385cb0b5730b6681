//! An address in, a pointer whose type the verifier knows out, so that what it leads to is read by
//! one instruction each and not by a helper (`bpf_rdonly_cast`, Linux 6.2).
//!
//! The kernel's functions have no numbers of their own: the agent looks this one up and writes its
//! number into the instruction before the programs are loaded, or, on an older kernel, a move that
//! is never reached.

use crate::structs::Pointer;

/// Whether the kernel has the function, and the type to cast to; set by the agent.
#[unsafe(no_mangle)]
static HAS_CAST: u32 = 0;
#[unsafe(no_mangle)]
static CAST_TYPE: u32 = 0;

#[inline(always)]
pub fn is_there() -> bool {
    // SAFETY: a static of this object; volatile because the loader changes it after compilation.
    unsafe { core::ptr::read_volatile(&raw const HAS_CAST) != 0 }
}

/// The type is `struct kiocb`, whose first member is a pointer to a file: what is cast is the place
/// of such a pointer.
#[inline(always)]
pub fn place_of_file(place: Pointer) -> Pointer {
    let result: Pointer;
    // SAFETY: a static of this object, as above. The instruction is a call that changes nothing but
    // the registers of the calling convention: `BPF_JMP | BPF_CALL`, source
    // `BPF_PSEUDO_KFUNC_CALL`, and a number that the agent looks for and replaces.
    unsafe {
        let to = core::ptr::read_volatile(&raw const CAST_TYPE);
        core::arch::asm!(
            ".byte 0x85, 0x20, 0x00, 0x00, 0x50, 0x52, 0x50, 0x43",
            in("r1") place,
            in("r2") u64::from(to),
            lateout("r0") result,
            lateout("r1") _,
            lateout("r2") _,
            lateout("r3") _,
            lateout("r4") _,
            lateout("r5") _,
            options(nostack, preserves_flags),
        );
    }
    result
}
