//! Records that wait for an identity that is still on its way.
//!
//! In: flow records with the time they may wait until. Out: the same records in the order they
//! came. It never holds more than its limit: the one that waited longest is handed back to be
//! settled.

use std::collections::VecDeque;

use crate::flow::Timestamp;
use crate::record::FlowRecord;

/// Records that wait at once.
pub const PENDING_MAX: usize = 65_536;
/// How long a record waits once every source is there, in nanoseconds.
pub const PENDING_WAIT_NS: u64 = 10_000_000_000;

/// One record that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) record: FlowRecord,
    pub(super) until: Timestamp,
}

/// The queue.
#[derive(Debug)]
pub(super) struct Pending {
    queue: VecDeque<Waiting>,
    max: usize,
}

impl Pending {
    pub(super) fn with_capacity(max: usize) -> Self {
        Self { queue: VecDeque::new(), max }
    }

    /// Queues a record. Hands one back if there is no room: the oldest, or this one if nothing may
    /// wait.
    pub(super) fn push(&mut self, record: FlowRecord, now: Timestamp) -> Option<FlowRecord> {
        if self.max == 0 {
            return Some(record);
        }
        let over = self.queue.len() >= self.max;
        let oldest = if over { self.queue.pop_front() } else { None };
        self.queue.push_back(Waiting { until: until(now, &record), record });
        oldest.map(|waiting| waiting.record)
    }

    /// Takes all, to be settled or put back.
    pub(super) fn take(&mut self) -> VecDeque<Waiting> {
        std::mem::take(&mut self.queue)
    }

    /// Puts one back that was taken.
    pub(super) fn put_back(&mut self, waiting: Waiting) {
        self.queue.push_back(waiting);
    }

    /// From now on each waits as if it had come now.
    pub(super) fn restart(&mut self, now: Timestamp) {
        for waiting in &mut self.queue {
            waiting.until = until(now, &waiting.record);
        }
    }

    /// Whether one waited long enough.
    pub(super) fn any_due(&self, now: Timestamp) -> bool {
        self.queue.iter().any(|waiting| waiting.until <= now)
    }

    pub(super) fn sizes(&self) -> (u64, u64) {
        (self.queue.len() as u64, self.max as u64)
    }
}

/// Before the first tick there is no other clock than the record's own.
fn until(now: Timestamp, record: &FlowRecord) -> Timestamp {
    let from = if now == Timestamp::default() { record.last_seen } else { now };
    Timestamp(from.0.saturating_add(PENDING_WAIT_NS))
}
