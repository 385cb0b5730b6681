//! Policy sets and the namespaces they are asked about: immutable values that many hold at once.
//!
//! In: compiled policies, namespaces with their labels. Out: the policies that may select a pod.
//! The order in which anything was added never shows.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::rule::CompiledPolicy;
use super::selector::{Known, Labels, NAMESPACE_NAME_KEY, Selector};

/// A named collection of policies, judged as one. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PolicySet {
    inner: Arc<Inner>,
}

#[derive(Clone, Debug)]
struct Inner {
    name: Arc<str>,
    default_deny: bool,
    count: usize,
    /// A policy selects pods of its own namespace only, so the namespace finds all that may apply.
    by_namespace: HashMap<Arc<str>, Box<[Arc<CompiledPolicy>]>, foldhash::fast::RandomState>,
}

/// Every namespace's labels, `kubernetes.io/metadata.name` always among them. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Namespaces {
    labels: Arc<HashMap<Arc<str>, Arc<Labels>, foldhash::fast::RandomState>>,
}

impl PolicySet {
    /// The union of these policies under a name.
    pub fn new(name: Arc<str>, policies: impl IntoIterator<Item = Arc<CompiledPolicy>>) -> Self {
        let mut sorted: Vec<_> = policies.into_iter().collect();
        sorted.sort();
        sorted.dedup();
        let by_namespace = sorted
            .chunk_by(|a, b| a.namespace() == b.namespace())
            .filter_map(|chunk| Some((chunk.first()?.namespace().clone(), chunk.into())))
            .collect();
        let count = sorted.len();
        Self { inner: Arc::new(Inner { name, default_deny: false, count, by_namespace }) }
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
        self.inner.count
    }

    /// Whether it holds no policy.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inner.count == 0
    }

    /// Its policies in their order within namespaces, the namespaces in no order.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<CompiledPolicy>> {
        self.inner.by_namespace.values().flatten()
    }

    /// The same set where every pod of every namespace is also isolated in both directions, as by
    /// one policy without rules that is called "default-deny".
    #[must_use]
    pub fn with_default_deny_everywhere(mut self) -> Self {
        Arc::make_mut(&mut self.inner).default_deny = true;
        self
    }

    pub(super) fn denies_by_default(&self) -> bool {
        self.inner.default_deny
    }

    pub(super) fn in_namespace(&self, namespace: &str) -> &[Arc<CompiledPolicy>] {
        self.inner.by_namespace.get(namespace).map_or(&[], |policies| policies)
    }
}

impl Namespaces {
    /// The namespace now has these labels. Its name label is added, and wins over a given one as it
    /// does in the API server.
    pub fn insert(&mut self, name: &str, labels: &BTreeMap<String, String>) {
        let name: Arc<str> = name.into();
        let mut sorted: BTreeMap<&str, &str> =
            labels.iter().map(|(key, value)| (&**key, &**value)).collect();
        sorted.insert(NAMESPACE_NAME_KEY, &name);
        let labels = sorted.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        Arc::make_mut(&mut self.labels).insert(name, labels);
    }

    /// The namespace is gone.
    pub fn remove(&mut self, name: &str) {
        if self.labels.contains_key(name) {
            Arc::make_mut(&mut self.labels).remove(name);
        }
    }

    /// Its labels, sorted by key; none if it is not known.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Labels> {
        self.labels.get(name).map(|labels| &**labels)
    }

    /// Of a namespace that was never seen its name is known nevertheless.
    pub(super) fn matches(&self, name: &str, selector: &Selector) -> Known {
        match self.get(name) {
            Some(labels) if selector.matches(labels) => Known::Yes,
            Some(_) => Known::No,
            None => selector.matches_name_only(name),
        }
    }
}
