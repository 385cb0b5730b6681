//! The `secrets` section of a report: who mounts which secret, who read it, and whose token nobody
//! needs.
//!
//! In: what the core knows of secrets, or the JSON of an earlier report. Out: [`SecretsReport`],
//! with times in RFC 3339. Fields are added, never renamed or removed, within one
//! [`super::FORMAT`]. It holds names of files, keys and programs and never what is inside of one.

use std::collections::BTreeMap;

use parapet_core::flow::Timestamp;
use parapet_core::secrets::{
    KeyUse, MountState, ReadCounts, Reader, Relation, SecretMount, SecretOwner, SecretRead,
    SecretSource, SecretWay, SecretsSnapshot, StaleReader, TokenMount, TokenUse,
};
use serde::{Deserialize, Serialize};

use super::super::time::rfc3339;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Everything about secrets, as of the report's `at`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretsReport {
    /// What workloads mount, or get otherwise.
    pub mounts: Vec<MountRow>,
    /// Who read what, those that mount it included.
    pub reads: Vec<ReadRow>,
    /// The tokens of service accounts that workloads have.
    pub tokens: Vec<TokenRow>,
    /// Opens that could not be attributed, by reason.
    #[serde(default)]
    pub unattributed: BTreeMap<String, u64>,
    /// In a merged report: nodes that answered, but whose agents do not watch secrets yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_from: Vec<String>,
}

/// One secret of one workload, in one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountRow {
    /// Whose.
    pub owner: SecretOwner,
    /// What.
    pub source: SecretSource,
    /// How it gets into the containers.
    pub way: SecretWay,
    /// Containers that have it, by name.
    pub containers: Vec<String>,
    /// Pods that have it now.
    pub pods: u64,
    /// Whether its owner read it.
    pub state: MountState,
    /// Each key that was seen in the volume.
    pub keys: Vec<KeyRow>,
    /// By its own containers: RFC 3339, empty for never, as all times here.
    pub first_read: String,
    /// See above.
    pub last_read: String,
    /// Since when every open of it was counted; empty where nothing would be seen.
    pub watched_since: String,
    /// Seconds from then to the report's `at`; of a merged one the least of its nodes'.
    pub watched_seconds: u64,
    /// Starts of its containers that were watched from their beginning: many programs read their
    /// secrets then, and never again.
    pub starts_seen: u64,
    /// Opens by its own containers were lost, or could not be attributed: `never_read` is not
    /// certain.
    pub has_gaps: bool,
    /// Containers that read last what a rotation has replaced since.
    pub stale: Vec<StaleRow>,
}

/// One key of a secret, as one file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeyRow {
    /// The key of the Secret object, or of another source the path in the volume.
    pub key: String,
    /// Where it is below the volume's folder.
    pub path: String,
    /// By its own containers.
    pub state: MountState,
    /// Last read by its own containers.
    pub last_read: String,
}

/// A container that still has what a rotation replaced.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StaleRow {
    /// Its name.
    pub container: String,
    /// The version it read last, by the name of its folder.
    pub read: String,
    /// The volume's.
    pub current: String,
    /// When the rotation was seen.
    pub since: String,
    /// In a merged report: where.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
}

/// Who read what, how often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadRow {
    /// Whose secret.
    pub owner: SecretOwner,
    /// What was read.
    pub source: SecretSource,
    /// Which key of it; empty if nobody knows.
    pub key: String,
    /// What the reader is to the owner.
    pub relation: Relation,
    /// Who read.
    pub reader: Reader,
    /// Name of the program's file; empty if nobody knows.
    pub program: String,
    /// Name of the thread that was seen first, which a process may choose; empty if nobody knows.
    pub comm: String,
    /// Effective user id, as the node has it.
    pub uid: u32,
    /// Process id that was seen last, as the node has it; 0 if nobody knows.
    pub pid: u32,
    /// How often it was opened, read, mapped, and found open.
    pub counts: ReadCounts,
    /// First and last open.
    pub first_seen: String,
    /// See above.
    pub last_seen: String,
    /// Version that was read last, by the name of its folder; empty if nobody knows.
    pub generation: String,
    /// In a merged report: nodes on which it was seen.
    #[serde(default, skip_serializing_if = "super::is_zero")]
    pub nodes_total: u64,
    /// The first of them, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
}

