//! The kernel's side of the agent: loads and attaches the BPF programs, turns what they saw into
//! records.
//!
//! In: the running kernel. Out: [`Record`]s, the state of every probe, and what is missing where
//! something cannot load. It is the only importer of aya; it looks nothing up and judges nothing.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use aya::maps::{Map, MapData, RingBuf};
use parapet_common::{
    FLOWS_MAX, MAP_EVENTS, MAP_LOST, MAP_NAMES, MAP_PAIRS, MAP_POD_CGROUPS, MAP_RETURNED,
    MAP_SECRETS, MAP_SERVICES, MAP_SERVICES_VERSION, MAP_TAKEN, MAP_TCP_SOCKETS, MAP_TOTALS,
    SHARE_DIVISOR, STAGE_NAMES, STAGE_RING_FULL, ServicePort,
};
use parapet_core::record::{self, DnsRecord, Event, EventBody, Record};
use parapet_core::secrets::{ReaderSeen, VolumeFacts};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use self::clock::Clock;
use self::counters::Counters;
use self::load::map;
use self::pairs::Pairs;
use self::pins::Pins;
use self::pod_cgroups::PodCgroups;
use self::secrets::Secrets;
use self::service_ports::ServicePorts;
use self::shares::Shares;
use self::tables::Tables;
use self::tcp_sockets::TcpSockets;

pub use self::check::{Requirement, check};
pub use self::counters::Totals;
pub use self::load::LoadError;
pub use self::pins::{PINS_DEFAULT, check_pins, cleanup};
pub use self::secrets::{Rung, blind_spots};

#[cfg(feature = "measure")]
pub mod alone;
mod attach;
mod check;
mod clock;
mod counters;
pub(crate) mod handle;
#[cfg(feature = "measure")]
pub mod inventory;
mod layout;
mod load;
#[cfg(feature = "measure")]
pub mod measure;
mod pairs;
mod pins;
mod pod_cgroups;
mod probes;
pub(crate) mod ready;
#[cfg(feature = "measure")]
pub mod rewrite;
mod secrets;
mod service_ports;
mod shares;
mod slots;
mod syscall;
mod tables;
mod tcp_sockets;
mod ticks;
#[cfg(feature = "measure")]
pub mod verified;

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
    /// A pair of sockets without a packet for this long is forgotten, see `pairs`.
    pub pair_idle_max: Duration,
    /// How often the TCP sockets are counted that the kernel remembers.
    pub count_every: Duration,
    /// One pod, or one cgroup in no pod, gets at most one part in this many of the flows.
    pub share_divisor: u32,
    /// Folder on bpffs for what outlives the agent; none to lose it all at its end.
    pub pin_root: Option<PathBuf>,
    /// How opens of secret files may be seen: the first that this kernel takes is used.
    pub secret_rungs: Vec<Rung>,
}

