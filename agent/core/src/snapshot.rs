//! The engine's answer at one moment, shared with everyone who reads: metrics, report, API, CLI.
//!
//! In: the ledger and the policy sets, by the engine. Out: plain values in a stable order, ready to be
//! serialised. It never holds a pod name or an address outside of an [`EdgeEnd`]'s own fields.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::flow::{Direction, Outcome, Timestamp, Workload};
use crate::record::Counts;
use crate::verdict::{Decision, Delta, Reason, Verdict};

/// Everything the agent knows, as of one step.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Snapshot {
    /// When the step was made.
    pub at: Timestamp,
    /// When observation began.
    pub observing_since: Timestamp,
    /// False until every source had its first full list; until then no edge has a verdict.
    pub synced: bool,
    /// Edges in the order of their keys.
    pub edges: Vec<Arc<Edge>>,
    /// The names of the policy sets, `enforced` and `default-deny` first.
    pub policy_sets: Vec<Arc<str>>,
    /// Losses by stage since start, those of the kernel and of user space.
    pub lost: BTreeMap<&'static str, u64>,
    /// Ends that could not be resolved, by (side, reason), since start. In attempts or, for flows without, records.
    pub unattributed: BTreeMap<(EndSide, &'static str), u64>,
    /// Records that wait for an identity.
    pub pending: u64,
    /// Records counted before the first full lists, not judged yet.
    pub unjudged: u64,
    /// Table name to (entries, capacity).
    pub tables: BTreeMap<&'static str, (u64, u64)>,
}

/// Which end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the words of the design")]
pub enum EndSide {
    Source,
    Target,
}

/// All flows with the same workloads (or outside address), protocol, port and direction.
#[derive(Clone, Debug, Serialize)]
pub struct Edge {
    /// What it is about.
    pub key: EdgeKey,
    /// Counts since the edge was first seen. Sent and received as the source means them.
    pub counts: Counts,
    /// Attempts by how they ended. `attempts` = answered + refused + unanswered; still open ones are unanswered.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// First packet.
    pub first_seen: Timestamp,
    /// Last packet.
    pub last_seen: Timestamp,
    /// Policy set name to what it says. Empty while unjudged.
    pub verdicts: BTreeMap<Arc<str>, Arc<Verdict>>,
    /// Candidate (or `default-deny`) name to how it differs from `enforced`.
    pub deltas: BTreeMap<Arc<str>, Delta>,
}

/// Identifies an edge.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct EdgeKey {
    /// Which end this node saw: egress is judged at the source's node, ingress at the target's.
    /// None if nothing told who began; then `source` is the local end.
    pub direction: Option<Direction>,
    /// IP protocol number.
    pub protocol: u8,
    /// The target's own port, after any Service; 0 if not known.
    pub target_port: u16,
    /// Who began.
    pub source: EdgeEnd,
    /// Who was asked.
    pub target: EdgeEnd,
}

/// One end of an edge.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "fields say what they hold")]
pub enum EdgeEnd {
    Pod { namespace: Arc<str>, workload: Workload },
    Node { name: Arc<str> },
    /// A Service whose backends disagree or are not known.
    Service { namespace: Arc<str>, name: Arc<str> },
    /// By address: an outside end.
    External { address: std::net::IpAddr },
    Loopback,
    Unknown { reason: &'static str },
}

/// Totals that stay exact however many edges are folded: (policy set, direction, decision, reason) to attempts.
pub type VerdictTotals = BTreeMap<(Arc<str>, Direction, Decision, Reason), u64>;
