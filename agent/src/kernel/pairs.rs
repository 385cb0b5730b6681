//! The kernel's socket pairs: forgets those that are idle, so that there is room for new ones.
//!
//! In: the pair table, the time. Out: entries removed, and how many each pod gave back. A pair
//! that is forgotten while both ends still talk is a new attempt when they do so again.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd as _;
use std::time::Duration;

use aya::maps::MapData;
use parapet_common::{PAIRS_MAX, Pair, PairKey, SHARE_DIVISOR};

use super::clock::nanoseconds;
use super::syscall::{Cursor, delete_batch, lookup_batch};

/// A pair of a pod that has used half of its share is forgotten after this part of the usual time:
/// of a minute after twelve seconds, which is longer than any resolver or client waits.
const CROWDED_DIVISOR: u32 = 5;
/// The same for one that was answered: after four seconds. Each name that is resolved is a pair, so
/// that this is how many a second a DNS server can be asked for.
const CROWDED_ANSWERED_DIVISOR: u32 = 15;
/// How often the table is walked: every two seconds of that minute.
const SWEEP_DIVISOR: u32 = 30;
/// Entries read at once.
const BATCH: usize = 4_096;

const EMPTY_KEY: PairKey = PairKey {
    owner: 0,
    peer_addr: [0; 16],
    peer_port: 0,
    local_port: 0,
    protocol: 0,
    reserved: [0; 3],
};
const EMPTY: Pair = Pair { flow: 0, last_seen_ns: 0, charged_id: 0, direction: 0, answered: 0 };

/// The table and when it was walked last.
pub(super) struct Pairs {
    map: MapData,
    /// A pair without a packet for this long is forgotten. Long enough for a pause of one client,
    /// short enough that another client that got the same port by chance is an attempt of its own.
    idle_max: Duration,
    swept_ns: u64,
    entries: u64,
    /// Pods, and cgroups in no pod, that had more than half of their share when the table was
    /// walked last, before any pair left: what leaves in one walk comes again before the next.
    crowded: HashSet<u64>,
}

impl Pairs {
    pub(super) fn new(map: MapData, idle_max: Duration) -> Self {
        Self { map, idle_max, swept_ns: 0, entries: 0, crowded: HashSet::new() }
    }

    /// Entries when they were last counted, and how many there may be.
    pub(super) fn sizes(&self) -> (u64, u64) {
        (self.entries, u64::from(PAIRS_MAX))
    }

    /// Walks the table if it is time to; how many pairs each pod gave back comes out.
    pub(super) fn sweep(&mut self, now_ns: u64) -> std::io::Result<HashMap<u64, u64>> {
        let every_ns = nanoseconds(self.idle_max / SWEEP_DIVISOR);
        if now_ns.saturating_sub(self.swept_ns) < every_ns {
            return Ok(HashMap::new());
        }
        self.swept_ns = now_ns;
        let (mut counts, mut idle) = (HashMap::<u64, u64>::new(), Vec::new());
        let [usual_ns, crowded_ns, crowded_answered_ns] =
            [1, CROWDED_DIVISOR, CROWDED_ANSWERED_DIVISOR]
                .map(|by| nanoseconds(self.idle_max / by));
        self.walk(|key, pair| {
            let idle_ns = match (self.crowded.contains(&pair.charged_id), pair.answered) {
                (false, _) => usual_ns,
                (true, 0) => crowded_ns,
                (true, _) => crowded_answered_ns,
            };
            if now_ns.saturating_sub(pair.last_seen_ns) > idle_ns {
                idle.push((*key, pair.charged_id));
            }
            *counts.entry(pair.charged_id).or_default() += 1;
        })?;
        let mut returned = HashMap::new();
        self.remove(&idle, &mut returned)?;
        self.entries = counts.values().sum::<u64>().saturating_sub(returned.values().sum());
        counts.retain(|_, pairs| *pairs > u64::from(PAIRS_MAX / SHARE_DIVISOR / 2));
        let crowded: HashSet<u64> = counts.into_keys().collect();
        if !crowded.is_subset(&self.crowded) {
            // Again with the next read, by what holds for them.
            self.swept_ns = 0;
        }
        self.crowded = crowded;
        Ok(returned)
    }

    /// Pairs by who is charged for them, now.
    pub(super) fn by_charged(&self) -> std::io::Result<HashMap<u64, u64>> {
        let mut counts = HashMap::new();
        self.walk(|_, pair| *counts.entry(pair.charged_id).or_default() += 1)?;
        Ok(counts)
    }

    fn walk(&self, mut each: impl FnMut(&PairKey, &Pair)) -> std::io::Result<()> {
        let mut keys = vec![EMPTY_KEY; BATCH];
        let mut values = vec![EMPTY; BATCH];
        let mut cursor = Some(Cursor::default());
        while let Some(from) = cursor {
            let (count, next) = lookup_batch(self.map.fd().as_fd(), from, &mut keys, &mut values)?;
            for (key, pair) in keys.iter().zip(&values).take(count) {
                each(key, pair);
            }
            cursor = next;
        }
        Ok(())
    }

    /// Nobody else removes pairs, so each that was found is there.
    fn remove(
        &self,
        idle: &[(PairKey, u64)],
        returned: &mut HashMap<u64, u64>,
    ) -> std::io::Result<()> {
        for batch in idle.chunks(BATCH) {
            let keys: Vec<PairKey> = batch.iter().map(|(key, _)| *key).collect();
            let removed = delete_batch(self.map.fd().as_fd(), &keys)?;
            for (_, charged_id) in batch.iter().take(removed) {
                *returned.entry(*charged_id).or_default() += 1;
            }
        }
        Ok(())
    }
}
