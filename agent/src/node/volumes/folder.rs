//! One volume as a folder: its identity and the names and inode numbers in it.
//!
//! In: the folder it is mounted at. Out: device, generation, when it was made, the files of every
//! generation that is there. Folders are opened, files never; nothing on another file system is
//! looked at.

use std::ffi::{CStr, CString, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;
use std::sync::Arc;

use parapet_core::flow::Timestamp;
use parapet_core::secrets::{VolumeFile, VolumeId};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Statx, StatxFlags};

use crate::kernel::handle;
use crate::node::mountinfo;

/// Link to the folder of the current generation (`dataDirName` of kubelet's AtomicWriter).
const DATA: &CStr = c"..data";
/// Files told of one volume. Further ones are counted.
pub(crate) const FILES_A_VOLUME_MAX: usize = 1_024;
/// Folders of one volume that are looked into. Further ones are counted.
const FOLDERS_A_VOLUME_MAX: usize = 1_024;
/// Folders below each other that are looked into.
const DEPTH_MAX: usize = 32;

/// The root folder of a mount, found by its path and from then on by descriptor, so that a mount
/// that goes meanwhile is not taken for the folder below it.
pub(super) struct Folder {
    root: OwnedFd,
    facts: Statx,
}

/// What changes when files come or go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Where `..data` leads; empty without one.
    pub(super) generation: String,
    /// Modification time of the root folder.
    modified: (i64, u32),
}

/// The files of a volume.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) files: Vec<VolumeFile>,
    /// Files that found no room, or folders that could not be read.
    pub(super) left_out: u64,
}

impl Folder {
    pub(super) fn open(point: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::open(point, flags, Mode::empty())?;
        let facts = status(root.as_fd())?;
        Ok(Self { root, facts })
    }

    /// Number of the mount that it was found through.
    pub(super) fn mount(&self) -> Option<u64> {
        // STATX_MNT_ID is there since Linux 5.8.
        let told = StatxFlags::from_bits_retain(self.facts.stx_mask).contains(StatxFlags::MNT_ID);
        told.then_some(self.facts.stx_mnt_id)
    }

    /// Which superblock it is. Generation 0 where the kernel tells none.
    pub(super) fn id(&self) -> VolumeId {
        let generation = handle::generation(self.root.as_fd(), self.facts.stx_ino);
        VolumeId {
            device: device(&self.facts),
            generation: generation.ok().flatten().unwrap_or_default(),
        }
    }

    pub(super) fn made_at(&self) -> Option<Timestamp> {
        let told = StatxFlags::from_bits_retain(self.facts.stx_mask).contains(StatxFlags::BTIME);
        let seconds = u64::try_from(self.facts.stx_btime.tv_sec).ok()?;
        let nanos = u64::from(self.facts.stx_btime.tv_nsec);
        told.then(|| Timestamp(seconds.saturating_mul(1_000_000_000).saturating_add(nanos)))
    }

    pub(super) fn stamp(&self) -> Stamp {
        let modified = (self.facts.stx_mtime.tv_sec, self.facts.stx_mtime.tv_nsec);
        let link = rustix::fs::readlinkat(&self.root, DATA, Vec::new());
        let generation = link.map(|link| text(link.into_bytes())).unwrap_or_default();
        Stamp { generation, modified }
    }

    /// A path that leads to it, however it is mounted now.
    pub(super) fn path(&self) -> String {
        use std::os::fd::AsRawFd as _;
        format!("/proc/self/fd/{}", self.root.as_raw_fd())
    }

    /// Every regular file in it.
    pub(super) fn content(&self) -> Content {
        let mut content = Content::default();
        let Ok(top) = open_below(self.root.as_fd(), c".").map(Arc::new) else {
            content.left_out += 1;
            return content;
        };
        let mut waiting = content.take(top, &Level::default());
        let mut folders = 1;
        while let Some((parent, name, level)) = waiting.pop() {
            let opened = match open_below(parent.as_fd(), &name) {
                Ok(folder) if folders < FOLDERS_A_VOLUME_MAX && level.depth <= DEPTH_MAX => folder,
                // It went while we walked: no loss.
                Err(rustix::io::Errno::NOENT) => continue,
                _ => {
                    content.left_out += 1;
                    continue;
                }
            };
            folders += 1;
            if status(opened.as_fd()).is_ok_and(|found| device(&found) == device(&self.facts)) {
                waiting.extend(content.take(Arc::new(opened), &level));
            }
        }
        content.files.sort_unstable_by(|a, b| {
            (&a.generation, &a.path, a.inode).cmp(&(&b.generation, &b.path, b.inode))
        });
        content
    }
}

/// A folder to look into, below one that is open: few are open at once.
type Waiting = (Arc<OwnedFd>, CString, Level);

/// Where a folder is.
#[derive(Default)]
struct Level {
    generation: Arc<str>,
    path: String,
    depth: usize,
}

impl Content {
    /// Takes the files of one folder; the folders in it come back.
    fn take(&mut self, folder: Arc<OwnedFd>, level: &Level) -> Vec<Waiting> {
        let mut below = Vec::new();
        // Opened anew: the listing has a position of its own.
        let Ok(entries) = open_below(folder.as_fd(), c".").and_then(Dir::new) else {
            self.left_out += 1;
            return below;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            match entry.file_type() {
                FileType::Directory if name == c"." || name == c".." => {}
                FileType::Directory if below.len() < FOLDERS_A_VOLUME_MAX => {
                    below.push((Arc::clone(&folder), name.to_owned(), level.below(name)));
                }
                FileType::RegularFile if self.files.len() < FILES_A_VOLUME_MAX => {
                    self.files.push(VolumeFile {
                        inode: entry.ino(),
                        path: level.joined(name).into(),
                        generation: Arc::clone(&level.generation),
                    });
                }
                FileType::Directory | FileType::RegularFile => self.left_out += 1,
                _ => {}
            }
        }
        below
    }
}

impl Level {
    fn joined(&self, name: &CStr) -> String {
        let name = text(name.to_bytes().to_vec());
        if self.path.is_empty() { name } else { format!("{}/{name}", self.path) }
    }

    /// The folder of a generation is no part of the path of its files.
    fn below(&self, name: &CStr) -> Self {
        let depth = self.depth + 1;
        if self.depth == 0 && name.to_bytes().starts_with(b"..") {
            let generation = text(name.to_bytes().to_vec()).into();
            return Self { generation, path: String::new(), depth };
        }
        Self { generation: Arc::clone(&self.generation), path: self.joined(name), depth }
    }
}

/// What is known of a file without opening it.
pub(super) fn status(of: BorrowedFd<'_>) -> rustix::io::Result<Statx> {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME | StatxFlags::MNT_ID;
    rustix::fs::statx(of, c"", AtFlags::EMPTY_PATH, wanted)
}

/// Text that a terminal shows as itself.
pub(super) fn text(bytes: Vec<u8>) -> String {
    let text = OsString::from_vec(bytes).to_string_lossy().into_owned();
    let is_plain = |text: &str| !text.chars().any(char::is_control);
    if is_plain(&text) { text } else { text.replace(char::is_control, "\u{fffd}") }
}

pub(super) fn device(facts: &Statx) -> u32 {
    mountinfo::device(facts.stx_dev_major, facts.stx_dev_minor)
}

fn open_below(folder: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(folder, name, flags, Mode::empty())
}
