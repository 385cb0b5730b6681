//! Which superblocks hold secrets, whose they are and what is in them.
//!
//! In: mountinfo, the kubelet's folder, files that were named by configuration. Out: one
//! [`VolumeFacts`] for each, and what is in the way. It lists folders and asks for inode numbers;
//! it opens no file, and it tells a superblock from the next one with its number by the generation
//! of its root folder (a random number of the kernel's, mm/shmem.c).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parapet_common::VOLUMES_MAX;
use parapet_core::flow::Timestamp;
use parapet_core::secrets::{VolumeFacts, VolumeFile, VolumeId, VolumeOwner};

use self::folder::{Folder, Stamp};
use self::notice::Notice;
use self::place::{Place, Subpath};
use self::watched::Watched;
use super::mountinfo::{self, FileSystem, Mount};

mod folder;
mod notice;
mod place;
mod watched;

const MOUNTINFO: &str = "/proc/self/mountinfo";
/// Volumes told at once. Further ones are counted.
const PODS_VOLUMES_MAX: usize = VOLUMES_MAX as usize;
/// Files told at once, of all volumes. Further ones are counted.
const FILES_MAX: usize = 65_536;
/// Problems told one by one.
const PROBLEMS_MAX: usize = 32;
/// How long a volume that is mounted nowhere to be seen stays watched, where the kernel does not
/// tell of its end: a container may still have it.
const UNSEEN_NS_MAX: u64 = 600 * 1_000_000_000;
/// A volume without `..data` is walked again so often: only folders directly below its root show
/// at the root that they changed.
const WALK_EVERY_NS: u64 = 10 * 1_000_000_000;
const NO_GENERATION: &str = "name_to_handle_at is forbidden (by the container's seccomp profile, \
    without CAP_SYS_ADMIN): a volume is known by its device number alone";
/// How often folders that should be mounts are looked for.
const FOLDERS_EVERY_NS: u64 = 30 * 1_000_000_000;

/// Everything that is watched, as of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Each superblock, in the order of their ids.
    pub volumes: Vec<VolumeFacts>,
    /// What is in the way, in words.
    pub problems: Vec<String>,
}

/// What is watched on this node.
#[derive(Debug)]
pub struct Registry {
    kubelet_root: PathBuf,
    /// The folder of all pods, where it really is.
    pods: PathBuf,
    known: BTreeMap<VolumeId, Known>,
    /// Files that are mounted by themselves, by the number of the mount.
    subpaths: HashMap<u64, (u32, Option<VolumeFile>)>,
    watched: Watched,
    notice: Notice,
    /// The mounts may be others than those that were read last.
    are_mounts_old: bool,
    /// Of the mounts that were read last.
    mount_problems: Vec<String>,
    /// Folders that should be mounts, as of the last two looks for them.
    bare: (BTreeSet<PathBuf>, Vec<String>),
    bare_at: Timestamp,
}

/// A superblock that holds secrets of a pod.
#[derive(Debug)]
struct Known {
    facts: VolumeFacts,
    /// Where it is mounted, if it is.
    mount: Option<(u64, PathBuf)>,
    /// Since when it is not.
    unseen_since: Timestamp,
    stamp: Stamp,
    walked_at: Timestamp,
    /// Somebody read a file that is not among those of the last walk.
    is_doubted: bool,
    left_out: u64,
}

impl Registry {
    /// Nothing is known before the first scan.
    #[must_use]
    pub fn new(kubelet_root: &Path, watched: &[PathBuf]) -> Self {
        Self {
            kubelet_root: kubelet_root.to_owned(),
            pods: kubelet_root.join("pods"),
            known: BTreeMap::new(),
            subpaths: HashMap::new(),
            watched: Watched::new(watched),
            notice: Notice::new(),
            are_mounts_old: true,
            mount_problems: Vec::new(),
            bare: (BTreeSet::new(), Vec::new()),
            bare_at: Timestamp::default(),
        }
    }

