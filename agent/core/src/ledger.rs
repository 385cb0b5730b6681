//! What was seen, by edge: counts, outcomes, times, and the ends to judge.
//!
//! In: resolved flow records, and the time as it goes on. Out: [`Edge`]s in the order of their
//! keys, with what the engine judged of their samples. It knows no policy and no object, reads no
//! clock, and never holds more than [`EDGES_MAX`] edges.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldhash::HashMap;
use parapet_common::SHARE_DIVISOR;

use self::open::{Ended, Open};
use crate::flow::{Direction, End, Endpoint, Group, Outcome, PodIdentity, Timestamp, UnknownEnd};
use crate::identity::Resolved;
use crate::judgement::{Judgement, Judgements};
use crate::record::{Counts, FlowRecord};
use crate::snapshot::{Edge, EdgeEnd, EdgeKey, Outcomes};

pub use self::open::UNANSWERED_AFTER_NS;

mod open;

/// Edges counted at once, of which one workload of this node (or unit of the node) has one part in
/// [`SHARE_DIVISOR`] at most: whoever meets all of the internet takes no room from the others.
/// Records of further ones are refused and counted.
pub const EDGES_MAX: usize = 65_536;
/// Loss stage: records whose edge found no room.
pub const STAGE_EDGES_FULL: &str = "edges_full";
/// Loss stage: records whose edge found its workload's share of the edges used up.
pub const STAGE_EDGES_QUOTA: &str = "edges_quota";
/// Different pairs of ends that are judged for one edge: pods of one workload may differ in labels
/// and named ports, as during a roll-out. The pair that was seen longest ago gives way.
pub const SAMPLES_MAX: usize = 8;

/// All edges.
#[derive(Debug)]
pub struct Ledger {
    entries: BTreeMap<Arc<EdgeKey>, Entry>,
    edges_max: usize,
    /// Edges by the end that this node has.
    by_local_end: HashMap<EdgeEnd, usize>,
    now: Timestamp,
    /// Edges that had open attempts when they were put here, each once, by when to look again.
    due: BTreeSet<(Timestamp, Arc<EdgeKey>)>,
    /// Of every edge until it is judged.
    unjudged: Arc<Judgement>,
}

/// Why a new edge is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// There are as many as there may be.
    Full,
    /// Its local end has as many as one may have.
    Share,
}

impl NoRoom {
    /// As losses name it.
    #[must_use]
    pub const fn stage(self) -> &'static str {
        match self {
            Self::Full => STAGE_EDGES_FULL,
            Self::Share => STAGE_EDGES_QUOTA,
        }
    }
}

/// One edge and what its verdicts are made of.
#[derive(Debug)]
pub struct Entry {
    edge: Arc<Edge>,
    samples: Vec<Sample>,
    uses: u64,
    /// The edge's verdicts are not those of its samples.
    stale: bool,
    open: Open,
    /// It is in [`Ledger::due`].
    is_due: bool,
}

/// One pair of ends, standing for all flows of the edge whose ends are judged alike.
#[derive(Debug)]
pub struct Sample {
    /// Who began.
    pub source: End,
    /// Who was asked.
    pub target: End,
    /// What the policy sets say of them; none if they were not asked.
    pub judgement: Option<Arc<Judgement>>,
    last_use: u64,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::with_capacity(EDGES_MAX)
    }
}

