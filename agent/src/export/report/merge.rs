//! Reports of many nodes as one.
//!
//! In: reports, each from one node, and the nodes that did not answer. Out: one [`Report`] in which
//! a flow that was seen at both of its ends counts once. A [`Fleet`] keeps one report a node, the
//! newer one, and is only summed up when it is asked: that is why neither order nor repetition
//! changes the result. It judges nothing: of what the nodes said it takes each end's own word.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use parapet_core::engine::{DEFAULT_DENY, ENFORCED};
use parapet_core::flow::Direction;
use parapet_core::identity::Rewritten;
use parapet_core::record::Counts;
use parapet_core::verdict::{Decision, Delta, Verdict};

use super::{EdgeRow, EndRow, FORMAT, NodeRow, Refusal, Report, SeenRow, UnattributedRow};

/// Nodes that are named at an edge; the others are counted.
pub const NODES_PER_EDGE_MAX: usize = 8;
/// Addresses, and other names, that one outside name keeps.
const NAME_FACTS_MAX: usize = 64;

/// What is known of a cluster's nodes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fleet {
    nodes: BTreeMap<String, Report>,
    /// Nodes that should have answered, and why they did not.
    silent: BTreeMap<String, String>,
}

/// Where an edge may be seen, in the order in which they are told.
const SIDES: [Option<Direction>; 3] = [Some(Direction::Egress), Some(Direction::Ingress), None];

/// An edge whatever end it was seen at, without what only its own node knows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EdgeName {
    source: EndRow,
    target: EndRow,
    protocol: String,
    target_port: u16,
    source_rewritten: Option<Rewritten>,
    /// Whether it is known who began. Where it is not, the ends are in the order of who tells.
    has_direction: bool,
}

/// One edge as one node tells it.
type Told<'a> = (&'a str, &'a EdgeRow);

impl Fleet {
    /// A node's report. The newer of two counts; of two of one moment, the same one wherever it
    /// comes from.
    pub fn add(&mut self, report: Report) {
        match self.nodes.get_mut(&report.node) {
            Some(known) if rank(known) >= rank(&report) => {}
            Some(known) => *known = report,
            None => {
                self.silent.remove(&report.node);
                self.nodes.insert(report.node.clone(), report);
            }
        }
    }

    /// What changed on a node since its last report, with the edges that are in it alone. True: it
    /// began anew, and what was known of it is gone.
    pub fn update(&mut self, mut report: Report) -> bool {
        let began_anew = match self.nodes.remove(&report.node) {
            Some(known) if known.observing_since == report.observing_since => {
                let changed: BTreeSet<_> = report.edges.iter().map(row_key).collect();
                let kept = known.edges.into_iter().filter(|row| !changed.contains(&row_key(row)));
                let kept: Vec<EdgeRow> = kept.collect();
                report.edges.extend(kept);
                false
            }
            known => known.is_some(),
        };
        self.silent.remove(&report.node);
        self.nodes.insert(report.node.clone(), report);
        began_anew
    }

    /// A node that did not answer. What it said before still counts.
    pub fn silent(&mut self, node: &str, problem: String) {
        if self.nodes.contains_key(node) {
            return;
        }
        let known = self.silent.entry(node.to_owned()).or_insert_with(|| problem.clone());
        *known = problem.min(std::mem::take(known));
    }

    /// Everything that another one knows.
    pub fn merge(&mut self, other: Self) {
        other.nodes.into_values().for_each(|report| self.add(report));
        for (node, problem) in other.silent {
            self.silent(&node, problem);
        }
    }

    /// The newest packet that a node told of; 0 before its first report.
    #[must_use]
    pub fn newest_ns(&self, node: &str) -> u64 {
        self.nodes.get(node).map_or(0, |report| report.newest_ns)
    }

