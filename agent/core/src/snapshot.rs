//! The engine's answer at one moment, shared with everyone who reads: metrics, report, API, CLI.
//!
//! In: the ledger and the policy sets, by the engine. Out: plain values in a stable order, ready to
//! be serialised. It never holds a pod name or an address outside of an [`EdgeEnd`]'s own fields.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

use crate::flow::{Direction, Outcome, Timestamp, Workload};
use crate::identity::Rewritten;
use crate::judgement::Judgement;
use crate::policy::Rejection;
use crate::record::Counts;
use crate::secrets::SecretsSnapshot;
use crate::verdict::{Decision, Reason};

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
    /// Ends that could not be resolved, by (side, reason), since start. In attempts or, for flows
    /// without, records.
    #[serde(serialize_with = "unattributed_rows")]
    pub unattributed: BTreeMap<(EndSide, &'static str), u64>,
    /// Records that wait for an identity.
    pub pending: u64,
    /// Records counted before the first full lists, not judged yet.
    pub unjudged: u64,
    /// Table name to (entries, capacity).
    pub tables: BTreeMap<&'static str, (u64, u64)>,
    /// Policies that no set holds because the API server would refuse them.
    pub rejections: Vec<RejectedPolicy>,
    /// Policies that are judged, but let less pass than they say: they hold something newer than
    /// this program, and fail closed.
    pub notices: Vec<RejectedPolicy>,
    /// What was said of each attempt when it was seen.
    #[serde(serialize_with = "verdict_rows")]
    pub verdict_totals: VerdictTotals,
    /// Who mounts and who reads secrets.
    pub secrets: Arc<SecretsSnapshot>,
}

/// A policy, or another object of a candidate, that is not judged.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct RejectedPolicy {
    /// `enforced` or the candidate's name.
    pub policy_set: Arc<str>,
    /// What is wrong with which object.
    #[serde(flatten)]
    pub rejection: Rejection,
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
    /// What it is about. Shared by everything that is kept by edge.
    pub key: Arc<EdgeKey>,
    /// Counts since the edge was first seen. Sent and received as the source means them.
    pub counts: Counts,
    /// Attempts by how they ended: `attempts` = answered + refused + unanswered + [`Self::open`],
    /// and none of these but the last ever goes down. An answer to an attempt that is called
    /// unanswered is in the counts alone.
    pub outcomes: Outcomes,
    /// Attempts that have not ended yet, none of them for much longer than
    /// [`crate::ledger::UNANSWERED_AFTER_NS`].
    pub open: u64,
    /// First packet.
    pub first_seen: Timestamp,
    /// Last packet.
    pub last_seen: Timestamp,
    /// What the target's name stands for; none unless the target has one.
    #[serde(serialize_with = "name_facts")]
    pub names: Option<Arc<NameFacts>>,
    /// What the policy sets say of it; one value for all edges of which they say the same.
    #[serde(flatten)]
    pub judgement: Arc<Judgement>,
}

/// Attempts by how they ended. Those that none ended in are left out where it is listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcomes([u64; Outcome::ALL.len()]);

/// What the name of an edge's target stood for while it was used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NameFacts {
    /// The addresses that were used.
    pub addresses: BTreeSet<IpAddr>,
    /// Other names that led to one of them at the time: an attempt may have meant one of these.
    pub also: BTreeSet<Arc<str>>,
    /// There were more addresses or names than are kept.
    pub is_cut: bool,
}

/// Addresses and other names kept of one edge.
pub const NAME_FACTS_MAX: usize = 32;

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
    /// The source is a node that put its own address before another's, and how that is known: what
    /// the node itself sends is another edge.
    pub source_rewritten: Option<Rewritten>,
}

impl EdgeKey {
    /// The end that is on this node.
    #[must_use]
    pub fn local_end(&self) -> &EdgeEnd {
        if self.direction == Some(Direction::Ingress) { &self.target } else { &self.source }
    }
}

/// One end of an edge.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "fields say what they hold")]
pub enum EdgeEnd {
    Pod {
        namespace: Arc<str>,
        workload: Workload,
    },
    Node {
        name: Arc<str>,
        /// Of a process of this node, its unit: see [`crate::identity::Place`].
        #[serde(skip_serializing_if = "Option::is_none")]
        cgroup: Option<Arc<str>>,
    },
    /// A Service whose backends disagree or are not known.
    Service {
        namespace: Arc<str>,
        name: Arc<str>,
    },
    /// By address: an outside end.
    External {
        address: IpAddr,
    },
    /// An outside end by the name it was asked for, lower case.
    Name {
        name: Arc<str>,
    },
    /// Many at once, by a group's address.
    Multicast {
        address: std::net::IpAddr,
    },
    /// All of a network, by its address.
    Broadcast {
        address: std::net::IpAddr,
    },
    Loopback,
    Unknown {
        reason: &'static str,
    },
}

