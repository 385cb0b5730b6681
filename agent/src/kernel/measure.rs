//! The packet programs and those they are compared with, side by side on the same packets.
//!
//! In: a cgroup. Out: nanoseconds a run, as the kernel counts them, and what the programs counted
//! meanwhile. Only benches use it; the agent never loads the comparison programs.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use aya::programs::{
    BtfTracePoint, CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, ProgramError,
};
use aya::sys::{Stats, enable_stats};
use aya::{Ebpf, VerifierLogLevel};
use parapet_common::{MAP_LOST, MAP_TOTALS, STAGE_NAMES, STAGE_RING_FULL};
use parapet_core::record::Record;

use super::attach::attach;
use super::clock::Clock;
use super::counters::Counters;
use super::load::{self, chain};
use super::probes::{Hook, PROBES, Probe};
use super::slots::Slots;
use super::{KernelConfig, map};

/// The programs that can be measured. The first two are what the others are compared with.
pub const PROGRAMS: [&str; 4] = ["bench_empty", "bench_floor", "packet_sent", "packet_received"];
/// Without these packets have no time, and closed connections keep the places of new ones.
const BESIDE: [&str; 2] = ["set_clock", "connection_gone"];
/// The map that the floor counts in, which nobody else needs.
const MAP_FLOOR: &str = "FLOOR";

/// Total run time of a program since it was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunTime {
    /// Packets it saw.
    pub runs: u64,
    /// Time in the program, the kernel's own clock reading included.
    pub time: Duration,
}

impl RunTime {
    /// What was added since `before`, in nanoseconds a run.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a bench, far below 2^52")]
    pub fn ns_a_run_since(&self, before: &Self) -> f64 {
        let runs = self.runs.saturating_sub(before.runs).max(1);
        let time = self.time.saturating_sub(before.time);
        time.as_nanos() as f64 / runs as f64
    }
}

/// What the packet programs counted since they were loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Flows in the table.
    pub flows: u64,
    /// Packets of these flows that were sent.
    pub sent_packets: u64,
    /// Packets of these flows that were received.
    pub received_packets: u64,
    /// What was lost, at any stage but the events that nobody reads here.
    pub lost: u64,
}

/// Switches the run-time statistics of all BPF programs on, until what comes out is dropped.
///
/// # Errors
/// What the kernel refused.
pub fn statistics() -> Result<OwnedFd, String> {
    enable_stats(Stats::RunTime).map_err(|error| chain(&error))
}

/// Programs that stand in the places of the agent's. They are gone when this is dropped.
pub struct StandIns {
    _programs: Ebpf,
}

/// What stands in the places of the packet programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StandIn {
    /// Does nothing: the price of the kernel's calling any.
    Empty,
    /// The least that a flow counter can do.
    Floor,
}

impl StandIns {
    /// In the places of the packet programs.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn of_packets(cgroup: &Path, stand_in: StandIn) -> Result<Self, String> {
        let load::Opened { mut programs, .. } = opened(&stand_in_config())?;
        let root = File::open(cgroup).map_err(|error| error.to_string())?;
        let program = programs.program_mut(PROGRAMS[stand_in as usize]);
        let program = program.ok_or("not in the object")?;
        let program: &mut CgroupSkb =
            program.try_into().map_err(|error: ProgramError| chain(&error))?;
        program.load().map_err(|error| chain(&error))?;
        for way in [CgroupSkbAttachType::Egress, CgroupSkbAttachType::Ingress] {
            let mode = CgroupAttachMode::Single;
            program.attach(&root, way, mode).map_err(|error| chain(&error))?;
        }
        Ok(Self { _programs: programs })
    }

    /// At the end of system calls, where opens are seen if the kernel allows nothing better.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn of_system_calls() -> Result<Self, String> {
        let load::Opened { mut programs, btf, .. } = opened(&stand_in_config())?;
        let program = programs.program_mut("bench_syscall").ok_or("not in the object")?;
        let program: &mut BtfTracePoint =
            program.try_into().map_err(|error: ProgramError| chain(&error))?;
        program.load("sys_exit", &btf).map_err(|error| chain(&error))?;
        program.attach().map_err(|error| chain(&error))?;
        Ok(Self { _programs: programs })
    }
}

