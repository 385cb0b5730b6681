//! The few calls of bpf(2) that aya has no function for: descriptors and buffers in, the kernel's
//! answer out. It keeps nothing and retries nothing.
//!
//! The layouts are those of `union bpf_attr` in include/uapi/linux/bpf.h, each only as long as the
//! command needs; the kernel takes the rest for zero.
#![expect(unsafe_code, reason = "bpf(2) has no safe binding")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_DELETE_ELEM: libc::c_int = 3;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_MAP_LOOKUP_AND_DELETE_ELEM: libc::c_int = 21;
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
const BPF_MAP_DELETE_BATCH: libc::c_int = 27;
const BPF_LINK_UPDATE: libc::c_int = 29;

/// `ENOTSUPP` of include/linux/errno.h, which the kernel hands out though it is its own.
const NOT_SUPPORTED: i32 = 524;

#[repr(C)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct Object {
    path: u64,
    descriptor: u32,
    flags: u32,
}

#[repr(C)]
struct LinkUpdate {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

#[repr(C)]
struct Batch {
    after: u64,
    next: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// # Safety
/// Every pointer inside `attr` is valid for what the command does with it.
unsafe fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the attribute is as long as it says; the rest is the caller's promise.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn number(descriptor: BorrowedFd<'_>) -> u32 {
    descriptor.as_raw_fd().cast_unsigned()
}

/// Opens what is pinned at a path.
pub(super) fn pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = Object { path: path.as_ptr() as u64, descriptor: 0, flags: 0 };
    // SAFETY: the path is a string that ends in zero and lives as long as the call; what comes back
    // is a descriptor that nobody else has.
    unsafe {
        let descriptor = bpf(BPF_OBJ_GET, &mut attr)?;
        let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
        Ok(OwnedFd::from_raw_fd(descriptor))
    }
}

/// Puts a program in the place of a link's: every packet meets the old or the new one (Linux 5.7).
pub(super) fn replace(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr =
        LinkUpdate { link: number(link), program: number(program), flags: 0, old_program: 0 };
    // SAFETY: no pointers.
    unsafe { bpf(BPF_LINK_UPDATE, &mut attr).map(drop) }
}

/// Where a walk over a hash stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor(Option<u32>);

/// Reads the next entries of a hash into `keys` and `values`, as many as fit into the shorter; how
/// many, and where to go on, comes back; none to go on from at the end (Linux 5.6).
pub(super) fn lookup_batch<K: Copy, V: Copy>(
    map: BorrowedFd<'_>,
    from: Cursor,
    keys: &mut [K],
    values: &mut [V],
) -> io::Result<(usize, Option<Cursor>)> {
    let after = from.0.unwrap_or_default();
    let mut next = 0_u32;
    let room = u32::try_from(keys.len().min(values.len())).unwrap_or(u32::MAX);
    let mut attr = Batch {
        after: from.0.map_or(0, |_| std::ptr::from_ref(&after) as u64),
        next: std::ptr::from_mut(&mut next) as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: room,
        map: number(map),
        element_flags: 0,
        flags: 0,
    };
    // SAFETY: both buffers have room for `count` entries, whose types the callers keep equal to the
    // map's; a hash's position has four bytes.
    let result = unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut attr) };
    let count = usize::try_from(attr.count).map_err(io::Error::other)?;
    match result {
        Ok(_) => Ok((count, Some(Cursor(Some(next))))),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok((count, None)),
        Err(error) => Err(error),
    }
}

/// Takes an entry out of a hash and returns it; in two steps before Linux 5.14. None if there is no
/// such entry.
pub(super) fn take<K: Copy, V: Copy + Default>(
    map: BorrowedFd<'_>,
    key: &K,
) -> io::Result<Option<V>> {
    let mut value = V::default();
    let mut attr = Element {
        map: number(map),
        padding: 0,
        key: std::ptr::from_ref(key) as u64,
        value: std::ptr::from_mut(&mut value) as u64,
        flags: 0,
    };
    // SAFETY: a key and room for a value, whose types the callers keep equal to the map's.
    let mut result = unsafe { bpf(BPF_MAP_LOOKUP_AND_DELETE_ELEM, &mut attr) };
    let is_unknown =
        |error: &io::Error| matches!(error.raw_os_error(), Some(NOT_SUPPORTED | libc::EINVAL));
    if result.as_ref().is_err_and(is_unknown) {
        // SAFETY: as above; the second reads the key only.
        result = unsafe {
            bpf(BPF_MAP_LOOKUP_ELEM, &mut attr).and_then(|_| {
                attr.value = 0;
                bpf(BPF_MAP_DELETE_ELEM, &mut attr)
            })
        };
    }
    match result {
        Ok(_) => Ok(Some(value)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes these keys from a hash; one that is gone already ends the batch, and the rest is for
/// another time. How many were removed comes back.
pub(super) fn delete_batch<K: Copy>(map: BorrowedFd<'_>, keys: &[K]) -> io::Result<usize> {
    let mut attr = Batch {
        after: 0,
        next: 0,
        keys: keys.as_ptr() as u64,
        values: 0,
        count: u32::try_from(keys.len()).unwrap_or(u32::MAX),
        map: number(map),
        element_flags: 0,
        flags: 0,
    };
    // SAFETY: the kernel reads `count` keys of the map's type.
    let result = unsafe { bpf(BPF_MAP_DELETE_BATCH, &mut attr) };
    match result {
        Ok(_) => Ok(keys.len()),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
            usize::try_from(attr.count).map_err(io::Error::other)
        }
        Err(error) => Err(error),
    }
}
