//! What every selector selects: resolved when objects change, so that judging a flow only looks up.
//!
//! In: namespaces and nodes with their labels, policies to link, pods to identify. Out: for a pod
//! the numbers of all patterns that hold of it. What was never identified or linked is still judged
//! right, the long way: this table saves time and decides nothing. A change touches what it is
//! about: a relabelled namespace its own pods, a new pattern the pods of its namespaces.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::{HashMap, HashSet};

use super::pattern::{Linked, NamespaceChoice, Pattern, PatternId, Role};
use super::selector::{Known, Labels, NAMESPACE_NAME_KEY, Selector};
use crate::flow::{End, PodIdentity};

/// Below this many patterns and identities together nothing is swept.
const SWEEP_MIN: usize = 1_024;

/// Namespaces, nodes, and what the linked patterns hold of.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    namespaces: HashMap<Arc<str>, Arc<Labels>>,
    nodes: HashMap<Arc<str>, Arc<Labels>>,
    patterns: Patterns,
    identities: HashMap<IdentityKey, Identity>,
    identities_of: HashMap<Arc<str>, Vec<IdentityKey>>,
    /// Patterns and identities after the last sweep.
    swept: usize,
}

/// All linked patterns, by what must be true of a namespace first.
#[derive(Clone, Debug, Default)]
struct Patterns {
    all: HashMap<Arc<Pattern>, PatternId>,
    next_id: u32,
    of_one_namespace: HashMap<Arc<str>, Bucket>,
    of_labelled_namespaces: HashMap<Selector, Bucket>,
}

/// Patterns of the same namespaces, by a label every match must have.
#[derive(Clone, Debug, Default)]
struct Bucket {
    anchored: HashMap<Arc<str>, ByValue>,
    others: Vec<Linked>,
}

/// Patterns that want one of these values of a key.
type ByValue = HashMap<Arc<str>, Vec<Linked>>;

/// Where a namespace's name and a pod's labels lie in memory. An [`Identity`] holds both, so that
/// nothing else can lie there while the key is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct IdentityKey {
    namespace: usize,
    labels: usize,
}

/// One namespace and set of labels, and every linked pattern that holds of it.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    namespace: Arc<str>,
    labels: Arc<Labels>,
    /// First the subjects, then the peers, each in ascending order.
    holds: Box<[PatternId]>,
    subjects: usize,
}

impl Selection {
    /// The namespace now has these labels. Its name label is added, and wins over a given one as it
    /// does in the API server. Whether it had others, or was not there.
    pub fn insert_namespace(&mut self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        let mut labels: BTreeMap<&str, &str> = as_str(labels).collect();
        labels.insert(NAMESPACE_NAME_KEY, name);
        let known = self.namespaces.get(name);
        if known.is_some_and(|known| is_same(known, labels.iter().map(|(k, v)| (*k, *v)))) {
            return false;
        }
        let name: Arc<str> = name.into();
        let labels = sorted(labels.into_iter());
        self.namespaces.insert(name.clone(), labels);
        for key in self.identities_of.get(&name).into_iter().flatten() {
            if let Some(identity) = self.identities.get_mut(key) {
                identity.resolve(&self.namespaces, &self.patterns);
            }
        }
        true
    }

    /// The namespace is gone. Whether it was there.
    pub fn remove_namespace(&mut self, name: &str) -> bool {
        for key in self.identities_of.remove(name).into_iter().flatten() {
            self.identities.remove(&key);
        }
        self.namespaces.remove(name).is_some()
    }

    /// Every namespace that was seen, in no order.
    pub fn namespaces(&self) -> impl ExactSizeIterator<Item = &Arc<str>> {
        self.namespaces.keys()
    }

    /// The node now has these labels. Whether it had others.
    pub fn insert_node(&mut self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        if self.nodes.get(name).is_some_and(|known| is_same(known, as_str(labels))) {
            return false;
        }
        self.nodes.insert(name.into(), sorted(as_str(labels)));
        true
    }

    /// The node is gone. Whether it was there.
    pub fn remove_node(&mut self, name: &str) -> bool {
        self.nodes.remove(name).is_some()
    }

    /// The pattern with its number here, which it gets if it has none.
    pub(crate) fn link_pattern(&mut self, pattern: &Arc<Pattern>) -> Linked {
        match self.patterns.all.get_key_value(pattern) {
            Some((pattern, id)) => Linked { id: Some(*id), pattern: pattern.clone() },
            None => self.add(pattern),
        }
    }

