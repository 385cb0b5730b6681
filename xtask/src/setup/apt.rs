//! Debian's package tools. Package names come in, installed packages go out. It never starts a
//! service of an installed package and never upgrades what nobody asked for.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;

use crate::run;
use crate::setup::packages::Need;

/// Debian asks this program before it starts any service; 101 means "not allowed" (invoke-rc.d(8)).
const SERVICE_POLICY: &str = "/usr/sbin/policy-rc.d";
const SERVICE_POLICY_TEXT: &str =
    "#!/bin/sh\n# Written by `cargo xtask setup` for one installation; safe to delete.\nexit 101\n";

/// Services that the packages bring and nobody here wants: tests start their own.
const SERVICES: [(&str, &str); 1] = [("prometheus", "prometheus.service")];

/// The listed packages that dpkg has fully installed; none where there is no dpkg.
pub(crate) fn installed(needs: &[Need]) -> anyhow::Result<BTreeSet<String>> {
    if run::find_program("dpkg-query").is_none() {
        return Ok(BTreeSet::new());
    }
    // The exit status is 1 as soon as one name is unknown, while the others are still answered.
    let answer = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"])
        .args(needs.iter().map(|need| need.package))
        .stderr(Stdio::null())
        .output()
        .context("cannot start dpkg-query")?;
    Ok(parse_installed(&String::from_utf8_lossy(&answer.stdout)))
}

fn parse_installed(answer: &str) -> BTreeSet<String> {
    answer
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(_, status)| *status == "installed")
        .map(|(package, _)| package.to_string())
        .collect()
}

/// Installs the packages without the services that some of them bring.
pub(crate) fn install(names: &[&str]) -> anyhow::Result<()> {
    run::step(
        "apt-get update",
        "package lists of a fresh machine are empty or old",
        apt_get().arg("update").arg("--quiet"),
    )?;
    let _quiet_services = ServicePolicy::deny(Path::new(SERVICE_POLICY))?;
    run::step(
        &format!("apt-get install {}", names.join(" ")),
        "missing above; services are not started",
        apt_get().args(["install", "--yes", "--quiet", "--no-install-recommends"]).args(names),
    )?;
    for (package, service) in SERVICES {
        if names.contains(&package) && run::find_program("systemctl").is_some() {
            // Installing enabled it for the next boot. Without systemd there is nothing to undo,
            // and a service that nobody uses is no reason to fail.
            let _ = run::output(Command::new("systemctl").args(["disable", service]));
        }
    }
    Ok(())
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    command
}

/// Forbids starting services until dropped. A policy of the machine's own is respected: it is
/// left as it is, whatever it allows.
struct ServicePolicy {
    written: Option<PathBuf>,
}

impl ServicePolicy {
    fn deny(path: &Path) -> anyhow::Result<Self> {
        // One that an interrupted setup left behind is ours to replace.
        if fs::read_to_string(path).is_ok_and(|text| text == SERVICE_POLICY_TEXT) {
            return Ok(Self { written: Some(path.to_path_buf()) });
        }
        let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(path);
        match made {
            Ok(mut file) => {
                std::io::Write::write_all(&mut file, SERVICE_POLICY_TEXT.as_bytes())?;
                // The umask may have taken the execute bits that create asked for.
                file.set_permissions(fs::Permissions::from_mode(0o755))?;
                Ok(Self { written: Some(path.to_path_buf()) })
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Self { written: None }),
            Err(error) => Err(error).with_context(|| format!("cannot write {}", path.display())),
        }
    }
}

impl Drop for ServicePolicy {
    fn drop(&mut self) {
        if let Some(path) = &self.written {
            // Nothing sensible is left to do in a drop; the file names its author and says it
            // may be deleted, and the next setup takes it over.
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::{SERVICE_POLICY_TEXT, ServicePolicy, parse_installed};

    #[test]
    fn only_fully_installed_packages_count() {
        let answer =
            "gcc installed\nnftables config-files\ncurl half-configured\niproute2 installed\n";
        let expected = BTreeSet::from(["gcc".to_string(), "iproute2".to_string()]);
        assert_eq!(parse_installed(answer), expected);
    }

    #[test]
    fn the_service_policy_lives_exactly_as_long_as_the_installation() {
        let folder = std::env::temp_dir().join(format!("xtask-policy-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("policy-rc.d");

        let policy = ServicePolicy::deny(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), SERVICE_POLICY_TEXT);
        drop(policy);
        assert!(!path.exists());

        // The machine's own policy survives us.
        fs::write(&path, "#!/bin/sh\nexit 0\n").unwrap();
        drop(ServicePolicy::deny(&path).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "#!/bin/sh\nexit 0\n");

        // One that an interrupted setup left is removed by the next.
        fs::write(&path, SERVICE_POLICY_TEXT).unwrap();
        drop(ServicePolicy::deny(&path).unwrap());
        assert!(!path.exists());
        fs::remove_dir_all(&folder).unwrap();
    }
}
