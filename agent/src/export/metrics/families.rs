//! Every metric family, written at scrape time.
//!
//! In: one snapshot, the runtime's health, the totals so far. Out: samples. Gauges are computed
//! here from the snapshot alone; it keeps nothing between scrapes but the count of what was folded.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use parapet_core::flow::{Direction, Protocol, Timestamp};
use parapet_core::snapshot::{Edge, Snapshot};
use parapet_core::verdict::Decision;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::labels::{OTHER, direction, subject_namespace, word};
use super::secrets::{mount_samples, mounts};
use super::series::{Fold, Series};
use super::totals::{Totals, seen_side};
use crate::export::status::{Health, losses, tables};
use crate::export::time::seconds_between;

type Labels = Vec<(&'static str, String)>;

/// One scrape.
#[derive(Debug)]
pub(super) struct Scrape {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) health: Arc<Health>,
    pub(super) totals: Arc<Mutex<Totals>>,
    pub(super) now: Timestamp,
}

/// Identifies a series of the gauges about edges.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct SubjectKey {
    policy_set: Option<Arc<str>>,
    namespace: Arc<str>,
    direction: Direction,
}

impl Fold for SubjectKey {
    fn folded(&self) -> Self {
        Self { namespace: Arc::from(OTHER), ..self.clone() }
    }
}

/// The gauges that are counted edge by edge.
struct EdgeGauges {
    would_be_denied: Series<SubjectKey>,
    denied_but_passing: Series<SubjectKey>,
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        self.encode_totals(&mut encoder, &totals)?;
        self.encode_edges(&mut encoder, &mut totals)?;
        self.encode_secrets(&mut encoder, &mut totals)?;
        encode_overflow(&mut encoder, &totals)?;
        drop(totals);
        self.encode_losses(&mut encoder)?;
        self.encode_health(&mut encoder)
    }
}

impl Scrape {
    fn encode_totals(&self, to: &mut DescriptorEncoder<'_>, totals: &Totals) -> fmt::Result {
        let attempts = totals.attempts.iter().map(|(key, total)| {
            let mut labels = vec![
                ("direction", direction(key.direction).to_owned()),
                ("protocol", Protocol(key.protocol).to_string()),
                ("outcome", word(&key.outcome)),
            ];
            labels.extend(key.ends.labels());
            (labels, total)
        });
        let help =
            "Attempts to open a connection, or first packets of a UDP pair, seen on this node";
        counters(to, "flow_attempts", help, attempts)?;
        encode_ends(to, totals)?;
        let verdicts = totals.verdicts.iter().map(|(key, total)| {
            let mut labels = vec![
                ("policy_set", key.policy_set.to_string()),
                ("direction", direction(key.direction).to_owned()),
                ("decision", word(&key.decision)),
                ("reason", word(&key.reason)),
            ];
            labels.extend(key.ends.labels());
            (labels, total)
        });
        let help = "Attempts by what a policy set says of them at the end on this node";
        counters(to, "policy_verdicts", help, verdicts)
    }

    fn encode_edges(&self, to: &mut DescriptorEncoder<'_>, totals: &mut Totals) -> fmt::Result {
        let edges = edge_gauges(&self.snapshot.edges, totals.series_max);
        let help = "Edges that a policy set denies at the end on this node";
        gauges(to, "would_be_denied_edges", help, subjects(&edges.would_be_denied, None))?;
        let help = "Edges where declared policies and real traffic differ";
        let kind = Some(("kind", "denied_but_passing"));
        gauges(to, "policy_drift_edges", help, subjects(&edges.denied_but_passing, kind))?;
        for (family, overflow) in [
            ("would_be_denied_edges", edges.would_be_denied.overflow_total()),
            ("policy_drift_edges", edges.denied_but_passing.overflow_total()),
        ] {
            *totals.gauge_overflow.entry(family).or_default() += overflow;
        }
        let seconds = seconds_between(self.snapshot.observing_since, self.snapshot.at);
        let mut namespaces = BTreeMap::new();
        for (key, _) in edges.denied_but_passing.iter() {
            namespaces.insert(&key.namespace, seconds);
        }
        let windows = namespaces.into_iter().map(|(namespace, seconds)| {
            (vec![("subject_namespace", namespace.to_string())], seconds)
        });
        let help = "How long the traffic of a namespace's pods on this node has been watched";
        float_gauges(to, "observation_window_seconds", help, windows)
    }

