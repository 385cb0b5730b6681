//! What this kernel and process allow, for `parapet doctor`: all of it at once, nothing attached.

use super::layout::BTF_PATH;
use super::secrets::Rung;
use super::{KernelConfig, load};

/// One thing the sensor needs.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Requirement {
    /// What.
    pub name: String,
    /// Whether it is there.
    pub ok: bool,
    /// Whether `parapet run` refuses to start without it.
    pub required: bool,
    /// What was found.
    pub found: String,
    /// What does not work without it.
    pub costs: String,
    /// How to get it; empty if it is there.
    pub how: String,
}

/// include/uapi/linux/capability.h
const CAPABILITIES: [(&str, u32); 3] =
    [("CAP_NET_ADMIN", 12), ("CAP_PERFMON", 38), ("CAP_BPF", 39)];

/// Every requirement, met or not.
#[must_use]
pub fn check(config: &KernelConfig) -> Vec<Requirement> {
    let mut requirements = vec![capabilities(), btf(), cgroup(config)];
    match load::trial() {
        Ok((probes, _)) => requirements.extend(probes.into_iter().map(|probe| Requirement {
            name: format!("program {}", probe.probe),
            ok: probe.attached,
            required: probe.required,
            found: match &probe.error {
                Some(error) => first_line(error),
                None => format!("{} loads", probe.hook),
            },
            costs: probe.feature.to_owned(),
            how: if probe.attached {
                String::new()
            } else {
                "a kernel with this hook (tp_btf, fentry: 5.5, lsm: 5.7 and `bpf` in its lsm=, \
                 inet_sk_error_report: 5.14, iter/task_vma: 5.12)"
                    .to_owned()
            },
        })),
        Err(error) => requirements.push(Requirement {
            name: "loading BPF programs".to_owned(),
            ok: false,
            required: true,
            found: first_line(&error.missing),
            costs: error.costs,
            how: error.how,
        }),
    }
    requirements
}

/// How opens of secret files would be seen; none if nothing that sees them can be attached, or no
/// program be loaded.
#[must_use]
pub fn secret_rung() -> Option<Rung> {
    load::trial().ok().and_then(|(_, rung)| rung)
}

fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default().trim_end();
    // Of what it would say there is nothing on this line.
    line.strip_suffix("Verifier output:").unwrap_or(line).trim_end().to_owned()
}

fn requirement(name: &str, found: Result<String, String>, costs: &str, how: &str) -> Requirement {
    let ok = found.is_ok();
    Requirement {
        name: name.to_owned(),
        ok,
        required: true,
        found: found.unwrap_or_else(|problem| problem),
        costs: costs.to_owned(),
        how: if ok { String::new() } else { how.to_owned() },
    }
}

fn capabilities() -> Requirement {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let missing: Vec<&str> = CAPABILITIES
        .iter()
        .filter(|(_, bit)| effective(&status).is_none_or(|set| set >> bit & 1 == 0))
        .map(|(name, _)| *name)
        .collect();
    let found = if missing.is_empty() {
        Ok("CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN".to_owned())
    } else {
        Err(format!("this process lacks {}", missing.join(", ")))
    };
    requirement(
        "capabilities",
        found,
        "no BPF program can be loaded or attached",
        "run as root, or grant exactly these capabilities to the container",
    )
}

fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn btf() -> Requirement {
    let found = std::fs::metadata(BTF_PATH)
        .map(|file| format!("{BTF_PATH}, {} bytes", file.len()))
        .map_err(|error| format!("{BTF_PATH}: {error}"));
    requirement(
        "kernel types (BTF)",
        found,
        "no program that reads kernel structures can be loaded",
        "run a kernel built with CONFIG_DEBUG_INFO_BTF=y",
    )
}

fn cgroup(config: &KernelConfig) -> Requirement {
    let path = config.cgroup_root.display();
    let found = if config.cgroup_root.join("cgroup.procs").exists() {
        Ok(format!("{path}"))
    } else {
        Err(format!("{path} is no cgroup2 folder"))
    };
    requirement(
        "cgroup2",
        found,
        "no socket can be watched and no pod be told from another",
        "mount cgroup2 (usually at /sys/fs/cgroup), or name it with --cgroup-root",
    )
}

#[cfg(test)]
mod tests {
    use super::effective;

    #[test]
    fn effective_capabilities_are_read_as_hexadecimal() {
        assert_eq!(effective("CapPrm:\t0\nCapEff:\t000000c000001000\n"), Some(0xc0_0000_1000));
        assert_eq!(effective("CapEff:\tnone\n"), None);
        assert_eq!(effective(""), None);
    }
}
