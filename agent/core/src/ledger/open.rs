//! The attempts of one edge that have not ended yet.
//!
//! In: flow records in the order they came, and the time as others say it. Out: how many attempts
//! ended with each record, and how many will not be waited for any more. It reads no clock, and of
//! an attempt that was given up it takes no answer.
//!
//! Counters do not tell which attempt an answer is for. Those of one kernel flow are answered in
//! the order they were made: so they are where all answers take equally long, and no attempt is
//! given up that a later one's answer could be for.

use std::net::IpAddr;
use std::num::NonZeroU16;

use crate::flow::Timestamp;
use crate::record::FlowRecord;

/// An attempt without an answer or refusal for so long is unanswered, in nanoseconds. By then Linux
/// has sent a SYN three times (after 1 and 3 seconds; net/ipv4/tcp_timer.c) and resolvers have
/// given up on a server (`timeout:5` is the default of resolv.conf).
pub const UNANSWERED_AFTER_NS: u64 = 5_000_000_000;
/// Attempts of one flow within this time are given up together, with the last of them.
const BATCH_NS: u64 = 1_000_000_000;
/// Batches of one edge. Beyond that its flows are not told apart any more.
const BATCHES_MAX: usize = 64;

/// The open attempts, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Open {
    batches: Vec<Batch>,
}

/// Attempts that ended with one record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) answered: u64,
    pub(super) refused: u64,
}

/// What the kernel counts in one place, within one edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flow {
    cgroup_id: u64,
    peer: IpAddr,
    service_port: u16,
    local_port: Option<NonZeroU16>,
}

#[derive(Debug)]
struct Batch {
    /// None: of any of the edge's flows.
    flow: Option<Flow>,
    first: Timestamp,
    last: Timestamp,
    count: u64,
}

impl Open {
    /// Takes a record's attempts, made not later than `at`, and what ended. Allocates only if some
    /// stay open.
    pub(super) fn take(&mut self, record: &FlowRecord, at: Timestamp) -> Ended {
        let counts = &record.counts;
        let flow = Flow {
            cgroup_id: record.cgroup_id,
            peer: record.peer,
            service_port: record.service_port,
            local_port: record.local_port,
        };
        let wanted = counts.answered.saturating_add(counts.refused);
        let older = self.end(&flow, wanted);
        let own = counts.attempts.min(wanted - older);
        self.add(flow, at, counts.attempts - own);
        let answered = counts.answered.min(older + own);
        Ended { answered, refused: older + own - answered }
    }

    /// Gives up what is open for too long.
    pub(super) fn give_up(&mut self, now: Timestamp) -> u64 {
        let mut given_up = 0;
        self.batches.retain(|batch| {
            let is_over = batch.due() <= now;
            given_up += if is_over { batch.count } else { 0 };
            !is_over
        });
        if self.batches.is_empty() {
            self.batches = Vec::new();
        }
        given_up
    }

    /// When the first of them is to be given up; none if all ended.
    pub(super) fn due(&self) -> Option<Timestamp> {
        self.batches.iter().map(Batch::due).min()
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.batches.iter().map(|batch| batch.count).sum()
    }

    /// Ends up to so many of a flow's attempts, the oldest first.
    fn end(&mut self, flow: &Flow, wanted: u64) -> u64 {
        if self.batches.is_empty() {
            return 0;
        }
        let mut left = wanted;
        let of_flow = |batch: &&mut Batch| batch.flow.as_ref().is_none_or(|known| known == flow);
        for batch in self.batches.iter_mut().filter(of_flow) {
            let ended = batch.count.min(left);
            batch.count -= ended;
            left -= ended;
        }
        self.batches.retain(|batch| batch.count > 0);
        wanted - left
    }

    fn add(&mut self, flow: Flow, at: Timestamp, count: u64) {
        if count == 0 {
            return;
        }
        let joins = |batch: &&mut Batch| {
            batch.flow == Some(flow) && at.0.saturating_sub(batch.first.0) < BATCH_NS
        };
        if let Some(batch) = self.batches.iter_mut().rev().find(joins) {
            batch.last = batch.last.max(at);
            batch.count = batch.count.saturating_add(count);
            return;
        }
        if self.batches.len() >= BATCHES_MAX {
            self.mix();
        }
        if self.batches.is_empty() {
            // Most edges with an open attempt have one flow, and a scan makes many such edges.
            self.batches.reserve_exact(1);
        }
        self.batches.push(Batch { flow: Some(flow), first: at, last: at, count });
    }

