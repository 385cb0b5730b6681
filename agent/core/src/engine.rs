//! The one owner of all state: inputs in, a snapshot out.
//!
//! In: [`Input`]s in the order they happened. Out: [`Snapshot`]s. It holds the control flow of the
//! core; it never reads a clock, blocks, logs or does I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use self::pending::Pending;
use crate::access::Access;
use crate::flow::{Direction, End, Endpoint, PodIdentity, Timestamp, UnknownEnd};
use crate::identity::{Index, NodeFacts, PeersMet, Resolved};
use crate::judgement::{Judgement, Judgements};
use crate::ledger::{Ledger, Sample};
use crate::names::Names;
use crate::object::{Change, Kind};
use crate::policy::{PolicySet, Probe, Selection};
use crate::record::{FlowRecord, Record};
use crate::secrets::{Secrets, VolumeFacts};
use crate::snapshot::{EdgeKey, EndSide, RejectedPolicy, Snapshot, VerdictTotals};
use crate::verdict::{Decision, Profile, Reason, SideVerdict, Verdict};

pub use self::pending::{PENDING_MAX, PENDING_WAIT_NS};
pub use self::secrets::{KUBELET_UNITS, RUNTIME_UNITS, STAGE_SECRET_TABLES_FULL};
pub use self::sets::{
    CANDIDATES_MAX, Candidate, DEFAULT_DENY, ENFORCED, POLICIES_MAX, PolicySets, Touched,
};
pub use crate::ledger::{STAGE_EDGES_FULL, STAGE_EDGES_QUOTA};

mod naming;
mod pending;
mod secrets;
mod sets;

/// Loss stage: records that could not wait for an identity.
pub const STAGE_PENDING_FULL: &str = "pending_full";
/// Loss stage: objects and cgroups that found their table full.
pub const STAGE_INDEX_FULL: &str = "index_full";

/// More changed policies at once than this touch everything.
const TOUCHED_MAX: usize = 64;

/// Everything that can happen to the engine.
#[derive(Clone, Debug)]
pub enum Input {
    /// Facts from the kernel and the node's cgroup tree, oldest first.
    Records(Vec<Record>),
    /// The cluster, or a folder of manifests, changed at this time.
    Cluster(Vec<Change>, Timestamp),
    /// A named candidate is now exactly this, even if it changes nothing. A name that was not known
    /// is one set more.
    Candidate(Arc<str>, Candidate, Timestamp),
    /// There is no such candidate any more, and nothing is said of it from now on.
    CandidateGone(Arc<str>, Timestamp),
    /// A lookup found no pod at this address.
    NobodyAt(IpAddr, Timestamp),
    /// Pods with these UIDs, known by lookups, are not followed any more.
    PodsUnused(Vec<String>, Timestamp),
    /// This node: its name and all of its own addresses, bridges and tunnels included.
    Node(NodeFacts),
    /// Every secret volume and watched file of this node, as of this time.
    Volumes(Vec<VolumeFacts>, Timestamp),
    /// Time went on.
    Tick(Timestamp),
}

/// What is fixed for the engine's life.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Which letter policies are read by.
    pub profile: Profile,
    /// Candidates that will come: nothing is judged before each was given once, even if empty.
    pub candidates: Vec<Arc<str>>,
    /// Edges held at most.
    pub edges_max: usize,
    /// Records that wait at most.
    pub pending_max: usize,
    /// Only pods of this node are told; those of others are looked up, see
    /// [`Engine::take_peers_met`].
    pub lookups: bool,
    /// Units of this node, see [`crate::identity::Place`], whose processes are the kubelet's.
    pub kubelet_units: Vec<Arc<str>>,
    /// Those whose processes are the container runtime's.
    pub runtime_units: Vec<Arc<str>>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            profile: Profile::default(),
            candidates: Vec::new(),
            edges_max: crate::ledger::EDGES_MAX,
            pending_max: PENDING_MAX,
            lookups: false,
            kubelet_units: KUBELET_UNITS.map(Arc::from).into(),
            runtime_units: RUNTIME_UNITS.map(Arc::from).into(),
        }
    }
}

