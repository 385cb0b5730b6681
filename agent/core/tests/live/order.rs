//! However the events of different kinds come between each other, whatever comes twice, and
//! whatever a gap hides until all is listed again: in the end everybody is who they are.
//!
//! In: stories and what disturbs their telling. Out: passed, or a story that ends otherwise.

use std::collections::BTreeMap;
use std::sync::Arc;

use parapet_core::engine::{Engine, EngineConfig, Input};
use parapet_core::flow::{Direction, Timestamp};
use parapet_core::identity::{Index, NodeFacts, Resolved};
use parapet_core::object::{Change, Kind, Object};
use parapet_core::record::Record;
use parapet_core::snapshot::EdgeKey;
use parapet_core::verdict::Verdict;
use proptest::prelude::*;

use crate::story::{ADDRS, SERVICE_ADDR, STEP, Story, steps};
use crate::{WATCHER, cgroup, flow, t, time};

type Event = (Change, Timestamp);

/// What disturbs the telling of a story.
#[derive(Clone, Debug)]
struct Disturbance {
    /// Which kind goes on next, and whether its event comes twice.
    picks: Vec<(usize, bool)>,
    /// Of some kind the events from here on, so many, are missed and then listed.
    gap: Option<(usize, usize, usize)>,
    /// That list is broken off once before, after so many objects.
    broken: usize,
    /// The next event comes before the list is complete.
    between: bool,
}

fn disturbance() -> impl Strategy<Value = Disturbance> {
    let gap = proptest::option::weighted(0.7, (0..7_usize, 0..12_usize, 1..12_usize));
    let picks = proptest::collection::vec((0..7_usize, any::<bool>()), 1..24);
    (picks, gap, 0..3_usize, any::<bool>()).prop_map(|(picks, gap, broken, between)| Disturbance {
        picks,
        gap,
        broken,
        between,
    })
}

/// The streams, one for each kind, and the times from and to which nobody can know.
fn streams(story: &Story, disturbance: &Disturbance) -> (Vec<Vec<Event>>, (u64, u64)) {
    let mut hidden = (u64::MAX, 0);
    let mut streams: Vec<Vec<Event>> = story.events.values().cloned().collect();
    let kinds: Vec<Kind> = story.events.keys().copied().collect();
    if let Some((kind, from, count)) = disturbance.gap
        && !kinds.is_empty()
    {
        let at = kind % kinds.len();
        let (kind, events) = (kinds[at], &mut streams[at]);
        let from = from % events.len();
        let to = (from + count).min(events.len());
        let (first, last) = (events[from].1, events[to - 1].1);
        // What began just before may have got its address in the gap.
        hidden = ((first.0 / t(1).0).saturating_sub(STEP), last.0 / t(1).0);
        let there = story.there(kind, to);
        let part = there.iter().take(disturbance.broken).cloned();
        let broken = (disturbance.broken > 0).then_some(Change::Listing(kind)).into_iter();
        let broken = broken.chain(part.map(Change::Applied));
        let list = broken.chain(Change::list(kind, there.clone()));
        let mut list: Vec<Event> = list.map(|change| (change, last)).collect();
        let mut rest = events.split_off(to);
        if disturbance.between && !rest.is_empty() {
            list.insert(list.len() - 1, rest.remove(0));
        }
        events.truncate(from);
        events.extend(list);
        events.extend(rest);
    }
    (streams, hidden)
}

/// Whether some pod got labels that nobody ever told: changed and deleted in one gap.
fn is_untold(story: &Story, gap: Option<(usize, usize, usize)>) -> bool {
    let Some(events) = story.events.get(&Kind::Pod) else { return false };
    let Some((kind, from, count)) = gap else { return false };
    if story.events.keys().nth(kind % story.events.len()) != Some(&Kind::Pod) {
        return false;
    }
    let from = from % events.len();
    let missed = &events[from..(from + count).min(events.len())];
    missed.iter().any(|(change, _)| {
        let Change::Deleted(gone) = change else { return false };
        missed.iter().any(|(change, at)| match change {
            Change::Applied(Object::Pod(pod)) => {
                let made = pod.metadata.creation_timestamp.as_deref();
                let is_new = [at.0, at.0.saturating_sub(t(3).0)];
                Some(&pod.metadata.uid) == gone.uid.as_ref()
                    && !is_new.iter().any(|at| made == Some(&*time(at / t(1).0)))
            }
            _ => false,
        })
    })
}

