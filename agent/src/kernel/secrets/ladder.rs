//! Loaded programs in, exactly one attached that sees opens out: the first that this kernel takes,
//! and beside it those that see more of what was opened.
//!
//! Nothing here is required: without any of it the agent still sees flows.

use aya::{Btf, Ebpf};

use super::super::ProbeStatus;
use super::super::attach::attach_here;
use super::super::probes::{Hook, Probe};
use super::layout::{Constants, Part};

/// How opens of secret files are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rung {
    /// BPF LSM hook `file_open`.
    Lsm,
    /// Entry of the function `security_file_open`.
    Fentry,
    /// A probe in the same function.
    Kprobe,
    /// The end of the system calls that open files, and of io_uring's requests.
    Syscalls,
}

impl Rung {
    /// Best first.
    pub const ALL: [Self; 4] = [Self::Lsm, Self::Fentry, Self::Kprobe, Self::Syscalls];

    /// As it is shown.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lsm => "lsm/file_open",
            Self::Fentry => "fentry/security_file_open",
            Self::Kprobe => "kprobe/security_file_open",
            Self::Syscalls => "tp_btf/sys_exit",
        }
    }

    /// Its program in the object.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::Lsm => "secret_lsm_open",
            Self::Fentry => "secret_fentry_open",
            Self::Kprobe => "secret_kprobe_open",
            Self::Syscalls => "secret_syscall",
        }
    }

    fn probe(self) -> (Probe, Part) {
        let (hook, part) = match self {
            Self::Lsm => (Hook::Lsm("file_open"), Part::All),
            Self::Fentry => (Hook::Function(OPEN_FUNCTION), Part::All),
            Self::Kprobe => (Hook::Probe(OPEN_FUNCTION), Part::Probe),
            Self::Syscalls => (Hook::Tracepoint("sys_exit"), Part::Syscalls),
        };
        let name = self.program();
        let feature = "who reads which Secret";
        (Probe { name, hook_name: self.name(), hook, feature, required: false }, part)
    }
}

const OPEN_FUNCTION: &str = "security_file_open";

/// Where the kernel lists the security modules in use (securityfs).
const MODULES: &str = "/sys/kernel/security/lsm";

/// io_uring, for the rung that needs to be told of it.
const RING: Probe = Probe {
    name: "secret_ring_open",
    hook_name: "tp_btf/io_uring_complete",
    hook: Hook::Tracepoint("io_uring_complete"),
    feature: "opens of secret files by io_uring",
    required: false,
};

/// What is done with files once they are open.
const USES: [(Probe, Part); 2] = [
    (
        Probe {
            name: "secret_read",
            hook_name: "fentry/shmem_file_read_iter",
            hook: Hook::Function("shmem_file_read_iter"),
            feature: "reads of secret files are told from opens; without it an open counts as use",
            required: false,
        },
        Part::Reads,
    ),
    (
        Probe {
            name: "secret_map",
            hook_name: "fentry/security_mmap_file",
            hook: Hook::Function("security_mmap_file"),
            feature: "mappings of secret files are counted when they are made",
            required: false,
        },
        Part::All,
    ),
];

/// Walks over everything that is open now.
pub(super) const HELD: [(Probe, Part); 2] = [
    (
        Probe {
            name: "secret_held_files",
            hook_name: "iter/task_file",
            hook: Hook::Iterator("task_file"),
            feature: "secret files held open, inherited or passed, by processes in the pid \
                      namespace of the agent",
            required: false,
        },
        Part::All,
    ),
    (
        Probe {
            name: "secret_held_maps",
            hook_name: "iter/task_vma",
            hook: Hook::Iterator("task_vma"),
            feature: "secret files mapped by processes in the pid namespace of the agent",
            required: false,
        },
        Part::Mappings,
    ),
];

/// Every program of the ladder, for who counts them.
#[cfg(feature = "measure")]
pub(in super::super) fn probes() -> Vec<Probe> {
    let rungs = Rung::ALL.map(|rung| rung.probe().0);
    rungs.into_iter().chain([RING]).chain(USES.map(first)).chain(HELD.map(first)).collect()
}