/// All state of the agent that is not the kernel's.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    index: Index,
    sets: PolicySets,
    ledger: Ledger,
    judgements: Judgements,
    pending: Pending,
    names: Names,
    access: Access,
    secrets: Secrets,
    /// Kinds of which a full list runs, and those of which one was complete.
    listing: BTreeSet<Kind>,
    synced: BTreeSet<Kind>,
    /// Candidates of the configuration that were not given yet.
    awaited: BTreeSet<Arc<str>>,
    now: Timestamp,
    observing_since: Option<Timestamp>,
    lost: BTreeMap<&'static str, u64>,
    unattributed: BTreeMap<(EndSide, &'static str), u64>,
    /// Records that were put into edges before the first full lists.
    never_judged: u64,
    totals: VerdictTotals,
}

/// What the records that wait have to be looked at for.
#[derive(Clone, Copy, Default)]
struct Retry {
    /// Something may resolve otherwise.
    index: bool,
    /// The last source came: their time to wait begins.
    became_synced: bool,
}

impl Engine {
    /// Nothing known, nothing seen.
    #[must_use]
    pub fn new(config: EngineConfig) -> Self {
        let mut index = Index::default();
        if config.lookups {
            index.know_peers_by_lookup();
        }
        Self {
            index,
            sets: PolicySets::default(),
            ledger: Ledger::with_capacity(config.edges_max),
            judgements: Judgements::default(),
            pending: Pending::with_capacity(config.pending_max),
            names: Names::default(),
            access: Access::default(),
            secrets: Secrets::new(config.kubelet_units.clone(), config.runtime_units.clone()),
            listing: BTreeSet::new(),
            synced: BTreeSet::new(),
            awaited: config.candidates.iter().cloned().collect(),
            now: Timestamp::default(),
            observing_since: None,
            lost: BTreeMap::new(),
            unattributed: BTreeMap::new(),
            never_judged: 0,
            totals: VerdictTotals::new(),
            config,
        }
    }

    /// Takes one input.
    pub fn step(&mut self, input: Input) {
        let was_synced = self.is_synced();
        let is_tick = matches!(input, Input::Tick(_));
        let mut retry = Retry::default();
        match input {
            Input::Records(records) => {
                for record in records {
                    retry.index |= self.take_record(record);
                }
            }
            Input::Cluster(changes, at) => {
                self.time_is(at);
                retry.index = self.take_changes(changes, at);
            }
            Input::Candidate(name, candidate, at) => {
                self.time_is(at);
                let selection = self.index.selection_mut();
                let touched = self.sets.candidate(&name, &candidate, selection);
                self.awaited.remove(&name);
                self.forget_touched(touched);
            }
            Input::CandidateGone(name, at) => {
                self.time_is(at);
                self.awaited.remove(&name);
                let touched = self.sets.candidate_gone(&name);
                self.totals.retain(|(set, ..), _| *set != name);
                self.forget_touched(touched);
            }
            Input::NobodyAt(addr, at) => {
                self.time_is(at);
                self.index.nobody_at(addr, at);
                retry.index = true;
            }
            Input::PodsUnused(uids, at) => {
                self.time_is(at);
                self.index.pods_unused(uids.iter().map(String::as_str), at);
                self.secrets.pods_gone();
            }
            Input::Node(facts) => {
                self.index.set_node(&facts);
                self.secrets.node_is(&facts.name, &self.index);
                retry.index = true;
            }
            Input::Volumes(facts, at) => {
                self.time_is(at);
                self.secrets.volumes_listed(&facts, at);
            }
            Input::Tick(at) => {
                self.time_is(at);
                self.ledger.tick(self.now);
                self.names.age(at);
                let selection = self.index.selection_mut();
                if selection.wants_sweep() {
                    selection.sweep();
                }
            }
        }
        retry.became_synced = !was_synced && self.is_synced();
        self.settle_pending(retry);
        self.settle_reads(retry.became_synced, is_tick);
    }

