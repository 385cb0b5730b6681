//! The programs of the BPF object as data: what each is attached to, what it is for, and whether
//! the agent can do without it. It loads nothing.

use aya::programs::CgroupSkbAttachType;

use super::ProbeStatus;

/// How a program is attached.
#[derive(Clone, Copy)]
pub(super) enum Hook {
    Cgroup(CgroupSkbAttachType),
    Tracepoint(&'static str),
    /// A hook of the security modules.
    Lsm(&'static str),
    /// The entry of a kernel function.
    Function(&'static str),
    /// A probe in a kernel function.
    Probe(&'static str),
    /// A packet program that no packet meets: run once, before those that it sets the clock of.
    Clock,
    /// Read once, when nothing was pinned by an agent before us.
    Iterator(&'static str),
}

/// A program of the object.
pub(super) struct Probe {
    pub(super) name: &'static str,
    pub(super) hook_name: &'static str,
    pub(super) hook: Hook,
    pub(super) feature: &'static str,
    pub(super) required: bool,
}

/// What both programs that look at older sockets are for.
const OLDER: &str = "connections older than the agent have a direction";

/// In the order in which they are attached. The clock first, for others read it. Then cgroups: a
/// pod that starts while we attach must be known before its packets are seen. Then the sockets that
/// are there, just before their packets are seen.
pub(super) const PROBES: [Probe; 9] = [
    Probe {
        name: "set_clock",
        hook_name: "BPF_PROG_RUN",
        hook: Hook::Clock,
        feature: "what is counted has a time",
        required: true,
    },
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
        name: "connection_gone",
        hook_name: "tp_btf/tcp_destroy_sock",
        hook: Hook::Tracepoint("tcp_destroy_sock"),
        feature: "what is remembered of a TCP connection ends with it",
        required: true,
    },
    Probe {
        name: "older_listeners",
        hook_name: "iter/task_file",
        hook: Hook::Iterator("task_file"),
        feature: OLDER,
        required: false,
    },
    Probe {
        name: "older_connections",
        hook_name: "iter/task_file",
        hook: Hook::Iterator("task_file"),
        feature: OLDER,
        required: false,
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

impl Probe {
    pub(super) fn status(&self, error: Option<String>) -> ProbeStatus {
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
