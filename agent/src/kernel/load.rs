//! The BPF object in, its programs in the kernel out: what a program needs to know of this kernel
//! is looked up and handed over before.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;

use aya::maps::Map;
use aya::{Btf, Ebpf, EbpfLoader, VerifierLogLevel, include_bytes_aligned};
use parapet_common::{
    MAP_EVENTS, MAP_FLOWS, MAP_FREE_SLOTS, MAP_LOST, MAP_NAMES, MAP_PAIRS, MAP_POD_CGROUPS,
    MAP_RETURNED, MAP_SERVICES, MAP_SLOTS, MAP_SOCKETS, MAP_TAKEN, MAP_TCP_SOCKETS, MAP_TOTALS,
    READS_MAX,
};

use super::attach::{attach, verify};
use super::layout::{self, BTF_PATH, MEMBERS, Types};
use super::pins::{PinError, Pins};
use super::probes::{PROBES, Probe};
use super::secrets::cast;
use super::secrets::layout::Constants;
use super::secrets::{Rung, Secrets};
use super::slots::Slots;
use super::ticks;
use super::{KernelConfig, ProbeStatus};

/// The programs, inside of the agent's binary.
pub(super) static OBJECT: &[u8] = include_bytes_aligned!(env!("PARAPET_BPF_OBJECT"));

/// Why the sensor cannot run on this machine.
#[derive(Debug, thiserror::Error)]
#[error("{missing}\n  costs: {costs}\n  to get it: {how}")]
pub struct LoadError {
    /// What is missing.
    pub missing: String,
    /// What does not work without it.
    pub costs: String,
    /// How to get it.
    pub how: String,
}

impl LoadError {
    pub(super) fn object(problem: String) -> Self {
        Self {
            missing: format!("the BPF object inside this binary cannot be used: {problem}"),
            costs: "no flow is seen".to_owned(),
            how: "this is a fault of the build; please report it with `parapet doctor`".to_owned(),
        }
    }
}

/// Maps that outlive the agent where there are pins. The rest is for one start only.
const PINNED: [&str; 14] = [
    MAP_FLOWS,
    MAP_SLOTS,
    MAP_FREE_SLOTS,
    MAP_EVENTS,
    MAP_LOST,
    MAP_TOTALS,
    MAP_TCP_SOCKETS,
    MAP_SOCKETS,
    MAP_PAIRS,
    MAP_SERVICES,
    MAP_POD_CGROUPS,
    MAP_TAKEN,
    MAP_RETURNED,
    MAP_NAMES,
];

/// Maps with room for as many flows as there may be.
pub(super) const FLOW_MAPS: [&str; 3] = [MAP_FLOWS, MAP_SLOTS, MAP_FREE_SLOTS];

/// The object in the kernel.
pub(super) struct Loaded {
    pub(super) programs: Ebpf,
    pub(super) slots: Slots,
    pub(super) secrets: Secrets,
    pub(super) probes: Vec<ProbeStatus>,
    pub(super) pins: Option<Pins>,
    /// An agent before us left its counters.
    pub(super) is_continued: bool,
}

pub(super) fn load(config: &KernelConfig) -> Result<Loaded, LoadError> {
    let root = File::open(&config.cgroup_root).map_err(|error| LoadError {
        missing: format!("cgroup {}: {error}", config.cgroup_root.display()),
        costs: "no socket can be watched".to_owned(),
        how: "mount cgroup2 (usually at /sys/fs/cgroup), or name it with --cgroup-root".to_owned(),
    })?;
    let cgroup_id = root.metadata().map_or(0, |folder| folder.ino());
    let (pins, mut probes) = open_pins(config, cgroup_id)?;
    let is_continued = pins.as_ref().is_some_and(|pins| pins.map(MAP_FLOWS).exists());
    let Opened { mut programs, btf, constants } = open(config, pins.as_ref())?;
    // Before the first packet: programs find free slots only once there are some.
    let mut slots = slots(&mut programs, config)?;
    if is_continued { slots.recover() } else { slots.fill() }.map_err(LoadError::object)?;
    for probe in &PROBES {
        let attached = attach(&mut programs, probe, &root, &btf, pins.as_ref(), !is_continued);
        let error = attached.err();
        if let (Some(error), true) = (&error, probe.required) {
            return Err(refused(probe, error));
        }
        probes.push(probe.status(error));
    }
    if let Some(pins) = &pins {
        pins.remove_others();
    }
    let (secrets, secret_probes) = attach_secrets(&mut programs, &btf, &constants, config)?;
    probes.extend(secret_probes);
    Ok(Loaded { programs, slots, secrets, probes, pins, is_continued })
}

