//! The metrics contract: every `parapet_*` family, from one snapshot at scrape time.
//!
//! In: snapshots and the runtime's health. Out: OpenMetrics text, or the classic format. Counters
//! never go down and no family holds more than [`SERIES_MAX`] series. It is the only importer of
//! prometheus-client; no pod name of an owned pod, no address, and no key or path of a secret
//! becomes a label.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use parapet_core::flow::Timestamp;
use parapet_core::snapshot::Snapshot;
use prometheus_client::registry::Registry;

use self::families::Scrape;
use self::totals::Totals;
use super::status::Health;

mod classic;
mod families;
mod labels;
mod secrets;
mod series;
mod totals;

/// Series in one family; what would be more is counted in a series whose ends are `__other__`.
pub const SERIES_MAX: usize = 5_000;

/// Content type of the OpenMetrics text format.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Content type of the classic text format.
pub const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The counters behind `/metrics`. They outlive edges, so that no counter goes down when one is
/// forgotten or judged anew.
#[derive(Debug)]
pub struct Metrics {
    totals: Arc<Mutex<Totals>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::with_series_max(SERIES_MAX)
    }
}

impl Metrics {
    fn with_series_max(series_max: usize) -> Self {
        Self { totals: Arc::new(Mutex::new(Totals::new(series_max))) }
    }

    /// Adds what is new in this snapshot. Called about once a second, so that attempts are counted
    /// under the verdict that held when they were made; a scrape calls it too.
    pub fn observe(&self, snapshot: &Snapshot) {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner).observe(snapshot);
    }

    /// Every family as OpenMetrics text.
    ///
    /// # Errors
    /// Never in practice: writing to a string does not fail.
    pub fn openmetrics(
        &self,
        snapshot: &Arc<Snapshot>,
        health: &Arc<Health>,
        now: Timestamp,
    ) -> Result<String, fmt::Error> {
        self.observe(snapshot);
        let mut registry = Registry::with_prefix("parapet");
        registry.register_collector(Box::new(Scrape {
            snapshot: Arc::clone(snapshot),
            health: Arc::clone(health),
            totals: Arc::clone(&self.totals),
            now,
        }));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry)?;
        Ok(text)
    }

    /// Every family in the classic text format.
    ///
    /// # Errors
    /// As [`Self::openmetrics`].
    pub fn classic(
        &self,
        snapshot: &Arc<Snapshot>,
        health: &Arc<Health>,
        now: Timestamp,
    ) -> Result<String, fmt::Error> {
        Ok(classic::from_openmetrics(&self.openmetrics(snapshot, health, now)?))
    }
}

/// Whether this `Accept` header asks for OpenMetrics.
#[must_use]
pub fn wants_openmetrics(accept: Option<&str>) -> bool {
    accept.is_some_and(|accept| {
        accept.split(',').any(|range| {
            let mut parts = range.split(';').map(str::trim);
            let named = parts.next() == Some("application/openmetrics-text");
            let refused = parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
            named && !refused
        })
    })
}

#[cfg(test)]
mod tests;
