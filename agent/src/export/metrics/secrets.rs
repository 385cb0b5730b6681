//! Reads and mounts of secrets as series.
//!
//! In: one answer of the core after the other. Out: opens so far by whose secret was read and what
//! the reader is to its owner, and mounts by whether they are read. A label is a namespace, a
//! workload, the name of a Secret object or a word of ours: no key, no path, no process.

use std::collections::HashMap;
use std::sync::Arc;

use parapet_core::secrets::{
    MountState, ReadIdentity, Relation, SecretMount, SecretOwner, SecretRead, SecretSource,
    SecretsSnapshot,
};

use super::labels::{OTHER, word};
use super::series::{Fold, Series};
use crate::export::report::select::is_secret;

type Labels = Vec<(&'static str, String)>;

/// Whose secret, and which.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    Named { owner: SecretOwner, secret: Name },
    Folded,
}

/// An object's name, or a word for what has none. No object's name holds an underscore.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    Object(Arc<str>),
    Word(&'static str),
}

/// Identifies a series of `secret_reads_total`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ReadsKey {
    subject: Subject,
    relation: Relation,
}

/// Identifies a series of `secret_mounts`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct MountsKey {
    subject: Subject,
    state: MountState,
}

impl Fold for ReadsKey {
    fn folded(&self) -> Self {
        Self { subject: Subject::Folded, ..self.clone() }
    }
}

impl Fold for MountsKey {
    fn folded(&self) -> Self {
        Self { subject: Subject::Folded, ..self.clone() }
    }
}

/// The opens, and what of each row they hold already.
#[derive(Debug)]
pub(super) struct SecretTotals {
    pub(super) reads: Series<ReadsKey>,
    rows: HashMap<ReadIdentity, Counted, foldhash::fast::RandomState>,
    /// As of the last look: the core hands over the same value while nothing changes.
    seen: Arc<SecretsSnapshot>,
    round: u64,
}

#[derive(Debug, Default)]
struct Counted {
    opens: u64,
    round: u64,
}

impl SecretTotals {
    pub(super) fn new(series_max: usize) -> Self {
        Self {
            reads: Series::new(series_max),
            rows: HashMap::default(),
            seen: Arc::default(),
            round: 0,
        }
    }

    /// Adds what is new.
    pub(super) fn observe(&mut self, secrets: &Arc<SecretsSnapshot>) {
        if Arc::ptr_eq(&self.seen, secrets) {
            return;
        }
        self.round += 1;
        for read in secrets.reads.iter().filter(|read| is_secret(&read.source)) {
            let counted = self.rows.entry(read.identity()).or_default();
            let opens = read.counts.opens;
            // Fewer than before: the row was forgotten in between, and began anew.
            let added = opens.checked_sub(counted.opens).unwrap_or(opens);
            *counted = Counted { opens, round: self.round };
            if added > 0 {
                self.reads.add(ReadsKey::of(read), added);
            }
        }
        let round = self.round;
        self.rows.retain(|_, counted| counted.round == round);
        self.seen = Arc::clone(secrets);
    }

    pub(super) fn samples(&self) -> impl Iterator<Item = (Labels, u64)> {
        self.reads.iter().map(|(key, opens)| {
            let mut labels = key.subject.labels();
            labels.push(("reader", word(&key.relation)));
            (labels, opens)
        })
    }
}

/// Pods on this node by what they mount and whether it is read.
pub(super) fn mounts(secrets: &SecretsSnapshot, series_max: usize) -> Series<MountsKey> {
    let mut series = Series::new(series_max);
    for mount in secrets.mounts.iter().filter(|mount| is_secret(&mount.source)) {
        series.add(MountsKey::of(mount), mount.pods);
    }
    series
}

pub(super) fn mount_samples(series: &Series<MountsKey>) -> impl Iterator<Item = (Labels, u64)> {
    series.iter().map(|(key, pods)| {
        let mut labels = key.subject.labels();
        labels.push(("state", word(&key.state)));
        (labels, pods)
    })
}

impl ReadsKey {
    fn of(read: &SecretRead) -> Self {
        Self { subject: Subject::of(&read.owner, &read.source), relation: read.relation }
    }
}

impl MountsKey {
    fn of(mount: &SecretMount) -> Self {
        Self { subject: Subject::of(&mount.owner, &mount.source), state: mount.state }
    }
}

impl Subject {
    fn of(owner: &SecretOwner, source: &SecretSource) -> Self {
        let secret = match source {
            SecretSource::Secret { name } => Name::Object(Arc::clone(name)),
            SecretSource::ServiceAccountToken { .. } => Name::Word("service_account_token"),
            SecretSource::Csi { .. } => Name::Word("csi_volume"),
            SecretSource::NodeFile { .. } => Name::Word("node_file"),
            SecretSource::ConfigMap { .. }
            | SecretSource::DownwardApi
            | SecretSource::ClusterTrustBundle { .. }
            | SecretSource::Unknown { .. } => Name::Word("unknown_volume"),
        };
        Self::Named { owner: owner.clone(), secret }
    }

    fn labels(&self) -> Labels {
        let [namespace, workload, secret] = match self {
            Self::Named { owner, secret } => {
                let [namespace, workload] = match owner {
                    SecretOwner::Workload { namespace, workload } => {
                        [namespace.to_string(), workload.name.to_string()]
                    }
                    SecretOwner::Node => [String::new(), "node".to_owned()],
                    SecretOwner::Unknown => [String::new(), "unknown".to_owned()],
                };
                let secret = match secret {
                    Name::Object(name) => name.to_string(),
                    Name::Word(word) => (*word).to_owned(),
                };
                [namespace, workload, secret]
            }
            Self::Folded => [OTHER; 3].map(str::to_owned),
        };
        vec![("subject_namespace", namespace), ("subject_workload", workload), ("secret", secret)]
    }
}
