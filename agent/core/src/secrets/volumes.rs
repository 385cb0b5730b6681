//! Which superblock is whose volume, and which file of it an inode is.
//!
//! In: lists of what is mounted, each as a whole. Out: a volume by its [`VolumeId`] and a file by
//! its inode, also for some time after it is gone or was replaced. A device number alone finds
//! nothing here, so that a volume mounted anew is never taken for the one before.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use foldhash::{HashMap, HashSet};

use super::limits::Limits;
use super::{FileId, VolumeFacts, VolumeId, VolumeOwner, VolumePlugin};
use crate::flow::Timestamp;

/// What is known of one superblock.
#[derive(Debug)]
pub(super) struct Volume {
    pub(super) owner: Owner,
    /// The generation that is there now; empty without one.
    pub(super) generation: Arc<str>,
    /// When another generation was there last.
    pub(super) rotated_at: Option<Timestamp>,
    pub(super) watched_since: Timestamp,
    /// When it was mounted, as far as is known.
    mounted_at: Option<Timestamp>,
    gone_at: Option<Timestamp>,
    /// The generation that reads have, of one whose own could not be read: that of the first.
    learned: Option<u32>,
    /// By inode. A tmpfs counts them up, so that the first ones are the oldest.
    files: BTreeMap<u64, File>,
}

/// Whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// UID, name of the volume and its kind.
    Pod(Arc<str>, Arc<str>, VolumePlugin),
    /// The node's; each file says by which path it was named.
    Node,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) path: Arc<str>,
    pub(super) generation: Arc<str>,
    /// Of a file of the node the path that was configured, its own or a folder's; else empty.
    pub(super) named_by: Arc<str>,
    /// It was in the newest list.
    is_there: bool,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Volumes {
    by_id: HashMap<VolumeId, Volume>,
    /// UID of a pod, as its volumes' folders say, to its volumes.
    by_pod: HashMap<Arc<str>, BTreeSet<VolumeId>>,
    /// The ones gone longest first. One that came back may be named in vain.
    gone: VecDeque<VolumeId>,
    files: usize,
    refused: u64,
    /// By the newest list.
    refused_now: u64,
    limits: Limits,
}

impl Volumes {
    pub(super) fn with_limits(limits: Limits) -> Self {
        let (by_id, by_pod) = (HashMap::default(), HashMap::default());
        let gone = VecDeque::new();
        Self { by_id, by_pod, gone, files: 0, refused: 0, refused_now: 0, limits }
    }

    /// This is mounted now and nothing else. Says of which pods anything changed.
    pub(super) fn listed(&mut self, facts: &[VolumeFacts], at: Timestamp) -> BTreeSet<Arc<str>> {
        let mut named: HashMap<VolumeId, HashSet<u64>> = HashMap::default();
        for facts in facts {
            let inodes = facts.files.iter().map(|file| file.inode);
            named.entry(facts.id).or_default().extend(inodes);
        }
        let is_unnamed = |(id, volume): &(&VolumeId, &Volume)| {
            volume.gone_at.is_none() && !named.contains_key(id)
        };
        let unnamed: Vec<_> = self.by_id.iter().filter(is_unnamed).map(|(id, _)| *id).collect();
        let mut changed: BTreeSet<_> =
            unnamed.into_iter().filter_map(|id| self.bury(id, at)).collect();
        let refused_before = std::mem::take(&mut self.refused_now);
        let mut live = self.live();
        let mut taken: HashSet<VolumeId> = HashSet::default();
        for facts in facts {
            let is_live = self.by_id.get(&facts.id).is_some_and(|known| known.gone_at.is_none());
            if !is_live && live >= self.limits.volumes {
                self.refused_now += 1;
                continue;
            }
            live += usize::from(!is_live);
            let is_first = taken.insert(facts.id);
            if self.take(facts, is_first, at)
                && let VolumeOwner::Pod { uid, .. } = &facts.owner
            {
                changed.insert(uid.clone());
            }
        }
        for (id, inodes) in &named {
            changed.extend(self.replace(*id, inodes));
        }
        // Each list is refused the same again.
        self.refused += self.refused_now.saturating_sub(refused_before);
        changed
    }

    /// By which id the volume is known that reads call so. One that was told without a generation
    /// has that of its first read, and no other: a volume mounted there next has another one.
    pub(super) fn known_as(&mut self, id: VolumeId) -> VolumeId {
        let any = VolumeId { generation: 0, ..id };
        if self.by_id.contains_key(&id) {
            return id;
        }
        let Some(volume) = self.by_id.get_mut(&any) else { return id };
        if volume.learned.is_none() && volume.gone_at.is_none() {
            volume.learned = Some(id.generation);
        }
        if volume.learned == Some(id.generation) { any } else { id }
    }

    /// The volume this was. One without a generation is told from others of its number by its time
    /// alone, as far as that goes.
    pub(super) fn get(&self, id: VolumeId, since: Timestamp, until: Timestamp) -> Option<&Volume> {
        let volume = self.by_id.get(&id)?;
        let is_certain = id.generation != 0
            || volume.mounted_at.is_none_or(|mounted| mounted <= since)
                && volume.gone_at.is_none_or(|gone| until <= gone);
        is_certain.then_some(volume)
    }

