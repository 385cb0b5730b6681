//! Everything about secrets: what is told of volumes, pods and readers in, answers out.
//!
//! In: volumes, pods of this node, readers and reads, in whatever order they come. Out: a
//! [`SecretsSnapshot`] that is made anew only if something is other than before. It asks the index
//! who somebody is, and reads no clock. A read is settled once: before that it waits until all is
//! known, for some time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::attribute::{Finding, Known, Unattributed, Units};
use super::limits::Limits;
use super::mounts::{Mounts, mounts_of, tokens_of};
use super::pods::{LastRead, Pods};
use super::readers::Readers;
use super::rows::Rows;
use super::volumes::Volumes;
use super::waiting::{Waiting, WaitingReads};
use super::{ReadRecord, ReaderSeen, Relation, SecretsSnapshot, VolumeFacts};
use crate::access::Access;
use crate::flow::Timestamp;
use crate::identity::{Index, Place};
use crate::object::Pod;

/// How long a read waits to be attributed once every source is there, in nanoseconds.
pub const READ_WAIT_NS: u64 = 10_000_000_000;
/// How long it waits for its reader's names alone: the ring brings them, or it was full.
pub const NAMES_WAIT_NS: u64 = 2_000_000_000;

/// All that is known of secrets.
#[derive(Debug)]
pub struct Secrets {
    pub(super) pods: Pods,
    pub(super) volumes: Volumes,
    pub(super) mounts: Mounts,
    pub(super) rows: Rows,
    pub(super) unattributed: BTreeMap<&'static str, u64>,
    /// When opens were lost last.
    pub(super) gap_at: Option<Timestamp>,
    readers: Readers,
    waiting: WaitingReads,
    units: Units,
    /// Pods to look at anew.
    touched: BTreeSet<Arc<str>>,
    /// Some pods may have come or gone.
    look: bool,
    /// Something that reads wait for may be known now.
    retry: bool,
    snapshot: Arc<SecretsSnapshot>,
    is_stale: bool,
}

impl Secrets {
    /// Nothing known. The kubelet's and the runtime's processes are those of these units, see
    /// [`Place`].
    #[must_use]
    pub fn new(kubelet_units: Vec<Arc<str>>, runtime_units: Vec<Arc<str>>) -> Self {
        let units = Units { kubelet: kubelet_units, runtime: runtime_units };
        Self::with_limits(units, Limits::default())
    }

    pub(crate) fn with_limits(units: Units, limits: Limits) -> Self {
        Self {
            pods: Pods::with_limits(limits),
            volumes: Volumes::with_limits(limits),
            mounts: Mounts::with_limits(limits),
            rows: Rows::with_max(limits.reads),
            unattributed: BTreeMap::new(),
            gap_at: None,
            readers: Readers::with_max(limits.readers),
            waiting: WaitingReads::with_max(limits.waiting),
            units,
            touched: BTreeSet::new(),
            look: false,
            retry: false,
            snapshot: Arc::default(),
            is_stale: false,
        }
    }

    /// This is mounted and watched now, and nothing else.
    pub fn volumes_listed(&mut self, facts: &[VolumeFacts], at: Timestamp) {
        let changed = self.volumes.listed(facts, at);
        self.touched.extend(changed.iter().map(|uid| self.pods.uid_of(uid).into()));
        self.retry = true;
        self.is_stale = true;
    }

    /// The object of a pod, by the UID that the index has for it. Without its parts it says
    /// nothing, and nothing either if it is of a node that is known not to be this one.
    pub fn pod_applied(&mut self, uid: &str, pod: &Pod, own_node: &str) {
        let Some(parts) = &pod.parts else { return };
        let node = pod.spec.node_name.as_str();
        if !own_node.is_empty() && !node.is_empty() && node != own_node {
            return;
        }
        self.look = true;
        if self.pods.applied(uid, pod, parts) {
            self.touched.insert(uid.into());
            self.retry = true;
        }
    }

