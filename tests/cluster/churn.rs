//! A thousand pods that come and go while flows run: the ledger is what the schedule says.

use std::collections::BTreeMap;
use std::thread;

use serde_json::{Value, json};
use support::control_plane::api::Api;
use support::network::Family;
use support::pod::PodSpec;
use support::task::Task;

use crate::scenarios::serving;
use crate::world::{World, expect};

/// Pods of other nodes, so many in each round.
const ROUNDS: u32 = 20;
const STRANGERS: u32 = 50;
/// Workloads of the clients of this node, one after the other at the same addresses.
const WORKLOADS: u32 = 4;

#[test]
fn the_ledger_of_a_thousand_pods_that_come_and_go_is_that_of_their_schedule() {
    let mut world = World::start();
    for name in ["a", "b", "far"] {
        world.namespace(name, &[]);
    }
    let server = world.pod(&PodSpec::new("b", "server"));
    let agent = world.agent(None);
    let _serving = server.spawn(&serving()).unwrap();
    let mut oracle: BTreeMap<String, u64> = BTreeMap::new();
    let mut addresses = None;
    for round in 0..ROUNDS {
        let churning = {
            let mut api = world.plane.admin();
            thread::spawn(move || strangers(&mut api, round))
        };
        let workload = format!("client-{}", round % WORKLOADS);
        let mut spec = PodSpec::new("a", &workload);
        spec.addresses = addresses;
        let client = world.pod(&spec);
        addresses = Some(client.addresses);
        let count = u64::from(1 + round % 5);
        for family in [Family::V4, Family::V6] {
            client.run(&Task::connect(server.at(family, 8080), count)).unwrap();
        }
        *oracle.entry(workload).or_default() += 2 * count;
        world.delete_pod(&client);
        churning.join().unwrap();
    }
    let edges: Vec<_> = oracle
        .iter()
        .flat_map(|(workload, count)| {
            ["egress", "ingress"].map(|way| {
                (format!("{way} a/{workload} -> b/server TCP/8080"), [("answered", *count)])
            })
        })
        .collect();
    let expected: Vec<_> =
        edges.iter().map(|(edge, ended)| (edge.as_str(), ended.as_slice())).collect();
    let report = expect(&agent, &expected);
    assert_eq!(report.edges.len(), expected.len(), "nobody else spoke");
    let status: Value = serde_json::from_str(&agent.get("/status").unwrap().body).unwrap();
    let pods = status["sources"].as_array().unwrap().iter();
    let pods: Vec<_> = pods.filter(|source| source["resource"] == "pods").collect();
    assert_eq!((pods.len(), &pods[0]["synced"], &pods[0]["objects"]), (1, &json!(true), &json!(1)));
    assert!(agent.stop().unwrap().success());
}

/// Fifty pods of another node that come, are relabelled, and go; every round takes the addresses of
/// the one before.
fn strangers(api: &mut Api, round: u32) {
    let pods = "/api/v1/namespaces/far/pods";
    for number in 0..STRANGERS {
        let name = format!("stranger-{round}-{number}");
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": "stranger"}},
            "spec": {"nodeName": "node-2", "containers": [{"name": "main", "image": "x.invalid/x:1"}]},
        });
        api.want("POST", pods, &object).unwrap();
        let address = format!("10.245.0.{}", number + 1);
        let status = json!({"status": {"phase": "Running", "podIP": address,
            "podIPs": [{"ip": address}]}});
        api.want("PATCH", &format!("{pods}/{name}/status"), &status).unwrap();
    }
    for number in 0..STRANGERS {
        let path = format!("{pods}/stranger-{round}-{number}");
        api.want("DELETE", &path, &json!({"gracePeriodSeconds": 0})).unwrap();
    }
}
