//! Verdicts per second on a big cluster: 1,000 policies, 10,000 pods.
//!
//! In: nothing. Out: divan's table, with the allocations of each way of asking; only the one that
//! lists effects has any. It never measures the making of the cluster.
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]

use divan::counter::ItemsCount;
use divan::{AllocProfiler, Bencher, black_box};
use parapet_core::policy::{PolicySet, Selection};
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

fn resolved(cluster: &Cluster) -> (Selection, PolicySet) {
    let mut selection = cluster.selection();
    let policies: Vec<_> = cluster.compiled().map(|policy| selection.link(policy)).collect();
    cluster.pods.iter().for_each(|pod| selection.identify_end(pod));
    (selection, PolicySet::new("enforced".into(), policies))
}