impl Default for KernelConfig {
    fn default() -> Self {
        Self {
            cgroup_root: PathBuf::from("/sys/fs/cgroup"),
            cgroup_prefix: String::new(),
            flows_max: FLOWS_MAX,
            idle_max: Duration::from_secs(300),
            pair_idle_max: Duration::from_secs(60),
            count_every: Duration::from_secs(30),
            share_divisor: SHARE_DIVISOR,
            pin_root: None,
            secret_rungs: Rung::ALL.to_vec(),
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
    names: AsyncFd<RingBuf<MapData>>,
    readers: AsyncFd<RingBuf<MapData>>,
    counters: Counters,
    tables: Tables,
    secrets: Secrets,
    services: ServicePorts,
    pods: PodCgroups,
    probes: Vec<ProbeStatus>,
    tcp_sockets: TcpSockets,
    cgroup_prefix: String,
    timer: tokio::time::Interval,
    /// Keeps programs, and links that are not pinned, alive.
    programs: aya::Ebpf,
    _pins: Option<Pins>,
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
        let Map::HashMap(pairs) = map(&mut programs, MAP_PAIRS)? else {
            return Err(LoadError::object(format!("{MAP_PAIRS} is no hash")));
        };
        let Map::Array(tcp_sockets) = map(&mut programs, MAP_TCP_SOCKETS)? else {
            return Err(LoadError::object(format!("{MAP_TCP_SOCKETS} is no array")));
        };
        let shares = Shares::new(map(&mut programs, MAP_TAKEN)?, map(&mut programs, MAP_RETURNED)?);
        let mut tables = Tables::new(loaded.slots, Pairs::new(pairs, config.pair_idle_max), shares);
        if loaded.is_continued {
            tables.reconcile().map_err(LoadError::object)?;
        }
        let events = ring(map(&mut programs, MAP_EVENTS)?)?;
        let names = ring(map(&mut programs, MAP_NAMES)?)?;
        let readers = ring(map(&mut programs, MAP_SECRETS)?)?;
        let counters =
            Counters::new(map(&mut programs, MAP_LOST)?, map(&mut programs, MAP_TOTALS)?);
        let mut timer = tokio::time::interval(READ_EVERY);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        Ok(Self {
            events,
            names,
            readers,
            counters,
            tables,
            secrets: loaded.secrets,
            services: ServicePorts::new(
                map(&mut programs, MAP_SERVICES)?,
                map(&mut programs, MAP_SERVICES_VERSION)?,
            ),
            pods: PodCgroups::new(map(&mut programs, MAP_POD_CGROUPS)?),
            probes: loaded.probes,
            tcp_sockets: TcpSockets::new(
                tcp_sockets,
                load::tcp_sockets_max(config),
                config.count_every,
            ),
            cgroup_prefix: config.cgroup_prefix.clone(),
            timer,
            programs,
            _pins: loaded.pins,
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
            ready = self.names.readable_mut() => { ready?.clear_ready(); }
            ready = self.readers.readable_mut() => { ready?.clear_ready(); }
        }
        Ok(self.read_now())
    }

    /// Reads everything there is, without waiting: rings first, so that the cgroups of new flows
    /// are known before the flows, and the answers before the flows that they led to.
    pub fn read_now(&mut self) -> Vec<Record> {
        let clock = Clock::now();
        let mut records = Vec::new();
        let mut undecodable = 0;
        // A snapshot of neither: events that come while they are read are read too. A cgroup is
        // made before its pod asks anything, so its event is not after the answer.
        for ring in [&mut self.events, &mut self.names, &mut self.readers] {
            while let Some(entry) = ring.get_mut().next() {
                match record::decode(&entry) {
                    Ok(event) => {
                        let seen = |slot| self.tables.slots.seen(slot);
                        records.extend(as_record(event, &clock, &self.cgroup_prefix, seen));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a kernel event could not be read");
                        undecodable += 1;
                    }
                }
            }
        }
        self.pods.follow(&records);
        if undecodable > 0 {
            records.push(Record::Lost { stage: "undecodable_event", count: undecodable });
        }
        for (stage, count) in self.counters.losses() {
            if stage == STAGE_NAMES[STAGE_RING_FULL as usize] {
                self.tables.slots.rescan();
            }
            records.push(Record::Lost { stage, count });
        }
        self.tables.read(&clock, &mut records);
        self.tcp_sockets.count(clock.monotonic_ns());
        self.secrets.read(self.counters.secret_totals(), &clock, &mut records);
        records
    }

    /// (table, entries, capacity) of the kernel's tables.
    #[must_use]
    pub fn capacity(&self) -> Vec<(&'static str, u64, u64)> {
        let mut sizes = self.tables.sizes();
        let (tcp_sockets, tcp_sockets_max) = self.tcp_sockets.sizes();
        sizes.push(("tcp_sockets", tcp_sockets, tcp_sockets_max));
        let (services, services_max) = self.services.sizes();
        sizes.push(("service_ports", services, services_max));
        let (pods, pods_max) = self.pods.sizes();
        sizes.push(("pod_cgroups", pods, pods_max));
        sizes.extend(self.secrets.sizes());
        sizes
    }

    /// What was seen, whether it found room in a table or not.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.counters.totals()
    }

    /// Tells the packet programs which addresses and ports are Services', with their `SERVICE_*`
    /// bits; how many did not fit comes back.
    pub fn set_services(&mut self, ports: &HashMap<ServicePort, u32>) -> usize {
        self.services.set(ports)
    }

    /// Tells the packet programs which cgroups are pods', of all that there are. Those that are
    /// made and removed later it learns by itself.
    pub fn set_cgroups(&mut self, existing: &[Record]) {
        self.pods.set(existing);
    }

    /// Tells the kernel which superblocks hold secrets, and which files of the node are watched;
    /// how many did not fit comes back. What is not among them is not counted any more.
    pub fn set_volumes(&mut self, volumes: &[VolumeFacts]) -> usize {
        self.secrets.set_volumes(volumes)
    }

    /// Whether the kernel found room for all of it when it was told last.
    #[must_use]
    pub fn watches(&self, facts: &VolumeFacts) -> bool {
        self.secrets.watches(facts)
    }

    /// Looks for watched files that somebody has open or mapped now, in the pid namespace of this
    /// process; they come as records of the next read. It takes a few milliseconds for every
    /// thousand processes.
    pub fn sweep(&mut self) {
        // Without a way to see opens nothing is watched.
        if self.secrets.rung().is_some() {
            secrets::sweep(&mut self.programs);
        }
    }

    /// How opens of secret files are seen; none if they are not.
    #[must_use]
    pub fn secret_rung(&self) -> Option<Rung> {
        self.secrets.rung()
    }

    /// Opens of secret files since the programs were loaded first, whether there was room to count
    /// them by reader or not.
    #[must_use]
    pub fn secret_opens(&self) -> u64 {
        self.counters.secret_totals().opens
    }
}

fn ring(ring: RingBuf<MapData>) -> Result<AsyncFd<RingBuf<MapData>>, LoadError> {
    // SAFETY: the ring buffer owns its descriptor and keeps it until it is dropped.
    #[expect(unsafe_code, reason = "aya's ring buffer is no I/O-safe owner in tokio's eyes")]
    let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
    ring.map_err(|error| LoadError::object(error.to_string()))
}

/// What an event tells the engine; a new flow is something for the slots alone.
fn as_record(event: Event, clock: &Clock, prefix: &str, seen: impl FnOnce(u32)) -> Option<Record> {
    let at = clock.timestamp(event.time_ns);
    match event.body {
        EventBody::FlowSeen { slot, .. } => {
            seen(slot);
            None
        }
        EventBody::CgroupCreated { cgroup_id, path } => {
            let path = below(prefix, &path)?;
            Some(Record::CgroupCreated { cgroup_id, path, at })
        }
        EventBody::CgroupRemoved { cgroup_id, path } => {
            below(prefix, &path).map(|_| Record::CgroupRemoved { cgroup_id, at })
        }
        EventBody::Dns { cgroup_id, carrier, payload } => {
            Some(Record::Dns(DnsRecord { cgroup_id, at, carrier, payload }))
        }
        EventBody::Reader(seen) => Some(Record::Reader(ReaderSeen { at, ..seen })),
    }
}

/// The path below the watched cgroup, if it is there.
fn below(prefix: &str, path: &str) -> Option<String> {
    // The kernel could not say the path: it is looked for among the folders, see `runtime`.
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
