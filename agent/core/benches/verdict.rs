//! Verdicts per second on a big cluster: 1,000 policies, 10,000 pods.
//!
//! In: nothing. Out: divan's table, with the allocations of each way of asking; `decide` has none.
//! It never measures the making of the cluster.
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]

use std::collections::BTreeMap;
use std::sync::Arc;

use divan::counter::ItemsCount;
use divan::{AllocProfiler, Bencher, black_box};
use parapet_core::flow::{End, Endpoint, PodIdentity, Protocol, Workload};
use parapet_core::object::NetworkPolicy;
use parapet_core::policy::{PolicySet, Probe, Selection, compile};
use parapet_core::verdict::Profile;

#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

const POLICIES: usize = 1_000;
const PODS: usize = 10_000;
/// Probes per iteration: pod i to pod (i + a prime) so that namespaces mix.
const PROBES: usize = 1_000;
const STEP: usize = 7_919;

struct Cluster {
    set: PolicySet,
    selection: Selection,
    pods: Vec<End>,
}

fn main() {
    divan::main();
}

#[divan::bench(args = [1, 20, 100])]
fn decide(bencher: Bencher<'_, '_>, namespaces: usize) {
    let cluster = cluster(namespaces);
    bencher.counter(ItemsCount::new(PROBES)).bench(|| {
        for probe in probes(&cluster.pods) {
            black_box(cluster.set.decide(&cluster.selection, Profile::Common, &probe));
        }
    });
}

#[divan::bench(args = [1, 20, 100])]
fn evaluate(bencher: Bencher<'_, '_>, namespaces: usize) {
    let cluster = cluster(namespaces);
    bencher.counter(ItemsCount::new(PROBES)).bench(|| {
        for probe in probes(&cluster.pods) {
            black_box(cluster.set.evaluate(&cluster.selection, Profile::Common, &probe));
        }
    });
}

fn probes(pods: &[End]) -> impl Iterator<Item = Probe<'_>> {
    (0..PROBES).map(|index| Probe {
        source: &pods[index * STEP % PODS],
        target: &pods[(index * STEP + STEP) % PODS],
        protocol: Protocol::TCP,
        port: 8080,
    })
}

/// Each policy selects the pods of one app in its namespace and lets in one other app of a team.
fn cluster(namespace_count: usize) -> Cluster {
    let mut selection = Selection::default();
    for index in 0..namespace_count {
        let labels = BTreeMap::from([("team".to_owned(), format!("t{}", index % 5))]);
        selection.insert_namespace(&format!("ns{index}"), &labels);
    }
    let policies = (0..POLICIES).map(|index| {
        let (namespace, app) = (index % namespace_count, index / namespace_count);
        let yaml = format!(
            "{{metadata: {{name: p{index}, namespace: ns{namespace}}}, spec: {{
                podSelector: {{matchLabels: {{app: a{app}}}}},
                ingress: [{{from: [{{namespaceSelector: {{matchLabels: {{team: t1}}}},
                    podSelector: {{matchLabels: {{app: a{}}}}}}}], ports: [{{port: 8080}}]}}],
                egress: [{{to: [{{ipBlock: {{cidr: 10.0.0.0/8}}}}], ports: [{{port: 8080}}]}},
                    {{ports: [{{port: 53, protocol: UDP}}]}}]}}}}",
            app + 1
        );
        let object: NetworkPolicy = serde_saphyr::from_str(&yaml).unwrap();
        Arc::new(compile(&object, "enforced".into()).unwrap())
    });
    let set = PolicySet::new("enforced".into(), policies);
    let apps = POLICIES / namespace_count + 1;
    let pods = (0..PODS).map(|index| pod(index, index % namespace_count, index % apps)).collect();
    Cluster { set, selection, pods }
}

fn pod(index: usize, namespace: usize, app: usize) -> End {
    let addr = format!("10.{}.{}.1", index / 256, index % 256).parse().unwrap();
    let label = |key: &str, value: String| (Arc::from(key), Arc::from(value));
    let identity = PodIdentity {
        uid: format!("uid-{index}").into(),
        namespace: format!("ns{namespace}").into(),
        name: format!("pod-{index}").into(),
        labels: [
            label("app", format!("a{app}")),
            label("pod-template-hash", format!("{index:x}")),
            label("tier", "web".to_owned()),
        ]
        .into(),
        node: format!("n{}", index % 100).into(),
        host_network: false,
        addrs: [addr].into(),
        named_ports: [].into(),
        workload: Workload { kind: "Deployment".into(), name: format!("a{app}").into() },
        service_account: "default".into(),
    };
    End { addr: Some(addr), endpoint: Endpoint::Pod(Arc::new(identity)) }
}
