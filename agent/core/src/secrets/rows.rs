//! Who read what, how often.
//!
//! In: what a read was found to be. Out: one row for all reads that are alike, in the order of
//! their keys. What finds no room is counted in one row a relation, so that totals stay exact.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::attribute::Finding;
use super::readers::Names;
use super::{
    OTHER_READS, ReadIdentity, ReadRecord, Reader, Relation, SecretOwner, SecretRead, SecretSource,
};
use crate::flow::Timestamp;

#[derive(Debug)]
struct Row {
    read: Arc<SecretRead>,
    /// The first one, the last one, and the last one: each with its time, and of several of one
    /// time one that does not depend on their order.
    comm: Option<(Timestamp, Arc<str>)>,
    pid: (Timestamp, u32),
    generation: (Timestamp, Arc<str>),
}

/// All of them.
#[derive(Debug)]
pub(super) struct Rows {
    by_key: BTreeMap<ReadIdentity, Row>,
    max: usize,
    /// Rows of those that found no room, beside the others.
    other: BTreeMap<Relation, Row>,
    folded: u64,
}

impl Rows {
    pub(super) fn with_max(max: usize) -> Self {
        Self { by_key: BTreeMap::new(), max, other: BTreeMap::new(), folded: 0 }
    }

    pub(super) fn add(&mut self, read: &ReadRecord, finding: &Finding, names: Option<&Names>) {
        let program = names.map(|names| names.program.clone()).unwrap_or_default();
        let key = ReadIdentity {
            owner: finding.owner.clone(),
            source: finding.source.clone(),
            key: finding.key.clone(),
            relation: finding.relation,
            reader: finding.reader.clone(),
            program,
            uid: read.reader.uid,
        };
        if !self.by_key.contains_key(&key) && self.by_key.len() >= self.max {
            self.folded = self.folded.saturating_add(1);
            self.fold(read, finding.relation);
            return;
        }
        let row = self
            .by_key
            .entry(key)
            .or_insert_with_key(|key| Row::new(key.clone().row(read.since, read.last_seen)));
        row.add(read);
        row.name(names);
        if !finding.generation.is_empty() {
            row.is_of((read.last_seen, finding.generation.clone()));
        }
    }

    /// Counts what may be anybody's.
    pub(super) fn fold(&mut self, read: &ReadRecord, relation: Relation) {
        let other: Arc<str> = OTHER_READS.into();
        let row = self.other.entry(relation).or_insert_with(|| {
            let identity = ReadIdentity {
                owner: SecretOwner::Unknown,
                source: SecretSource::Unknown { volume: other.clone() },
                key: other.clone(),
                relation,
                reader: Reader::Unknown { reason: other.clone() },
                program: other,
                uid: 0,
            };
            Row::new(identity.row(read.since, read.last_seen))
        });
        row.add(read);
    }

    pub(super) fn all(&self) -> Vec<Arc<SecretRead>> {
        let rows = self.by_key.values().chain(self.other.values());
        rows.map(|row| row.read.clone()).collect()
    }

    /// Rows, the limit, and records that found no room.
    pub(super) fn sizes(&self) -> (u64, u64, u64) {
        (self.by_key.len() as u64, self.max as u64, self.folded)
    }
}

impl Row {
    fn new(read: SecretRead) -> Self {
        let generation = (Timestamp::default(), read.generation.clone());
        Self { read: Arc::new(read), comm: None, pid: Default::default(), generation }
    }

    fn add(&mut self, read: &ReadRecord) {
        let known = Arc::make_mut(&mut self.read);
        known.counts.add(read.counts);
        known.first_seen = known.first_seen.min(read.since);
        known.last_seen = known.last_seen.max(read.last_seen);
    }

    fn name(&mut self, names: Option<&Names>) {
        let Some(names) = names else { return };
        let known = Arc::make_mut(&mut self.read);
        if self.comm.as_ref().is_none_or(|comm| names.comm < *comm) {
            self.comm = Some(names.comm.clone());
            known.comm = names.comm.1.clone();
        }
        if names.pid > self.pid {
            self.pid = names.pid;
            known.pid = names.pid.1;
        }
    }

    fn is_of(&mut self, generation: (Timestamp, Arc<str>)) {
        if generation > self.generation {
            Arc::make_mut(&mut self.read).generation = generation.1.clone();
            self.generation = generation;
        }
    }
}
