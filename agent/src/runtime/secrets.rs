//! What is watched for secrets: looked for by one task, told to the kernel and then to the engine
//! by another.
//!
//! In: the configuration, what the kernel says of mounts and volumes, records of files that nobody
//! knows. Out: every watched superblock, each with the time from which the kernel counted on it. It
//! never tells the engine of a volume before the kernel knows of it.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use parapet_common::READS_MAX;
use parapet_core::engine::{KUBELET_UNITS, RUNTIME_UNITS};
use parapet_core::flow::Timestamp;
use parapet_core::record::Record;
use parapet_core::secrets::{FileId, VolumeFacts, VolumeId};
use tokio::io::Interest;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use crate::clock::now;
use crate::kernel::Sensor;
use crate::kernel::ready::Ready;
use crate::node::volumes::{Registry, Scan};

/// How volumes are called in `/status`.
pub(super) const VOLUMES: &str = "secret_volumes";
/// How often everything is looked at that nobody tells of.
const SCAN_EVERY: Duration = Duration::from_secs(1);
/// Scans are at least this far apart: a node that starts hundreds of pods is not looked at hundreds
/// of times.
const SCAN_PAUSE: Duration = Duration::from_millis(20);
/// How often descriptors and mappings of all processes are gone through, for those that were passed
/// on and not opened, unless it was told otherwise.
const SWEEP_EVERY_DEFAULT: Duration = Duration::from_secs(30);
/// The same after a volume was told, which somebody may have open already.
const SWEEP_SOON: Duration = Duration::from_millis(250);
/// Doubts between the two tasks.
const DOUBTS_MAX: usize = 64;
/// Files that were doubted once and are not doubted again.
const DOUBTED_MAX: usize = READS_MAX as usize;

/// The kubelet's folder on this node, unless it was told another.
pub const KUBELET_ROOT_DEFAULT: &str = "/var/lib/kubelet";
/// Where secrets are on this node, and whose work it is to read them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretsConfig {
    /// The kubelet's folder: volumes are below `pods/<uid>/volumes`.
    pub kubelet_root: PathBuf,
    /// Files of the node to watch, and folders with all their files.
    pub watched: Vec<PathBuf>,
    /// Units of the kubelet, as [`parapet_core::identity::Place`] has them.
    pub kubelet_units: Vec<String>,
    /// Units of the container runtime.
    pub runtime_units: Vec<String>,
    /// How often everything that processes have open is gone through.
    pub sweep_every: Duration,
}

impl Default for SecretsConfig {
    fn default() -> Self {
        Self {
            kubelet_root: PathBuf::from(KUBELET_ROOT_DEFAULT),
            watched: Vec::new(),
            kubelet_units: KUBELET_UNITS.map(str::to_owned).to_vec(),
            runtime_units: RUNTIME_UNITS.map(str::to_owned).to_vec(),
            sweep_every: SWEEP_EVERY_DEFAULT,
        }
    }
}

/// What the sensor's task knows of volumes.
#[derive(Debug)]
pub(super) struct Volumes {
    scans: watch::Receiver<Scan>,
    doubts: mpsc::Sender<VolumeId>,
    /// Since when the kernel counts on each.
    since: HashMap<VolumeId, Timestamp>,
    files: HashSet<FileId>,
    doubted: HashSet<FileId>,
    sweep_every: Duration,
    sweep_at: Instant,
}

/// Starts to look for volumes, until it is told to stop.
pub(super) fn watch(config: &SecretsConfig, stopped: &watch::Receiver<bool>) -> Volumes {
    let (scanned, scans) = watch::channel(Scan::default());
    let (doubts, doubted) = mpsc::channel(DOUBTS_MAX);
    let registry = Registry::new(&config.kubelet_root, &config.watched);
    tokio::spawn(look(registry, scanned, doubted, stopped.clone()));
    Volumes {
        scans,
        doubts,
        since: HashMap::new(),
        files: HashSet::new(),
        doubted: HashSet::new(),
        sweep_every: config.sweep_every,
        sweep_at: Instant::now(),
    }
}