impl Ledger {
    /// Holds so many edges at most.
    #[must_use]
    pub fn with_capacity(edges_max: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            edges_max,
            by_local_end: HashMap::default(),
            now: Timestamp::default(),
            due: BTreeSet::new(),
            unjudged: Arc::default(),
        }
    }

    /// Adds a record to its edge.
    ///
    /// # Errors
    /// The edge is new and there is no room for it.
    pub fn add(&mut self, record: &FlowRecord, resolved: &Resolved) -> Result<&mut Entry, NoRoom> {
        let key = key_of(record, resolved);
        if !self.entries.contains_key(&key) {
            self.take_room(&key)?;
            let key = Arc::new(key.clone());
            self.entries.insert(Arc::clone(&key), Entry::new(key, record, &self.unjudged));
        }
        let entry = self.entries.get_mut(&key).ok_or(NoRoom::Full)?;
        // A record that waited for an identity brings attempts whose answers may wait, too.
        entry.count(record, resolved, record.last_seen.max(self.now));
        if !entry.is_due
            && let Some(due) = entry.open.due()
        {
            entry.is_due = true;
            self.due.insert((due, entry.edge.key.clone()));
        }
        Ok(entry)
    }

    fn take_room(&mut self, key: &EdgeKey) -> Result<(), NoRoom> {
        if self.entries.len() >= self.edges_max {
            return Err(NoRoom::Full);
        }
        let share = self.edges_max.div_ceil(SHARE_DIVISOR as usize);
        let edges = self.by_local_end.entry(key.local_end().clone()).or_default();
        if *edges >= share {
            return Err(NoRoom::Share);
        }
        *edges += 1;
        Ok(())
    }

    /// It is this time now: gives up the attempts that are open for too long. Looks at no edge but
    /// those that have, or had, such attempts.
    pub fn tick(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        while self.due.first().is_some_and(|(due, _)| *due <= self.now) {
            let Some((_, key)) = self.due.pop_first() else { break };
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            entry.give_up(self.now);
            match entry.open.due() {
                Some(due) => {
                    self.due.insert((due, key));
                }
                None => entry.is_due = false,
            }
        }
    }

    /// These pods are judged by other labels, ports or addresses from now on.
    pub fn pods_changed(&mut self, pods: &[Arc<PodIdentity>]) {
        let pods: HashMap<_, _> = pods.iter().map(|pod| (pod.uid.clone(), pod)).collect();
        if pods.is_empty() {
            return;
        }
        for entry in self.entries.values_mut() {
            for sample in &mut entry.samples {
                let Sample { source, target, judgement, .. } = sample;
                for end in [source, target] {
                    if let Endpoint::Pod(pod) = &mut end.endpoint
                        && let Some(new) = pods.get(&pod.uid)
                    {
                        *pod = Arc::clone(new);
                        *judgement = None;
                        entry.stale = true;
                    }
                }
            }
        }
    }

    /// The verdicts of these pairs of ends do not hold any more.
    pub fn forget_judgements(&mut self, touched: impl Fn(&Sample) -> bool) {
        for entry in self.entries.values_mut() {
            for sample in entry.samples.iter_mut().filter(|sample| touched(sample)) {
                sample.judgement = None;
                entry.stale = true;
            }
        }
    }

    /// Edges whose verdicts are not those of their samples.
    pub fn stale(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.values_mut().filter(|entry| entry.stale)
    }

    /// All edges in the order of their keys.
    #[must_use]
    pub fn edges(&self) -> Vec<Arc<Edge>> {
        self.entries.values().map(|entry| entry.edge.clone()).collect()
    }

    /// Edges, and how many there may be.
    #[must_use]
    pub fn sizes(&self) -> (u64, u64) {
        (self.entries.len() as u64, self.edges_max as u64)
    }
}

impl Entry {
    fn new(key: Arc<EdgeKey>, record: &FlowRecord, unjudged: &Arc<Judgement>) -> Self {
        let edge = Edge {
            key,
            counts: Counts::default(),
            outcomes: Outcomes::default(),
            open: 0,
            first_seen: record.since,
            last_seen: record.last_seen,
            names: None,
            judgement: Arc::clone(unjudged),
        };
        Self {
            edge: Arc::new(edge),
            samples: Vec::new(),
            uses: 0,
            stale: false,
            open: Open::default(),
            is_due: false,
        }
    }

    /// The edge as it is now.
    #[must_use]
    pub fn edge(&self) -> &Arc<Edge> {
        &self.edge
    }

    /// The pairs of ends it is judged by.
    pub fn samples(&mut self) -> &mut [Sample] {
        &mut self.samples
    }