    /// Becomes readable when a file in a volume comes or goes; none if the kernel gives no such
    /// descriptor. It shares its state with the registry: the next scan makes it unreadable again.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn notices(&self) -> std::io::Result<Option<std::os::fd::OwnedFd>> {
        self.notice.descriptor()
    }

    /// Mounts came or went: the next scan reads them again.
    pub fn doubt_mounts(&mut self) {
        self.are_mounts_old = true;
    }

    /// A file of this volume was read that no scan told of: the next one walks it again.
    pub fn doubt(&mut self, volume: VolumeId) {
        match self.known.get_mut(&volume) {
            Some(known) => known.is_doubted = true,
            None => self.are_mounts_old = true,
        }
    }

    /// Looks again at what may have changed.
    pub fn scan(&mut self, now: Timestamp) -> Scan {
        self.take_notice();
        let mut problems = Vec::new();
        if std::mem::take(&mut self.are_mounts_old) {
            self.mount_problems.clear();
            self.read_mounts(now);
        }
        if now.0.saturating_sub(self.bare_at.0) >= FOLDERS_EVERY_NS {
            self.bare_at = now;
            self.look_for_folders();
        }
        problems.extend(self.mount_problems.iter().cloned());
        problems.extend(self.bare.1.iter().cloned());
        for known in self.known.values_mut() {
            known.look(now, &mut problems);
        }
        self.forget_unseen(now);
        if self.known.keys().any(|id| id.generation == 0) {
            problems.push(NO_GENERATION.to_owned());
        }
        let mut volumes = self.told(&mut problems);
        let pods: BTreeSet<u32> = volumes.iter().map(|volume| volume.id.device).collect();
        volumes.extend(self.watched.scan(now, &pods, &mut problems));
        volumes.sort_unstable_by_key(|volume| volume.id);
        let more = problems.len().saturating_sub(PROBLEMS_MAX);
        problems.truncate(PROBLEMS_MAX);
        if more > 0 {
            problems.push(format!("and {more} more"));
        }
        Scan { volumes, problems }
    }

    fn take_notice(&mut self) {
        let noticed = self.notice.take();
        for id in noticed.changed {
            self.doubt(id);
        }
        for id in noticed.ended {
            // Nobody has it any more, in whatever namespace.
            self.known.remove(&id);
        }
        if noticed.is_incomplete {
            self.known.values_mut().for_each(|known| known.is_doubted = true);
            self.are_mounts_old = true;
        }
    }

    fn read_mounts(&mut self, now: Timestamp) {
        let text = match mountinfo::read(Path::new(MOUNTINFO)) {
            Ok(text) => text,
            Err(error) => {
                self.are_mounts_old = true;
                self.mount_problems.push(format!("{MOUNTINFO}: {error}"));
                return;
            }
        };
        // The kernel shows where it really is.
        let root = self.kubelet_root.canonicalize().unwrap_or_else(|_| self.kubelet_root.clone());
        self.pods = root.join("pods");
        let pods = self.pods.clone();
        if let Err(error) = std::fs::read_dir(&pods) {
            let shown = pods.display();
            self.mount_problems.push(format!(
                "{shown}: {error}: no Secret volume of a pod can be told; --kubelet-root names the \
                 kubelet's folder"
            ));
        }
        let mut mounted = BTreeSet::new();
        for mount in mountinfo::mounts(&text, "/kubernetes.io~").filter(is_tmpfs) {
            if let Some(place) = Place::of(&mount, &pods) {
                mounted.insert(mount.id);
                self.take_mount(mount, place, now);
            }
        }
        for known in self.known.values_mut() {
            if known.mount.as_ref().is_some_and(|(id, _)| !mounted.contains(id)) {
                known.mount = None;
                known.unseen_since = now;
            }
        }
        self.take_subpaths(&text, &pods);
    }

    fn take_mount(&mut self, mount: Mount, place: Place, now: Timestamp) {
        let is_same = |known: &&Known| known.mount.as_ref().is_some_and(|(id, _)| *id == mount.id);
        if self.known.values().find(is_same).is_some_and(|known| known.is_at(&mount, &place)) {
            return;
        }
        let folder = match Folder::open(&mount.point) {
            Ok(folder) => folder,
            Err(error) => {
                self.mount_problems.push(format!("{}: {error}", mount.point.display()));
                self.are_mounts_old = true;
                return;
            }
        };
        let id = folder.id();
        let is_other = folder.mount().is_some_and(|found| found != mount.id);
        if is_other || id.device != mount.device {
            // It is gone already, or another one is mounted over it and hides what it is.
            self.mount_problems.push(format!("{}: is not to be reached", mount.point.display()));
            return;
        }
        let owner = place.owner();
        if let Some(known) = self.known.get_mut(&id) {
            if known.facts.owner == owner {
                known.mount = Some((mount.id, mount.point));
            } else {
                let shown = mount.point.display();
                self.mount_problems.push(format!("{shown}: shows the volume of another pod"));
                // Or that one has just ended, and its number was given out again.
                self.are_mounts_old = true;
            }
            return;
        }
        if self.known.len() >= PODS_VOLUMES_MAX {
            self.mount_problems.push(format!("{}: there is no room", mount.point.display()));
            return;
        }
        // The number was given out again: the one that had it is no more.
        self.known.retain(|known, _| known.device != id.device);
        self.notice.add(id, &folder);
        let made_at = folder.made_at();
        let known = Known::new(id, owner, (mount.id, mount.point), made_at, now);
        self.known.insert(id, known);
    }

    fn take_subpaths(&mut self, text: &[u8], pods: &Path) {
        let mut seen = HashMap::new();
        let mounts = mountinfo::mounts(text, "/volume-subpaths/");
        for mount in mounts.filter(is_tmpfs).take(FILES_MAX) {
            let Some(subpath) = Subpath::of(&mount, pods) else { continue };
            let known = self.subpaths.remove(&mount.id);
            let known = known.filter(|(device, _)| *device == mount.device);
            let found = known.unwrap_or_else(|| (mount.device, subpath.file(&mount)));
            seen.insert(mount.id, found);
        }
        self.subpaths = seen;
    }

    /// Without mounts that reach this namespace, a volume is an empty folder on the node's disk.
    fn look_for_folders(&mut self) {
        let found = place::folders(&self.pods, PODS_VOLUMES_MAX);
        let mounted: BTreeSet<_> = self
            .known
            .values()
            .filter_map(|known| known.mount.as_ref())
            .map(|(_, at)| at)
            .collect();
        let bare: BTreeSet<_> =
            found.into_iter().filter(|folder| !mounted.contains(folder)).collect();
        // One that was just made, or is about to go, is there once only.
        let stays = bare.intersection(&self.bare.0);
        let told = stays.map(|folder| {
            format!(
                "{}: nothing is mounted here: mounts of the node do not reach the agent \
                 (mountPropagation: HostToContainer), or its mount failed",
                folder.display()
            )
        });
        self.bare = (bare.clone(), told.collect());
    }

    fn forget_unseen(&mut self, now: Timestamp) {
        let notice = &self.notice;
        self.known.retain(|id, known| {
            let unseen = now.0.saturating_sub(known.unseen_since.0);
            known.mount.is_some() || notice.tells_the_end_of(*id) || unseen < UNSEEN_NS_MAX
        });
    }

    fn told(&self, problems: &mut Vec<String>) -> Vec<VolumeFacts> {
        let mut room = FILES_MAX;
        let mut left_out = 0;
        let mut volumes = Vec::with_capacity(self.known.len());
        for known in self.known.values() {
            let mut facts = known.facts.clone();
            let of_it = |(device, file): &(u32, Option<VolumeFile>)| {
                file.clone().filter(|_| *device == facts.id.device)
            };
            let alone: Vec<_> = self.subpaths.values().filter_map(of_it).collect();
            let is_new = |file: &VolumeFile| facts.files.iter().all(|it| it.inode != file.inode);
            let mut alone: Vec<_> = alone.into_iter().filter(is_new).collect();
            alone.sort_unstable_by_key(|file| file.inode);
            alone.dedup_by_key(|file| file.inode);
            facts.files.extend(alone);
            left_out += known.left_out + facts.files.len().saturating_sub(room) as u64;
            facts.files.truncate(room);
            room -= facts.files.len();
            volumes.push(facts);
        }
        if left_out > 0 {
            problems.push(format!("{left_out} files or folders of volumes are not known"));
        }
        volumes
    }
}