/// The token of a service account in a workload's pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRow {
    /// Whose.
    pub owner: SecretOwner,
    /// `spec.serviceAccountName`.
    pub service_account: String,
    /// What mounts it: where `automountServiceAccountToken` has to be changed.
    pub mounted_by: TokenMount,
    /// Whether its owner read it.
    pub state: MountState,
    /// Containers that read it.
    pub read_by: Vec<String>,
    /// As of a mount.
    pub watched_since: String,
    /// As of a mount.
    pub watched_seconds: u64,
    /// As of a mount.
    pub starts_seen: u64,
    /// As of a mount.
    pub has_gaps: bool,
    /// Nobody reads it, and `automountServiceAccountToken: false` would take it away.
    pub is_candidate: bool,
}

impl SecretsReport {
    /// What the core knows, at this time.
    #[must_use]
    pub fn new(snapshot: &SecretsSnapshot, at: Timestamp) -> Self {
        let unattributed = snapshot.unattributed.iter();
        Self {
            mounts: snapshot.mounts.iter().map(|mount| MountRow::of(mount, at)).collect(),
            reads: snapshot.reads.iter().map(|read| ReadRow::of(read)).collect(),
            tokens: snapshot.tokens.iter().map(|token| TokenRow::of(token, at)).collect(),
            unattributed: unattributed.map(|(why, n)| ((*why).to_owned(), *n)).collect(),
            not_from: Vec::new(),
        }
    }
}

impl MountRow {
    fn of(mount: &SecretMount, at: Timestamp) -> Self {
        Self {
            owner: mount.owner.clone(),
            source: mount.source.clone(),
            way: mount.way,
            containers: texts(&mount.containers),
            pods: mount.pods,
            state: mount.state,
            keys: mount.keys.iter().map(KeyRow::of).collect(),
            first_read: time(mount.first_read),
            last_read: time(mount.last_read),
            watched_since: time(mount.watched_since),
            watched_seconds: watched_seconds(mount.watched_since, at),
            starts_seen: mount.starts_seen,
            has_gaps: mount.has_gaps,
            stale: mount.stale.iter().map(StaleRow::of).collect(),
        }
    }
}

impl KeyRow {
    fn of(key: &KeyUse) -> Self {
        Self {
            key: key.key.to_string(),
            path: key.path.to_string(),
            state: key.state,
            last_read: time(key.last_read),
        }
    }
}

impl StaleRow {
    fn of(stale: &StaleReader) -> Self {
        Self {
            container: stale.container.to_string(),
            read: stale.read.to_string(),
            current: stale.current.to_string(),
            since: rfc3339(stale.since),
            node: String::new(),
        }
    }
}

impl ReadRow {
    fn of(read: &SecretRead) -> Self {
        Self {
            owner: read.owner.clone(),
            source: read.source.clone(),
            key: read.key.to_string(),
            relation: read.relation,
            reader: read.reader.clone(),
            program: read.program.to_string(),
            comm: read.comm.to_string(),
            uid: read.uid,
            pid: read.pid,
            counts: read.counts,
            first_seen: rfc3339(read.first_seen),
            last_seen: rfc3339(read.last_seen),
            generation: read.generation.to_string(),
            nodes_total: 0,
            nodes: Vec::new(),
        }
    }
}

impl TokenRow {
    fn of(token: &TokenUse, at: Timestamp) -> Self {
        Self {
            owner: token.owner.clone(),
            service_account: token.service_account.to_string(),
            mounted_by: token.mounted_by,
            state: token.state,
            read_by: texts(&token.read_by),
            watched_since: time(token.watched_since),
            watched_seconds: watched_seconds(token.watched_since, at),
            starts_seen: token.starts_seen,
            has_gaps: token.has_gaps,
            is_candidate: token.is_candidate,
        }
    }
}

fn texts(names: &[std::sync::Arc<str>]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

fn time(at: Option<Timestamp>) -> String {
    at.map(rfc3339).unwrap_or_default()
}

fn watched_seconds(since: Option<Timestamp>, at: Timestamp) -> u64 {
    since.map_or(0, |since| at.0.saturating_sub(since.0) / NANOS_PER_SECOND)
}
