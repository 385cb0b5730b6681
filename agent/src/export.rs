//! What leaves the agent: metrics, reports and its own status, over HTTP.
//!
//! In: the snapshots and the health the runtime publishes here. Out: answers to whoever asks.
//! Readers never hold up the engine: they share what was published last.

use std::sync::Arc;

use arc_swap::ArcSwap;
use parapet_core::flow::Timestamp;
use parapet_core::snapshot::Snapshot;

use self::metrics::Metrics;
use self::report::Report;
use self::status::{Health, Status};

pub mod http;
pub mod metrics;
pub mod report;
pub mod status;
pub mod time;

/// What was published last. One writer, the runtime; any number of readers.
#[derive(Debug, Default)]
pub struct Published {
    snapshot: ArcSwap<Snapshot>,
    health: ArcSwap<Health>,
    metrics: Metrics,
}

impl Published {
    /// Replaces the snapshot.
    pub fn set_snapshot(&self, snapshot: Arc<Snapshot>) {
        self.snapshot.store(snapshot);
    }

    /// Replaces the health.
    pub fn set_health(&self, health: Health) {
        self.health.store(Arc::new(health));
    }

    /// Adds what is new in the published snapshot to the counters. Called about once a second.
    pub fn count(&self) {
        self.metrics.observe(&self.snapshot.load());
    }

    /// `/metrics` in one of its two formats.
    ///
    /// # Errors
    /// Never in practice: writing to a string does not fail.
    pub fn metrics(&self, openmetrics: bool, now: Timestamp) -> Result<String, std::fmt::Error> {
        let (snapshot, health) = (self.snapshot.load_full(), self.health.load_full());
        if openmetrics {
            self.metrics.openmetrics(&snapshot, &health, now)
        } else {
            self.metrics.classic(&snapshot, &health, now)
        }
    }

    /// `/status`.
    #[must_use]
    pub fn status(&self, now: Timestamp) -> Status {
        Status::new(&self.health.load(), &self.snapshot.load(), now)
    }

    /// `/report`; only edges with a packet after `since` if it is given.
    #[must_use]
    pub fn report(&self, since: Option<Timestamp>) -> Report {
        let node = self.health.load().node.clone();
        Report { node, ..Report::new(&self.snapshot.load(), since) }
    }
}

#[cfg(test)]
mod tests;
