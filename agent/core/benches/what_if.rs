//! What a candidate costs: a million observed edges judged anew under it, from its text on.
//!
//! In: nothing. Out: a table, and one JSON object a line with the same numbers. The slow evaluator
//! of the tests judges a part of the same edges in the same run, and must say the same.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "the results of a bench go to stdout")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use parapet_core::flow::{Direction, Protocol};
use parapet_core::policy::{PolicySet, Selection, compile};
use parapet_core::verdict::{Decision, Delta, Profile};
use serde_json::json;

use crate::big::{PODS, POLICIES};
use crate::slow::Connection;

#[path = "big/cluster.rs"]
mod big;
#[path = "../tests/policy/slow.rs"]
mod slow;

/// What the slow evaluator asks of the tests' cluster.
mod cluster {
    use super::Protocol;

    pub(crate) fn protocol(name: &str) -> Protocol {
        assert_eq!(name, "TCP");
        Protocol::TCP
    }
}

const EDGES: usize = 1_000_000;
/// Of them the slow evaluator judges so many.
const SLOW_EDGES: usize = 2_000;
const ROUNDS: usize = 5;
const PROFILE: Profile = Profile::Spec;

fn main() {
    for namespaces in [1, 20, 100] {
        let cluster = big::cluster(namespaces);
        let mut selection = cluster.selection();
        let enforced: Vec<_> = cluster.compiled().map(|each| selection.link(each)).collect();
        cluster.pods.iter().for_each(|pod| selection.identify_end(pod));
        let before = PolicySet::new("enforced".into(), enforced.iter().cloned());
        // What is enforced was judged when the edges were seen.
        let decide = |number| before.decide(&selection, PROFILE, &cluster.probe(number)).0;
        let decided: Vec<Decision> = (0..EDGES).map(decide).collect();
        let mut rounds: Vec<(f64, BTreeMap<Delta, u64>)> = (0..ROUNDS)
            .map(|_| what_if(&cluster, &mut selection.clone(), &before, &decided))
            .collect();
        rounds.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (seconds, deltas) = &rounds[ROUNDS / 2];
        let slow_ns = slow_ns_per_edge(&cluster, &selection, &before);
        let ns = seconds * 1e9 / EDGES as f64;
        println!(
            "what-if, {POLICIES} policies, {PODS} pods, {namespaces} namespaces: {EDGES} edges in \
             {seconds:.3} s (goal < 1), {ns:.0} ns an edge, {:.0} times faster than the slow \
             evaluator; {deltas:?}",
            slow_ns / ns
        );
        println!(
            "{}",
            json!({
                "bench": "what_if", "namespaces": namespaces, "edges": EDGES, "policies": POLICIES,
                "pods": PODS, "seconds": seconds, "ns_per_edge": ns,
                "slow_ns_per_edge": slow_ns, "slow_over_fast": slow_ns / ns,
            })
        );
    }
}

/// From the candidate's objects to the delta of every edge. Twenty new policies.
fn what_if(
    cluster: &big::Cluster,
    selection: &mut Selection,
    enforced: &PolicySet,
    decided: &[Decision],
) -> (f64, BTreeMap<Delta, u64>) {
    let namespaces = cluster.labels.len();
    let objects: Vec<_> = (0..20)
        .map(|index| big::policy(&format!("new{index}"), index % namespaces, index / namespaces, 3))
        .collect();
    let started = Instant::now();
    let candidate: Vec<_> = objects
        .iter()
        .map(|object| selection.link(compile(object, "candidate".into()).unwrap()))
        .collect();
    let both = enforced.policies().cloned().chain(candidate);
    let both = PolicySet::new("candidate".into(), both);
    let mut deltas = BTreeMap::new();
    for (number, old) in decided.iter().enumerate() {
        let (new, _) = both.decide(selection, PROFILE, &cluster.probe(number));
        *deltas.entry(black_box(Delta::between(*old, new))).or_default() += 1;
    }
    (started.elapsed().as_secs_f64(), deltas)
}

fn slow_ns_per_edge(cluster: &big::Cluster, selection: &Selection, set: &PolicySet) -> f64 {
    let nodes = BTreeMap::new();
    let mut namespaces = cluster.labels.clone();
    for (name, labels) in &mut namespaces {
        labels.insert("kubernetes.io/metadata.name".to_owned(), name.clone());
    }
    let slow = slow::Cluster {
        policies: &cluster.objects,
        cluster_policies: &[],
        namespaces: &namespaces,
        nodes: &nodes,
    };
    let started = Instant::now();
    for number in 0..SLOW_EDGES {
        let probe = cluster.probe(number * 13);
        let connection = Connection {
            source: probe.source,
            target: probe.target,
            protocol: "TCP",
            port: probe.port,
        };
        let allows = |direction| slow.allows(direction, &connection);
        let allowed = allows(Direction::Egress) && allows(Direction::Ingress);
        let (fast, _) = set.decide(selection, PROFILE, &probe);
        assert_eq!(allowed, fast != Decision::Denied, "edge {number}");
    }
    started.elapsed().as_secs_f64() * 1e9 / SLOW_EDGES as f64
}
