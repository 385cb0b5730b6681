//! Parts of what is known of secrets, for who asked for less.
//!
//! In: a [`SecretsReport`] and a [`Selection`]. Out: another [`SecretsReport`] with whole rows of
//! the first one in their order. It changes no row.

use parapet_core::secrets::{MountState, Reader, Relation, SecretOwner, SecretSource};

use super::secrets::{MountRow, ReadRow, SecretsReport, TokenRow};

/// What a team wants to know of its secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub enum Finding {
    /// All of those below but `unobservable`
    Findings,
    /// Read by a process of the node, another pod, a container that does not mount it, or nobody
    /// knows whom
    ForeignReads,
    /// Mounted, and read by none of its containers while it was watched
    NeverRead,
    /// Containers that read last what a rotation has replaced since
    Stale,
    /// Tokens of service accounts that nobody reads
    TokenCandidates,
    /// Nothing would be seen: variables, and what only pulls images
    Unobservable,
}

/// Which secrets, and what of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Secrets of its pods, and what its pods read.
    pub namespace: Option<String>,
    /// One Secret object, or files of the node.
    pub secret: Option<SecretName>,
    /// Nothing else than these; empty for everything.
    pub only: Vec<Finding>,
}

/// How a secret is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretName {
    /// A Secret object: `db-creds`, or `shop/db-creds`.
    Object {
        /// Any if none.
        namespace: Option<String>,
        /// `metadata.name`.
        name: String,
    },
    /// A file or folder of the node, with everything in it: `/etc/kubernetes/pki`.
    Path(String),
}

impl std::str::FromStr for SecretName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with('/') {
            return Ok(Self::Path(text.trim_end_matches('/').to_owned()));
        }
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace.to_owned()), name),
            None => (None, text),
        };
        if name.is_empty() || name.contains('/') || namespace.as_deref() == Some("") {
            return Err("write a Secret as name or namespace/name, or a file of the node by its \
                        whole path"
                .to_owned());
        }
        Ok(Self::Object { namespace, name: name.to_owned() })
    }
}

impl SecretName {
    fn names(&self, owner: &SecretOwner, source: &SecretSource, key: &str) -> bool {
        match (self, source) {
            (Self::Object { namespace, name }, SecretSource::Secret { name: known }) => {
                let same = namespace.as_deref().is_none_or(|wanted| Some(wanted) == of(owner));
                same && **known == **name
            }
            (Self::Path(path), SecretSource::NodeFile { path: known }) => {
                let is_in = |known: &str| {
                    let below = known.strip_prefix(path.as_str());
                    below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
                };
                // The key is the whole path of a file in a folder that is watched.
                is_in(known) || is_in(key)
            }
            _ => false,
        }
    }
}

impl Selection {
    /// Whether this kind of finding is wanted.
    #[must_use]
    pub fn wants(&self, finding: Finding) -> bool {
        let all = self.only.contains(&Finding::Findings) && finding != Finding::Unobservable;
        self.only.is_empty() || all || self.only.contains(&finding)
    }

    /// The rows that are wanted.
    #[must_use]
    pub fn of(&self, secrets: &SecretsReport) -> SecretsReport {
        let named = |owner: &SecretOwner, source: &SecretSource, key: &str| {
            self.secret.as_ref().is_none_or(|secret| secret.names(owner, source, key))
        };
        let read_there = |row: &&ReadRow| {
            let wanted = self.namespace.as_deref();
            let by_pod_of = wanted.is_some() && reader_namespace(&row.reader) == wanted;
            named(&row.owner, &row.source, &row.key) && (self.is_in(&row.owner) || by_pod_of)
        };
        let mounts = secrets.mounts.iter();
        let mounts =
            mounts.filter(|row| named(&row.owner, &row.source, "") && self.is_in(&row.owner));
        let reads = secrets.reads.iter().filter(read_there);
        let tokens = secrets.tokens.iter().filter(|row| self.is_in(&row.owner));
        SecretsReport {
            mounts: mounts.filter(|row| self.wants_mount(row)).cloned().collect(),
            reads: reads.filter(|row| self.wants_read(row)).cloned().collect(),
            tokens: tokens
                .filter(|row| self.secret.is_none() && self.wants_token(row))
                .cloned()
                .collect(),
            unattributed: secrets.unattributed.clone(),
            not_from: secrets.not_from.clone(),
        }
    }

    fn is_in(&self, owner: &SecretOwner) -> bool {
        self.namespace.as_deref().is_none_or(|wanted| Some(wanted) == of(owner))
    }

    fn wants_mount(&self, row: &MountRow) -> bool {
        let never_read = row.state == MountState::NeverRead && is_secret(&row.source);
        self.only.is_empty()
            || never_read && self.wants(Finding::NeverRead)
            || !row.stale.is_empty() && self.wants(Finding::Stale)
            || row.state == MountState::Unobservable && self.wants(Finding::Unobservable)
    }

    fn wants_read(&self, row: &ReadRow) -> bool {
        let foreign = is_foreign(row) && is_secret(&row.source);
        self.only.is_empty() || foreign && self.wants(Finding::ForeignReads)
    }

    fn wants_token(&self, row: &TokenRow) -> bool {
        self.only.is_empty() || row.is_candidate && self.wants(Finding::TokenCandidates)
    }
}

impl SecretsReport {
    /// Without what is no secret, and without reads of those whose work it is.
    #[must_use]
    pub fn without_routine(mut self) -> Self {
        self.mounts.retain(|row| is_secret(&row.source));
        self.reads.retain(|row| is_secret(&row.source) && !is_routine(row));
        self
    }
}

/// The namespace of an owner that has one.
#[must_use]
pub fn of(owner: &SecretOwner) -> Option<&str> {
    match owner {
        SecretOwner::Workload { namespace, .. } => Some(namespace),
        SecretOwner::Node | SecretOwner::Unknown => None,
    }
}

fn reader_namespace(reader: &Reader) -> Option<&str> {
    match reader {
        Reader::Pod { namespace, .. } => Some(namespace),
        Reader::Node { .. } | Reader::Unknown { .. } => None,
    }
}

/// By none of the containers that mount it, nor by those that put it there. Of a file of the node
/// nobody says who ought to read it.
#[must_use]
pub fn is_foreign(row: &ReadRow) -> bool {
    match row.relation {
        Relation::Sibling | Relation::OtherPod | Relation::Node | Relation::Unknown => {
            row.owner != SecretOwner::Node
        }
        Relation::Own | Relation::Kubelet | Relation::Runtime => false,
    }
}

/// The kubelet writes what it mounts and compares it once a minute or so; the runtime sets up the
/// mounts.
#[must_use]
pub fn is_routine(row: &ReadRow) -> bool {
    matches!(row.relation, Relation::Kubelet | Relation::Runtime) && row.owner != SecretOwner::Node
}

/// Whether it is a secret, and not something else that a projected volume holds beside one.
#[must_use]
pub fn is_secret(source: &SecretSource) -> bool {
    match source {
        SecretSource::Secret { .. }
        | SecretSource::ServiceAccountToken { .. }
        | SecretSource::Csi { .. }
        | SecretSource::NodeFile { .. }
        | SecretSource::Unknown { .. } => true,
        SecretSource::ConfigMap { .. }
        | SecretSource::DownwardApi
        | SecretSource::ClusterTrustBundle { .. } => false,
    }
}
