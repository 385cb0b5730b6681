//! How the agent itself is doing, as the JSON of `/status`.
//!
//! In: the state of probes, sources and tables as the runtime saw it last, and the engine's
//! snapshot. Out: one [`Status`]. It never waits, looks anything up or judges a flow.

use std::collections::BTreeMap;
use std::time::Duration;

use parapet_core::flow::Timestamp;
use parapet_core::snapshot::{RejectedPolicy, Snapshot};
use parapet_core::verdict::Profile;
use serde::Serialize;

use super::time::{rfc3339, seconds_between};
use crate::kernel::{ProbeStatus, Totals};

/// A second without a step is normal, this many are not.
const ENGINE_SILENT_SECONDS_MAX: f64 = 10.0;

/// What the runtime knows of itself, replaced as a whole whenever it changes.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// Every probe, attached or not.
    pub probes: Vec<ProbeStatus>,
    /// Where declared objects come from.
    pub sources: Vec<SourceHealth>,
    /// (table, entries, capacity) of the kernel's tables.
    pub kernel_tables: Vec<(&'static str, u64, u64)>,
    /// What the kernel saw, whether it found room in a table or not.
    pub kernel_totals: Totals,
    /// When the engine last made a step.
    pub engine_at: Timestamp,
    /// The profile verdicts are made under.
    pub profile: Profile,
    /// This node's name in the cluster.
    pub node: String,
    /// What was asked of the API server; none if objects come from files.
    pub api: Option<ApiHealth>,
    /// Since when verdicts rest on what may be no longer so; zero if they do not.
    pub stale_since: Timestamp,
    /// By how much all times here are ahead of the machine's clock, because that was set back: see
    /// [`crate::clock`].
    pub clock_ahead: Duration,
}

/// What was asked of the API server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ApiHealth {
    /// Its URL.
    pub server: String,
    /// Requests of the last minute.
    pub requests_last_minute: u64,
    /// Requests since start.
    pub requests: Vec<ApiRequests>,
}

/// Requests of one sort.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ApiRequests {
    /// `list` (streaming lists are lists), `watch`, `get`.
    pub verb: &'static str,
    /// The plural name; `discovery` for which resources there are.
    pub resource: &'static str,
    /// The HTTP status; 0 if there was no answer.
    pub code: u16,
    /// How many.
    pub count: u64,
}

/// One source of objects: a set of paths, or a candidate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceHealth {
    /// `manifests`, `candidate:NAME`, or a resource of the API server.
    pub resource: String,
    /// Whether its first full list is there.
    pub synced: bool,
    /// Whether the agent is ready without it.
    pub optional: bool,
    /// What is in the way, in words.
    pub failure: Option<String>,
    /// When it was last read without a failure of the whole source.
    pub read_at: Timestamp,
    /// Objects in use.
    pub objects: u64,
    /// What was skipped, and why: each names its file, document and field.
    pub problems: Vec<String>,
    /// Kinds that are not needed, as "Secret (v1)", and how many objects of each were left out.
    pub left_out: BTreeMap<String, u64>,
}

/// `/status`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// Of this binary.
    pub version: &'static str,
    /// This node's name in the cluster; empty if not known.
    pub node: String,
    /// The profile verdicts are made under.
    pub profile: Profile,
    /// Whether `/readyz` says yes.
    pub ready: bool,
    /// What keeps it from being ready, in words.
    pub waiting_for: Vec<String>,
    /// RFC 3339; empty until the first step.
    pub observing_since: String,
    /// Each probe: what it is for, whether it is attached, why not.
    pub probes: Vec<ProbeStatus>,
    /// Each source of objects.
    pub sources: Vec<SourceStatus>,
    /// Policies that no set holds because the API server would refuse them.
    pub rejections: Vec<RejectedPolicy>,
    /// Losses by stage since start.
    pub lost: BTreeMap<String, u64>,
    /// Each table: entries and capacity.
    pub tables: BTreeMap<String, TableStatus>,
    /// Records that wait for an identity.
    pub pending: u64,
    /// Records counted before the first full lists, not judged yet.
    pub unjudged: u64,
    /// Since when verdicts rest on what may be no longer so; absent if they do not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stale_since: String,
    /// By how many seconds all times are ahead of the machine's clock, because that was set back;
    /// absent if they are not.
    #[serde(skip_serializing_if = "is_zero")]
    pub clock_ahead_seconds: u64,
    /// What was asked of the API server; absent if objects come from files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<ApiHealth>,
}