    /// Looks up once, and for all later flows, what holds of this pod. Nothing if it is known
    /// already, or if its namespace was never seen.
    pub fn identify(&mut self, pod: &PodIdentity) {
        let key = IdentityKey::of(&pod.namespace, &pod.labels);
        if self.identities.contains_key(&key) || !self.namespaces.contains_key(&pod.namespace) {
            return;
        }
        let mut identity = Identity {
            namespace: pod.namespace.clone(),
            labels: pod.labels.clone(),
            holds: [].into(),
            subjects: 0,
        };
        identity.resolve(&self.namespaces, &self.patterns);
        self.identities.insert(key, identity);
        self.identities_of.entry(pod.namespace.clone()).or_default().push(key);
    }

    /// The same for whoever may be at this end: a Service's backends, too.
    pub fn identify_end(&mut self, end: &End) {
        end.pods().for_each(|pod| self.identify(pod));
    }

    /// Whether so much was added since the last sweep that it is time for one.
    #[must_use]
    pub fn wants_sweep(&self) -> bool {
        self.len() > SWEEP_MIN.max(self.swept.saturating_mul(2))
    }

    /// Forgets identities that no pod has and patterns that no policy has.
    pub fn sweep(&mut self) {
        self.identities.retain(|_, identity| Arc::strong_count(&identity.labels) > 1);
        let identities = &self.identities;
        self.identities_of.retain(|_, keys| {
            keys.retain(|key| identities.contains_key(key));
            !keys.is_empty()
        });
        let dead = self.patterns.take_dead();
        if !dead.is_empty() {
            for identity in self.identities.values_mut() {
                identity.forget(&dead);
            }
        }
        self.swept = self.len();
    }

    /// Identities and patterns that are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.identities.len() + self.patterns.all.len()
    }

    /// Whether nothing was identified or linked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the namespace was seen.
    #[must_use]
    pub fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.contains_key(name)
    }

    /// A namespace's labels, sorted by key; none if it was never seen.
    #[must_use]
    pub fn namespace_labels(&self, name: &str) -> Option<&Labels> {
        self.namespaces.get(name).map(|labels| &**labels)
    }

    /// The labels of every node that was seen, in no order.
    pub(crate) fn nodes_labels(&self) -> impl ExactSizeIterator<Item = &Labels> {
        self.nodes.values().map(|labels| &**labels)
    }

    /// A node's labels, sorted by key; none if it was never seen.
    pub(crate) fn node_labels(&self, name: &str) -> Option<&Labels> {
        self.nodes.get(name).map(|labels| &**labels)
    }

    pub(crate) fn identity(&self, pod: &PodIdentity) -> Option<&Identity> {
        self.identities.get(&IdentityKey::of(&pod.namespace, &pod.labels))
    }

    /// Whether the pattern holds of the pod, the long way: of its namespace, of its labels.
    pub(crate) fn holds(&self, pattern: &Pattern, pod: &PodIdentity) -> (Known, bool) {
        let namespace = self.namespace_labels(&pod.namespace);
        (pattern.holds_namespace(&pod.namespace, namespace), pattern.pods.matches(&pod.labels))
    }

    fn add(&mut self, pattern: &Arc<Pattern>) -> Linked {
        let linked = self.patterns.add(pattern);
        let keys: Vec<&IdentityKey> = match &pattern.namespaces {
            NamespaceChoice::Only(name) => {
                self.identities_of.get(name).into_iter().flatten().collect()
            }
            NamespaceChoice::Labelled(selector) => {
                let held = |name: &str| {
                    self.namespaces.get(name).is_some_and(|labels| selector.matches(labels))
                };
                let of = self.identities_of.iter().filter(|(name, _)| held(name));
                of.flat_map(|(_, keys)| keys).collect()
            }
        };
        for key in keys {
            if let Some(identity) = self.identities.get_mut(key)
                && pattern.pods.matches(&identity.labels)
            {
                identity.add([&linked]);
            }
        }
        linked
    }
}

impl Patterns {
    fn add(&mut self, pattern: &Arc<Pattern>) -> Linked {
        let id = PatternId(self.next_id);
        self.next_id += 1;
        self.insert(pattern.clone(), id);
        Linked { id: Some(id), pattern: pattern.clone() }
    }

    fn insert(&mut self, pattern: Arc<Pattern>, id: PatternId) {
        let bucket = match &pattern.namespaces {
            NamespaceChoice::Only(name) => self.of_one_namespace.entry(name.clone()).or_default(),
            NamespaceChoice::Labelled(selector) => {
                self.of_labelled_namespaces.entry(selector.clone()).or_default()
            }
        };
        bucket.insert(&Linked { id: Some(id), pattern: pattern.clone() });
        self.all.insert(pattern, id);
    }