/// The next event of one of the streams, again and again.
fn interleaved(streams: &[Vec<Event>], picks: &[(usize, bool)]) -> Vec<Event> {
    let mut next = vec![0; streams.len()];
    let mut all = Vec::new();
    for (pick, twice) in picks.iter().cycle() {
        let open: Vec<_> = (0..streams.len()).filter(|at| next[*at] < streams[*at].len()).collect();
        if open.is_empty() {
            break;
        }
        let at = open[pick % open.len()];
        let event = &streams[at][next[at]];
        let is_list = matches!(event.0, Change::Listing(_) | Change::Listed(_));
        all.extend(std::iter::repeat_n(event.clone(), if *twice && !is_list { 2 } else { 1 }));
        next[at] += 1;
    }
    all
}

fn peers() -> impl Iterator<Item = &'static str> {
    ADDRS.into_iter().chain([SERVICE_ADDR, "10.0.0.1"])
}

/// Every second in question, but what a gap hides.
fn times(story: &Story, hidden: (u64, u64)) -> impl Iterator<Item = u64> {
    let all = (1..story.end + STEP).step_by(2);
    all.filter(move |at| *at < hidden.0 || *at > hidden.1)
}

/// Both ends of a flow with every address at every time.
fn resolved(events: &[Event], story: &Story, hidden: (u64, u64)) -> Vec<Resolved> {
    let mut index = Index::default();
    let Record::CgroupCreated { cgroup_id, path, .. } = cgroup() else { unreachable!() };
    index.cgroup_created(cgroup_id, &path);
    for (change, at) in events {
        index.apply(change, *at);
    }
    assert!(index.pod(WATCHER.1).is_some());
    let mut all = Vec::new();
    for at in times(story, hidden) {
        all.extend(peers().map(|peer| index.resolve(&flow(peer, 80, Direction::Egress, at))));
    }
    all
}

/// What is left after full lists that hold nothing.
fn left(events: &[Event], end: u64) -> Vec<(&'static str, u64)> {
    let mut index = Index::default();
    let nothing = Kind::ALL.into_iter().flat_map(|kind| Change::list(kind, []));
    let nothing = nothing.map(|change| (change, t(end)));
    for (change, at) in events.iter().cloned().chain(nothing) {
        index.apply(&change, at);
    }
    let left = index.tables().into_iter().map(|(table, (entries, _))| (table, entries));
    left.filter(|(table, entries)| *entries > 0 && *table != "pod_tombstones").collect()
}

type Verdicts = BTreeMap<EdgeKey, BTreeMap<Arc<str>, Arc<Verdict>>>;

/// What every set says of them in the end, each as an edge of its own.
fn verdicts(events: &[Event], story: &Story, hidden: (u64, u64)) -> Verdicts {
    let mut engine = Engine::new(EngineConfig::default());
    engine.step(Input::Node(NodeFacts { name: "n1".to_owned(), ..NodeFacts::default() }));
    for (change, at) in events {
        engine.step(Input::Cluster(vec![change.clone()], *at));
    }
    let flows = times(story, hidden).flat_map(|at| {
        let port = u16::try_from(at).unwrap();
        peers().map(move |peer| Record::Flow(flow(peer, port, Direction::Egress, at)))
    });
    engine.step(Input::Records([cgroup()].into_iter().chain(flows).collect()));
    engine.step(Input::Tick(t(story.end + 1_000)));
    let snapshot = engine.snapshot();
    assert!(snapshot.synced && snapshot.unjudged == 0);
    snapshot.edges.iter().map(|edge| (EdgeKey::clone(&edge.key), edge.verdicts.clone())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(250)
    })]

    #[test]
    fn any_order_repetition_or_gap_with_a_list_ends_the_same(
        steps in steps(),
        disturbance in disturbance(),
    ) {
        let story = Story::of(&steps);
        prop_assume!(!is_untold(&story, disturbance.gap));
        let mut clean: Vec<Event> = story.events.values().flatten().cloned().collect();
        clean.sort_by_key(|(_, at)| *at);
        let clean = [story.lists(), clean].concat();
        let (streams, hidden) = streams(&story, &disturbance);
        let disturbed = [story.lists(), interleaved(&streams, &disturbance.picks)].concat();
        let [expected, told] = [&clean, &disturbed].map(|events| resolved(events, &story, hidden));
        for (at, (expected, told)) in expected.iter().zip(&told).enumerate() {
            let of = times(&story, hidden).nth(at / peers().count());
            prop_assert_eq!(expected, told, "at {:?}", of);
        }
        prop_assert_eq!(left(&disturbed, story.end), vec![]);
        let [expected, told] = [&clean, &disturbed].map(|events| verdicts(events, &story, hidden));
        prop_assert!(!expected.is_empty());
        prop_assert_eq!(expected, told);
    }
}
