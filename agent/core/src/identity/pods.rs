//! Pods by UID, and who held an address when.
//!
//! In: Pod objects, their ends, and the time of each. Out: [`PodIdentity`]s, and the pods that held
//! an address within a window. A pod that is gone stays known as a tombstone; a name says nothing
//! here, because names are used again. The objects themselves are not kept, see [`Facts`].

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::HashMap;

use super::controller::{Controller, OwnerKey};
use super::facts::{Facts, HOLDINGS_MAX, Phase, template_hash, uid_of};
use super::few::Few;
use super::intern::Interner;
use super::owners::Owners;
use crate::flow::{PodIdentity, Timestamp};
use crate::listing::Listing;
use crate::object::Pod;

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

#[derive(Debug)]
struct Entry {
    identity: Arc<PodIdentity>,
    controller: Option<Arc<Controller>>,
    first_seen: Timestamp,
    /// As the object says it.
    told_start: Option<Timestamp>,
    phase: Phase,
    /// Phase Succeeded or Failed, or the object is gone: it holds no address any more.
    end: Option<Timestamp>,
    holdings: Box<[Holding]>,
    gone: bool,
}

/// An address held from `start` until before `end`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Holding {
    addr: IpAddr,
    /// None: since the pod began, as the newest object says it.
    start: Option<Timestamp>,
    end: Option<Timestamp>,
}

/// All pods.
#[derive(Debug, Default)]
pub(super) struct Pods {
    by_uid: HashMap<Arc<str>, Entry>,
    by_name: HashMap<(Arc<str>, Arc<str>), Arc<str>>,
    by_addr: HashMap<IpAddr, Few<Arc<str>>>,
    by_owner: HashMap<OwnerKey, BTreeSet<Arc<str>>>,
    by_namespace: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
    gone: BTreeSet<(Timestamp, Arc<str>)>,
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
        if before.is_none_or(|entry| entry.gone) && self.live() >= PODS_MAX {
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
        if before.is_some_and(|entry| !entry.gone && entry.says(&facts)) {
            return PodChange::None;
        }
        let known = self.forget(&uid);
        let old = known.as_ref().map(|entry| (entry.identity.clone(), entry.life()));
        let entry = updated(known, facts, at);
        let (identity, life) = (entry.identity.clone(), entry.life());
        self.insert(uid.clone(), entry);
        self.take_name(&uid);
        match old {
            Some((old, _)) if *old != *identity => PodChange::Identity(identity),
            Some((_, old)) if old == life => PodChange::None,
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
            None => match self.by_name.get(&(namespace.into(), name.into())) {
                Some(uid) => uid.clone(),
                None => return false,
            },
        };
        self.bury(&uid, at)
    }

    pub(super) fn begin_list(&mut self) {
        let live = self.by_uid.iter().filter(|(_, entry)| !entry.gone);
        self.listing.begin(live.map(|(uid, _)| uid.clone()));
    }

    /// Every pod that a full list did not hold is gone. Whether there was any.
    pub(super) fn end_list(&mut self, at: Timestamp) -> bool {
        let gone = self.listing.end().into_iter().flatten();
        gone.fold(false, |any, uid| self.bury(&uid, at) || any)
    }

    /// Pods below this owner, with the workload they have now. The changed ones come back.
    pub(super) fn owner_changed(
        &mut self,
        key: &OwnerKey,
        owners: &Owners,
        interner: &mut Interner,
    ) -> Vec<Arc<PodIdentity>> {
        let mut changed = Vec::new();
        for uid in self.by_owner.get(key).into_iter().flatten() {
            let Some(entry) = self.by_uid.get_mut(uid) else { continue };
            let Some(controller) = &entry.controller else { continue };
            let hash = template_hash(&entry.identity.labels);
            let workload = owners.workload(controller, hash, interner);
            if entry.identity.workload != workload {
                let identity = PodIdentity { workload, ..(*entry.identity).clone() };
                entry.identity = Arc::new(identity);
                changed.push(entry.identity.clone());
            }
        }
        changed
    }

    pub(super) fn get(&self, uid: &str) -> Option<&Arc<PodIdentity>> {
        self.by_uid.get(uid).map(|entry| &entry.identity)
    }

    /// The pod of this name whose object was not deleted.
    pub(super) fn named(&self, namespace: &str, name: &str) -> Option<&Arc<PodIdentity>> {
        self.get(self.by_name.get(&(namespace.into(), name.into()))?)
    }

