//! Pods of other nodes, looked up by address when they are met.
//!
//! In: addresses that the engine met, and monotonic time. Out: requests for single pods, a few a
//! second, and what they find as [`Update`]s. It keeps the pods it found for as long as they are
//! in use, and never more than its limit.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use parapet_core::identity::PeersMet;
use parapet_core::object::{Change, Kind, Object, ObjectRef};
use tokio::sync::{Notify, mpsc};

use super::ask::{Asker, Failure, Purpose};
use super::body::{Items, Piece};
use super::decode;
use super::pace::{Pace, chance};
use super::resource::RESOURCES;
use super::state::States;
use super::take::Update;

/// The name of this in states.
pub(super) const LOOKUPS: &str = "peers";
/// Addresses at once, found or not.
const LOOKUPS_MAX: usize = 16_384;
/// Pods that had one address: those that ended too. More are left out.
const PODS_AT_MAX: usize = 16;
/// Requests that may follow one another at once, and how often one more may.
const BURST: f64 = 50.0;
const PER_SECOND: f64 = 10.0;
const ASK_AGAIN: Duration = Duration::from_secs(300);
const NOBODY: Duration = Duration::from_secs(30);
const UNUSED_MAX: Duration = Duration::from_secs(1_800);
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// One address.
#[derive(Debug)]
struct Looked {
    /// Pods that were found, by UID. None before the first answer; empty if nobody was.
    pods: Vec<Object>,
    due: Instant,
    used: Instant,
    queued: bool,
}

/// All addresses that were met.
#[derive(Debug, Default)]
pub(super) struct Table {
    by_addr: BTreeMap<IpAddr, Looked>,
    queue: VecDeque<IpAddr>,
    refused: u64,
}

/// The table, for those who fill it and those who read it.
#[derive(Debug, Default)]
pub(super) struct Peers {
    table: Mutex<Table>,
    came: Notify,
}

/// Requests that may be sent now.
#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Table {
    fn want(&mut self, addr: IpAddr, now: Instant) {
        if let Some(known) = self.by_addr.get_mut(&addr) {
            known.used = now;
            if !known.queued && known.due <= now {
                known.queued = true;
                self.queue.push_back(addr);
            }
            return;
        }
        if self.by_addr.len() >= LOOKUPS_MAX {
            self.refused += 1;
            return;
        }
        let looked = Looked { pods: Vec::new(), due: now, used: now, queued: true };
        self.by_addr.insert(addr, looked);
        self.queue.push_back(addr);
    }

    /// Queues what is due and in use; forgets what is not, and returns the UIDs of such pods.
    fn look(&mut self, now: Instant) -> Vec<String> {
        let mut unused = Vec::new();
        let Self { by_addr, queue, .. } = self;
        by_addr.retain(|addr, looked| {
            let idle = now.saturating_duration_since(looked.used);
            let limit = if looked.pods.is_empty() { NOBODY } else { UNUSED_MAX };
            if !looked.queued && looked.due <= now && idle >= limit {
                unused.extend(looked.pods.iter().map(|pod| pod.meta().uid.clone()));
                return false;
            }
            if !looked.queued && looked.due <= now && !looked.pods.is_empty() {
                looked.queued = true;
                queue.push_back(*addr);
            }
            true
        });
        unused
    }

    fn next(&mut self) -> Option<IpAddr> {
        self.queue.pop_front()
    }

    /// Takes an answer; says what changed by it.
    fn answered(
        &mut self,
        addr: IpAddr,
        pods: Vec<Object>,
        now: Instant,
        chance: f64,
    ) -> Vec<Change> {
        let Some(looked) = self.by_addr.get_mut(&addr) else { return Vec::new() };
        let wait = if pods.is_empty() { NOBODY } else { ASK_AGAIN.mul_f64(0.9 + chance / 5.0) };
        (looked.due, looked.queued) = (now + wait, false);
        let still: BTreeSet<&str> = pods.iter().map(|pod| pod.meta().uid.as_str()).collect();
        let gone = looked.pods.iter().filter(|pod| !still.contains(pod.meta().uid.as_str()));
        let gone: Vec<_> = gone.map(|pod| Change::Deleted(name_of(pod))).collect();
        looked.pods.clone_from(&pods);
        gone.into_iter().chain(pods.into_iter().map(Change::Applied)).collect()
    }

    /// It is asked again, after those that came meanwhile; not if nobody was found there and nobody
    /// waits for it any more.
    fn failed(&mut self, addr: IpAddr, now: Instant) {
        let is_unwanted = self.by_addr.get(&addr).is_none_or(|looked| {
            looked.pods.is_empty() && now.saturating_duration_since(looked.used) >= NOBODY
        });
        if is_unwanted {
            self.by_addr.remove(&addr);
        } else {
            self.queue.push_back(addr);
        }
    }

    fn pods(&self) -> impl Iterator<Item = &Object> {
        self.by_addr.values().flat_map(|looked| &looked.pods)
    }
}

