//! Secret files that somebody has open already, whichever way he got them: inherited, passed by
//! another process, or opened before anybody watched. The agent runs both iterators at its start
//! and from time to time.
//!
//! They see the processes in the pid namespace of the agent (kernel/bpf/task_iter.c), and nothing
//! that is only on its way in a socket or in a table of io_uring.

use crate::{
    maps::Offset,
    secret::{self, HELD},
    structs::{self, Pointer, TaskFile, TaskVma},
};

/// Descriptors.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub extern "C" fn secret_held_files(ctx: *mut TaskFile) -> i32 {
    // SAFETY: the iterator's context; null at the end.
    let (task, file) = unsafe { ((*ctx).task, (*ctx).file) };
    if !task.is_null() && !file.is_null() {
        held(file, task);
    }
    0
}

/// Mappings.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_vma")]
pub extern "C" fn secret_held_maps(ctx: *mut TaskVma) -> i32 {
    // SAFETY: the iterator's context; null at the end.
    let (task, vma) = unsafe { ((*ctx).task, (*ctx).vma) };
    if !task.is_null()
        && !vma.is_null()
        && let Some(file) = structs::read::<Pointer>(vma, Offset::VmaFile)
        && !file.is_null()
    {
        held(file, task);
    }
    0
}

#[inline(always)]
fn held(file: Pointer, task: Pointer) {
    if let Some(device) = secret::device(file)
        && secret::is_watched(device)
    {
        secret::note(file, task, device, HELD);
    }
}