    /// All of it as one.
    #[must_use]
    pub fn report(&self) -> Report {
        let all = || self.nodes.values();
        let stamps = |field: fn(&Report) -> &String| {
            all().map(field).filter(|stamp| !stamp.is_empty()).cloned()
        };
        let mut lost = BTreeMap::new();
        for (stage, count) in all().flat_map(|report| &report.lost) {
            add(lost.entry(stage.clone()).or_default(), *count);
        }
        Report {
            format: FORMAT,
            node: String::new(),
            nodes: self.node_rows(),
            // The time in which all of them watched.
            at: stamps(|report| &report.at).min().unwrap_or_default(),
            observing_since: stamps(|report| &report.observing_since).max().unwrap_or_default(),
            newest_ns: all().map(|report| report.newest_ns).max().unwrap_or(0),
            synced: !self.nodes.is_empty() && all().all(|report| report.synced),
            policy_sets: policy_sets(all()),
            edges: self.edges(),
            rejections: distinct(all().flat_map(|report| &report.rejections)),
            notices: distinct(all().flat_map(|report| &report.notices)),
            lost,
            unattributed: unattributed(all()),
            pending: all().map(|report| report.pending).fold(0, u64::saturating_add),
            unjudged: all().map(|report| report.unjudged).fold(0, u64::saturating_add),
            // As old as what the first of them that lost its API server knows.
            stale_since: stamps(|report| &report.stale_since).min().unwrap_or_default(),
            secrets: secrets::merged(&self.nodes),
        }
    }

    fn node_rows(&self) -> Vec<NodeRow> {
        let mut rows: Vec<NodeRow> = self.nodes.values().map(NodeRow::of).collect();
        rows.extend(self.silent.iter().map(|(node, problem)| NodeRow {
            node: node.clone(),
            problem: Some(problem.clone()),
            ..NodeRow::default()
        }));
        rows.sort_by(|a, b| a.node.cmp(&b.node));
        rows
    }

    fn edges(&self) -> Vec<EdgeRow> {
        let mut groups: BTreeMap<EdgeName, Vec<Told<'_>>> = BTreeMap::new();
        for (node, report) in &self.nodes {
            for row in &report.edges {
                groups.entry(EdgeName::of(row)).or_default().push((node, row));
            }
        }
        groups.values().flat_map(|told| fused(told)).collect()
    }
}

/// Reports of one moment differ only if a clock was set; any order will do, if it is always one.
fn rank(report: &Report) -> (&str, &str, u64, String) {
    let text = serde_json::to_string(report).unwrap_or_default();
    (&report.at, &report.observing_since, report.newest_ns, text)
}

/// What tells the rows of one report apart.
fn row_key(row: &EdgeRow) -> (EdgeName, Option<Direction>, EndRow, EndRow) {
    let end = |end: &EndRow| end.without_facts().into_owned();
    (EdgeName::of(row), row.direction, end(&row.source), end(&row.target))
}

impl EdgeName {
    /// The edge that a row tells of.
    #[must_use]
    pub fn of(row: &EdgeRow) -> Self {
        let end = |end: &EndRow| end.without_cgroup().without_facts().into_owned();
        Self {
            source: end(&row.source),
            target: end(&row.target),
            protocol: row.protocol.clone(),
            target_port: row.target_port,
            source_rewritten: row.source_rewritten,
            has_direction: row.direction.is_some(),
        }
    }
}

impl EndRow {
    /// A name without what one node found out about it.
    fn without_facts(&self) -> Cow<'_, Self> {
        match self {
            Self::Name(row) if row.is_cut || !row.addresses.is_empty() || !row.also.is_empty() => {
                let name = row.name.clone();
                Cow::Owned(Self::Name(super::NameRow { name, ..super::NameRow::default() }))
            }
            _ => Cow::Borrowed(self),
        }
    }

    /// Both nodes' facts of the same end.
    fn join(&mut self, other: &Self) {
        let (Self::Name(row), Self::Name(other)) = (self, other) else { return };
        let addresses: BTreeSet<_> = row.addresses.iter().chain(&other.addresses).collect();
        let also: BTreeSet<_> = row.also.iter().chain(&other.also).collect();
        row.is_cut |= other.is_cut || addresses.len().max(also.len()) > NAME_FACTS_MAX;
        let addresses = addresses.into_iter().take(NAME_FACTS_MAX).copied().collect();
        let also = also.into_iter().take(NAME_FACTS_MAX).cloned().collect();
        (row.addresses, row.also) = (addresses, also);
    }
}

