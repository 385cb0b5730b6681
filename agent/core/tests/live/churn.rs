//! A thousand pods come and go at a few addresses while flows run.
//!
//! In: a schedule of pods, told late and in batches, and flows at known times. Out: passed, if the
//! edges are those that the schedule alone says.

use std::collections::BTreeMap;

use parapet_core::engine::{Engine, EngineConfig, Input};
use parapet_core::flow::{Direction, UnknownEnd, Workload};
use parapet_core::identity::NodeFacts;
use parapet_core::object::{Change, Kind, Object, ObjectRef};
use parapet_core::record::Record;
use parapet_core::snapshot::EdgeEnd;
use proptest::prelude::*;
use serde_json::json;

use crate::story::{node, watcher};
use crate::{cgroup, flow, t, time};

const PODS: usize = 1_000;
const ADDRS: usize = 16;
const WORKLOADS: usize = 40;
const FLOWS_A_POD: u64 = 4;
/// Less than a record waits for an identity.
const LATE_MAX: u64 = 8;

/// From when to when a pod of the schedule is at its address.
#[derive(Clone, Debug)]
struct Scheduled {
    number: usize,
    /// Which one at its address.
    turn: usize,
    addr: usize,
    start: u64,
    end: u64,
    /// How long after its start its object comes.
    late: u64,
    /// It succeeds some time before its object is deleted.
    finishes: bool,
    on_host_network: bool,
}

/// Numbers that look random, the same for the same seed (xorshift by G. Marsaglia).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn schedule(numbers: &mut Numbers) -> Vec<Scheduled> {
    let mut free_from = [20; ADDRS];
    let mut all: Vec<Scheduled> = Vec::new();
    for number in 0..PODS {
        let addr = usize::try_from(numbers.below(ADDRS as u64)).unwrap();
        // Some addresses are given to the next pod before it is told that the last one ended.
        let overlaps = numbers.below(10) == 0;
        let free: u64 = free_from[addr];
        let start = if overlaps { free - 5 } else { free + numbers.below(15) };
        let end = start + 6 + numbers.below(60);
        free_from[addr] = free.max(end);
        let late = if overlaps { 0 } else { numbers.below(LATE_MAX) };
        // Nobody can know of two while only one of them was told.
        let last = all.iter_mut().rfind(|pod| pod.addr == addr);
        let turn = last.as_ref().map_or(0, |last| last.turn + 1);
        if let Some(last) = last.filter(|_| overlaps) {
            last.late = 0;
        }
        let (finishes, on_host_network) = (numbers.below(3) == 0, numbers.below(20) == 0);
        all.push(Scheduled { number, turn, addr, start, end, late, finishes, on_host_network });
    }
    all
}

fn addr(addr: usize) -> String {
    if addr % 4 == 3 { format!("fd00::{:x}", addr + 16) } else { format!("10.0.0.{}", addr + 16) }
}

fn workload(number: usize) -> Workload {
    let name = format!("app-{}", number % WORKLOADS);
    Workload { kind: "Deployment".into(), name: name.into() }
}

impl Scheduled {
    fn pod(&self, phase: &str) -> Change {
        let owner = format!("{}-5d4f", workload(self.number).name);
        Change::Applied(Object::Pod(Box::new(
            serde_json::from_value(json!({
                "metadata": {"namespace": "ns", "name": self.name(),
                    "uid": format!("u{}", self.number),
                    "labels": {"app": "x", "pod-template-hash": "5d4f"},
                    "creationTimestamp": time(self.start), "ownerReferences": [
                        {"kind": "ReplicaSet", "name": owner, "uid": "r", "controller": true}]},
                "spec": {"hostNetwork": self.on_host_network},
                "status": {"phase": phase, "podIP": addr(self.addr),
                    "startTime": time(self.start)},
            }))
            .unwrap(),
        )))
    }

    /// A few names are used again and again, by one pod after another at one address.
    fn name(&self) -> String {
        format!("p-{}-{}", self.addr, self.turn % 8)
    }

