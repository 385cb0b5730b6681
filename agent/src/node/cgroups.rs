//! Where cgroup2 is mounted, and which cgroups are there when the agent starts.
//!
//! In: mountinfo and the folders below the root. Out: the root with its path in the hierarchy, and
//! a record a cgroup. A cgroup's id is the inode number of its folder; it follows no symbolic link.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parapet_common::{STAGE_NAMES, STAGE_RING_FULL};
use parapet_core::flow::Timestamp;
use parapet_core::record::Record;

use super::mountinfo::{self, FileSystem, Mount};

const MOUNTINFO: &str = "/proc/self/mountinfo";
/// Cgroups read at start. Further ones are counted as lost.
pub const CGROUPS_MAX: usize = 65_536;
/// Loss stage: cgroups beyond [`CGROUPS_MAX`] or whose folder could not be read.
const STAGE_CGROUP_WALK: &str = "cgroup_walk";
/// How often folders are walked at most.
const WALK_EVERY: Duration = Duration::from_secs(5);

/// The watched part of the cgroup2 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Its folder.
    pub folder: PathBuf,
    /// Its path in the hierarchy, empty for the root.
    pub prefix: String,
}

/// The folder to watch: the one asked for, else where cgroup2 is mounted. None if it is nowhere.
#[must_use]
pub fn root(asked: Option<&Path>) -> Option<Root> {
    let mountinfo = mountinfo::read(Path::new(MOUNTINFO)).unwrap_or_default();
    let asked = asked.map(|path| path.canonicalize().unwrap_or_else(|_| path.to_owned()));
    choose(&mounts(&mountinfo), asked.as_deref())
}

/// On hybrid hosts cgroup2 sits beside the version 1 hierarchies; the file system type tells.
fn mounts(mountinfo: &[u8]) -> Vec<Mount> {
    let all = mountinfo::mounts(mountinfo, " cgroup2 ");
    all.filter(|mount| mount.kind == FileSystem::Cgroup2).collect()
}

fn choose(mounts: &[Mount], asked: Option<&Path>) -> Option<Root> {
    let Some(asked) = asked else {
        // The mount that shows most of the hierarchy, the first of equals.
        let mount = mounts.iter().min_by_key(|mount| mount.root.as_os_str().len())?;
        let prefix = prefix(&mount.root, Path::new(""))?;
        return Some(Root { folder: mount.point.clone(), prefix });
    };
    let holds = |mount: &&Mount| asked.starts_with(&mount.point);
    let mount = mounts.iter().filter(holds).max_by_key(|mount| mount.point.as_os_str().len())?;
    let below = asked.strip_prefix(&mount.point).ok()?;
    Some(Root { folder: asked.to_owned(), prefix: prefix(&mount.root, below)? })
}

/// None of a path that is no text.
fn prefix(root: &Path, below: &Path) -> Option<String> {
    let (root, below) = (root.to_str()?.trim_end_matches('/'), below.to_str()?);
    Some(if below.is_empty() { root.to_owned() } else { format!("{root}/{below}") })
}

/// When the folders are to be walked again.
#[derive(Debug, Default)]
pub struct Walks {
    missed: bool,
    /// When the last one was due.
    last: Option<Instant>,
}

impl Walks {
    /// Whether it is now, after these records: at once if something was missed, but not with every
    /// read while a flood goes on.
    pub fn is_due(&mut self, records: &[Record], now: Instant) -> bool {
        self.missed |= may_be_missed(records);
        let rested = self.last.is_none_or(|last| now.duration_since(last) >= WALK_EVERY);
        let due = self.missed && rested;
        if due {
            *self = Self { missed: false, last: Some(now) };
        }
        due
    }
}

/// Whether some cgroup was made that these records do not tell, or not where: the ring had no room,
/// or the path was too long for it.
fn may_be_missed(records: &[Record]) -> bool {
    records.iter().any(|record| match record {
        Record::CgroupCreated { path, .. } => path.is_empty(),
        Record::Lost { stage, .. } => *stage == STAGE_NAMES[STAGE_RING_FULL as usize],
        _ => false,
    })
}

