//! Everything that runs at once: one task owns the engine, the others feed it or read what it
//! published.
//!
//! In: the sensor, the manifests, the clock, signals. Out: snapshots and health in [`Published`].
//! Its queue is bounded: a slow engine holds up the sensor, and the kernel counts what it cannot
//! hold.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use parapet_core::engine::{Candidate, Engine, EngineConfig, Input};
use parapet_core::flow::Timestamp;
use parapet_core::identity::NodeFacts;
use parapet_core::object::ObjectRef;
use parapet_core::record::Record;
use parapet_core::verdict::Profile;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::clock::{self, now};
use crate::cluster::connect::Target;
use crate::export::Published;
use crate::export::status::{Health, SourceHealth};
use crate::kernel::{KernelConfig, Sensor, Totals};
use crate::manifests::Loaded;
use crate::node::conntrack::Translator;
use crate::node::volumes::Scan;
use crate::node::{addresses, cgroups};

pub use self::secrets::{KUBELET_ROOT_DEFAULT, SecretsConfig};

mod cluster;
mod secrets;
mod services;
mod sources;

/// Batches between the sensor and the engine.
const QUEUE_MAX: usize = 8;
/// A snapshot is published at most this often, and only when something was fed in.
const PUBLISH_EVERY: Duration = Duration::from_millis(250);
const TICK_EVERY: Duration = Duration::from_secs(1);
/// How long the engine may take for what is left in its queue when it is told to stop.
const STOP_TIME_MAX: Duration = Duration::from_secs(3);
/// How often the node's own addresses are read again, in ticks.
const ADDRESSES_EVERY_TICKS: u64 = 10;

/// What `parapet run` was asked, with everything found out that had to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the cluster's objects come from.
    pub objects: ObjectSource,
    /// Policy sets that are not applied yet: name and files.
    pub candidates: Vec<CandidateSource>,
    /// What to load and where to attach it.
    pub kernel: KernelConfig,
    /// This node's name in the cluster.
    pub node_name: String,
    /// Which letter policies are read by.
    pub profile: Profile,
    /// Where secrets are, and who puts them there.
    pub secrets: SecretsConfig,
}

/// Where the cluster's objects come from.
#[derive(Clone, Debug)]
pub enum ObjectSource {
    /// Files and folders.
    Manifests(Vec<PathBuf>),
    /// An API server, and how long it may be out of reach before verdicts are called stale.
    Cluster {
        /// Which one, and as whom.
        target: Target,
        /// How long.
        stale_after: Duration,
        /// Which pods of other nodes are known.
        peers: Peers,
    },
}

/// Which pods of other nodes an agent knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Peers {
    /// All: they are watched
    #[default]
    All,
    /// Those that traffic was seen with: each is looked up by its address. For very large clusters:
    /// memory and watches are those of the own node only, but each new peer is one request, a pod
    /// that ended before the lookup stays unknown (unknown_end), and other labels are noticed
    /// within 5 minutes only
    Seen,
}

/// Where a candidate comes from.
#[derive(Clone, Debug)]
pub struct CandidateSource {
    /// The policy set's name.
    pub name: Arc<str>,
    /// Files and folders with its policies.
    pub paths: Vec<PathBuf>,
    /// Enforced policies it would delete.
    pub removed: Vec<ObjectRef>,
}