    /// This node has this name; empty if nobody knows.
    pub fn node_is(&mut self, name: &str, index: &Index) {
        let is_others = |uid: &Arc<str>| {
            let node = index.pod(uid).map_or("", |pod| &*pod.node);
            !name.is_empty() && !node.is_empty() && node != name
        };
        let others: Vec<_> =
            self.pods.iter().map(|(uid, _)| uid.clone()).filter(is_others).collect();
        for uid in others {
            self.pods.forget(&uid);
        }
    }

    /// Some pods may be gone.
    pub fn pods_gone(&mut self) {
        self.look = true;
    }

    /// Who may have what by default is other than before.
    pub fn accounts_changed(&mut self) {
        self.is_stale = true;
    }

    /// A cgroup was made, which the index knows by now.
    pub fn cgroup_made(&mut self, place: Option<&Place>, at: Timestamp) {
        self.retry |= !self.waiting.is_empty();
        if let Some(Place::Pod { uid, container: Some(id) }) = place
            && self.pods.started(id, at)
        {
            self.touched.insert(self.pods.uid_of(uid).into());
        }
    }

    /// What a reader and its file are called.
    pub fn reader_seen(&mut self, seen: &ReaderSeen) {
        self.readers.seen(seen);
        self.retry |= !self.waiting.is_empty();
    }

    /// Opens were lost: what seems to be unread may have been read.
    pub fn lost(&mut self, at: Timestamp) {
        self.gap_at = self.gap_at.max(Some(at));
        self.is_stale = true;
    }

    /// A file was read. Until every source is there it waits in any case.
    pub fn read(&mut self, read: ReadRecord, index: &Index, (now, is_synced): (Timestamp, bool)) {
        let from = if now == Timestamp::default() { read.last_seen } else { now };
        let waiting = Waiting { read, from };
        if is_synced {
            self.refresh(index, now);
            if self.try_settle(&waiting, index, from) {
                return;
            }
        }
        let Some(read) = self.waiting.push(waiting) else { return };
        self.count(Unattributed::WaitingFull, &read);
        self.lost(now);
        if is_synced {
            let known = self.as_known(&read);
            let finding = self.known(index).attribute(&known, Some(read.file));
            self.settle(&known, finding);
        } else {
            self.rows.fold(&read, Relation::Unknown);
            self.is_stale = true;
        }
    }

    /// Every source is there: from now on reads wait for a while only.
    pub fn became_synced(&mut self, now: Timestamp) {
        self.waiting.restart(now);
        self.retry = true;
        self.look = true;
    }

    /// Looks again at what waits, if anything came that it may wait for, or at a tick.
    pub fn settle_waiting(&mut self, index: &Index, now: Timestamp, is_tick: bool) {
        if is_tick {
            let (index, volumes) = (index, &self.volumes);
            self.readers.sweep(
                |cgroup| index.place(cgroup).is_some(),
                |file| volumes.get(file.volume, Timestamp(0), Timestamp(0)).is_some(),
            );
        }
        let look = std::mem::take(&mut self.retry) || is_tick;
        if !look || self.waiting.is_empty() {
            return;
        }
        self.refresh(index, now);
        for waiting in self.waiting.take() {
            if !self.try_settle(&waiting, index, now) {
                self.waiting.push(waiting);
            }
        }
    }

    /// Everything known, as of now. The same value for as long as nothing changes.
    pub fn snapshot(
        &mut self,
        index: &Index,
        access: &Access,
        (now, is_synced): (Timestamp, bool),
    ) -> Arc<SecretsSnapshot> {
        if is_synced {
            self.refresh(index, now);
            if std::mem::take(&mut self.is_stale) {
                self.snapshot = Arc::new(self.answers(access));
            }
        }
        self.snapshot.clone()
    }

