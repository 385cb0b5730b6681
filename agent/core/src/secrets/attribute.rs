//! Whose file was read, and by whom.
//!
//! In: a read record and everything that is known. Out: a [`Finding`], with what is not known said
//! as such. It changes nothing and counts nothing. A reader is known by its cgroup and a volume by
//! its superblock: neither by a name, and neither by what is there today.

use std::sync::Arc;

use super::pods::{PodFacts, Pods};
use super::readers::{FileName, Readers, shown};
use super::spec::{Extent, VolumeSpec};
use super::volumes::{File, Owner, Volume, Volumes};
use super::{FileId, ReadRecord, Reader, Relation, SecretOwner, SecretSource, VolumePlugin};
use crate::flow::PodIdentity;
use crate::identity::{Index, Place};

/// Which units are not taken for just anybody's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Units {
    pub(super) kubelet: Vec<Arc<str>>,
    pub(super) runtime: Vec<Arc<str>>,
}

/// All that is known.
pub(super) struct Known<'a> {
    pub(super) index: &'a Index,
    pub(super) pods: &'a Pods,
    pub(super) volumes: &'a Volumes,
    pub(super) readers: &'a Readers,
    pub(super) units: &'a Units,
}

/// What a read is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) owner: SecretOwner,
    pub(super) source: SecretSource,
    pub(super) key: Arc<str>,
    pub(super) relation: Relation,
    pub(super) reader: Reader,
    /// Empty if nobody knows.
    pub(super) generation: Arc<str>,
    /// UID of the owner's pod, and its volume.
    pub(super) volume: Option<(Arc<str>, Arc<str>)>,
    /// Id and name of the container that read, if it mounts it.
    pub(super) own: Option<OwnRead>,
    /// What is not known.
    pub(super) problems: Vec<Unattributed>,
    /// The reader's own pod may be the owner's, though nobody knows: then one of its containers may
    /// have read what seems to be unread.
    pub(super) may_be_own: bool,
}

/// A read by a container that mounts what it read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OwnRead {
    pub(super) container_id: Arc<str>,
    pub(super) container: Arc<str>,
    pub(super) path: Arc<str>,
    /// It has the file as a part of the whole volume, or by a `subPath`.
    pub(super) whole: bool,
    pub(super) sub_path: bool,
}

/// Why something of a read is not known. Also a label, so the list is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Unattributed {
    /// No volume of this superblock was told.
    VolumeNotKnown,
    /// The file was gone before anybody listed it.
    FileNotKnown,
    /// No object of the pod that has the volume was seen.
    OwnerNotListed,
    /// The pod's object does not say where the file is from.
    SourceNotKnown,
    /// No path is known for the reader's cgroup.
    CgroupNotKnown,
    /// No object of the reader's pod was seen.
    PodNotListed,
    /// The reader's pod does not name the container.
    ContainerNotKnown,
    /// It could not wait for an answer.
    WaitingFull,
}

impl Unattributed {
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::VolumeNotKnown => "volume_not_known",
            Self::FileNotKnown => "file_not_known",
            Self::OwnerNotListed => "owner_not_listed",
            Self::SourceNotKnown => "source_not_known",
            Self::CgroupNotKnown => "cgroup_not_known",
            Self::PodNotListed => "pod_not_listed",
            Self::ContainerNotKnown => "container_not_known",
            Self::WaitingFull => "waiting_full",
        }
    }
}

impl Finding {
    /// Whether somebody may still say what is not known. An object that says nothing of a file will
    /// not change: volumes are no part of a pod that an update may change.
    pub(super) fn may_improve(&self) -> bool {
        self.problems.iter().any(|problem| *problem != Unattributed::SourceNotKnown)
    }
}

/// The file, as far as it is known.
struct FoundFile {
    path: Arc<str>,
    generation: Arc<str>,
    named_by: Arc<str>,
}

