//! What knowing a whole cluster costs: time and memory a pod, and what one change costs of that.
//!
//! In: nothing. Out: one JSON object a line and a table in words. Objects are made before and freed
//! after what is measured, so that memory is the index's and the policies' own, as requested from
//! the allocator. Without `--bench`, as `cargo test` runs it, only the smallest cluster is made.
#![expect(clippy::print_stdout, reason = "the results of a bench go to stdout")]
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]
#![allow(clippy::cast_precision_loss, reason = "counts of pods and bytes of one run")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parapet_core::engine::PolicySets;
use parapet_core::flow::Timestamp;
use parapet_core::identity::Index;
use parapet_core::object::{
    Change, Container, ContainerPort, ContainerStatus, EndpointSlice, IntOrString, Kind, Meta,
    Namespace, NetworkPolicy, Node, NodeAddress, Object, ObjectRef, OwnerReference, Pod, PodIp,
    Service, ServicePort, SliceConditions, SliceEndpoint, SlicePort, WorkloadObject,
};
use serde_json::json;

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];
const PODS_A_WORKLOAD: usize = 10;
const PODS_A_NAMESPACE: usize = 100;
const PODS_A_NODE: usize = 100;
const WORKLOADS_A_POLICY: usize = 10;
/// Changes of each sort that are made; their mean counts.
const CHANGES: usize = 200;
/// A prime, so that the changed pods lie all over the cluster.
const STEP: usize = 7_919;

/// The goals at the biggest size.
const BUILD_SECONDS_GOAL: f64 = 3.5;
const BYTES_A_POD_GOAL: f64 = 1_000.0;
const CHANGE_PERCENT_GOAL: f64 = 1.0;
/// Of one pod.
const CHANGE_MICROSECONDS_GOAL: f64 = 1_000.0;
/// Of what is known already, while a list names all of it again.
const RELIST_PEAK_GOAL: f64 = 1.3;

fn main() {
    let whole = std::env::args().any(|argument| argument == "--bench");
    let sizes = if whole { &SIZES[..] } else { &SIZES[..1] };
    for pods in sizes {
        measure(*pods);
    }
}

