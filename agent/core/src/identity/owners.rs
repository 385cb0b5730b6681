//! From a pod to its workload: the controlling owner, followed to its top.
//!
//! In: workload objects, and a pod's owner reference and labels. Out: a [`Workload`]. It never
//! reads an owner out of a pod's name alone: names may look alike without being related.

use std::sync::Arc;

use foldhash::HashMap;

use super::controller::{Controller, OwnerKey};
use super::intern::Interner;
use crate::flow::Workload;
use crate::listing::Listing;
use crate::object::{Meta, OwnerReference, WorkloadObject};

/// Workload objects known at once. Further ones are refused and counted.
pub const WORKLOADS_MAX: usize = 262_144;

/// The controller of each object that may own pods.
#[derive(Debug, Default)]
pub(super) struct Owners {
    by_key: HashMap<OwnerKey, Owner>,
    listing: Listing<OwnerKey>,
    refused: u64,
}

#[derive(Debug, PartialEq, Eq)]
struct Owner {
    uid: Arc<str>,
    controller: Option<Workload>,
}

/// The controller of a pod. A static pod's mirror is controlled by its node, which is no workload.
pub(super) fn controller(pod: &Meta, interner: &mut Interner) -> Option<Arc<Controller>> {
    let owner = reference(pod).filter(|owner| owner.kind != "Node")?;
    let key =
        (interner.text(&owner.kind), interner.text(&pod.namespace), interner.text(&owner.name));
    let uid = interner.text(&owner.uid);
    Some(interner.controller(Controller { key, uid }))
}

/// The reference with `controller: true`, if there is one.
fn reference(meta: &Meta) -> Option<&OwnerReference> {
    meta.owner_references.iter().find(|owner| owner.controller)
}

impl Owners {
    /// The key, if pods below this object may have another workload than before.
    pub(super) fn applied(
        &mut self,
        object: &WorkloadObject,
        interner: &mut Interner,
    ) -> Option<OwnerKey> {
        let meta = &object.metadata;
        let mut text = |text: &String| interner.text(text);
        let key: OwnerKey = (text(&object.api_kind), text(&meta.namespace), text(&meta.name));
        let controller = reference(meta)
            .map(|owner| Workload { kind: text(&owner.kind), name: text(&owner.name) });
        let owner = Owner { uid: text(&meta.uid), controller };
        self.listing.named(&key);
        match self.by_key.get(&key) {
            Some(known) if *known == owner => return None,
            None if self.by_key.len() >= WORKLOADS_MAX => {
                self.refused += 1;
                return None;
            }
            _ => {}
        }
        self.by_key.insert(key.clone(), owner);
        Some(key)
    }

    /// Forgets an object. Its pods keep the workload they were given: owners go before their pods.
    pub(super) fn deleted(&mut self, kind: &str, namespace: &str, name: &str, uid: Option<&str>) {
        let key: OwnerKey = (kind.into(), namespace.into(), name.into());
        let same = |owner: &Owner| uid.is_none_or(|uid| uid.is_empty() || *owner.uid == *uid);
        if self.by_key.get(&key).is_some_and(same) {
            self.by_key.remove(&key);
        }
    }

    pub(super) fn begin_list(&mut self) {
        self.listing.begin(self.by_key.keys().cloned());
    }

    /// Forgets what a full list did not hold.
    pub(super) fn end_list(&mut self) {
        for key in self.listing.end().into_iter().flatten() {
            self.by_key.remove(&key);
        }
    }

    /// Whether the object is known.
    pub(super) fn knows(&self, key: &OwnerKey) -> bool {
        self.by_key.contains_key(key)
    }

    /// The workload of the pods with this controller.
    pub(super) fn workload(
        &self,
        owner: &Controller,
        template_hash: Option<&str>,
        interner: &mut Interner,
    ) -> Workload {
        let known = self.by_key.get(&owner.key).filter(|known| {
            known.uid.is_empty() || owner.uid.is_empty() || *known.uid == *owner.uid
        });
        let itself = || Workload { kind: owner.key.0.clone(), name: owner.key.2.clone() };
        match known {
            Some(known) => known.controller.clone().unwrap_or_else(itself),
            None => match deployment_by_hash(&owner.key, template_hash) {
                Some(name) => {
                    Workload { kind: interner.text("Deployment"), name: interner.text(name) }
                }
                None => itself(),
            },
        }
    }

    /// Entries, and how many were refused.
    pub(super) fn sizes(&self) -> (usize, u64) {
        (self.by_key.len(), self.refused)
    }
}

/// The Deployment of a ReplicaSet that was not seen. Only the Deployment controller writes the
/// label `pod-template-hash`, and it names its ReplicaSets `<deployment>-<hash>`.
fn deployment_by_hash<'a>(owner: &'a OwnerKey, template_hash: Option<&str>) -> Option<&'a str> {
    let hash = template_hash.filter(|hash| !hash.is_empty() && *owner.0 == *"ReplicaSet")?;
    let name = owner.2.strip_suffix(hash)?.strip_suffix('-')?;
    (!name.is_empty()).then_some(name)
}