    fn deleted(&self) -> Change {
        Change::Deleted(ObjectRef {
            kind: Kind::Pod,
            api_kind: String::new(),
            namespace: "ns".to_owned(),
            name: self.name(),
            uid: Some(format!("u{}", self.number)),
        })
    }

    /// What is told of it, and when.
    fn changes(&self) -> Vec<(u64, Change)> {
        let mut all =
            vec![(self.start + self.late.min(self.end - self.start - 1), self.pod("Running"))];
        if self.finishes {
            all.push((self.end, self.pod("Succeeded")));
            all.push((self.end + 2, self.deleted()));
        } else {
            all.push((self.end, self.deleted()));
        }
        all
    }
}

/// Who is at an address at that time, by the schedule alone.
fn oracle(schedule: &[Scheduled], at: u64, asked: usize) -> EdgeEnd {
    let holds = |pod: &&Scheduled| {
        pod.addr == asked && !pod.on_host_network && (pod.start..pod.end).contains(&at)
    };
    let mut holders = schedule.iter().filter(holds);
    match (holders.next(), holders.next()) {
        (Some(pod), None) => {
            EdgeEnd::Pod { namespace: "ns".into(), workload: workload(pod.number) }
        }
        (Some(_), Some(_)) => EdgeEnd::Unknown { reason: UnknownEnd::AmbiguousAddress.label() },
        (None, _) => EdgeEnd::Unknown { reason: UnknownEnd::NoHolder.label() },
    }
}

type Ledger = BTreeMap<(Direction, EdgeEnd), u64>;

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(8)
    })]

    #[test]
    fn the_ledger_is_what_the_schedule_says(seed in 1..u64::MAX) {
        let mut numbers = Numbers(seed);
        let schedule = schedule(&mut numbers);
        let last = schedule.iter().map(|pod| pod.end).max().unwrap();
        let mut told: BTreeMap<u64, (Vec<Change>, Vec<Record>)> = BTreeMap::new();
        for (at, change) in schedule.iter().flat_map(Scheduled::changes) {
            told.entry(at).or_default().0.push(change);
        }
        let mut expected = Ledger::new();
        for _ in 0..PODS as u64 * FLOWS_A_POD {
            let at = 10 + numbers.below(last);
            let asked = usize::try_from(numbers.below(ADDRS as u64)).unwrap();
            let direction =
                if numbers.below(2) == 0 { Direction::Egress } else { Direction::Ingress };
            // Polled a moment after.
            let record = Record::Flow(flow(&addr(asked), 80, direction, at));
            told.entry(at + 1 + numbers.below(3)).or_default().1.push(record);
            *expected.entry((direction, oracle(&schedule, at, asked))).or_default() += 1;
        }
        let mut engine = Engine::new(EngineConfig::default());
        engine.step(Input::Node(NodeFacts { name: "n1".to_owned(), ..NodeFacts::default() }));
        let first = [node(0), watcher()];
        let lists = Kind::ALL.into_iter().flat_map(|kind| Change::list(kind, first.clone()));
        engine.step(Input::Cluster(lists.collect(), t(1)));
        engine.step(Input::Records(vec![cgroup()]));
        for at in 0..last + 30 {
            let (changes, records) = told.remove(&at).unwrap_or_default();
            engine.step(Input::Cluster(changes, t(at)));
            engine.step(Input::Records(records));
            engine.step(Input::Tick(t(at)));
        }
        let snapshot = engine.snapshot();
        prop_assert_eq!((snapshot.pending, snapshot.unjudged), (0, 0));
        prop_assert!(snapshot.lost.is_empty(), "{:?}", snapshot.lost);
        let mut ledger = Ledger::new();
        for edge in &snapshot.edges {
            let direction = edge.key.direction.unwrap();
            let ends = (&edge.key.target, &edge.key.source);
            let peer = if direction == Direction::Egress { ends.0 } else { ends.1 };
            *ledger.entry((direction, peer.clone())).or_default() += edge.counts.attempts;
        }
        prop_assert_eq!(ledger, expected);
    }
}
