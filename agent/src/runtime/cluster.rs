//! A live cluster as the engine's source.
//!
//! In: updates of the watches and their states. Out: inputs of the engine, and what `/status` says
//! of the API server. It waits for nothing but the next update, and ages by the monotonic clock.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use parapet_core::engine::{Candidate, Input};
use parapet_core::flow::Timestamp;
use parapet_core::identity::PeersMet;
use parapet_core::object::{Change, Kind};
use tokio::sync::mpsc;

use super::{Config, ObjectSource, Owner, Peers};
use crate::clock::now;
use crate::cluster::{Staged, Update, WatchState, Watches};
use crate::export::status::{ApiHealth, ApiRequests, SourceHealth};
use crate::memory;

/// An open watch may be silent for as long as the server keeps it, and some time to open another.
const SILENCE_MAX: Duration = Duration::from_secs(420);
/// Over which requests are summed up.
const REQUESTS_OVER: Duration = Duration::from_secs(60);

/// The watches of the cluster and what is remembered of them.
#[derive(Debug)]
pub(super) struct Live {
    watches: Watches,
    updates: mpsc::Receiver<Update>,
    stale_after: Duration,
    sums: Sums,
    /// How often each field was misread when it was told last.
    misread: BTreeMap<&'static str, u64>,
}

/// Sums of requests, as of each look at them: of the last minute, and one that is older.
#[derive(Debug, Default)]
struct Sums(VecDeque<(Instant, u64)>);

impl Sums {
    /// Notes the sum of now; the sum of a minute ago comes out, 0 if there was none yet.
    fn add(&mut self, at: Instant, sum: u64) -> u64 {
        self.0.push_back((at, sum));
        let is_old = |then: &Instant| at.saturating_duration_since(*then) >= REQUESTS_OVER;
        while self.0.get(1).is_some_and(|(then, _)| is_old(then)) {
            self.0.pop_front();
        }
        self.0.front().filter(|(then, _)| is_old(then)).map_or(0, |(_, sum)| *sum)
    }
}

/// The next update; never if there is no live cluster.
pub(super) async fn next(live: &mut Option<Live>) -> Update {
    let Some(live) = live else { return std::future::pending().await };
    match live.updates.recv().await {
        Some(update) => update,
        // Watches end with their owner only.
        None => std::future::pending().await,
    }
}

impl Live {
    /// None if objects come from files.
    pub(super) async fn start(config: &Config) -> anyhow::Result<Option<Self>> {
        let ObjectSource::Cluster { target, stale_after, peers } = &config.objects else {
            return Ok(None);
        };
        let taken = config.candidates.iter().map(|candidate| candidate.name.clone()).collect();
        let node = (config.node_name.as_str(), *peers == Peers::Seen);
        let (watches, updates) = Watches::start(target, taken, node).await?;
        tracing::info!("watching {}", watches.server());
        let stale_after = *stale_after;
        let (sums, misread) = (Sums::default(), BTreeMap::new());
        Ok(Some(Self { watches, updates, stale_after, sums, misread }))
    }

    fn api(&mut self, at: Instant) -> ApiHealth {
        let requests: Vec<ApiRequests> = self
            .watches
            .requests()
            .into_iter()
            .map(|((verb, resource, code), count)| ApiRequests { verb, resource, code, count })
            .collect();
        let sum = requests.iter().map(|requests| requests.count).sum();
        let before = self.sums.add(at, sum);
        let server = self.watches.server().to_owned();
        ApiHealth { server, requests_last_minute: sum.saturating_sub(before), requests }
    }
}

impl Owner {
    pub(super) fn take_update(&mut self, update: Update) {
        let at = now();
        match update {
            Update::Changes(changes) => {
                let ends_list = changes.iter().any(|change| matches!(change, Change::Listed(_)));
                self.step(Input::Cluster(changes, at));
                self.services.look(self.engine.index());
                if ends_list {
                    memory::trim();
                }
            }
            Update::Staged(name, Staged { objects }) => {
                let candidate = Candidate { objects, removed: Vec::new() };
                self.step(Input::Candidate(name, candidate, at));
            }
            Update::NobodyAt(addr) => self.step(Input::NobodyAt(addr, at)),
            Update::Unused(uids) => self.step(Input::PodsUnused(uids, at)),
            Update::Unstaged(name) => self.step(Input::CandidateGone(name, at)),
        }
    }

