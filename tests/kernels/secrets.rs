//! A secret file in use, and what each rung of the sensor's ladder counts of that.
//!
//! In: a pod. Out: what it did and what was counted, for each rung, and what the kernel says of the
//! programs. The file is on a tmpfs of its own, which is unmounted in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use parapet::kernel::alone::SecretsAlone;
use parapet::kernel::verified::Verified;
use parapet::kernel::{ProbeStatus, Rung};
use parapet_core::flow::Timestamp;
use parapet_core::record::Record;
use parapet_core::secrets::{VolumeFacts, VolumeId, VolumeOwner, VolumePlugin};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use support::cgroup;
use support::pod::Pod;
use support::reading::{Use, Way};

use crate::pods::World;
use crate::report::{SECRET_WAYS, SecretLine};

/// All rungs together.
#[derive(Default)]
pub(crate) struct Secrets {
    pub(crate) lines: Vec<SecretLine>,
    pub(crate) programs: Vec<Verified>,
    pub(crate) probes: Vec<ProbeStatus>,
}

/// A tmpfs with one file.
struct Volume(PathBuf);

impl Volume {
    fn mount() -> anyhow::Result<Self> {
        let folder = PathBuf::from("/tmp/secret");
        fs::create_dir_all(&folder)?;
        mount("tmpfs", &folder, "tmpfs", MountFlags::NOSUID, None).context("tmpfs")?;
        let volume = Self(folder);
        fs::write(volume.file(), "of nobody")?;
        Ok(volume)
    }

    fn file(&self) -> PathBuf {
        self.0.join("token")
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // The machine ends soon after.
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// Uses the file once for each rung.
pub(crate) fn perform(world: &World) -> anyhow::Result<Secrets> {
    let volume = Volume::mount()?;
    let mut all = Secrets::default();
    let mut programs: BTreeMap<String, Verified> = BTreeMap::new();
    let mut probes: BTreeMap<&str, ProbeStatus> = BTreeMap::new();
    for rung in Rung::ALL {
        let mut sensor = SecretsAlone::attach(&[rung]).map_err(anyhow::Error::msg)?;
        all.lines.push(watch(&mut sensor, rung, world.reader(), &volume.file())?);
        for found in sensor.programs() {
            let known = programs.entry(found.program.clone()).or_insert_with(|| found.clone());
            known.runs = known.runs.max(found.runs);
            known.loaded |= found.loaded;
            known.instructions = known.instructions.max(found.instructions);
        }
        for probe in sensor.probes() {
            let known = probes.entry(probe.probe).or_insert_with(|| probe.clone());
            if probe.attached {
                *known = probe.clone();
            }
        }
    }
    all.programs = programs.into_values().collect();
    all.probes = probes.into_values().collect();
    Ok(all)
}

fn watch(
    sensor: &mut SecretsAlone,
    rung: Rung,
    pod: &Pod,
    file: &Path,
) -> anyhow::Result<SecretLine> {
    let mut line = SecretLine {
        rung: rung.name().to_owned(),
        attached: sensor.rung().is_some(),
        ..SecretLine::default()
    };
    if !line.attached {
        return Ok(line);
    }
    sensor.set_volumes(&[facts(file)?]);
    for (way, count) in SECRET_WAYS {
        pod.run(&Use::of(file, way, count).task()).with_context(|| format!("{way:?}"))?;
    }
    // One process has it open, and one mapped, while everything is looked at.
    let open = pod.spawn(&Use::of(file, Way::OpenOnly, 1).held().task())?;
    let mapped = pod.spawn(&Use::of(file, Way::Map, 1).held().task())?;
    sensor.sweep();
    open.finish()?;
    mapped.finish()?;
    let cgroup_id = cgroup::id(&pod.cgroup)?;
    let mut names = BTreeSet::new();
    for record in sensor.read() {
        match record {
            Record::Read(read) if read.reader.cgroup_id == cgroup_id => {
                line.opens += read.counts.opens;
                line.reads += read.counts.reads;
                line.maps += read.counts.maps;
                line.held += read.counts.held;
            }
            Record::Reader(seen) => drop(names.insert(seen.name)),
            Record::Lost { count, .. } => line.lost += count,
            _ => {}
        }
    }
    line.names = names.into_iter().collect();
    Ok(line)
}

/// As a volume of a pod, of any generation.
fn facts(file: &Path) -> anyhow::Result<VolumeFacts> {
    let device = fs::metadata(file)?.dev();
    // `st_dev` has the bits of the minor number in two places, the kernel in one.
    let device = rustix::fs::major(device) << 20 | rustix::fs::minor(device);
    Ok(VolumeFacts {
        id: VolumeId { device, generation: 0 },
        owner: VolumeOwner::Pod {
            uid: "u".into(),
            volume: "v".into(),
            plugin: VolumePlugin::Secret,
        },
        files: Vec::new(),
        generation: String::new(),
        mounted_at: None,
        watched_since: Timestamp(0),
    })
}