fn measure(pods: usize) {
    let input = lists(pods);
    let is_goal = pods == SIZES[SIZES.len() - 1];
    let goal = |goal: f64| is_goal.then_some(goal);

    let mut built = Cluster::default();
    let seconds = timed(|| built.build(&input, pods)).as_secs_f64();
    print(pods, "build", seconds, "s", goal(BUILD_SECONDS_GOAL));

    let mut counted = Cluster::default();
    let memory = allocation_counter::measure(|| counted.build(&input, pods));
    drop(counted);
    let a_pod = |bytes: f64| bytes / pods as f64;
    let steady = memory.bytes_current as f64;
    print(pods, "steady", a_pod(steady), "B/pod", goal(BYTES_A_POD_GOAL));
    print(pods, "peak", a_pod(memory.bytes_max as f64), "B/pod", None);
    print(pods, "held allocations", a_pod(memory.count_current as f64), "/pod", None);
    let object = allocation_counter::measure(|| std::mem::forget(Box::new(pod(0))));
    print(pods, "a pod's own object", object.bytes_current as f64, "B/pod", None);

    let mut relist = Duration::ZERO;
    let memory = allocation_counter::measure(|| relist = timed(|| built.relist(&input)));
    print(pods, "same list again", relist.as_secs_f64() / seconds * 100.0, "% of build", None);
    let known = steady + memory.bytes_max as f64;
    print(pods, "same list again, peak", known / steady, "x steady", goal(RELIST_PEAK_GOAL));

    for (name, changes) in changes(pods) {
        let mean = timed(|| changes.iter().for_each(|change| built.change(change)))
            / u32::try_from(changes.len()).unwrap();
        let of_pod = name.starts_with("one pod") || name.starts_with("one status");
        let us = goal(CHANGE_MICROSECONDS_GOAL).filter(|_| of_pod);
        print(pods, name, mean.as_secs_f64() * 1e6, "us", us);
        let percent = mean.as_secs_f64() / seconds * 100.0;
        print(pods, name, percent, "% of build", goal(CHANGE_PERCENT_GOAL));
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn print(pods: usize, name: &str, value: f64, unit: &str, goal: Option<f64>) {
    let met = goal.map(|goal| value <= goal);
    let line = json!({
        "bench": "index", "pods": pods, "measure": name, "value": value, "unit": unit,
        "goal": goal, "met": met,
    });
    println!("{line}");
    let verdict = match (goal, met) {
        (Some(goal), Some(true)) => format!(" (goal <= {goal}: met)"),
        (Some(goal), _) => format!(" (goal <= {goal}: MISSED)"),
        _ => String::new(),
    };
    println!("  {pods:>7} pods: {name:<28} {value:>12.4} {unit}{verdict}");
}

/// What is measured: everything known of a cluster, and the sets its flows are judged by.
#[derive(Default)]
struct Cluster {
    index: Index,
    sets: PolicySets,
}

/// Full lists of every kind, in an order in which a cluster may be read.
struct Lists {
    changes: Vec<Change>,
    policies: Vec<Change>,
}

impl Cluster {
    /// Ends with every pod looked up for every selector, as if each had been in a flow.
    fn build(&mut self, lists: &Lists, pods: usize) {
        self.relist(lists);
        for policy in &lists.policies {
            drop(self.sets.apply(policy, self.index.selection_mut()));
        }
        self.sets.build();
        for n in 0..pods {
            let pod = self.index.pod(&uid(1, n)).unwrap().clone();
            self.index.selection_mut().identify(&pod);
        }
    }

    fn relist(&mut self, lists: &Lists) {
        for change in &lists.changes {
            self.index.apply(change, Timestamp(1));
        }
    }

    fn change(&mut self, change: &Change) {
        if change.kind().is_policy() {
            drop(self.sets.apply(change, self.index.selection_mut()));
            self.sets.build();
        } else {
            let effect = self.index.apply(change, Timestamp(2));
            effect.pods.iter().for_each(|pod| self.index.selection_mut().identify(pod));
        }
        let selection = self.index.selection_mut();
        if selection.wants_sweep() {
            selection.sweep();
        }
    }
}

/// Each sort of change, at pods all over the cluster.
fn changes(pods: usize) -> Vec<(&'static str, Vec<Change>)> {
    let some = || (0..CHANGES).map(move |n| n * STEP % pods);
    let applied = |pod: Pod| Change::Applied(Object::Pod(Box::new(pod)));
    let relabelled = |n: usize| {
        let mut pod = pod(n);
        pod.metadata.labels.insert("release".to_owned(), "canary".to_owned());
        applied(pod)
    };
    let deleted = |n: usize| {
        let meta = pod(n).metadata;
        Change::Deleted(ObjectRef {
            kind: Kind::Pod,
            api_kind: String::new(),
            namespace: meta.namespace,
            name: meta.name,
            uid: Some(meta.uid),
        })
    };
    let policies = pods / PODS_A_WORKLOAD / WORKLOADS_A_POLICY;
    let changed_policy =
        |n| Change::Applied(Object::NetworkPolicy(policy(n % policies, 1 + n / policies)));
    let restarted = |n: usize| {
        let mut pod = pod(n);
        pod.status.container_statuses[0].container_id = format!("containerd://{:064x}", n + pods);
        applied(pod)
    };
    vec![
        ("one status no one reads", some().map(restarted).collect()),
        ("one pod relabelled", some().map(relabelled).collect()),
        ("one pod added", (0..CHANGES).map(|n| applied(pod(pods + n))).collect()),
        ("one pod deleted", some().map(deleted).collect()),
        ("one ReplicaSet changed", some().map(|n| changed_owner(n / PODS_A_WORKLOAD)).collect()),
        ("one policy changed", (0..CHANGES).map(changed_policy).collect()),
    ]
}

fn lists(pods: usize) -> Lists {
    let workloads = || 0..pods / PODS_A_WORKLOAD;
    let pods_list = (0..pods).map(|n| Object::Pod(Box::new(pod(n))));
    let namespaces = (0..pods / PODS_A_NAMESPACE).map(|n| Object::Namespace(namespace(n)));
    let nodes = (0..pods / PODS_A_NODE).map(|n| Object::Node(node(n)));
    let services = workloads().map(|n| Object::Service(service(n)));
    let slices = workloads().flat_map(|n| [false, true].map(|ipv6| slice(n, ipv6)));
    let owners = workloads().map(|n| Object::Workload(owner(n)));
    let policies = (0..pods / PODS_A_WORKLOAD / WORKLOADS_A_POLICY).map(|n| policy(n, 0));
    Lists {
        policies: Change::list(Kind::NetworkPolicy, policies.map(Object::NetworkPolicy)).collect(),
        changes: Change::list(Kind::Namespace, namespaces)
            .chain(Change::list(Kind::Node, nodes))
            .chain(Change::list(Kind::Workload, owners))
            .chain(Change::list(Kind::Pod, pods_list))
            .chain(Change::list(Kind::Service, services))
            .chain(Change::list(Kind::EndpointSlice, slices.map(Object::EndpointSlice)))
            .collect(),
    }
}

fn namespace_name(workload: usize) -> String {
    format!("team-{}-production", workload * PODS_A_WORKLOAD / PODS_A_NAMESPACE)
}

fn app(workload: usize) -> String {
    format!("checkout-{workload}")
}

/// As the Deployment controller writes it.
fn template_hash(workload: usize) -> String {
    format!("{:010x}", workload.wrapping_mul(2_654_435_761) & 0xff_ffff_ffff)
}

fn uid(sort: usize, n: usize) -> String {
    format!("{:08x}-{sort:04x}-4000-8000-{n:012x}", n.wrapping_mul(2_654_435_761) & 0xffff_ffff)
}

fn addrs(pod: usize) -> [String; 2] {
    let (high, middle, low) = (pod >> 16, (pod >> 8) & 0xff, pod & 0xff);
    [format!("10.{high}.{middle}.{low}"), format!("fd00:10:{high:x}::{:x}", pod & 0xffff)]
}

fn meta(namespace: String, name: String, uid: String) -> Meta {
    let creation_timestamp = Some("2026-11-20T08:15:30Z".to_owned());
    Meta { namespace, name, uid, creation_timestamp, ..Meta::default() }
}

fn labels<const N: usize>(pairs: [(&str, String); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn controlled_by(kind: &str, name: String, uid: String) -> Vec<OwnerReference> {
    let (api_version, kind) = ("apps/v1".to_owned(), kind.to_owned());
    vec![OwnerReference { api_version, kind, name, uid, controller: true }]
}

fn pod(n: usize) -> Pod {
    let workload = n / PODS_A_WORKLOAD;
    let (app, hash) = (app(workload), template_hash(workload));
    let name = format!("{app}-{hash}-{:05x}", n & 0xf_ffff);
    let mut metadata = meta(namespace_name(workload), name, uid(1, n));
    metadata.labels = labels([
        ("app.kubernetes.io/name", app.clone()),
        ("app.kubernetes.io/instance", format!("{app}-production")),
        ("app.kubernetes.io/version", format!("1.{}.0", workload % 40)),
        ("app.kubernetes.io/component", "backend".to_owned()),
        ("app.kubernetes.io/part-of", "shop".to_owned()),
        ("app.kubernetes.io/managed-by", "Helm".to_owned()),
        ("tier", ["web", "data", "jobs"][workload % 3].to_owned()),
        ("pod-template-hash", hash.clone()),
    ]);
    metadata.owner_references =
        controlled_by("ReplicaSet", format!("{app}-{hash}"), uid(2, workload));
    let mut pod = Pod { metadata, ..Pod::default() };
    pod.spec.node_name = node_name(n / PODS_A_NODE);
    pod.spec.service_account_name = app;
    pod.spec.containers = vec![
        container("server", &[("http", 8080), ("metrics", 9090)]),
        container("proxy", &[("admin", 15_000)]),
    ];
    let ids = pod.spec.containers.iter().enumerate().map(|(at, container)| ContainerStatus {
        name: container.name.clone(),
        container_id: format!("containerd://{:064x}", n * 2 + at),
    });
    pod.status.container_statuses = ids.collect();
    let [v4, v6] = addrs(n);
    pod.status.phase = "Running".to_owned();
    pod.status.host_ip = node_addr(n / PODS_A_NODE);
    pod.status.pod_ip.clone_from(&v4);
    pod.status.pod_ips = [v4, v6].map(|ip| PodIp { ip }).into();
    pod.status.start_time = Some("2026-11-20T08:15:31Z".to_owned());
    pod
}

fn container(name: &str, ports: &[(&str, u16)]) -> Container {
    let ports = ports.iter().map(|(name, port)| ContainerPort {
        name: (*name).to_owned(),
        container_port: *port,
        protocol: Some("TCP".to_owned()),
    });
    Container { name: name.to_owned(), ports: ports.collect(), restart_policy: None }
}

fn node_name(n: usize) -> String {
    format!("worker-{n}.eu-central-1.compute.internal")
}

fn node_addr(n: usize) -> String {
    format!("172.16.{}.{}", n >> 8, n & 0xff)
}

fn node(n: usize) -> Node {
    let mut node =
        Node { metadata: meta(String::new(), node_name(n), uid(3, n)), ..Node::default() };
    let kind = "InternalIP".to_owned();
    node.status.addresses = vec![NodeAddress { kind, address: node_addr(n) }];
    node
}

fn namespace(n: usize) -> Namespace {
    let name = namespace_name(n * PODS_A_NAMESPACE / PODS_A_WORKLOAD);
    let mut metadata = meta(String::new(), name.clone(), uid(4, n));
    let team = format!("team-{n}");
    metadata.labels = labels([("kubernetes.io/metadata.name", name), ("team", team)]);
    Namespace { metadata }
}

fn owner(workload: usize) -> WorkloadObject {
    let (app, hash) = (app(workload), template_hash(workload));
    let name = format!("{app}-{hash}");
    let mut metadata = meta(namespace_name(workload), name, uid(2, workload));
    metadata.owner_references = controlled_by("Deployment", app, uid(5, workload));
    WorkloadObject { api_kind: "ReplicaSet".to_owned(), metadata }
}

fn changed_owner(workload: usize) -> Change {
    let mut object = owner(workload);
    object.metadata.owner_references = controlled_by("Rollout", app(workload), uid(6, workload));
    Change::Applied(Object::Workload(object))
}

fn service(workload: usize) -> Service {
    let metadata = meta(namespace_name(workload), app(workload), uid(7, workload));
    let mut service = Service { metadata, ..Service::default() };
    let addr = format!("10.96.{}.{}", workload >> 8, workload & 0xff);
    service.spec.cluster_ip.clone_from(&addr);
    service.spec.cluster_ips = vec![addr, format!("fd00:96::{workload:x}")];
    service.spec.kind = "ClusterIP".to_owned();
    service.spec.selector = labels([("app.kubernetes.io/name", app(workload))]);
    service.spec.ports = [("http", 80), ("metrics", 9090)]
        .map(|(name, port)| ServicePort {
            name: name.to_owned(),
            protocol: Some("TCP".to_owned()),
            port,
            target_port: Some(IntOrString::String(name.to_owned())),
            node_port: None,
        })
        .into();
    service
}

fn slice(workload: usize, ipv6: bool) -> EndpointSlice {
    let suffix = if ipv6 { "6x2kq" } else { "4j9wd" };
    let name = format!("{}-{suffix}", app(workload));
    let mut metadata = meta(namespace_name(workload), name, uid(8, workload));
    metadata.labels = labels([
        ("kubernetes.io/service-name", app(workload)),
        ("endpointslice.kubernetes.io/managed-by", "endpointslice-controller.k8s.io".to_owned()),
    ]);
    metadata.owner_references = controlled_by("Service", app(workload), uid(7, workload));
    let conditions =
        SliceConditions { ready: Some(true), serving: Some(true), terminating: Some(false) };
    let pods = workload * PODS_A_WORKLOAD..(workload + 1) * PODS_A_WORKLOAD;
    let endpoint = |pod| SliceEndpoint {
        addresses: vec![addrs(pod)[usize::from(ipv6)].clone()],
        conditions: conditions.clone(),
    };
    let ports = [("http", 8080), ("metrics", 9090)].map(|(name, port)| SlicePort {
        name: Some(name.to_owned()),
        protocol: Some("TCP".to_owned()),
        port: Some(port),
    });
    EndpointSlice {
        metadata,
        address_type: if ipv6 { "IPv6" } else { "IPv4" }.to_owned(),
        endpoints: pods.map(endpoint).collect(),
        ports: ports.into(),
    }
}

/// One namespace's workload may be asked by its neighbour; `version` makes it another policy.
fn policy(n: usize, version: usize) -> NetworkPolicy {
    let workload = n * WORKLOADS_A_POLICY;
    let tier = ["web".to_owned(), format!("web-{version}")][version.min(1)].clone();
    let value = json!({
        "metadata": {"name": format!("allow-{n}"), "namespace": namespace_name(workload)},
        "spec": {
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": app(workload)}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{
                "from": [{"podSelector": {"matchLabels": {"tier": tier}}},
                    {"namespaceSelector": {"matchLabels": {"team": "team-1"}}}],
                "ports": [{"port": "http"}, {"port": 9090}],
            }],
            "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]},
                {"ports": [{"port": 53, "protocol": "UDP"}]}],
        },
    });
    serde_json::from_value(value).unwrap()
}