    /// Volumes that have this UID in their folder, gone ones included.
    pub(super) fn of_pod<'a>(
        &'a self,
        uid: &str,
    ) -> impl Iterator<Item = (VolumeId, &'a Volume)> + use<'a> {
        let ids = self.by_pod.get(uid).into_iter().flatten();
        ids.filter_map(|id| Some((*id, self.by_id.get(id)?)))
    }

    /// Those that are there, those that are gone, files, and how many were refused.
    pub(super) fn sizes(&self) -> (usize, usize, usize, u64) {
        let live = self.live();
        (live, self.by_id.len() - live, self.files, self.refused)
    }

    fn live(&self) -> usize {
        self.by_id.values().filter(|volume| volume.gone_at.is_none()).count()
    }

    /// Whether anything is other than before.
    fn take(&mut self, facts: &VolumeFacts, is_first: bool, at: Timestamp) -> bool {
        let owner = Owner::of(&facts.owner);
        if self.by_id.get(&facts.id).is_some_and(|known| known.owner != owner) {
            self.forget(facts.id);
        }
        let is_new = !self.by_id.contains_key(&facts.id);
        let generation: Arc<str> = facts.generation.as_str().into();
        let volume = self.by_id.entry(facts.id).or_insert_with(|| Volume {
            owner,
            generation: generation.clone(),
            rotated_at: None,
            watched_since: facts.watched_since,
            mounted_at: facts.mounted_at,
            gone_at: None,
            learned: None,
            files: BTreeMap::new(),
        });
        let mut is_other = is_new || volume.gone_at.take().is_some();
        if is_first && volume.generation != generation {
            volume.generation = generation;
            volume.rotated_at = Some(at);
            is_other = true;
        }
        let named_by = match &facts.owner {
            VolumeOwner::Node { path } => path.clone(),
            VolumeOwner::Pod { uid, .. } => {
                if is_new {
                    self.by_pod.entry(uid.clone()).or_default().insert(facts.id);
                }
                "".into()
            }
        };
        for file in &facts.files {
            let generation = file.generation.clone();
            let named_by = named_by.clone();
            let known = File { path: file.path.clone(), generation, named_by, is_there: true };
            match volume.files.get_mut(&file.inode) {
                Some(before) if *before == known => {}
                Some(before) => {
                    *before = known;
                    is_other = true;
                }
                None if self.files >= self.limits.files => self.refused_now += 1,
                None => {
                    volume.files.insert(file.inode, known);
                    self.files += 1;
                    is_other = true;
                }
            }
        }
        is_other
    }

    /// Files that were not listed are replaced; the oldest of those make room. The pod, if there
    /// were any.
    fn replace(&mut self, id: VolumeId, listed: &HashSet<u64>) -> Option<Arc<str>> {
        let volume = self.by_id.get_mut(&id)?;
        let mut is_other = false;
        for (inode, file) in &mut volume.files {
            if file.is_there && !listed.contains(inode) {
                file.is_there = false;
                is_other = true;
            }
        }
        let replaced = volume.files.iter().filter(|(_, file)| !file.is_there);
        let replaced: Vec<u64> = replaced.map(|(inode, _)| *inode).collect();
        let over = replaced.len().saturating_sub(self.limits.replaced_files);
        for inode in replaced.iter().take(over) {
            volume.files.remove(inode);
            self.files -= 1;
        }
        match &volume.owner {
            Owner::Pod(uid, ..) if is_other => Some(uid.clone()),
            _ => None,
        }
    }

    fn bury(&mut self, id: VolumeId, at: Timestamp) -> Option<Arc<str>> {
        let volume = self.by_id.get_mut(&id)?;
        volume.gone_at = Some(at);
        let pod = match &volume.owner {
            Owner::Pod(uid, ..) => Some(uid.clone()),
            Owner::Node => None,
        };
        self.gone.push_back(id);
        while self.gone.len() > self.limits.gone_volumes {
            let Some(oldest) = self.gone.pop_front() else { break };
            // One that came back and went again is named once more behind.
            let is_gone = self.by_id.get(&oldest).is_some_and(|volume| volume.gone_at.is_some());
            if is_gone && !self.gone.contains(&oldest) {
                self.forget(oldest);
            }
        }
        pod
    }

    fn forget(&mut self, id: VolumeId) {
        let Some(volume) = self.by_id.remove(&id) else { return };
        self.files -= volume.files.len();
        if let Owner::Pod(uid, ..) = &volume.owner
            && let Some(ids) = self.by_pod.get_mut(uid)
        {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_pod.remove(uid);
            }
        }
    }
}

impl Volume {
    /// The file of this inode, which may be of a replaced generation.
    pub(super) fn file(&self, file: FileId) -> Option<&File> {
        self.files.get(&file.inode)
    }

    /// What is in it now; of one that is gone, what was.
    pub(super) fn files_now(&self) -> impl Iterator<Item = &File> {
        self.files.values().filter(|file| file.is_there)
    }

    /// Whether it is the volume of this name.
    pub(super) fn is(&self, name: &str) -> bool {
        matches!(&self.owner, Owner::Pod(_, volume, _) if **volume == *name)
    }

    pub(super) fn is_there(&self) -> bool {
        self.gone_at.is_none()
    }
}

impl Owner {
    fn of(owner: &VolumeOwner) -> Self {
        match owner {
            VolumeOwner::Pod { uid, volume, plugin } => {
                Self::Pod(uid.clone(), volume.clone(), *plugin)
            }
            VolumeOwner::Node { .. } => Self::Node,
        }
    }
}
