//! What is known of secrets as one CSV table: a line a mount, key, read, stale reader and token.
//!
//! In: a [`Report`] and the part of its secrets that was asked for. Out: RFC 4180, the same for the
//! same report. A column that a line has no use for is empty.

use parapet_core::secrets::{Reader, SecretOwner, SecretSource};

use super::{Report, Selection, chosen, form};
use crate::export::report::secrets::{KeyRow, MountRow, ReadRow, StaleRow, TokenRow};

/// In this order; the first says what a line is about.
const COLUMNS: [&str; 36] = [
    "record",
    "secret_kind",
    "secret",
    "key",
    "owner_namespace",
    "owner_kind",
    "owner",
    "way",
    "containers",
    "pods",
    "state",
    "relation",
    "reader_namespace",
    "reader_kind",
    "reader",
    "container",
    "program",
    "comm",
    "uid",
    "pid",
    "opens",
    "reads",
    "maps",
    "held",
    "first_seen",
    "last_seen",
    "watched_since",
    "watched_seconds",
    "starts_seen",
    "has_gaps",
    "version_read",
    "version_current",
    "service_account",
    "mounted_by",
    "is_candidate",
    "nodes",
];

/// Cells by the names of their columns.
type Cells = Vec<(&'static str, String)>;

/// All rows that are shown. `all`: also what is no secret, and reads by the kubelet and the
/// container runtime.
#[must_use]
pub fn csv(report: &Report, selection: &Selection, all: bool) -> String {
    let chosen = chosen(report, selection, all);
    let mut lines: Vec<Cells> = Vec::new();
    for row in &chosen.mounts {
        lines.push(mount(row));
        lines.extend(row.keys.iter().map(|each| key(row, each)));
        lines.extend(row.stale.iter().map(|each| stale(row, each)));
    }
    lines.extend(chosen.reads.iter().map(read));
    lines.extend(chosen.tokens.iter().map(token));
    let rows: Vec<Vec<String>> = lines.iter().map(line).collect();
    form::csv(&COLUMNS, &rows)
}

fn line(cells: &Cells) -> Vec<String> {
    let cell = |column: &&str| cells.iter().find(|(name, _)| name == column);
    let text = |column| cell(column).map(|(_, text)| text.clone()).unwrap_or_default();
    COLUMNS.iter().map(text).collect()
}

/// What a line is about, and whose secret.
fn about(record: &str, owner: &SecretOwner, source: Option<&SecretSource>) -> Cells {
    let mut cells = vec![("record", record.to_owned())];
    if let Some(source) = source {
        cells.extend([("secret_kind", kind(source).to_owned()), ("secret", name(source))]);
    }
    match owner {
        SecretOwner::Workload { namespace, workload } => cells.extend([
            ("owner_namespace", namespace.to_string()),
            ("owner_kind", workload.kind.to_string()),
            ("owner", workload.name.to_string()),
        ]),
        SecretOwner::Node => cells.push(("owner_kind", "node".to_owned())),
        SecretOwner::Unknown => cells.push(("owner_kind", "unknown".to_owned())),
    }
    cells
}

fn mount(row: &MountRow) -> Cells {
    let mut cells = about("mount", &row.owner, Some(&row.source));
    cells.extend([
        ("way", word(&row.way)),
        ("containers", row.containers.join(" ")),
        ("pods", row.pods.to_string()),
        ("state", word(&row.state)),
        ("first_seen", row.first_read.clone()),
        ("last_seen", row.last_read.clone()),
    ]);
    cells.extend(watched(&row.watched_since, row.watched_seconds, row.starts_seen, row.has_gaps));
    cells
}

fn key(row: &MountRow, key: &KeyRow) -> Cells {
    let mut cells = about("key", &row.owner, Some(&row.source));
    cells.extend([
        ("key", key.key.clone()),
        ("way", word(&row.way)),
        ("state", word(&key.state)),
        ("last_seen", key.last_read.clone()),
    ]);
    cells.extend(watched(&row.watched_since, row.watched_seconds, row.starts_seen, row.has_gaps));
    cells
}

fn stale(row: &MountRow, stale: &StaleRow) -> Cells {
    let mut cells = about("stale", &row.owner, Some(&row.source));
    cells.extend([
        ("way", word(&row.way)),
        ("container", stale.container.clone()),
        ("first_seen", stale.since.clone()),
        ("version_read", stale.read.clone()),
        ("version_current", stale.current.clone()),
        ("nodes", stale.node.clone()),
    ]);
    cells
}

fn read(row: &ReadRow) -> Cells {
    let mut cells = about("read", &row.owner, Some(&row.source));
    match &row.reader {
        Reader::Pod { namespace, workload, container } => cells.extend([
            ("reader_namespace", namespace.to_string()),
            ("reader_kind", workload.kind.to_string()),
            ("reader", workload.name.to_string()),
            ("container", container.to_string()),
        ]),
        Reader::Node { unit } => {
            cells.extend([("reader_kind", "node".to_owned()), ("reader", unit.to_string())]);
        }
        Reader::Unknown { reason } => {
            cells.extend([("reader_kind", "unknown".to_owned()), ("reader", reason.to_string())]);
        }
    }
    cells.extend([
        ("key", row.key.clone()),
        ("relation", word(&row.relation)),
        ("program", row.program.clone()),
        ("comm", row.comm.clone()),
        ("uid", row.uid.to_string()),
        ("pid", if row.pid == 0 { String::new() } else { row.pid.to_string() }),
        ("opens", row.counts.opens.to_string()),
        ("reads", row.counts.reads.to_string()),
        ("maps", row.counts.maps.to_string()),
        ("held", row.counts.held.to_string()),
        ("first_seen", row.first_seen.clone()),
        ("last_seen", row.last_seen.clone()),
        ("version_read", row.generation.clone()),
        ("nodes", row.nodes.join(" ")),
    ]);
    cells
}

fn token(row: &TokenRow) -> Cells {
    let mut cells = about("token", &row.owner, None);
    cells.extend([
        ("containers", row.read_by.join(" ")),
        ("state", word(&row.state)),
        ("service_account", row.service_account.clone()),
        ("mounted_by", word(&row.mounted_by)),
        ("is_candidate", row.is_candidate.to_string()),
    ]);
    cells.extend(watched(&row.watched_since, row.watched_seconds, row.starts_seen, row.has_gaps));
    cells
}

/// How sure it is that nobody read it; nothing where nothing is watched.
fn watched(since: &str, seconds: u64, starts: u64, has_gaps: bool) -> Cells {
    if since.is_empty() {
        return Cells::new();
    }
    vec![
        ("watched_since", since.to_owned()),
        ("watched_seconds", seconds.to_string()),
        ("starts_seen", starts.to_string()),
        ("has_gaps", has_gaps.to_string()),
    ]
}

/// A value of a closed list, in the word of the JSON.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

/// As the JSON has it, too.
fn kind(source: &SecretSource) -> &'static str {
    match source {
        SecretSource::Secret { .. } => "secret",
        SecretSource::ServiceAccountToken { .. } => "service_account_token",
        SecretSource::ConfigMap { .. } => "config_map",
        SecretSource::DownwardApi => "downward_api",
        SecretSource::ClusterTrustBundle { .. } => "cluster_trust_bundle",
        SecretSource::Csi { .. } => "csi",
        SecretSource::NodeFile { .. } => "node_file",
        SecretSource::Unknown { .. } => "unknown",
    }
}

fn name(source: &SecretSource) -> String {
    match source {
        SecretSource::Secret { name }
        | SecretSource::ConfigMap { name }
        | SecretSource::ClusterTrustBundle { name } => name.to_string(),
        SecretSource::ServiceAccountToken { audience } => audience.to_string(),
        SecretSource::DownwardApi => String::new(),
        SecretSource::Csi { driver } => driver.to_string(),
        SecretSource::NodeFile { path } => path.to_string(),
        SecretSource::Unknown { volume } => volume.to_string(),
    }
}
