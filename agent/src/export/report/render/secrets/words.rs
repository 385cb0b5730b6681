//! Secrets, readers and what became of them in words for people.
//!
//! In: rows of a report. Out: short English.

use std::collections::BTreeSet;

use parapet_core::secrets::{
    MountState, OTHER_READS, ReadCounts, Reader, Relation, SecretOwner, SecretSource, SecretWay,
    TokenMount,
};

use crate::export::report::secrets::{MountRow, ReadRow};
use crate::export::report::select;

/// Names of a list that are written; the others are counted.
const LISTED_MAX: usize = 8;
/// What stands for a name that nobody knows.
const NOT_KNOWN: &str = "?";

/// `shop/api`, or `node`.
pub(super) fn owner(owner: &SecretOwner) -> String {
    match owner {
        SecretOwner::Workload { namespace, workload } => format!("{namespace}/{}", workload.name),
        SecretOwner::Node => "node".to_owned(),
        SecretOwner::Unknown => "unknown".to_owned(),
    }
}

/// `shop/db-creds`: a Secret object is of its owner's namespace.
pub(super) fn secret(owner: &SecretOwner, source: &SecretSource) -> String {
    let namespace = select::of(owner).unwrap_or("");
    match source {
        SecretSource::Secret { name } => format!("{namespace}/{name}"),
        SecretSource::ServiceAccountToken { audience } if audience.is_empty() => {
            "service account token".to_owned()
        }
        SecretSource::ServiceAccountToken { audience } => format!("token for {audience}"),
        SecretSource::ConfigMap { name } => format!("ConfigMap {namespace}/{name}"),
        SecretSource::DownwardApi => "downward API".to_owned(),
        SecretSource::ClusterTrustBundle { name } => format!("ClusterTrustBundle {name}"),
        SecretSource::Csi { driver } => format!("CSI volume of {driver}"),
        SecretSource::NodeFile { path } => path.to_string(),
        SecretSource::Unknown { volume } if &**volume == OTHER_READS => {
            "others that had no room".to_owned()
        }
        SecretSource::Unknown { volume } => format!("volume {volume}, of what is not known"),
    }
}

/// What is one Secret object is together.
pub(super) fn secret_order<'a>(
    owner: &'a SecretOwner,
    source: &'a SecretSource,
) -> (&'a str, &'a SecretSource) {
    (select::of(owner).unwrap_or(""), source)
}

/// The token that a pod gets by default. Its audience is the API server's own.
pub(super) fn is_api_token(source: &SecretSource) -> bool {
    matches!(source, SecretSource::ServiceAccountToken { audience } if audience.is_empty())
}

pub(super) fn reader(reader: &Reader) -> String {
    match reader {
        Reader::Pod { namespace, workload, container } if container.is_empty() => {
            format!("{namespace}/{}", workload.name)
        }
        Reader::Pod { namespace, workload, container } => {
            format!("{namespace}/{} container {container}", workload.name)
        }
        Reader::Node { unit } if unit.is_empty() => "node (root cgroup)".to_owned(),
        Reader::Node { unit } => format!("node ({unit})"),
        Reader::Unknown { reason } if &**reason == OTHER_READS => "others".to_owned(),
        Reader::Unknown { reason } => format!("unknown ({})", reason.replace('_', " ")),
    }
}

pub(super) fn relation(relation: Relation) -> &'static str {
    match relation {
        Relation::Own => "own container",
        Relation::Sibling => "sibling container",
        Relation::OtherPod => "other pod",
        Relation::Node => "node process",
        Relation::Kubelet => "kubelet",
        Relation::Runtime => "runtime",
        Relation::Unknown => "unknown",
    }
}

/// What ought to be looked at first.
pub(super) fn relation_rank(relation: Relation) -> u8 {
    match relation {
        Relation::OtherPod => 0,
        Relation::Sibling => 1,
        Relation::Node => 2,
        Relation::Unknown => 3,
        Relation::Own => 4,
        Relation::Kubelet => 5,
        Relation::Runtime => 6,
    }
}

/// `python3.11, uid 0, pid 77`, with the thread's name where it says more.
pub(super) fn process(read: &ReadRow) -> String {
    let mut text = known(&read.program).to_owned();
    // The kernel cuts thread names after 15 bytes.
    if !read.comm.is_empty() && !read.program.starts_with(&read.comm) {
        text.push_str(" as ");
        text.push_str(&read.comm);
    }
    text.push_str(&format!(", uid {}", read.uid));
    if read.pid != 0 {
        text.push_str(&format!(", pid {}", read.pid));
    }
    text
}