    /// Has those looked up that were met, at once: records wait for them.
    pub(super) fn look_up_peers(&mut self) {
        let Some(live) = &self.cluster else { return };
        let met = self.engine.take_peers_met();
        if met != PeersMet::default() {
            live.watches.met(&met);
        }
    }

    /// Copies what the watches say of themselves.
    pub(super) fn look_at_watches(&mut self) {
        let Some(live) = &mut self.cluster else { return };
        let (at, wall) = (Instant::now(), now());
        self.health.api = Some(live.api(at));
        let states = live.watches.states();
        let mut over = Duration::ZERO;
        for (resource, state) in &states {
            let needed = Watches::is_needed(resource);
            let age = state.current_at.map(|then| at.saturating_duration_since(then));
            if needed && state.synced {
                let lost = state.lost_at.map(|then| at.saturating_duration_since(then));
                let lost = lost.unwrap_or_default().saturating_sub(live.stale_after);
                // Of an open watch silence says little: older servers send no bookmarks.
                let silent = age.unwrap_or_default();
                let silent = silent.saturating_sub(live.stale_after.max(SILENCE_MAX));
                over = over.max(lost).max(silent);
            }
            let source = source(resource, state, needed, age.map(|age| earlier(wall, age)));
            match self.health.sources.iter_mut().find(|known| known.resource == *resource) {
                Some(known) => *known = source,
                None => self.health.sources.push(source),
            }
        }
        self.health.stale_since = match (over.is_zero(), self.health.stale_since) {
            (true, _) => Timestamp::default(),
            (false, Timestamp(0)) => earlier(wall, over),
            (false, since) => since,
        };
        // Files of workloads there are none: pods tell enough of theirs.
        if self.ticks == 0 {
            let none = vec![Change::Listing(Kind::Workload), Change::Listed(Kind::Workload)];
            self.step(Input::Cluster(none, wall));
        }
        self.name_misread();
    }

    /// Fields of objects that are no addresses and no times.
    fn name_misread(&mut self) {
        let Some(live) = &mut self.cluster else { return };
        for (field, misread) in self.engine.index().unread().iter() {
            let told = live.misread.insert(field, misread.count);
            let text = format!(
                "{}: {field}: {:?} cannot be read ({} in all)",
                misread.object, misread.said, misread.count
            );
            if told.is_none() {
                tracing::warn!("{text}");
            }
            let resource = match misread.object.split(' ').next() {
                Some("Node") => "nodes",
                Some("Service") => "services",
                Some("EndpointSlice") => "endpointslices",
                _ => "pods",
            };
            let sources = self.health.sources.iter_mut();
            for source in sources.filter(|source| source.resource == resource) {
                source.problems.push(text.clone());
            }
        }
    }
}

fn earlier(at: Timestamp, by: Duration) -> Timestamp {
    Timestamp(at.0.saturating_sub(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
}

fn source(
    resource: &str,
    state: &WatchState,
    needed: bool,
    read_at: Option<Timestamp>,
) -> SourceHealth {
    let named = state.problems.iter().map(|(object, problem)| format!("{object}: {problem}"));
    let more = (state.problems_left_out > 0).then(|| format!("{} more", state.problems_left_out));
    SourceHealth {
        resource: resource.to_owned(),
        synced: state.synced,
        optional: !needed,
        failure: state.failure.clone(),
        read_at: read_at.unwrap_or_default(),
        objects: state.objects,
        problems: named.chain(more).collect(),
        left_out: BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_the_last_minute_are_those_since_a_minute_ago_however_often_it_is_looked_at() {
        let start = Instant::now();
        for every in [1, 7, 59, 60, 61, 200] {
            let mut sums = Sums::default();
            // One request a second.
            for second in (0..1_000).step_by(every) {
                let before = sums.add(start + Duration::from_secs(second), second);
                // Of those looks that are a minute old or older the newest.
                let every = every as u64;
                let expected = second.saturating_sub(60) / every * every;
                assert_eq!(before, expected, "every {every} s, at {second}");
            }
            assert!(sums.0.len() <= 62, "{}", sums.0.len());
        }
    }
}
