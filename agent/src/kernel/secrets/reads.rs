//! The kernel's table of readers: what was added since the last read comes out, what is idle
//! leaves, and each cgroup gets back what it gave up of its share.
//!
//! In: the table, the time. Out: [`ReadRecord`]s. The table is read only if something was counted.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::AsFd as _;
use std::time::Duration;

use aya::Pod;
use aya::maps::{HashMap as BpfHashMap, MapData};
use parapet_common::{READS_MAX, ReadCounts, ReadKey, ReaderShare};
use parapet_core::record::Record;
use parapet_core::secrets::{self, FileId, ReadRecord, ReaderId, VolumeId};

use super::super::clock::{Clock, nanoseconds};
use super::super::syscall::{Cursor, lookup_batch, take};

/// A reader that did nothing for this long is forgotten, and told of anew when it comes again.
const IDLE_MAX: Duration = Duration::from_secs(600);
/// The same while the table, or the share of a cgroup, is three quarters full.
const CROWDED_IDLE_MAX: Duration = Duration::from_secs(30);
/// How often idle ones are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(20);
const CROWDED_SWEEP_EVERY: Duration = Duration::from_secs(5);
/// Entries read at once.
const BATCH: usize = 1_024;

const EMPTY_KEY: ReadKey = ReadKey {
    cgroup_id: 0,
    inode: 0,
    program_inode: 0,
    program_device: 0,
    device: 0,
    generation: 0,
    uid: 0,
};

/// [`ReaderShare`] as aya wants its values.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(in super::super) struct ShareValue(ReaderShare);

// SAFETY: repr(C), integers only, without padding: valid for every bit pattern.
#[expect(unsafe_code, reason = "aya asks for this promise about map values")]
unsafe impl Pod for ShareValue {}

/// What each cgroup got of the table, and what was taken back of that.
pub(in super::super) struct Shares {
    pub(in super::super) taken: BpfHashMap<MapData, u64, ShareValue>,
    pub(in super::super) returned: BpfHashMap<MapData, u64, u64>,
}

/// The table, and what of it was told already.
pub(super) struct Reads {
    map: MapData,
    shares: Shares,
    share_max: u64,
    told: HashMap<ReadKey, ReadCounts>,
    /// Cgroups that were given a share and had nothing in the table when it was walked last.
    idle_cgroups: HashSet<u64>,
    swept_ns: u64,
    is_crowded: bool,
}

impl Reads {
    pub(super) fn new(map: MapData, shares: Shares, share_max: u32) -> Self {
        Self {
            map,
            shares,
            share_max: u64::from(share_max),
            told: HashMap::new(),
            idle_cgroups: HashSet::new(),
            swept_ns: 0,
            is_crowded: false,
        }
    }

    pub(super) fn sizes(&self) -> (&'static str, u64, u64) {
        ("secret_reads", self.told.len() as u64, u64::from(READS_MAX))
    }

    /// Appends a record for every reader and file that something was counted for.
    pub(super) fn read(&mut self, clock: &Clock, records: &mut Vec<Record>) -> io::Result<()> {
        let mut keys = vec![EMPTY_KEY; BATCH];
        let mut values = vec![ReadCounts::default(); BATCH];
        let mut cursor = Some(Cursor::default());
        while let Some(from) = cursor {
            let (count, next) = lookup_batch(self.map.fd().as_fd(), from, &mut keys, &mut values)?;
            for (key, counts) in keys.iter().zip(&values).take(count) {
                records.extend(record(key, counts, self.told.get(key), clock));
                self.told.insert(*key, *counts);
            }
            cursor = next;
        }
        Ok(())
    }

