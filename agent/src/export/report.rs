//! The report: what was seen and what every policy set says of it, as one stable document.
//!
//! In: a snapshot, or the JSON of an earlier report. Out: [`Report`], which is `/report`, evidence
//! in a file and the input of every table. Fields are added, never renamed or removed, within one
//! [`Report::format`]. It judges nothing.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use parapet_core::engine::{DEFAULT_DENY, ENFORCED};
use parapet_core::flow::{Direction, Outcome, Protocol, Timestamp, Workload};
use parapet_core::identity::Rewritten;
use parapet_core::record::Counts;
use parapet_core::snapshot::{Edge, EdgeEnd, EndSide, NameFacts, RejectedPolicy, Snapshot};
use parapet_core::verdict::{Delta, Verdict};
use serde::{Deserialize, Serialize};

use self::secrets::SecretsReport;
use super::time::rfc3339;

pub mod form;
pub mod merge;
pub mod render;
pub mod secrets;
pub mod select;
pub mod words;

/// Raised when a field changes its meaning or goes away.
pub const FORMAT: u32 = 1;

/// Everything the agent knows, as of one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// The node it is from; empty in a merged one, and if nobody told the agent.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// In one that was merged from those of many nodes: what each of them is worth.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeRow>,
    /// When it was made: RFC 3339, empty before the first step. Of a merged one the first of its
    /// nodes', as `observing_since` is the last: in between all of them watched.
    pub at: String,
    /// The newest packet of all edges, in nanoseconds since the epoch: the `since` of the next
    /// `/flows`.
    pub newest_ns: u64,
    /// When observation began: RFC 3339.
    pub observing_since: String,
    /// False until every source had its first full list; until then no edge has a verdict.
    pub synced: bool,
    /// `enforced` and `default-deny` first, then the candidates.
    pub policy_sets: Vec<String>,
    /// In the order of their keys.
    pub edges: Vec<EdgeRow>,
    /// Policies that no set holds because the API server would refuse them.
    #[serde(default)]
    pub rejections: Vec<serde_json::Value>,
    /// Policies that let less pass than they say, because they hold something newer than Parapet.
    #[serde(default)]
    pub notices: Vec<serde_json::Value>,
    /// Losses by stage since start.
    pub lost: BTreeMap<String, u64>,
    /// Ends that could not be resolved.
    pub unattributed: Vec<UnattributedRow>,
    /// Records that wait for an identity.
    pub pending: u64,
    /// Records counted before the first full lists, not judged yet.
    pub unjudged: u64,
    /// Since when verdicts rest on what may not be so any more: the API server does not answer.
    /// RFC 3339, absent if they do not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stale_since: String,
    /// Who mounts and who reads secrets; absent in evidence of agents that did not watch them, and
    /// in news of flows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<SecretsReport>,
}

/// One node of a merged report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRow {
    /// Its name in the cluster.
    pub node: String,
    /// Why nothing is known of it; absent if it answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// RFC 3339; empty if it did not answer.
    #[serde(default)]
    pub at: String,
    /// RFC 3339; empty if it did not answer.
    #[serde(default)]
    pub observing_since: String,
    /// As in its report.
    #[serde(default)]
    pub synced: bool,
    /// Edges in its report.
    #[serde(default)]
    pub edges: u64,
}

/// Where an edge of a merged report was seen, at one of its ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenRow {
    /// The end.
    pub direction: Option<Direction>,
    /// Attempts seen there, by all nodes.
    pub attempts: u64,
    /// Nodes that saw it.
    pub nodes_total: u64,
    /// The first of them, by name.
    pub nodes: Vec<String>,
}

