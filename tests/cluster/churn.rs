//! A thousand pods that come and go while flows run: the ledger is what the schedule says.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use support::control_plane::api::Api;
use support::network::Family;
use support::pod::PodSpec;
use support::task::Task;

use crate::scenarios::serving;
use crate::world::{World, expect, until};

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
    let mut oracle: BTreeMap<String, [(&str, u64); 2]> = BTreeMap::new();
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
        let ended = oracle.entry(workload).or_insert([("answered", 0), ("unanswered", 0)]);
        for family in [Family::V4, Family::V6] {
            let counts = client.run(&Task::connect(server.at(family, 8080), count)).unwrap();
            assert_eq!((counts.attempts, counts.refused), (count, 0));
            ended[0].1 += counts.answered;
            // An address that is used again soon may meet what is left of a connection before.
            ended[1].1 += counts.unanswered;
        }
        // As before its first flow: the other end is known by its address only.
        thread::sleep(Duration::from_millis(700));
        world.delete_pod(&client);
        churning.join().unwrap();
    }
    let edges = oracle.iter().flat_map(|(workload, ended)| {
        let ended: Vec<_> = ended.iter().copied().filter(|(_, count)| *count > 0).collect();
        ["egress", "ingress"]
            .map(|way| (format!("{way} a/{workload} -> b/server TCP/8080"), ended.clone()))
    });
    let edges: Vec<_> = edges.collect();
    let expected: Vec<_> =
        edges.iter().map(|(edge, ended)| (edge.as_str(), ended.as_slice())).collect();
    let report = expect(&agent, &expected);
    let others = report.edges.iter().filter(|edge| {
        oracle.iter().all(|(workload, _)| edge.source.shown() != format!("a/{workload}"))
    });
    let others: Vec<_> = others.map(|edge| (edge.shown(), edge.ended())).collect();
    assert!(others.iter().all(|(_, ended)| ended.is_empty()), "nobody else spoke: {others:?}");
    // Of a thousand pods one is left.
    until(Duration::from_secs(20), "one pod", || {
        let status: Value = serde_json::from_str(&agent.get("/status").ok()?.body).ok()?;
        let mut sources = status["sources"].as_array()?.iter();
        let pods = sources.find(|source| source["resource"] == "pods")?;
        (pods["synced"] == json!(true) && pods["objects"] == json!(1)).then_some(())
    });
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
