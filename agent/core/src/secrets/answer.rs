//! What is known of secret volumes at one moment, ready to be reported.
//!
//! In: nothing (values only). Out: the types of `parapet report secrets` and the metrics, in a
//! stable order. Pods are folded into their workloads; no name of a pod and no id is in here.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ReadCounts;
use crate::flow::{Timestamp, Workload};

/// Name of what stands for all that found no room, in a row that counts it.
pub const OTHER_READS: &str = "__other__";

/// Everything about secrets, as of one step. Reads that found no room are in at most one row a
/// relation, with [`OTHER_READS`] for the key, the program, the volume and the reader's reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SecretsSnapshot {
    /// What workloads mount, or get otherwise, in the order of their keys.
    pub mounts: Vec<Arc<SecretMount>>,
    /// Who read what, in the order of their keys.
    pub reads: Vec<Arc<SecretRead>>,
    /// The tokens of service accounts that workloads have, in the order of their keys.
    pub tokens: Vec<Arc<TokenUse>>,
    /// Reads that could not be attributed, by reason, in opens.
    pub unattributed: BTreeMap<&'static str, u64>,
}

/// Something secret that a volume, or a variable, is made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are those of the API")]
pub enum SecretSource {
    Secret {
        name: Arc<str>,
    },
    /// A token that the kubelet asks for and renews.
    ServiceAccountToken {
        audience: Arc<str>,
    },
    /// Of a projected volume; no secret, but on the same superblock.
    ConfigMap {
        name: Arc<str>,
    },
    /// Of a projected volume.
    DownwardApi,
    /// Of a projected volume: a bundle of certificates.
    ClusterTrustBundle {
        name: Arc<str>,
    },
    /// A driver of the container storage interface; which object it took is the driver's to say.
    Csi {
        driver: Arc<str>,
    },
    /// A file of the node.
    NodeFile {
        path: Arc<str>,
    },
    /// The pod's object does not name it, or is not known.
    Unknown {
        volume: Arc<str>,
    },
}

/// Whose a secret is: the workload that mounts it, the node, or nobody knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "fields say what they hold")]
pub enum SecretOwner {
    Workload {
        namespace: Arc<str>,
        workload: Workload,
    },
    Node,
    /// No object of the pod was seen, or the superblock is of no known volume.
    Unknown,
}

/// How a secret gets into a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretWay {
    /// As a volume.
    Volume,
    /// As single files of a volume, by `subPath`: seen like any other, but never renewed.
    SubPath,
    /// As a variable, by `env` or `envFrom`: nobody sees it being read.
    Env,
    /// To pull images: the kubelet reads it, no container does.
    ImagePull,
    /// To mount a volume of a driver: the kubelet reads it and hands it to the driver, no container
    /// does.
    Driver,
    /// As a volume that no container mounts.
    Unmounted,
}

/// One secret of one workload, in one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SecretMount {
    /// Whose.
    pub owner: SecretOwner,
    /// What.
    pub source: SecretSource,
    /// How it gets into the containers.
    pub way: SecretWay,
    /// Containers that have it, by name.
    pub containers: Vec<Arc<str>>,
    /// Pods on this node that have it now.
    pub pods: u64,
    /// Whether its owner read it.
    pub state: MountState,
    /// Each key that was seen in the volume, in their order; none where nothing is seen.
    pub keys: Vec<KeyUse>,
    /// First and last read by its own containers.
    pub first_read: Option<Timestamp>,
    /// See above.
    pub last_read: Option<Timestamp>,
    /// Since when every open on it was counted; none where nothing is seen.
    pub watched_since: Option<Timestamp>,
    /// Starts of its containers that were watched from their beginning: many programs read their
    /// secrets at their start only, and one that was not watched then may have read them before.
    pub starts_seen: u64,
    /// Opens by its own containers were lost, or could not be attributed, while it was watched:
    /// then `never_read` is not certain.
    pub has_gaps: bool,
    /// Containers whose last read was of a generation that is not the volume's any more.
    pub stale: Vec<StaleReader>,
}

/// What is known of a mount being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountState {
    /// A container of its own read it.
    Read,
    /// None did while it was watched.
    NeverRead,
    /// Nothing would be seen of it.
    Unobservable,
}

/// One key of a secret, as one file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct KeyUse {
    /// The key of the Secret object, or of another source the path in the volume.
    pub key: Arc<str>,
    /// Where it is below the volume's folder.
    pub path: Arc<str>,
    /// By its own containers.
    pub state: MountState,
    /// Last read by its own containers.
    pub last_read: Option<Timestamp>,
}