/// All flows with the same ends, protocol, port and direction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EdgeRow {
    /// Which end this node saw; null if nothing told who began. In a merged report the end whose
    /// counts are shown, which is the one that saw more.
    pub direction: Option<Direction>,
    /// By its well-known name (`TCP`, `UDP`, `SCTP`, `ICMP`, ..), else its number.
    pub protocol: String,
    /// The target's own port, after any Service; 0 if not known.
    pub target_port: u16,
    /// Who began.
    pub source: EndRow,
    /// Who was asked.
    pub target: EndRow,
    /// Absent, or how it is known that the source is a node that stands for somebody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_rewritten: Option<Rewritten>,
    /// Packets, bytes and attempts.
    pub counts: Counts,
    /// Attempts by how they ended; none of these ever goes down.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// Attempts that have not ended yet: `attempts` is the sum of these and of `outcomes`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub open: u64,
    /// Refusals by what they were told with; their sum is `counts.refused`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refusals: BTreeMap<Refusal, u64>,
    /// How long a TCP handshake took on average, in microseconds; known where it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_us_mean: Option<u64>,
    /// RFC 3339.
    pub first_seen: String,
    /// RFC 3339.
    pub last_seen: String,
    /// Policy set to what it says; empty while unjudged.
    pub verdicts: BTreeMap<String, Verdict>,
    /// Policy set to how it differs from `enforced`.
    pub deltas: BTreeMap<String, Delta>,
    /// Policy set to the directions in which its first policy isolates the pod: none does under
    /// `enforced`, so everything that policy does not name is denied at once.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub newly_isolated: BTreeMap<String, Vec<Direction>>,
    /// In a merged report: at which ends it was seen, and by whom.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seen: Vec<SeenRow>,
}

/// What told that an attempt is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// A TCP reset, or an SCTP abort: the host is there and nobody listens.
    Reset,
    /// ICMP "port unreachable" or "protocol unreachable": the same, for other protocols.
    PortUnreachable,
    /// Another ICMP "unreachable": no route, no such host, or a filter that says so.
    RouteOrFilter,
}

/// One end of an edge.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the ends of the snapshot, fields say what they hold")]
pub enum EndRow {
    Pod {
        namespace: String,
        workload: Workload,
    },
    Node {
        name: String,
        /// Of a process of the node that was watched, its unit; empty for the root cgroup.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cgroup: Option<String>,
    },
    Service {
        namespace: String,
        name: String,
    },
    External {
        address: IpAddr,
    },
    Multicast {
        address: IpAddr,
    },
    Broadcast {
        address: IpAddr,
    },
    Name(NameRow),
    Loopback,
    Unknown {
        reason: String,
    },
}

/// An outside end by the name it was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NameRow {
    /// Lower case, without a final dot.
    pub name: String,
    /// The addresses it led to while it was used.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// Other names that led to one of them at the time: an attempt may have meant one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
    /// There were more addresses or other names than are listed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_cut: bool,
}

/// How many ends of one side could not be resolved for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnattributedRow {
    /// Which end.
    pub side: EndSide,
    /// Why, from a closed list.
    pub reason: String,
    /// In attempts, or records without one.
    pub count: u64,
}

impl Report {
    /// The snapshot as a report; only edges with a packet after `since`, and nothing of secrets, if
    /// it is given.
    #[must_use]
    pub fn new(snapshot: &Snapshot, since: Option<Timestamp>) -> Self {
        let edges = snapshot.edges.iter();
        let edges = edges.filter(|edge| since.is_none_or(|since| edge.last_seen > since));
        Self {
            format: FORMAT,
            node: String::new(),
            nodes: Vec::new(),
            at: rfc3339(snapshot.at),
            newest_ns: snapshot.edges.iter().map(|edge| edge.last_seen.0).max().unwrap_or(0),
            observing_since: rfc3339(snapshot.observing_since),
            synced: snapshot.synced,
            policy_sets: snapshot.policy_sets.iter().map(ToString::to_string).collect(),
            rejections: told(&snapshot.rejections),
            notices: told(&snapshot.notices),
            edges: edges.map(|edge| EdgeRow::of(edge)).collect(),
            lost: super::status::losses(snapshot)
                .into_iter()
                .map(|(stage, count)| (stage.to_owned(), count))
                .collect(),
            unattributed: snapshot
                .unattributed
                .iter()
                .map(|((side, reason), count)| UnattributedRow {
                    side: *side,
                    reason: (*reason).to_owned(),
                    count: *count,
                })
                .collect(),
            pending: snapshot.pending,
            unjudged: snapshot.unjudged,
            stale_since: String::new(),
            secrets: since.is_none().then(|| SecretsReport::new(&snapshot.secrets, snapshot.at)),
        }
    }

