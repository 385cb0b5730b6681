//! Who reads which Secret: facts about mounted volumes and their readers in, answers per Secret,
//! reader and token out.
//!
//! In: [`VolumeFacts`] of this node, [`ReadRecord`]s and [`ReaderSeen`] from the kernel, pods and
//! service accounts. Out: [`SecretsSnapshot`]. It never sees what is inside of a file, and never
//! says whose a volume is by its device number alone: see [`VolumeId`].

use std::sync::Arc;

use crate::flow::Timestamp;

pub use self::answer::*;
pub use self::limits::{
    CONTAINER_STARTS_MAX, CONTAINERS_A_POD_MAX, REPLACED_FILES_MAX, SECRET_FILES_MAX,
    SECRET_KEYS_MAX, SECRET_MOUNTS_MAX, SECRET_POD_TOMBSTONES_MAX, SECRET_PODS_MAX,
    SECRET_READERS_MAX, SECRET_READS_MAX, SECRET_VOLUME_TOMBSTONES_MAX, SECRET_VOLUMES_MAX,
    SECRET_WAITING_MAX,
};
pub use self::store::{NAMES_WAIT_NS, READ_WAIT_NS, Secrets};

#[cfg(test)]
pub(crate) use self::{attribute::Units, limits::Limits};

mod answer;
mod attribute;
mod build;
mod limits;
mod mounts;
mod pods;
mod readers;
mod rows;
mod spec;
mod store;
mod tables;
mod volumes;
mod waiting;

/// One mounted superblock, and no other that gets its number later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VolumeId {
    /// Device number as the kernel has it (`super_block.s_dev`: major << 20 | minor).
    pub device: u32,
    /// `i_generation` of the root folder; of a single watched file its own.
    pub generation: u32,
}

/// One file of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId {
    /// Where it is.
    pub volume: VolumeId,
    /// Its inode number.
    pub inode: u64,
}

/// What reads: all processes of a cgroup that run one program as one user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReaderId {
    /// cgroup2 id.
    pub cgroup_id: u64,
    /// Device number and inode number of the program.
    pub program: (u32, u64),
    /// Effective user id, as the initial user namespace has it.
    pub uid: u32,
}

/// What a reader did with a file since that was last read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadRecord {
    /// The file.
    pub file: FileId,
    /// Who.
    pub reader: ReaderId,
    /// How often.
    pub counts: ReadCounts,
    /// No open of this record is older.
    pub since: Timestamp,
    /// The newest one.
    pub last_seen: Timestamp,
}

/// How often a file was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[expect(missing_docs, reason = "documented at parapet_common::ReadCounts")]
pub struct ReadCounts {
    pub opens: u64,
    pub reads: u64,
    pub maps: u64,
    pub held: u64,
}

impl ReadCounts {
    /// Adds these.
    pub fn add(&mut self, other: Self) {
        self.opens = self.opens.saturating_add(other.opens);
        self.reads = self.reads.saturating_add(other.reads);
        self.maps = self.maps.saturating_add(other.maps);
        self.held = self.held.saturating_add(other.held);
    }
}

/// Names of a reader and of the file, when it was first seen there. All are what the process and
/// the file system say, cut and with everything replaced that a terminal would not show as itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReaderSeen {
    /// The file.
    pub file: FileId,
    /// Who.
    pub reader: ReaderId,
    /// When.
    pub at: Timestamp,
    /// Process id, as the initial namespace has it.
    pub pid: u32,
    /// Name of the thread.
    pub comm: String,
    /// Name of the program's file, without folders.
    pub program: String,
    /// Name of the folder the file is in.
    pub folder: String,
    /// Name of the file.
    pub name: String,
}

/// What is mounted, or watched, now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeFacts {
    /// Which superblock.
    pub id: VolumeId,
    /// Whose it is.
    pub owner: VolumeOwner,
    /// What is in it now.
    pub files: Vec<VolumeFile>,
    /// Folder that `..data` leads to, `..2024_05_01_10_00_00.123456789`; empty without one.
    pub generation: String,
    /// When it was mounted, as far as its root folder says.
    pub mounted_at: Option<Timestamp>,
    /// When the kernel began to count on it.
    pub watched_since: Timestamp,
}

/// Whose a watched superblock is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeOwner {
    /// A volume of a pod, by its folder below the kubelet's.
    Pod {
        /// As the folder says: of a static pod the UID that its kubelet gave it.
        uid: Arc<str>,
        /// `spec.volumes[].name`.
        volume: Arc<str>,
        /// Which kind of volume.
        plugin: VolumePlugin,
    },
    /// Files of the node that were named by configuration.
    Node {
        /// The file or folder, as it was named.
        path: Arc<str>,
    },
}

/// Kinds of volumes that hold secrets, by the name of their folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum VolumePlugin {
    /// `kubernetes.io~secret`.
    Secret,
    /// `kubernetes.io~projected`.
    Projected,
    /// `kubernetes.io~csi`, on a tmpfs.
    Csi,
}

/// A regular file in a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeFile {
    /// Its inode number.
    pub inode: u64,
    /// Below the folder of its generation, or below the volume without one: `tls.crt`, `db/user`.
    /// Of a file of the node its whole path.
    pub path: Arc<str>,
    /// The folder of its generation; empty without one.
    pub generation: Arc<str>,
}