/// A container that still has what a rotation replaced.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct StaleReader {
    /// Its name.
    pub container: Arc<str>,
    /// The generation it read last.
    pub read: Arc<str>,
    /// The volume's.
    pub current: Arc<str>,
    /// When the rotation was seen.
    pub since: Timestamp,
}

/// Who read what, how often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SecretRead {
    /// Whose secret.
    pub owner: SecretOwner,
    /// What was read.
    pub source: SecretSource,
    /// Which key of it; empty if nobody knows.
    pub key: Arc<str>,
    /// What the reader is to the owner.
    pub relation: Relation,
    /// Who read.
    pub reader: Reader,
    /// Name of the program's file; empty if nobody knows.
    pub program: Arc<str>,
    /// Name of the thread that was seen first; empty if nobody knows.
    pub comm: Arc<str>,
    /// Effective user id.
    pub uid: u32,
    /// Process id that was seen last; 0 if nobody knows.
    pub pid: u32,
    /// How often.
    pub counts: ReadCounts,
    /// First and last open.
    pub first_seen: Timestamp,
    /// See above.
    pub last_seen: Timestamp,
    /// Generation that was read last; empty if nobody knows.
    pub generation: Arc<str>,
}

/// What tells rows of [`SecretRead`] apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "documented at SecretRead")]
pub struct ReadIdentity {
    pub owner: SecretOwner,
    pub source: SecretSource,
    pub key: Arc<str>,
    pub relation: Relation,
    pub reader: Reader,
    pub program: Arc<str>,
    pub uid: u32,
}

impl ReadIdentity {
    /// A row of nothing yet.
    pub(super) fn row(self, first_seen: Timestamp, last_seen: Timestamp) -> SecretRead {
        SecretRead {
            owner: self.owner,
            source: self.source,
            key: self.key,
            relation: self.relation,
            reader: self.reader,
            program: self.program,
            comm: "".into(),
            uid: self.uid,
            pid: 0,
            counts: ReadCounts::default(),
            first_seen,
            last_seen,
            generation: "".into(),
        }
    }
}

impl SecretRead {
    /// What tells it from other rows.
    #[must_use]
    pub fn identity(&self) -> ReadIdentity {
        ReadIdentity {
            owner: self.owner.clone(),
            source: self.source.clone(),
            key: self.key.clone(),
            relation: self.relation,
            reader: self.reader.clone(),
            program: self.program.clone(),
            uid: self.uid,
        }
    }
}

/// What a reader is to whom a secret belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// A container that mounts it.
    #[serde(rename = "self")]
    Own,
    /// Another container of the same pod, which does not.
    Sibling,
    /// Another pod.
    OtherPod,
    /// A process of the node.
    Node,
    /// The kubelet, by its cgroup: it writes and compares what it mounts.
    Kubelet,
    /// The container runtime, by its cgroup.
    Runtime,
    /// Nobody knows whose the cgroup is, or which of the pod's containers.
    Unknown,
}

/// Who read.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "fields say what they hold")]
pub enum Reader {
    Pod {
        namespace: Arc<str>,
        workload: Workload,
        /// Empty if the pod's object does not name it.
        container: Arc<str>,
    },
    Node {
        /// See [`crate::identity::Place`].
        unit: Arc<str>,
    },
    Unknown {
        reason: Arc<str>,
    },
}

/// The token of a service account in a workload's pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TokenUse {
    /// Whose.
    pub owner: SecretOwner,
    /// `spec.serviceAccountName`.
    pub service_account: Arc<str>,
    /// What mounts it.
    pub mounted_by: TokenMount,
    /// Whether its owner read it.
    pub state: MountState,
    /// Containers that read it.
    pub read_by: Vec<Arc<str>>,
    /// As of a mount, see [`SecretMount`].
    pub watched_since: Option<Timestamp>,
    /// As of a mount.
    pub starts_seen: u64,
    /// As of a mount.
    pub has_gaps: bool,
    /// Nobody reads it and it is there by default: `automountServiceAccountToken: false` would take
    /// it away. Only with a start watched, and without gaps.
    pub is_candidate: bool,
}

/// Why a pod has a token. The pod's own field wins over its service account's; without either it is
/// mounted (plugin/pkg/admission/serviceaccount/admission.go, `shouldAutomount`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenMount {
    /// The pod's `automountServiceAccountToken` is true: there it is to be changed.
    Pod,
    /// The pod has no such field, and its service account's is true.
    ServiceAccount,
    /// Neither has it.
    Default,
    /// A projected volume of its own asks for it.
    Volume,
}