impl Volumes {
    /// Waits for a scan that found something else. Never comes back when none will come.
    pub(super) async fn changed(&mut self) {
        if self.scans.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// Tells the kernel what to watch; what to tell the engine then comes back.
    pub(super) fn tell(&mut self, sensor: &mut Sensor) -> Scan {
        let mut scan = self.scans.borrow_and_update().clone();
        if sensor.secret_rung().is_none() {
            // What no program sees is not watched: nobody may call it never read.
            scan.volumes.clear();
            scan.problems.push("no program that sees opens could be attached".to_owned());
        }
        let left_out = sensor.set_volumes(&scan.volumes);
        let at = now();
        if left_out > 0 {
            scan.problems.push(format!("the kernel has no room for {left_out} volumes or files"));
            // Nobody may call them never read.
            scan.volumes.retain(|facts| sensor.watches(facts));
        }
        let known = std::mem::take(&mut self.since);
        for facts in &mut scan.volumes {
            if !known.contains_key(&facts.id) {
                self.sweep_at = self.sweep_at.min(Instant::now() + SWEEP_SOON);
            }
            facts.watched_since = known.get(&facts.id).copied().unwrap_or(at);
            self.since.insert(facts.id, facts.watched_since);
        }
        self.files = scan.volumes.iter().flat_map(files_of).collect();
        self.doubted.retain(|file| self.since.contains_key(&file.volume));
        scan
    }

    /// Has volumes looked at again in which somebody uses a file that no scan told of.
    pub(super) fn look(&mut self, records: &[Record]) {
        for record in records {
            let file = match record {
                Record::Reader(seen) => seen.file,
                Record::Read(read) => read.file,
                _ => continue,
            };
            let is_news = !self.files.contains(&file)
                && self.doubted.len() < DOUBTED_MAX
                && self.doubted.insert(file);
            if is_news && self.doubts.try_send(file.volume).is_err() {
                // Too many at once: the next record of it asks again.
                self.doubted.remove(&file);
            }
        }
    }

    /// Goes through what is open and mapped, when it is time.
    pub(super) fn sweep(&mut self, sensor: &mut Sensor) {
        if Instant::now() >= self.sweep_at {
            sensor.sweep();
            self.sweep_at = Instant::now() + self.sweep_every;
        }
    }
}

fn files_of(facts: &VolumeFacts) -> impl Iterator<Item = FileId> {
    facts.files.iter().map(|file| FileId { volume: facts.id, inode: file.inode })
}

/// Scans at once when mounts or volumes change, and else every second. Scanning blocks, so another
/// thread does it.
async fn look(
    mut registry: Registry,
    scanned: watch::Sender<Scan>,
    mut doubted: mpsc::Receiver<VolumeId>,
    mut stopped: watch::Receiver<bool>,
) {
    let mounts = mounts().map_err(|error| {
        tracing::warn!(%error, "mounts are not followed, but looked at every second");
    });
    let notices = notices(&registry).unwrap_or_default();
    let mut timer = tokio::time::interval(SCAN_EVERY);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_first = true;
    loop {
        tokio::select! {
            _ = timer.tick() => {
                if mounts.is_err() {
                    registry.doubt_mounts();
                }
            }
            () = changed(mounts.as_ref().ok()) => registry.doubt_mounts(),
            () = changed(notices.as_ref()) => {}
            Some(volume) = doubted.recv() => registry.doubt(volume),
            _ = stopped.changed() => return,
        }
        while let Ok(volume) = doubted.try_recv() {
            registry.doubt(volume);
        }
        let scanning = tokio::task::spawn_blocking(move || {
            let scan = registry.scan(now());
            (registry, scan)
        });
        let Ok((kept, scan)) = scanning.await else {
            tracing::error!("secret volumes are not followed any more: looking at them failed");
            return;
        };
        registry = kept;
        let known = scanned.borrow().clone();
        // The first one is told in any case: then it is known that there are none.
        if std::mem::take(&mut is_first) || known != scan {
            for problem in scan.problems.iter().filter(|it| !known.problems.contains(it)) {
                tracing::warn!("secret volumes: {problem}");
            }
            scanned.send_replace(scan);
        }
        tokio::time::sleep(SCAN_PAUSE).await;
    }
}

/// Comes back when the descriptor says so, never without one.
async fn changed(on: Option<&Ready>) {
    match on {
        Some(on) => on.changed().await,
        None => std::future::pending().await,
    }
}

/// mountinfo has something of priority when a mount came or went (`mounts_poll` of
/// fs/proc_namespace.c).
fn mounts() -> std::io::Result<Ready> {
    let file = std::fs::File::open("/proc/self/mountinfo")?;
    Ready::new(file.into(), Interest::PRIORITY)
}

fn notices(registry: &Registry) -> std::io::Result<Option<Ready>> {
    let descriptor = registry.notices()?;
    descriptor.map(|own| Ready::new(own, Interest::READABLE)).transpose()
}