    /// Everything known, as of the last step.
    pub fn snapshot(&mut self) -> Arc<Snapshot> {
        self.judge_stale();
        let mut lost = self.lost.clone();
        let refused = self.index.refused() + self.access.refused();
        if refused > 0 {
            lost.insert(STAGE_INDEX_FULL, refused);
        }
        lost.extend(self.secrets_lost());
        lost.extend(self.names.lost().into_iter().filter(|(_, count)| *count > 0));
        let mut tables = self.index.tables();
        tables.append(&mut self.access.tables());
        tables.append(&mut self.secrets.tables());
        tables.insert("candidates", self.sets.sizes());
        tables.insert("names", self.names.sizes());
        tables.insert("edges", self.ledger.sizes());
        tables.insert("pending", self.pending.sizes());
        let waiting = self.pending.sizes().0;
        let synced = self.is_synced();
        Arc::new(Snapshot {
            at: self.now,
            observing_since: self.observing_since.unwrap_or_default(),
            synced,
            edges: self.ledger.edges(),
            policy_sets: self.sets.names().to_vec(),
            lost,
            unattributed: self.unattributed.clone(),
            pending: waiting,
            unjudged: self.never_judged + if synced { 0 } else { waiting },
            tables,
            rejections: self.rejections(),
            notices: self.sets.notices(),
            verdict_totals: self.totals.clone(),
            secrets: self.secrets_snapshot(),
        })
    }

    /// Policies that no set holds, and why.
    #[must_use]
    pub fn rejections(&self) -> Vec<RejectedPolicy> {
        self.sets.rejections()
    }

    /// Which addresses to look up, and which looked-up ones are in use, since this was asked last.
    pub fn take_peers_met(&mut self) -> PeersMet {
        self.index.take_peers_met()
    }

    /// Who is who, for those who explain.
    #[must_use]
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Who may do what.
    #[must_use]
    pub fn access(&self) -> &Access {
        &self.access
    }

    fn is_synced(&self) -> bool {
        Kind::ALL.iter().all(|kind| self.synced.contains(kind)) && self.awaited.is_empty()
    }

    /// Time never goes back, whatever a source says.
    fn time_is(&mut self, at: Timestamp) {
        self.now = self.now.max(at);
        self.observing_since.get_or_insert(at);
    }

    /// Whether something may resolve otherwise than before.
    fn take_record(&mut self, record: Record) -> bool {
        match record {
            Record::CgroupCreated { cgroup_id, path, at } => {
                self.index.cgroup_created(cgroup_id, &path);
                self.secrets.cgroup_made(self.index.place(cgroup_id), at);
                true
            }
            Record::CgroupRemoved { cgroup_id, .. } => {
                self.index.cgroup_removed(cgroup_id);
                false
            }
            Record::Dns(answer) => {
                let owner = naming::owner(&self.index, answer.cgroup_id);
                self.names.take(&owner, answer);
                false
            }
            Record::Read(read) => {
                self.take_read(read);
                false
            }
            Record::Reader(seen) => {
                self.secrets.reader_seen(&seen);
                false
            }
            Record::Lost { stage, count } => {
                self.lost_of_secrets(stage);
                self.lose(stage, count);
                false
            }
            Record::Flow(flow) => {
                self.take_flow(flow);
                false
            }
        }
    }

    fn take_changes(&mut self, changes: Vec<Change>, at: Timestamp) -> bool {
        let mut index_changed = false;
        for change in changes {
            let kind = change.kind();
            match &change {
                Change::Listing(kind) => {
                    self.listing.insert(*kind);
                }
                Change::Listed(kind) if self.listing.remove(kind) => {
                    self.synced.insert(*kind);
                }
                _ => {}
            }
            if kind.is_policy() {
                let touched = self.sets.apply(&change, self.index.selection_mut());
                self.forget_touched(touched);
            } else if kind.is_access() {
                self.access.apply(&change);
                self.access_of_secrets(kind);
            } else {
                index_changed |= self.take_index_change(&change, at);
            }
        }
        index_changed
    }

