//! The pods of this node: what they have of secrets, and which container has which id.
//!
//! In: Pod objects and the starts of containers, in any order. Out: a pod's [`Spec`], the container
//! of an id, and what each container read last. Who a pod is and whether it is there the index
//! knows, and is asked for it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use foldhash::HashMap;

use super::limits::{CONTAINERS_A_POD_MAX, Limits};
use super::mounts::{Counted, PodMount, PodToken};
use super::spec::Spec;
use super::{SecretSource, VolumeId};
use crate::flow::Timestamp;
use crate::identity::time;
use crate::object::{MIRROR_ANNOTATION, Pod, PodParts, Run, RunStatus};

const SECOND_NS: u64 = 1_000_000_000;

/// What is known of one pod.
#[derive(Debug, Default)]
pub(super) struct PodFacts {
    pub(super) spec: Spec,
    /// What its kubelet calls it, if that is another UID.
    pub(super) kubelets: Option<Arc<str>>,
    /// Id of a container, without the runtime's name, to what is known of it.
    pub(super) runs: BTreeMap<Arc<str>, Container>,
    /// What is there to be read, as of the last look.
    pub(super) mounts: Vec<PodMount>,
    pub(super) tokens: Vec<PodToken>,
    /// Ids of containers whose start was counted, and for what.
    pub(super) counted: BTreeSet<(Arc<str>, Counted)>,
    /// What each container read last, by its id, the volume and what was read.
    pub(super) last: BTreeMap<(Arc<str>, VolumeId, SecretSource), LastRead>,
    /// The index says that it is there.
    pub(super) is_there: bool,
    is_gone: bool,
}

/// One container, as it was started once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) name: Arc<str>,
    /// When it started, in whole seconds; none if it was not told.
    pub(super) started_at: Option<Timestamp>,
}

/// The newest read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LastRead {
    pub(super) at: Timestamp,
    /// Of which generation; empty if nobody knows.
    pub(super) generation: Arc<str>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Pods {
    by_uid: HashMap<Arc<str>, PodFacts>,
    /// What a kubelet calls a pod to its UID.
    aliases: HashMap<Arc<str>, Arc<str>>,
    /// The ones gone longest first.
    gone: VecDeque<Arc<str>>,
    /// When the kernel made a container's cgroup, by the container's id.
    starts: HashMap<Arc<str>, Timestamp>,
    starts_order: VecDeque<Arc<str>>,
    refused: u64,
    limits: Limits,
}

impl Pods {
    pub(super) fn with_limits(limits: Limits) -> Self {
        Self {
            by_uid: HashMap::default(),
            aliases: HashMap::default(),
            gone: VecDeque::new(),
            starts: HashMap::default(),
            starts_order: VecDeque::new(),
            refused: 0,
            limits,
        }
    }

    /// Takes what the object says. Whether anything is other than before.
    pub(super) fn applied(&mut self, uid: &str, pod: &Pod, parts: &PodParts) -> bool {
        if !self.by_uid.contains_key(uid) && self.live() >= self.limits.pods {
            self.refused += 1;
            return false;
        }
        let is_new = !self.by_uid.contains_key(uid);
        let known = self.by_uid.entry(uid.into()).or_default();
        let mut is_other = is_new;
        let spec = Spec::of(parts);
        if known.spec != spec {
            known.spec = spec;
            is_other = true;
        }
        let kubelets = pod.metadata.annotations.get(MIRROR_ANNOTATION);
        if let Some(kubelets) = kubelets.filter(|kubelets| *kubelets != uid)
            && known.kubelets.as_deref() != Some(kubelets)
        {
            let alias: Arc<str> = kubelets.as_str().into();
            self.aliases.insert(alias.clone(), uid.into());
            if let Some(old) = known.kubelets.replace(alias) {
                self.aliases.remove(&old);
            }
            is_other = true;
        }
        let status = &parts.status;
        let statuses = status.container_statuses.iter().chain(&status.init_container_statuses);
        for status in statuses.chain(&status.ephemeral_container_statuses) {
            is_other |= known.ran(status);
        }
        is_other
    }

    /// The kernel made the cgroup of this container.
    pub(super) fn started(&mut self, container: &Arc<str>, at: Timestamp) -> bool {
        if self.starts.contains_key(container) {
            return false;
        }
        self.starts.insert(container.clone(), at);
        self.starts_order.push_back(container.clone());
        while self.starts_order.len() > self.limits.starts {
            let Some(oldest) = self.starts_order.pop_front() else { break };
            self.starts.remove(&oldest);
        }
        true
    }

    /// When the kernel made its cgroup.
    pub(super) fn start_of(&self, container: &str) -> Option<Timestamp> {
        self.starts.get(container).copied()
    }

    /// The pod of this UID, or of this one of its kubelet's.
    pub(super) fn get(&self, uid: &str) -> Option<&PodFacts> {
        self.by_uid.get(uid).or_else(|| self.by_uid.get(self.aliases.get(uid)?))
    }

