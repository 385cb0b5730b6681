//! Policy sets that are staged in the cluster itself, in labelled ConfigMaps: they are judged as
//! they come, change and go, and whatever is wrong with one is named where it stands.

use std::time::Duration;

use serde_json::{Value, json};
use support::agent::Agent;
use support::network::Family;
use support::pod::PodSpec;
use support::task::Task;

use crate::scenarios::serving;
use crate::world::{World, expect, until};

const EDGE: &str = "egress a/client -> b/server TCP/8080";
const MAPS: &str = "/api/v1/namespaces/b/configmaps";
const PATIENCE: Duration = Duration::from_secs(30);

const DENY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: gate, namespace: b}
spec: {podSelector: {}, policyTypes: [Ingress]}
";
const ALLOW: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: gate, namespace: b}
spec: {podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}
";

fn map(name: &str, candidate: &str, data: &Value) -> Value {
    let labels = json!({"parapet.dev/candidate": candidate});
    json!({"metadata": {"name": name, "namespace": "b", "labels": labels}, "data": data})
}

/// What the policy sets of the cluster's own say of the edge.
fn deltas(agent: &Agent) -> Vec<(String, String)> {
    let report = agent.report().unwrap();
    let edge = report.edge(EDGE).unwrap_or_else(|| panic!("no {EDGE}: {}", agent.log()));
    let staged = edge.deltas.iter().filter(|(set, _)| *set != "default-deny");
    staged.map(|(set, delta)| (set.clone(), delta.clone())).collect()
}

fn until_deltas(agent: &Agent, wanted: &[(&str, &str)]) {
    let wanted: Vec<_> =
        wanted.iter().map(|(set, delta)| (set.to_string(), delta.to_string())).collect();
    until(PATIENCE, &format!("{wanted:?}"), || (deltas(agent) == wanted).then_some(()));
}

fn problems(agent: &Agent) -> String {
    let status: Value = serde_json::from_str(&agent.get("/status").unwrap().body).unwrap();
    let sources = status["sources"].as_array().unwrap().iter();
    sources
        .filter(|one| one["resource"] == "configmaps")
        .map(|one| one["problems"].to_string())
        .collect()
}

#[test]
fn candidates_in_config_maps_are_judged_as_they_come_change_and_go() {
    let mut world = World::start();
    world.namespace("a", &[]);
    world.namespace("b", &[]);
    let client = world.pod(&PodSpec::new("a", "client"));
    let server = world.pod(&PodSpec::new("b", "server"));
    world.make(MAPS, &map("staged", "strict", &json!({"gate.yaml": DENY, "notes.txt": "kind: ["})));
    world.make(MAPS, &json!({"metadata": {"name": "other"}, "data": {"gate.yaml": DENY}}));
    let agent = world.agent(None);
    let _serving = server.spawn(&serving()).unwrap();
    client.run(&Task::connect(server.at(Family::V4, 8080), 2)).unwrap();
    expect(&agent, &[(EDGE, &[("answered", 2)])]);
    until_deltas(&agent, &[("strict", "newly_denied")]);
    assert_eq!(problems(&agent), "[]");

    // A second set appears beside it, and the first one changes.
    world.make(MAPS, &map("open", "open", &json!({"gate.json": "[]", "gate.yml": ALLOW})));
    until_deltas(&agent, &[("open", "unchanged_allowed"), ("strict", "newly_denied")]);
    let changed = json!({"data": {"gate.yaml": ALLOW}});
    world.patch(&format!("{MAPS}/staged"), &changed);
    until_deltas(&agent, &[("open", "unchanged_allowed"), ("strict", "unchanged_allowed")]);
    let named = || problems(&agent).contains("ConfigMap b/open gate.json").then_some(());
    until(PATIENCE, "the manifest that is none", named);

    // The label moves one of them to another name; one goes.
    world.patch(&format!("{MAPS}/staged"), &map("staged", "later", &json!({"gate.yaml": DENY})));
    until_deltas(&agent, &[("later", "newly_denied"), ("open", "unchanged_allowed")]);
    world.delete(&format!("{MAPS}/open"));
    until_deltas(&agent, &[("later", "newly_denied")]);

    // A name that means something else is refused, and the set that has it stays as it is.
    world.make(MAPS, &map("taken", "enforced", &json!({"gate.yaml": DENY})));
    until(PATIENCE, "the refusal", || problems(&agent).contains("enforced").then_some(()));
    until_deltas(&agent, &[("later", "newly_denied")]);
    let report = agent.report().unwrap();
    assert_eq!(report.edge(EDGE).unwrap().verdicts["enforced"].decision, "allowed");
    assert!(agent.stop().unwrap().success());
}
