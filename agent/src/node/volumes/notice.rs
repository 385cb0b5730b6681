//! What the kernel says of volumes without being asked: a generation that comes, a superblock that
//! ends.
//!
//! In: the root folders of volumes. Out: which of them changed or ended since the last look. It
//! holds no volume in place: an inotify watch keeps neither a mount nor its superblock (inotify(7),
//! `fsnotify_sb_delete` of fs/notify/fsnotify.c), and its end is told when the last namespace that
//! had it let it go.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use parapet_core::secrets::VolumeId;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};

use super::folder::Folder;

/// Events read in one scan. If there are more, everything is looked at.
const EVENTS_MAX: usize = 65_536;

/// Watches on root folders. Without a descriptor nothing is noticed, and time must tell.
#[derive(Debug)]
pub(super) struct Notice {
    descriptor: Option<OwnedFd>,
    watches: HashMap<i32, VolumeId>,
    numbers: HashMap<VolumeId, i32>,
}

/// What happened since the last look.
#[derive(Debug, Default)]
pub(super) struct Noticed {
    pub(super) changed: Vec<VolumeId>,
    pub(super) ended: Vec<VolumeId>,
    /// More happened than was told.
    pub(super) is_incomplete: bool,
}

impl Notice {
    pub(super) fn new() -> Self {
        let flags = CreateFlags::NONBLOCK | CreateFlags::CLOEXEC;
        let descriptor = inotify::init(flags).map_err(|error| {
            tracing::info!(%error, "no inotify: rotations of secrets are noticed within a second");
        });
        Self { descriptor: descriptor.ok(), watches: HashMap::new(), numbers: HashMap::new() }
    }

    /// The same descriptor once more, to wait on.
    pub(super) fn descriptor(&self) -> std::io::Result<Option<OwnedFd>> {
        self.descriptor.as_ref().map(OwnedFd::try_clone).transpose()
    }

    /// Without room for one more watch its changes are found by looking.
    pub(super) fn add(&mut self, id: VolumeId, folder: &Folder) {
        let Some(descriptor) = &self.descriptor else { return };
        let wanted =
            WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVE | WatchFlags::ONLYDIR;
        if let Ok(number) = inotify::add_watch(descriptor, folder.path(), wanted) {
            self.watches.insert(number, id);
            self.numbers.insert(id, number);
        }
    }

    /// Whether the end of this superblock will be told.
    pub(super) fn tells_the_end_of(&self, id: VolumeId) -> bool {
        self.numbers.contains_key(&id)
    }

    /// Everything since the last look, without waiting.
    pub(super) fn take(&mut self) -> Noticed {
        let mut noticed = Noticed::default();
        let Some(descriptor) = &self.descriptor else { return noticed };
        let mut buffer = [MaybeUninit::uninit(); 16_384];
        let mut reader = Reader::new(descriptor, &mut buffer);
        let mut last = None;
        for _ in 0..EVENTS_MAX {
            let Ok(event) = reader.next() else { return noticed };
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                noticed.is_incomplete = true;
                continue;
            }
            // The kernel takes the watch away itself, after the superblock's end.
            if event.events().intersects(ReadFlags::UNMOUNT | ReadFlags::IGNORED) {
                if let Some(id) = self.watches.remove(&event.wd()) {
                    self.numbers.remove(&id);
                    noticed.ended.push(id);
                }
                continue;
            }
            if last.replace(event.wd()) != Some(event.wd()) {
                noticed.changed.extend(self.watches.get(&event.wd()));
            }
        }
        noticed.is_incomplete = true;
        noticed
    }
}
