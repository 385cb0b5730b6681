//! The packet programs and those they are compared with, side by side on the same packets.
//!
//! In: a cgroup, or packets for `BPF_PROG_TEST_RUN`. Out: nanoseconds a run, as the kernel counts
//! them. Only benches use it; the agent never loads the comparison programs.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use aya::Ebpf;
use aya::programs::{CgroupSkb, CgroupSkbAttachType, TestRun, TestRunOptions};
use aya::sys::{Stats, enable_stats};

use super::KernelConfig;
use super::attach::attach;
use super::load::{self, chain};
use super::probes::{Hook, Probe};
use super::slots::Slots;

/// The programs that can be measured. The first two are what the others are compared with.
pub const PROGRAMS: [&str; 4] = ["bench_empty", "bench_floor", "packet_sent", "packet_received"];

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

/// All of [`PROGRAMS`], attached to one cgroup.
pub struct Measured {
    programs: Ebpf,
    _slots: Slots,
    /// Run-time statistics are on while this is open.
    _statistics: OwnedFd,
}

impl Measured {
    /// # Errors
    /// What the kernel refused.
    pub fn attach(cgroup: &Path) -> Result<Self, String> {
        let config = KernelConfig {
            cgroup_root: cgroup.to_path_buf(),
            share_divisor: 1,
            ..KernelConfig::default()
        };
        let (mut programs, btf) = load::open(&config, None).map_err(|error| error.to_string())?;
        let mut slots = load::slots(&mut programs, &config).map_err(|error| error.to_string())?;
        slots.fill()?;
        let root = File::open(cgroup).map_err(|error| error.to_string())?;
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
        let statistics = enable_stats(Stats::RunTime).map_err(|error| chain(&error))?;
        Ok(Self { programs, _slots: slots, _statistics: statistics })
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

    /// Mean nanoseconds of `repeat` runs over one Ethernet frame.
    ///
    /// # Errors
    /// The program is not one of [`PROGRAMS`], or the kernel refuses the frame.
    pub fn test_run(&mut self, program: &str, frame: &[u8], repeat: u32) -> Result<u128, String> {
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.repeat = repeat;
        let result = self.program(program)?.test_run(options).map_err(|error| chain(&error))?;
        Ok(result.duration.as_nanos())
    }

    fn program(&mut self, name: &str) -> Result<&mut CgroupSkb, String> {
        let program = self.programs.program_mut(name).ok_or("not in the object")?;
        program.try_into().map_err(|error: aya::programs::ProgramError| chain(&error))
    }
}
