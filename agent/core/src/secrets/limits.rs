//! How much is remembered of secrets, at most.
//!
//! In: nothing. Out: the limit of each table. What one refused is counted in its loss stage.

/// Secret volumes and watched superblocks that are there at once.
pub const SECRET_VOLUMES_MAX: usize = 8_192;
/// Volumes that are gone and still known, the newest ones.
pub const SECRET_VOLUME_TOMBSTONES_MAX: usize = 4_096;
/// Files of all volumes, those of replaced generations included.
pub const SECRET_FILES_MAX: usize = 131_072;
/// Files of replaced generations in one volume: a token that is renewed each hour fills it with
/// three files in two weeks.
pub const REPLACED_FILES_MAX: usize = 1_024;
/// Readers, and files, whose names were told.
pub const SECRET_READERS_MAX: usize = 16_384;
/// Rows of readers. Reads by further ones are counted in one row a relation.
pub const SECRET_READS_MAX: usize = 16_384;
/// Readers and files that wait for somebody to say who they are.
pub const SECRET_WAITING_MAX: usize = 16_384;
/// Pods of this node whose parts are known.
pub const SECRET_PODS_MAX: usize = 4_096;
/// Pods that are gone and whose parts are still known, for late records.
pub const SECRET_POD_TOMBSTONES_MAX: usize = 1_024;
/// Secrets of workloads by the way they get in. One that no pod has any more makes room.
pub const SECRET_MOUNTS_MAX: usize = 16_384;
/// Keys of one of these.
pub const SECRET_KEYS_MAX: usize = 1_024;
/// Containers whose start by the kernel is remembered until their pod names them.
pub const CONTAINER_STARTS_MAX: usize = 8_192;
/// Containers of one pod, restarted ones included; the oldest are forgotten.
pub const CONTAINERS_A_POD_MAX: usize = 256;

/// All of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) volumes: usize,
    pub(crate) gone_volumes: usize,
    pub(crate) files: usize,
    pub(crate) replaced_files: usize,
    pub(crate) readers: usize,
    pub(crate) reads: usize,
    pub(crate) waiting: usize,
    pub(crate) pods: usize,
    pub(crate) gone_pods: usize,
    pub(crate) mounts: usize,
    pub(crate) keys: usize,
    pub(crate) starts: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            volumes: SECRET_VOLUMES_MAX,
            gone_volumes: SECRET_VOLUME_TOMBSTONES_MAX,
            files: SECRET_FILES_MAX,
            replaced_files: REPLACED_FILES_MAX,
            readers: SECRET_READERS_MAX,
            reads: SECRET_READS_MAX,
            waiting: SECRET_WAITING_MAX,
            pods: SECRET_PODS_MAX,
            gone_pods: SECRET_POD_TOMBSTONES_MAX,
            mounts: SECRET_MOUNTS_MAX,
            keys: SECRET_KEYS_MAX,
            starts: CONTAINER_STARTS_MAX,
        }
    }
}
