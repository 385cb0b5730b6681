//! From a pod to its workload: the controlling owner, followed to its top.
//!
//! In: workload objects, and a pod's owner reference, labels and time. Out: a [`Workload`]. What an
//! object says comes first; nobody asks a live cluster for ReplicaSets and Jobs, so that without
//! one the owner's name tells, where something else bears it out: names alone may look alike
//! without being related.

use std::sync::Arc;

use foldhash::HashMap;

use super::controller::{Controller, OwnerKey};
use super::intern::Interner;
use crate::flow::{Timestamp, Workload};
use crate::listing::Listing;
use crate::object::{Meta, OwnerReference, WorkloadObject};

/// Workload objects known at once. Further ones are refused and counted.
pub const WORKLOADS_MAX: usize = 262_144;
const MINUTE_NS: u64 = 60_000_000_000;

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

    /// The workload of the pods with this controller, if the controller's object is known.
    pub(super) fn known_workload(&self, owner: &Controller) -> Option<Workload> {
        let known = self.by_key.get(&owner.key).filter(|known| {
            known.uid.is_empty() || owner.uid.is_empty() || *known.uid == *owner.uid
        })?;
        Some(known.controller.clone().unwrap_or_else(|| itself(owner)))
    }

    /// The workload of a pod with this controller. `created`: when the pod's object was made.
    pub(super) fn workload(
        &self,
        owner: &Controller,
        template_hash: Option<&str>,
        created: Option<Timestamp>,
        interner: &mut Interner,
    ) -> Workload {
        let of = |kind: &str, name: &str, interner: &mut Interner| Workload {
            kind: interner.text(kind),
            name: interner.text(name),
        };
        if let Some(known) = self.known_workload(owner) {
            return known;
        }
        if let Some(name) = deployment_by_hash(&owner.key, template_hash) {
            return of("Deployment", name, interner);
        }
        if let Some(name) = cron_job_by_minute(&owner.key, created) {
            return of("CronJob", name, interner);
        }
        itself(owner)
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

/// How long after its scheduled minute a pod of a CronJob may be made: `startingDeadlineSeconds`
/// lets Jobs start late, a Job makes pods again after failures (each up to 6 minutes later, by
/// default 6 times) and after the node of one was lost, and with `completions` one after another.
const CRON_LATE_MAX: u64 = 24 * 60;
/// How long before: the clocks of controller and API server differ.
const CRON_EARLY_MAX: u64 = 1;

/// The CronJob of a Job that was not seen. The CronJob controller names its Jobs
/// `<cronjob>-<scheduled minute since 1970>` (kubernetes/pkg/controller/cronjob, `getJobName`).
/// Many a Job's name ends in a number, so this one must be a minute shortly before the pod was
/// made: a counter is no such number by far, and neither is a date or a time in seconds. A Job that
/// somebody named by hand after a minute of its last day is taken for a CronJob's; a pod that a Job
/// makes more than a day after its minute is taken for the Job's own.
fn cron_job_by_minute(owner: &OwnerKey, created: Option<Timestamp>) -> Option<&str> {
    if *owner.0 != *"Job" {
        return None;
    }
    let (name, digits) = owner.2.rsplit_once('-')?;
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    let scheduled = if plain { digits.parse::<u64>().ok()? } else { return None };
    let created = created?.0 / MINUTE_NS;
    let late = created.saturating_add(CRON_EARLY_MAX).checked_sub(scheduled)?;
    (!name.is_empty() && late <= CRON_LATE_MAX + CRON_EARLY_MAX).then_some(name)
}

fn itself(owner: &Controller) -> Workload {
    Workload { kind: owner.key.0.clone(), name: owner.key.2.clone() }
}