/// The rows of one edge: both ends saw the same flows, so only one of them counts, the one that saw
/// more. Of equals it is the one that names processes of a node, then the one where it began.
fn fused(told: &[Told<'_>]) -> Vec<EdgeRow> {
    let at = |direction| told.iter().filter(move |(_, row)| row.direction == direction);
    let sides = SIDES.into_iter().enumerate().filter(|(_, side)| at(*side).next().is_some());
    let best = sides.max_by_key(|(order, side)| {
        let attempts = at(*side).map(|(_, row)| row.counts.attempts);
        let units = at(*side).filter(|(_, row)| row.names_a_process()).count();
        (attempts.fold(0, u64::saturating_add), units, Reverse(*order))
    });
    let Some((_, best)) = best else { return Vec::new() };
    // Rows of different processes of a node stay apart.
    let mut rows: BTreeMap<(EndRow, EndRow), EdgeRow> = BTreeMap::new();
    for (_, row) in at(best) {
        let end = |end: &EndRow| end.without_facts().into_owned();
        let key = (end(&row.source), end(&row.target));
        match rows.get_mut(&key) {
            Some(sum) => sum.join(row),
            None => {
                rows.insert(key, EdgeRow::clone(row));
            }
        }
    }
    let judged = Judged::of(told);
    let seen = seen(told);
    let times = |row: &EdgeRow| (row.first_seen.clone(), row.last_seen.clone());
    let (first, last): (Vec<_>, Vec<_>) = told.iter().map(|(_, row)| times(row)).unzip();
    let (first, last) = (first.into_iter().min(), last.into_iter().max());
    let is_one = rows.len() == 1;
    rows.into_values()
        .map(|mut row| {
            judged.put(&mut row);
            row.seen.clone_from(&seen);
            if is_one {
                row.first_seen = first.clone().unwrap_or_default();
                row.last_seen = last.clone().unwrap_or_default();
            }
            row
        })
        .collect()
}

/// From where an edge was seen; where it began comes first.
fn seen(told: &[Told<'_>]) -> Vec<SeenRow> {
    let at = |direction| {
        let rows = told.iter().filter(|(_, row)| row.direction == direction);
        let nodes: BTreeSet<&str> = rows.clone().map(|(node, _)| *node).collect();
        (!nodes.is_empty()).then(|| SeenRow {
            direction,
            attempts: rows.map(|(_, row)| row.counts.attempts).fold(0, u64::saturating_add),
            nodes_total: nodes.len() as u64,
            nodes: nodes.into_iter().take(NODES_PER_EDGE_MAX).map(str::to_owned).collect(),
        })
    };
    SIDES.into_iter().filter_map(at).collect()
}

/// What every policy set says of an edge.
#[derive(Debug, Default)]
struct Judged {
    verdicts: BTreeMap<String, Verdict>,
    deltas: BTreeMap<String, Delta>,
    newly_isolated: BTreeMap<String, Vec<Direction>>,
}

impl Judged {
    /// Each end's side is judged where it is known for sure, by its own node. Where nodes disagree,
    /// for their pods differ or one knows less, the worst is told, set by set.
    fn of(told: &[Told<'_>]) -> Self {
        let sets: BTreeSet<&String> =
            told.iter().flat_map(|(_, row)| row.verdicts.keys()).collect();
        let mut judged = Self::default();
        for set in sets {
            let at = |direction| worst(told, direction, set);
            let (egress, ingress) = (at(Some(Direction::Egress)), at(Some(Direction::Ingress)));
            let (one, other) = match (egress.or(ingress).or(at(None)), ingress.or(egress)) {
                (Some(one), other) => (one, other.unwrap_or(one)),
                (None, _) => continue,
            };
            let Some(verdict) = both(one, other, set) else { continue };
            if let Some(enforced) = both(one, other, ENFORCED)
                && one.deltas.contains_key(set)
            {
                let delta = Delta::between(enforced.decision, verdict.decision);
                judged.deltas.insert(set.clone(), delta);
                let directions = verdict.newly_isolated(&enforced);
                if !directions.is_empty() && !matches!(set.as_str(), ENFORCED | DEFAULT_DENY) {
                    judged.newly_isolated.insert(set.clone(), directions);
                }
            }
            judged.verdicts.insert(set.clone(), verdict);
        }
        judged
    }

    fn put(&self, row: &mut EdgeRow) {
        row.verdicts.clone_from(&self.verdicts);
        row.deltas.clone_from(&self.deltas);
        row.newly_isolated.clone_from(&self.newly_isolated);
    }
}

/// The row in which this set does worst, of those seen at this end; of equals the first node's.
fn worst<'a>(told: &[Told<'a>], direction: Option<Direction>, set: &str) -> Option<&'a EdgeRow> {
    let rows = told.iter().filter(|(_, row)| row.direction == direction);
    let judged = rows.filter_map(|(_, row)| {
        let verdict = row.verdicts.get(set)?;
        let delta = row.deltas.get(set).map_or(0, |delta| delta.severity());
        Some(((delta, verdict.decision.severity()), *row))
    });
    let first_worst = judged.reduce(|best, next| if next.0 > best.0 { next } else { best });
    first_worst.map(|(_, row)| row)
}

