//! What the running kernel says of the programs: whether they are loaded, how often they ran, and
//! how much work its verifier had.
//!
//! In: a running [`Sensor`]. Out: a [`Verified`] for every program of the object. Only tests use
//! it; it changes nothing but, for a moment, this process's limit of open files.

use std::os::fd::OwnedFd;

use aya::sys::{Stats, enable_stats};
use aya::{Ebpf, VerifierLogLevel};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::attach::verify;
use super::load::{self, chain};
use super::probes::PROBES;
use super::secrets::ladder;
use super::{KernelConfig, Sensor};

/// The names of programs that the agent never loads begin so.
const NOT_OURS: [&str; 2] = ["bench_", "test_"];

/// A program of the object, as the running kernel has it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Verified {
    /// Its name in the object.
    pub program: String,
    /// Whether it is in the kernel.
    pub loaded: bool,
    /// How often it ran; counted only while [`count_runs`] is kept.
    pub runs: u64,
    /// Instructions that the verifier walked through, of the 1,000,000 it allows. None if the
    /// kernel does not tell of loaded programs (before Linux 5.16).
    pub instructions: Option<u32>,
}

/// Has the kernel count runs while the descriptor is open. Take it before [`Sensor::load`] to count
/// programs that run once at start.
///
/// # Errors
/// The kernel does not offer it (before Linux 5.8), or not to us.
pub fn count_runs() -> Result<OwnedFd, String> {
    enable_stats(Stats::RunTime).map_err(|error| chain(&error))
}

/// Every program of the object but those for benches and tests, sorted by name.
#[must_use]
pub fn programs(sensor: &Sensor) -> Vec<Verified> {
    verified(&sensor.programs)
}

pub(super) fn verified(programs: &Ebpf) -> Vec<Verified> {
    let mut all: Vec<_> = programs
        .programs()
        .filter(|(name, _)| !NOT_OURS.iter().any(|prefix| name.starts_with(prefix)))
        .map(|(name, program)| {
            let info = program.info().ok();
            Verified {
                program: name.to_owned(),
                loaded: info.is_some(),
                runs: info.as_ref().map_or(0, aya::programs::ProgramInfo::run_count),
                instructions: info.and_then(|info| info.verified_instruction_count()),
            }
        })
        .collect();
    all.sort_by(|one, other| one.program.cmp(&other.program));
    all
}

/// (program, instructions) in the verifier's own words, for kernels that keep no such number. The
/// process must have loaded a [`Sensor`] before, and must open nothing meanwhile.
///
/// A log only comes with a refusal, so each program is refused by something that comes after the
/// verifier: no descriptor is left to hand out.
///
/// # Errors
/// The object cannot be opened, or the limit not changed.
pub fn instructions_by_log() -> Result<Vec<(&'static str, u32)>, String> {
    let config = KernelConfig { flows_max: 1, pin_root: None, ..KernelConfig::default() };
    // The statistics alone: the whole walk is megabytes of text.
    let load::Opened { mut programs, btf, .. } =
        load::open_as(&config, None, VerifierLogLevel::STATS, &load::FLOW_MAPS)
            .map_err(|error| error.to_string())?;
    let limit = getrlimit(Resource::Nofile);
    let none = Rlimit { current: Some(0), maximum: limit.maximum };
    setrlimit(Resource::Nofile, none).map_err(|error| error.to_string())?;
    let answers: Vec<_> = PROBES
        .iter()
        .chain(&ladder::probes())
        .map(|probe| (probe.name, verify(&mut programs, probe, &btf)))
        .collect();
    setrlimit(Resource::Nofile, limit).map_err(|error| error.to_string())?;
    let processed = answers.into_iter().filter_map(|(name, answer)| {
        let log = answer.err()?;
        Some((name, processed_instructions(&log)?))
    });
    Ok(processed.collect())
}

/// `processed 1234 insns (limit 1000000) max_states_per_insn ..`, the last line of a log.
fn processed_instructions(log: &str) -> Option<u32> {
    let (_, rest) = log.rsplit_once("processed ")?;
    let (number, _) = rest.split_once(" insns")?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::processed_instructions;

    #[test]
    fn the_verifier_says_how_much_it_walked_through() {
        let log = "refused: Too many open files (os error 24). Verifier output: verification time \
                   12 usec\nstack depth 0+8\nprocessed 4321 insns (limit 1000000) \
                   max_states_per_insn 1 total_states 9 peak_states 9 mark_read 2\n";
        assert_eq!(processed_instructions(log), Some(4321));
        assert_eq!(processed_instructions("processed many insns"), None);
        assert_eq!(processed_instructions("unknown BTF type"), None);
    }
}
