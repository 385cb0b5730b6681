//! What outlives the agent: maps and links pinned below one folder of bpffs.
//!
//! In: the folder, and what must be equal for a later agent to go on with what an earlier one left.
//! Out: paths to pin at, and the removal of everything. While the agent is dead its programs go on
//! counting; the next one reads what they counted. A folder that another agent uses is refused.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use parapet_common::ABI_VERSION;
use rustix::fs::{FlockOperation, flock, statfs};

use super::load::LoadError;

/// Where pins are if nothing else is said.
pub const PINS_DEFAULT: &str = "/sys/fs/bpf/parapet";

/// `BPF_FS_MAGIC` of include/uapi/linux/magic.h.
const BPF_FS_MAGIC: u32 = 0xcafe_4a11;

/// One generation of pins, and the lock on all of them.
#[derive(Debug)]
pub(super) struct Pins {
    root: PathBuf,
    folder: PathBuf,
    /// Held as long as this agent lives; the kernel lets go of it whatever ends the agent.
    _lock: File,
}

/// Why there are no pins.
#[derive(Debug)]
pub(super) enum PinError {
    /// Another agent has them.
    Busy(LoadError),
    /// There is no place for them; what is wrong and how to mend it.
    Unusable(String),
}

impl Pins {
    /// Opens the folder for this watched cgroup and table size, made if there is none.
    pub(super) fn open(root: &Path, cgroup_id: u64, flows_max: u32) -> Result<Self, PinError> {
        let problem = |error: io::Error| PinError::Unusable(format!("{}: {error}", root.display()));
        if !is_bpffs(root) {
            return Err(PinError::Unusable(format!(
                "{} is not on a BPF file system; mount one (mount -t bpf bpf /sys/fs/bpf), into \
                 the container too, or name a folder on one with --pin-dir",
                root.display()
            )));
        }
        fs::create_dir_all(root).map_err(problem)?;
        let lock = File::open(root).map_err(problem)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            PinError::Busy(LoadError {
                missing: format!("{}: another agent uses these pins", root.display()),
                costs: "two agents would share one set of counters".to_owned(),
                how: "stop the other one, or give this one a folder of its own with --pin-dir"
                    .to_owned(),
            })
        })?;
        let folder = root.join(format!("abi{ABI_VERSION}-cgroup{cgroup_id}-flows{flows_max}"));
        fs::create_dir_all(&folder).map_err(problem)?;
        Ok(Self { root: root.to_path_buf(), folder, _lock: lock })
    }

    /// Where a map is pinned.
    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Where a program's link is pinned.
    pub(super) fn link(&self, program: &str) -> PathBuf {
        self.folder.join(format!("link_{program}"))
    }

    /// Removes what agents of another version, cgroup or table size left. To be called once our own
    /// programs are attached, so that no packet goes unseen meanwhile.
    pub(super) fn remove_others(&self) {
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            let path = entry.path();
            if path != self.folder {
                tracing::info!("replacing {}: counters begin anew", path.display());
                if let Err(error) = fs::remove_dir_all(&path) {
                    tracing::warn!(%error, "{} cannot be removed", path.display());
                }
            }
        }
    }
}

/// Whether pins can be made in this folder or the first one above it that is there.
pub(super) fn is_bpffs(path: &Path) -> bool {
    let existing = path.ancestors().find(|path| path.exists());
    existing.is_some_and(|path| {
        // The type has another width on other machines; the magic number is 32 bits everywhere.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "as above")]
        statfs(path).is_ok_and(|stat| stat.f_type as u32 == BPF_FS_MAGIC)
    })
}

/// Detaches and frees everything that any agent pinned in this folder, and removes it. What was
/// removed comes back; nothing if there was none.
///
/// # Errors
/// An agent is running with these pins, or something cannot be removed.
pub fn cleanup(root: &Path) -> io::Result<Vec<PathBuf>> {
    if !root.exists() {
        return Ok(Vec::new());
    }
    if !is_bpffs(root) {
        return Err(io::Error::other(format!("{} is not on a BPF file system", root.display())));
    }
    let lock = File::open(root)?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        io::Error::other(format!("an agent is running with the pins in {}", root.display()))
    })?;
    let mut removed = Vec::new();
    for entry in fs::read_dir(root)? {
        let folder = entry?.path();
        for pin in fs::read_dir(&folder)? {
            removed.push(pin?.path());
        }
        fs::remove_dir_all(&folder)?;
    }
    fs::remove_dir(root)?;
    removed.sort();
    Ok(removed)
}
