//! What this node lets the agent see of secret files.
//!
//! In: the requirements of the kernel's programs, the kubelet's folder, this process's mounts and
//! namespaces. Out: further requirements, and which program sees opens, which better ones do not
//! and what it cannot see. It opens no file of a volume.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use parapet_core::flow::Timestamp;
use parapet_core::secrets::VolumeOwner;
use serde::Serialize;

use crate::clock::now;
use crate::kernel::{Requirement, Rung, blind_spots};
use crate::node::volumes::{Registry, Scan};

/// Inode number of the first pid namespace (`PROC_PID_INIT_INO`, include/linux/proc_ns.h).
const FIRST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;
const PID_NAMESPACE: &str = "/proc/self/ns/pid";
/// A folder that is no mount is told of when it was seen twice, so far apart.
const LOOK_AGAIN_NS: u64 = 60_000_000_000;
/// Problems that are written out; the others are counted.
const PROBLEMS_SHOWN_MAX: usize = 3;

/// How opens of secret files are seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Sight {
    /// The hook in use; none if nothing sees them.
    pub(super) seen_by: Option<&'static str>,
    /// Better ones that cannot be used here, and why.
    pub(super) not_used: Vec<String>,
    /// What is not seen.
    pub(super) cannot_see: &'static [&'static str],
}

impl Sight {
    /// Of the rung in use. The programs of others are taken out of the requirements: nothing is
    /// lost without them.
    pub(super) fn take(rung: Option<Rung>, requirements: &mut Vec<Requirement>) -> Self {
        let of_rung = |one: &Requirement| {
            Rung::ALL.iter().find(|rung| one.name == format!("program {}", rung.program()))
        };
        let mut not_used = Vec::new();
        if rung.is_some() {
            requirements.retain(|one| {
                let spare = of_rung(one).filter(|_| !one.ok);
                not_used.extend(spare.map(|rung| format!("{}: {}", rung.name(), one.found)));
                spare.is_none()
            });
        }
        Self { seen_by: rung.map(Rung::name), not_used, cannot_see: blind_spots(rung) }
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let seen_by = self.seen_by.unwrap_or("nothing");
        // Writing to a string does not fail, here and below.
        let _ = writeln!(text, "Opens of secret files are seen by {seen_by}");
        for one in &self.not_used {
            let _ = writeln!(text, "  better, but not here: {one}");
        }
        for one in self.cannot_see {
            let _ = writeln!(text, "  not seen: {one}");
        }
        text
    }
}

/// The kubelet's folder, the volumes in it, watched files, and whose processes sweeps see.
pub(super) fn check(kubelet_root: &Path, watched: &[PathBuf]) -> Vec<Requirement> {
    let folder = folder(kubelet_root);
    // What follows from a folder that is not there goes without saying.
    let scan = (folder.ok || !watched.is_empty()).then(|| scan(kubelet_root, watched));
    let volumes = scan.as_ref().map(volumes);
    [Some(folder), volumes, Some(pid_namespace())].into_iter().flatten().collect()
}

fn scan(kubelet_root: &Path, watched: &[PathBuf]) -> Scan {
    let mut registry = Registry::new(kubelet_root, watched);
    let first = now();
    let _ = registry.scan(first);
    registry.scan(Timestamp(first.0.saturating_add(LOOK_AGAIN_NS)))
}

fn folder(root: &Path) -> Requirement {
    let pods = root.join("pods");
    let found = match std::fs::read_dir(&pods) {
        Ok(entries) => Ok(format!("{}, {} pods", pods.display(), entries.count())),
        Err(error) => Err(format!("{}: {error}", pods.display())),
    };
    Requirement::wanted(
        "kubelet folder",
        found,
        "no secret volume of a pod is watched: nobody is seen reading one",
        "mount the node's kubelet folder into the container, or name it with --kubelet-root",
    )
}