impl Peers {
    /// Takes what the engine met.
    pub(super) fn met(&self, met: &PeersMet, now: Instant) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        for addr in &met.wanted {
            table.want(*addr, now);
        }
        for addr in &met.used {
            match table.by_addr.get_mut(addr) {
                Some(known) => known.used = now,
                // Forgotten while a list named it again.
                None => table.want(*addr, now),
            }
        }
        if !table.queue.is_empty() {
            self.came.notify_one();
        }
    }

    /// The pods that were found: they belong into every list of the pods of this node.
    pub(super) fn pods(&self) -> Vec<Object> {
        self.with(|table| table.pods().cloned().collect())
    }

    fn with<T>(&self, what: impl FnOnce(&mut Table) -> T) -> T {
        what(&mut self.table.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks up until nobody listens.
    pub(super) async fn run(
        self: Arc<Self>,
        own_node: String,
        asker: Arc<Asker>,
        states: Arc<States>,
        updates: mpsc::Sender<Update>,
    ) {
        let mut pace = Pace::default();
        let mut bucket = Bucket { left: BURST, at: Instant::now() };
        let mut looked_at = Instant::now();
        states.change(LOOKUPS, |state| state.synced = true);
        loop {
            if looked_at.elapsed() >= LOOK_EVERY {
                looked_at = Instant::now();
                let unused = self.with(|table| table.look(looked_at));
                if !unused.is_empty() && updates.send(Update::Unused(unused)).await.is_err() {
                    return;
                }
                self.tell(&states);
            }
            let Some(addr) = self.with(Table::next) else {
                tokio::select! {
                    () = self.came.notified() => {}
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                }
                continue;
            };
            let pause =
                pace.pause(false, Instant::now(), chance()).max(bucket.take(Instant::now()));
            tokio::time::sleep(pause).await;
            let found = match ask(&asker, addr).await {
                Ok(found) => found,
                Err(failure) => {
                    self.with(|table| table.failed(addr, Instant::now()));
                    pace.failed(failure.retry_after);
                    states.change(LOOKUPS, |state| state.failure = Some(failure.said));
                    continue;
                }
            };
            pace.succeeded();
            let is_nobody = found.is_empty();
            // Those of this node are watched: what the watch says is newer.
            let others = found.into_iter().filter(|pod| !is_on(pod, &own_node)).collect();
            let now = Instant::now();
            let changes = self.with(|table| table.answered(addr, others, now, chance()));
            let told = !changes.is_empty();
            if told && updates.send(Update::Changes(changes)).await.is_err() {
                return;
            }
            if is_nobody && updates.send(Update::NobodyAt(addr)).await.is_err() {
                return;
            }
            states.change(LOOKUPS, |state| {
                (state.failure, state.current_at) = (None, Some(now));
            });
            self.tell(&states);
        }
    }

    fn tell(&self, states: &States) {
        let (pods, refused) = self.with(|table| (table.pods().count() as u64, table.refused));
        states.change(LOOKUPS, |state| {
            (state.objects, state.problems_left_out) = (pods, refused);
        });
    }
}

impl Bucket {
    /// How long to wait before the next request, which this takes.
    fn take(&mut self, now: Instant) -> Duration {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.left = (self.left + since * PER_SECOND).min(BURST) - 1.0;
        Duration::from_secs_f64((-self.left / PER_SECOND).max(0.0))
    }
}

async fn ask(asker: &Asker, addr: IpAddr) -> Result<Vec<Object>, Failure> {
    // An address needs no escaping but for what `url` forbids nowhere in a query.
    let path = format!("/api/v1/pods?limit={PODS_AT_MAX}&fieldSelector=status.podIP%3D{addr}");
    let purpose = Purpose { verb: "list", resource: "pods" };
    let answer = tokio::time::timeout(ANSWER_TIME_MAX, asker.whole(purpose, &path)).await;
    let body = answer.unwrap_or_else(|_| Err(Failure::said("no answer in time")))?;
    let Some(resource) = RESOURCES.iter().find(|resource| resource.name == "pods") else {
        return Ok(Vec::new());
    };
    let mut pods = Vec::new();
    let mut items = Items::default();
    let told = items.push(&body, &mut |piece| {
        if let Piece::Object(item) = piece
            && let Ok(pod) = decode::item(resource, Kind::Pod, "v1", item).object
        {
            pods.push(pod);
        }
    });
    told.map_err(|_| Failure::said("the answer is no list"))?;
    Ok(pods)
}

fn is_on(pod: &Object, node: &str) -> bool {
    matches!(pod, Object::Pod(pod) if pod.spec.node_name == node)
}

fn name_of(pod: &Object) -> ObjectRef {
    let meta = pod.meta();
    ObjectRef {
        kind: Kind::Pod,
        api_kind: String::new(),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: Some(meta.uid.clone()),
    }
}

#[cfg(test)]
mod tests;