    /// Who held the address at any time from `since` to `last_seen`, both included.
    pub(super) fn holder(&self, addr: IpAddr, since: Timestamp, last_seen: Timestamp) -> Holder {
        let held = |entry: &&Entry| {
            entry.holdings.iter().any(|holding| {
                holding.addr == addr
                    && holding.start.unwrap_or(entry.start()) <= last_seen
                    && holding.end.is_none_or(|end| end > since)
            })
        };
        let uids = self.by_addr.get(&addr).into_iter().flat_map(Few::iter);
        let mut holders = uids.filter_map(|uid| self.by_uid.get(uid)).filter(held);
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

    fn live(&self) -> usize {
        self.by_uid.len() - self.gone.len()
    }

    fn bury(&mut self, uid: &Arc<str>, at: Timestamp) -> bool {
        let Some(entry) = self.by_uid.get_mut(uid) else { return false };
        let before = (entry.gone, entry.end);
        entry.gone = true;
        // Of two who say when it ended, the earlier one is right: the other only missed it.
        close(entry, at);
        let end = entry.end.unwrap_or(at);
        let name = (entry.identity.namespace.clone(), entry.identity.name.clone());
        if before == (true, Some(end)) {
            return false;
        }
        if before.0 {
            self.gone.remove(&(before.1.unwrap_or_default(), uid.clone()));
        }
        self.gone.insert((end, uid.clone()));
        if self.by_name.get(&name) == Some(uid) {
            self.by_name.remove(&name);
        }
        while self.gone.len() > TOMBSTONES_MAX {
            let Some((_, oldest)) = self.gone.first().cloned() else { break };
            self.forget(&oldest);
        }
        true
    }

    /// The name belongs to the pod that began last; the other one's deletion was missed.
    fn take_name(&mut self, uid: &Arc<str>) {
        let Some(entry) = self.by_uid.get(uid) else { return };
        let (start, name) =
            (entry.start(), (entry.identity.namespace.clone(), entry.identity.name.clone()));
        let other = self.by_name.get(&name).filter(|other| *other != uid).cloned();
        let other_start = other.as_ref().and_then(|other| Some(self.by_uid.get(other)?.start()));
        match (other, other_start) {
            (Some(_), Some(other_start)) if other_start > start => {
                self.bury(uid, other_start);
            }
            (other, _) => {
                if let Some(other) = other {
                    self.bury(&other, start);
                }
                self.by_name.insert(name, uid.clone());
            }
        }
    }

    fn insert(&mut self, uid: Arc<str>, entry: Entry) {
        for holding in &entry.holdings {
            let one = || Few::One(uid.clone());
            self.by_addr.entry(holding.addr).or_insert_with(one).insert(uid.clone());
        }
        if let Some(owner) = entry.owner() {
            self.by_owner.entry(owner.clone()).or_default().insert(uid.clone());
        }
        let namespace = entry.identity.namespace.clone();
        self.by_namespace.entry(namespace).or_default().insert(uid.clone());
        self.by_uid.insert(uid, entry);
    }

    fn forget(&mut self, uid: &Arc<str>) -> Option<Entry> {
        let entry = self.by_uid.remove(uid)?;
        self.dropped += 1;
        for holding in &entry.holdings {
            if self.by_addr.get_mut(&holding.addr).is_some_and(|uids| uids.remove(uid)) {
                self.by_addr.remove(&holding.addr);
            }
        }
        if let Some(owner) = entry.owner() {
            take(&mut self.by_owner, owner, uid);
        }
        take(&mut self.by_namespace, &entry.identity.namespace, uid);
        if entry.gone {
            self.gone.remove(&(entry.end.unwrap_or_default(), uid.clone()));
        }
        let name = (entry.identity.namespace.clone(), entry.identity.name.clone());
        if self.by_name.get(&name) == Some(uid) {
            self.by_name.remove(&name);
        }
        Some(entry)
    }
}

impl Entry {
    fn owner(&self) -> Option<&OwnerKey> {
        self.controller.as_ref().map(|controller| &controller.key)
    }

    /// From when to when it holds its addresses, and whether it may get traffic.
    fn life(&self) -> (Timestamp, Option<Timestamp>, Phase) {
        (self.start(), self.end, self.phase)
    }

    fn start(&self) -> Timestamp {
        self.told_start.unwrap_or(self.first_seen)
    }

    /// Whether the object it was made of says the same.
    fn says(&self, facts: &Facts) -> bool {
        let Facts { identity, controller, start, phase } = facts;
        *self.identity == *identity
            && self.controller == *controller
            && self.told_start == *start
            && self.phase == *phase
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

/// Ends the pod and all it holds. An end that is known already stays if it is earlier.
fn close(entry: &mut Entry, at: Timestamp) {
    let end = entry.end.map_or(at, |end| end.min(at));
    entry.end = Some(end);
    for holding in &mut entry.holdings {
        holding.end = Some(holding.end.map_or(end, |before| before.min(end)));
    }
}

/// The entry after the object was applied; `known` is what was there before.
fn updated(known: Option<Entry>, facts: Facts, at: Timestamp) -> Entry {
    let Facts { identity, controller, start: told_start, phase } = facts;
    let is_over = phase == Phase::Over;
    let revived = known.as_ref().is_some_and(|entry| entry.gone);
    let first_seen = known.as_ref().filter(|_| !revived).map_or(at, |entry| entry.first_seen);
    let was_ended = known.as_ref().filter(|_| !revived).and_then(|entry| entry.end);
    let mut holdings = known.map_or_else(Vec::new, |entry| entry.holdings.into_vec());
    // An address of the node is no pod's: a pod on the host network is found by its cgroup only.
    // And a pod that ended holds nothing new.
    let holds_none = identity.host_network || was_ended.is_some() && is_over;
    let addrs: &[IpAddr] = if holds_none { &[] } else { &identity.addrs };
    for holding in &mut holdings {
        if holding.end.is_none() && !addrs.contains(&holding.addr) {
            holding.end = Some(at);
        }
    }
    let first = holdings.is_empty();
    for addr in addrs {
        if !holdings.iter().any(|holding| holding.addr == *addr && holding.end.is_none()) {
            let start = if first { None } else { Some(at) };
            holdings.push(Holding { addr: *addr, start, end: None });
        }
    }
    let excess = holdings.len().saturating_sub(HOLDINGS_MAX);
    holdings.drain(..excess);
    let mut entry = Entry {
        identity: Arc::new(identity),
        controller,
        first_seen,
        told_start,
        phase,
        end: None,
        holdings: holdings.into(),
        gone: false,
    };
    if is_over {
        close(&mut entry, was_ended.unwrap_or(at));
    }
    entry
}
