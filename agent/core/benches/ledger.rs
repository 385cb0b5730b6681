//! What an edge costs: memory while it is published, and the time of one more flow.
//!
//! In: nothing. Out: for 10,000 and 100,000 edges of one pod to the outside, judged under three
//! policy sets, a line in words and one JSON object a line. It keeps what was published last, as
//! the agent does, so that edges that change are there twice until the next snapshot.
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "the results of a bench go to stdout")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use parapet_core::engine::{Candidate, Engine, EngineConfig, Input};
use parapet_core::flow::{Direction, Protocol, Timestamp};
use parapet_core::identity::{NodeFacts, Translation};
use parapet_core::object::{Change, Kind, Object};
use parapet_core::record::{Counts, FlowRecord, Record};
use parapet_core::snapshot::Snapshot;
use serde_json::json;

const EDGES: [u32; 2] = [10_000, 100_000];
const ROUNDS: u64 = 5;
const OUTSIDE: u32 = u32::from_be_bytes([203, 0, 0, 0]);

/// An engine, and what it published last.
struct Published {
    engine: Engine,
    snapshot: Arc<Snapshot>,
}

impl Published {
    fn step(&mut self, input: Input) {
        self.engine.step(input);
        self.snapshot = self.engine.snapshot();
    }
}

fn main() {
    for edges in EDGES {
        let mut published = ready(edges);
        let first = flows(edges, 0);
        let seen = allocation_counter::measure(|| published.step(first));
        assert_eq!(published.snapshot.edges.len(), edges as usize);
        let again: Vec<Input> = (1..=ROUNDS).map(|round| flows(edges, round)).collect();
        let mut changed_max = 0;
        let mut seconds = Vec::new();
        let kept = allocation_counter::measure(|| {
            for input in again {
                let started = Instant::now();
                let memory = allocation_counter::measure(|| published.engine.step(input));
                seconds.push(started.elapsed().as_secs_f64());
                changed_max = changed_max.max(memory.bytes_max);
                published.snapshot = published.engine.snapshot();
            }
        });
        seconds.sort_by(f64::total_cmp);
        let started = Instant::now();
        published.snapshot = published.engine.snapshot();
        let snapshot_ns = started.elapsed().as_secs_f64() * 1e9;
        let an_edge = |bytes: f64| bytes / f64::from(edges);
        // The records were made outside and left with the step: they are no part of an edge.
        let records = std::mem::size_of::<Record>() as f64;
        print(edges, "held", an_edge(seen.bytes_current as f64) + records, "B/edge");
        print(edges, "held allocations", an_edge(seen.count_current as f64), "/edge");
        print(edges, "second version, peak", an_edge(changed_max as f64), "B/edge");
        let rounds = ROUNDS as f64;
        let grown = an_edge(kept.bytes_current as f64) + rounds * records;
        print(edges, "grown over all rounds", grown, "B/edge");
        print(edges, "one more flow", an_edge(seconds[seconds.len() / 2] * 1e9), "ns");
        print(edges, "snapshot", an_edge(snapshot_ns), "ns/edge");
    }
}

fn print(edges: u32, name: &str, value: f64, unit: &str) {
    println!("ledger, {edges} edges, {name}: {value:.1} {unit}");
    let row = json!({"bench": "ledger", "edges": edges, "name": name, "value": value,
        "unit": unit});
    println!("{row}");
}

/// One pod, all lists complete, a candidate that denies it everything outside.
fn ready(edges: u32) -> Published {
    let config = EngineConfig {
        candidates: vec!["c".into()],
        // One pod gets a quarter.
        edges_max: 4 * edges as usize,
        ..EngineConfig::default()
    };
    let mut engine = Engine::new(config);
    let at = Timestamp(2_000_000_000);
    engine.step(Input::Node(NodeFacts { name: "n1".to_owned(), ..NodeFacts::default() }));
    let cgroup = "/kubepods/poduid-web/c".to_owned();
    engine.step(Input::Records(vec![Record::CgroupCreated { cgroup_id: 1, path: cgroup, at }]));
    let pod = json!({
        "metadata": {"namespace": "shop", "name": "web", "uid": "uid-web",
            "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": []},
        "status": {"phase": "Running", "podIP": "10.0.0.10",
            "startTime": "1970-01-01T00:00:01Z"},
    });
    let pod = Object::Pod(Box::new(serde_json::from_value(pod).unwrap()));
    let policy = json!({"metadata": {"namespace": "shop", "name": "inside"}, "spec": {
        "podSelector": {}, "policyTypes": ["Egress"],
        "egress": [{"to": [{"namespaceSelector": {}}]}]}});
    let policy = Object::NetworkPolicy(serde_json::from_value(policy).unwrap());
    let listed = |kind| Change::list(kind, [pod.clone()]);
    let changes = Kind::ALL.into_iter().flat_map(listed);
    engine.step(Input::Cluster(changes.collect(), at));
    let candidate = Candidate { objects: vec![policy], removed: Vec::new() };
    engine.step(Input::Candidate("c".into(), candidate, at));
    let snapshot = engine.snapshot();
    Published { engine, snapshot }
}

/// One attempt each, all answered.
fn flows(edges: u32, round: u64) -> Input {
    let at = Timestamp((5 + round) * 1_000_000_000);
    let flow = |number: u32| FlowRecord {
        cgroup_id: 1,
        peer: IpAddr::V4(Ipv4Addr::from_bits(OUTSIDE + number)),
        local_addr: None,
        local_port: None,
        translation: Translation::default(),
        service_port: 53,
        protocol: Protocol::UDP,
        direction: Some(Direction::Egress),
        since: at,
        last_seen: at,
        counts: Counts { attempts: 1, answered: 1, ..Counts::default() },
    };
    Input::Records((0..edges).map(|number| Record::Flow(flow(number))).collect())
}
