//! What many nodes know of secrets as one.
//!
//! In: the reports of nodes, one each. Out: one [`SecretsReport`]: mounts and tokens of the same
//! workload once, reads of the same reader summed, and nothing called unread or unneeded that one
//! of the nodes saw in use. Neither order nor repetition of reports changes it.

use std::collections::{BTreeMap, BTreeSet};

use parapet_core::secrets::{
    MountState, ReadCounts, Reader, Relation, SecretOwner, SecretSource, SecretWay, TokenMount,
};

use super::{NODES_PER_EDGE_MAX, Report, add};
use crate::export::report::secrets::{
    KeyRow, MountRow, ReadRow, SecretsReport, StaleRow, TokenRow,
};

/// What tells mounts apart.
type MountKey<'a> = (&'a SecretOwner, &'a SecretSource, SecretWay);
/// What tells tokens apart.
type TokenKey<'a> = (&'a SecretOwner, &'a str, TokenMount);
/// What tells readers of a key apart; names that a process may choose are not part of it.
type ReadKey<'a> = (&'a SecretOwner, &'a SecretSource, &'a str, Relation, &'a Reader, &'a str, u32);

/// All of them as one; none if no node watches secrets.
pub(super) fn merged(nodes: &BTreeMap<String, Report>) -> Option<SecretsReport> {
    let told: Vec<(&str, &SecretsReport)> = nodes
        .iter()
        .filter_map(|(node, report)| Some((node.as_str(), report.secrets.as_ref()?)))
        .collect();
    if told.is_empty() {
        return None;
    }
    let mut unattributed = BTreeMap::new();
    for (reason, count) in told.iter().flat_map(|(_, secrets)| &secrets.unattributed) {
        add(unattributed.entry(reason.clone()).or_default(), *count);
    }
    let older = nodes.iter().filter(|(_, report)| report.secrets.is_none());
    Some(SecretsReport {
        mounts: mounts(&told),
        reads: reads(&told),
        tokens: tokens(&told),
        unattributed,
        not_from: older.map(|(node, _)| node.clone()).collect(),
    })
}

fn mounts(told: &[(&str, &SecretsReport)]) -> Vec<MountRow> {
    let mut rows: BTreeMap<MountKey<'_>, MountRow> = BTreeMap::new();
    for (node, secrets) in told {
        for row in &secrets.mounts {
            let here = MountRow {
                stale: row
                    .stale
                    .iter()
                    .map(|stale| StaleRow { node: (*node).to_owned(), ..stale.clone() })
                    .collect(),
                ..row.clone()
            };
            match rows.get_mut(&(&row.owner, &row.source, row.way)) {
                Some(sum) => sum.join(here),
                None => drop(rows.insert((&row.owner, &row.source, row.way), here)),
            }
        }
    }
    rows.into_values().collect()
}

fn reads(told: &[(&str, &SecretsReport)]) -> Vec<ReadRow> {
    let mut rows: BTreeMap<ReadKey<'_>, Vec<(&str, &ReadRow)>> = BTreeMap::new();
    for (node, secrets) in told {
        for row in &secrets.reads {
            rows.entry(read_key(row)).or_default().push((node, row));
        }
    }
    rows.into_values().filter_map(|rows| summed(&rows)).collect()
}

fn read_key(row: &ReadRow) -> ReadKey<'_> {
    (&row.owner, &row.source, &row.key, row.relation, &row.reader, &row.program, row.uid)
}

/// The reads of one reader. Its thread's name is the first one's, its version the last one's; a
/// process id means something on its own node only.
fn summed(rows: &[(&str, &ReadRow)]) -> Option<ReadRow> {
    let (_, first) = rows.iter().min_by_key(|(_, row)| &row.first_seen)?;
    let (_, last) = rows.iter().max_by_key(|(_, row)| &row.last_seen)?;
    let mut counts = ReadCounts::default();
    for (_, row) in rows {
        counts.add(row.counts);
    }
    let nodes: BTreeSet<&str> = rows.iter().map(|(node, _)| *node).collect();
    Some(ReadRow {
        comm: first.comm.clone(),
        first_seen: first.first_seen.clone(),
        pid: if nodes.len() == 1 { last.pid } else { 0 },
        counts,
        nodes_total: nodes.len() as u64,
        nodes: nodes.into_iter().take(NODES_PER_EDGE_MAX).map(str::to_owned).collect(),
        ..ReadRow::clone(last)
    })
}

fn tokens(told: &[(&str, &SecretsReport)]) -> Vec<TokenRow> {
    let mut rows: BTreeMap<TokenKey<'_>, TokenRow> = BTreeMap::new();
    for row in told.iter().flat_map(|(_, secrets)| &secrets.tokens) {
        match rows.get_mut(&(&row.owner, &*row.service_account, row.mounted_by)) {
            Some(sum) => sum.join(row),
            None => {
                let key = (&row.owner, &*row.service_account, row.mounted_by);
                rows.insert(key, row.clone());
            }
        }
    }
    rows.into_values().collect()
}

impl MountRow {
    /// The same mount on another node.
    fn join(&mut self, other: Self) {
        self.containers = union(&self.containers, &other.containers);
        add(&mut self.pods, other.pods);
        self.state = in_use(self.state, other.state);
        self.keys = keys(self.keys.iter().chain(&other.keys));
        self.first_read = earlier(&self.first_read, &other.first_read);
        self.last_read = later(&self.last_read, &other.last_read);
        self.watched_since = later(&self.watched_since, &other.watched_since);
        self.watched_seconds = self.watched_seconds.min(other.watched_seconds);
        add(&mut self.starts_seen, other.starts_seen);
        self.has_gaps |= other.has_gaps;
        self.stale.extend(other.stale);
        self.stale.sort();
    }
}

impl TokenRow {
    fn join(&mut self, other: &Self) {
        self.state = in_use(self.state, other.state);
        self.read_by = union(&self.read_by, &other.read_by);
        self.watched_since = later(&self.watched_since, &other.watched_since);
        self.watched_seconds = self.watched_seconds.min(other.watched_seconds);
        add(&mut self.starts_seen, other.starts_seen);
        self.has_gaps |= other.has_gaps;
        self.is_candidate &= other.is_candidate;
    }
}

fn keys<'a>(told: impl Iterator<Item = &'a KeyRow>) -> Vec<KeyRow> {
    let mut rows: BTreeMap<(&str, &str), KeyRow> = BTreeMap::new();
    for row in told {
        let sum = rows.entry((&row.key, &row.path)).or_insert_with(|| row.clone());
        sum.state = in_use(sum.state, row.state);
        sum.last_read = later(&sum.last_read, &row.last_read);
    }
    rows.into_values().collect()
}

/// What one node saw read is read. What is unobservable on one of them may have been read there.
fn in_use(a: MountState, b: MountState) -> MountState {
    match (a, b) {
        (MountState::Read, _) | (_, MountState::Read) => MountState::Read,
        (MountState::Unobservable, _) | (_, MountState::Unobservable) => MountState::Unobservable,
        (MountState::NeverRead, MountState::NeverRead) => MountState::NeverRead,
    }
}

fn union(a: &[String], b: &[String]) -> Vec<String> {
    let all: BTreeSet<&String> = a.iter().chain(b).collect();
    all.into_iter().cloned().collect()
}

/// Of two times in RFC 3339; empty is never.
fn earlier(a: &str, b: &str) -> String {
    let times = [a, b].into_iter().filter(|time| !time.is_empty());
    times.min().unwrap_or_default().to_owned()
}

fn later(a: &str, b: &str) -> String {
    a.max(b).to_owned()
}

#[cfg(test)]
mod tests;