/// A record for each cgroup below the root and for the root itself, parents first.
#[must_use]
pub fn existing(root: &Path, at: Timestamp) -> Vec<Record> {
    let mut records = Vec::new();
    let mut lost = 0;
    let mut waiting = vec![(root.to_owned(), String::new())];
    while let Some((folder, path)) = waiting.pop() {
        if records.len() >= CGROUPS_MAX {
            lost += 1;
            continue;
        }
        // A folder that is gone was removed while we walked: nothing is lost by that.
        let Ok(metadata) = folder.metadata() else { continue };
        let name = if path.is_empty() { "/".to_owned() } else { path.clone() };
        records.push(Record::CgroupCreated { cgroup_id: metadata.ino(), path: name, at });
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            match entry.file_name().to_str() {
                Some(name) => waiting.push((entry.path(), format!("{path}/{name}"))),
                None => lost += 1,
            }
        }
    }
    if lost > 0 {
        records.push(Record::Lost { stage: STAGE_CGROUP_WALK, count: lost });
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
25 30 0:23 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755
26 25 0:24 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw,nsdelegate
27 25 0:25 / /sys/fs/cgroup/memory rw shared:11 - cgroup cgroup rw,memory
28 30 0:24 /a\\040b /mnt/part rw - cgroup2 cgroup2 rw
";

    fn root_of(folder: &str, prefix: &str) -> Option<Root> {
        Some(Root { folder: folder.into(), prefix: prefix.to_owned() })
    }

    #[test]
    fn cgroup2_is_found_beside_version_1() {
        let mounts = mounts(HYBRID.as_bytes());
        assert_eq!(choose(&mounts, None), root_of("/sys/fs/cgroup/unified", ""));
        assert_eq!(choose(&[], None), None);
    }

    #[test]
    fn a_folder_below_a_mount_knows_its_path_in_the_hierarchy() {
        let mounts = mounts(HYBRID.as_bytes());
        let at = |path: &str| choose(&mounts, Some(Path::new(path)));
        assert_eq!(at("/sys/fs/cgroup/unified"), root_of("/sys/fs/cgroup/unified", ""));
        let node = "/sys/fs/cgroup/unified/node/x";
        assert_eq!(at(node), root_of(node, "/node/x"));
        assert_eq!(at("/mnt/part/c"), root_of("/mnt/part/c", "/a b/c"));
        assert_eq!(at("/sys/fs/cgroup/memory"), None);
    }

    #[test]
    fn a_cgroup_may_be_missed_if_the_ring_was_full_or_a_path_too_long() {
        let created = |path: &str| Record::CgroupCreated {
            cgroup_id: 7,
            path: path.to_owned(),
            at: Timestamp(7),
        };
        let lost = |stage| Record::Lost { stage, count: 1 };
        assert!(!may_be_missed(&[created("/kubepods/podx"), lost("flow_quota")]));
        assert!(may_be_missed(&[created("/kubepods/podx"), created("")]));
        assert!(may_be_missed(&[lost("ring_full")]));
    }

    #[test]
    fn what_was_missed_is_walked_for_at_once_and_in_a_flood_now_and_then() {
        let (start, missed) = (Instant::now(), [Record::Lost { stage: "ring_full", count: 1 }]);
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut walks = Walks::default();
        assert!(!walks.is_due(&[], start));
        assert!(walks.is_due(&missed, start));
        assert!(!walks.is_due(&missed, after(4)));
        assert!(walks.is_due(&[], after(5)), "what was missed meanwhile is made up for");
        assert!(!walks.is_due(&[], after(60)));
        assert!(walks.is_due(&missed, after(61)));
    }

    #[test]
    fn every_folder_is_a_record_under_its_inode() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("kubepods/podx")).unwrap();
        std::fs::write(folder.path().join("cgroup.procs"), "").unwrap();
        let id = |path: &str| folder.path().join(path).metadata().unwrap().ino();
        let record = |path: &str, below: &str| Record::CgroupCreated {
            cgroup_id: id(below),
            path: path.to_owned(),
            at: Timestamp(7),
        };
        let expected = vec![
            record("/", ""),
            record("/kubepods", "kubepods"),
            record("/kubepods/podx", "kubepods/podx"),
        ];
        assert_eq!(existing(folder.path(), Timestamp(7)), expected);
    }
}
