//! Files of the node that were named by configuration: paths in, inodes out.
//!
//! A folder stands for the files in it. What a name leads to is looked up anew with each scan, so
//! that a file that was replaced is followed; symbolic links are followed too, as a reader would.
//! No file is opened for reading.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use parapet_common::WATCHED_FILES_MAX;
use parapet_core::flow::Timestamp;
use parapet_core::secrets::{VolumeFacts, VolumeFile, VolumeId, VolumeOwner};
use rustix::fs::{FileType, Mode, OFlags, Statx, StatxFlags};

use super::folder::{device, status, text};
use super::shared;
use crate::kernel::handle;
use crate::node::mountinfo;

/// Files watched at once. Further ones are counted.
const FILES_MAX: usize = WATCHED_FILES_MAX as usize / 4;
/// Folders below each other that are looked into.
const DEPTH_MAX: usize = 8;

/// What was named, and since when each file is watched.
#[derive(Debug)]
pub(super) struct Watched {
    named: Vec<PathBuf>,
    since: BTreeMap<VolumeId, Timestamp>,
    /// Device number by the number of the mount: the one that a file says is not the superblock's
    /// on btrfs.
    mounts: BTreeMap<u64, u32>,
}

/// One scan.
struct Finding<'a> {
    watched: &'a mut Watched,
    pods: &'a BTreeSet<u32>,
    problems: &'a mut Vec<String>,
    found: BTreeMap<VolumeId, VolumeFacts>,
    files: usize,
    left_out: u64,
}

impl Watched {
    pub(super) fn new(named: &[PathBuf]) -> Self {
        Self { named: named.to_vec(), since: BTreeMap::new(), mounts: BTreeMap::new() }
    }

    /// Each file as it is now; none on the devices of pods' volumes, which are watched as a whole.
    pub(super) fn scan(
        &mut self,
        now: Timestamp,
        pods: &BTreeSet<u32>,
        problems: &mut Vec<String>,
    ) -> Vec<VolumeFacts> {
        let named = self.named.clone();
        let found = BTreeMap::new();
        let mut finding = Finding { watched: self, pods, problems, found, files: 0, left_out: 0 };
        for path in &named {
            finding.take(path, path, 0, now);
        }
        if finding.left_out > 0 {
            let left_out = finding.left_out;
            finding.problems.push(format!("{left_out} watched files or folders found no room"));
        }
        let found = finding.found;
        self.since.retain(|id, _| found.contains_key(id));
        found.into_values().collect()
    }

    /// Device number of the superblock, as the kernel has it.
    fn device(&mut self, found: &Statx) -> u32 {
        let told = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::MNT_ID);
        if !told {
            return device(found);
        }
        if !self.mounts.contains_key(&found.stx_mnt_id) {
            // Numbers of mounts are given out again.
            let text = mountinfo::read(Path::new(super::MOUNTINFO)).unwrap_or_default();
            self.mounts =
                mountinfo::mounts(&text, "").map(|mount| (mount.id, mount.device)).collect();
        }
        self.mounts.get(&found.stx_mnt_id).copied().unwrap_or_else(|| device(found))
    }
}

impl Finding<'_> {
    fn take(&mut self, path: &Path, named: &Path, depth: usize, now: Timestamp) {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let opened = rustix::fs::open(path, flags, Mode::empty());
        let opened = opened.and_then(|opened| Ok((status(opened.as_fd())?, opened)));
        let (found, opened) = match opened {
            Ok(opened) => opened,
            // Below a folder things come and go.
            Err(_) if depth > 0 => return,
            Err(error) => return self.problems.push(format!("{}: {error}", path.display())),
        };
        match FileType::from_raw_mode(found.stx_mode.into()) {
            FileType::Directory if depth < DEPTH_MAX => self.take_below(path, named, depth, now),
            FileType::RegularFile if self.files < FILES_MAX => {
                let device = self.watched.device(&found);
                if self.pods.contains(&device) {
                    return self.problems.push(format!(
                        "{}: is in a volume of a pod, and watched with it",
                        path.display()
                    ));
                }
                let generation = handle::generation(opened.as_fd(), found.stx_ino);
                let generation = generation.ok().flatten().unwrap_or_default();
                let id = VolumeId { device, generation };
                self.add(id, found.stx_ino, path, named, now);
            }
            FileType::Directory | FileType::RegularFile => self.left_out += 1,
            _ => {}
        }
    }

    fn take_below(&mut self, folder: &Path, named: &Path, depth: usize, now: Timestamp) {
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) => return self.problems.push(format!("{}: {error}", folder.display())),
        };
        let mut below: Vec<_> = entries.flatten().take(FILES_MAX).map(|it| it.path()).collect();
        below.sort_unstable();
        for path in below {
            self.take(&path, named, depth + 1, now);
        }
    }

    /// Several names of one file are one file.
    fn add(&mut self, id: VolumeId, inode: u64, path: &Path, named: &Path, now: Timestamp) {
        let shown = |path: &Path| shared(&text(path.as_os_str().as_encoded_bytes().to_vec()));
        let watched_since = *self.watched.since.entry(id).or_insert(now);
        let facts = self.found.entry(id).or_insert_with(|| VolumeFacts {
            id,
            owner: VolumeOwner::Node { path: shown(named) },
            files: Vec::new(),
            generation: String::new(),
            mounted_at: None,
            watched_since,
        });
        if facts.files.iter().all(|file| file.inode != inode) {
            let file = VolumeFile { inode, path: shown(path), generation: shared("") };
            facts.files.push(file);
            self.files += 1;
        }
    }
}
