//! What each part of the agent needs of its container, as data: for `parapet doctor` and the
//! README.
//!
//! In: nothing. Out: rows. What is really there is for the requirements to say.

use serde::Serialize;

/// One part of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Part {
    /// What it does.
    pub(super) part: &'static str,
    /// Capabilities.
    pub(super) capabilities: &'static str,
    /// Folders of the node; where nothing else is said, read-only.
    pub(super) host_mounts: &'static str,
    /// Namespaces of the node.
    pub(super) namespaces: &'static str,
    /// What goes missing.
    pub(super) without: &'static str,
}

/// What every program needs. Linux 5.8 split the first two off `SYS_ADMIN`.
const PROGRAMS: &str = "BPF, PERFMON";
const NONE: &str = "-";

/// Every part, the ones that others build on first.
pub(super) const PARTS: [Part; 9] = [
    Part {
        part: "flows",
        capabilities: "BPF, PERFMON, NET_ADMIN",
        host_mounts: "/sys/fs/cgroup",
        namespaces: NONE,
        without: "nothing runs",
    },
    Part {
        part: "counters over restarts",
        capabilities: PROGRAMS,
        host_mounts: "/sys/fs/bpf, writable",
        namespaces: NONE,
        without: "a restart begins anew; reads of secrets begin anew in any case",
    },
    Part {
        part: "backends of Services, addresses of the node",
        capabilities: "NET_ADMIN",
        host_mounts: NONE,
        namespaces: "network (hostNetwork)",
        without: "edges end at the Service; the node is known by the cluster's addresses only",
    },
    Part {
        part: "direction of older connections",
        capabilities: PROGRAMS,
        host_mounts: NONE,
        namespaces: "process ids (hostPID)",
        without: "connections that were open before the agent have no direction",
    },
    Part {
        part: "opens of secret files",
        capabilities: PROGRAMS,
        host_mounts: NONE,
        namespaces: NONE,
        without: "nothing is known of who reads secrets",
    },
    Part {
        part: "whose volume it is, and its keys",
        capabilities: NONE,
        host_mounts: "the kubelet's folder, with mountPropagation: HostToContainer",
        namespaces: NONE,
        without: "no secret volume of a pod is watched",
    },
    Part {
        part: "files of the node (--watch-file)",
        capabilities: NONE,
        host_mounts: "each of them, under its own path",
        namespaces: NONE,
        without: "their readers are not seen",
    },
    Part {
        part: "which pod and container reads",
        capabilities: NONE,
        host_mounts: "/sys/fs/cgroup",
        namespaces: NONE,
        without: "readers are unknown",
    },
    Part {
        part: "held, mapped, inherited and passed descriptors (sweeps)",
        capabilities: PROGRAMS,
        host_mounts: NONE,
        namespaces: "process ids (hostPID)",
        without: "only those of the agent's own container are found: who got a descriptor from \
                  another, or opened a file before the agent ran, is missed",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_says_the_same() {
        let readme = include_str!("../../../../README.md");
        for Part { part, capabilities, host_mounts, namespaces, without } in PARTS {
            let row =
                format!("| {part} | {capabilities} | {host_mounts} | {namespaces} | {without} |");
            assert!(readme.contains(&row), "{row}");
        }
    }
}