impl Known {
    fn new(
        id: VolumeId,
        owner: VolumeOwner,
        mount: (u64, PathBuf),
        mounted_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Self {
        let facts = VolumeFacts {
            id,
            owner,
            files: Vec::new(),
            generation: String::new(),
            mounted_at,
            watched_since: now,
        };
        Self {
            facts,
            mount: Some(mount),
            unseen_since: Timestamp::default(),
            stamp: Stamp::default(),
            walked_at: Timestamp::default(),
            is_doubted: true,
            left_out: 0,
        }
    }

    fn is_at(&self, mount: &Mount, place: &Place) -> bool {
        let point = self.mount.as_ref().map(|(_, point)| point);
        self.facts.id.device == mount.device
            && point == Some(&mount.point)
            && self.facts.owner == place.owner()
    }

    /// Walks it if something of it may have changed.
    fn look(&mut self, now: Timestamp, problems: &mut Vec<String>) {
        let Some((mount, point)) = &self.mount else { return };
        let folder = match Folder::open(point) {
            Ok(folder) => folder,
            Err(error) => {
                problems.push(format!("{}: {error}", point.display()));
                return;
            }
        };
        // Unmounted since the mounts were read, or hidden: what is there is not this volume.
        if folder.mount().is_some_and(|found| found != *mount) || folder.id() != self.facts.id {
            return;
        }
        let stamp = folder.stamp();
        let is_old =
            stamp.generation.is_empty() && now.0.saturating_sub(self.walked_at.0) >= WALK_EVERY_NS;
        if stamp == self.stamp && !self.is_doubted && !is_old {
            return;
        }
        let content = folder.content();
        self.facts.files = content.files;
        self.facts.generation.clone_from(&stamp.generation);
        self.left_out = content.left_out;
        self.stamp = stamp;
        self.walked_at = now;
        self.is_doubted = false;
    }
}

/// Shared text.
fn shared(text: &str) -> Arc<str> {
    Arc::from(text)
}

fn is_tmpfs(mount: &Mount) -> bool {
    mount.kind == FileSystem::Tmpfs
}
