//! A file and a process in, a counted use of a secret file out: the one function that every program
//! of the ladder and every iterator ends in. The only writer of the ring of readers.
//!
//! The superblock decides: a file on one that the agent did not name is none of ours, and costs one
//! lookup. Names come from the kernel's own memory, never from the process; contents are not
//! touched.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{bpf_ktime_get_ns, bpf_probe_read_kernel_str_bytes},
};
use parapet_common::{
    COMM_BYTES, EVENT_SECRET_SEEN, EventHeader, ReadCounts, ReadKey, ReaderShare, SECRETS_BYTES,
    SECRETS_SEEN_A_SECOND, STAGE_READS_FULL, STAGE_READS_QUOTA, STAGE_SECRETS_FULL,
    STAGE_VOLUME_REUSED, SecretSeen, TOTAL_SECRET_OPENS, TOTAL_SECRET_USES, VOLUME_FILES, Volume,
    WatchedFile, volume_bit,
};

use crate::{
    count,
    maps::{
        self, Offset, READERS, READERS_RETURNED, READS, SECRETS, VOLUME_BITS, VOLUMES,
        WATCHED_FILES,
    },
    ring, share,
    structs::{Pointer, load, read, within},
};

/// What was done with a file.
pub const OPENED: u32 = 0;
pub const READ: u32 = 1;
pub const MAPPED: u32 = 2;
pub const HELD: u32 = 3;

/// `FMODE_PATH` of include/linux/fs.h: opened with `O_PATH`, for its place alone.
const FMODE_PATH: u32 = 0x4000;
/// `S_IFMT` and `S_IFREG` of include/uapi/linux/stat.h.
const TYPE_MASK: u16 = 0xf000;
const TYPE_REGULAR: u16 = 0x8000;

/// Of include/uapi/linux/magic.h.
const TMPFS_MAGIC: u64 = 0x0102_1994;

#[repr(C)]
struct SecretEvent {
    header: EventHeader,
    body: SecretSeen,
}

#[inline(always)]
pub fn is_watched(device: u32) -> bool {
    let (word, bit) = volume_bit(device);
    // An array's lookup is a few instructions, a hash's a call.
    if VOLUME_BITS.get(word).is_none_or(|word| word >> bit & 1 == 0) {
        return false;
    }
    // SAFETY: the value is not used.
    unsafe { VOLUMES.get(device).is_some() }
}

/// Of a file that only its address is known of.
#[inline(always)]
pub fn device(file: Pointer) -> Option<u32> {
    let inode: Pointer = read(file, Offset::FileInode)?;
    let superblock: Pointer = read(inode, Offset::InodeSb)?;
    read(superblock, Offset::SbDevice)
}

/// Of a file that the verifier knows the type of.
///
/// # Safety
/// It knows it.
#[inline(always)]
pub unsafe fn device_of_known(file: Pointer) -> u32 {
    // SAFETY: the caller's promise; what a known pointer leads to is known as well.
    unsafe {
        let inode: Pointer = load(file, Offset::FileInode);
        let superblock: Pointer = load(inode, Offset::InodeSb);
        load(superblock, Offset::SbDevice)
    }
}

/// Counts it, if it is a file that counts. `task` is who has it open, by address alone.
///
/// It is a part of every program and no function of its own: where a program has functions, kernels
/// before Linux 6.5 and its time's stable ones do not find the handler of a [`load`] that faults in
/// it, and crash ("bpf: ensure main program has an extable"; 5.10 still does). Nothing here should
/// fault, and nothing would come of it if it did.
#[inline(always)]
pub fn note(file: Pointer, task: Pointer, device: u32, what: u32) {
    // None only for memory that cannot be read.
    let _ = try_note(file, task, device, what);
}