/// One source in `/status`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SourceStatus {
    /// `manifests`, `candidate:NAME`, or a resource of the API server.
    pub resource: String,
    /// Whether its first full list is there.
    pub synced: bool,
    /// What is in the way, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Seconds since it was last read.
    pub age_seconds: f64,
    /// Objects in use.
    pub objects: u64,
    /// How many things were skipped.
    pub problems_count: usize,
    /// What was skipped, and why.
    pub problems: Vec<String>,
    /// Kinds that are not needed, as "Secret (v1)", and how many objects of each were left out.
    pub left_out: BTreeMap<String, u64>,
}

/// One table in `/status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TableStatus {
    /// Entries there are.
    pub entries: u64,
    /// Entries there can be.
    pub capacity: u64,
}

impl Status {
    /// The status at `now`.
    #[must_use]
    pub fn new(health: &Health, snapshot: &Snapshot, now: Timestamp) -> Self {
        let waiting_for = waiting_for(health, snapshot, now);
        Self {
            version: env!("CARGO_PKG_VERSION"),
            node: health.node.clone(),
            profile: health.profile,
            ready: waiting_for.is_empty(),
            waiting_for,
            observing_since: rfc3339(snapshot.observing_since),
            probes: health.probes.clone(),
            sources: health.sources.iter().map(|source| source_status(source, now)).collect(),
            rejections: snapshot.rejections.clone(),
            lost: losses(snapshot).into_iter().map(|(stage, n)| (stage.to_owned(), n)).collect(),
            tables: tables(health, snapshot)
                .into_iter()
                .map(|(table, status)| (table.to_owned(), status))
                .collect(),
            pending: snapshot.pending,
            unjudged: snapshot.unjudged,
            stale_since: rfc3339(health.stale_since),
            clock_ahead_seconds: health.clock_ahead.as_secs(),
            api: health.api.clone(),
        }
    }
}

/// Losses by stage, with the kernel's stages always there: a counter that appears with its first
/// loss cannot be alerted on.
#[must_use]
pub(super) fn losses(snapshot: &Snapshot) -> BTreeMap<&'static str, u64> {
    let mut lost: BTreeMap<&'static str, u64> =
        parapet_common::STAGE_NAMES.iter().map(|stage| (*stage, 0)).collect();
    lost.extend(&snapshot.lost);
    lost
}

/// The kernel's tables and the engine's, by name.
#[must_use]
pub(super) fn tables(health: &Health, snapshot: &Snapshot) -> BTreeMap<&'static str, TableStatus> {
    let kernel = health.kernel_tables.iter().copied();
    let engine = snapshot.tables.iter().map(|(table, (entries, capacity))| {
        let table: &'static str = table;
        (table, *entries, *capacity)
    });
    engine
        .chain(kernel)
        .map(|(table, entries, capacity)| (table, TableStatus { entries, capacity }))
        .collect()
}

/// What keeps the agent from being ready; empty if nothing does.
#[must_use]
pub(super) fn waiting_for(health: &Health, snapshot: &Snapshot, now: Timestamp) -> Vec<String> {
    let mut waiting = Vec::new();
    if health.probes.is_empty() {
        waiting.push("probes are not loaded yet".to_owned());
    }
    for probe in health.probes.iter().filter(|probe| probe.required && !probe.attached) {
        waiting.push(format!("probe {} is not attached", probe.probe));
    }
    for source in health.sources.iter().filter(|source| !source.synced && !source.optional) {
        let failure = source.failure.as_ref().map(|said| format!(": {said}")).unwrap_or_default();
        waiting.push(format!("{} has not been read yet{failure}", source.resource));
    }
    if !snapshot.synced {
        waiting.push("the engine waits for the first full lists".to_owned());
    }
    let silent = seconds_between(health.engine_at, now);
    if health.engine_at == Timestamp::default() {
        waiting.push("the engine has not started".to_owned());
    } else if silent > ENGINE_SILENT_SECONDS_MAX {
        waiting.push(format!("the engine made no step for {silent:.0} s"));
    }
    waiting
}

fn source_status(source: &SourceHealth, now: Timestamp) -> SourceStatus {
    SourceStatus {
        resource: source.resource.clone(),
        synced: source.synced,
        failure: source.failure.clone(),
        age_seconds: seconds_between(source.read_at, now),
        objects: source.objects,
        problems_count: source.problems.len(),
        problems: source.problems.clone(),
        left_out: source.left_out.clone(),
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over the field")]
fn is_zero(seconds: &u64) -> bool {
    *seconds == 0
}
