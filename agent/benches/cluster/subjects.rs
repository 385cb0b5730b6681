//! Who is measured: the agent's watches with its engine, and what most controllers do.
//!
//! In: where the server is. Out: memory and times of this process, which watches nothing else. It
//! needs no kernel and writes nothing.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use parapet::cluster::connect::{self, Target};
use parapet::cluster::{Update, Watches};
use parapet_core::engine::{Engine, EngineConfig, Input};
use parapet_core::flow::Timestamp;
use parapet_core::object::{Change, Kind, Object};

use super::server::CHANGES;

/// The node that the agent is on: of its pods it reads more than of others.
const OWN_NODE: &str = "node-1";

/// What one process measured, memory in bytes.
#[derive(Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Measured {
    /// After the first list, when what it took is given back.
    pub(super) steady: u64,
    /// Until then.
    pub(super) peak: u64,
    /// While everything was listed a second time.
    pub(super) relist_peak: u64,
    pub(super) ready_seconds: f64,
    /// From when the server sends a change until it is in the index.
    pub(super) change_ms: Vec<f64>,
    /// The engine's share of that.
    pub(super) step_us: Vec<f64>,
}

impl Measured {
    /// More than a process that watches no pod has.
    pub(super) fn over(&self, bytes: u64, empty: &Self) -> f64 {
        bytes.saturating_sub(empty.steady) as f64
    }
}

/// The agent's watches and its engine, without a kernel.
pub(super) async fn agent(kubeconfig: &str) -> Measured {
    let mut measured = Measured::default();
    let mut engine = Engine::new(EngineConfig::default());
    let workloads = vec![Change::Listing(Kind::Workload), Change::Listed(Kind::Workload)];
    engine.step(Input::Cluster(workloads, Timestamp(1)));
    let began = Instant::now();
    let target = Target { kubeconfig: Some(kubeconfig.into()), ..Target::default() };
    let own = (OWN_NODE, false);
    let (_watches, mut updates) = Watches::start(&target, [].into(), own).await.unwrap();
    let mut lists = 0;
    while lists < 2 {
        let Some(Update::Changes(changes)) = updates.recv().await else { continue };
        let sent = changes.iter().find_map(sent_at);
        let listed = changes.contains(&Change::Listed(Kind::Pod));
        if sent.is_some() && measured.change_ms.is_empty() {
            // The first change: what the list took is given back by now.
            (measured.steady, measured.peak) = memory();
        }
        let began_step = Instant::now();
        let ends_list = changes.iter().any(|change| matches!(change, Change::Listed(_)));
        engine.step(Input::Cluster(changes, Timestamp(nanos())));
        if let Some(sent) = sent {
            measured.step_us.push(began_step.elapsed().as_secs_f64() * 1e6);
            measured.change_ms.push(nanos().saturating_sub(sent) as f64 / 1e6);
            if measured.change_ms.len() == CHANGES {
                forget_peak();
            }
        }
        if listed {
            lists += 1;
        }
        if ends_list {
            // As the agent does it.
            parapet::memory::trim();
        }
        if listed && lists == 1 {
            // All other kinds are empty, so that pods are the last to be complete.
            measured.ready_seconds = began.elapsed().as_secs_f64();
        }
    }
    measured.relist_peak = memory().1;
    assert!(engine.snapshot().synced, "something was never complete");
    measured
}

/// When the server sent the change, if it says so.
fn sent_at(change: &Change) -> Option<u64> {
    match change {
        Change::Applied(Object::Pod(pod)) => {
            pod.metadata.labels.get("sent")?.parse().ok().filter(|at| *at > 0)
        }
        _ => None,
    }
}

/// What most controllers do.
pub(super) async fn plain(kubeconfig: &str) -> Measured {
    let mut measured = Measured::default();
    let began = Instant::now();
    let target = Target { kubeconfig: Some(kubeconfig.into()), ..Target::default() };
    let client = kube::Client::try_from(connect::config(&target).await.unwrap()).unwrap();
    let (store, writer) = reflector::store::<Pod>();
    let config = watcher::Config::default().streaming_lists();
    let mut stream = Box::pin(watcher(kube::Api::all(client), config).reflect(writer));
    while let Some(event) = stream.next().await {
        match event.unwrap() {
            watcher::Event::InitDone => measured.ready_seconds = began.elapsed().as_secs_f64(),
            watcher::Event::Apply(_) => break,
            _ => {}
        }
    }
    (measured.steady, measured.peak) = memory();
    drop(store);
    measured
}

/// Anonymous memory now and at most, of this process. Pages of its binary are not a pod's, though
/// the first pod has some of them read; of their most there is no record, but they rarely go.
fn memory() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
    };
    (field("RssAnon:"), field("VmHWM:").saturating_sub(field("RssFile:")))
}

/// The most that was resident counts from now on (proc(5), clear_refs).
fn forget_peak() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

/// Since the epoch: the server's process and this one read the same clock.
pub(super) fn nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_nanos()).unwrap()
}