    /// Forgets whose attempts they are: a handful of batches is left.
    fn mix(&mut self) {
        let mut mixed: Vec<Batch> = Vec::new();
        self.batches.sort_by_key(|batch| batch.last);
        for batch in self.batches.drain(..) {
            match mixed.last_mut() {
                Some(last) if batch.last.0.saturating_sub(last.first.0) < BATCH_NS => {
                    last.last = batch.last;
                    last.count = last.count.saturating_add(batch.count);
                }
                _ => mixed.push(Batch { flow: None, first: batch.last, ..batch }),
            }
        }
        self.batches = mixed;
    }
}

impl Batch {
    fn due(&self) -> Timestamp {
        Timestamp(self.last.0.saturating_add(UNANSWERED_AFTER_NS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{Direction, Protocol};
    use crate::record::Counts;

    const SECOND: u64 = 1_000_000_000;

    /// Of the flow of this cgroup: attempts, answers and refusals.
    fn take(open: &mut Open, flow: u64, at_ms: u64, counts: [u64; 3]) -> [u64; 2] {
        let at = Timestamp(at_ms * 1_000_000);
        let [attempts, answered, refused] = counts;
        let record = FlowRecord {
            cgroup_id: flow,
            peer: IpAddr::from([10, 0, 0, 1]),
            local_addr: None,
            local_port: None,
            translation: crate::identity::Translation::default(),
            service_port: 80,
            protocol: Protocol::TCP,
            direction: Some(Direction::Egress),
            since: at,
            last_seen: at,
            counts: Counts { attempts, answered, refused, ..Counts::default() },
        };
        let Ended { answered, refused } = open.take(&record, at);
        [answered, refused]
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp(seconds * SECOND)
    }

    #[test]
    fn what_ended_where_it_was_made_is_never_open() {
        let mut open = Open::default();
        assert_eq!(take(&mut open, 1, 0, [5, 3, 2]), [3, 2]);
        assert_eq!((open.count(), open.due(), open.batches.capacity()), (0, None, 0));
    }

    #[test]
    fn an_answer_is_for_the_oldest_attempt_of_its_own_flow() {
        let mut open = Open::default();
        assert_eq!(take(&mut open, 1, 0, [1, 0, 0]), [0, 0]);
        assert_eq!(take(&mut open, 2, 2_000, [2, 0, 0]), [0, 0]);
        assert_eq!(take(&mut open, 2, 4_000, [1, 1, 1]), [1, 1]);
        assert_eq!((open.count(), open.due()), (2, Some(at(5))));
        assert_eq!((open.give_up(at(4)), open.give_up(at(5)), open.due()), (0, 1, Some(at(9))));
        // It was given up: the answer comes too late to count.
        assert_eq!(take(&mut open, 1, 6_000, [0, 1, 0]), [0, 0]);
        assert_eq!((open.give_up(at(9)), open.count(), open.due()), (1, 0, None));
    }

    #[test]
    fn attempts_of_one_second_are_given_up_with_the_last_of_them() {
        let mut open = Open::default();
        for at_ms in [0, 400, 999, 1_000] {
            assert_eq!(take(&mut open, 1, at_ms, [1, 0, 0]), [0, 0]);
        }
        assert_eq!((open.give_up(at(5)), open.give_up(at(6)), open.batches.len()), (0, 4, 0));
    }

    #[test]
    fn too_many_flows_are_not_told_apart_and_none_is_lost() {
        let mut open = Open::default();
        for flow in 0..10 * BATCHES_MAX as u64 {
            assert_eq!(take(&mut open, flow, flow, [1, 0, 0]), [0, 0]);
            assert!(open.batches.len() <= BATCHES_MAX);
        }
        assert_eq!(open.count(), 10 * BATCHES_MAX as u64);
        // Of a flow that was mixed with others an answer still ends an attempt.
        assert_eq!(take(&mut open, 0, 700, [0, 1, 0]), [1, 0]);
        assert_eq!((open.give_up(at(6)), open.count()), (10 * BATCHES_MAX as u64 - 1, 0));
    }
}
