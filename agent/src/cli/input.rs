//! Manifests, candidates and profiles as the command line gives them.
//!
//! In: paths and names. Out: the declared cluster with its policy sets, with every problem told on
//! stderr. It decides nothing: what a problem costs is up to the command.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use clap::ValueEnum;
use parapet_core::engine::{self, DEFAULT_DENY, ENFORCED, PolicySets};
use parapet_core::flow::Timestamp;
use parapet_core::identity::Index;
use parapet_core::object::{Kind, ObjectRef};
use parapet_core::policy::PolicySet;
use parapet_core::verdict::Profile;

use crate::manifests::{self, Loaded, Problem};
use crate::runtime::CandidateSource;

/// `NAME=PATH`: a named set of policies that are not applied yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The policy set's name.
    pub name: Arc<str>,
    /// Its files: the path, or several with the same name.
    pub path: PathBuf,
}

/// `NAME=[KIND/][NAMESPACE/]POLICY`: an enforced policy that a candidate would delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// The policy set's name.
    pub name: Arc<str>,
    /// The policy.
    pub policy: ObjectRef,
}

/// The arguments that say which policies are judged by.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct PolicyArgs {
    /// Policies that are not applied yet, judged together with the enforced ones; one of the same
    /// kind, namespace and name takes the enforced one's place
    #[arg(
        long = "candidate",
        value_name = "NAME=PATH",
        env = "PARAPET_CANDIDATE",
        value_delimiter = ','
    )]
    pub candidates: Vec<Candidate>,
    /// An enforced policy that the candidate NAME would delete: NAMESPACE/NAME of a NetworkPolicy,
    /// or KIND/NAME of a cluster-scoped one
    #[arg(
        long = "remove",
        value_name = "NAME=POLICY",
        env = "PARAPET_REMOVE",
        value_delimiter = ','
    )]
    pub removals: Vec<Removal>,
    /// Whose reading of the API decides where implementations differ
    #[arg(long, value_enum, default_value_t, env = "PARAPET_PROFILE")]
    pub profile: ProfileName,
}

/// [`Profile`] on the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ProfileName {
    /// Decide only where the known implementations agree
    #[default]
    Common,
    /// The letter of the API
    Spec,
    /// Cilium, with its defaults
    Cilium,
    /// Calico, with its defaults
    Calico,
    /// The network policy agent of the Amazon VPC CNI
    Aws,
    /// Antrea, with its defaults
    Antrea,
    /// OVN-Kubernetes, with its defaults
    OvnKubernetes,
    /// kube-network-policies, the reference of SIG Network
    KubeNetworkPolicies,
}

/// The cluster as declared, and all policy sets.
#[derive(Debug, Default)]
pub struct Declared {
    /// Who is who.
    pub index: Index,
    /// `enforced`, `default-deny`, then the candidates in the order of their names.
    pub sets: PolicySets,
    /// What was read for it: the manifests first, then each candidate. Empty if it was read
    /// elsewhere.
    pub sources: Vec<Source>,
    objects: usize,
}

/// What became of the files of the manifests or of one candidate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// The candidate's name; none for the manifests.
    pub policy_set: Option<Arc<str>>,
    /// Whether there are any: a candidate may do nothing but remove.
    pub has_paths: bool,
    /// Network policies that could be read, of the kinds that are judged.
    pub policies: usize,
    /// What could not be read.
    pub problems: Vec<Problem>,
    /// Kinds that were left out, as "Secret (v1)", and how many there were.
    pub skipped: BTreeMap<String, u64>,
}

/// Names that mean something else already.
const RESERVED: [&str; 2] = [ENFORCED, DEFAULT_DENY];

impl From<ProfileName> for Profile {
    fn from(name: ProfileName) -> Self {
        match name {
            ProfileName::Common => Self::Common,
            ProfileName::Spec => Self::Spec,
            ProfileName::Cilium => Self::Cilium,
            ProfileName::Calico => Self::Calico,
            ProfileName::Aws => Self::Aws,
            ProfileName::Antrea => Self::Antrea,
            ProfileName::OvnKubernetes => Self::OvnKubernetes,
            ProfileName::KubeNetworkPolicies => Self::KubeNetworkPolicies,
        }
    }
}

impl FromStr for Candidate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, path) = named(text, "PATH")?;
        Ok(Self { name, path: path.into() })
    }
}

impl FromStr for Removal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, policy) = named(text, "POLICY")?;
        let parts: Vec<&str> = policy.split('/').collect();
        let problem = || {
            format!(
                "{policy:?}: write NAMESPACE/NAME of a NetworkPolicy, or KIND/NAME of a \
                 ClusterNetworkPolicy, AdminNetworkPolicy or BaselineAdminNetworkPolicy"
            )
        };
        let (kind, namespace, policy) = match *parts {
            [kind, namespace, name] if policy_kind(kind) == Some(Kind::NetworkPolicy) => {
                (Kind::NetworkPolicy, namespace, name)
            }
            [first, name] => match policy_kind(first) {
                Some(Kind::NetworkPolicy) => return Err(problem()),
                Some(kind) => (kind, "", name),
                None => (Kind::NetworkPolicy, first, name),
            },
            _ => return Err(problem()),
        };
        if policy.is_empty() || kind == Kind::NetworkPolicy && namespace.is_empty() {
            return Err(problem());
        }
        let policy = ObjectRef {
            kind,
            api_kind: String::new(),
            namespace: namespace.to_owned(),
            name: policy.to_owned(),
            uid: None,
        };
        Ok(Self { name, policy })
    }
}