/// A set's verdict, with each side from the row that was seen there.
fn both(egress: &EdgeRow, ingress: &EdgeRow, set: &str) -> Option<Verdict> {
    let (egress, ingress) = (egress.verdicts.get(set)?, ingress.verdicts.get(set)?);
    if std::ptr::eq(egress, ingress) || egress.profile != ingress.profile {
        return Some(egress.clone());
    }
    Some(Verdict {
        decision: Decision::of_both(egress.egress.decision, ingress.ingress.decision),
        profile: egress.profile,
        egress: egress.egress.clone(),
        ingress: ingress.ingress.clone(),
    })
}

impl EdgeRow {
    fn names_a_process(&self) -> bool {
        let is_unit = |end: &EndRow| matches!(end, EndRow::Node { cgroup: Some(_), .. });
        is_unit(&self.source) || is_unit(&self.target)
    }

    /// What another node saw of the same edge at the same end.
    fn join(&mut self, other: &Self) {
        self.source.join(&other.source);
        self.target.join(&other.target);
        self.counts = sum(&self.counts, &other.counts);
        for (outcome, count) in &other.outcomes {
            add(self.outcomes.entry(*outcome).or_default(), *count);
        }
        add(&mut self.open, other.open);
        self.refusals = Refusal::counts(&self.counts).filter(|(_, count)| *count > 0).collect();
        self.handshake_us_mean = super::mean_us(self.direction, &self.counts);
        if other.first_seen < self.first_seen {
            self.first_seen.clone_from(&other.first_seen);
        }
        if other.last_seen > self.last_seen {
            self.last_seen.clone_from(&other.last_seen);
        }
    }
}

fn add(total: &mut u64, count: u64) {
    *total = total.saturating_add(count);
}

fn sum(a: &Counts, b: &Counts) -> Counts {
    Counts {
        sent_packets: a.sent_packets.saturating_add(b.sent_packets),
        sent_bytes: a.sent_bytes.saturating_add(b.sent_bytes),
        received_packets: a.received_packets.saturating_add(b.received_packets),
        received_bytes: a.received_bytes.saturating_add(b.received_bytes),
        attempts: a.attempts.saturating_add(b.attempts),
        answered: a.answered.saturating_add(b.answered),
        refused: a.refused.saturating_add(b.refused),
        refused_port: a.refused_port.saturating_add(b.refused_port),
        refused_route: a.refused_route.saturating_add(b.refused_route),
        closed: a.closed.saturating_add(b.closed),
        handshake_ns: a.handshake_ns.saturating_add(b.handshake_ns),
    }
}

/// `enforced` and `default-deny` first, then the candidates of any node by name.
fn policy_sets<'a>(reports: impl Iterator<Item = &'a Report>) -> Vec<String> {
    let mut sets: Vec<&String> = reports.flat_map(|report| &report.policy_sets).collect();
    let order = |set: &str| [ENFORCED, DEFAULT_DENY].iter().position(|first| *first == set);
    sets.sort_by_key(|set| (order(set).unwrap_or(2), *set));
    sets.dedup();
    sets.into_iter().cloned().collect()
}

/// Every node reads the same objects, and tells the same of them.
fn distinct<'a>(told: impl Iterator<Item = &'a serde_json::Value>) -> Vec<serde_json::Value> {
    let distinct: BTreeMap<String, _> = told.map(|value| (value.to_string(), value)).collect();
    distinct.into_values().cloned().collect()
}

fn unattributed<'a>(reports: impl Iterator<Item = &'a Report>) -> Vec<UnattributedRow> {
    let mut sums: BTreeMap<(_, &String), u64> = BTreeMap::new();
    for row in reports.flat_map(|report| &report.unattributed) {
        add(sums.entry((row.side, &row.reason)).or_default(), row.count);
    }
    let row = |((side, reason), count): ((_, &String), _)| UnattributedRow {
        side,
        reason: reason.clone(),
        count,
    };
    sums.into_iter().map(row).collect()
}

mod secrets;
#[cfg(test)]
mod tests;
