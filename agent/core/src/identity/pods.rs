//! Pods by UID, and who held an address when.
//!
//! In: Pod objects, their ends, and the time of each. Out: [`PodIdentity`]s, and the pods that held
//! an address within a window. A pod that is gone stays known as a tombstone; a name says nothing
//! here, because names are used again. The objects themselves are not kept, see [`Facts`].

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::HashMap;

use super::controller::OwnerKey;
use super::facts::{Facts, Phase, uid_of};
use super::few::Few;
use super::intern::Interner;
use super::life::{Gone, Life};
use super::owners::Owners;
use super::pod_names::PodNames;
use crate::flow::{PodIdentity, Timestamp};
use crate::listing::Listing;
use crate::object::{MIRROR_ANNOTATION, Pod};

/// Pods with an object. Further ones are refused and counted.
pub const PODS_MAX: usize = 262_144;
/// Pods whose object is gone and that are still known; the ones gone longest are forgotten first.
pub const TOMBSTONES_MAX: usize = 16_384;

/// Who held an address in a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    None,
    One(Arc<PodIdentity>),
    /// More than one: nobody can tell whose packet it was.
    Many,
}

/// What applying a pod did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PodChange {
    /// Nothing that anyone would see.
    None,
    /// The pod is new, began, runs now, or ended.
    Other,
    /// The same pod is to be judged anew: its labels, ports, addresses or workload are others now.
    Identity(Arc<PodIdentity>),
}

/// All pods.
#[derive(Debug, Default)]
pub(super) struct Pods {
    /// Boxed, so that the room a table keeps free costs little.
    by_uid: HashMap<Arc<str>, Box<Life>>,
    names: PodNames,
    by_addr: HashMap<IpAddr, Few<Arc<str>>>,
    by_owner: HashMap<OwnerKey, BTreeSet<Arc<str>>>,
    by_namespace: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
    gone: BTreeSet<(Timestamp, Arc<str>)>,
    /// What a node's kubelet calls a pod that it runs from a file, to the UID of its object. Never
    /// more than twice the pods: what leads to none is swept away then.
    mirrors: HashMap<Arc<str>, Arc<str>>,
    listing: Listing<Arc<str>>,
    refused: u64,
    /// Entries that were dropped since somebody asked.
    dropped: usize,
}

impl Pods {
    pub(super) fn applied(
        &mut self,
        pod: &Pod,
        owners: &Owners,
        interner: &mut Interner,
        at: Timestamp,
    ) -> PodChange {
        let uid = uid_of(pod);
        self.listing.named(&*uid);
        let before = self.by_uid.get(&*uid);
        // A list may be older than the deletion that was told.
        if before.is_some_and(|life| life.gone == Gone::Deleted) {
            return PodChange::None;
        }
        if before.is_none_or(|life| life.gone != Gone::No) && self.live() >= PODS_MAX {
            self.refused += 1;
            return PodChange::None;
        }
        let uid = before.map_or_else(|| uid.into(), |entry| entry.identity.uid.clone());
        let mut facts = Facts::of(uid.clone(), pod, owners, interner);
        // Owners are deleted before their pods end: what was known of them stays true.
        if let (Some(before), Some(controller)) = (before, &facts.controller)
            && before.owner() == Some(&controller.key)
            && !owners.knows(&controller.key)
        {
            facts.identity.workload = before.identity.workload.clone();
        }
        if before.is_some_and(|life| life.gone == Gone::No && life.says(&facts)) {
            return PodChange::None;
        }
        let known = self.forget(&uid);
        let old = known.as_ref().map(|life| (life.identity.clone(), life.span()));
        let life = Life::of(known, facts, at);
        let (identity, span) = (life.identity.clone(), life.span());
        self.insert(uid.clone(), life);
        if let Some(kubelets) = pod.metadata.annotations.get(MIRROR_ANNOTATION) {
            self.mirror(kubelets, &uid);
        }
        self.take_name(&uid);
        match old {
            Some((old, _)) if *old != *identity => PodChange::Identity(identity),
            Some((_, old)) if old == span => PodChange::None,
            _ => PodChange::Other,
        }
    }

    /// The object is gone. Without a UID the pod of that name is meant.
    pub(super) fn deleted(
        &mut self,
        namespace: &str,
        name: &str,
        uid: Option<&str>,
        at: Timestamp,
    ) -> bool {
        let uid: Arc<str> = match uid.filter(|uid| !uid.is_empty()) {
            Some(uid) => uid.into(),
            None => match self.uid_named(namespace, name) {
                Some(uid) => uid.clone(),
                None => return false,
            },
        };
        // What has no UID of the API server's may come again.
        let gone = if uid.contains('/') { Gone::Unnamed } else { Gone::Deleted };
        self.bury(&uid, gone, at)
    }

