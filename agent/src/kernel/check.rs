//! What this kernel and process allow, for `parapet doctor`: all of it at once. Nothing stays
//! attached.

use super::layout::BTF_PATH;
use super::secrets::Rung;
use super::{KernelConfig, ProbeStatus, load};

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

impl Requirement {
    /// One without which `parapet run` does not start. `how` is how to get what was not found.
    #[must_use]
    pub fn required(
        name: &str,
        found: Result<String, String>,
        costs: &str,
        how: impl Into<String>,
    ) -> Self {
        Self { required: true, ..Self::wanted(name, found, costs, how) }
    }

    /// One without which `parapet run` does less.
    #[must_use]
    pub fn wanted(
        name: &str,
        found: Result<String, String>,
        costs: &str,
        how: impl Into<String>,
    ) -> Self {
        let ok = found.is_ok();
        Self {
            name: name.to_owned(),
            ok,
            required: false,
            found: found.unwrap_or_else(|problem| problem),
            costs: costs.to_owned(),
            how: if ok { String::new() } else { how.into() },
        }
    }
}

/// Every requirement, met or not; and how opens of secret files are seen: none if nothing that sees
/// them can be attached, or no program be loaded.
#[must_use]
pub fn check(config: &KernelConfig) -> (Vec<Requirement>, Option<Rung>) {
    let mut requirements = vec![capabilities(), btf(), cgroup(config)];
    let rung = match load::trial() {
        Ok((probes, rung)) => {
            requirements.extend(probes.iter().map(program));
            rung
        }
        Err(error) => {
            let found = Err(first_line(&error.missing));
            let name = "loading BPF programs";
            requirements.push(Requirement::required(name, found, &error.costs, error.how));
            None
        }
    };
    (requirements, rung)
}

fn program(probe: &ProbeStatus) -> Requirement {
    let found = match &probe.error {
        Some(error) => Err(first_line(error)),
        None => Ok(format!("{} loads", probe.hook)),
    };
    let how = "a kernel with this hook (tp_btf, fentry: 5.5, lsm: 5.7 and `bpf` in its lsm=, \
               inet_sk_error_report: 5.14, iter/task_vma: 5.12)";
    Requirement {
        required: probe.required,
        ..Requirement::wanted(&format!("program {}", probe.probe), found, probe.feature, how)
    }
}

fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default().trim_end();
    // Of what it would say there is nothing on this line.
    line.strip_suffix("Verifier output:").unwrap_or(line).trim_end().to_owned()
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
    Requirement::required(
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
    Requirement::required(
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
    Requirement::required(
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