pub(super) fn attach_secrets(
    programs: &mut Ebpf,
    btf: &Btf,
    constants: &Constants,
    config: &KernelConfig,
) -> Result<(Secrets, Vec<ProbeStatus>), LoadError> {
    Secrets::attach(programs, btf, constants, &config.secret_rungs, reads_share(config))
}

fn reads_share(config: &KernelConfig) -> u32 {
    READS_MAX.div_ceil(config.share_divisor.max(1))
}

/// No pins where there is no place for them: the agent does without, and says so.
fn open_pins(
    config: &KernelConfig,
    cgroup_id: u64,
) -> Result<(Option<Pins>, Vec<ProbeStatus>), LoadError> {
    let Some(root) = &config.pin_root else { return Ok((None, Vec::new())) };
    let status = |error: Option<String>| ProbeStatus {
        probe: "pins",
        hook: "bpffs",
        feature: "what is counted while the agent restarts is kept",
        required: false,
        attached: error.is_none(),
        error,
    };
    match Pins::open(root, cgroup_id, config.flows_max) {
        Ok(pins) => Ok((Some(pins), vec![status(None)])),
        Err(PinError::Unusable(problem)) => Ok((None, vec![status(Some(problem))])),
        Err(PinError::Busy(error)) => Err(error),
    }
}

/// Loads every program, for `doctor`. Nothing is attached for longer than a moment, and of flows
/// nothing at all: which program sees secret files is only known of one that is attached.
pub(super) fn trial() -> Result<(Vec<ProbeStatus>, Option<Rung>), LoadError> {
    let config = KernelConfig { flows_max: 1, pin_root: None, ..KernelConfig::default() };
    let Opened { mut programs, btf, constants } = open(&config, None)?;
    let flows = PROBES.iter().map(|probe| probe.status(verify(&mut programs, probe, &btf).err()));
    let mut probes: Vec<ProbeStatus> = flows.collect();
    let (secrets, secret_probes) = attach_secrets(&mut programs, &btf, &constants, &config)?;
    probes.extend(secret_probes);
    Ok((probes, secrets.rung()))
}

/// The object, with its maps in the kernel and its programs not yet.
pub(super) struct Opened {
    pub(super) programs: Ebpf,
    pub(super) btf: Btf,
    pub(super) constants: Constants,
}

pub(super) fn open(config: &KernelConfig, pins: Option<&Pins>) -> Result<Opened, LoadError> {
    open_as(config, pins, VerifierLogLevel::default(), &FLOW_MAPS)
}