/// What reaches the engine.
#[derive(Debug)]
enum Message {
    Records(Vec<Record>, Vec<(&'static str, u64, u64)>, Totals),
    Manifests(Loaded),
    Candidate(CandidateSource, Loaded),
    Volumes(Scan, Timestamp),
}

/// The one owner of the engine and of what is published of it.
struct Owner {
    engine: Engine,
    health: Health,
    published: Arc<Published>,
    dirty: bool,
    facts: NodeFacts,
    translator: Translator,
    services: services::Services,
    ticks: u64,
    cluster: Option<cluster::Live>,
}

/// Runs until SIGINT or SIGTERM, then reads the sensor a last time.
///
/// # Errors
/// The sensor cannot be loaded, or its ring cannot be polled any more.
pub async fn run(
    config: Config,
    listener: TcpListener,
    published: Arc<Published>,
) -> anyhow::Result<()> {
    let started = now();
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be handled")?;
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be handled")?;
    let mut sensor = Sensor::load(&config.kernel)?;
    let (services, told) = services::Services::new();
    let live = cluster::Live::start(&config).await?;
    let mut owner = Owner::new(&config, &sensor, services, Arc::clone(&published), live);
    // After the probes are attached, so that no cgroup is in neither; as of before that, because
    // these cgroups are older than any record.
    let existing = cgroups::existing(&config.kernel.cgroup_root, started);
    sensor.set_cgroups(&existing);
    owner.step(Input::Records(existing));

    let (queue, inbox) = mpsc::channel(QUEUE_MAX);
    let (stop, stopped) = watch::channel(false);
    sources::watch(&config, &queue, &stopped);
    let server = tokio::spawn(crate::export::http::serve(listener, published));
    let volumes = secrets::watch(&config.secrets, &stopped);
    let root = (config.kernel.cgroup_root.clone(), started);
    let mut sensing = tokio::spawn(sense(sensor, root, queue, told, volumes, stopped));
    let owning = tokio::spawn(owner.own(inbox));

    let ended = tokio::select! {
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
        ended = &mut sensing => Some(ended),
    };
    tracing::info!("stopping: reading the kernel's counters a last time");
    // Nobody listens any more if the sensor ended by itself.
    let _ = stop.send(true);
    let ended = match ended {
        Some(ended) => ended,
        None => sensing.await,
    };
    // A source may still wait for an input that never ends.
    if let Ok(owned) = tokio::time::timeout(STOP_TIME_MAX, owning).await {
        owned.context("the engine's task ended early")?;
    }
    server.abort();
    ended.context("the sensor's task ended early")?.context("the kernel's events cannot be read")
}

/// Hands over records until it is stopped; waits while the queue is full.
async fn sense(
    mut sensor: Sensor,
    (root, started): (PathBuf, Timestamp),
    queue: mpsc::Sender<Message>,
    mut services: watch::Receiver<services::Wanted>,
    mut volumes: secrets::Volumes,
    mut stopped: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let mut walks = cgroups::Walks::default();
    loop {
        let mut records = tokio::select! {
            records = sensor.next() => records?,
            Ok(()) = services.changed() => {
                let left_out = sensor.set_services(&services.borrow_and_update());
                if left_out > 0 {
                    tracing::warn!(left_out, "the kernel does not take every Service port");
                }
                continue;
            }
            () = volumes.changed() => {
                let scan = volumes.tell(&mut sensor);
                // As below.
                if queue.send(Message::Volumes(scan, now())).await.is_err() {
                    break;
                }
                continue;
            }
            _ = stopped.changed() => break,
        };
        if walks.is_due(&records, Instant::now()) {
            let existing = cgroups::existing(&root, started);
            sensor.set_cgroups(&existing);
            // Before the flows that are theirs. Nobody saw them start.
            records.splice(..0, existing);
        }
        volumes.look(&records);
        volumes.sweep(&mut sensor);
        // The engine's task outlives this one; if it is gone there is nobody to tell.
        if queue.send(Message::Records(records, sensor.capacity(), sensor.totals())).await.is_err()
        {
            break;
        }
    }
    let last = sensor.read_now();
    let _ = queue.send(Message::Records(last, sensor.capacity(), sensor.totals())).await;
    Ok(())
}

impl Owner {
    fn new(
        config: &Config,
        sensor: &Sensor,
        services: services::Services,
        published: Arc<Published>,
        cluster: Option<cluster::Live>,
    ) -> Self {
        let mut engine_config = EngineConfig { profile: config.profile, ..EngineConfig::default() };
        let units = |names: &[String]| names.iter().map(|name| name.as_str().into()).collect();
        engine_config.kubelet_units = units(&config.secrets.kubelet_units);
        engine_config.runtime_units = units(&config.secrets.runtime_units);
        engine_config.lookups =
            matches!(config.objects, ObjectSource::Cluster { peers: Peers::Seen, .. });
        engine_config.candidates =
            config.candidates.iter().map(|candidate| Arc::clone(&candidate.name)).collect();
        let candidates = config.candidates.iter();
        let candidates = candidates.map(|candidate| format!("candidate:{}", candidate.name));
        let manifests = cluster.is_none().then(|| sources::MANIFESTS.to_owned());
        let volumes = [secrets::VOLUMES.to_owned()];
        let resources = manifests.into_iter().chain(volumes).chain(candidates);
        let health = Health {
            probes: sensor.probes().to_vec(),
            sources: resources
                .map(|resource| SourceHealth { resource, ..SourceHealth::default() })
                .collect(),
            profile: config.profile,
            node: config.node_name.clone(),
            ..Health::default()
        };
        let facts = node_facts(&config.node_name);
        let mut owner = Self {
            engine: Engine::new(engine_config),
            health,
            published,
            dirty: true,
            facts: facts.clone(),
            translator: Translator::new(Instant::now()),
            services,
            ticks: 0,
            cluster,
        };
        owner.translator.set_own(&facts.addrs);
        owner.step(Input::Node(facts));
        owner.look_at_watches();
        owner
    }

    fn step(&mut self, input: Input) {
        self.engine.step(input);
        self.look_up_peers();
        self.health.engine_at = now();
        self.dirty = true;
    }

    /// Until every sender is gone.
    async fn own(mut self, mut inbox: mpsc::Receiver<Message>) {
        let mut tick = tokio::time::interval(TICK_EVERY);
        let mut publish = tokio::time::interval(PUBLISH_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        publish.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = inbox.recv() => match message {
                    Some(message) => self.take(message),
                    None => break,
                },
                update = cluster::next(&mut self.cluster) => self.take_update(update),
                _ = tick.tick() => self.tick(),
                _ = publish.tick() => self.publish(),
            }
        }
        let held = self.translator.release();
        self.step(Input::Records(held));
        self.step(Input::Tick(now()));
        self.publish();
        self.published.count();
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Records(records, tables, totals) => {
                self.health.kernel_tables = tables;
                self.health.kernel_totals = totals;
                let records = self.translator.translate(records, Instant::now());
                if !records.is_empty() {
                    self.step(Input::Records(records));
                }
            }
            Message::Manifests(loaded) => {
                let at = now();
                self.source_read(sources::MANIFESTS, &loaded, at);
                self.step(Input::Cluster(loaded.changes(), at));
                self.services.look(self.engine.index());
            }
            Message::Candidate(CandidateSource { name, removed, .. }, loaded) => {
                let at = now();
                self.source_read(&format!("candidate:{name}"), &loaded, at);
                let candidate = Candidate { objects: loaded.objects, removed };
                self.step(Input::Candidate(name, candidate, at));
            }
            Message::Volumes(scan, at) => {
                let volumes = self.health.sources.iter_mut();
                for source in volumes.filter(|source| source.resource == secrets::VOLUMES) {
                    source.synced = true;
                    source.read_at = at;
                    source.objects = scan.volumes.len() as u64;
                    source.problems.clone_from(&scan.problems);
                }
                self.step(Input::Volumes(scan.volumes, at));
            }
        }
    }

