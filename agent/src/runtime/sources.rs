//! The files that declare objects, each set of paths on a thread of its own.
//!
//! In: paths. Out: what they declare, at first and whenever that changes. Reading blocks, so no
//! task of the runtime does it.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::{CandidateSource, Config, Message, ObjectSource};
use crate::manifests::{Loaded, Watch};

/// How the cluster's own objects are called in `/status`.
pub(super) const MANIFESTS: &str = "manifests";
const POLL_EVERY: Duration = Duration::from_secs(1);

/// Starts to watch every source of the configuration.
pub(super) fn watch(
    config: &Config,
    queue: &mpsc::Sender<Message>,
    stopped: &watch::Receiver<bool>,
) {
    if let ObjectSource::Manifests(paths) = &config.objects {
        let manifests =
            Watcher { queue: queue.clone(), stopped: stopped.clone(), wrap: Wrap::Manifests };
        manifests.start(paths.clone());
    }
    for candidate in &config.candidates {
        let wrap = Wrap::Candidate(candidate.clone());
        let watcher = Watcher { queue: queue.clone(), stopped: stopped.clone(), wrap };
        watcher.start(candidate.paths.clone());
    }
}

struct Watcher {
    queue: mpsc::Sender<Message>,
    stopped: watch::Receiver<bool>,
    wrap: Wrap,
}

enum Wrap {
    Manifests,
    Candidate(CandidateSource),
}

impl Watcher {
    fn start(self, paths: Vec<std::path::PathBuf>) {
        tokio::task::spawn_blocking(move || self.watch(paths));
    }

    /// Ends at most one pause after the stop.
    fn watch(self, paths: Vec<std::path::PathBuf>) {
        let mut watch = Watch::new(paths);
        let mut loaded = Some(watch.loaded());
        while !*self.stopped.borrow() {
            if let Some(loaded) = loaded.take() {
                for problem in loaded.problems.iter().chain(&loaded.notices) {
                    tracing::warn!("{problem}");
                }
                if self.queue.blocking_send(self.wrap.message(loaded)).is_err() {
                    return;
                }
            }
            std::thread::sleep(POLL_EVERY);
            loaded = watch.poll();
        }
    }
}

impl Wrap {
    fn message(&self, loaded: Loaded) -> Message {
        match self {
            Self::Manifests => Message::Manifests(loaded),
            Self::Candidate(source) => Message::Candidate(source.clone(), loaded),
        }
    }
}