#[inline(always)]
fn try_note(file: Pointer, task: Pointer, device: u32, what: u32) -> Option<()> {
    // SAFETY: the value is copied at once.
    let volume = unsafe { VOLUMES.get(device).copied()? };
    let inode: Pointer = read(file, Offset::FileInode)?;
    let mode: u16 = read(inode, Offset::InodeMode)?;
    let file_mode: u32 = read(file, Offset::FileMode)?;
    if mode & TYPE_MASK != TYPE_REGULAR || file_mode & FMODE_PATH != 0 {
        return None;
    }
    let number: u64 = read(inode, Offset::InodeNumber)?;
    let generation = generation(inode, number, device, &volume, what)?;
    let (program_device, program_inode) = program(task);
    let key = ReadKey {
        cgroup_id: cgroup(task)?,
        inode: number,
        program_inode,
        program_device,
        device,
        generation,
        uid: read(read(task, Offset::TaskCred)?, Offset::CredEuid)?,
    };
    if let Some(counts) = entry(&key, what) {
        add(counts, what);
        // SAFETY: a live map value.
        if unsafe { core::ptr::read_volatile(&raw const (*counts).is_told) } == 0 {
            tell(&key, counts, file, task);
        }
    }
    // Last: the agent reads the table when a total has changed, and then finds it there.
    count::total(if what == OPENED { TOTAL_SECRET_OPENS } else { TOTAL_SECRET_USES });
    Some(())
}

/// What the file is told by besides its number; none if nobody asked for it. A device number is
/// given out again at once, also to file systems of other kinds, which hold no secrets.
#[inline(always)]
fn generation(inode: Pointer, number: u64, device: u32, volume: &Volume, what: u32) -> Option<u32> {
    let superblock: Pointer = read(inode, Offset::InodeSb)?;
    let (found, told) = if volume.flags & VOLUME_FILES != 0 {
        let file = WatchedFile { inode: number, device, reserved: 0 };
        // SAFETY: the value is copied at once.
        let told = unsafe { WATCHED_FILES.get(file).copied()? };
        (read(inode, Offset::InodeGeneration)?, told)
    } else {
        let root: Pointer = read(superblock, Offset::SbRoot)?;
        let root: Pointer = read(root, Offset::DentryInode)?;
        (read::<u32>(root, Offset::InodeGeneration)?, volume.generation)
    };
    if told != 0 && told != found {
        if volume.flags & VOLUME_FILES == 0
            && read::<u64>(superblock, Offset::SbMagic)? != TMPFS_MAGIC
        {
            return None;
        }
        if what == OPENED {
            count::lost(STAGE_VOLUME_REUSED);
        }
    }
    Some(found)
}

/// In the cgroup2 hierarchy.
#[inline(always)]
fn cgroup(task: Pointer) -> Option<u64> {
    let set: Pointer = read(task, Offset::TaskCgroups)?;
    let cgroup: Pointer = read(set, Offset::CssSetCgroup)?;
    let node: Pointer = read(cgroup, Offset::CgroupKn)?;
    read(node, Offset::KernfsNodeId)
}

/// The file that the process runs; null for a thread of the kernel.
#[inline(always)]
fn program_file(task: Pointer) -> Option<Pointer> {
    let memory: Pointer = read(task, Offset::TaskMm)?;
    if memory.is_null() {
        return None;
    }
    let file: Pointer = read(memory, Offset::MmExeFile)?;
    if file.is_null() { None } else { Some(file) }
}

#[inline(always)]
fn program(task: Pointer) -> (u32, u64) {
    let Some(file) = program_file(task) else { return (0, 0) };
    let number = read::<Pointer>(file, Offset::FileInode)
        .and_then(|inode| read::<u64>(inode, Offset::InodeNumber));
    (device(file).unwrap_or(0), number.unwrap_or(0))
}

/// The counters of this reader and file, made if there are none.
#[inline(always)]
fn entry(key: &ReadKey, what: u32) -> Option<*mut ReadCounts> {
    if let Some(counts) = READS.get_ptr_mut(key) {
        return Some(counts);
    }
    let share = share::own(&READERS, key.cgroup_id);
    // SAFETY: a live map value; the other is copied at once.
    if let Some(share) = share
        && unsafe {
            let returned = READERS_RETURNED.get(key.cgroup_id).copied().unwrap_or(0);
            let entries = core::ptr::read_volatile(&raw const (*share).entries);
            entries.saturating_sub(returned) >= u64::from(maps::reads_share())
        }
    {
        refused(Some(share), STAGE_READS_QUOTA, what);
        return None;
    }
    // SAFETY: a helper without arguments.
    let first_seen_ns = unsafe { bpf_ktime_get_ns() };
    let counts = ReadCounts { first_seen_ns, ..ReadCounts::default() };
    // Another CPU may have been first.
    if READS.insert(key, counts, u64::from(BPF_NOEXIST)).is_ok()
        && let Some(share) = share
    {
        // SAFETY: a live map value.
        count::add(unsafe { &raw mut (*share).entries }, 1);
    }
    let counts = READS.get_ptr_mut(key);
    if counts.is_none() {
        refused(share, STAGE_READS_FULL, what);
    }
    counts
}