    /// Nobody follows the pod any more; it may be told again.
    pub(super) fn unused(&mut self, uid: &str, at: Timestamp) -> bool {
        self.bury(&uid.into(), Gone::Unnamed, at)
    }

    pub(super) fn begin_list(&mut self) {
        let live = self.by_uid.iter().filter(|(_, life)| life.gone == Gone::No);
        self.listing.begin(live.map(|(uid, _)| uid.clone()));
    }

    /// Every pod that a full list did not hold is gone. Whether there was any.
    pub(super) fn end_list(&mut self, at: Timestamp) -> bool {
        let gone = self.listing.end().unwrap_or_default();
        gone.iter().filter(|uid| self.bury(uid, Gone::Unnamed, at)).count() > 0
    }

    /// Pods below this owner, with the workload they have now. The changed ones come back.
    pub(super) fn owner_changed(
        &mut self,
        key: &OwnerKey,
        owners: &Owners,
    ) -> Vec<Arc<PodIdentity>> {
        let mut changed = Vec::new();
        for uid in self.by_owner.get(key).into_iter().flatten() {
            let Some(entry) = self.by_uid.get_mut(uid) else { continue };
            let Some(controller) = &entry.controller else { continue };
            let Some(workload) = owners.known_workload(controller) else { continue };
            if entry.identity.workload != workload {
                let identity = PodIdentity { workload, ..(*entry.identity).clone() };
                entry.identity = Arc::new(identity);
                changed.push(entry.identity.clone());
            }
        }
        changed
    }

    /// The pod with this UID, which may also be the one its kubelet has for it.
    pub(super) fn get(&self, uid: &str) -> Option<&Arc<PodIdentity>> {
        let known = self.by_uid.get(uid).or_else(|| self.by_uid.get(self.mirrors.get(uid)?));
        known.map(|entry| &entry.identity)
    }

    /// Whether the pod is there and has not ended.
    pub(super) fn is_there(&self, uid: &str) -> bool {
        self.by_uid.get(uid).is_some_and(|life| life.end.is_none())
    }

    /// When the pod began, as far as is known.
    pub(super) fn start_of(&self, uid: &str) -> Option<Timestamp> {
        self.by_uid.get(uid).map(|life| life.start())
    }

    /// The pod of this name whose object was not deleted.
    pub(super) fn named(&self, namespace: &str, name: &str) -> Option<&Arc<PodIdentity>> {
        self.get(self.uid_named(namespace, name)?)
    }

    fn uid_named(&self, namespace: &str, name: &str) -> Option<&Arc<str>> {
        self.names.get((namespace, name), |uid| {
            let known = self.by_uid.get(uid).map(|life| life.name());
            known == Some((namespace, name))
        })
    }

    /// Who held the address at any time from `since` to `last_seen`, both included.
    pub(super) fn holder(&self, addr: IpAddr, since: Timestamp, last_seen: Timestamp) -> Holder {
        let uids = self.by_addr.get(&addr).into_iter().flat_map(Few::iter);
        let mut holders = uids
            .filter_map(|uid| self.by_uid.get(uid))
            .filter(|life| life.held(addr, since, last_seen));
        match (holders.next(), holders.next()) {
            (None, _) => Holder::None,
            (Some(one), None) => Holder::One(one.identity.clone()),
            (Some(_), Some(_)) => Holder::Many,
        }
    }

    /// Whether any pod has or had this address, as far as is remembered.
    pub(super) fn ever_held(&self, addr: IpAddr) -> bool {
        self.by_addr.contains_key(&addr)
    }

    /// Pods of a namespace that may get traffic, in the order of their UIDs.
    pub(super) fn running(&self, namespace: &str) -> impl Iterator<Item = &Arc<PodIdentity>> {
        let uids = self.by_namespace.get(namespace).into_iter().flatten();
        uids.filter_map(|uid| self.by_uid.get(uid))
            .filter(|entry| entry.end.is_none() && entry.phase == Phase::Runs)
            .map(|entry| &entry.identity)
    }