fn named<'a>(text: &'a str, what: &str) -> Result<(Arc<str>, &'a str), String> {
    let (name, rest) = text
        .split_once('=')
        .filter(|(name, rest)| !name.is_empty() && !rest.is_empty())
        .ok_or_else(|| format!("write it as NAME={what}"))?;
    if RESERVED.contains(&name) {
        return Err(format!("{name:?} is the name of a policy set that is always there"));
    }
    Ok((name.into(), rest))
}

fn policy_kind(text: &str) -> Option<Kind> {
    match text.to_ascii_lowercase().as_str() {
        "networkpolicy" | "netpol" => Some(Kind::NetworkPolicy),
        "clusternetworkpolicy" | "cnp" => Some(Kind::ClusterNetworkPolicy),
        "adminnetworkpolicy" | "anp" => Some(Kind::AdminNetworkPolicy),
        "baselineadminnetworkpolicy" | "banp" => Some(Kind::BaselineAdminNetworkPolicy),
        _ => None,
    }
}

impl PolicyArgs {
    /// Candidates by name, each with all of its paths and removals, in the order of first mention.
    #[must_use]
    pub fn sources(&self) -> Vec<CandidateSource> {
        let mut sources: Vec<CandidateSource> = Vec::new();
        let names = self.candidates.iter().map(|each| &each.name);
        for name in names.chain(self.removals.iter().map(|each| &each.name)) {
            if sources.iter().any(|known| known.name == *name) {
                continue;
            }
            let paths = self.candidates.iter().filter(|each| each.name == *name);
            let removed = self.removals.iter().filter(|each| each.name == *name);
            sources.push(CandidateSource {
                name: name.clone(),
                paths: paths.map(|each| each.path.clone()).collect(),
                removed: removed.map(|each| each.policy.clone()).collect(),
            });
        }
        sources
    }
}

impl Declared {
    /// Reads everything, and names every problem.
    #[must_use]
    pub fn load(manifests: &[PathBuf], candidates: &[CandidateSource]) -> Self {
        Self::with(&tell(manifests::load(manifests)), candidates)
    }

    /// What a cluster's API server listed, with candidates from files; names every problem.
    #[must_use]
    pub fn listed(cluster: Loaded, candidates: &[CandidateSource]) -> Self {
        Self::with(&tell(cluster), candidates)
    }

    fn with(cluster: &Loaded, candidates: &[CandidateSource]) -> Self {
        let mut declared = Self::of(cluster);
        declared.sources.push(Source::of(None, true, cluster));
        for CandidateSource { name, paths, removed } in candidates {
            let loaded = tell(manifests::load(paths));
            declared.sources.push(Source::of(Some(name.clone()), !paths.is_empty(), &loaded));
            let candidate = engine::Candidate { objects: loaded.objects, removed: removed.clone() };
            declared.sets.candidate(name, &candidate, declared.index.selection_mut());
        }
        declared.sets.build();
        for rejected in &declared.sets.rejections() {
            let rejection = &rejected.rejection;
            let (set, object) = (&rejected.policy_set, &rejection.object);
            tracing::error!("candidate {set}: {object}: {}", rejection.problem);
        }
        for noticed in declared.sets.notices().iter().filter(|each| &*each.policy_set != ENFORCED) {
            let (set, notice) = (&noticed.policy_set, &noticed.rejection);
            tracing::warn!("candidate {set}: {}: {}", notice.object, notice.problem);
        }
        declared
    }

    /// Objects that were read already.
    #[must_use]
    pub fn of(loaded: &Loaded) -> Self {
        let mut declared = Self { objects: loaded.objects.len(), ..Self::default() };
        for change in loaded.changes() {
            declared.sets.apply(&change, declared.index.selection_mut());
            declared.index.apply(&change, Timestamp(0));
        }
        declared.sets.build();
        declared
    }

    /// What could not be read, or would be refused: it is not judged.
    #[must_use]
    pub fn problems(&self) -> usize {
        let unread: usize = self.sources.iter().map(|source| source.problems.len()).sum();
        unread + self.sets.rejections().len()
    }

    /// Whether nothing was declared at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.objects == 0
    }

    /// The set of this name.
    ///
    /// # Errors
    /// There is none; the names there are.
    pub fn set(&self, name: &str) -> anyhow::Result<&PolicySet> {
        let found = self.sets.sets().iter().find(|set| **set.name() == *name);
        found.ok_or_else(|| {
            let known: Vec<&str> = self.sets.names().iter().map(|name| &**name).collect();
            anyhow::anyhow!("{name}: there is no such policy set; known: {}", known.join(", "))
        })
    }
}

impl Source {
    fn of(policy_set: Option<Arc<str>>, has_paths: bool, loaded: &Loaded) -> Self {
        Self {
            policy_set,
            has_paths,
            policies: loaded.objects.iter().filter(|object| object.kind().is_policy()).count(),
            problems: loaded.problems.clone(),
            skipped: loaded.skipped.clone(),
        }
    }
}

/// Where the objects are from, for messages.
pub(super) fn place(manifests: &[PathBuf]) -> &'static str {
    if manifests.is_empty() { "the cluster" } else { "--manifests" }
}

/// Tells every problem of what was read.
fn tell(loaded: Loaded) -> Loaded {
    for problem in &loaded.problems {
        tracing::error!("{problem}");
    }
    for notice in &loaded.notices {
        tracing::warn!("{notice}");
    }
    if !loaded.skipped.is_empty() {
        let kinds = loaded.skipped.iter().map(|(kind, count)| format!("{count} of {kind}"));
        tracing::info!("not needed and left out: {}", kinds.collect::<Vec<_>>().join(", "));
    }
    loaded
}