/// More than the applications of a bench have.
const STAND_IN_FLOWS_MAX: u32 = 1_024;

fn stand_in_config() -> KernelConfig {
    KernelConfig { flows_max: STAND_IN_FLOWS_MAX, ..KernelConfig::default() }
}

/// The object, with room for as many flows in the floor's table as in the agent's own.
fn opened(config: &KernelConfig) -> Result<load::Opened, String> {
    let maps = [&load::FLOW_MAPS[..], &[MAP_FLOOR]].concat();
    load::open_as(config, None, VerifierLogLevel::default(), &maps)
        .map_err(|error| error.to_string())
}

/// All of [`PROGRAMS`], attached to one cgroup.
pub struct Measured {
    programs: Ebpf,
    slots: Slots,
    counters: Counters,
    counted: Counted,
    /// Run-time statistics are on while this is open.
    _statistics: OwnedFd,
}

impl Measured {
    /// With room for this many flows.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn attach(cgroup: &Path, flows_max: u32) -> Result<Self, String> {
        let config = KernelConfig {
            cgroup_root: cgroup.to_path_buf(),
            flows_max,
            share_divisor: 1,
            ..KernelConfig::default()
        };
        let load::Opened { mut programs, btf, .. } = opened(&config)?;
        let mut slots = load::slots(&mut programs, &config).map_err(|error| error.to_string())?;
        slots.fill()?;
        let root = File::open(cgroup).map_err(|error| error.to_string())?;
        for probe in PROBES.iter().filter(|probe| BESIDE.contains(&probe.name)) {
            attach(&mut programs, probe, &root, &btf, None, true)?;
        }
        for name in PROGRAMS {
            let way = match name {
                "packet_received" => CgroupSkbAttachType::Ingress,
                _ => CgroupSkbAttachType::Egress,
            };
            let probe = Probe {
                name,
                hook_name: "cgroup_skb",
                hook: Hook::Cgroup(way),
                feature: "",
                required: true,
            };
            attach(&mut programs, &probe, &root, &btf, None, true)?;
        }
        let mut take = |name: &str| map(&mut programs, name).map_err(|error| error.to_string());
        let counters = Counters::new(take(MAP_LOST)?, take(MAP_TOTALS)?);
        let counted = Counted::default();
        Ok(Self { programs, slots, counters, counted, _statistics: statistics()? })
    }

    /// Run times so far, in the order of [`PROGRAMS`].
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn run_times(&mut self) -> Result<[RunTime; PROGRAMS.len()], String> {
        let mut times = [RunTime::default(); PROGRAMS.len()];
        for (name, time) in PROGRAMS.iter().zip(&mut times) {
            let info = self.program(name)?.info().map_err(|error| chain(&error))?;
            *time = RunTime { runs: info.run_count(), time: info.run_time() };
        }
        Ok(times)
    }

    /// What was counted so far.
    pub fn counted(&mut self) -> Counted {
        let mut records = Vec::new();
        // Nobody reads the events that tell of new flows, so that their ring may be full.
        self.slots.rescan();
        self.slots.read(&Clock::now(), &mut records);
        for record in &records {
            if let Record::Flow(flow) = record {
                self.counted.sent_packets += flow.counts.sent_packets;
                self.counted.received_packets += flow.counts.received_packets;
            }
        }
        self.counted.flows = self.slots.entries();
        let ring_full = STAGE_NAMES[STAGE_RING_FULL as usize];
        let losses = self.counters.losses();
        let counted = losses.iter().filter(|(stage, _)| *stage != ring_full);
        self.counted.lost += counted.map(|(_, count)| count).sum::<u64>();
        self.counted
    }

    fn program(&mut self, name: &str) -> Result<&mut CgroupSkb, String> {
        let program = self.programs.program_mut(name).ok_or("not in the object")?;
        program.try_into().map_err(|error: aya::programs::ProgramError| chain(&error))
    }
}
