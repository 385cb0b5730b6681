//! The kernel's side of "who reads which Secret": which superblocks count goes in, who opened what
//! on them comes out as records.
//!
//! Nothing of it outlives the agent: it begins anew with each one, and what was opened meanwhile is
//! found by [`Secrets::sweep`]. It is not required: without it the agent sees flows all the same.

use aya::maps::Map;
use aya::{Btf, Ebpf};
use parapet_common::{
    MAP_READERS, MAP_READERS_RETURNED, MAP_READS, MAP_VOLUME_BITS, MAP_VOLUMES, MAP_WATCHED_FILES,
};
use parapet_core::record::Record;
use parapet_core::secrets::VolumeFacts;

use super::ProbeStatus;
use super::attach::walk;
use super::clock::Clock;
use super::counters::SecretTotals;
use super::load::{LoadError, map};

use self::ladder::HELD;
use self::layout::Constants;
use self::reads::{Reads, Shares};
use self::volumes::Volumes;

pub use self::ladder::{Rung, blind_spots};

pub(super) mod cast;
pub(super) mod ladder;
pub(super) mod layout;
mod reads;
mod volumes;

/// What is loaded of it.
pub(super) struct Secrets {
    rung: Option<Rung>,
    volumes: Volumes,
    reads: Reads,
    /// What was counted in all when the table was read last.
    totals: SecretTotals,
}

impl Secrets {
    /// Attaches the best of these rungs. `share_max` entries of the table are for one cgroup.
    pub(super) fn attach(
        programs: &mut Ebpf,
        btf: &Btf,
        constants: &Constants,
        rungs: &[Rung],
        share_max: u32,
    ) -> Result<(Self, Vec<ProbeStatus>), LoadError> {
        let volumes = Volumes::new(
            map(programs, MAP_VOLUMES)?,
            map(programs, MAP_VOLUME_BITS)?,
            map(programs, MAP_WATCHED_FILES)?,
        );
        let Map::HashMap(reads) = map(programs, MAP_READS)? else {
            return Err(LoadError::object(format!("{MAP_READS} is no hash")));
        };
        let shares = Shares {
            taken: map(programs, MAP_READERS)?,
            returned: map(programs, MAP_READERS_RETURNED)?,
        };
        let reads = Reads::new(reads, shares, share_max);
        let ladder = ladder::attach(programs, btf, constants, rungs);
        let secrets = Self { rung: ladder.rung, volumes, reads, totals: SecretTotals::default() };
        Ok((secrets, ladder.probes))
    }

    pub(super) fn rung(&self) -> Option<Rung> {
        self.rung
    }

    /// Makes the kernel watch exactly these; how many did not fit comes back.
    pub(super) fn set_volumes(&mut self, volumes: &[VolumeFacts]) -> usize {
        self.volumes.set(volumes)
    }

    /// Whether the kernel counts on all of it.
    pub(super) fn watches(&self, facts: &VolumeFacts) -> bool {
        self.volumes.has(facts)
    }

    /// Appends what was counted since the last read; the table is read only if `totals` say that
    /// there is something.
    pub(super) fn read(&mut self, totals: SecretTotals, clock: &Clock, records: &mut Vec<Record>) {
        let mut result = Ok(());
        if totals != self.totals {
            result = self.reads.read(clock, records);
            // Or it is read again the next time.
            if result.is_ok() {
                self.totals = totals;
            }
        }
        if let Err(error) = result.and_then(|()| self.reads.sweep(clock, records)) {
            tracing::warn!(%error, "the readers of secret files could not be read");
        }
    }

    /// (table, entries, capacity).
    pub(super) fn sizes(&self) -> Vec<(&'static str, u64, u64)> {
        self.volumes.sizes().into_iter().chain([self.reads.sizes()]).collect()
    }
}

/// Looks at everything that processes have open and mapped now. What is not attached is left out:
/// its probe says why.
pub(super) fn sweep(programs: &mut Ebpf) {
    for (probe, _) in &HELD {
        if let Err(error) = walk(programs, probe) {
            tracing::debug!(error, probe = probe.name, "not everything that is open was looked at");
        }
    }
}
