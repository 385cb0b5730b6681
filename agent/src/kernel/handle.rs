//! The generation of an inode, as its file system tells it: a descriptor in, `i_generation` out.
//!
//! It asks `name_to_handle_at`, which opens nothing and needs no right, and reads of the answer
//! only what it can check: each known form holds the inode number, too.
#![expect(unsafe_code, reason = "name_to_handle_at has no safe binding")]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// Bytes of the longest handle there is (`MAX_HANDLE_SZ` of include/linux/exportfs.h).
const HANDLE_BYTES_MAX: u32 = 128;
/// `FILEID_INO32_GEN` of include/linux/exportfs.h; tmpfs says so too, and means another form.
const KIND_PLAIN: i32 = 1;
/// `FILEID_BTRFS_WITHOUT_PARENT`.
const KIND_BTRFS: i32 = 0x4d;
/// `FILEID_INO32_GEN | XFS_FILEID_TYPE_64FLAG` of fs/xfs/xfs_export.h.
const KIND_XFS: i32 = 0x81;

/// A handle, as `struct file_handle` of include/linux/fcntl.h has it.
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    words: [u32; HANDLE_BYTES_MAX as usize / 4],
}

/// The generation of a file or folder, opened in whatever way, with its inode number from
/// elsewhere; none if its file system has none, or one of a form nobody here knows.
///
/// # Errors
/// The kernel does not answer: it is built without such handles.
pub(crate) fn generation(of: BorrowedFd<'_>, inode: u64) -> io::Result<Option<u32>> {
    let mut handle = Handle { bytes: HANDLE_BYTES_MAX, kind: 0, words: [0; 32] };
    let mut mount = 0_i32;
    // SAFETY: the path is empty and ends with a zero byte; the kernel writes at most `bytes` bytes
    // behind the two numbers of the handle, which has room for them, and one number of the mount.
    let result = unsafe {
        libc::name_to_handle_at(
            of.as_raw_fd(),
            c"".as_ptr(),
            std::ptr::from_mut(&mut handle).cast(),
            &raw mut mount,
            libc::AT_EMPTY_PATH,
        )
    };
    if result == 0 {
        return Ok(read(handle.kind, handle.bytes, &handle.words, inode));
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        // Overlays and others that cannot be exported.
        Some(libc::EOPNOTSUPP | libc::EOVERFLOW) => Ok(None),
        _ => Err(error),
    }
}

fn read(kind: i32, bytes: u32, words: &[u32; 32], inode: u64) -> Option<u32> {
    let [low, high] = [inode & u64::from(u32::MAX), inode >> 32];
    let at = |first: usize| u64::from(words[first]) == low && u64::from(words[first + 1]) == high;
    match (kind, bytes) {
        // tmpfs: shmem_encode_fh of mm/shmem.c.
        (KIND_PLAIN, 12) => at(1).then_some(words[0]),
        // ext4 and most others: generic_encode_ino32_fh of fs/libfs.c.
        (KIND_PLAIN, 8) => (u64::from(words[0]) == low).then_some(words[1]),
        // struct xfs_fid64 of fs/xfs/xfs_export.h.
        (KIND_XFS, 12) => at(0).then_some(words[2]),
        // struct btrfs_fid of fs/btrfs/export.h: object, root, generation.
        (KIND_BTRFS, 20) => at(0).then_some(words[4]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn each_form_is_read_where_its_inode_is() {
        let words = |given: &[u32]| {
            let mut words = [0; 32];
            words[..given.len()].copy_from_slice(given);
            words
        };
        let inode = 0x1_0000_0007;
        assert_eq!(read(1, 12, &words(&[99, 7, 1]), inode), Some(99));
        assert_eq!(read(1, 12, &words(&[99, 8, 1]), inode), None);
        assert_eq!(read(1, 8, &words(&[7, 98]), 7), Some(98));
        assert_eq!(read(0x81, 12, &words(&[7, 1, 97]), inode), Some(97));
        assert_eq!(read(0x4d, 20, &words(&[7, 1, 5, 0, 96]), inode), Some(96));
        assert_eq!(read(0xfb, 20, &words(&[7, 1, 5, 0, 96]), inode), None);
    }

    #[test]
    fn a_file_has_one_generation_however_it_is_opened() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let inode = file.as_file().metadata().unwrap().ino();
        let told = generation(file.as_file().as_fd(), inode).unwrap();
        let flags = rustix::fs::OFlags::PATH;
        let again = rustix::fs::open(file.path(), flags, rustix::fs::Mode::empty()).unwrap();
        assert_eq!(generation(again.as_fd(), inode).unwrap(), told);
    }
}