    pub(super) fn get_mut(&mut self, uid: &str) -> Option<&mut PodFacts> {
        let uid = match self.by_uid.contains_key(uid) {
            true => uid,
            false => self.aliases.get(uid)?,
        };
        self.by_uid.get_mut(uid)
    }

    /// The UID of the object of the pod that its kubelet calls so.
    pub(super) fn uid_of<'a>(&'a self, uid: &'a str) -> &'a str {
        self.aliases.get(uid).map_or(uid, |uid| uid)
    }

    /// Every pod, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &PodFacts)> {
        self.by_uid.iter()
    }

    /// Looks again who is there. The UIDs of those that came or went.
    pub(super) fn look(&mut self, is_there: impl Fn(&str) -> bool) -> Vec<Arc<str>> {
        let mut changed = Vec::new();
        for (uid, pod) in &mut self.by_uid {
            let there = is_there(uid);
            if pod.is_there != there {
                pod.is_there = there;
                changed.push(uid.clone());
            }
        }
        changed
    }

    /// These are of no use any more, but for late records; the oldest of them are forgotten.
    pub(super) fn bury(&mut self, mut uids: Vec<Arc<str>>) {
        uids.sort_unstable();
        for uid in uids {
            if let Some(pod) = self.by_uid.get_mut(&uid).filter(|pod| !pod.is_gone) {
                pod.is_gone = true;
                self.gone.push_back(uid);
            }
        }
        while self.gone.len() > self.limits.gone_pods {
            let Some(oldest) = self.gone.pop_front() else { break };
            match self.by_uid.get_mut(&oldest) {
                Some(pod) if pod.is_there => pod.is_gone = false,
                Some(_) => self.forget(&oldest),
                None => {}
            }
        }
    }

    /// It is another node's.
    pub(super) fn forget(&mut self, uid: &str) {
        if let Some(alias) = self.by_uid.remove(uid).and_then(|pod| pod.kubelets) {
            self.aliases.remove(&alias);
        }
    }

    /// Pods that may be there, those that are gone, and how many were refused.
    pub(super) fn sizes(&self) -> (usize, usize, u64) {
        (self.live(), self.gone.len(), self.refused)
    }

    fn live(&self) -> usize {
        self.by_uid.len().saturating_sub(self.gone.len())
    }
}

impl PodFacts {
    /// Takes the ids in a status. Whether any is new.
    fn ran(&mut self, status: &RunStatus) -> bool {
        let states = [&status.state, &status.last_state];
        let runs = states.into_iter().flat_map(|state| [&state.running, &state.terminated]);
        let mut is_other = self.is_called(status, &status.container_id, None);
        for run in runs.flatten() {
            is_other |= self.ran_as(status, run);
        }
        is_other
    }

    fn ran_as(&mut self, status: &RunStatus, run: &Run) -> bool {
        let started_at = run.started_at.as_deref().and_then(time::parse);
        let id = match run.container_id.as_str() {
            "" => &status.container_id,
            _ => &run.container_id,
        };
        self.is_called(status, id, started_at)
    }

    fn is_called(&mut self, status: &RunStatus, id: &str, started_at: Option<Timestamp>) -> bool {
        let id = id.split_once("://").map_or(id, |(_, id)| id);
        if id.is_empty() {
            return false;
        }
        if let Some(known) = self.runs.get_mut(id) {
            let is_other = started_at.is_some() && known.started_at != started_at;
            known.started_at = started_at.or(known.started_at);
            return is_other;
        }
        let container = Container { name: status.name.as_str().into(), started_at };
        self.runs.insert(id.into(), container);
        if self.runs.len() > CONTAINERS_A_POD_MAX {
            let oldest = self.runs.iter().min_by_key(|(id, run)| (run.started_at, (*id).clone()));
            if let Some(oldest) = oldest.map(|(id, _)| id.clone()) {
                self.runs.remove(&oldest);
                self.last.retain(|(id, ..), _| *id != oldest);
                self.counted.retain(|(id, _)| *id != oldest);
            }
        }
        true
    }

    /// Whether this is the container's newest run.
    pub(super) fn is_newest(&self, id: &str) -> bool {
        let Some(run) = self.runs.get(id) else { return false };
        let others = self.runs.iter().filter(|(_, other)| other.name == run.name);
        let newest = others.max_by_key(|(id, run)| (run.started_at, *id));
        newest.is_some_and(|(newest, _)| **newest == *id)
    }
}

impl Container {
    /// Whether it began after this. Its pod says the second it began in. The kernel's word for its
    /// cgroup is exact, if it is of that time: a cgroup that is found at the agent's start is told
    /// with the time of that.
    pub(super) fn started_since(&self, since: Timestamp, made_at: Option<Timestamp>) -> bool {
        let made_since = made_at.is_some_and(|made_at| made_at >= since);
        match self.started_at {
            Some(started_at) => {
                let end = started_at.0.saturating_add(SECOND_NS);
                started_at >= since || made_since && made_at.is_some_and(|at| at.0 <= end)
            }
            None => made_since,
        }
    }
}