    /// The nodes that did not answer, and why.
    pub fn silent(&self) -> impl Iterator<Item = (&str, &str)> {
        let nodes = self.nodes.iter();
        nodes.filter_map(|row| Some((row.node.as_str(), row.problem.as_deref()?)))
    }

    /// How many edges fall into each delta, for every set that is compared with `enforced`.
    #[must_use]
    pub fn delta_counts(&self) -> BTreeMap<&str, BTreeMap<Delta, u64>> {
        let mut counts: BTreeMap<&str, BTreeMap<Delta, u64>> = BTreeMap::new();
        for (set, delta) in self.edges.iter().flat_map(|edge| &edge.deltas) {
            *counts.entry(set).or_default().entry(*delta).or_default() += 1;
        }
        counts
    }
}

/// As the core writes them: policy set, object, field and what is wrong.
fn told(rejections: &[RejectedPolicy]) -> Vec<serde_json::Value> {
    rejections.iter().filter_map(|one| serde_json::to_value(one).ok()).collect()
}

/// Of the sets that are candidates only: every pod is newly isolated by `default-deny`.
fn newly_isolated(edge: &Edge) -> BTreeMap<String, Vec<Direction>> {
    let Some(enforced) = edge.judgement.verdicts.get(ENFORCED) else { return BTreeMap::new() };
    let candidates = edge
        .judgement
        .verdicts
        .iter()
        .filter(|(set, _)| !matches!(&***set, ENFORCED | DEFAULT_DENY));
    candidates
        .map(|(set, verdict)| (set.to_string(), verdict.newly_isolated(enforced)))
        .filter(|(_, directions)| !directions.is_empty())
        .collect()
}

impl Refusal {
    /// How many of each there are in an edge's counts.
    pub fn counts(counts: &Counts) -> impl Iterator<Item = (Self, u64)> {
        let unreachable = counts.refused_port.saturating_add(counts.refused_route);
        [
            (Self::Reset, counts.refused.saturating_sub(unreachable)),
            (Self::PortUnreachable, counts.refused_port),
            (Self::RouteOrFilter, counts.refused_route),
        ]
        .into_iter()
    }
}

