//! What happens in a cluster while the agent watches: it always says who it was, and what the
//! policies of that moment decide.

use std::time::Duration;

use serde_json::json;
use support::agent::Agent;
use support::network::Family;
use support::pod::{Owner, PodSpec};
use support::task::{Serve, Task};

use crate::world::{World, expect, path, until};

/// What only a friend may reach.
const FRIENDS_ONLY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: friends-only, namespace: b}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
  - from: [{podSelector: {matchLabels: {role: friend}}, namespaceSelector: {matchLabels: {team: x}}}]
";

/// As SIG Network's, but for the schema: the server takes whatever is written.
fn definition(kind: &str, plural: &str, version: &str) -> String {
    let singular = kind.to_lowercase();
    format!(
        "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: {plural}.policy.networking.k8s.io
  annotations: {{api-approved.kubernetes.io: unapproved}}
spec:
  group: policy.networking.k8s.io
  scope: Cluster
  names: {{kind: {kind}, listKind: {kind}List, plural: {plural}, singular: {singular}}}
  versions:
  - name: {version}
    served: true
    storage: true
    schema: {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}
---"
    )
}

const DENY_ALL_TO_B: &str = "
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: nobody-to-b}
spec:
  tier: Admin
  priority: 1
  subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: b}}}
  ingress: [{action: Deny, from: [{namespaces: {}}]}]
";

pub(crate) fn decision(agent: &Agent, edge: &str) -> String {
    let report = agent.report().unwrap();
    let edge = report.edge(edge).unwrap_or_else(|| panic!("no {edge}: {}", agent.log()));
    edge.verdicts["enforced"].decision.clone()
}

pub(crate) fn until_decision(agent: &Agent, edge: &str, wanted: &str) {
    until(Duration::from_secs(60), &format!("{edge} {wanted}"), || {
        let report = agent.report().ok()?;
        let verdict = report.edge(edge)?.verdicts.get("enforced")?;
        (verdict.decision == wanted).then_some(())
    });
}

pub(crate) fn serving() -> Task {
    Task::Serve(Serve { tcp: vec![8080], reply_bytes: 16, ..Serve::default() })
}

#[test]
fn labels_of_pods_and_namespaces_decide_from_the_moment_they_are_there() {
    let mut world = World::start();
    world.namespace("a", &[]);
    world.namespace("b", &[]);
    world.apply(FRIENDS_ONLY);
    let client = world.pod(&PodSpec::new("a", "client"));
    let server = world.pod(&PodSpec::new("b", "server"));
    let agent = world.agent(None);
    let _serving = server.spawn(&serving()).unwrap();
    client.run(&Task::connect(server.at(Family::V4, 8080), 3)).unwrap();
    let edge = "egress a/client -> b/server TCP/8080";
    expect(&agent, &[(edge, &[("answered", 3)])]);
    assert_eq!(decision(&agent, edge), "denied");
    // One of two labels is not enough.
    world.label_pod(&client, &json!({"role": "friend"}));
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(decision(&agent, edge), "denied");
    let label = |value: serde_json::Value| json!({"metadata": {"labels": {"team": value}}});
    world.patch("/api/v1/namespaces/a", &label("x".into()));
    until_decision(&agent, edge, "allowed");
    world.label_pod(&client, &json!({"role": null}));
    until_decision(&agent, edge, "denied");
    world.delete("/apis/networking.k8s.io/v1/namespaces/b/networkpolicies/friends-only");
    until_decision(&agent, edge, "allowed");
    client.run(&Task::connect(server.at(Family::V6, 8080), 2)).unwrap();
    expect(&agent, &[(edge, &[("answered", 5)])]);
    assert!(agent.stop().unwrap().success());
}

#[test]
fn an_address_belongs_to_whom_it_is_given_and_to_nobody_before_or_after() {
    let mut world = World::start();
    world.namespace("a", &[]);
    world.namespace("b", &[]);
    let client = world.pod(&PodSpec::new("a", "client"));
    let db = PodSpec::new("b", "db").owned_by(Owner::Nobody);
    let first = world.pod(&db);
    let agent = world.agent(None);
    let to = |pod: &support::pod::Pod, count| Task::connect(pod.at(Family::V4, 8080), count);
    {
        let _serving = first.spawn(&serving()).unwrap();
        client.run(&to(&first, 2)).unwrap();
        let edge = "egress a/client -> b/db TCP/8080";
        expect(&agent, &[(edge, &[("answered", 2)])]);
    }
    // Another pod of the same name at the same addresses.
    world.delete_pod(&first);
    let second = world.pod(&db.clone().reusing(first.addresses).label("born", "later"));
    assert!(second.name == first.name && second.uid != first.uid);
    {
        let _serving = second.spawn(&serving()).unwrap();
        client.run(&to(&second, 3)).unwrap();
    }
    expect(&agent, &[("egress a/client -> b/db TCP/8080", &[("answered", 5)])]);
    expect(&agent, &[("ingress a/client -> b/db TCP/8080", &[("answered", 5)])]);
    // A pod of another workload, while the object of the completed one is still there.
    world.node.end_pod(&second).unwrap();
    world.patch(&format!("{}/status", path(&second)), &json!({"status": {"phase": "Succeeded"}}));
    let third = world.pod(&PodSpec::new("b", "other").reusing(first.addresses));
    {
        let _serving = third.spawn(&serving()).unwrap();
        client.run(&to(&third, 4)).unwrap();
    }
    expect(
        &agent,
        &[
            ("egress a/client -> b/db TCP/8080", &[("answered", 5)]),
            ("egress a/client -> b/other TCP/8080", &[("answered", 4)]),
            ("ingress a/client -> b/other TCP/8080", &[("answered", 4)]),
        ],
    );
    assert!(agent.stop().unwrap().success());
}

#[test]
fn a_kind_of_policy_may_come_late_and_go_again() {
    let mut world = World::start();
    world.namespace("a", &[]);
    world.namespace("b", &[]);
    let client = world.pod(&PodSpec::new("a", "client"));
    let server = world.pod(&PodSpec::new("b", "server"));
    let agent = world.agent(None);
    let _serving = server.spawn(&serving()).unwrap();
    client.run(&Task::connect(server.at(Family::V4, 8080), 1)).unwrap();
    let edge = "egress a/client -> b/server TCP/8080";
    expect(&agent, &[(edge, &[("answered", 1)])]);
    assert_eq!(decision(&agent, edge), "allowed");
    let definitions = [
        definition("ClusterNetworkPolicy", "clusternetworkpolicies", "v1alpha2"),
        definition("AdminNetworkPolicy", "adminnetworkpolicies", "v1alpha1"),
        definition("BaselineAdminNetworkPolicy", "baselineadminnetworkpolicies", "v1alpha1"),
    ];
    world.apply(&definitions.concat());
    world
        .plane
        .kubectl(
            &[
                "wait",
                "--for=condition=Established",
                "crd/clusternetworkpolicies.policy.networking.k8s.io",
            ],
            "",
        )
        .unwrap();
    world.apply(DENY_ALL_TO_B);
    until_decision(&agent, edge, "denied");
    world.plane.kubectl(&["delete", "crd", "--all"], "").unwrap();
    until_decision(&agent, edge, "allowed");
    // Not a kind that everybody has, so nothing waits for it.
    assert_eq!(agent.get("/readyz").unwrap().status, 200);
    assert!(agent.stop().unwrap().success());
}