    fn take_index_change(&mut self, change: &Change, at: Timestamp) -> bool {
        let effect = self.index.apply(change, at);
        self.pod_of_secrets(change);
        self.ledger.pods_changed(&effect.pods);
        if !effect.namespaces.is_empty() {
            let relabelled = |pod: &Arc<PodIdentity>| effect.namespaces.contains(&pod.namespace);
            self.ledger.forget_judgements(|sample| {
                [&sample.source, &sample.target].into_iter().any(|end| end.pods().any(relabelled))
            });
        }
        if effect.nodes {
            let is_node = |end: &End| {
                matches!(end.endpoint, Endpoint::Node(_)) || end.pods().any(|pod| pod.host_network)
            };
            self.ledger
                .forget_judgements(|sample| is_node(&sample.source) || is_node(&sample.target));
        }
        effect.index
    }

    /// Verdicts that other policies made do not hold any more.
    fn forget_touched(&mut self, touched: Touched) {
        match touched {
            Touched::Policies(policies) if policies.is_empty() => {}
            Touched::Policies(policies) if policies.len() <= TOUCHED_MAX => {
                let selection = self.index.selection();
                let touches = |direction, end: &End| {
                    policies
                        .iter()
                        .filter(|policy| policy.speaks_of(direction))
                        .any(|policy| end.pods().any(|pod| policy.may_select(selection, pod)))
                };
                self.ledger.forget_judgements(|sample| {
                    touches(Direction::Egress, &sample.source)
                        || touches(Direction::Ingress, &sample.target)
                });
            }
            Touched::Policies(_) | Touched::Everything => self.ledger.forget_judgements(|_| true),
        }
    }

    fn take_flow(&mut self, record: FlowRecord) {
        let since = self.observing_since.get_or_insert(record.since);
        *since = (*since).min(record.since);
        if self.is_synced() {
            let resolved = self.index.resolve(&record);
            let is_looked_up = self.index.meet(&resolved);
            if !resolved.may_improve() && !is_looked_up {
                self.settle(&record, &resolved);
                return;
            }
        }
        if let Some(oldest) = self.pending.push(record, self.now) {
            self.lose(STAGE_PENDING_FULL, 1);
            let resolved = self.index.resolve(&oldest);
            self.settle(&oldest, &resolved);
        }
    }

    /// Looks again at the records that wait: each is settled if it is known now or waited long
    /// enough.
    fn settle_pending(&mut self, retry: Retry) {
        if retry.became_synced {
            self.pending.restart(self.now);
        }
        let look = retry.index || retry.became_synced || self.pending.any_due(self.now);
        if !self.is_synced() || !look {
            return;
        }
        for waiting in self.pending.take() {
            let resolved = self.index.resolve(&waiting.record);
            let is_looked_up = self.index.meet(&resolved);
            if (resolved.may_improve() || is_looked_up) && waiting.until > self.now {
                self.pending.put_back(waiting);
            } else {
                self.settle(&waiting.record, &resolved);
            }
        }
    }

    /// Puts a record into its edge for good.
    fn settle(&mut self, record: &FlowRecord, resolved: &Resolved) {
        if !self.is_synced() {
            self.never_judged += 1;
            self.count_unattributed(record, resolved);
            let certain = without_guesses(resolved.clone());
            if let Err(no_room) = self.ledger.add(record, &certain) {
                self.lose(no_room.stage(), 1);
            }
            return;
        }
        let named = naming::named(&mut self.names, &self.index, record, resolved);
        let resolved = named.as_ref().unwrap_or(resolved);
        self.count_unattributed(record, resolved);
        self.sets.build();
        let entry = match self.ledger.add(record, resolved) {
            Ok(entry) => entry,
            Err(no_room) => {
                // The attempts are still judged: totals stay exact however many edges there are.
                let verdicts = self.judge_ends(record, resolved);
                self.count_verdicts(record, &Judgement::new(self.sets.names(), verdicts));
                self.lose(no_room.stage(), 1);
                return;
            }
        };
        let key = Arc::clone(&entry.edge().key);
        let sample = entry.sample(resolved);
        let judgement = match &sample.judgement {
            Some(known) => Arc::clone(known),
            None => {
                let selection = self.index.selection_mut();
                let verdicts =
                    judge(self.sets.sets(), selection, self.config.profile, &key, sample);
                self.judgements.share(Judgement::new(self.sets.names(), verdicts))
            }
        };
        sample.judgement.get_or_insert_with(|| Arc::clone(&judgement));
        self.count_verdicts(record, &judgement);
    }

