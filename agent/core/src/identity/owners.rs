//! From a pod to its workload: the controlling owner, followed to its top.
//!
//! In: workload objects, and a pod's owner reference and labels. Out: a [`Workload`]. It never
//! reads an owner out of a pod's name alone: names may look alike without being related.

use std::sync::Arc;

use foldhash::HashMap;

use crate::flow::Workload;
use crate::object::{Meta, OwnerReference, WorkloadObject};

/// Workload objects known at once. Further ones are refused and counted.
pub const WORKLOADS_MAX: usize = 262_144;

/// API kind, namespace and name of an owner.
pub(super) type OwnerKey = (Arc<str>, Arc<str>, Arc<str>);

/// The controller of each object that may own pods.
#[derive(Debug, Default)]
pub(super) struct Owners {
    by_key: HashMap<OwnerKey, Owner>,
    refused: u64,
}

#[derive(Debug, PartialEq, Eq)]
struct Owner {
    uid: Arc<str>,
    controller: Option<Workload>,
}

/// The reference with `controller: true`, if there is one.
pub(super) fn controller(meta: &Meta) -> Option<&OwnerReference> {
    meta.owner_references.iter().find(|owner| owner.controller)
}

impl Owners {
    /// The key, if pods below this object may have another workload than before.
    pub(super) fn applied(&mut self, object: &WorkloadObject) -> Option<OwnerKey> {
        let meta = &object.metadata;
        let key: OwnerKey = (
            object.api_kind.as_str().into(),
            meta.namespace.as_str().into(),
            meta.name.as_str().into(),
        );
        let controller = controller(meta).map(|owner| Workload {
            kind: owner.kind.as_str().into(),
            name: owner.name.as_str().into(),
        });
        let owner = Owner { uid: meta.uid.as_str().into(), controller };
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

    /// Forgets all objects but these.
    pub(super) fn retain(&mut self, keep: impl Fn(&OwnerKey) -> bool) {
        self.by_key.retain(|key, _| keep(key));
    }

    /// Whether the object is known.
    pub(super) fn knows(&self, key: &OwnerKey) -> bool {
        self.by_key.contains_key(key)
    }

    /// The workload of a pod with these labels, and its controlling owner.
    pub(super) fn workload(
        &self,
        pod: &Meta,
        template_hash: Option<&str>,
    ) -> (Workload, Option<OwnerKey>) {
        // A static pod's mirror is controlled by its node, which is no workload.
        let Some(owner) = controller(pod).filter(|owner| owner.kind != "Node") else {
            return (Workload { kind: "Pod".into(), name: pod.name.as_str().into() }, None);
        };
        let key: OwnerKey =
            (owner.kind.as_str().into(), pod.namespace.as_str().into(), owner.name.as_str().into());
        let known = self.by_key.get(&key).filter(|known| {
            known.uid.is_empty() || owner.uid.is_empty() || *known.uid == *owner.uid
        });
        let itself = Workload { kind: key.0.clone(), name: key.2.clone() };
        let workload = match known {
            Some(known) => known.controller.clone().unwrap_or(itself),
            None => deployment_by_hash(owner, template_hash).unwrap_or(itself),
        };
        (workload, Some(key))
    }

    /// Entries, and how many were refused.
    pub(super) fn sizes(&self) -> (usize, u64) {
        (self.by_key.len(), self.refused)
    }
}

/// The Deployment of a ReplicaSet that was not seen. Only the Deployment controller writes the
/// label `pod-template-hash`, and it names its ReplicaSets `<deployment>-<hash>`.
fn deployment_by_hash(owner: &OwnerReference, template_hash: Option<&str>) -> Option<Workload> {
    let hash = template_hash.filter(|hash| !hash.is_empty() && owner.kind == "ReplicaSet")?;
    let name = owner.name.strip_suffix(hash)?.strip_suffix('-')?;
    (!name.is_empty()).then(|| Workload { kind: "Deployment".into(), name: name.into() })
}
