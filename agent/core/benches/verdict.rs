//! Verdicts per second on a big cluster: 1,000 policies, 10,000 pods.
//!
//! In: nothing. Out: divan's table, with the allocations of each way of asking; only the one that
//! lists effects has any. It never measures the making of the cluster.
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]

use divan::counter::ItemsCount;
use divan::{AllocProfiler, Bencher, black_box};
use parapet_core::flow::{Direction, Timestamp};
use parapet_core::identity::Resolved;
use parapet_core::judgement::Judgement;
use parapet_core::ledger::Ledger;
use parapet_core::policy::{PolicySet, Probe, Selection};
use parapet_core::record::{Counts, FlowRecord};
use parapet_core::verdict::Profile;

use crate::big::Cluster;

#[path = "big/cluster.rs"]
mod big;

#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

/// Probes per iteration.
const PROBES: usize = 1_000;

fn main() {
    divan::main();
}

/// As in the agent: policies are linked, pods are identified.
#[divan::bench(args = [1, 20, 100])]
fn decide(bencher: Bencher<'_, '_>, namespaces: usize) {
    let cluster = big::cluster(namespaces);
    let (selection, set) = resolved(&cluster);
    bencher.counter(ItemsCount::new(PROBES)).bench(|| {
        for number in 0..PROBES {
            black_box(set.decide(&selection, Profile::Common, &cluster.probe(number)));
        }
    });
}

/// A flow of an edge whose ends were judged before: it is counted, and its verdict is found.
#[divan::bench(args = [1, 20, 100])]
fn known_edge(bencher: Bencher<'_, '_>, namespaces: usize) {
    let cluster = big::cluster(namespaces);
    let (selection, set) = resolved(&cluster);
    let mut ledger = Ledger::default();
    let seen: Vec<_> = (0..PROBES).map(|number| seen(&cluster.probe(number))).collect();
    for (number, (record, ends)) in seen.iter().enumerate() {
        let verdict = set.evaluate(&selection, Profile::Common, &cluster.probe(number));
        ledger.add(record, ends).unwrap().sample(ends).judgement =
            Some(Judgement::new(&["enforced".into()], vec![verdict.into()]).into());
    }
    bencher.counter(ItemsCount::new(PROBES)).bench_local(|| {
        for (record, ends) in &seen {
            black_box(&ledger.add(record, ends).unwrap().sample(ends).judgement);
        }
    });
}

/// The first flow between two pods nobody has looked up: both are, then it is judged.
#[divan::bench(args = [1, 20, 100])]
fn first_sight(bencher: Bencher<'_, '_>, namespaces: usize) {
    let cluster = big::cluster(namespaces);
    let mut selection = cluster.selection();
    let policies: Vec<_> = cluster.compiled().map(|policy| selection.link(policy)).collect();
    let set = PolicySet::new("enforced".into(), policies);
    let fresh = || selection.clone();
    bencher.counter(ItemsCount::new(PROBES / 2)).with_inputs(fresh).bench_local_values(
        |mut fresh| {
            for number in (0..PROBES).step_by(2) {
                let probe = cluster.probe(number);
                fresh.identify_end(probe.source);
                fresh.identify_end(probe.target);
                black_box(set.decide(&fresh, Profile::Common, &probe));
            }
            fresh
        },
    );
}

/// The long way, without anything resolved.
#[divan::bench(args = [1, 20, 100])]
fn decide_unresolved(bencher: Bencher<'_, '_>, namespaces: usize) {
    let cluster = big::cluster(namespaces);
    let selection = cluster.selection();
    let set = PolicySet::new("enforced".into(), cluster.compiled().map(Into::into));
    bencher.counter(ItemsCount::new(PROBES)).bench(|| {
        for number in 0..PROBES {
            black_box(set.decide(&selection, Profile::Common, &cluster.probe(number)));
        }
    });
}

/// With every rule's part in it, as the ledger keeps it.
#[divan::bench(args = [1, 20, 100])]
fn evaluate(bencher: Bencher<'_, '_>, namespaces: usize) {
    let cluster = big::cluster(namespaces);
    let (selection, set) = resolved(&cluster);
    bencher.counter(ItemsCount::new(PROBES)).bench(|| {
        for number in 0..PROBES {
            black_box(set.evaluate(&selection, Profile::Common, &cluster.probe(number)));
        }
    });
}

fn seen(probe: &Probe<'_>) -> (FlowRecord, Resolved) {
    let Probe { source, target, protocol, port } = *probe;
    let record = FlowRecord {
        cgroup_id: 1,
        peer: target.addr.unwrap(),
        local_addr: None,
        local_port: None,
        translation: parapet_core::identity::Translation::default(),
        service_port: port,
        protocol,
        direction: Some(Direction::Egress),
        since: Timestamp(1),
        last_seen: Timestamp(2),
        counts: Counts { attempts: 1, answered: 1, ..Counts::default() },
    };
    let (source, target) = (source.clone(), target.clone());
    let resolved = Resolved {
        source,
        target,
        port,
        loopback: false,
        source_rewritten: None,
        cgroup: None,
        guessed: false,
    };
    (record, resolved)
}

fn resolved(cluster: &Cluster) -> (Selection, PolicySet) {
    let mut selection = cluster.selection();
    let policies: Vec<_> = cluster.compiled().map(|policy| selection.link(policy)).collect();
    cluster.pods.iter().for_each(|pod| selection.identify_end(pod));
    (selection, PolicySet::new("enforced".into(), policies))
}
