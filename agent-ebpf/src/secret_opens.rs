//! The ladder of programs that see a file opened: each gets its file in its own way, and all end in
//! [`secret::note`]. The agent attaches exactly one of them (the last one is two programs).
//!
//! The first three see every way to open a file. The last one sees what comes back from the system
//! calls that open files and from io_uring, and looks up the descriptor: a thread that closes it in
//! between is counted, one that puts another file in its place is not noticed.

use aya_ebpf::{
    EbpfContext as _,
    helpers::bpf_get_current_task_btf,
    macros::{btf_tracepoint, fentry, kprobe, lsm},
    programs::{BtfTracePointContext, FEntryContext, LsmContext, ProbeContext},
};
use parapet_common::{STAGE_DESCRIPTOR_GONE, STAGE_FIXED_FILE};

use crate::{
    cast, count,
    maps::Offset,
    secret::{self, OPENED},
    structs::{self, Pointer, within},
};

/// LSM hook file_open(struct file *): called by do_dentry_open for every open but `O_PATH`.
#[lsm(hook = "file_open")]
pub fn secret_lsm_open(ctx: LsmContext) -> i32 {
    // SAFETY: the hook's argument has a type.
    unsafe { opened(ctx.arg(0)) };
    0
}

/// int security_file_open(struct file *): the same moment.
#[fentry(function = "security_file_open")]
pub fn secret_fentry_open(ctx: FEntryContext) -> u32 {
    // SAFETY: the function's argument has a type.
    unsafe { opened(ctx.arg(0)) };
    0
}

/// The same function for kernels that trace functions in no other way (arm64 before Linux 6.4).
#[kprobe(function = "security_file_open")]
pub fn secret_kprobe_open(ctx: ProbeContext) -> u32 {
    let Some(file) = structs::read::<Pointer>(ctx.as_ptr(), Offset::RegsFirst) else { return 0 };
    // SAFETY: a helper without arguments (Linux 4.8).
    let task = unsafe { aya_ebpf::helpers::generated::bpf_get_current_task() } as Pointer;
    note(file, task);
    0
}

/// # Safety
/// The verifier knows the type of `file`.
#[inline(always)]
unsafe fn opened(file: Pointer) {
    // SAFETY: the caller's promise; a helper without arguments.
    unsafe {
        let device = secret::device_of_known(file);
        if secret::is_watched(device) {
            let task = aya_ebpf::helpers::generated::bpf_get_current_task() as Pointer;
            secret::note(file, task, device, OPENED);
        }
    }
}

#[inline(always)]
fn note(file: Pointer, task: Pointer) {
    if let Some(device) = secret::device(file)
        && secret::is_watched(device)
    {
        secret::note(file, task, device, OPENED);
    }
}

/// Declares numbers that the agent sets, as they are on the machine's architecture.
macro_rules! numbers {
    ($($function:ident = $global:ident),* $(,)?) => {
        $(
        // SAFETY: a name of this object's own, which the loader looks for.
        #[unsafe(no_mangle)]
        static $global: u32 = u32::MAX;

        #[inline(always)]
        fn $function() -> u32 {
            // SAFETY: a static of this object; volatile because the loader changes it after
            // compilation.
            unsafe { core::ptr::read_volatile(&raw const $global) }
        }
        )*
    };
}

numbers! {
    number_open = SYSCALL_OPEN,
    number_creat = SYSCALL_CREAT,
    number_openat = SYSCALL_OPENAT,
    number_openat2 = SYSCALL_OPENAT2,
    number_open_by_handle_at = SYSCALL_OPEN_BY_HANDLE_AT,
    compat_open = COMPAT_OPEN,
    compat_creat = COMPAT_CREAT,
    compat_openat = COMPAT_OPENAT,
    compat_openat2 = COMPAT_OPENAT2,
    compat_open_by_handle_at = COMPAT_OPEN_BY_HANDLE_AT,
    compat_bits = COMPAT_BITS,
    ring_has_cqe = RING_HAS_CQE,
    ring_has_slot = RING_HAS_SLOT,
    ring_has_nodes = RING_HAS_NODES,
}

/// `__X32_SYSCALL_BIT` of arch/x86/include/uapi/asm/unistd.h; the numbers are the same with it.
const X32: u32 = 0x4000_0000;

#[inline(always)]
fn opens(number: u32) -> bool {
    number == number_openat()
        || number == number_open()
        || number == number_openat2()
        || number == number_creat()
        || number == number_open_by_handle_at()
}

#[inline(always)]
fn compat_opens(number: u32) -> bool {
    number == compat_openat()
        || number == compat_open()
        || number == compat_openat2()
        || number == compat_creat()
        || number == compat_open_by_handle_at()
}

/// tracepoint raw_syscalls:sys_exit(struct pt_regs *, long). It runs at the end of every system
/// call, most of which it must leave at the first comparisons.
#[btf_tracepoint(function = "sys_exit")]
pub fn secret_syscall(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the tracepoint's argument has a type. The field has four bytes on some architectures
    // and eight on others, and these are the ones that count.
    let number: u32 = unsafe { structs::load(ctx.arg(0), Offset::RegsSyscall) };
    let number = number & !X32;
    let is_native = opens(number);
    if !is_native && !compat_opens(number) {
        return 0;
    }
    let descriptor: i64 = ctx.arg(1);
    if descriptor >= 0 {
        // SAFETY: a helper without arguments (Linux 5.11); what it returns has a type.
        unsafe {
            let task: Pointer = bpf_get_current_task_btf().cast();
            let bits: u32 = structs::load(task, Offset::ThreadCompat);
            let is_compat = bits & compat_bits() != 0;
            if if is_compat { compat_opens(number) } else { is_native } {
                returned(task, descriptor as u64);
            }
        }
    }
    0
}

