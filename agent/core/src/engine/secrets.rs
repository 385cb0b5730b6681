//! What the engine tells those who keep count of secrets.
//!
//! In: the engine's inputs, one by one, after the index took them. Out: the same as the words of
//! [`Secrets`](crate::secrets::Secrets), and its answers. It decides nothing.

use std::sync::Arc;

use super::Engine;
use crate::object::{Change, Kind, Object};
use crate::secrets::{ReadRecord, SecretsSnapshot};

/// Loss stage: volumes, files, pods, readers and rows of secrets that found their table full.
pub const STAGE_SECRET_TABLES_FULL: &str = "secret_tables_full";

/// Units of the kubelet, where nothing else is said: by itself, and with all of k3s in one process.
pub const KUBELET_UNITS: [&str; 3] =
    ["system.slice/kubelet.service", "system.slice/k3s.service", "system.slice/k3s-agent.service"];
/// Units of container runtimes, where nothing else is said.
pub const RUNTIME_UNITS: [&str; 3] =
    ["system.slice/containerd.service", "system.slice/crio.service", "system.slice/docker.service"];

/// Stages whose losses are opens of which nothing is known. A full ring is none of them: it tells
/// names, and the opens are counted. Neither is an open on a superblock that was mounted anew: it
/// is counted under that one's own number, and waits for somebody to tell whose it is.
const OPENS_LOST: [u32; 4] = [
    parapet_common::STAGE_READS_FULL,
    parapet_common::STAGE_READS_QUOTA,
    parapet_common::STAGE_DESCRIPTOR_GONE,
    parapet_common::STAGE_FIXED_FILE,
];

impl Engine {
    pub(super) fn take_read(&mut self, read: ReadRecord) {
        let when = (self.now, self.is_synced());
        self.secrets.read(read, &self.index, when);
    }

    /// After the index took it.
    pub(super) fn pod_of_secrets(&mut self, change: &Change) {
        match change {
            Change::Applied(Object::Pod(pod)) if pod.parts.is_some() => {
                let meta = &pod.metadata;
                let known = match meta.uid.as_str() {
                    "" => self.index.pod_named(&meta.namespace, &meta.name),
                    uid => self.index.pod(uid),
                };
                if let Some(known) = known {
                    self.secrets.pod_applied(&known.uid, pod, self.index.own_node());
                }
            }
            Change::Deleted(object) if object.kind == Kind::Pod => self.secrets.pods_gone(),
            Change::Listed(Kind::Pod) => self.secrets.pods_gone(),
            _ => {}
        }
    }

    pub(super) fn access_of_secrets(&mut self, kind: Kind) {
        if kind == Kind::ServiceAccount {
            self.secrets.accounts_changed();
        }
    }

    pub(super) fn lost_of_secrets(&mut self, stage: &str) {
        let names = OPENS_LOST.map(|stage| parapet_common::STAGE_NAMES.get(stage as usize));
        if names.contains(&Some(&stage)) {
            self.secrets.lost(self.now);
        }
    }

    /// At the end of each step.
    pub(super) fn settle_reads(&mut self, became_synced: bool, is_tick: bool) {
        if became_synced {
            self.secrets.became_synced(self.now);
        }
        if self.is_synced() {
            self.secrets.settle_waiting(&self.index, self.now, is_tick);
        }
    }

    pub(super) fn secrets_snapshot(&mut self) -> Arc<SecretsSnapshot> {
        let when = (self.now, self.is_synced());
        self.secrets.snapshot(&self.index, &self.access, when)
    }

    pub(super) fn secrets_lost(&self) -> Option<(&'static str, u64)> {
        let refused = self.secrets.refused();
        (refused > 0).then_some((STAGE_SECRET_TABLES_FULL, refused))
    }
}