impl<'a> Known<'a> {
    /// `called`: a file that nobody listed is what the kernel called this one. Before that its
    /// folder may still be listed.
    pub(super) fn attribute(&self, read: &ReadRecord, called: Option<FileId>) -> Finding {
        let volume = self.volumes.get(read.file.volume, read.since, read.last_seen);
        let listed = volume.and_then(|volume| volume.file(read.file)).map(FoundFile::listed);
        let named = called.and_then(|file| self.readers.file(file)).map(FoundFile::named);
        let file = listed.or(named);
        let mut finding = self.what(volume, file.as_ref());
        self.who(read, file.as_ref(), &mut finding);
        finding
    }

    /// Whose file it is.
    fn what(&self, volume: Option<&'a Volume>, file: Option<&FoundFile>) -> Finding {
        let mut finding = Finding {
            owner: SecretOwner::Unknown,
            source: SecretSource::Unknown { volume: "".into() },
            key: file.map(|file| shown(&file.path)).unwrap_or_default(),
            relation: Relation::Unknown,
            reader: Reader::Unknown { reason: "".into() },
            generation: file.map(|file| shown(&file.generation)).unwrap_or_default(),
            volume: None,
            own: None,
            problems: Vec::new(),
            may_be_own: false,
        };
        if volume.is_none() {
            finding.problems.push(Unattributed::VolumeNotKnown);
        } else if file.is_none() {
            finding.problems.push(Unattributed::FileNotKnown);
        }
        match volume.map(|volume| &volume.owner) {
            Some(Owner::Pod(uid, name, plugin)) => {
                finding.volume = Some((uid.clone(), name.clone()));
                self.part(&mut finding, uid, (name, *plugin), file);
            }
            Some(Owner::Node) => {
                let named_by = file.map(|file| &file.named_by).filter(|path| !path.is_empty());
                let path = named_by.map_or_else(|| finding.key.clone(), |path| shown(path));
                if finding.key == path {
                    finding.key = "".into();
                }
                finding.owner = SecretOwner::Node;
                finding.source = SecretSource::NodeFile { path };
            }
            None => {}
        }
        finding
    }

    /// From which source of its pod's volume it is.
    fn part(
        &self,
        finding: &mut Finding,
        uid: &str,
        (name, plugin): (&Arc<str>, VolumePlugin),
        file: Option<&FoundFile>,
    ) {
        finding.source = SecretSource::Unknown { volume: shown(name) };
        if let Some(pod) = self.index.pod(uid) {
            finding.owner = owner_of(pod);
        }
        let Some(pod) = self.pods.get(uid).filter(|_| finding.owner != SecretOwner::Unknown) else {
            finding.problems.push(Unattributed::OwnerNotListed);
            return;
        };
        let spec = pod.spec.volumes.get(name).filter(|volume| volume.plugin == plugin);
        let found = match file {
            Some(file) => spec.and_then(|spec| spec.source_of(&file.path)),
            None => spec.and_then(only),
        };
        match found {
            Some((source, key)) => {
                finding.source = source.clone();
                finding.key = shown(&key);
            }
            None => finding.problems.push(Unattributed::SourceNotKnown),
        }
    }