/// A descriptor of the current task.
///
/// # Safety
/// The verifier knows the type of `task`.
#[inline(always)]
unsafe fn returned(task: Pointer, descriptor: u64) {
    // SAFETY: the caller's promise, and what a known pointer leads to is known as well. The array
    // is one of pointers, of which the verifier knows nothing.
    unsafe {
        let files: Pointer = structs::load(task, Offset::TaskFiles);
        let table: Pointer = structs::load(files, Offset::FilesFdt);
        let descriptors_max: u32 = structs::load(table, Offset::FdtMax);
        let descriptors: *const Pointer = structs::load(table, Offset::FdtFd);
        if descriptor >= u64::from(descriptors_max) {
            return count::lost(STAGE_DESCRIPTOR_GONE);
        }
        let place = descriptors.wrapping_add(descriptor as usize);
        // The verifier knows the constant and leaves out the branch that is not taken.
        let (file, device) = if cast::is_there() {
            let file: Pointer = structs::load(cast::place_of_file(place.cast()), Offset::KiocbFile);
            if file.is_null() {
                return count::lost(STAGE_DESCRIPTOR_GONE);
            }
            (file, secret::device_of_known(file))
        } else {
            match aya_ebpf::helpers::bpf_probe_read_kernel(place) {
                Ok(file) if !file.is_null() => (file, secret::device(file).unwrap_or(0)),
                _ => return count::lost(STAGE_DESCRIPTOR_GONE),
            }
        };
        if secret::is_watched(device) {
            secret::note(file, task, device, OPENED);
        }
    }
}

/// `IORING_OP_OPENAT` and `IORING_OP_OPENAT2` of include/uapi/linux/io_uring.h.
const OP_OPENAT: u8 = 18;
const OP_OPENAT2: u8 = 28;

/// tracepoint io_uring:io_uring_complete, whose first arguments are the ring and the request (from
/// Linux 5.19 on); then the completion (Linux 6.16), or user data and the result. It runs in the
/// task that asked, or in a worker that shares its descriptors.
#[btf_tracepoint(function = "io_uring_complete")]
pub fn secret_ring_open(ctx: BtfTracePointContext) -> i32 {
    let request: Pointer = ctx.arg(1);
    let Some(operation) = structs::read::<u8>(request, Offset::IoKiocbOpcode) else { return 0 };
    if operation != OP_OPENAT && operation != OP_OPENAT2 {
        return 0;
    }
    // The verifier knows the constant and leaves out the branch that is not taken, so that it does
    // not miss an argument that this kernel does not have.
    let result: i32 = if ring_has_cqe() == 1 {
        // SAFETY: the tracepoint's argument has a type.
        unsafe { structs::load(ctx.arg(2), Offset::CqeResult) }
    } else {
        ctx.arg(3)
    };
    if result < 0 {
        return 0;
    }
    let slot: u32 = if ring_has_slot() == 1 {
        structs::read(request, Offset::IoOpenSlot).unwrap_or(0)
    } else {
        0
    };
    if slot != 0 {
        // The ring says which one it chose, if that was left to it (`IORING_FILE_INDEX_ALLOC`).
        let index = if slot == u32::MAX { result as u32 } else { slot - 1 };
        match in_slot(ctx.arg(0), index) {
            // SAFETY: a helper without arguments (Linux 4.8).
            Some(file) => note(file, unsafe {
                aya_ebpf::helpers::generated::bpf_get_current_task() as Pointer
            }),
            None => count::lost(STAGE_FIXED_FILE),
        }
        return 0;
    }
    // SAFETY: a helper without arguments (Linux 5.11); what it returns has a type.
    unsafe { returned(bpf_get_current_task_btf().cast(), result as u64) };
    0
}

/// The file in a slot of a ring's own table, where the kernel keeps it as Linux 6.13 and newer do.
#[inline(always)]
fn in_slot(ring: Pointer, index: u32) -> Option<Pointer> {
    if ring_has_nodes() != 1 {
        return None;
    }
    let slots = within(within(ring, Offset::RingFiles), Offset::FileTableData);
    if index >= structs::read::<u32>(slots, Offset::RsrcDataCount)? {
        return None;
    }
    let nodes: *const Pointer = structs::read(slots, Offset::RsrcDataNodes)?;
    // SAFETY: the helper fails on a bad address, it does not fault.
    let node =
        unsafe { aya_ebpf::helpers::bpf_probe_read_kernel(nodes.wrapping_add(index as usize)) };
    let file: u64 = structs::read(node.ok()?, Offset::RsrcNodeFile)?;
    // The lowest bits say what can be done with it (`FFS_MASK` of io_uring/filetable.h).
    let file = (file & !7) as Pointer;
    if file.is_null() { None } else { Some(file) }
}
