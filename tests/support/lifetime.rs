//! Who removes what a run made, however the run ends.
//!
//! In: the names of a run (`prp<pid>-<number>`). Out: cgroups, namespaces, processes, mounts and
//! folders that are gone. A guard process that outlives the run cleans up after a kill; leftovers
//! of dead runs go when the next one starts. Nothing whose name is not of that form is ever
//! touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, bail};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::process::Program;
use crate::task::{Order, Task};
use crate::{cgroup, namespace};

const PREFIX: &str = "prp";

static RUNS: AtomicU32 = AtomicU32::new(0);

/// One run: everything it makes carries its name. Dropping it removes all of it.
#[derive(Debug)]
pub struct Lifetime {
    name: String,
    guard: Option<Child>,
}

impl Lifetime {
    /// Removes leftovers of dead runs, then begins a new one under a guard.
    ///
    /// # Errors
    /// If the traffic program, which is the guard too, cannot start.
    pub fn begin(program: &Program) -> anyhow::Result<Self> {
        sweep_dead_runs();
        let number = RUNS.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        let order = Order { place: None, task: Task::Reap(name.clone()) };
        let mut command = program.command(&order)?;
        // Ctrl-C goes to a whole group of processes, and the guard must live on.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let guard = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start the guard {}", program.path().display()))?;
        let run = Self { name, guard: Some(guard) };
        fs::create_dir_all(run.folder()).with_context(|| run.folder().display().to_string())?;
        Ok(run)
    }

    /// The name that everything of this run begins with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A folder for the files of this run.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        folder(&self.name)
    }
}

impl Drop for Lifetime {
    fn drop(&mut self) {
        // The guard cleans up when its stdin ends, so there is one way, tried each time.
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            let _ = guard.wait();
        }
        // Only if somebody killed the guard.
        let _ = sweep(&self.name);
    }
}

fn folder(name: &str) -> PathBuf {
    std::env::temp_dir().join(name)
}

/// Removes everything that the run of this name made.
///
/// # Errors
/// What could not be removed; everything else is gone nevertheless.
pub fn sweep(name: &str) -> anyhow::Result<()> {
    if pid_of(name).is_none() {
        bail!("{name} is not the name of a run");
    }
    let mut failures = Vec::new();
    let mut attempt = |result: anyhow::Result<()>| {
        if let Err(error) = result {
            failures.push(format!("{error:#}"));
        }
    };
    // Processes first: they hold the namespaces.
    attempt(cgroup::mount_point().and_then(|root| cgroup::remove(&root.join(name))));
    for namespace in namespace::named(&format!("{name}-")).unwrap_or_default() {
        attempt(namespace::remove(&namespace));
    }
    let files = folder(name);
    // What is pinned there is detached and freed with it.
    for place in mounts_below(&files) {
        attempt(unmount(&place, UnmountFlags::DETACH).with_context(|| place.display().to_string()));
    }
    if files.exists() {
        attempt(fs::remove_dir_all(&files).with_context(|| files.display().to_string()));
    }
    if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("; ")) }
}

/// Mounts a BPF file system of the run's own in its folder, empty, and says where. It goes with the
/// run.
///
/// # Errors
/// Without root.
pub fn mount_bpffs(folder: &Path) -> anyhow::Result<PathBuf> {
    let place = folder.join("bpf");
    fs::create_dir(&place).with_context(|| place.display().to_string())?;
    mount("bpf", &place, "bpf", MountFlags::empty(), None)
        .with_context(|| format!("cannot mount bpffs on {}", place.display()))?;
    Ok(place)
}

/// The newest first.
fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    let mut below: Vec<_> = places.filter(|place| place.starts_with(folder)).collect();
    below.reverse();
    below
}

/// Names that are still there of this run: `netns NAME`, `cgroup NAME`, `folder NAME`.
///
/// # Errors
/// If the places where they would be cannot be read.
pub fn remains(name: &str) -> anyhow::Result<Vec<String>> {
    let namespaces = namespace::named(&format!("{name}-"))?;
    let mut found: Vec<_> = namespaces.iter().map(|name| format!("netns {name}")).collect();
    if cgroup::mount_point()?.join(name).is_dir() {
        found.push(format!("cgroup {name}"));
    }
    if folder(name).exists() {
        found.push(format!("folder {}", folder(name).display()));
    }
    Ok(found)
}

fn sweep_dead_runs() {
    let mut names = cgroup::named(PREFIX).unwrap_or_default();
    names.extend(namespace::named(PREFIX).unwrap_or_default());
    for name in names {
        let Some(pid) = pid_of(&name) else { continue };
        if Path::new("/proc").join(pid.to_string()).exists() {
            continue;
        }
        let run = name.splitn(3, '-').take(2).collect::<Vec<_>>().join("-");
        // Its own guard may be at it in the same moment; what stays is seen by the next run.
        let _ = sweep(&run);
    }
}

/// The process in `prp<pid>-<number>` and in what begins so.
fn pid_of(name: &str) -> Option<u32> {
    let (pid, rest) = name.strip_prefix(PREFIX)?.split_once('-')?;
    let number = rest.split('-').next()?;
    number.parse::<u32>().ok()?;
    pid.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{pid_of, sweep};

    #[test]
    fn only_names_of_runs_are_swept() {
        assert_eq!(pid_of("prp12-0"), Some(12));
        assert_eq!(pid_of("prp12-0-node"), Some(12));
        for stranger in ["prp12", "prp-0", "prpx-0", "prp12-node", "kubepods", "", "prp12-"] {
            assert_eq!(pid_of(stranger), None, "{stranger}");
        }
        let refused = sweep("kubepods").map_err(|error| error.to_string());
        assert_eq!(refused, Err("kubepods is not the name of a run".to_string()));
    }
}