    /// Table name to (entries, capacity).
    #[must_use]
    pub fn tables(&self) -> BTreeMap<&'static str, (u64, u64)> {
        super::tables::sizes(self)
    }

    /// What found a table full.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.volumes.sizes().3
            + self.pods.sizes().2
            + self.readers.sizes().1
            + self.mounts.sizes().2
            + self.rows.sizes().2
    }

    pub(super) fn waiting_sizes(&self) -> (u64, u64) {
        self.waiting.sizes()
    }

    pub(super) fn readers_len(&self) -> u64 {
        self.readers.sizes().0 as u64
    }

    fn known<'a>(&'a self, index: &'a Index) -> Known<'a> {
        let Self { pods, volumes, readers, units, .. } = self;
        Known { index, pods, volumes, readers, units }
    }

    /// Looks at every pod of which something came.
    fn refresh(&mut self, index: &Index, now: Timestamp) {
        if std::mem::take(&mut self.look) {
            let changed = self.pods.look(|uid| index.is_there(uid));
            self.is_stale |= !changed.is_empty();
            self.touched.extend(changed);
        }
        let touched = std::mem::take(&mut self.touched);
        let mut gone = Vec::new();
        for uid in touched {
            let made: BTreeMap<Arc<str>, Timestamp> = match self.pods.get(&uid) {
                Some(pod) => {
                    let ids = pod.runs.keys();
                    ids.filter_map(|id| Some((id.clone(), self.pods.start_of(id)?))).collect()
                }
                None => continue,
            };
            let (Some(identity), Some(pod)) = (index.pod(&uid), self.pods.get_mut(&uid)) else {
                continue;
            };
            let aliases = pod.kubelets.iter().chain([&uid]);
            let volumes: Vec<_> = aliases.flat_map(|uid| self.volumes.of_pod(uid)).collect();
            pod.mounts = mounts_of(identity, pod, &volumes);
            pod.tokens = tokens_of(identity, pod);
            self.mounts.saw(pod, &volumes, &made, now);
            if !pod.is_there {
                gone.push(uid);
            }
            self.is_stale = true;
        }
        self.pods.bury(gone);
    }

    /// Whether it needs to wait no longer.
    fn try_settle(&mut self, waiting: &Waiting, index: &Index, now: Timestamp) -> bool {
        let Waiting { read, from } = waiting;
        let called = read.file;
        let read = self.as_known(read);
        let waited = now.0.saturating_sub(from.0);
        let finding = self.known(index).attribute(&read, None);
        if finding.may_improve() && waited < READ_WAIT_NS {
            return false;
        }
        if self.readers.of(&read.reader).is_none() && waited < NAMES_WAIT_NS {
            return false;
        }
        let finding = match finding.may_improve() {
            true => self.known(index).attribute(&read, Some(called)),
            false => finding,
        };
        self.settle(&read, finding);
        true
    }

    /// The same with the volume's id by which it is known.
    fn as_known(&mut self, read: &ReadRecord) -> ReadRecord {
        let mut read = *read;
        read.file.volume = self.volumes.known_as(read.file.volume);
        read
    }

    /// Counts it for good.
    fn settle(&mut self, read: &ReadRecord, finding: Finding) {
        for problem in &finding.problems {
            self.count(*problem, read);
        }
        self.rows.add(read, &finding, self.readers.of(&read.reader));
        self.is_stale = true;
        let Some((uid, volume)) = &finding.volume else { return };
        let Some(pod) = self.pods.get_mut(uid) else { return };
        if let Some(own) = &finding.own {
            let key = (own.container_id.clone(), read.file.volume, finding.source.clone());
            let last = LastRead { at: read.last_seen, generation: finding.generation.clone() };
            let known = pod.last.entry(key).or_insert_with(|| last.clone());
            *known = known.clone().max(last);
            self.mounts.read(pod, (volume, &finding.source), read, own);
        } else if finding.may_be_own {
            self.mounts.may_have_read(pod, volume, &finding.source);
        }
    }

    fn count(&mut self, problem: Unattributed, read: &ReadRecord) {
        let total = self.unattributed.entry(problem.label()).or_default();
        *total = total.saturating_add(read.counts.opens.max(1));
    }
}
