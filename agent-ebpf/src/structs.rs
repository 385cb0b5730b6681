//! The kernel's structs: where one is and which member comes in, the member's value out.
//!
//! Where a member is, the agent reads from the running kernel's BTF (see `maps::Offset`).

use aya_ebpf::helpers::bpf_probe_read_kernel;

use crate::maps::Offset;

/// Where something of the kernel's is.
pub type Pointer = *const core::ffi::c_void;

/// `struct bpf_iter__task_file` of kernel/bpf/task_iter.c: what the kernel promises to iterators,
/// each pointer in a word of its own.
#[repr(C)]
pub struct TaskFile {
    meta: u64,
    pub task: Pointer,
    descriptor: u64,
    pub file: Pointer,
}

/// `struct bpf_iter__task_vma` of the same file (Linux 5.12).
#[repr(C)]
pub struct TaskVma {
    meta: u64,
    pub task: Pointer,
    pub vma: Pointer,
}

/// By the helper, which fails on a bad address and does not fault.
#[inline(always)]
pub fn read<T>(base: Pointer, offset: Offset) -> Option<T> {
    // SAFETY: as above.
    unsafe { bpf_probe_read_kernel(within(base, offset).cast::<T>()).ok() }
}

/// Of a struct that the verifier knows the type of: one instruction, and a fault reads zero.
///
/// # Safety
/// `base` is a pointer that the verifier knows.
#[inline(always)]
pub unsafe fn load<T: Copy>(base: Pointer, offset: Offset) -> T {
    // SAFETY: the caller's promise.
    unsafe { core::ptr::read_volatile(within(base, offset).cast::<T>()) }
}

/// A struct that is a member of another.
#[inline(always)]
pub fn within(base: Pointer, offset: Offset) -> Pointer {
    base.wrapping_byte_add(offset.bytes())
}