    fn count(&mut self, record: &FlowRecord, resolved: &Resolved, at: Timestamp) {
        let edge = Arc::make_mut(&mut self.edge);
        if let Endpoint::Named(names) = &resolved.target.endpoint {
            let facts = edge.names.get_or_insert_default();
            Arc::make_mut(facts).add(names, resolved.target.addr);
        }
        let seen = as_source_means(record);
        let counts = &mut edge.counts;
        let fields = [
            (&mut counts.sent_packets, seen.sent_packets),
            (&mut counts.sent_bytes, seen.sent_bytes),
            (&mut counts.received_packets, seen.received_packets),
            (&mut counts.received_bytes, seen.received_bytes),
            (&mut counts.attempts, seen.attempts),
            (&mut counts.answered, seen.answered),
            (&mut counts.refused, seen.refused),
            (&mut counts.refused_port, seen.refused_port),
            (&mut counts.refused_route, seen.refused_route),
            (&mut counts.closed, seen.closed),
            (&mut counts.handshake_ns, seen.handshake_ns),
        ];
        for (total, more) in fields {
            *total = total.saturating_add(more);
        }
        if record.direction.is_none() {
            // Nobody counted how it began: there must have been one attempt at least.
            edge.outcomes.set(Outcome::Unknown, edge.counts.attempts.max(1));
        } else {
            let Ended { answered, refused } = self.open.take(record, at);
            edge.outcomes.add(Outcome::Answered, answered);
            edge.outcomes.add(Outcome::Refused, refused);
            edge.open = self.open.count();
        }
        edge.first_seen = edge.first_seen.min(record.since);
        edge.last_seen = edge.last_seen.max(record.last_seen);
    }

    fn give_up(&mut self, now: Timestamp) {
        let given_up = self.open.give_up(now);
        if given_up > 0 {
            let edge = Arc::make_mut(&mut self.edge);
            edge.outcomes.add(Outcome::Unanswered, given_up);
            edge.open = self.open.count();
        }
    }

    /// The sample for these ends: a known one that is judged alike, or a new one without verdicts.
    pub fn sample(&mut self, resolved: &Resolved) -> &mut Sample {
        self.uses += 1;
        let alike = |sample: &Sample| {
            judged_alike(&sample.source, &resolved.source)
                && judged_alike(&sample.target, &resolved.target)
        };
        let at = match self.samples.iter().position(alike) {
            Some(at) => at,
            None => {
                if self.samples.len() >= SAMPLES_MAX {
                    let oldest = self.samples.iter().enumerate().min_by_key(|(_, s)| s.last_use);
                    let oldest = oldest.map_or(0, |(at, _)| at);
                    self.samples.remove(oldest);
                }
                self.stale = true;
                // Most edges never have a second one, and a vector would make room for four.
                self.samples.reserve_exact(1);
                self.samples.push(Sample {
                    source: resolved.source.clone(),
                    target: resolved.target.clone(),
                    judgement: None,
                    last_use: 0,
                });
                self.samples.len() - 1
            }
        };
        let sample = &mut self.samples[at];
        sample.last_use = self.uses;
        // Backends come and go under one Service.
        if let (Endpoint::Service(old), Endpoint::Service(new)) =
            (&sample.target.endpoint, &resolved.target.endpoint)
            && !Arc::ptr_eq(old, new)
        {
            if old != new {
                sample.judgement = None;
                self.stale = true;
            }
            sample.target = resolved.target.clone();
        }
        sample
    }

    /// Puts the worst of what is said of the samples into the edge (see
    /// [`Judgement::add_worse`]).
    pub fn combine(&mut self, judgements: &mut Judgements) {
        self.stale = false;
        let mut said = self.samples.iter().filter_map(|sample| sample.judgement.as_ref());
        let Some(first) = said.next() else { return };
        let mut worst = Arc::clone(first);
        for other in said.filter(|other| !Arc::ptr_eq(first, other)) {
            Arc::make_mut(&mut worst).add_worse(other);
        }
        if worst != *first {
            worst = judgements.share(Arc::unwrap_or_clone(worst));
        }
        // An edge that is judged as before stays as it was published.
        if !Arc::ptr_eq(&self.edge.judgement, &worst) {
            Arc::make_mut(&mut self.edge).judgement = worst;
        }
    }
}