fn volumes(scan: &Scan) -> Requirement {
    let of_pods = scan.volumes.iter().filter(|volume| is_of_pod(&volume.owner)).count();
    let files = scan.volumes.iter().filter(|volume| !is_of_pod(&volume.owner));
    let files: usize = files.map(|volume| volume.files.len()).sum();
    let found = format!("{of_pods} volumes of pods, {files} watched files of the node");
    let found = match scan.problems.as_slice() {
        [] => Ok(found),
        problems => {
            let shown = problems.iter().take(PROBLEMS_SHOWN_MAX).cloned();
            let shown = shown.collect::<Vec<_>>().join("; ");
            let more = problems.len().saturating_sub(PROBLEMS_SHOWN_MAX);
            let more = if more > 0 { format!("; and {more} more") } else { String::new() };
            Err(format!("{found}; {shown}{more}"))
        }
    };
    Requirement::wanted(
        "secret volumes",
        found,
        "who reads what is named here is not seen, or not told from others",
        "mount the kubelet's folder with mountPropagation: HostToContainer, and files of the node \
         under their own paths",
    )
}

fn is_of_pod(owner: &VolumeOwner) -> bool {
    matches!(owner, VolumeOwner::Pod { .. })
}

fn pid_namespace() -> Requirement {
    use std::os::unix::fs::MetadataExt as _;
    let found = match std::fs::metadata(PID_NAMESPACE) {
        Ok(file) if file.ino() == FIRST_PID_NAMESPACE => Ok("the node's own".to_owned()),
        Ok(_) => Err("one of a container".to_owned()),
        Err(error) => Err(format!("{PID_NAMESPACE}: {error}")),
    };
    Requirement::wanted(
        "pid namespace",
        found,
        "sweeps find only what processes of this container hold: descriptors and mappings that \
         pods inherited, passed on, or opened before the agent ran are missed; connections older \
         than the agent have no direction",
        "run in the node's pid namespace (hostPID: true)",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(name: &str, ok: bool, found: &str) -> Requirement {
        Requirement {
            name: format!("program {name}"),
            ok,
            required: false,
            found: found.to_owned(),
            costs: String::new(),
            how: String::new(),
        }
    }

    #[test]
    fn a_rung_that_is_not_needed_is_no_loss_and_says_why_it_is_not_used() {
        let mut requirements = vec![
            program(Rung::Lsm.program(), false, "no bpf"),
            program(Rung::Fentry.program(), true, "loads"),
            program("secret_read", false, "no such function"),
        ];
        let sight = Sight::take(Some(Rung::Fentry), &mut requirements);
        assert_eq!(sight.not_used, ["lsm/file_open: no bpf"]);
        assert_eq!(requirements.iter().map(|one| one.ok).collect::<Vec<_>>(), [true, false]);
        let text = sight.text();
        let head = "Opens of secret files are seen by fentry/security_file_open\n  better, but \
                    not here: lsm/file_open: no bpf\n  not seen: ";
        assert!(text.starts_with(head), "{text}");
        let mut requirements = vec![program(Rung::Lsm.program(), false, "no bpf")];
        let sight = Sight::take(None, &mut requirements);
        assert_eq!((sight.seen_by, sight.not_used.len(), requirements.len()), (None, 0, 1));
        let text = "Opens of secret files are seen by nothing\n  not seen: no read of any Secret \
                    is seen on this kernel\n";
        assert_eq!(sight.text(), text);
    }

    #[test]
    fn a_folder_that_is_not_there_says_what_it_costs() {
        let missing = folder(Path::new("/no/such/kubelet"));
        assert_eq!(
            (missing.ok, missing.found.as_str()),
            (false, "/no/such/kubelet/pods: No such file or directory (os error 2)")
        );
        let scan = Scan {
            volumes: Vec::new(),
            problems: ["a", "b", "c", "d"].map(str::to_owned).to_vec(),
        };
        let found = "0 volumes of pods, 0 watched files of the node; a; b; c; and 1 more";
        assert_eq!(volumes(&scan).found, found);
        assert!(volumes(&Scan::default()).ok);
    }
}