#[cfg(feature = "measure")]
fn first((probe, _): (Probe, Part)) -> Probe {
    probe
}

/// What was attached.
pub(in super::super) struct Ladder {
    /// None if this kernel takes none: then nothing is known of Secrets.
    pub(in super::super) rung: Option<Rung>,
    pub(in super::super) probes: Vec<ProbeStatus>,
}

/// Attaches the first rung of these that the kernel takes, and what goes with it.
pub(in super::super) fn attach(
    programs: &mut Ebpf,
    btf: &Btf,
    constants: &Constants,
    rungs: &[Rung],
) -> Ladder {
    let mut probes = Vec::new();
    let mut try_one = |probe: &Probe, part, problem: Option<String>| {
        let tried = match problem.or_else(|| constants.problem(part)) {
            Some(problem) => Err(problem),
            None => attach_here(programs, probe, btf),
        };
        let is_attached = tried.is_ok();
        probes.push(probe.status(tried.err()));
        is_attached
    };
    let rung = rungs.iter().copied().find(|rung| {
        let (probe, part) = rung.probe();
        let problem = if *rung == Rung::Lsm { lsm_in_use().err() } else { None };
        try_one(&probe, part, problem)
    });
    if rung == Some(Rung::Syscalls) {
        try_one(&RING, Part::Ring, None);
    }
    if rung.is_some() {
        for (probe, part) in USES.iter().chain(&HELD) {
            try_one(probe, *part, None);
        }
    }
    Ladder { rung, probes }
}

/// A hook can be attached to where BPF is compiled in as a security module and not in use: then it
/// never runs (security/security.c, the `lsm=` parameter).
fn lsm_in_use() -> Result<(), String> {
    let modules = std::fs::read_to_string(MODULES).map_err(|error| {
        format!("whether BPF is a security module is not known: {MODULES}: {error}")
    })?;
    if modules.trim_end().split(',').any(|name| name == "bpf") {
        return Ok(());
    }
    Err(format!("bpf is not among the security modules in use: {}", modules.trim_end()))
}

/// What cannot be seen with this rung, for people.
#[must_use]
pub fn blind_spots(rung: Option<Rung>) -> &'static [&'static str] {
    match rung {
        None => &["no read of any Secret is seen on this kernel"],
        Some(Rung::Lsm | Rung::Fentry | Rung::Kprobe) => &FUNCTION_BLIND,
        Some(Rung::Syscalls) => &SYSCALL_BLIND,
    }
}

const PASSED: &str = "a descriptor that was passed or inherited counts when a sweep finds it, not \
                      when it is received; one that is closed before the next sweep is missed";
const NAMESPACE: &str = "sweeps see the processes in the agent's own pid namespace: run it with \
                         hostPID to see those of all pods";
const SPLICED: &str = "sendfile and splice count as opens, not as reads";

const FUNCTION_BLIND: [&str; 4] =
    ["an open that a security module denies afterwards counts as one", PASSED, NAMESPACE, SPLICED];

const SYSCALL_BLIND: [&str; 7] = [
    "reads are not told from opens: a file that is opened and never read counts as read",
    "an open whose descriptor another thread replaces (dup2) before the call returns is counted \
     for the file that took its place; one that is closed by then is counted as descriptor_gone",
    "before Linux 6.13 files that io_uring opens into a table of its own are only counted, as \
     fixed_file",
    "files that the kernel opens itself are not seen: a program that is run, a core dump",
    "a mapping counts when a sweep finds it, not when it is made",
    PASSED,
    NAMESPACE,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rung_says_what_it_cannot_see() {
        assert_eq!(blind_spots(None).len(), 1);
        for rung in Rung::ALL {
            assert!(blind_spots(Some(rung)).contains(&NAMESPACE), "{rung:?}");
        }
        assert_ne!(blind_spots(Some(Rung::Lsm)), blind_spots(Some(Rung::Syscalls)));
    }
}