/// What was no open is found again by the next sweep, or belongs to an open that was refused here.
#[inline(always)]
fn refused(share: Option<*mut ReaderShare>, stage: u32, what: u32) {
    if what != OPENED {
        return;
    }
    count::lost(stage);
    if let Some(share) = share {
        // SAFETY: a live map value.
        count::add(unsafe { &raw mut (*share).refused_total }, 1);
    }
}

#[inline(always)]
fn add(counts: *mut ReadCounts, what: u32) {
    // SAFETY: a live map value. The time only ever needs to be about right.
    unsafe {
        let counter = match what {
            OPENED => &raw mut (*counts).opens_total,
            READ => &raw mut (*counts).reads_total,
            MAPPED => &raw mut (*counts).maps_total,
            _ => &raw mut (*counts).held_total,
        };
        count::add(counter, 1);
        core::ptr::write_volatile(&raw mut (*counts).last_seen_ns, bpf_ktime_get_ns());
    }
}

/// Whether this cgroup may be told of once more in this second.
#[inline(always)]
fn may_tell(cgroup_id: u64) -> bool {
    let Some(share) = share::own(&READERS, cgroup_id) else { return true };
    // SAFETY: a live map value, a helper without arguments. Two CPUs may tell of one too many.
    unsafe {
        let second = bpf_ktime_get_ns() / 1_000_000_000;
        if core::ptr::read_volatile(&raw const (*share).second) != second {
            core::ptr::write_volatile(&raw mut (*share).second, second);
            core::ptr::write_volatile(&raw mut (*share).told, 0);
        }
        let told = core::ptr::read_volatile(&raw const (*share).told);
        if told >= u64::from(SECRETS_SEEN_A_SECOND) {
            return false;
        }
        core::ptr::write_volatile(&raw mut (*share).told, told + 1);
    }
    true
}

/// Two CPUs may tell the same.
#[inline(always)]
fn tell(key: &ReadKey, counts: *mut ReadCounts, file: Pointer, task: Pointer) {
    if !may_tell(key.cgroup_id) {
        return;
    }
    let Some(mut entry) = SECRETS.reserve::<SecretEvent>(0) else {
        return count::lost(STAGE_SECRETS_FULL);
    };
    let event = entry.as_mut_ptr();
    // SAFETY: reserved ring memory of this size; every field the agent reads is written, of names
    // what is before their final zero.
    unsafe {
        (*event).header = EventHeader {
            kind: EVENT_SECRET_SEEN,
            body_bytes: size_of::<SecretSeen>() as u32,
            time_ns: bpf_ktime_get_ns(),
        };
        (*event).body.key = *key;
        (*event).body.pid = read(task, Offset::TaskTgid).unwrap_or(0);
        (*event).body.reserved = 0;
        (*event).body.comm = read(task, Offset::TaskComm).unwrap_or([0; COMM_BYTES]);
        let dentry = read_dentry(file);
        name(dentry, &mut (*event).body.file);
        name(dentry.and_then(|it| read(it, Offset::DentryParent)), &mut (*event).body.folder);
        name(program_file(task).and_then(read_dentry), &mut (*event).body.program);
        core::ptr::write_volatile(&raw mut (*counts).is_told, 1);
    }
    entry.submit(ring::wake_up(&SECRETS, SECRETS_BYTES));
}

#[inline(always)]
fn read_dentry(file: Pointer) -> Option<Pointer> {
    read(within(file, Offset::FilePath), Offset::PathDentry)
}

/// The name of a folder entry, empty if it cannot be read.
#[inline(always)]
fn name(dentry: Option<Pointer>, to: &mut [u8]) {
    let name = dentry
        .and_then(|dentry| read::<*const u8>(within(dentry, Offset::DentryName), Offset::QstrName));
    // SAFETY: the helper fails on a bad address, it does not fault.
    let is_read =
        name.is_some_and(|name| unsafe { bpf_probe_read_kernel_str_bytes(name, to).is_ok() });
    if !is_read && let Some(first) = to.first_mut() {
        *first = 0;
    }
}
