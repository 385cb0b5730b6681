//! What watches secret files, without anything else, and on a rung of the caller's choice.
//!
//! In: rungs to try. Out: what their programs counted, and what the kernel says of them. Only tests
//! use it.

use aya::Ebpf;
use aya::maps::{MapData, RingBuf};
use parapet_common::{MAP_LOST, MAP_SECRETS, MAP_TOTALS};
use parapet_core::record::{self, EventBody, Record};
use parapet_core::secrets::VolumeFacts;

use super::clock::Clock;
use super::counters::Counters;
use super::secrets::{self, Rung, Secrets};
use super::verified::{Verified, verified};
use super::{KernelConfig, ProbeStatus, load, map};

/// Its programs and tables; gone when it is dropped.
pub struct SecretsAlone {
    programs: Ebpf,
    secrets: Secrets,
    counters: Counters,
    readers: RingBuf<MapData>,
    probes: Vec<ProbeStatus>,
}

impl SecretsAlone {
    /// Attaches the first of these that the kernel takes.
    ///
    /// # Errors
    /// The object cannot be opened; a rung that is refused is none.
    pub fn attach(rungs: &[Rung]) -> Result<Self, String> {
        let config = KernelConfig {
            flows_max: 1,
            pin_root: None,
            secret_rungs: rungs.to_vec(),
            ..KernelConfig::default()
        };
        Self::open(&config).map_err(|error| error.to_string())
    }

    fn open(config: &KernelConfig) -> Result<Self, load::LoadError> {
        let load::Opened { mut programs, btf, constants } = load::open(config, None)?;
        let (secrets, probes) = load::attach_secrets(&mut programs, &btf, &constants, config)?;
        let counters =
            Counters::new(map(&mut programs, MAP_LOST)?, map(&mut programs, MAP_TOTALS)?);
        let readers = map(&mut programs, MAP_SECRETS)?;
        Ok(Self { programs, secrets, counters, readers, probes })
    }

    /// The one in use; none if none was taken.
    #[must_use]
    pub fn rung(&self) -> Option<Rung> {
        self.secrets.rung()
    }

    /// What was tried, attached or not.
    #[must_use]
    pub fn probes(&self) -> &[ProbeStatus] {
        &self.probes
    }

    /// As [`super::Sensor::set_volumes`].
    pub fn set_volumes(&mut self, volumes: &[VolumeFacts]) -> usize {
        self.secrets.set_volumes(volumes)
    }

    /// As [`super::Sensor::sweep`].
    pub fn sweep(&mut self) {
        secrets::sweep(&mut self.programs);
    }

    /// As [`super::Sensor::read_now`], but for the times of readers, which are not filled in.
    pub fn read(&mut self) -> Vec<Record> {
        let clock = Clock::now();
        let mut records = Vec::new();
        while let Some(entry) = self.readers.next() {
            if let Ok(event) = record::decode(&entry)
                && let EventBody::Reader(seen) = event.body
            {
                records.push(Record::Reader(seen));
            }
        }
        let losses = self.counters.losses().into_iter();
        records.extend(losses.map(|(stage, count)| Record::Lost { stage, count }));
        self.secrets.read(self.counters.secret_totals(), &clock, &mut records);
        records
    }

    /// What the kernel says of these programs.
    #[must_use]
    pub fn programs(&self) -> Vec<Verified> {
        let ours = |program: &Verified| program.program.starts_with("secret_");
        verified(&self.programs).into_iter().filter(ours).collect()
    }

    /// How often one of them ran and for how many nanoseconds in all, while statistics were kept.
    #[must_use]
    pub fn run_time(&self, program: &str) -> (u64, u128) {
        let info = self.programs.program(program).and_then(|program| program.info().ok());
        info.map_or((0, 0), |info| (info.run_count(), info.run_time().as_nanos()))
    }
}
