//! The BPF object in, attached programs out. What a program is for, and whether the agent can do
//! without it, is data here.

use std::fs::File;
use std::io::ErrorKind;

use aya::maps::{HashMap as BpfHashMap, Map, MapData, Queue};
use aya::programs::{BtfTracePoint, CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, ProgramType};
use aya::sys::{BpfHelper, is_helper_supported};
use aya::{Btf, Ebpf, EbpfLoader, include_bytes_aligned};
use parapet_common::{MAP_FLOWS, MAP_FREE_SLOTS, MAP_SLOTS};

use super::layout::{self, BTF_PATH, MEMBERS};
use super::slots::{Key, Slots};
use super::{KernelConfig, ProbeStatus};

/// The programs, inside of the agent's binary.
static OBJECT: &[u8] = include_bytes_aligned!(env!("PARAPET_BPF_OBJECT"));

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

/// How a program is attached.
#[derive(Clone, Copy)]
pub(super) enum Hook {
    Cgroup(CgroupSkbAttachType),
    Tracepoint(&'static str),
}

/// A program of the object.
pub(super) struct Probe {
    pub(super) name: &'static str,
    pub(super) hook_name: &'static str,
    pub(super) hook: Hook,
    pub(super) feature: &'static str,
    pub(super) required: bool,
}

/// Cgroups first: a pod that starts while we attach must be known before its packets are seen.
const PROBES: [Probe; 5] = [
    Probe {
        name: "cgroup_created",
        hook_name: "tp_btf/cgroup_mkdir",
        hook: Hook::Tracepoint("cgroup_mkdir"),
        feature: "flows of pods that live shorter than a second have a pod",
        required: true,
    },
    Probe {
        name: "cgroup_removed",
        hook_name: "tp_btf/cgroup_rmdir",
        hook: Hook::Tracepoint("cgroup_rmdir"),
        feature: "the end of a pod is known to the moment",
        required: true,
    },
    Probe {
        name: "packet_received",
        hook_name: "cgroup_skb/ingress",
        hook: Hook::Cgroup(CgroupSkbAttachType::Ingress),
        feature: "flows",
        required: true,
    },
    Probe {
        name: "packet_sent",
        hook_name: "cgroup_skb/egress",
        hook: Hook::Cgroup(CgroupSkbAttachType::Egress),
        feature: "flows",
        required: true,
    },
    Probe {
        name: "socket_error",
        hook_name: "tp_btf/inet_sk_error_report",
        hook: Hook::Tracepoint("inet_sk_error_report"),
        feature: "refusals by ICMP are told from silence",
        required: false,
    },
];

/// The object in the kernel.
pub(super) struct Loaded {
    pub(super) programs: Ebpf,
    pub(super) slots: Slots,
    pub(super) probes: Vec<ProbeStatus>,
}

pub(super) fn load(config: &KernelConfig) -> Result<Loaded, LoadError> {
    let (mut programs, btf) = open(config.flows_max)?;
    let root = File::open(&config.cgroup_root).map_err(|error| LoadError {
        missing: format!("cgroup {}: {error}", config.cgroup_root.display()),
        costs: "no socket can be watched".to_owned(),
        how: "mount cgroup2 (usually at /sys/fs/cgroup), or name it with --cgroup-root".to_owned(),
    })?;
    // Before the first packet: programs find free slots only once there are some.
    let slots = slots(&mut programs, config)?;
    let mut probes = Vec::new();
    for probe in &PROBES {
        let error = attach(&mut programs, probe, &root, &btf).err();
        if let (Some(error), true) = (&error, probe.required) {
            return Err(refused(probe, error));
        }
        probes.push(probe.status(error));
    }
    Ok(Loaded { programs, slots, probes })
}

/// Loads every program and attaches none, for `doctor`.
pub(super) fn trial() -> Result<Vec<ProbeStatus>, LoadError> {
    let (mut programs, btf) = open(1)?;
    Ok(PROBES.iter().map(|probe| probe.status(verify(&mut programs, probe, &btf).err())).collect())
}

impl Probe {
    fn status(&self, error: Option<String>) -> ProbeStatus {
        ProbeStatus {
            probe: self.name,
            hook: self.hook_name,
            feature: self.feature,
            required: self.required,
            attached: error.is_none(),
            error,
        }
    }
}

pub(super) fn open(flows_max: u32) -> Result<(Ebpf, Btf), LoadError> {
    let no_btf = |problem: String| LoadError {
        missing: format!("{BTF_PATH}: {problem}"),
        costs: "no program that reads kernel structures can be loaded".to_owned(),
        how: "run a kernel built with CONFIG_DEBUG_INFO_BTF=y (all current distributions)"
            .to_owned(),
    };
    let bytes = std::fs::read(BTF_PATH).map_err(|error| no_btf(error.to_string()))?;
    let offsets = layout::offsets(&bytes).map_err(no_btf)?;
    let btf = Btf::from_sys_fs().map_err(|error| no_btf(error.to_string()))?;
    // Linux 5.11; asked for instead of compared, since distributions carry it to older kernels.
    let has_coarse_time = u32::from(
        is_helper_supported(ProgramType::CgroupSkb, BpfHelper::BPF_FUNC_ktime_get_coarse_ns)
            .unwrap_or(false),
    );
    let mut loader = EbpfLoader::new();
    loader.btf(Some(&btf));
    for map in [MAP_FLOWS, MAP_SLOTS, MAP_FREE_SLOTS] {
        loader.map_max_entries(map, flows_max);
    }
    for (member, offset) in MEMBERS.iter().zip(&offsets) {
        loader.override_global(member.global, offset, true);
    }
    loader.override_global("HAS_COARSE_TIME", &has_coarse_time, true);
    let programs = loader.load(OBJECT).map_err(|error| {
        let problem = chain(&error);
        if may_not(&problem) { not_permitted(&problem) } else { LoadError::object(problem) }
    })?;
    Ok((programs, btf))
}

pub(super) fn slots(programs: &mut Ebpf, config: &KernelConfig) -> Result<Slots, LoadError> {
    let mut take = |name: &str| {
        programs.take_map(name).ok_or_else(|| LoadError::object(format!("no map {name}")))
    };
    let flows = BpfHashMap::<MapData, Key, u32>::try_from(take(MAP_FLOWS)?)
        .map_err(|error| LoadError::object(error.to_string()))?;
    let Map::Array(slots) = take(MAP_SLOTS)? else {
        return Err(LoadError::object(format!("{MAP_SLOTS} is no array")));
    };
    let free = Queue::<MapData, u32>::try_from(take(MAP_FREE_SLOTS)?)
        .map_err(|error| LoadError::object(error.to_string()))?;
    Slots::new(flows, slots, free, config.flows_max, config.idle_max).map_err(LoadError::object)
}

fn verify(programs: &mut Ebpf, probe: &Probe, btf: &Btf) -> Result<(), String> {
    let program = programs.program_mut(probe.name).ok_or("not in the object")?;
    let loaded = match probe.hook {
        Hook::Cgroup(_) => {
            <&mut CgroupSkb>::try_from(program).map_err(|error| chain(&error))?.load()
        }
        Hook::Tracepoint(name) => {
            <&mut BtfTracePoint>::try_from(program).map_err(|error| chain(&error))?.load(name, btf)
        }
    };
    loaded.map_err(|error| chain(&error))
}

pub(super) fn attach(
    programs: &mut Ebpf,
    probe: &Probe,
    root: &File,
    btf: &Btf,
) -> Result<(), String> {
    verify(programs, probe, btf)?;
    let program = programs.program_mut(probe.name).ok_or("not in the object")?;
    let attached = match probe.hook {
        // A link: it coexists with whatever others attach, and the kernel takes no flags for it.
        Hook::Cgroup(way) => <&mut CgroupSkb>::try_from(program)
            .map_err(|error| chain(&error))?
            .attach(root, way, CgroupAttachMode::Single)
            .map(|_| ()),
        Hook::Tracepoint(_) => <&mut BtfTracePoint>::try_from(program)
            .map_err(|error| chain(&error))?
            .attach()
            .map(|_| ()),
    };
    attached.map_err(|error| chain(&error))
}

fn refused(probe: &Probe, problem: &str) -> LoadError {
    if may_not(problem) {
        return not_permitted(problem);
    }
    LoadError {
        missing: format!("program {} on {}: {problem}", probe.name, probe.hook_name),
        costs: probe.feature.to_owned(),
        how: "run Linux 5.11 or newer; `parapet doctor` lists what this kernel refuses".to_owned(),
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