    fn source_read(&mut self, resource: &str, loaded: &Loaded, at: Timestamp) {
        let sources = self.health.sources.iter_mut();
        for source in sources.filter(|source| source.resource == resource) {
            source.synced = true;
            source.read_at = at;
            source.objects = loaded.objects.len() as u64;
            source.left_out.clone_from(&loaded.skipped);
            let told = loaded.problems.iter().chain(&loaded.notices);
            source.problems = told.map(ToString::to_string).collect();
        }
    }

    fn tick(&mut self) {
        self.ticks += 1;
        if self.ticks.is_multiple_of(ADDRESSES_EVERY_TICKS) {
            let facts = node_facts(&self.facts.name);
            if facts != self.facts {
                self.facts = facts.clone();
                self.translator.set_own(&facts.addrs);
                self.step(Input::Node(facts));
            }
        }
        self.look_at_clock();
        self.look_at_watches();
        self.step(Input::Tick(now()));
        self.services.look(self.engine.index());
        self.published.count();
    }

    fn look_at_clock(&mut self) {
        let ahead = clock::ahead();
        if !ahead.is_zero() && self.health.clock_ahead.is_zero() {
            tracing::warn!(
                seconds = ahead.as_secs(),
                "the clock was set back: times stay ahead of it until it has caught up, or the \
                 agent starts anew"
            );
        }
        self.health.clock_ahead = ahead;
    }

    fn publish(&mut self) {
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        self.published.set_snapshot(self.engine.snapshot());
        self.published.set_health(self.health.clone());
    }
}

fn node_facts(name: &str) -> NodeFacts {
    let addresses::Addresses { own, broadcasts } = addresses::read();
    NodeFacts { name: name.to_owned(), addrs: own, broadcasts }
}