    fn encode_secrets(&self, to: &mut DescriptorEncoder<'_>, totals: &mut Totals) -> fmt::Result {
        let help = "Opens of secret files by what the reader is to the workload whose secret it is";
        counters(to, "secret_reads", help, totals.secrets.samples())?;
        let mounts = mounts(&self.snapshot.secrets, totals.series_max);
        let help = "Pods on this node that have a secret, by whether their workload reads it";
        gauges(to, "secret_mounts", help, mount_samples(&mounts))?;
        *totals.gauge_overflow.entry("secret_mounts").or_default() += mounts.overflow_total();
        Ok(())
    }

    fn encode_losses(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let lost = losses(&self.snapshot);
        let lost = lost.iter().map(|(stage, n)| (vec![("stage", (*stage).to_owned())], *n));
        counters(to, "events_lost", "Records and packets that were not followed", lost)?;
        let seen = self.health.kernel_totals;
        let seen =
            [("begun", seen.attempts), ("answered", seen.answered), ("refused", seen.refused)];
        let seen = seen.map(|(event, count)| (vec![("event", event.to_owned())], count));
        let help = "Attempts that the kernel saw, with or without room in a table to follow them";
        counters(to, "kernel_attempts", help, seen.into_iter())?;
        let unattributed = self.snapshot.unattributed.iter().map(|((side, reason), count)| {
            (vec![("side", word(side)), ("reason", (*reason).to_owned())], *count)
        });
        let opens = self.snapshot.secrets.unattributed.iter().map(|(reason, count)| {
            (vec![("side", "secret".to_owned()), ("reason", (*reason).to_owned())], *count)
        });
        let help = "Attempts with an end, and opens of secret files with an owner or a reader, \
                    that could not be resolved";
        counters(to, "unattributed", help, unattributed.chain(opens))?;
        let pending = std::iter::once((Vec::new(), self.snapshot.pending));
        gauges(to, "pending_records", "Records that wait for an identity", pending)?;
        let unjudged = std::iter::once((Vec::new(), self.snapshot.unjudged));
        let help = "Records counted before the first full lists, not judged yet";
        gauges(to, "unjudged_records", help, unjudged)
    }

    fn encode_health(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let tables = tables(&self.health, &self.snapshot);
        let labels = |table: &str| vec![("map", table.to_owned())];
        let entries = tables.iter().map(|(table, status)| (labels(table), status.entries));
        gauges(to, "map_entries", "Entries of a bounded table", entries)?;
        let capacity = tables.iter().map(|(table, status)| (labels(table), status.capacity));
        gauges(to, "map_capacity", "Entries a bounded table can hold", capacity)?;
        let probes = self.health.probes.iter().map(|probe| {
            let labels = vec![("probe", probe.probe.to_owned()), ("hook", probe.hook.to_owned())];
            (labels, u64::from(probe.attached))
        });
        gauges(to, "probe_attached", "Whether a probe is attached (1) or not (0)", probes)?;
        let sources = &self.health.sources;
        let labels = |resource: &str| vec![("resource", resource.to_owned())];
        let synced = sources.iter().map(|s| (labels(&s.resource), u64::from(s.synced)));
        let help = "Whether the first full list of a source of objects is there (1) or not (0)";
        gauges(to, "watch_synced", help, synced)?;
        let read = sources.iter().filter(|source| source.synced);
        let ages = read.map(|s| (labels(&s.resource), seconds_between(s.read_at, self.now)));
        float_gauges(to, "watch_age_seconds", "Time since a source was last read", ages)?;
        if let Some(api) = &self.health.api {
            let requests = api.requests.iter().map(|requests| {
                let labels = vec![
                    ("verb", requests.verb.to_owned()),
                    ("resource", requests.resource.to_owned()),
                    ("code", requests.code.to_string()),
                ];
                (labels, requests.count)
            });
            let help = "Requests to the API server by what it answered, 0 for nothing";
            counters(to, "api_requests", help, requests)?;
            let is_stale = u64::from(self.health.stale_since != Timestamp::default());
            let help = "Whether verdicts rest on what may be no longer so (1) or not (0)";
            gauges(to, "verdicts_stale", help, std::iter::once((Vec::new(), is_stale)))?;
        }
        let labels = [("version", env!("CARGO_PKG_VERSION"))];
        let info = prometheus_client::metrics::info::Info::new(labels);
        let metric = to.encode_descriptor("build", "This binary", None, MetricType::Info)?;
        info.encode(metric)
    }
}

