//! What is done with a secret file after it was opened, where the kernel lets its functions be
//! traced: first reads and mappings.
//!
//! A read counts as the first one if it begins at the start of the file: nobody reads a key or a
//! certificate from its middle, and this needs no memory of descriptors, which a process could
//! fill. Reading it again from the start through the same descriptor counts again.

use aya_ebpf::{helpers::generated::bpf_get_current_task, macros::fentry, programs::FEntryContext};

use crate::{
    maps::Offset,
    secret::{self, MAPPED, READ},
    structs::{self, Pointer},
};

/// ssize_t shmem_file_read_iter(struct kiocb *, struct iov_iter *): reads of tmpfs files, and of no
/// others. What is spliced (sendfile) from Linux 6.5 on does not come here.
#[fentry(function = "shmem_file_read_iter")]
pub fn secret_read(ctx: FEntryContext) -> u32 {
    let request: Pointer = ctx.arg(0);
    // SAFETY: the function's argument has a type.
    unsafe {
        let position: u64 = structs::load(request, Offset::KiocbPosition);
        if position == 0 {
            used(structs::load(request, Offset::KiocbFile), READ);
        }
    }
    0
}

/// int security_mmap_file(struct file *, unsigned long, unsigned long): the file is null for memory
/// without one.
#[fentry(function = "security_mmap_file")]
pub fn secret_map(ctx: FEntryContext) -> u32 {
    let file: Pointer = ctx.arg(0);
    if !file.is_null() {
        // SAFETY: the function's argument has a type.
        unsafe { used(file, MAPPED) };
    }
    0
}

/// # Safety
/// The verifier knows the type of `file`.
#[inline(always)]
unsafe fn used(file: Pointer, what: u32) {
    // SAFETY: the caller's promise; a helper without arguments.
    unsafe {
        let device = secret::device_of_known(file);
        if secret::is_watched(device) {
            secret::note(file, bpf_get_current_task() as Pointer, device, what);
        }
    }
}
