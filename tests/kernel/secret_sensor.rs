//! What the sensor alone counts of secret files: exact numbers of opens by processes in a cgroup of
//! their own, on a tmpfs of its own.
//!
//! In: files on a real tmpfs, opened by child processes. Out: nothing but assertions. Each test
//! unmounts and removes what it made, also when it fails.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use parapet::kernel::{KernelConfig, Rung, Sensor};
use parapet_core::flow::Timestamp;
use parapet_core::record::Record;
use parapet_core::secrets::{
    FileId, ReadCounts, ReadRecord, ReaderSeen, VolumeFacts, VolumeFile, VolumeId, VolumeOwner,
    VolumePlugin,
};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use support::cgroup;
use tempfile::TempDir;

/// How a child knows that it is one: `times,path,how`.
const OPEN: &str = "PARAPET_TEST_OPEN";

/// A tmpfs with a file of each name in a folder of one generation.
struct Volume {
    folder: TempDir,
    device: u32,
}

impl Volume {
    fn new(files: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        mount("tmpfs", folder.path(), "tmpfs", MountFlags::NOSUID, None).unwrap();
        let volume = Self { device: device(folder.path()), folder };
        fs::create_dir(volume.path("..2026_11_23")).unwrap();
        for name in files {
            fs::write(volume.path(&format!("..2026_11_23/{name}")), "secret").unwrap();
        }
        volume
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path(&format!("..2026_11_23/{name}"))
    }

    fn facts(&self, owner: VolumeOwner, generation: u32, files: Vec<VolumeFile>) -> VolumeFacts {
        VolumeFacts {
            id: VolumeId { device: self.device, generation },
            owner,
            files,
            generation: "..2026_11_23".to_owned(),
            mounted_at: None,
            watched_since: Timestamp(0),
        }
    }

    /// As a volume of a pod, of any generation.
    fn of_pod(&self) -> VolumeFacts {
        let owner =
            VolumeOwner::Pod { uid: "u".into(), volume: "v".into(), plugin: VolumePlugin::Secret };
        self.facts(owner, 0, Vec::new())
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = unmount(self.folder.path(), UnmountFlags::DETACH);
    }
}

/// As the kernel has it: `st_dev` of stat(2) has the bits of the minor number in two places.
fn device(path: &Path) -> u32 {
    let device = fs::metadata(path).unwrap().dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    major << 20 | minor
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).unwrap().ino()
}

/// A cgroup of the test's own, with the sensor that watches it.
struct Watched {
    folder: PathBuf,
    sensor: Sensor,
    lost: Vec<(&'static str, u64)>,
}

impl Watched {
    fn new(name: &str, share_divisor: u32) -> Self {
        let prefix = format!("/prp{}-{name}", std::process::id());
        let folder = cgroup::mount_point().unwrap().join(prefix.trim_start_matches('/'));
        cgroup::create(&folder).unwrap();
        let sensor = Sensor::load(&KernelConfig {
            cgroup_root: folder.clone(),
            cgroup_prefix: prefix,
            flows_max: 8,
            share_divisor,
            ..KernelConfig::default()
        });
        Self { sensor: sensor.unwrap(), folder, lost: Vec::new() }
    }

    fn cgroup_id(&self) -> u64 {
        cgroup::id(&self.folder).unwrap()
    }

    /// Everything of this cgroup since the last time.
    fn read(&mut self) -> (Vec<ReadRecord>, Vec<ReaderSeen>) {
        let (mut reads, mut readers) = (Vec::new(), Vec::new());
        let id = self.cgroup_id();
        for record in self.sensor.read_now() {
            match record {
                Record::Read(read) if read.reader.cgroup_id == id => reads.push(read),
                Record::Reader(reader) if reader.reader.cgroup_id == id => readers.push(reader),
                Record::Lost { stage, count } => self.lost.push((stage, count)),
                _ => {}
            }
        }
        reads.sort_by_key(|read| read.file.inode);
        (reads, readers)
    }

