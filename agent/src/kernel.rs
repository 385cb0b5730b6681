//! The kernel's side of the agent: loads and attaches the BPF programs, turns what they saw into
//! records.
//!
//! In: the running kernel. Out: [`Record`]s, the state of every probe, and what is missing where
//! something cannot load. It is the only importer of aya; it looks nothing up and judges nothing.

use std::path::PathBuf;
use std::time::Duration;

use aya::maps::{MapData, PerCpuArray, RingBuf};
use parapet_common::{FLOWS_MAX, MAP_LOST, STAGE_NAMES};
use parapet_core::record::{self, EventBody, Record};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use self::clock::Clock;
use self::slots::Slots;

pub use self::check::{Requirement, check};
pub use self::load::LoadError;

mod check;
mod clock;
mod layout;
mod load;
#[cfg(feature = "measure")]
pub mod measure;
mod slots;

/// How often counters are read when nothing wakes the agent sooner.
const READ_EVERY: Duration = Duration::from_millis(250);

/// What to load and where to attach it.
#[derive(Clone, Debug)]
pub struct KernelConfig {
    /// Folder of the cgroup below which sockets are watched; usually the cgroup2 mount point.
    pub cgroup_root: PathBuf,
    /// Path of that folder in the cgroup2 hierarchy, empty for its root. Events elsewhere are
    /// dropped.
    pub cgroup_prefix: String,
    /// Flows counted at once, below 2^23.
    pub flows_max: u32,
    /// A flow without a packet for this long gives its slot back.
    pub idle_max: Duration,
}

impl Default for KernelConfig {
    fn default() -> Self {
        Self {
            cgroup_root: PathBuf::from("/sys/fs/cgroup"),
            cgroup_prefix: String::new(),
            flows_max: FLOWS_MAX,
            idle_max: Duration::from_secs(300),
        }
    }
}

/// One probe, as data: what it is for and whether it lives.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ProbeStatus {
    /// Name of the program.
    pub probe: &'static str,
    /// What it is attached to.
    pub hook: &'static str,
    /// What is lost without it.
    pub feature: &'static str,
    /// Whether the agent refuses to run without it.
    pub required: bool,
    /// Whether it is attached.
    pub attached: bool,
    /// Why not.
    pub error: Option<String>,
}

/// The loaded programs and what reads their maps. Detaches all of them when dropped.
pub struct Sensor {
    events: AsyncFd<RingBuf<MapData>>,
    lost: PerCpuArray<MapData, u64>,
    lost_before: [u64; STAGE_NAMES.len()],
    slots: Slots,
    probes: Vec<ProbeStatus>,
    cgroup_prefix: String,
    timer: tokio::time::Interval,
    /// Keeps programs and links alive.
    _programs: aya::Ebpf,
}

impl Sensor {
    /// Loads and attaches everything the kernel lets load. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// A required program cannot be loaded or attached; the error says what is missing, what it
    /// costs and how to get it.
    pub fn load(config: &KernelConfig) -> Result<Self, LoadError> {
        let loaded = load::load(config)?;
        let mut programs = loaded.programs;
        let take = |programs: &mut aya::Ebpf, name: &str| {
            programs.take_map(name).ok_or_else(|| LoadError::object(format!("no map {name}")))
        };
        let events = RingBuf::try_from(take(&mut programs, parapet_common::MAP_EVENTS)?)
            .map_err(|error| LoadError::object(error.to_string()))?;
        let lost = PerCpuArray::try_from(take(&mut programs, MAP_LOST)?)
            .map_err(|error| LoadError::object(error.to_string()))?;
        // SAFETY: the ring buffer owns its descriptor and keeps it until it is dropped.
        #[expect(unsafe_code, reason = "aya's ring buffer is no I/O-safe owner in tokio's eyes")]
        let events = unsafe { AsyncFd::register_with_interest(events, Interest::READABLE) }
            .map_err(|error| LoadError::object(error.to_string()))?;
        let mut timer = tokio::time::interval(READ_EVERY);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        Ok(Self {
            events,
            lost,
            lost_before: [0; STAGE_NAMES.len()],
            slots: loaded.slots,
            probes: loaded.probes,
            cgroup_prefix: config.cgroup_prefix.clone(),
            timer,
            _programs: programs,
        })
    }

