//! An agent that asks the API server says what an agent says that reads
//! `kubectl get -A -o yaml` of the same cluster, and asks for no more than it was granted.

use std::collections::BTreeMap;

use support::agent::Agent;
use support::network::Family;
use support::pod::{Owner, PodSpec};
use support::report::Report;
use support::task::Task;

use crate::scenarios::serving;
use crate::world::{ACCOUNT, World, binary, expect};

/// What kubectl is asked for, as the README has it.
const KINDS: &str = "namespaces,nodes,pods,services,endpointslices,networkpolicies";

const POLICIES: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny, namespace: b}
spec: {podSelector: {}, policyTypes: [Ingress]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow-client, namespace: b}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
  - from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: a}}}]
    ports: [{port: 8080}]
";

/// Everything of an edge that is judged, and the counts.
fn judged(report: &Report) -> BTreeMap<String, String> {
    let edges = report.edges.iter();
    edges
        .map(|edge| {
            let ends = (&edge.source, &edge.target);
            let said =
                format!("{ends:?} {:?} {:?} {:?}", edge.outcomes, edge.verdicts, edge.deltas);
            (edge.shown(), said)
        })
        .collect()
}

#[test]
fn the_live_cluster_and_its_manifests_give_the_same_report() {
    let mut world = World::start();
    world.namespace("a", &[("team", "x")]);
    world.namespace("b", &[]);
    world.apply(POLICIES);
    let client = world.pod(&PodSpec::new("a", "client"));
    let tool = world.pod(&PodSpec::new("b", "tool").owned_by(Owner::Nobody));
    let server = world.pod(&PodSpec::new("b", "server"));
    let yaml = world.plane.kubectl(&["get", "-A", "-o", "yaml", KINDS], "").unwrap();
    let file = world.node.folder().join("cluster.yaml");
    std::fs::write(&file, yaml).unwrap();

    let live = world.agent(None);
    let unpinned = ["--pin-dir".to_string(), "none".to_string()];
    let offline = Agent::start_from(&binary(), &world.node, &file, &unpinned).unwrap();
    let _serving = server.spawn(&serving()).unwrap();
    for (pod, count) in [(&client, 3), (&tool, 2)] {
        pod.run(&Task::connect(server.at(Family::V4, 8080), count)).unwrap();
        pod.run(&Task::connect(server.at(Family::V6, 8081), count)).unwrap();
    }
    let expected: [(&str, &[(&str, u64)]); 6] = [
        ("egress a/client -> b/server TCP/8080", &[("answered", 3)]),
        ("egress a/client -> b/server TCP/8081", &[("refused", 3)]),
        ("egress b/tool -> b/server TCP/8080", &[("answered", 2)]),
        ("egress b/tool -> b/server TCP/8081", &[("refused", 2)]),
        ("ingress a/client -> b/server TCP/8080", &[("answered", 3)]),
        ("ingress b/tool -> b/server TCP/8080", &[("answered", 2)]),
    ];
    let said = expect(&live, &expected);
    assert_eq!(judged(&said), judged(&expect(&offline, &expected)));
    let decisions: BTreeMap<_, _> = said
        .edges
        .iter()
        .filter(|edge| edge.direction.as_deref() == Some("egress"))
        .map(|edge| (edge.shown(), edge.verdicts["enforced"].decision.as_str()))
        .collect();
    let decided = |edge: &str| decisions.get(edge).copied();
    assert_eq!(decided("egress a/client -> b/server TCP/8080"), Some("allowed"));
    assert_eq!(decided("egress b/tool -> b/server TCP/8080"), Some("denied"));
    assert!(live.stop().unwrap().success() && offline.stop().unwrap().success());
    only_what_is_granted(&world);
}

/// From the audit log: the agent only reads, only what its role names, and never a Secret.
fn only_what_is_granted(world: &World) {
    let own = format!("system:serviceaccount:{}:{}", ACCOUNT.0, ACCOUNT.1);
    let asked = world.plane.asked().unwrap();
    assert!(asked.iter().any(|one| one.user == own && one.what == "pods"), "{asked:#?}");
    let granted = granted(world);
    for one in asked.iter().filter(|one| one.user == own) {
        assert!(!one.what.starts_with("secrets"), "{one:?}");
        // Every account may ask what the server is and which kinds it has.
        let is_discovery = one.what.starts_with('/') && one.verb == "get";
        let is_granted = granted.contains(&(one.verb.clone(), one.what.clone()));
        assert!(is_discovery || is_granted, "{one:?} is not in {granted:#?}");
        // A kind that is not installed is asked for and not found.
        let is_policy = one.what.ends_with(".policy.networking.k8s.io") || is_discovery;
        let is_answered = one.status == 200 || (is_policy && one.status == 404);
        assert!(is_answered, "{one:?}");
    }
}

/// Verbs and resources of the agent's roles, as the server has them.
fn granted(world: &World) -> std::collections::BTreeSet<(String, String)> {
    let roles = ["get", "clusterroles", "parapet-agent", "parapet-candidates", "-o", "json"];
    let text = world.plane.kubectl(&roles, "").unwrap();
    let roles: serde_json::Value = serde_json::from_str(&text).unwrap();
    let words = |value: &serde_json::Value| -> Vec<String> {
        let words = value.as_array().into_iter().flatten();
        words.map(|word| word.as_str().unwrap().to_string()).collect()
    };
    let mut all = std::collections::BTreeSet::new();
    let roles = roles["items"].as_array().unwrap();
    for rule in roles.iter().flat_map(|role| role["rules"].as_array().unwrap()) {
        for group in words(&rule["apiGroups"]) {
            for resource in words(&rule["resources"]) {
                let group = if group.is_empty() { String::new() } else { format!(".{group}") };
                let what = format!("{resource}{group}");
                all.extend(words(&rule["verbs"]).into_iter().map(|verb| (verb, what.clone())));
            }
        }
    }
    assert!(all.iter().all(|(verb, what)| {
        ["get", "list", "watch"].contains(&verb.as_str()) && !what.starts_with("secrets")
    }));
    all
}