/// None where nothing was measured: the time is known at the end that sent the SYN.
fn mean_us(direction: Option<Direction>, counts: &Counts) -> Option<u64> {
    let Counts { answered, handshake_ns, .. } = *counts;
    let measured = direction == Some(Direction::Egress) && handshake_ns > 0;
    let mean_ns = if measured { handshake_ns.checked_div(answered)? } else { return None };
    Some(mean_ns / 1_000)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl NodeRow {
    fn of(report: &Report) -> Self {
        Self {
            node: report.node.clone(),
            problem: None,
            at: report.at.clone(),
            observing_since: report.observing_since.clone(),
            synced: report.synced,
            edges: report.edges.len() as u64,
        }
    }
}

impl EdgeRow {
    fn of(edge: &Edge) -> Self {
        Self {
            direction: edge.key.direction,
            protocol: Protocol(edge.key.protocol).to_string(),
            target_port: edge.key.target_port,
            source: EndRow::of(&edge.key.source, edge.names.as_deref()),
            target: EndRow::of(&edge.key.target, edge.names.as_deref()),
            source_rewritten: edge.key.source_rewritten,
            counts: edge.counts,
            outcomes: edge.outcomes.iter().collect(),
            open: edge.open,
            refusals: Refusal::counts(&edge.counts).filter(|(_, count)| *count > 0).collect(),
            handshake_us_mean: mean_us(edge.key.direction, &edge.counts),
            first_seen: rfc3339(edge.first_seen),
            last_seen: rfc3339(edge.last_seen),
            verdicts: edge
                .judgement
                .verdicts
                .iter()
                .map(|(set, verdict)| (set.to_string(), Verdict::clone(verdict)))
                .collect(),
            deltas: edge
                .judgement
                .deltas
                .iter()
                .map(|(set, delta)| (set.to_string(), *delta))
                .collect(),
            newly_isolated: newly_isolated(edge),
            seen: Vec::new(),
        }
    }

    /// The ends at which it was seen; none if nothing told who began.
    #[must_use]
    pub fn seen_at(&self) -> Vec<Direction> {
        match self.seen.is_empty() {
            true => self.direction.into_iter().collect(),
            false => self.seen.iter().filter_map(|seen| seen.direction).collect(),
        }
    }

    /// Of a merged report: the node whose end is shown, if it is only one.
    #[must_use]
    pub fn seen_by_one(&self) -> Option<&str> {
        let shown = self.seen.iter().find(|seen| seen.direction == self.direction)?;
        match shown.nodes.as_slice() {
            [node] if shown.nodes_total == 1 => Some(node),
            _ => None,
        }
    }

    /// The namespace of either end that is a pod or a Service.
    #[must_use]
    pub fn touches(&self, namespace: &str) -> bool {
        [&self.source, &self.target].into_iter().any(|end| end.namespace() == Some(namespace))
    }
}

impl EndRow {
    fn of(end: &EdgeEnd, names: Option<&NameFacts>) -> Self {
        match end {
            EdgeEnd::Pod { namespace, workload } => {
                Self::Pod { namespace: namespace.to_string(), workload: workload.clone() }
            }
            EdgeEnd::Node { name, cgroup } => {
                Self::Node { name: name.to_string(), cgroup: cgroup.as_deref().map(str::to_owned) }
            }
            EdgeEnd::Service { namespace, name } => {
                Self::Service { namespace: namespace.to_string(), name: name.to_string() }
            }
            EdgeEnd::External { address } => Self::External { address: *address },
            EdgeEnd::Multicast { address } => Self::Multicast { address: *address },
            EdgeEnd::Broadcast { address } => Self::Broadcast { address: *address },
            EdgeEnd::Name { name } => Self::Name(NameRow {
                name: name.to_string(),
                addresses: names.iter().flat_map(|names| &names.addresses).copied().collect(),
                also: names.iter().flat_map(|names| &names.also).map(ToString::to_string).collect(),
                is_cut: names.is_some_and(|names| names.is_cut),
            }),
            EdgeEnd::Loopback => Self::Loopback,
            EdgeEnd::Unknown { reason } => Self::Unknown { reason: (*reason).to_owned() },
        }
    }

    /// The end as policies know it: whatever process of a node it is.
    #[must_use]
    pub fn without_cgroup(&self) -> Cow<'_, Self> {
        match self {
            Self::Node { name, cgroup: Some(_) } => {
                Cow::Owned(Self::Node { name: name.clone(), cgroup: None })
            }
            _ => Cow::Borrowed(self),
        }
    }

    /// The namespace, for an end that has one.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::Pod { namespace, .. } | Self::Service { namespace, .. } => Some(namespace),
            _ => None,
        }
    }
}

impl std::fmt::Display for EndRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pod { namespace, workload } => write!(f, "{namespace}/{}", workload.name),
            Self::Node { name, cgroup } => {
                f.write_str("node")?;
                if !name.is_empty() {
                    write!(f, ":{name}")?;
                }
                match cgroup.as_deref() {
                    Some("") => f.write_str(" (root cgroup)"),
                    Some(unit) => write!(f, " ({unit})"),
                    None => Ok(()),
                }
            }
            Self::Service { namespace, name } => write!(f, "service:{namespace}/{name}"),
            Self::External { address } => write!(f, "{address}"),
            Self::Multicast { address } => write!(f, "multicast:{address}"),
            Self::Broadcast { address } => write!(f, "broadcast:{address}"),
            Self::Name(NameRow { name, .. }) => f.write_str(name),
            Self::Loopback => f.write_str("loopback"),
            Self::Unknown { reason } => write!(f, "unknown ({})", reason.replace('_', " ")),
        }
    }
}