    /// Takes out every pattern that only this table holds.
    fn take_dead(&mut self) -> HashSet<PatternId> {
        self.of_one_namespace.clear();
        self.of_labelled_namespaces.clear();
        let mut dead = HashSet::default();
        for (pattern, id) in std::mem::take(&mut self.all) {
            if Arc::strong_count(&pattern) > 1 {
                self.insert(pattern, id);
            } else {
                dead.insert(id);
            }
        }
        dead
    }
}

impl Bucket {
    fn insert(&mut self, linked: &Linked) {
        let Some((key, values)) = linked.pattern.pods.anchor() else {
            return self.others.push(linked.clone());
        };
        let by_value = self.anchored.entry(key.clone()).or_default();
        for value in values {
            by_value.entry(value.clone()).or_default().push(linked.clone());
        }
    }

    /// Those that hold of these labels, each once: a key has one value.
    fn holding<'a>(&'a self, labels: &'a Labels) -> impl Iterator<Item = &'a Linked> {
        let anchored = labels.iter().filter_map(|(key, value)| self.anchored.get(key)?.get(value));
        let candidates = anchored.flatten().chain(&self.others);
        candidates.filter(|linked| linked.pattern.pods.matches(labels))
    }
}

impl IdentityKey {
    fn of(namespace: &Arc<str>, labels: &Arc<Labels>) -> Self {
        Self { namespace: namespace.as_ptr().addr(), labels: labels.as_ptr().addr() }
    }
}

impl Identity {
    /// Every subject pattern that holds.
    pub(crate) fn subjects(&self) -> &[PatternId] {
        self.holds.get(..self.subjects).unwrap_or_default()
    }

    /// Whether this subject pattern holds.
    pub(crate) fn is_subject(&self, id: PatternId) -> bool {
        self.subjects().binary_search(&id).is_ok()
    }

    /// Whether this peer pattern holds.
    pub(crate) fn is_peer(&self, id: PatternId) -> bool {
        self.peers().binary_search(&id).is_ok()
    }

    fn peers(&self) -> &[PatternId] {
        self.holds.get(self.subjects..).unwrap_or_default()
    }

    fn resolve(&mut self, namespaces: &HashMap<Arc<str>, Arc<Labels>>, patterns: &Patterns) {
        (self.holds, self.subjects) = ([].into(), 0);
        let labels = self.labels.clone();
        let own = patterns.of_one_namespace.get(&self.namespace);
        let labelled = namespaces.get(&self.namespace).into_iter().flat_map(|namespace| {
            let holding = |(selector, _): &(&Selector, &Bucket)| selector.matches(namespace);
            patterns.of_labelled_namespaces.iter().filter(holding).map(|(_, bucket)| bucket)
        });
        self.add(own.into_iter().chain(labelled).flat_map(|bucket| bucket.holding(&labels)));
    }

    fn add<'a>(&mut self, more: impl IntoIterator<Item = &'a Linked>) {
        let (mut subjects, mut peers) = (self.subjects().to_vec(), self.peers().to_vec());
        for Linked { id, pattern } in more {
            match pattern.role {
                Role::Subject => subjects.extend(*id),
                Role::Peer => peers.extend(*id),
            }
        }
        self.set(subjects, peers);
    }

    fn forget(&mut self, dead: &HashSet<PatternId>) {
        let left =
            |ids: &[PatternId]| ids.iter().filter(|id| !dead.contains(id)).copied().collect();
        let (subjects, peers) = (left(self.subjects()), left(self.peers()));
        self.set(subjects, peers);
    }

    fn set(&mut self, mut subjects: Vec<PatternId>, mut peers: Vec<PatternId>) {
        subjects.sort_unstable();
        peers.sort_unstable();
        self.subjects = subjects.len();
        subjects.extend(peers);
        self.holds = subjects.into();
    }
}

fn is_same<'a>(known: &'a Labels, labels: impl Iterator<Item = (&'a str, &'a str)>) -> bool {
    known.iter().map(|(key, value)| (&**key, &**value)).eq(labels)
}

fn as_str(labels: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    labels.iter().map(|(key, value)| (&**key, &**value))
}

fn sorted<'a>(labels: impl Iterator<Item = (&'a str, &'a str)>) -> Arc<Labels> {
    labels.map(|(key, value)| (key.into(), value.into())).collect()
}
