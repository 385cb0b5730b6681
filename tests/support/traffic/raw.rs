//! System calls that have no safe binding: paths and descriptors in, descriptors and memory out.
//!
//! Each function is one way to a file; it keeps nothing and retries nothing.
#![expect(unsafe_code, reason = "these calls have no safe binding, and readers use them")]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::path::Path;
use std::sync::atomic::AtomicU8;

use anyhow::Context as _;
use io_uring::{IoUring, opcode, squeue, types};
use rustix::mm::{MapFlags, ProtFlags};
use rustix::thread::UnshareFlags;

use super::read::c_path;

/// Bytes of the longest handle there is (`MAX_HANDLE_SZ` of include/linux/exportfs.h).
const HANDLE_BYTES: usize = 128;

#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    rest: [u8; HANDLE_BYTES],
}

/// A mount namespace of the calling thread's own.
pub(super) fn own_mounts() -> anyhow::Result<()> {
    // SAFETY: no table of descriptors is unshared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.context("a mount namespace")
}

fn descriptor(result: i64) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let number = i32::try_from(result).map_err(io::Error::other)?;
    // SAFETY: the kernel has just given it to this process, and nobody else has its number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

pub(super) fn open_by_handle(path: &Path) -> anyhow::Result<OwnedFd> {
    let folder = std::fs::File::open(path.parent().context("no folder")?)?;
    let path = c_path(path)?;
    let mut handle = Handle { bytes: 128, kind: 0, rest: [0; HANDLE_BYTES] };
    let mut mount = 0;
    // SAFETY: the path ends with a zero byte; the kernel writes as many bytes as there is room.
    let result = unsafe {
        libc::name_to_handle_at(
            libc::AT_FDCWD,
            path.as_ptr(),
            std::ptr::from_mut(&mut handle).cast(),
            &raw mut mount,
            libc::AT_SYMLINK_FOLLOW,
        )
    };
    anyhow::ensure!(result == 0, "name_to_handle_at: {}", io::Error::last_os_error());
    // SAFETY: the handle is the one that the kernel wrote.
    let opened = unsafe {
        libc::open_by_handle_at(
            folder.as_raw_fd(),
            std::ptr::from_mut(&mut handle).cast(),
            libc::O_RDONLY | libc::O_CLOEXEC,
        )
    };
    Ok(descriptor(opened.into())?)
}

/// Has the kernel tell this socket, by its error queue, of each packet that left.
pub fn tell_of_sent(socket: BorrowedFd<'_>) -> io::Result<()> {
    let flags = libc::SOF_TIMESTAMPING_TX_SOFTWARE | libc::SOF_TIMESTAMPING_SOFTWARE;
    let length = size_of_val(&flags).try_into().map_err(io::Error::other)?;
    // SAFETY: the kernel reads one integer of this length.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_TIMESTAMPING,
            (&raw const flags).cast(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Opens what the path says at the moment when the kernel looks: another thread writes it.
pub(super) fn open_changing(path: &[AtomicU8]) -> io::Result<OwnedFd> {
    assert!(path.last().is_some_and(|last| last.load(std::sync::atomic::Ordering::Relaxed) == 0));
    // SAFETY: the last byte is zero and nobody writes it; the kernel copies the bytes.
    let opened = unsafe {
        libc::syscall(
            libc::SYS_openat,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::O_RDONLY | libc::O_CLOEXEC,
            0,
        )
    };
    descriptor(opened)
}

/// Carries out one entry and returns its result.
///
/// # Safety
/// Everything that the entry points to lives until this returns.
unsafe fn submit(ring: &mut IoUring, entry: &squeue::Entry) -> anyhow::Result<i32> {
    // SAFETY: the caller's promise; this returns after the kernel is done with it.
    unsafe { ring.submission().push(entry)? };
    ring.submit_and_wait(1)?;
    let result = ring.completion().next().context("no result")?.result();
    if result < 0 { Err(io::Error::from_raw_os_error(-result).into()) } else { Ok(result) }
}

pub(super) fn ring_open(path: &Path, second: bool) -> anyhow::Result<OwnedFd> {
    let mut ring = IoUring::new(2)?;
    let path = c_path(path)?;
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    let how = types::OpenHow::new().flags(u64::from(flags.cast_unsigned()));
    let folder = types::Fd(libc::AT_FDCWD);
    let entry = if second {
        opcode::OpenAt2::new(folder, path.as_ptr(), &raw const how).build()
    } else {
        opcode::OpenAt::new(folder, path.as_ptr()).flags(flags).build()
    };
    // SAFETY: path and flags live until the end of this function.
    let result = unsafe { submit(&mut ring, &entry)? };
    Ok(descriptor(result.into())?)
}

/// Opens into a slot of the ring and reads from there; the ring that holds the file comes back.
pub(super) fn ring_read_slot(path: &Path) -> anyhow::Result<IoUring> {
    let mut ring = IoUring::new(2)?;
    ring.submitter().register_files(&[-1])?;
    let path = c_path(path)?;
    let slot = types::DestinationSlot::try_from_slot_target(0).ok().context("no slot")?;
    let open = opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr());
    let open = open.flags(libc::O_RDONLY).file_index(Some(slot)).build();
    // SAFETY: the path lives until the end of this function.
    unsafe { submit(&mut ring, &open)? };
    let mut content = [0_u8; 64];
    let read = opcode::Read::new(types::Fixed(0), content.as_mut_ptr(), 64).build();
    // SAFETY: so does the buffer.
    let bytes = unsafe { submit(&mut ring, &read)? };
    anyhow::ensure!(bytes > 0, "nothing was read");
    Ok(ring)
}

/// A mapping of the first page of a file.
pub(super) struct Mapping {
    at: *mut std::ffi::c_void,
}

const PAGE: usize = 4096;

/// Maps a file and looks at its first byte.
pub(super) fn map(file: BorrowedFd<'_>) -> anyhow::Result<Mapping> {
    // SAFETY: the kernel chooses where, and nobody else has that memory.
    let at = unsafe {
        rustix::mm::mmap(std::ptr::null_mut(), PAGE, ProtFlags::READ, MapFlags::PRIVATE, file, 0)
    }
    .context("mmap")?;
    // SAFETY: the file has at least one byte, so its first page is there.
    std::hint::black_box(unsafe { at.cast::<u8>().read_volatile() });
    Ok(Mapping { at })
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and nobody looks at it any more.
        let _ = unsafe { rustix::mm::munmap(self.at, PAGE) };
    }
}
