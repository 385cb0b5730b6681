//! Reads of which somebody may still say more: whose the volume is, who the reader is, or what its
//! program is called.
//!
//! In: read records. Out: the same, summed up by file and reader, when they are taken. It decides
//! nothing and loses nothing: what finds no room is handed back.

use std::collections::BTreeMap;

use super::{FileId, ReadRecord, ReaderId};
use crate::flow::Timestamp;

/// Reads of one reader and file that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) read: ReadRecord,
    /// Since when.
    pub(super) from: Timestamp,
}

/// All of them.
#[derive(Debug)]
pub(super) struct WaitingReads {
    by_reader: BTreeMap<(FileId, ReaderId), Waiting>,
    max: usize,
}

impl WaitingReads {
    pub(super) fn with_max(max: usize) -> Self {
        Self { by_reader: BTreeMap::new(), max }
    }

    /// Keeps a read, or hands it back if there is no room.
    pub(super) fn push(&mut self, waiting: Waiting) -> Option<ReadRecord> {
        let read = waiting.read;
        let key = (read.file, read.reader);
        let has_room = self.by_reader.len() < self.max;
        match self.by_reader.get_mut(&key) {
            Some(known) => {
                known.read.add(&read);
                known.from = known.from.min(waiting.from);
            }
            None if has_room => {
                self.by_reader.insert(key, waiting);
            }
            None => return Some(read),
        }
        None
    }

    /// Takes all, to be settled or pushed back.
    pub(super) fn take(&mut self) -> Vec<Waiting> {
        std::mem::take(&mut self.by_reader).into_values().collect()
    }

    /// From now on each waits as if it had come now.
    pub(super) fn restart(&mut self, now: Timestamp) {
        self.by_reader.values_mut().for_each(|waiting| waiting.from = now);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_reader.is_empty()
    }

    pub(super) fn sizes(&self) -> (u64, u64) {
        (self.by_reader.len() as u64, self.max as u64)
    }
}

impl ReadRecord {
    /// Both as one.
    fn add(&mut self, other: &Self) {
        self.counts.add(other.counts);
        self.since = self.since.min(other.since);
        self.last_seen = self.last_seen.max(other.last_seen);
    }
}