    /// Every probe, attached or not.
    #[must_use]
    pub fn probes(&self) -> &[ProbeStatus] {
        &self.probes
    }

    /// Waits for the timer, or for a ring that fills faster than that, then reads everything. May
    /// return no record. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The ring's descriptor cannot be polled.
    pub async fn next(&mut self) -> std::io::Result<Vec<Record>> {
        tokio::select! {
            _ = self.timer.tick() => {}
            ready = self.events.readable_mut() => { ready?.clear_ready(); }
        }
        Ok(self.read_now())
    }

    /// Reads everything there is, without waiting: ring first, so that the cgroups of new flows are
    /// known before the flows.
    pub fn read_now(&mut self) -> Vec<Record> {
        let clock = Clock::now();
        let mut records = Vec::new();
        let mut undecodable = 0;
        while let Some(entry) = self.events.get_mut().next() {
            match record::decode(&entry) {
                Ok(event) => {
                    let at = clock.timestamp(event.time_ns);
                    match event.body {
                        EventBody::FlowSeen { slot, .. } => self.slots.seen(slot),
                        EventBody::CgroupCreated { cgroup_id, path } => {
                            if let Some(path) = below(&self.cgroup_prefix, &path) {
                                records.push(Record::CgroupCreated { cgroup_id, path, at });
                            }
                        }
                        EventBody::CgroupRemoved { cgroup_id, path } => {
                            if below(&self.cgroup_prefix, &path).is_some() {
                                records.push(Record::CgroupRemoved { cgroup_id, at });
                            }
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a kernel event could not be read");
                    undecodable += 1;
                }
            }
        }
        if undecodable > 0 {
            records.push(Record::Lost { stage: "undecodable_event", count: undecodable });
        }
        self.read_losses(&mut records);
        self.slots.read(&clock, &mut records);
        records
    }

    /// (table, entries, capacity) of the kernel's tables.
    #[must_use]
    pub fn capacity(&self) -> Vec<(&'static str, u64, u64)> {
        vec![("flows", self.slots.entries(), self.slots.capacity())]
    }

    fn read_losses(&mut self, records: &mut Vec<Record>) {
        for (index, (stage, before)) in STAGE_NAMES.iter().zip(&mut self.lost_before).enumerate() {
            let Ok(index) = u32::try_from(index) else { continue };
            let total = match self.lost.get(&index, 0) {
                Ok(per_cpu) => per_cpu.iter().sum::<u64>(),
                Err(error) => {
                    tracing::warn!(%error, stage, "a loss counter could not be read");
                    continue;
                }
            };
            let count = total.saturating_sub(*before);
            *before = total;
            if count > 0 {
                if *stage == STAGE_NAMES[parapet_common::STAGE_RING_FULL as usize] {
                    self.slots.rescan();
                }
                records.push(Record::Lost { stage, count });
            }
        }
    }
}

/// The path below the watched cgroup, if it is there.
fn below(prefix: &str, path: &str) -> Option<String> {
    // The kernel could not say the path: the engine finds it by id, or says that it is unknown.
    if path.is_empty() {
        return Some(String::new());
    }
    let rest = path.strip_prefix(prefix)?;
    if rest.is_empty() {
        return Some("/".to_owned());
    }
    rest.starts_with('/').then(|| rest.to_owned())
}

#[cfg(test)]
mod tests {
    use super::below;

    #[test]
    fn only_paths_below_the_watched_cgroup_count() {
        assert_eq!(below("", "/kubepods/podx"), Some("/kubepods/podx".to_owned()));
        assert_eq!(below("/test", "/test/kubepods"), Some("/kubepods".to_owned()));
        assert_eq!(below("/test", "/test"), Some("/".to_owned()));
        assert_eq!(below("/test", "/tests/kubepods"), None);
        assert_eq!(below("/test", "/kubepods"), None);
        assert_eq!(below("/test", ""), Some(String::new()));
    }
}
