//! What the rules of the lint ask about again and again, looked up once.
//!
//! In: the index and a policy set. Out: pods grouped by what selectors can tell apart, and for
//! every pattern of the set the groups it holds of. It reports nothing.

use std::collections::BTreeMap;

use foldhash::HashMap;

use crate::flow::{Direction, End, Endpoint, PodIdentity, Protocol};
use crate::identity::Index;
use crate::policy::PolicySet;
use crate::policy::Probe;
use crate::policy::compiled::CompiledPolicy;
use crate::policy::pattern::{Linked, NamespaceChoice, Pattern};
use crate::policy::rule::{Peer, Peers, Rule};
use crate::policy::selection::Selection;
use crate::policy::selector::{Known, Labels};
use crate::verdict::{Decision, Profile, Verdict};

/// The cluster and the set.
pub(super) struct World<'a> {
    pub(super) index: &'a Index,
    pub(super) set: &'a PolicySet,
    /// Tier by tier, each in the order they are asked; NetworkPolicies by namespace and name.
    pub(super) policies: Vec<&'a CompiledPolicy>,
    pub(super) groups: Vec<Group<'a>>,
    of_namespace: HashMap<&'a str, Vec<GroupId>>,
    of_label: HashMap<&'a str, HashMap<&'a str, Vec<GroupId>>>,
    held: HashMap<&'a Pattern, Vec<GroupId>>,
    group_of: HashMap<&'a str, GroupId>,
    pub(super) classes: Vec<Class>,
}

/// Place in [`World::groups`].
pub(super) type GroupId = usize;

/// Pods that no selector tells apart.
#[derive(Debug)]
pub(super) struct Group<'a> {
    pub(super) namespace: &'a str,
    pub(super) labels: &'a Labels,
    pub(super) host_network: bool,
    /// In the order of their names; at least one.
    pub(super) pods: Vec<&'a PodIdentity>,
}

/// Pods that the same policies select, so that their own side is judged alike.
#[derive(Debug)]
pub(super) struct Class {
    /// Places in [`World::policies`], ascending.
    pub(super) policies: Vec<usize>,
    /// Ascending; at least one. None of them is on the host network.
    pub(super) groups: Vec<GroupId>,
}

impl<'a> World<'a> {
    pub(super) fn new(index: &'a Index, set: &'a PolicySet) -> Self {
        let mut policies: Vec<&CompiledPolicy> = set.policies().map(|policy| &**policy).collect();
        policies.sort();
        let mut world = Self {
            index,
            set,
            policies,
            groups: groups(index),
            of_namespace: HashMap::default(),
            of_label: HashMap::default(),
            held: HashMap::default(),
            group_of: HashMap::default(),
            classes: Vec::new(),
        };
        for (id, group) in world.groups.iter().enumerate() {
            world.of_namespace.entry(group.namespace).or_default().push(id);
            for (key, value) in group.labels {
                let of_key = world.of_label.entry(key).or_default();
                of_key.entry(value).or_default().push(id);
            }
            world.group_of.extend(group.pods.iter().map(|pod| (&*pod.uid, id)));
        }
        world.hold_patterns();
        world.classes = world.classify();
        world
    }

