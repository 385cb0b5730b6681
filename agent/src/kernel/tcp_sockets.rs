//! The kernel's table of TCP sockets, counted: which of its places are taken, only a look at all of
//! them can say, for nobody counts where two CPUs may meet.

use std::os::fd::AsFd as _;
use std::time::Duration;

use aya::maps::MapData;
use parapet_common::TcpSocket;

use super::clock::nanoseconds;
use super::syscall::{Cursor, lookup_batch};

/// Places read at once.
const BATCH: usize = 4_096;

/// The table, and how full it was when it was counted last.
pub(super) struct TcpSockets {
    map: MapData,
    capacity: u32,
    every: Duration,
    counted_ns: Option<u64>,
    entries: u64,
}

impl TcpSockets {
    pub(super) fn new(map: MapData, capacity: u32, every: Duration) -> Self {
        Self { map, capacity, every, counted_ns: None, entries: 0 }
    }

    /// Counts if it is time to.
    pub(super) fn count(&mut self, now_ns: u64) {
        let is_due = |counted| now_ns.saturating_sub(counted) >= nanoseconds(self.every);
        if !self.counted_ns.is_none_or(is_due) {
            return;
        }
        self.counted_ns = Some(now_ns);
        match self.taken() {
            Ok(entries) => self.entries = entries,
            Err(error) => tracing::warn!(%error, "TCP sockets could not be counted"),
        }
    }

    fn taken(&self) -> std::io::Result<u64> {
        let room = BATCH.min(self.capacity as usize);
        let (mut keys, mut places) = (vec![0_u32; room], vec![TcpSocket::default(); room]);
        let (mut entries, mut cursor) = (0, Some(Cursor::default()));
        while let Some(from) = cursor {
            let (count, next) = lookup_batch(self.map.fd().as_fd(), from, &mut keys, &mut places)?;
            let places = places.iter().take(count);
            entries += places.filter(|place| place.owner != 0).count() as u64;
            cursor = next;
        }
        Ok(entries)
    }

    /// Entries when they were last counted, and how many there may be.
    pub(super) fn sizes(&self) -> (u64, u64) {
        (self.entries, u64::from(self.capacity))
    }
}