/// The local socket's counts, or for a socket that was asked the peer's.
fn as_source_means(record: &FlowRecord) -> Counts {
    let counts = record.counts;
    if record.direction != Some(Direction::Ingress) {
        return counts;
    }
    Counts {
        sent_packets: counts.received_packets,
        sent_bytes: counts.received_bytes,
        received_packets: counts.sent_packets,
        received_bytes: counts.sent_bytes,
        ..counts
    }
}

/// Whether every policy says the same of both. The pods of one workload have different addresses,
/// and a CIDR could tell them apart; that is left to the pod that stands for them.
fn judged_alike(a: &End, b: &End) -> bool {
    match (&a.endpoint, &b.endpoint) {
        (Endpoint::Pod(a), Endpoint::Pod(b)) => Arc::ptr_eq(a, b) || a.is_judged_as(b),
        (Endpoint::Service(a), Endpoint::Service(b)) => {
            a.namespace == b.namespace && a.name == b.name
        }
        (Endpoint::Node(a), Endpoint::Node(b)) => a == b,
        (Endpoint::External, Endpoint::External) => a.addr == b.addr,
        (Endpoint::Named(x), Endpoint::Named(y)) => x == y && a.addr == b.addr,
        (Endpoint::Group(x), Endpoint::Group(y)) => x == y && a.addr == b.addr,
        (Endpoint::Unknown(a), Endpoint::Unknown(b)) => a == b,
        _ => false,
    }
}

fn key_of(record: &FlowRecord, resolved: &Resolved) -> EdgeKey {
    let mut source = edge_end(&resolved.source);
    let mut target = edge_end(&resolved.target);
    let local_asks = record.direction != Some(Direction::Ingress);
    if let EdgeEnd::Node { cgroup, .. } = if local_asks { &mut source } else { &mut target } {
        cgroup.clone_from(&resolved.cgroup);
    }
    if resolved.loopback {
        *(if local_asks { &mut target } else { &mut source }) = EdgeEnd::Loopback;
    }
    EdgeKey {
        direction: record.direction,
        protocol: record.protocol.0,
        target_port: resolved.port,
        source,
        target,
        source_rewritten: resolved.source_rewritten,
    }
}

fn edge_end(end: &End) -> EdgeEnd {
    match &end.endpoint {
        Endpoint::Pod(pod) => {
            EdgeEnd::Pod { namespace: pod.namespace.clone(), workload: pod.workload.clone() }
        }
        Endpoint::Node(name) => EdgeEnd::Node { name: name.clone(), cgroup: None },
        Endpoint::Service(service) => {
            let mut backends = service.backends.iter();
            let first = backends.next();
            let agreed = first.map(|(end, port)| (edge_end(end), *port));
            let agreed = agreed.filter(|(first, first_port)| {
                matches!(first, EdgeEnd::Pod { .. })
                    && backends.all(|(end, port)| port == first_port && edge_end(end) == *first)
            });
            match agreed {
                Some((workload, _)) => workload,
                None => EdgeEnd::Service {
                    namespace: service.namespace.clone(),
                    name: service.name.clone(),
                },
            }
        }
        Endpoint::External | Endpoint::Named(_) | Endpoint::Group(_) => {
            match (&end.endpoint, name_of(&end.endpoint), end.addr) {
                (_, Some(name), _) => EdgeEnd::Name { name: name.clone() },
                (Endpoint::Group(Group::Multicast), _, Some(address)) => {
                    EdgeEnd::Multicast { address }
                }
                (Endpoint::Group(Group::Broadcast), _, Some(address)) => {
                    EdgeEnd::Broadcast { address }
                }
                (_, _, Some(address)) => EdgeEnd::External { address },
                (_, _, None) => EdgeEnd::Unknown { reason: UnknownEnd::NoHolder.label() },
            }
        }
        Endpoint::Unknown(reason) => EdgeEnd::Unknown { reason: reason.label() },
    }
}

/// The name an end is known by.
fn name_of(endpoint: &Endpoint) -> Option<&Arc<str>> {
    match endpoint {
        Endpoint::Named(names) => names.first(),
        _ => None,
    }
}
