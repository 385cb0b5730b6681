//! Who is who: pods, nodes, services, owners and cgroups, as of now and of a while ago.
//!
//! In: [`Change`]s, [`NodeFacts`] and the node's cgroups. Out: both ends of a flow record, see
//! [`Index::resolve`]. Kubernetes types stop here. It never panics on an object, and every table
//! has a limit and counts what it refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::HashMap;

use self::cgroup::Cgroups;
use self::intern::Interner;
use self::nodes::Nodes;
use self::owners::Owners;
use self::pods::{PodChange, Pods};
use self::resolve::ServicePortKey as ServiceCacheKey;
use self::services::Services;
use crate::flow::{PodIdentity, ServiceIdentity, Timestamp};
use crate::listing::Listing;
use crate::object::{Change, Kind, Object, ObjectRef};
use crate::policy::Selection;

pub use self::cgroup::{CGROUP_TOMBSTONES_MAX, CGROUPS_MAX, OTHER_UNITS, Place, UNITS_MAX};
pub use self::lookup::NotAnEnd;
pub use self::nodes::{NODES_MAX, NodeFacts};
pub use self::owners::WORKLOADS_MAX;
pub use self::peers::{NOBODY_NS, PEERS_MAX, PeersMet};
pub use self::pods::{PODS_MAX, TOMBSTONES_MAX};
pub use self::resolve::Resolved;
pub use self::services::{BACKENDS_MAX, SERVICES_MAX, SLICES_MAX};
pub use self::translation::{AskedPort, AskedPorts, Rewritten, SourceSeen, Translation};
pub use self::unread::{Misread, Unread};

pub mod cgroup;
mod controller;
mod facts;
mod few;
pub(crate) mod intern;
mod life;
mod lookup;
mod nodes;
mod owners;
mod peers;
mod pod_names;
mod pods;
mod resolve;
mod service_facts;
mod services;
pub(crate) mod time;
mod translation;
mod unread;

/// Namespaces known at once. Further ones are refused and counted.
pub const NAMESPACES_MAX: usize = 65_536;
/// Resolved Service ports that are remembered until an object changes.
const SERVICE_CACHE_MAX: usize = 16_384;

/// Everything an end can be.
#[derive(Debug, Default)]
pub struct Index {
    pods: Pods,
    nodes: Nodes,
    services: Services,
    owners: Owners,
    interner: Interner,
    cgroups: Cgroups,
    selection: Selection,
    namespaces_listing: Listing<Arc<str>>,
    namespaces_refused: u64,
    unread: Unread,
    /// With the start of the backend that began last.
    service_cache: HashMap<ServiceCacheKey, (Arc<ServiceIdentity>, Timestamp)>,
    translations: translation::Translations,
    now: Timestamp,
    /// None if every pod of the cluster is watched.
    peers: Option<peers::Peers>,
}

/// What a change means to those who judge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// Something may resolve otherwise than before.
    pub index: bool,
    /// Namespaces whose labels are others now, or that are gone.
    pub namespaces: Vec<Arc<str>>,
    /// A node's labels are others now.
    pub nodes: bool,
    /// Pods that are known already and are to be judged by other labels, ports or owners now.
    pub pods: Vec<Arc<PodIdentity>>,
}

impl Index {
    /// Takes one change. Policies and who may do what are nothing to the index.
    pub fn apply(&mut self, change: &Change, at: Timestamp) -> Effect {
        self.now = self.now.max(at);
        let mut effect = Effect::default();
        match change {
            Change::Applied(object) => {
                self.unread.look_at(object);
                self.applied(object, at, &mut effect);
            }
            Change::Deleted(object) => self.deleted(object, at, &mut effect),
            Change::Listing(kind) => self.begin_list(*kind),
            Change::Listed(kind) => self.end_list(*kind, at, &mut effect),
        }
        self.interner.released(self.pods.take_dropped());
        if effect.index {
            self.forget_services();
        }
        effect
    }

    /// This node's own name and addresses.
    pub fn set_node(&mut self, facts: &NodeFacts) {
        self.nodes.set_own(facts);
        self.forget_services();
    }

    /// A cgroup exists.
    pub fn cgroup_created(&mut self, id: u64, path: &str) {
        self.cgroups.created(id, path);
    }

    /// A cgroup is gone; it stays known for late records.
    pub fn cgroup_removed(&mut self, id: u64) {
        self.cgroups.removed(id);
    }

    /// Whose cgroup this is or was.
    #[must_use]
    pub fn place(&self, cgroup_id: u64) -> Option<&Place> {
        self.cgroups.place(cgroup_id)
    }

    /// Labels of namespaces and nodes, and which pods the linked policies' selectors select.
    #[must_use]
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// The same, to link policies into and to have pods identified.
    pub fn selection_mut(&mut self) -> &mut Selection {
        &mut self.selection
    }

    /// The pod with this UID, as it is now or was last.
    #[must_use]
    pub fn pod(&self, uid: &str) -> Option<&Arc<PodIdentity>> {
        self.pods.get(uid)
    }

