//! Policy sets: immutable values that many hold at once.
//!
//! In: compiled policies. Out: the policies that may select a pod, tier by tier. The order in which
//! anything was added never shows.

use std::sync::Arc;

use foldhash::HashMap;

use super::compiled::CompiledPolicy;
use super::pattern::PatternId;
use super::selection::{Identity, Selection};
use super::selector::Known;
use crate::flow::PodIdentity;
use crate::verdict::Tier;

/// A named collection of policies, judged as one. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PolicySet {
    inner: Arc<Inner>,
}

#[derive(Clone, Debug)]
struct Inner {
    name: Arc<str>,
    default_deny: bool,
    /// In the order of their priorities.
    admin: Box<[Arc<CompiledPolicy>]>,
    baseline: Box<[Arc<CompiledPolicy>]>,
    /// A NetworkPolicy selects pods of its own namespace only: the long way to find all that may.
    by_namespace: HashMap<Arc<str>, Box<[Arc<CompiledPolicy>]>>,
    /// The short way, for pods that were identified. Empty if any NetworkPolicy is not linked.
    by_subject: HashMap<PatternId, Vec<Arc<CompiledPolicy>>>,
    linked: bool,
}

impl PolicySet {
    /// The union of these policies under a name.
    pub fn new(name: Arc<str>, policies: impl IntoIterator<Item = Arc<CompiledPolicy>>) -> Self {
        let mut sorted: Vec<_> = policies.into_iter().collect();
        sorted.sort();
        sorted.dedup();
        let of = |tier: Tier| -> &[Arc<CompiledPolicy>] {
            let start = sorted.partition_point(|policy| policy.tier < tier);
            let end = sorted.partition_point(|policy| policy.tier <= tier);
            sorted.get(start..end).unwrap_or_default()
        };
        let namespaced = of(Tier::NetworkPolicy);
        let by_namespace = namespaced
            .chunk_by(|a, b| a.namespace() == b.namespace())
            .filter_map(|chunk| Some((chunk.first()?.namespace().clone(), chunk.into())))
            .collect();
        let linked = namespaced.iter().all(|policy| policy.subject.id.is_some());
        let mut by_subject: HashMap<PatternId, Vec<_>> = HashMap::default();
        let subjects = namespaced.iter().filter_map(|policy| Some((policy.subject.id?, policy)));
        for (id, policy) in subjects.filter(|_| linked) {
            by_subject.entry(id).or_default().push(policy.clone());
        }
        let (admin, baseline) = (of(Tier::Admin).into(), of(Tier::Baseline).into());
        let inner =
            Inner { name, default_deny: false, admin, baseline, by_namespace, by_subject, linked };
        Self { inner: Arc::new(inner) }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.inner.name
    }

    /// How many policies it holds; the one of [`Self::with_default_deny_everywhere`] is not
    /// counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.policies().count()
    }

    /// Whether it holds no policy.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.policies().next().is_none()
    }

    /// Its policies, tier by tier, each in the order they are asked; the namespaces in no order.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<CompiledPolicy>> {
        let namespaced = self.inner.by_namespace.values().flatten();
        self.inner.admin.iter().chain(namespaced).chain(&self.inner.baseline)
    }

    /// The same policies under another name.
    #[must_use]
    pub fn renamed(&self, name: Arc<str>) -> Self {
        let mut renamed = self.clone();
        Arc::make_mut(&mut renamed.inner).name = name;
        renamed
    }

    /// The same set where every pod of every namespace is also isolated in both directions, as by
    /// one NetworkPolicy without rules that is called "default-deny".
    #[must_use]
    pub fn with_default_deny_everywhere(mut self) -> Self {
        Arc::make_mut(&mut self.inner).default_deny = true;
        self
    }

    pub(crate) fn denies_by_default(&self) -> bool {
        self.inner.default_deny
    }

    pub(crate) fn admin(&self) -> &[Arc<CompiledPolicy>] {
        &self.inner.admin
    }

    pub(crate) fn baseline(&self) -> &[Arc<CompiledPolicy>] {
        &self.inner.baseline
    }

    /// Calls for each NetworkPolicy that selects the pod, in no order, until it is told to stop.
    pub(crate) fn for_each_selecting<'a>(
        &'a self,
        selection: &Selection,
        identity: Option<&Identity>,
        pod: &PodIdentity,
        mut goes_on: impl FnMut(&'a CompiledPolicy) -> bool,
    ) {
        let inner = &*self.inner;
        if let Some(identity) = identity.filter(|_| inner.linked && !pod.host_network) {
            let selecting = identity.subjects().iter().filter_map(|id| inner.by_subject.get(id));
            for policy in selecting.flatten() {
                if !goes_on(policy) {
                    return;
                }
            }
            return;
        }
        let own = inner.by_namespace.get(&pod.namespace).map_or(&[][..], |policies| policies);
        for policy in own {
            if policy.selects_known(selection, identity, pod) == Known::Yes && !goes_on(policy) {
                return;
            }
        }
    }
}
