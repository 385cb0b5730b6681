//! What this machine lets us do. Files below /proc and /sys come in, yes or a reason goes out. It
//! never loads, mounts or changes anything that stays.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::run;

/// The capabilities that loading and attaching the BPF programs takes, with their bit numbers
/// (capability.h; CAP_PERFMON and CAP_BPF exist since Linux 5.8).
const CAPABILITIES: [(&str, u32); 4] =
    [("CAP_NET_ADMIN", 12), ("CAP_SYS_ADMIN", 21), ("CAP_PERFMON", 38), ("CAP_BPF", 39)];

/// Programs that the simulated node runs.
const NODE_PROGRAMS: [&str; 5] = ["ip", "nft", "iptables-restore", "nsenter", "unshare"];

/// Programs that pack and run the emulated machines of the stock kernels.
const MACHINE_PROGRAMS: [&str; 8] =
    ["qemu-system-x86_64", "busybox", "cpio", "xz", "strip", "ldd", "ip", "nft"];

/// Whether CI declared that every tier it provides must run.
pub(crate) fn is_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| value == "true" || value == "1")
}

/// Whether this process runs as root.
pub(crate) fn is_root() -> bool {
    process_status().is_some_and(|status| effective_user(&status) == Some(0))
}

/// Why the kernel tier cannot run on this machine; empty when it can.
pub(crate) fn missing_for_kernel_tier() -> Vec<String> {
    let mut missing = missing_for_bpf();
    for program in NODE_PROGRAMS {
        if run::find_program(program).is_none() {
            missing.push(format!("the program {program}"));
        }
    }
    if missing.is_empty() && !can_make_network_namespace() {
        missing.push("permission to make network namespaces".to_string());
    }
    missing
}

/// Why no stock kernel can be started on this machine; empty when they can.
pub(crate) fn missing_for_kernels_tier() -> Vec<String> {
    let mut missing = Vec::new();
    if !cfg!(target_arch = "x86_64") {
        missing.push("x86-64: the kernels are Debian's for amd64".to_string());
    }
    let programs = MACHINE_PROGRAMS.iter().filter(|name| run::find_program(name).is_none());
    missing.extend(programs.map(|program| format!("the program {program}")));
    missing
}

/// What no package brings: privileges and the kernel's own features.
pub(crate) fn missing_for_bpf() -> Vec<String> {
    let mut missing = Vec::new();
    if !is_root() {
        missing.push("root".to_string());
    }
    let capabilities =
        process_status().and_then(|status| effective_capabilities(&status)).unwrap_or(0);
    for (name, bit) in CAPABILITIES {
        if capabilities & (1 << bit) == 0 {
            missing.push(name.to_string());
        }
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        missing.push("kernel BTF (/sys/kernel/btf/vmlinux)".to_string());
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if !has_cgroup2(&mounts) {
        missing.push("a cgroup2 mount".to_string());
    }
    missing
}

fn process_status() -> Option<String> {
    fs::read_to_string("/proc/self/status").ok()
}

/// The second number of the `Uid:` line (real, effective, saved, filesystem).
fn effective_user(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// The `CapEff:` line, a bit per capability.
fn effective_capabilities(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Whether any mount's filesystem type, the first word after the lone dash, is cgroup2.
fn has_cgroup2(mountinfo: &str) -> bool {
    mountinfo.lines().any(|line| {
        line.split_once(" - ").is_some_and(|(_, rest)| rest.split(' ').next() == Some("cgroup2"))
    })
}

/// Made and left at once: the only sure test, since containers may filter the call itself.
fn can_make_network_namespace() -> bool {
    Command::new("unshare")
        .args(["--net", "true"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::{effective_capabilities, effective_user, has_cgroup2};

    const STATUS: &str = "Name:\txtask\nUid:\t1000\t0\t0\t0\nCapEff:\t000000c000001000\n";

    #[test]
    fn the_effective_user_and_capabilities_are_read_from_the_status_file() {
        assert_eq!(effective_user(STATUS), Some(0));
        assert_eq!(effective_capabilities(STATUS), Some(1 << 12 | 1 << 38 | 1 << 39));
        assert_eq!(effective_user("Name:\tx\n"), None);
        assert_eq!(effective_capabilities("CapEff:\tzz\n"), None);
    }

    #[test]
    fn cgroup2_is_told_from_cgroup_by_its_type_and_not_by_its_path() {
        let hybrid = "36 25 0:30 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw\n";
        let version_1 = "35 25 0:29 / /mnt/cgroup2 rw shared:8 - cgroup cgroup rw,memory\n";
        assert!(has_cgroup2(hybrid));
        assert!(!has_cgroup2(version_1));
    }
}
