//! The `secrets` section of the agent's report as a reader of its JSON sees it.
//!
//! In: `/report`. Out: who mounts and who reads what, each in one line of text that makes it
//! different from every other.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Workload;

/// The section.
#[derive(Clone, Debug, Default, Deserialize)]
#[expect(missing_docs, reason = "documented at the agent's report")]
pub struct Secrets {
    pub mounts: Vec<Mount>,
    pub reads: Vec<Read>,
    pub tokens: Vec<Token>,
    pub unattributed: BTreeMap<String, u64>,
}

/// A secret of a workload.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "documented at the agent's report")]
pub struct Mount {
    pub owner: Owner,
    pub source: Source,
    pub way: String,
    pub containers: Vec<String>,
    pub pods: u64,
    pub state: String,
    pub keys: Vec<Key>,
    pub watched_since: String,
    pub starts_seen: u64,
    pub has_gaps: bool,
    pub stale: Vec<Stale>,
}

/// One of its keys.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "documented at the agent's report")]
pub struct Key {
    pub key: String,
    pub path: String,
    pub state: String,
}

/// A container that has an old version.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "documented at the agent's report")]
pub struct Stale {
    pub container: String,
    pub read: String,
    pub current: String,
}

/// Who read what.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "documented at the agent's report")]
pub struct Read {
    pub owner: Owner,
    pub source: Source,
    pub key: String,
    pub relation: String,
    pub reader: Reader,
    pub program: String,
    pub comm: String,
    pub uid: u32,
    pub pid: u32,
    pub counts: ReadCounts,
    pub generation: String,
}

/// How often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "documented at the agent's report")]
pub struct ReadCounts {
    pub opens: u64,
    pub reads: u64,
    pub maps: u64,
    pub held: u64,
}

/// A service account's token.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "documented at the agent's report")]
pub struct Token {
    pub owner: Owner,
    pub mounted_by: String,
    pub state: String,
    pub read_by: Vec<String>,
    pub starts_seen: u64,
    pub has_gaps: bool,
    pub is_candidate: bool,
}

/// Whose a secret is.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "documented at the agent's report")]
pub enum Owner {
    Workload { namespace: String, workload: Workload },
    Node,
    Unknown,
}

/// What it is made of.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "documented at the agent's report")]
pub enum Source {
    Secret { name: String },
    ServiceAccountToken { audience: String },
    ConfigMap { name: String },
    DownwardApi,
    ClusterTrustBundle { name: String },
    Csi { driver: String },
    NodeFile { path: String },
    Unknown { volume: String },
}

/// Who read it.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "documented at the agent's report")]
pub enum Reader {
    Pod { namespace: String, workload: Workload, container: String },
    Node { unit: String },
    Unknown { reason: String },
}

impl Owner {
    /// `namespace/workload`, `node` or `unknown`.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            Self::Workload { namespace, workload } => format!("{namespace}/{}", workload.name),
            Self::Node => "node".to_string(),
            Self::Unknown => "unknown".to_string(),
        }
    }
}

impl Source {
    /// A Secret by its name alone, everything else with a word before.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            Self::Secret { name } => name.clone(),
            Self::ServiceAccountToken { .. } => "token".to_string(),
            Self::ConfigMap { name } => format!("configmap:{name}"),
            Self::DownwardApi => "downward".to_string(),
            Self::ClusterTrustBundle { name } => format!("bundle:{name}"),
            Self::Csi { driver } => format!("csi:{driver}"),
            Self::NodeFile { path } => format!("file:{path}"),
            Self::Unknown { volume } => format!("unknown:{volume}"),
        }
    }
}

impl Reader {
    /// `namespace/workload:container`, the unit, or why nobody knows.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            Self::Pod { namespace, workload, container } => {
                format!("{namespace}/{}:{container}", workload.name)
            }
            Self::Node { unit } => unit.clone(),
            Self::Unknown { reason } => format!("unknown: {reason}"),
        }
    }
}

impl Read {
    /// `a/api db/password <- other_pod a/web:main`.
    #[must_use]
    pub fn shown(&self) -> String {
        let (owner, source, key) = (self.owner.shown(), self.source.shown(), &self.key);
        format!("{owner} {source}/{key} <- {} {}", self.relation, self.reader.shown())
    }
}

impl Mount {
    /// `a/api db by volume`.
    #[must_use]
    pub fn shown(&self) -> String {
        format!("{} {} by {}", self.owner.shown(), self.source.shown(), self.way)
    }
}

impl Secrets {
    /// All that reads so ([`Read::shown`]) together, whatever the program and user.
    #[must_use]
    pub fn counts(&self, shown: &str) -> ReadCounts {
        let mut all = ReadCounts::default();
        for read in self.reads.iter().filter(|read| read.shown() == shown) {
            all.opens += read.counts.opens;
            all.reads += read.counts.reads;
            all.maps += read.counts.maps;
            all.held += read.counts.held;
        }
        all
    }

    /// Each read with its opens.
    #[must_use]
    pub fn opens(&self) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        for read in &self.reads {
            *all.entry(read.shown()).or_default() += read.counts.opens;
        }
        all
    }

    /// The mount that [`Mount::shown`] shows so.
    #[must_use]
    pub fn mount(&self, shown: &str) -> Option<&Mount> {
        self.mounts.iter().find(|mount| mount.shown() == shown)
    }

    /// The token of this workload.
    #[must_use]
    pub fn token(&self, owner: &str) -> Option<&Token> {
        self.tokens.iter().find(|token| token.owner.shown() == owner)
    }
}