/// How attempts ended in more detail: refusals by kind, and how long handshakes took.
fn encode_ends(to: &mut DescriptorEncoder<'_>, totals: &Totals) -> fmt::Result {
    let refusals = totals.refusals.iter().map(|(key, total)| {
        let mut labels = vec![
            ("direction", direction(key.direction).to_owned()),
            ("protocol", Protocol(key.protocol).to_string()),
            ("kind", word(&key.refusal)),
        ];
        labels.extend(key.ends.labels());
        (labels, total)
    });
    counters(to, "flow_refusals", "Refusals of attempts by what they were told with", refusals)?;
    let handshakes = totals.handshakes.iter().map(|(ends, n)| (ends.labels().to_vec(), n));
    let help = "TCP handshakes that began on this node and whose time was measured";
    counters(to, "tcp_handshakes", help, handshakes)?;
    let help = "Time that these TCP handshakes took, from the SYN to its answer";
    let mut family =
        to.encode_descriptor("tcp_handshake_seconds", help, None, MetricType::Counter)?;
    for (ends, total_ns) in totals.handshakes_ns.iter() {
        let seconds = Duration::from_nanos(total_ns).as_secs_f64();
        ConstCounter::new(seconds).encode(family.encode_family(&ends.labels().to_vec())?)?;
    }
    Ok(())
}

fn edge_gauges(edges: &[Arc<Edge>], series_max: usize) -> EdgeGauges {
    let mut gauges = EdgeGauges {
        would_be_denied: Series::new(series_max),
        denied_but_passing: Series::new(series_max),
    };
    for edge in edges {
        let Some((namespace, direction)) = subject_namespace(&edge.key) else { continue };
        let key =
            |policy_set| SubjectKey { policy_set, namespace: Arc::clone(namespace), direction };
        for (policy_set, verdict) in &edge.judgement.verdicts {
            let denied = seen_side(&edge.key, verdict).decision == Decision::Denied;
            gauges.would_be_denied.add(key(Some(Arc::clone(policy_set))), u64::from(denied));
        }
        let denied = edge
            .judgement
            .verdicts
            .get("enforced")
            .is_some_and(|verdict| seen_side(&edge.key, verdict).decision == Decision::Denied);
        // By the counts: an answer that came late passed all the same.
        let passing = edge.counts.answered > 0;
        gauges.denied_but_passing.add(key(None), u64::from(denied && passing));
    }
    gauges
}

fn subjects<'a>(
    series: &'a Series<SubjectKey>,
    kind: Option<(&'static str, &'a str)>,
) -> impl Iterator<Item = (Labels, u64)> {
    series.iter().map(move |(key, value)| {
        let mut labels = Labels::new();
        labels.extend(kind.map(|(name, kind)| (name, kind.to_owned())));
        labels.extend(key.policy_set.as_ref().map(|set| ("policy_set", set.to_string())));
        labels.push(("subject_namespace", key.namespace.to_string()));
        labels.push(("direction", direction(Some(key.direction)).to_owned()));
        (labels, value)
    })
}

fn encode_overflow(to: &mut DescriptorEncoder<'_>, totals: &Totals) -> fmt::Result {
    let mut families = totals.gauge_overflow.clone();
    families.insert("flow_attempts_total", totals.attempts.overflow_total());
    families.insert("policy_verdicts_total", totals.verdicts.overflow_total());
    families.insert("flow_refusals_total", totals.refusals.overflow_total());
    families.insert("secret_reads_total", totals.secrets.reads.overflow_total());
    families.insert("tcp_handshakes_total", totals.handshakes.overflow_total());
    families.insert("tcp_handshake_seconds_total", totals.handshakes_ns.overflow_total());
    let samples = families.iter().map(|(family, n)| (vec![("family", (*family).to_owned())], *n));
    let help = "Additions to a family that had no room for another series and were folded";
    counters(to, "series_overflow", help, samples)
}

fn counters(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: impl Iterator<Item = (Labels, u64)>,
) -> fmt::Result {
    let mut family = to.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in samples {
        ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn gauges(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: impl Iterator<Item = (Labels, u64)>,
) -> fmt::Result {
    let samples = samples.map(|(labels, value)| (labels, i64::try_from(value).unwrap_or(i64::MAX)));
    let mut family = to.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in samples {
        ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn float_gauges(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: impl Iterator<Item = (Labels, f64)>,
) -> fmt::Result {
    let mut family = to.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in samples {
        ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}