impl NameFacts {
    /// These names led to this address.
    pub fn add(&mut self, names: &[Arc<str>], address: Option<IpAddr>) {
        if let Some(address) = address.filter(|address| !self.addresses.contains(address)) {
            self.is_cut |= self.addresses.len() >= NAME_FACTS_MAX;
            if self.addresses.len() < NAME_FACTS_MAX {
                self.addresses.insert(address);
            }
        }
        for name in names.iter().skip(1) {
            if self.also.contains(name) {
                continue;
            }
            self.is_cut |= self.also.len() >= NAME_FACTS_MAX;
            if self.also.len() < NAME_FACTS_MAX {
                self.also.insert(name.clone());
            }
        }
    }
}

impl Outcomes {
    /// How many ended so.
    #[must_use]
    pub fn get(&self, outcome: Outcome) -> u64 {
        self.0[outcome as usize]
    }

    /// From now on so many.
    pub fn set(&mut self, outcome: Outcome, count: u64) {
        self.0[outcome as usize] = count;
    }

    /// So many more.
    pub fn add(&mut self, outcome: Outcome, count: u64) {
        self.set(outcome, self.get(outcome).saturating_add(count));
    }

    /// Those that are not zero, in the order of [`Outcome::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (Outcome, u64)> {
        let all = Outcome::ALL.into_iter().zip(self.0);
        all.filter(|(_, count)| *count > 0)
    }
}

impl FromIterator<(Outcome, u64)> for Outcomes {
    fn from_iter<I: IntoIterator<Item = (Outcome, u64)>>(counts: I) -> Self {
        let mut outcomes = Self::default();
        counts.into_iter().for_each(|(outcome, count)| outcomes.add(outcome, count));
        outcomes
    }
}

impl Serialize for Outcomes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl Edge {
    /// Whether this edge is the one to count a denial of this policy set on. A flow between two
    /// pods is seen at both of its ends and makes two edges; each holds the same verdict, and the
    /// denial belongs to the one on whose side it is decided (see
    /// [`crate::verdict::Verdict::deciding`]).
    #[must_use]
    pub fn would_be_denied(&self, policy_set: &str) -> bool {
        self.judgement.verdicts.get(policy_set).is_some_and(|verdict| {
            verdict.decision == Decision::Denied && Some(verdict.deciding().0) == self.key.direction
        })
    }
}

/// Totals that stay exact however many edges are folded: (policy set, direction, decision, reason)
/// to attempts. The direction is the edge's, decision and reason are those of that side alone:
/// egress is counted where the source is local, ingress where the target is, so that each side of
/// an attempt is counted once in the cluster. Attempts of unknown direction are in no total.
pub type VerdictTotals = BTreeMap<(Arc<str>, Direction, Decision, Reason), u64>;

#[derive(Serialize)]
struct UnattributedRow<'a> {
    side: EndSide,
    reason: &'a str,
    count: u64,
}

#[derive(Serialize)]
struct VerdictRow<'a> {
    policy_set: &'a str,
    direction: Direction,
    decision: Decision,
    reason: Reason,
    attempts: u64,
}

/// What no name stands for is written like a name's facts.
#[expect(clippy::ref_option, reason = "serde hands over the field")]
fn name_facts<S: Serializer>(
    names: &Option<Arc<NameFacts>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match names {
        Some(names) => names.serialize(serializer),
        None => NameFacts::default().serialize(serializer),
    }
}

fn unattributed_rows<S: Serializer>(
    totals: &BTreeMap<(EndSide, &'static str), u64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let rows = totals.iter();
    serializer.collect_seq(rows.map(|(&(side, reason), &count)| UnattributedRow {
        side,
        reason,
        count,
    }))
}

fn verdict_rows<S: Serializer>(totals: &VerdictTotals, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(totals.iter().map(|((set, direction, decision, reason), attempts)| {
        VerdictRow {
            policy_set: set,
            direction: *direction,
            decision: *decision,
            reason: *reason,
            attempts: *attempts,
        }
    }))
}