/// `log` is what the verifier says of a program that is refused, `flow_maps` have room for as many
/// flows as there may be.
pub(super) fn open_as(
    config: &KernelConfig,
    pins: Option<&Pins>,
    log: VerifierLogLevel,
    flow_maps: &[&str],
) -> Result<Opened, LoadError> {
    let no_btf = |problem: String| LoadError {
        missing: format!("{BTF_PATH}: {problem}"),
        costs: "no program that reads kernel structures can be loaded".to_owned(),
        how: "run a kernel built with CONFIG_DEBUG_INFO_BTF=y (all current distributions)"
            .to_owned(),
    };
    let bytes = std::fs::read(BTF_PATH).map_err(|error| no_btf(error.to_string()))?;
    let types = Types::new(&bytes).map_err(no_btf)?;
    let offsets = layout::offsets(&types).map_err(no_btf)?;
    let constants = Constants::new(&types);
    let btf = Btf::from_sys_fs().map_err(|error| no_btf(error.to_string()))?;
    let mut loader = EbpfLoader::new();
    loader.btf(Some(&btf)).verifier_log_level(log);
    for map in flow_maps {
        loader.map_max_entries(map, config.flows_max);
    }
    let tcp_sockets = tcp_sockets_max(config);
    loader.map_max_entries(MAP_TCP_SOCKETS, tcp_sockets);
    let tcp_sockets_mask = tcp_sockets - 1;
    loader.override_global("TCP_SOCKETS_MASK", &tcp_sockets_mask, true);
    let share = flows_share(config);
    loader.override_global("FLOWS_SHARE", &share, true);
    let reads_share = reads_share(config);
    loader.override_global("READS_SHARE", &reads_share, true);
    for map in pins.iter().flat_map(|pins| PINNED.map(|name| (name, pins.map(name)))) {
        loader.map_pin_path(map.0, map.1);
    }
    for (member, offset) in MEMBERS.iter().zip(&offsets) {
        loader.override_global(member.global, offset, true);
    }
    for (global, value) in &constants.values {
        loader.override_global(global, value, true);
    }
    let tick_ns = ticks::tick_ns();
    loader.override_global("TICK_NS", &tick_ns, true);
    let object = cast::patched(OBJECT, constants.cast);
    let programs = loader.load(&object).map_err(|error| {
        let problem = chain(&error);
        if may_not(&problem) { not_permitted(&problem) } else { LoadError::object(problem) }
    })?;
    Ok(Opened { programs, btf, constants })
}

/// Takes a map out of the object, as what the caller wants it to be.
pub(super) fn map<T>(programs: &mut Ebpf, name: &str) -> Result<T, LoadError>
where
    T: TryFrom<Map>,
    T::Error: std::fmt::Display,
{
    let map = programs.take_map(name).ok_or_else(|| LoadError::object(format!("no map {name}")))?;
    map.try_into().map_err(|error: T::Error| LoadError::object(format!("{name}: {error}")))
}

/// A power of two, as many as there may be flows: what finds no room here finds some elsewhere.
pub(super) fn tcp_sockets_max(config: &KernelConfig) -> u32 {
    config.flows_max.next_power_of_two()
}

fn flows_share(config: &KernelConfig) -> u32 {
    config.flows_max.div_ceil(config.share_divisor.max(1))
}

pub(super) fn slots(programs: &mut Ebpf, config: &KernelConfig) -> Result<Slots, LoadError> {
    let flows = map(programs, MAP_FLOWS)?;
    let Map::Array(slots) = map(programs, MAP_SLOTS)? else {
        return Err(LoadError::object(format!("{MAP_SLOTS} is no array")));
    };
    let free = map(programs, MAP_FREE_SLOTS)?;
    let room = (config.flows_max, flows_share(config));
    Slots::new(flows, slots, free, room, config.idle_max).map_err(LoadError::object)
}

fn refused(probe: &Probe, problem: &str) -> LoadError {
    if may_not(problem) {
        return not_permitted(problem);
    }
    LoadError {
        missing: format!("program {} on {}: {problem}", probe.name, probe.hook_name),
        costs: probe.feature.to_owned(),
        how: "run Linux 5.10 or newer; `parapet doctor` lists what this kernel refuses".to_owned(),
    }
}

fn may_not(problem: &str) -> bool {
    let denied = std::io::Error::from(ErrorKind::PermissionDenied).to_string();
    problem.contains("os error 1)") || problem.contains("os error 13)") || problem.contains(&denied)
}

fn not_permitted(problem: &str) -> LoadError {
    LoadError {
        missing: format!("permission to load BPF programs: {problem}"),
        costs: "no flow is seen".to_owned(),
        how: "run as root, or with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN".to_owned(),
    }
}

/// An error with its causes: aya's outer errors do not say what the kernel answered.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