    /// Lets idle readers go if it is time to look for them. Every entry is known, because the table
    /// is read whenever something was counted.
    pub(super) fn sweep(&mut self, clock: &Clock, records: &mut Vec<Record>) -> io::Result<()> {
        let now_ns = clock.monotonic_ns();
        let every = if self.is_crowded { CROWDED_SWEEP_EVERY } else { SWEEP_EVERY };
        if now_ns.saturating_sub(self.swept_ns) < nanoseconds(every) {
            return Ok(());
        }
        self.swept_ns = now_ns;
        let mut counts: HashMap<u64, u64> = HashMap::new();
        for key in self.told.keys() {
            *counts.entry(key.cgroup_id).or_default() += 1;
        }
        let is_full = is_crowd(self.told.len() as u64, u64::from(READS_MAX));
        let is_crowded = |cgroup: &u64| {
            is_full || counts.get(cgroup).is_some_and(|count| is_crowd(*count, self.share_max))
        };
        let is_idle = |key: &ReadKey, counts: &ReadCounts| {
            let idle_max = if is_crowded(&key.cgroup_id) { CROWDED_IDLE_MAX } else { IDLE_MAX };
            now_ns.saturating_sub(counts.last_seen_ns) > nanoseconds(idle_max)
        };
        let idle: Vec<ReadKey> = self
            .told
            .iter()
            .filter(|(key, counts)| is_idle(key, counts))
            .map(|(key, _)| *key)
            .collect();
        self.is_crowded = counts.keys().any(is_crowded);
        let mut returned: HashMap<u64, u64> = HashMap::new();
        for key in idle {
            // What was counted since it was read comes with it.
            if let Some(last) = take(self.map.fd().as_fd(), &key)? {
                records.extend(record(&key, &last, self.told.get(&key), clock));
            }
            self.told.remove(&key);
            *returned.entry(key.cgroup_id).or_default() += 1;
        }
        for (cgroup_id, entries) in returned {
            self.give_back(cgroup_id, entries);
        }
        self.forget_cgroups(&counts);
        Ok(())
    }

    fn give_back(&mut self, cgroup_id: u64, entries: u64) {
        let before = self.shares.returned.get(&cgroup_id, 0).unwrap_or(0);
        if let Err(error) = self.shares.returned.insert(cgroup_id, before + entries, 0) {
            tracing::warn!(%error, cgroup_id, "a share of secret readers could not be given back");
        }
    }

    /// Cgroups with nothing in the table for two sweeps. `counts` is what each had before this one.
    fn forget_cgroups(&mut self, counts: &HashMap<u64, u64>) {
        let mut idle = HashSet::new();
        for cgroup_id in self.shares.taken.keys().filter_map(Result::ok) {
            if !counts.contains_key(&cgroup_id) {
                idle.insert(cgroup_id);
            }
        }
        for cgroup_id in self.idle_cgroups.intersection(&idle) {
            // In this order: a reader that comes in between may have too much, not too little.
            let _ = self.shares.taken.remove(cgroup_id);
            let _ = self.shares.returned.remove(cgroup_id);
        }
        self.idle_cgroups = idle;
    }
}

fn is_crowd(entries: u64, entries_max: u64) -> bool {
    entries.saturating_mul(4) >= entries_max.saturating_mul(3)
}

/// What was added, if anything was.
fn record(
    key: &ReadKey,
    now: &ReadCounts,
    before: Option<&ReadCounts>,
    clock: &Clock,
) -> Option<Record> {
    let since_ns = before.map_or(now.first_seen_ns, |before| before.last_seen_ns);
    let before = before.copied().unwrap_or_default();
    let counts = secrets::ReadCounts {
        opens: now.opens_total.saturating_sub(before.opens_total),
        reads: now.reads_total.saturating_sub(before.reads_total),
        maps: now.maps_total.saturating_sub(before.maps_total),
        held: now.held_total.saturating_sub(before.held_total),
    };
    (counts != secrets::ReadCounts::default()).then(|| {
        Record::Read(ReadRecord {
            file: FileId {
                volume: VolumeId { device: key.device, generation: key.generation },
                inode: key.inode,
            },
            reader: ReaderId {
                cgroup_id: key.cgroup_id,
                program: (key.program_device, key.program_inode),
                uid: key.uid,
            },
            counts,
            since: clock.timestamp(since_ns),
            last_seen: clock.timestamp(now.last_seen_ns),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_added_is_told() {
        let clock = Clock::now();
        let key = ReadKey { cgroup_id: 5, inode: 6, device: 7, generation: 8, uid: 9, ..EMPTY_KEY };
        let counts = |opens_total, held_total, last_seen_ns| ReadCounts {
            opens_total,
            held_total,
            first_seen_ns: 10,
            last_seen_ns,
            ..ReadCounts::default()
        };
        let expected = |opens, held, since_ns, last_ns| {
            Some(Record::Read(ReadRecord {
                file: FileId { volume: VolumeId { device: 7, generation: 8 }, inode: 6 },
                reader: ReaderId { cgroup_id: 5, program: (0, 0), uid: 9 },
                counts: secrets::ReadCounts { opens, held, ..secrets::ReadCounts::default() },
                since: clock.timestamp(since_ns),
                last_seen: clock.timestamp(last_ns),
            }))
        };
        let first = counts(3, 0, 20);
        assert_eq!(record(&key, &first, None, &clock), expected(3, 0, 10, 20));
        assert_eq!(record(&key, &first, Some(&first), &clock), None);
        let second = counts(4, 2, 30);
        assert_eq!(record(&key, &second, Some(&first), &clock), expected(1, 2, 20, 30));
    }
}