    /// Has a child in the cgroup open files.
    fn open(&self, times: u32, path: &Path, how: &str) {
        let mut child = opener(times, path, how);
        cgroup::join(&self.folder, child.id()).unwrap();
        child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        assert!(child.wait().unwrap().success());
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = cgroup::remove(&self.folder);
    }
}

fn opener(times: u32, path: &Path, how: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "secret_sensor::opener_process", "--nocapture"])
        .env(OPEN, format!("{times},{},{how}", path.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Not a test of its own: the body of the child processes.
#[test]
fn opener_process() {
    let Ok(order) = std::env::var(OPEN) else { return };
    let parts: Vec<&str> = order.split(',').collect();
    let [times, path, how] = parts[..] else { panic!("{order}") };
    std::io::stdin().read_exact(&mut [0]).unwrap();
    for time in 0..times.parse().unwrap() {
        match how {
            "read" => drop(fs::read(path).unwrap()),
            "open" => drop(File::open(path).unwrap()),
            "stat" => drop(fs::metadata(path).unwrap()),
            "names" => drop(File::open(format!("{path}/file-{time}")).unwrap()),
            "hold" => {
                let _file = File::open(path).unwrap();
                // Until the other side closes it.
                let _ = std::io::stdin().read(&mut [0]).unwrap();
            }
            other => panic!("{other}"),
        }
    }
}

fn opens(opens: u64) -> ReadCounts {
    ReadCounts { opens, ..ReadCounts::default() }
}

/// What does not depend on the rung.
fn without_reads(read: &ReadRecord) -> ReadCounts {
    ReadCounts { reads: 0, ..read.counts }
}

/// Device numbers that no mount here has: the kernel takes what it is told.
#[tokio::test]
async fn volumes_that_find_no_room_are_named_and_not_called_watched() {
    let volume = Volume::new(&["tls.crt"]);
    let mut watched = Watched::new("room", 1);
    let sizes = watched.sensor.capacity();
    let (.., room) = sizes.iter().find(|(table, ..)| *table == "secret_volumes").unwrap();
    let room = u32::try_from(*room).unwrap();
    let told = |count: u32| -> Vec<VolumeFacts> {
        let of = |device| {
            let mut facts = volume.of_pod();
            facts.id.device = 0x7ff0_0000 | device;
            facts
        };
        (0..count).map(of).collect()
    };
    for (count, expected) in
        [(0, 0), (1, 0), (room - 1, 0), (room, 0), (room + 1, 1), (2 * room, room as usize), (1, 0)]
    {
        let volumes = told(count);
        assert_eq!(watched.sensor.set_volumes(&volumes), expected, "{count}");
        let missing = volumes.iter().filter(|facts| !watched.sensor.watches(facts)).count();
        assert_eq!(missing, expected, "{count}");
    }
}

#[tokio::test]
async fn opens_of_a_told_superblock_are_counted_exactly_and_others_are_not() {
    let (volume, other) = (Volume::new(&["tls.crt", "tls.key"]), Volume::new(&["tls.crt"]));
    let mut watched = Watched::new("opens", 1);
    assert_ne!(watched.sensor.secret_rung(), None, "{:?}", watched.sensor.probes());
    watched.open(5, &volume.file("tls.crt"), "read");
    assert_eq!(watched.read(), (Vec::new(), Vec::new()), "nothing is watched yet");
    assert_eq!(watched.sensor.set_volumes(&[volume.of_pod()]), 0);
    watched.open(7, &volume.file("tls.crt"), "read");
    watched.open(3, &volume.file("tls.key"), "open");
    watched.open(9, &volume.file("tls.key"), "stat");
    watched.open(2, &volume.path("..2026_11_23"), "open");
    watched.open(4, &other.file("tls.crt"), "read");
    let (reads, readers) = watched.read();
    let found: Vec<_> =
        reads.iter().map(|read| (read.file.inode, read.file.volume.device)).collect();
    let files = [volume.file("tls.crt"), volume.file("tls.key")];
    let expected: Vec<_> = files.iter().map(|file| (inode(file), volume.device)).collect();
    assert_eq!(found, expected);
    let counts: Vec<_> = reads.iter().map(without_reads).collect();
    assert_eq!(counts, [opens(7), opens(3)]);
    if watched.sensor.secret_rung() != Some(Rung::Syscalls) {
        assert_eq!([reads[0].counts.reads, reads[1].counts.reads], [7, 0]);
    }
    let program = std::env::current_exe().unwrap();
    assert_eq!(reads[0].reader.program, (device(&program), inode(&program)));
    assert_eq!(reads[0].reader.uid, 0);
    assert_ne!(reads[0].file.volume.generation, 0, "tmpfs has a random one");
    let named: Vec<_> = readers
        .iter()
        .map(|seen| (seen.file, seen.reader, seen.folder.as_str(), seen.name.as_str()))
        .collect();
    let expected: Vec<_> = reads
        .iter()
        .zip(["tls.crt", "tls.key"])
        .map(|(read, name)| (read.file, read.reader, "..2026_11_23", name))
        .collect();
    assert_eq!(named, expected);
    let name = program.file_name().unwrap().to_string_lossy();
    assert!(readers.iter().all(|seen| seen.program == name && seen.pid > 0), "{readers:?}");
    assert_eq!(watched.read(), (Vec::new(), Vec::new()), "nothing is counted twice");
    assert_eq!(watched.sensor.secret_opens(), 10);
    assert_eq!(watched.lost, []);
}

#[tokio::test]
async fn a_device_number_used_again_is_not_the_told_volume_and_is_said() {
    let volume = Volume::new(&["token"]);
    let mut watched = Watched::new("reuse", 1);
    watched.sensor.set_volumes(&[volume.of_pod()]);
    watched.open(1, &volume.file("token"), "read");
    let generation = watched.read().0[0].file.volume.generation;
    let facts = VolumeFacts {
        id: VolumeId { device: volume.device, generation: generation ^ 1 },
        ..volume.of_pod()
    };
    watched.sensor.set_volumes(&[facts]);
    watched.open(3, &volume.file("token"), "read");
    let (reads, readers) = watched.read();
    // Under the generation that the superblock has, whatever was told.
    let file = FileId {
        volume: VolumeId { device: volume.device, generation },
        inode: inode(&volume.file("token")),
    };
    let found: Vec<_> = reads.iter().map(|read| (read.file, without_reads(read))).collect();
    assert_eq!(found, [(file, opens(3))]);
    assert_eq!(readers, [], "it was told of already");
    assert_eq!(watched.lost, [("volume_reused", 3)]);
}

#[tokio::test]
async fn only_the_named_files_of_the_node_are_watched() {
    let volume = Volume::new(&["ca.key", "other"]);
    let mut watched = Watched::new("files", 1);
    let path = volume.file("ca.key");
    let file = VolumeFile {
        inode: inode(&path),
        path: path.to_string_lossy().into(),
        generation: "".into(),
    };
    let owner = VolumeOwner::Node { path: path.to_string_lossy().into() };
    watched.sensor.set_volumes(&[volume.facts(owner, 0, vec![file])]);
    watched.open(6, &path, "read");
    watched.open(6, &volume.file("other"), "read");
    let (reads, _) = watched.read();
    let found: Vec<_> = reads.iter().map(|read| (read.file.inode, without_reads(read))).collect();
    assert_eq!(found, [(inode(&path), opens(6))]);
    watched.sensor.set_volumes(&[]);
    watched.open(6, &path, "read");
    assert_eq!(watched.read(), (Vec::new(), Vec::new()), "nothing is watched any more");
}

#[tokio::test]
async fn a_sweep_finds_what_is_held_open() {
    let volume = Volume::new(&["token"]);
    let path = volume.file("token");
    let mut watched = Watched::new("held", 1);
    let mut child = opener(1, &path, "hold");
    cgroup::join(&watched.folder, child.id()).unwrap();
    child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    let descriptors = PathBuf::from(format!("/proc/{}/fd", child.id()));
    let is_open = || {
        let links = fs::read_dir(&descriptors).unwrap().flatten();
        links.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|target| target == path)
    };
    while !is_open() {
        std::thread::yield_now();
    }
    watched.sensor.set_volumes(&[volume.of_pod()]);
    watched.sensor.sweep();
    watched.sensor.sweep();
    let (reads, readers) = watched.read();
    let found: Vec<_> = reads.iter().map(|read| (read.file.inode, read.counts)).collect();
    assert_eq!(found, [(inode(&path), ReadCounts { held: 2, ..ReadCounts::default() })]);
    assert_eq!(readers[0].pid, child.id());
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    watched.sensor.sweep();
    assert_eq!(watched.read(), (Vec::new(), Vec::new()));
}

#[tokio::test]
async fn a_cgroup_that_reads_too_much_is_refused_by_count_and_told_of_by_rate() {
    const FILES: u64 = 200;
    const SHARE: u64 = 64;
    let names: Vec<String> = (0..FILES).map(|number| format!("file-{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let volume = Volume::new(&names);
    let mut watched = Watched::new("flood", 128);
    watched.sensor.set_volumes(&[volume.of_pod()]);
    let folder = volume.path("..2026_11_23");
    watched.open(u32::try_from(FILES).unwrap(), &folder, "names");
    let (reads, readers) = watched.read();
    assert_eq!(reads.len() as u64, SHARE);
    assert_eq!(reads.iter().map(|read| read.counts.opens).sum::<u64>(), SHARE);
    assert_eq!(readers.len() as u64, SHARE);
    assert_eq!(watched.lost, [("reads_quota", FILES - SHARE)]);
    assert_eq!(watched.sensor.secret_opens(), FILES);
    // Another one has a share of its own.
    let mut other = Watched::new("calm", 128);
    other.sensor.set_volumes(&[volume.of_pod()]);
    other.open(1, &volume.file("file-199"), "open");
    assert_eq!(other.read().0.len(), 1);
    assert_eq!(other.lost, []);
}
