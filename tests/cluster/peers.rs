//! Pods of other nodes that are looked up when they are met, in a cluster of a thousand.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::agent::Agent;
use support::network::SILENT;
use support::pod::PodSpec;
use support::task::Task;

use crate::world::{World, binary, expect, until};

const ELSEWHERE: u32 = 1_000;
const MET: u32 = 20;

fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 245, 0, 2)) + number)
}

/// Pods that nothing runs: another node would.
fn pods_elsewhere(world: &mut World) {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "elsewhere"},
        "spec": {"podCIDR": "10.245.0.0/16", "podCIDRs": ["10.245.0.0/16"]}});
    world.make("/api/v1/nodes", &node);
    for number in 0..ELSEWHERE {
        let name = format!("far-{number}");
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": "far"}},
            "spec": {"nodeName": "elsewhere",
                "containers": [{"name": "main", "image": "parapet.invalid/traffic:1"}]}});
        world.make("/api/v1/namespaces/b/pods", &pod);
        let ip = address(number).to_string();
        let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}});
        world.patch(&format!("/api/v1/namespaces/b/pods/{name}/status"), &status);
    }
}

fn agent(world: &World, peers: &str) -> Agent {
    let arguments = ["--pin-dir", "none", "--peers", peers].map(str::to_string);
    Agent::start_live(&binary(), &world.node, &world.kubeconfig(None), &arguments).unwrap()
}

fn status(agent: &Agent) -> Value {
    serde_json::from_str(&agent.get("/status").unwrap().body).unwrap()
}

fn objects(status: &Value, resource: &str) -> u64 {
    let mut sources = status["sources"].as_array().unwrap().iter();
    let found = sources.find(|source| source["resource"] == resource);
    found.map_or(0, |source| source["objects"].as_u64().unwrap())
}

/// Pods of the own node and of others, and requests.
fn cost(agent: &Agent) -> (u64, u64, u64) {
    let status = status(agent);
    let requests = status["api"]["requests_last_minute"].as_u64().unwrap();
    (objects(&status, "pods"), objects(&status, "peers"), requests)
}

#[test]
fn a_peer_that_was_met_is_known_and_no_other_is_held() {
    let mut world = World::start();
    world.namespace("a", &[]);
    world.namespace("b", &[]);
    pods_elsewhere(&mut world);
    world.node.swallow("10.245.0.0/16").unwrap();
    let client = world.pod(&PodSpec::new("a", "client"));
    let all = agent(&world, "all");
    let all_held = cost(&all);
    assert_eq!((all_held.0, all_held.1), (u64::from(ELSEWHERE) + 1, 0));
    assert!(all.stop().unwrap().success());
    let seen = agent(&world, "seen");
    let before = cost(&seen);
    assert_eq!((before.0, before.1), (1, 0));
    let began = Instant::now();
    for number in 0..MET {
        let to = (address(number), 8080).into();
        client.run(&Task::connect(to, 1)).unwrap();
    }
    until(Duration::from_secs(30), "all that were met are held", || {
        (cost(&seen).1 == u64::from(MET)).then_some(())
    });
    let after = cost(&seen);
    eprintln!("all: {all_held:?}; seen: {before:?}, then {after:?} in {:?}", began.elapsed());
    assert_eq!((after.0, after.2 - before.2), (1, u64::from(MET)));
    let report = seen.report_when(|report| report.pending == 0).unwrap();
    let shown: Vec<_> = report.edges.iter().map(|edge| edge.shown()).collect();
    assert!(shown.iter().any(|edge| edge == "egress a/client -> b/far-0 TCP/8080"), "{shown:#?}");
    let outside = shown.iter().filter(|edge| !edge.contains("b/far-"));
    assert_eq!(outside.count(), 0, "{shown:#?}");
    // Outside is not asked for.
    client.run(&Task::connect((SILENT.v4, 8080).into(), 1)).unwrap();
    expect(&seen, &[]);
    assert_eq!(cost(&seen).1, u64::from(MET));
    assert!(seen.stop().unwrap().success());
}
