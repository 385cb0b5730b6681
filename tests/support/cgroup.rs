//! cgroup2 folders: found, made, emptied and removed.
//!
//! In: `/proc/self/mountinfo` and names. Out: folders that processes can join, named as kubelet and
//! the container runtimes name them. It never enables a controller and never touches a version 1
//! hierarchy.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// How long processes may take to die once they are killed.
const KILL_TIME_MAX: Duration = Duration::from_secs(10);

/// How kubelet and the runtime spell a container's cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Driver {
    /// `kubepods/burstable/pod<UID>/<64 hex>`.
    #[default]
    Cgroupfs,
    /// `kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<UID with _>.slice/` and
    /// `cri-containerd-<64 hex>.scope`.
    Systemd,
}

impl Driver {
    /// The container's folder below the cgroup root, and that of its pod.
    #[must_use]
    pub fn paths(self, pod_uid: &str, container_id: &str) -> (PathBuf, PathBuf) {
        let (pod, container) = match self {
            Self::Cgroupfs => {
                (format!("kubepods/burstable/pod{pod_uid}"), container_id.to_string())
            }
            Self::Systemd => {
                let uid = pod_uid.replace('-', "_");
                let slices = "kubepods.slice/kubepods-burstable.slice";
                (
                    format!("{slices}/kubepods-burstable-pod{uid}.slice"),
                    format!("cri-containerd-{container_id}.scope"),
                )
            }
        };
        let pod = PathBuf::from(pod);
        (pod.join(container), pod)
    }
}

/// Where cgroup2 is mounted: `/sys/fs/cgroup` alone, or below it beside the version 1 hierarchies.
///
/// # Errors
/// If it is not mounted.
pub fn mount_point() -> anyhow::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
    match mount_point_in(&mounts) {
        Some(path) => Ok(path),
        None => bail!("no cgroup2 in /proc/self/mountinfo"),
    }
}

/// Fields before ` - `: id, parent, device, root, mount point, options (proc(5)).
fn mount_point_in(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let is_cgroup2 = kind.split(' ').next() == Some("cgroup2");
        is_cgroup2.then(|| mount.split(' ').nth(4)).flatten().map(PathBuf::from)
    })
}

/// Makes the folder and its parents.
///
/// # Errors
/// Without the right to.
pub fn create(path: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot make cgroup {}", path.display()))
}

/// Moves a process into it; 0 is the caller itself.
///
/// # Errors
/// Without the right to, or if it is gone.
pub fn join(path: &Path, pid: u32) -> anyhow::Result<()> {
    let file = path.join("cgroup.procs");
    fs::write(&file, pid.to_string()).with_context(|| format!("cannot join {}", path.display()))
}

/// The number by which the kernel knows it: the folder's inode.
///
/// # Errors
/// If it is gone.
pub fn id(path: &Path) -> anyhow::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    Ok(fs::metadata(path).with_context(|| path.display().to_string())?.ino())
}

/// Kills every process below, waits until all are gone and removes the folders.
///
/// # Errors
/// If a process does not die in time or a folder cannot be removed.
pub fn remove(path: &Path) -> anyhow::Result<()> {
    if !path.is_dir() {
        return Ok(());
    }
    // cgroup.kill is there since Linux 5.14 (cgroup-v2.rst).
    fs::write(path.join("cgroup.kill"), "1")
        .with_context(|| format!("cannot kill what runs in {}", path.display()))?;
    let since = Instant::now();
    while is_populated(path)? {
        if since.elapsed() > KILL_TIME_MAX {
            bail!("processes in {} do not end", path.display());
        }
        thread::sleep(Duration::from_millis(2));
    }
    remove_folders(path)
}

fn is_populated(path: &Path) -> anyhow::Result<bool> {
    let file = path.join("cgroup.events");
    let events = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    Ok(events.lines().any(|line| line == "populated 1"))
}

fn remove_folders(path: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(path).with_context(|| path.display().to_string())? {
        let entry = entry.with_context(|| path.display().to_string())?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_folders(&entry.path())?;
        }
    }
    fs::remove_dir(path).with_context(|| format!("cannot remove cgroup {}", path.display()))
}

/// Folders of the cgroup2 root that begin so, sorted.
///
/// # Errors
/// If cgroup2 is not mounted or cannot be read.
pub fn named(prefix: &str) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    let root = mount_point()?;
    for entry in fs::read_dir(&root).with_context(|| root.display().to_string())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with(prefix) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{Driver, mount_point_in};

    #[test]
    fn cgroup2_is_found_beside_version_1() {
        let mounts = "32 31 0:29 / /sys/fs/cgroup/cpu rw shared:1 - cgroup cgroup rw,cpu\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_point_in(mounts), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(mount_point_in(&mounts[..60]), None);
    }

    #[test]
    fn both_drivers_name_containers_as_kubelet_does() {
        let expected = [
            (Driver::Cgroupfs, "kubepods/burstable/poda-b", "kubepods/burstable/poda-b/c0"),
            (
                Driver::Systemd,
                "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-poda_b.slice",
                "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-poda_b.slice/\
                 cri-containerd-c0.scope",
            ),
        ];
        for (driver, pod, container) in expected {
            let paths = (PathBuf::from(container), PathBuf::from(pod));
            assert_eq!(driver.paths("a-b", "c0"), paths);
        }
    }
}