/// How often, in what ways.
pub(super) fn uses(counts: &ReadCounts) -> String {
    let one = |count: u64, one: &str, many: &str| match count {
        0 => None,
        1 => Some(format!("1 {one}")),
        _ => Some(format!("{count} {many}")),
    };
    let parts: Vec<String> = [
        one(counts.opens, "open", "opens"),
        one(counts.reads, "read", "reads"),
        one(counts.maps, "mapping", "mappings"),
        one(counts.held, "time found open", "times found open"),
    ]
    .into_iter()
    .flatten()
    .collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

pub(super) fn way(way: SecretWay) -> &'static str {
    match way {
        SecretWay::Volume => "volume",
        SecretWay::SubPath => "subPath",
        SecretWay::Env => "env",
        SecretWay::ImagePull => "image pull",
        SecretWay::Unmounted => "volume, in no container",
        SecretWay::Driver => "CSI driver",
    }
}

pub(super) fn mount_state(row: &MountRow) -> String {
    if row.state == MountState::Unobservable {
        return match row.way {
            SecretWay::Env => "unobservable: the runtime sets a variable, no file is opened",
            SecretWay::ImagePull => "unobservable: the kubelet uses it, no container sees it",
            SecretWay::Driver => "unobservable: a storage driver uses it, no container sees it",
            SecretWay::Volume | SecretWay::SubPath | SecretWay::Unmounted => {
                "unobservable: its files are not watched"
            }
        }
        .to_owned();
    }
    let mut text = watched(row.state, row.watched_seconds, row.starts_seen, row.has_gaps);
    match row.stale.len() {
        0 => {}
        1 => text.push_str(", 1 container on an old version"),
        many => text.push_str(&format!(", {many} containers on an old version")),
    }
    text
}

/// Whether it was read, and how sure it is that it was not.
pub(super) fn watched(state: MountState, seconds: u64, starts: u64, has_gaps: bool) -> String {
    match state {
        MountState::Read => "read".to_owned(),
        MountState::Unobservable => "unobservable".to_owned(),
        MountState::NeverRead => {
            let starts = match starts {
                0 => "no start seen".to_owned(),
                1 => "1 start seen".to_owned(),
                many => format!("{many} starts seen"),
            };
            let gaps = if has_gaps { ", but some opens were lost" } else { "" };
            format!("never read in {}, {starts}{gaps}", duration(seconds))
        }
    }
}

/// `read: user; never: password`.
pub(super) fn keys(row: &MountRow) -> String {
    let of = |state: MountState| {
        let keys = row.keys.iter().filter(move |key| key.state == state);
        list(keys.map(|key| key.key.as_str()))
    };
    let parts: Vec<String> = [("read", of(MountState::Read)), ("never", of(MountState::NeverRead))]
        .into_iter()
        .filter(|(_, keys)| !keys.is_empty())
        .map(|(word, keys)| format!("{word}: {keys}"))
        .collect();
    parts.join("; ")
}

pub(super) fn token_mount(mount: TokenMount) -> &'static str {
    match mount {
        TokenMount::Pod => "pod says true",
        TokenMount::ServiceAccount => "service account says true",
        TokenMount::Default => "default",
        TokenMount::Volume => "a volume of its own",
    }
}

/// Where a workload's pods are described.
pub(super) fn template(owner: &SecretOwner) -> String {
    match owner {
        SecretOwner::Workload { namespace, workload } if &*workload.kind == "Pod" => {
            format!("Pod {namespace}/{}", workload.name)
        }
        SecretOwner::Workload { namespace, workload } => {
            format!("the pod template of {} {namespace}/{}", workload.kind, workload.name)
        }
        SecretOwner::Node | SecretOwner::Unknown => self::owner(owner),
    }
}

/// `a, b`, or the first of them and how many more there are.
pub(super) fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    let mut text = names.iter().take(LISTED_MAX).copied().collect::<Vec<_>>().join(", ");
    if names.len() > LISTED_MAX {
        text.push_str(&format!(" and {} more", names.len() - LISTED_MAX));
    }
    text
}

/// The nodes of a merged report's row, of which not all are named.
pub(super) fn nodes(named: &BTreeSet<&str>, total: u64) -> String {
    let text = list(named.iter().copied());
    let unnamed = total.saturating_sub(named.len() as u64);
    if unnamed == 0 { text } else { format!("{text} and {unnamed} more") }
}

/// `2026-11-23T11:40:00Z`: a table needs no parts of a second.
pub(super) fn time(rfc3339: &str) -> String {
    match rfc3339.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => rfc3339.to_owned(),
    }
}

pub(super) fn known(name: &str) -> &str {
    if name.is_empty() || name == OTHER_READS { NOT_KNOWN } else { name }
}

/// `45s`, `12m`, `2h 5m`, `9d 3h`.
fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{minutes}m"),
        3_600..86_400 => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

/// Stages at which opens of secrets, or names of their readers, are lost.
pub(super) fn is_secret_stage(stage: &str) -> bool {
    let begins = ["secrets_", "reads_", "readers_", "volume"];
    begins.iter().any(|begin| stage.starts_with(begin))
        || matches!(stage, "descriptor_gone" | "fixed_file")
}
