//! How full the tables of secrets are.
//!
//! In: the store. Out: entries and capacity by name, as metrics have them.

use std::collections::BTreeMap;

use super::Secrets;
use super::limits::{
    SECRET_FILES_MAX, SECRET_POD_TOMBSTONES_MAX, SECRET_PODS_MAX, SECRET_READERS_MAX,
    SECRET_VOLUME_TOMBSTONES_MAX, SECRET_VOLUMES_MAX,
};

pub(super) fn sizes(secrets: &Secrets) -> BTreeMap<&'static str, (u64, u64)> {
    let (volumes, gone_volumes, files, _) = secrets.volumes.sizes();
    let (pods, gone_pods, _) = secrets.pods.sizes();
    let (reads, reads_max, _) = secrets.rows.sizes();
    let (mounts, mounts_max, _) = secrets.mounts.sizes();
    let of = |entries: usize, max: usize| (entries as u64, max as u64);
    [
        ("secret_volumes", of(volumes, SECRET_VOLUMES_MAX)),
        ("secret_volume_tombstones", of(gone_volumes, SECRET_VOLUME_TOMBSTONES_MAX)),
        ("secret_files", of(files, SECRET_FILES_MAX)),
        ("secret_pods", of(pods, SECRET_PODS_MAX)),
        ("secret_pod_tombstones", of(gone_pods, SECRET_POD_TOMBSTONES_MAX)),
        ("secret_readers", (secrets.readers_len(), SECRET_READERS_MAX as u64)),
        ("secret_reads", (reads, reads_max)),
        ("secret_reads_waiting", secrets.waiting_sizes()),
        ("secret_mounts", (mounts, mounts_max)),
    ]
    .into()
}