    pub(super) fn selection(&self) -> &'a Selection {
        self.index.selection()
    }

    /// The groups a pattern of the set holds of, or may hold of where a namespace's labels are not
    /// known; those on the host network too. Ascending.
    pub(super) fn held(&self, pattern: &Pattern) -> &[GroupId] {
        self.held.get(pattern).map_or(&[], |groups| groups)
    }

    /// The same for all peers of a rule that are pods, without those on the host network. None: the
    /// rule is not about pods by their labels only.
    pub(super) fn peer_groups(&self, rule: &Rule) -> Option<Vec<GroupId>> {
        let Peers::AnyOf(peers) = &rule.peers else { return None };
        let mut all = Vec::new();
        for peer in peers {
            let Peer::Pods(Linked { pattern, .. }) = peer else { return None };
            let held = self.held(pattern).iter().copied();
            all.extend(held.filter(|id| self.is_subject(*id)));
        }
        all.sort_unstable();
        all.dedup();
        Some(all)
    }

    /// Whether policies are asked about this group's own traffic.
    pub(super) fn is_subject(&self, id: GroupId) -> bool {
        self.groups.get(id).is_some_and(|group| !group.host_network)
    }

    /// The first pod of a group.
    pub(super) fn pod_of(&self, id: GroupId) -> Option<&'a PodIdentity> {
        self.groups.get(id)?.pods.first().copied()
    }

    /// The group of a pod that is there now.
    pub(super) fn group_of(&self, pod: &PodIdentity) -> Option<GroupId> {
        self.group_of.get(&*pod.uid).copied()
    }

    /// Groups with this label, ascending.
    pub(super) fn labelled(&self, key: &str, value: &str) -> &[GroupId] {
        self.of_label.get(key).and_then(|of| of.get(value)).map_or(&[], |groups| groups)
    }

    /// Pods of these groups, in the order of the groups.
    pub(super) fn pods(&self, ids: &[GroupId]) -> impl Iterator<Item = &'a PodIdentity> {
        let groups = ids.iter().filter_map(|id| self.groups.get(*id));
        groups.flat_map(|group| group.pods.iter().copied())
    }

    /// Policies of a class.
    pub(super) fn policies_of(&self, class: &Class) -> impl Iterator<Item = &'a CompiledPolicy> {
        class.policies.iter().filter_map(|at| self.policies.get(*at).copied())
    }

    /// What the pod's own side says to this egress.
    pub(super) fn egress(
        &self,
        pod: &PodIdentity,
        target: &End,
        (protocol, port): (Protocol, u16),
    ) -> Decision {
        let source = end_of(pod);
        let probe = Probe { source: &source, target, protocol, port };
        let (_, sides) = self.set.decide(self.selection(), Profile::Common, &probe);
        sides.egress.decision
    }

    /// The same with its reasons.
    pub(super) fn explain(
        &self,
        pod: &PodIdentity,
        target: &End,
        (protocol, port): (Protocol, u16),
    ) -> Verdict {
        let source = end_of(pod);
        let probe = Probe { source: &source, target, protocol, port };
        self.set.evaluate(self.selection(), Profile::Common, &probe)
    }

    fn hold_patterns(&mut self) {
        for policy in self.policies.clone() {
            for pattern in patterns(policy) {
                if !self.held.contains_key(pattern) {
                    let held = self.find(pattern);
                    self.held.insert(pattern, held);
                }
            }
        }
    }

    /// By a label every match must have, where there is one; else group by group.
    fn find(&self, pattern: &Pattern) -> Vec<GroupId> {
        let mut candidates: Vec<GroupId> = match (&pattern.namespaces, pattern.pods.anchor()) {
            (_, Some((key, values))) => {
                let labelled = values.iter().flat_map(|value| self.labelled(key, value));
                labelled.copied().collect()
            }
            (NamespaceChoice::Only(name), None) => {
                self.of_namespace.get(&**name).into_iter().flatten().copied().collect()
            }
            (NamespaceChoice::Labelled(_), None) => (0..self.groups.len()).collect(),
        };
        candidates.sort_unstable();
        candidates.dedup();
        let mut namespaces: HashMap<&str, bool> = HashMap::default();
        candidates.retain(|id| {
            let Some(group) = self.groups.get(*id) else { return false };
            let in_namespace = namespaces.entry(group.namespace).or_insert_with(|| {
                let labels = self.selection().namespace_labels(group.namespace);
                pattern.holds_namespace(group.namespace, labels) != Known::No
            });
            *in_namespace && pattern.pods.matches(group.labels)
        });
        candidates
    }

    fn classify(&self) -> Vec<Class> {
        let mut selecting: Vec<Vec<usize>> = vec![Vec::new(); self.groups.len()];
        for (at, policy) in self.policies.iter().enumerate() {
            for id in self.held(&policy.subject.pattern) {
                if let Some(policies) = selecting.get_mut(*id) {
                    policies.push(at);
                }
            }
        }
        let mut classes: BTreeMap<Vec<usize>, Vec<GroupId>> = BTreeMap::new();
        for (id, policies) in selecting.into_iter().enumerate() {
            if self.is_subject(id) {
                classes.entry(policies).or_default().push(id);
            }
        }
        classes.into_iter().map(|(policies, groups)| Class { policies, groups }).collect()
    }
}

/// The pod by its first address.
pub(super) fn end_of(pod: &PodIdentity) -> End {
    End { addr: pod.addrs.first().copied(), endpoint: Endpoint::Pod(pod.clone().into()) }
}

/// Every rule with its direction and index.
pub(super) fn rules(policy: &CompiledPolicy) -> impl Iterator<Item = (Direction, usize, &Rule)> {
    [Direction::Ingress, Direction::Egress].into_iter().flat_map(|direction| {
        let rules = policy.rules(direction).unwrap_or_default();
        rules.iter().enumerate().map(move |(at, rule)| (direction, at, rule))
    })
}

/// Every peer of a rule with its index.
pub(super) fn peers(rule: &Rule) -> impl Iterator<Item = (usize, &Peer)> {
    let peers: &[Peer] = match &rule.peers {
        Peers::AnyOf(peers) => peers,
        Peers::Everyone | Peers::FailsClosed => &[],
    };
    peers.iter().enumerate()
}

/// "shop/web-1 and 3 more".
pub(super) fn some_of<'a>(pods: impl Iterator<Item = &'a PodIdentity>) -> String {
    let mut names: Vec<String> =
        pods.map(|pod| format!("{}/{}", pod.namespace, pod.name)).collect();
    names.sort();
    match names.split_first() {
        None => "no pod".to_owned(),
        Some((first, [])) => first.clone(),
        Some((first, more)) => format!("{first} and {} more", more.len()),
    }
}

fn patterns(policy: &CompiledPolicy) -> impl Iterator<Item = &Pattern> {
    let of_peers =
        rules(policy).flat_map(|(_, _, rule)| peers(rule)).filter_map(|(_, peer)| match peer {
            Peer::Pods(Linked { pattern, .. }) => Some(&**pattern),
            Peer::Blocks(_) | Peer::Nodes(_) | Peer::Domains(_) => None,
        });
    std::iter::once(&*policy.subject.pattern).chain(of_peers)
}

fn groups(index: &Index) -> Vec<Group<'_>> {
    let mut known: BTreeMap<(&str, &Labels, bool), Vec<&PodIdentity>> = BTreeMap::new();
    for pod in index.pods_now() {
        let key = (&*pod.namespace, &*pod.labels, pod.host_network);
        known.entry(key).or_default().push(pod);
    }
    let groups = known.into_iter().map(|((namespace, labels, host_network), mut pods)| {
        pods.sort_by(|a, b| a.name.cmp(&b.name));
        Group { namespace, labels, host_network, pods }
    });
    groups.collect()
}
