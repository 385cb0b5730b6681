//! The agent's report as a reader of its JSON sees it.
//!
//! In: `/report`. Out: edges by who talked to whom. It knows only the documented fields, so that a
//! test fails when one of them goes away, and it depends on no type of the agent.

use std::collections::BTreeMap;

use serde::Deserialize;

use self::secrets::Secrets;

pub mod secrets;

/// The document.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "documented at the agent's report")]
pub struct Report {
    pub synced: bool,
    pub policy_sets: Vec<String>,
    pub edges: Vec<Edge>,
    pub lost: BTreeMap<String, u64>,
    pub pending: u64,
    pub unjudged: u64,
    /// Absent unless secrets are watched.
    #[serde(default)]
    pub secrets: Secrets,
}

/// One edge.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "documented at the agent's report")]
pub struct Edge {
    pub direction: Option<String>,
    pub protocol: String,
    pub target_port: u16,
    pub source: End,
    pub target: End,
    /// Absent unless the source is not who began.
    pub source_rewritten: Option<String>,
    pub counts: EdgeCounts,
    pub outcomes: BTreeMap<String, u64>,
    pub verdicts: BTreeMap<String, Verdict>,
    pub deltas: BTreeMap<String, String>,
}

/// One end.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "documented at the agent's report")]
pub struct End {
    pub kind: String,
    pub namespace: Option<String>,
    pub workload: Option<Workload>,
    pub name: Option<String>,
    pub address: Option<String>,
    #[serde(default)]
    pub addresses: Vec<String>,
    #[serde(default)]
    pub also: Vec<String>,
}

/// A workload.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "documented at the agent's report")]
pub struct Workload {
    pub kind: String,
    pub name: String,
}

/// Counts of an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "documented at the agent's report")]
pub struct EdgeCounts {
    pub attempts: u64,
    pub answered: u64,
    pub refused: u64,
    pub sent_packets: u64,
    pub received_packets: u64,
}

/// What a policy set says.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "documented at the agent's report")]
pub struct Verdict {
    pub decision: String,
    pub egress: Side,
    pub ingress: Side,
}

/// One side of it.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "documented at the agent's report")]
pub struct Side {
    pub decision: String,
    pub reason: String,
    pub effects: Vec<Effect>,
}

/// A policy's part in it.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "documented at the agent's report")]
pub struct Effect {
    pub policy: String,
}

impl End {
    /// `namespace/workload`, the address, or the name.
    #[must_use]
    pub fn shown(&self) -> String {
        match (&self.namespace, &self.workload, &self.name, &self.address) {
            (Some(namespace), Some(workload), ..) => format!("{namespace}/{}", workload.name),
            (Some(namespace), None, Some(name), _) => format!("{namespace}/{name}"),
            (_, _, _, Some(address)) => address.clone(),
            (_, _, Some(name), _) => name.clone(),
            _ => self.kind.clone(),
        }
    }
}

impl Edge {
    /// `egress a/b -> c/d TCP/80`, with ` (rewritten: WORD)` where that is so: what makes it
    /// different from every other edge.
    #[must_use]
    pub fn shown(&self) -> String {
        let direction = self.direction.as_deref().unwrap_or("unknown");
        let (source, target) = (self.source.shown(), self.target.shown());
        let rewritten = self.source_rewritten.as_ref();
        let rewritten = rewritten.map(|how| format!(" (rewritten: {how})")).unwrap_or_default();
        let port = self.target_port;
        format!("{direction} {source} -> {target} {}/{port}{rewritten}", self.protocol)
    }

    /// How its attempts ended, without the words nobody used.
    #[must_use]
    pub fn ended(&self) -> Vec<(&str, u64)> {
        let used = self.outcomes.iter().filter(|(_, count)| **count > 0);
        used.map(|(word, count)| (word.as_str(), *count)).collect()
    }
}

impl Report {
    /// The edge that [`Edge::shown`] shows so.
    #[must_use]
    pub fn edge(&self, shown: &str) -> Option<&Edge> {
        self.edges.iter().find(|edge| edge.shown() == shown)
    }

    /// How the attempts on this edge ended; nothing if there is no such edge.
    #[must_use]
    pub fn ended(&self, shown: &str) -> Vec<(&str, u64)> {
        self.edge(shown).map(Edge::ended).unwrap_or_default()
    }
}