    /// Table name to (entries, capacity).
    #[must_use]
    pub fn tables(&self) -> BTreeMap<&'static str, (u64, u64)> {
        let (pods, pod_tombstones, _) = self.pods.sizes();
        let (cgroups, cgroup_tombstones, _) = self.cgroups.sizes();
        let (services, slices, _) = self.services.sizes();
        [
            ("pods", pods, PODS_MAX),
            ("pod_tombstones", pod_tombstones, TOMBSTONES_MAX),
            ("cgroups", cgroups, CGROUPS_MAX),
            ("cgroup_tombstones", cgroup_tombstones, CGROUP_TOMBSTONES_MAX),
            ("services", services, SERVICES_MAX),
            ("endpoint_slices", slices, SLICES_MAX),
            ("nodes", self.nodes.sizes().0, NODES_MAX),
            ("workloads", self.owners.sizes().0, WORKLOADS_MAX),
            ("namespaces", self.selection.namespaces().len(), NAMESPACES_MAX),
        ]
        .into_iter()
        .map(|(name, entries, capacity)| (name, (entries as u64, capacity as u64)))
        .collect()
    }

    /// Objects and cgroups that found their table full.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.pods.sizes().2
            + self.cgroups.sizes().2
            + self.services.sizes().2
            + self.nodes.sizes().1
            + self.owners.sizes().1
            + self.namespaces_refused
            + self.peers.as_ref().map_or(0, peers::Peers::refused)
    }

    /// What objects said that could not be read, and was left out.
    #[must_use]
    pub fn unread(&self) -> &Unread {
        &self.unread
    }

    fn applied(&mut self, object: &Object, at: Timestamp, effect: &mut Effect) {
        match object {
            Object::Pod(pod) => {
                match self.pods.applied(pod, &self.owners, &mut self.interner, at) {
                    PodChange::None => {}
                    PodChange::Other => effect.index = true,
                    PodChange::Identity(identity) => {
                        effect.index = true;
                        effect.pods.push(identity);
                    }
                }
            }
            Object::Namespace(namespace) => {
                let meta = &namespace.metadata;
                let selection = &mut self.selection;
                self.namespaces_listing.named(&*meta.name);
                let known = selection.namespace_labels(&meta.name).is_some();
                if !known && selection.namespaces().len() >= NAMESPACES_MAX {
                    self.namespaces_refused += 1;
                } else if selection.insert_namespace(&meta.name, &meta.labels) {
                    effect.namespaces.push(meta.name.as_str().into());
                }
            }
            Object::Node(node) => {
                let meta = &node.metadata;
                effect.index |= self.nodes.applied(node);
                if self.nodes.has(&meta.name) {
                    effect.nodes |= self.selection.insert_node(&meta.name, &meta.labels);
                }
            }
            Object::Service(service) => {
                effect.index |= self.services.service_applied(service, &mut self.interner)
            }
            Object::EndpointSlice(slice) => {
                effect.index |= self.services.slice_applied(slice, &mut self.interner)
            }
            Object::Workload(workload) => {
                if let Some(key) = self.owners.applied(workload, &mut self.interner) {
                    let changed = self.pods.owner_changed(&key, &self.owners);
                    effect.index |= !changed.is_empty();
                    effect.pods.extend(changed);
                }
            }
            // Policies, and who may do what.
            _ => {}
        }
    }

    fn deleted(&mut self, object: &ObjectRef, at: Timestamp, effect: &mut Effect) {
        let ObjectRef { kind, api_kind, namespace, name, uid } = object;
        match kind {
            Kind::Pod => {
                effect.index |= self.pods.deleted(namespace, name, uid.as_deref(), at);
            }
            Kind::Namespace => {
                let known = self.selection.remove_namespace(name);
                effect.namespaces.extend(known.then(|| name.as_str().into()));
            }
            Kind::Node => {
                effect.index |= self.nodes.deleted(name);
                effect.nodes |= self.selection.remove_node(name);
            }
            Kind::Service => effect.index |= self.services.service_deleted(namespace, name),
            Kind::EndpointSlice => effect.index |= self.services.slice_deleted(namespace, name),
            Kind::Workload => self.owners.deleted(api_kind, namespace, name, uid.as_deref()),
            _ => {}
        }
    }

    fn begin_list(&mut self, kind: Kind) {
        match kind {
            Kind::Pod => self.pods.begin_list(),
            Kind::Namespace => {
                self.namespaces_listing.begin(self.selection.namespaces().cloned());
            }
            Kind::Node => self.nodes.begin_list(),
            Kind::Service => self.services.begin_services(),
            Kind::EndpointSlice => self.services.begin_slices(),
            Kind::Workload => self.owners.begin_list(),
            _ => {}
        }
    }

    /// Forgets what a full list did not hold.
    fn end_list(&mut self, kind: Kind, at: Timestamp, effect: &mut Effect) {
        match kind {
            Kind::Pod => effect.index |= self.pods.end_list(at),
            Kind::Namespace => {
                for name in self.namespaces_listing.end().into_iter().flatten() {
                    if self.selection.remove_namespace(&name) {
                        effect.namespaces.push(name);
                    }
                }
            }
            Kind::Node => {
                for name in self.nodes.end_list() {
                    effect.index |= self.nodes.deleted(&name);
                    effect.nodes |= self.selection.remove_node(&name);
                }
            }
            Kind::Service => effect.index |= self.services.end_services(),
            Kind::EndpointSlice => effect.index |= self.services.end_slices(),
            Kind::Workload => self.owners.end_list(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
