//! What outlives the agent: maps and links pinned below one folder of bpffs.
//!
//! In: the folder, and what must be equal for a later agent to go on with what an earlier one left.
//! Out: paths to pin at, and the removal of everything. While the agent is dead its programs go on
//! counting; the next one reads what they counted. A folder that another agent uses is refused, and
//! what somebody else pinned beside ours is never touched.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use parapet_common::ABI_VERSION;
use rustix::fs::{Access, FlockOperation, access, flock, statfs};

use super::Requirement;
use super::load::LoadError;

/// Where pins are if nothing else is said.
pub const PINS_DEFAULT: &str = "/sys/fs/bpf/parapet";

/// How to get a folder that is not there yet.
const MOUNT: &str = "mount a BPF file system (mount -t bpf bpf /sys/fs/bpf), into the container \
                     too, or name a folder on one with --pin-dir";

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
            let shown = root.display();
            return Err(PinError::Unusable(format!(
                "{shown} is not on a BPF file system; {MOUNT}"
            )));
        }
        fs::create_dir_all(root).map_err(problem)?;
        let lock = lock(root).map_err(problem)?.ok_or_else(|| {
            PinError::Busy(LoadError {
                missing: format!("{}: another agent uses these pins", root.display()),
                costs: "two agents would share one set of counters".to_owned(),
                how: "stop the other one, or give this one a folder of its own with --pin-dir"
                    .to_owned(),
            })
        })?;
        let folder = root.join(generation(ABI_VERSION, cgroup_id, flows_max));
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

    /// Where a link is pinned before it takes the place of an older one. bpffs refuses names with a
    /// dot.
    pub(super) fn new_link(&self, program: &str) -> PathBuf {
        self.folder.join(format!("new_link_{program}"))
    }

    /// Removes what agents of another version, cgroup or table size left. To be called once our own
    /// programs are attached, so that no packet goes unseen meanwhile.
    pub(super) fn remove_others(&self) {
        for path in generations(&self.root).unwrap_or_default() {
            if path != self.folder {
                tracing::info!("replacing {}: counters begin anew", path.display());
                if let Err(error) = fs::remove_dir_all(&path) {
                    tracing::warn!(%error, "{} cannot be removed", path.display());
                }
            }
        }
    }
}

fn generation(abi: u32, cgroup_id: u64, flows_max: u32) -> String {
    format!("abi{abi}-cgroup{cgroup_id}-flows{flows_max}")
}

/// Whether a folder has a name that [`generation`] gives. The folder may be one that others pin in.
fn is_generation(name: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let parts = name.strip_prefix("abi").and_then(|rest| rest.split_once("-cgroup"));
    let Some((abi, rest)) = parts else { return false };
    let Some((cgroup, flows)) = rest.split_once("-flows") else { return false };
    number(abi) && number(cgroup) && number(flows)
}

/// Folders of agents of any version below this one, sorted.
fn generations(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(is_generation) && entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// None if somebody else has it.
fn lock(root: &Path) -> io::Result<Option<File>> {
    let file = File::open(root)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(None);
    }
    // A cleanup may have removed it between the two: then the lock is on a folder nobody finds.
    let is_there = fs::metadata(root)?.ino() == file.metadata()?.ino();
    Ok(is_there.then_some(file))
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

/// Detaches and frees everything that any agent pinned in this folder, and removes the folder if it
/// is empty then. What was removed comes back; nothing if there was none.
///
/// # Errors
/// An agent is running with these pins, or something cannot be removed.
pub fn cleanup(root: &Path) -> io::Result<Vec<PathBuf>> {
    if !root.try_exists()? {
        return Ok(Vec::new());
    }
    if !is_bpffs(root) {
        return Err(io::Error::other("it is not on a BPF file system, where no agent can pin"));
    }
    let Some(_lock) = lock(root)? else {
        return Err(io::Error::other("an agent is running with these pins, stop it first"));
    };
    let mut removed = Vec::new();
    for folder in generations(root)? {
        let mut pins = Vec::new();
        for pin in fs::read_dir(&folder)? {
            pins.push(pin?.path());
        }
        fs::remove_dir_all(&folder)?;
        pins.sort();
        removed.extend(pins);
        removed.push(folder);
    }
    // Not if it is where a file system is mounted, or if others pin there.
    if fs::remove_dir(root).is_ok() {
        removed.push(root.to_path_buf());
    }
    Ok(removed)
}

/// What `parapet doctor` says of the folder; nothing is made or locked for longer than a moment.
#[must_use]
pub fn check_pins(root: Option<&Path>) -> Requirement {
    let (found, how) = match root.map(look) {
        Some(Ok(found)) => (Ok(found), ""),
        Some(Err((problem, how))) => (Err(problem), how),
        None => (Err("switched off with --pin-dir none".to_owned()), "leave that out"),
    };
    Requirement::wanted(
        "pins (bpffs)",
        found,
        "what passes while the agent restarts is not counted, and its reports begin anew",
        how,
    )
}

fn look(root: &Path) -> Result<String, (String, &'static str)> {
    let shown = root.display();
    if !is_bpffs(root) {
        return Err((format!("{shown} is not on a BPF file system"), MOUNT));
    }
    let existing = root.ancestors().find(|path| path.exists()).unwrap_or(root);
    access(existing, Access::WRITE_OK | Access::READ_OK)
        .map_err(|error| (format!("{}: {error}", existing.display()), "run as root"))?;
    if existing != root {
        return Ok(format!("{shown} can be made; nothing is pinned"));
    }
    Ok(match (lock(root), generations(root).unwrap_or_default().is_empty()) {
        (Ok(None), _) => format!("{shown}, in use by a running agent"),
        (_, true) => format!("{shown}, nothing is pinned"),
        (_, false) => format!("{shown}, left by an agent; the next one goes on with them"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_of_agents_are_taken_for_theirs() {
        assert!(is_generation(&generation(2, 77, 65_536)));
        assert!(is_generation("abi1-cgroup1-flows8"));
        for other in [
            "",
            "tc",
            "cilium",
            "abi-cgroup1-flows8",
            "abi1-cgroup-flows8",
            "xabi1",
            "abi1-cgroup1-flows",
            "abi1-cgroup1-flows8x",
            "abi1-cgroup1",
            "abi2-cgroup1-flows8.new",
        ] {
            assert!(!is_generation(other), "{other}");
        }
    }

    #[test]
    fn a_folder_on_another_file_system_is_refused_and_stays() {
        let root = std::env::temp_dir().join(format!("parapet-pins-{}", std::process::id()));
        fs::create_dir_all(root.join("abi1-cgroup1-flows8")).unwrap();
        let refused = cleanup(&root).map_err(|error| error.to_string());
        let checked = check_pins(Some(&root));
        let stays = root.join("abi1-cgroup1-flows8").is_dir();
        fs::remove_dir_all(&root).unwrap();
        let problem = format!("{} is not on a BPF file system", root.display());
        let expected = "it is not on a BPF file system, where no agent can pin".to_owned();
        assert_eq!(refused, Err(expected));
        assert_eq!((checked.ok, checked.required, checked.found), (false, false, problem));
        assert_eq!(checked.how, MOUNT);
        assert!(stays);
    }

    #[test]
    fn nothing_is_removed_where_there_is_nothing() {
        assert_eq!(cleanup(Path::new("/no/such/folder")).unwrap(), Vec::<PathBuf>::new());
    }
}