    /// Who read, and what that is to the owner.
    fn who(&self, read: &ReadRecord, file: Option<&FoundFile>, finding: &mut Finding) {
        let unknown = |problem: Unattributed| Reader::Unknown { reason: problem.label().into() };
        let (uid, container) = match self.index.place(read.reader.cgroup_id) {
            Some(Place::Node { unit }) => {
                finding.relation = self.units.relation(unit);
                finding.reader = Reader::Node { unit: unit.clone() };
                return;
            }
            Some(Place::Pod { uid, container }) => (uid, container),
            None => {
                finding.reader = unknown(Unattributed::CgroupNotKnown);
                finding.problems.push(Unattributed::CgroupNotKnown);
                finding.may_be_own = true;
                return;
            }
        };
        let owner = finding.volume.as_ref().map(|(uid, _)| uid.clone());
        let is_same = owner.as_deref().is_some_and(|owner| self.is_same(owner, uid));
        let is_none_known = finding.owner == SecretOwner::Unknown && owner.is_none();
        finding.relation = if is_same || is_none_known {
            finding.may_be_own = true;
            Relation::Unknown
        } else {
            Relation::OtherPod
        };
        let Some(pod) = self.index.pod(uid) else {
            finding.reader = unknown(Unattributed::PodNotListed);
            finding.problems.push(Unattributed::PodNotListed);
            return;
        };
        let facts = self.pods.get(uid);
        let run = container.as_ref().and_then(|id| Some((id, facts?.runs.get(id)?)));
        let name = run.map(|(_, run)| run.name.clone());
        if name.is_none() {
            finding.problems.push(Unattributed::ContainerNotKnown);
        }
        finding.reader = Reader::Pod {
            namespace: pod.namespace.clone(),
            workload: pod.workload.clone(),
            container: name.unwrap_or_default(),
        };
        let (true, Some((id, run)), Some(facts)) = (is_same, run, facts) else { return };
        let volume = finding.volume.as_ref().map(|(_, volume)| &**volume);
        finding.own = own(facts, volume, file, (id, &run.name));
        // Which file it is, and so whether the container has it, is not known without a path.
        let is_certain = file.is_some() || finding.own.is_some();
        finding.may_be_own = !is_certain;
        finding.relation = match finding.own {
            Some(_) => Relation::Own,
            None if is_certain => Relation::Sibling,
            None => Relation::Unknown,
        };
    }

    /// Whether both are one pod, which its kubelet may call otherwise than the API server.
    fn is_same(&self, a: &str, b: &str) -> bool {
        let uid = |uid| self.index.pod(uid).map_or(uid, |pod| &*pod.uid);
        a == b || uid(a) == uid(b)
    }
}

impl FoundFile {
    fn listed(file: &File) -> Self {
        let File { path, generation, named_by, .. } = file.clone();
        Self { path, generation, named_by }
    }

    fn named(FileName { folder, name }: &FileName) -> Self {
        let (path, generation) = match &**folder {
            "" | "/" => (name.clone(), "".into()),
            // The kubelet calls folders of generations so, and no key is called so: a key may not
            // begin with two dots (apimachinery, `IsConfigMapKey`).
            generation if generation.starts_with("..") => (name.clone(), folder.clone()),
            _ => (format!("{folder}/{name}").into(), "".into()),
        };
        Self { path, generation, named_by: "".into() }
    }
}

impl Units {
    fn relation(&self, unit: &str) -> Relation {
        let is = |units: &[Arc<str>]| units.iter().any(|known| known.trim_matches('/') == unit);
        if is(&self.kubelet) {
            Relation::Kubelet
        } else if is(&self.runtime) {
            Relation::Runtime
        } else {
            Relation::Node
        }
    }
}

/// The pod's workload.
pub(super) fn owner_of(pod: &PodIdentity) -> SecretOwner {
    SecretOwner::Workload { namespace: pod.namespace.clone(), workload: pod.workload.clone() }
}

/// What the container has of the file, if it mounts it. A file that is not known may be any that
/// it has as a part of a whole volume.
fn own(
    pod: &PodFacts,
    volume: Option<&str>,
    file: Option<&FoundFile>,
    (id, name): (&Arc<str>, &Arc<str>),
) -> Option<OwnRead> {
    let container = pod.spec.container(name)?;
    let extents = || container.extents(volume.unwrap_or_default());
    let has = |extent: &Extent| file.is_none_or(|file| extent.has(&file.path));
    let whole = extents().any(|extent| *extent == Extent::Whole);
    let sub_path =
        file.is_some() && extents().any(|extent| *extent != Extent::Whole && has(extent));
    (whole || sub_path).then(|| OwnRead {
        container_id: id.clone(),
        container: name.clone(),
        path: file.map(|file| file.path.clone()).unwrap_or_default(),
        whole,
        sub_path,
    })
}

/// What a volume is made of, if that is one thing.
fn only(spec: &VolumeSpec) -> Option<(&SecretSource, Arc<str>)> {
    match spec.parts.as_slice() {
        [part] => Some((&part.source, "".into())),
        _ => None,
    }
}