    fn judge_ends(&self, record: &FlowRecord, resolved: &Resolved) -> Vec<Arc<Verdict>> {
        let probe = Probe {
            source: &resolved.source,
            target: &resolved.target,
            protocol: record.protocol,
            port: resolved.port,
        };
        let sets = self.sets.sets();
        verdicts_of(sets, self.index.selection(), self.config.profile, record.direction, &probe)
    }

    fn judge_stale(&mut self) {
        self.sets.build();
        let sets = self.sets.sets();
        let selection = self.index.selection_mut();
        let mut any = false;
        for entry in self.ledger.stale() {
            any = true;
            let key = Arc::clone(&entry.edge().key);
            for sample in entry.samples().iter_mut().filter(|each| each.judgement.is_none()) {
                let verdicts = judge(sets, selection, self.config.profile, &key, sample);
                let judgement = Judgement::new(self.sets.names(), verdicts);
                sample.judgement = Some(self.judgements.share(judgement));
            }
            entry.combine(&mut self.judgements);
        }
        if any {
            self.judgements.sweep();
        }
    }

    fn count_unattributed(&mut self, record: &FlowRecord, resolved: &Resolved) {
        for (side, reason) in resolved.unknown() {
            let total = self.unattributed.entry((side, reason.label())).or_default();
            *total = total.saturating_add(record.counts.attempts.max(1));
        }
    }

    /// Counts what the edge's own side said, see [`VerdictTotals`].
    fn count_verdicts(&mut self, record: &FlowRecord, judgement: &Judgement) {
        let Some(direction) = record.direction else { return };
        if record.counts.attempts == 0 {
            return;
        }
        for (name, verdict) in &judgement.verdicts {
            let side = match direction {
                Direction::Egress => &verdict.egress,
                Direction::Ingress => &verdict.ingress,
            };
            let key = (name.clone(), direction, side.decision, side.reason);
            let total = self.totals.entry(key).or_default();
            *total = total.saturating_add(record.counts.attempts);
        }
    }

    fn lose(&mut self, stage: &'static str, count: u64) {
        let total = self.lost.entry(stage).or_default();
        *total = total.saturating_add(count);
    }
}

/// Before the first full lists, what looks like an outside address may be any pod's.
fn without_guesses(mut resolved: Resolved) -> Resolved {
    for end in [&mut resolved.source, &mut resolved.target] {
        if end.endpoint == Endpoint::External {
            end.endpoint = Endpoint::Unknown(UnknownEnd::NoHolder);
        }
    }
    resolved
}

fn judge(
    sets: &[PolicySet],
    selection: &mut Selection,
    profile: Profile,
    key: &EdgeKey,
    sample: &Sample,
) -> Vec<Arc<Verdict>> {
    for end in [&sample.source, &sample.target] {
        selection.identify_end(end);
    }
    let probe = Probe {
        source: &sample.source,
        target: &sample.target,
        protocol: crate::flow::Protocol(key.protocol),
        port: key.target_port,
    };
    verdicts_of(sets, selection, profile, key.direction, &probe)
}

fn verdicts_of(
    sets: &[PolicySet],
    selection: &Selection,
    profile: Profile,
    direction: Option<Direction>,
    probe: &Probe<'_>,
) -> Vec<Arc<Verdict>> {
    if direction.is_none() {
        let verdict = Arc::new(unknown_direction(profile));
        return sets.iter().map(|_| verdict.clone()).collect();
    }
    sets.iter().map(|set| Arc::new(set.evaluate(selection, profile, probe))).collect()
}

/// Policies judge who began; of a flow that was first seen in mid-stream nobody knows.
fn unknown_direction(profile: Profile) -> Verdict {
    let side = SideVerdict {
        decision: Decision::Undecidable,
        reason: Reason::UnknownDirection,
        tier: None,
        effects: Vec::new(),
    };
    Verdict { decision: Decision::Undecidable, profile, egress: side.clone(), ingress: side }
}

#[cfg(test)]
mod tests;