    /// Every pod that is there and has not ended, in no order.
    pub(super) fn now(&self) -> impl Iterator<Item = &Arc<PodIdentity>> {
        self.by_uid.values().filter(|entry| entry.end.is_none()).map(|entry| &entry.identity)
    }

    /// Entries with an object, entries without, and how many were refused.
    pub(super) fn sizes(&self) -> (usize, usize, u64) {
        (self.live(), self.gone.len(), self.refused)
    }

    /// Entries that were dropped since the last time, and those that are there.
    pub(super) fn take_dropped(&mut self) -> (usize, usize) {
        (std::mem::take(&mut self.dropped), self.by_uid.len())
    }

    fn mirror(&mut self, kubelets: &str, uid: &Arc<str>) {
        if self.mirrors.len() > 2 * self.by_uid.len() {
            let by_uid = &self.by_uid;
            self.mirrors.retain(|_, uid| by_uid.contains_key(uid));
        }
        if self.mirrors.get(kubelets) != Some(uid) {
            self.mirrors.insert(kubelets.into(), uid.clone());
        }
    }

    fn live(&self) -> usize {
        self.by_uid.len() - self.gone.len()
    }

    fn bury(&mut self, uid: &Arc<str>, gone: Gone, at: Timestamp) -> bool {
        let Some(life) = self.by_uid.get_mut(uid) else { return false };
        let before = (life.gone, life.end);
        let end = life.close(at);
        if life.gone != Gone::Deleted {
            life.gone = gone;
        }
        if before == (life.gone, Some(end)) {
            return false;
        }
        self.names.remove(life.name(), uid);
        if before.0 != Gone::No {
            self.gone.remove(&(before.1.unwrap_or_default(), uid.clone()));
        }
        self.gone.insert((end, uid.clone()));
        while self.gone.len() > TOMBSTONES_MAX {
            let Some((_, oldest)) = self.gone.first().cloned() else { break };
            self.forget(&oldest);
        }
        true
    }

    /// The name belongs to the pod that began last; the other one's deletion was missed. Clocks of
    /// nodes differ, so that a list that runs says better which of both is there.
    fn take_name(&mut self, uid: &Arc<str>) {
        let Some(life) = self.by_uid.get(uid) else { return };
        let (start, name) = (life.start(), life.name());
        let other = self.uid_named(name.0, name.1).filter(|other| *other != uid).cloned();
        let other_start = other.as_ref().and_then(|other| Some(self.by_uid.get(other)?.start()));
        match (other, other_start) {
            (Some(other), Some(other_start))
                if other_start > start && !self.listing.is_unnamed(&other) =>
            {
                self.bury(uid, Gone::Unnamed, other_start);
            }
            (other, _) => {
                if let Some(other) = other {
                    self.bury(&other, Gone::Unnamed, start);
                }
                if let Some(life) = self.by_uid.get(uid) {
                    self.names.insert(life.name(), uid);
                }
            }
        }
    }

    fn insert(&mut self, uid: Arc<str>, entry: Life) {
        for addr in entry.addrs() {
            let one = || Few::One(uid.clone());
            self.by_addr.entry(addr).or_insert_with(one).insert(uid.clone());
        }
        if let Some(owner) = entry.owner() {
            self.by_owner.entry(owner.clone()).or_default().insert(uid.clone());
        }
        let namespace = entry.identity.namespace.clone();
        self.by_namespace.entry(namespace).or_default().insert(uid.clone());
        self.by_uid.insert(uid, Box::new(entry));
    }

    fn forget(&mut self, uid: &Arc<str>) -> Option<Life> {
        let entry = self.by_uid.remove(uid)?;
        self.dropped += 1;
        for addr in entry.addrs() {
            if self.by_addr.get_mut(&addr).is_some_and(|uids| uids.remove(uid)) {
                self.by_addr.remove(&addr);
            }
        }
        if let Some(owner) = entry.owner() {
            take(&mut self.by_owner, owner, uid);
        }
        take(&mut self.by_namespace, &entry.identity.namespace, uid);
        if entry.gone != Gone::No {
            self.gone.remove(&(entry.end.unwrap_or_default(), uid.clone()));
        }
        self.names.remove(entry.name(), uid);
        Some(*entry)
    }
}

fn take<K: std::hash::Hash + Eq>(
    map: &mut HashMap<K, BTreeSet<Arc<str>>>,
    key: &K,
    uid: &Arc<str>,
) {
    if let Some(uids) = map.get_mut(key) {
        uids.remove(uid);
        if uids.is_empty() {
            map.remove(key);
        }
    }
}
