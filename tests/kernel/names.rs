//! Names on the simulated node: what pods were told by a DNS server, and what the agent calls the
//! addresses then.
//!
//! In: questions, answers and connections of real sockets. Out: nothing but assertions.

use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use parapet::kernel::{KernelConfig, Sensor};
use parapet_core::record::Record;
use support::agent::Agent;
use support::network::Family;
use support::pod::{Pod, PodSpec};
use support::process::Process;
use support::report::Report;
use support::task::{Counts, Resolve, Task, Zone};

use crate::agent::{binary, new_node};

const OUTSIDE_V4: &str = "203.0.113.7";
const OUTSIDE_V6: &str = "2001:db8:7::7";
const PORT: u16 = 443;

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn zone(name: &str, padding_bytes: usize) -> Zone {
    Zone {
        name: name.to_owned(),
        addresses: vec![addr(OUTSIDE_V4), addr(OUTSIDE_V6)],
        padding_bytes,
    }
}

fn serve(dns: &Pod, zones: &[Zone]) -> Process {
    dns.spawn(&Task::Names(zones.to_vec())).unwrap()
}

/// Asks the server over this family, for addresses of the same.
fn resolve(client: &Pod, dns: &Pod, family: Family, name: &str, tcp: bool) {
    let server = dns.at(family, 53);
    let ipv6 = family == Family::V6;
    let task = Resolve { server, name: name.to_owned(), ipv6, tcp, count: 1 };
    let counts = client.run(&Task::Resolve(task)).unwrap();
    assert_eq!((counts.attempts, counts.answered), (1, 1), "{counts:?}");
}

fn connect(client: &Pod, address: &str, port: u16, count: u64) {
    let counts = client.run(&Task::connect((addr(address), port).into(), count)).unwrap();
    assert_eq!(counts.answered, count, "{counts:?}");
}

/// Edges to port 443 and 8443 with their attempts, once so many are there; nothing may be lost.
fn outside(agent: &Agent, attempts: u64) -> Vec<(String, u64)> {
    let rows = |report: &Report| {
        let edges = report.edges.iter().filter(|edge| edge.protocol == "TCP");
        let edges = edges.filter(|edge| matches!(edge.target_port, PORT | 8443));
        edges.map(|edge| (edge.shown(), edge.counts.attempts)).collect::<Vec<_>>()
    };
    let all = |report: &Report| {
        report.pending == 0 && rows(report).iter().map(|(_, count)| count).sum::<u64>() == attempts
    };
    let report = agent.report_when(all).unwrap();
    assert_eq!(report.lost.values().sum::<u64>(), 0, "{:?}", report.lost);
    rows(&report)
}

/// Longer than the agent takes to read what was counted.
fn let_it_read() {
    thread::sleep(Duration::from_millis(600));
}

fn row(edge: &str, attempts: u64) -> (String, u64) {
    (edge.to_owned(), attempts)
}

#[test]
fn an_outside_end_has_the_name_that_its_own_pod_asked_for() {
    let mut node = new_node();
    let one = node.pod(&PodSpec::new("a", "one")).unwrap();
    let two = node.pod(&PodSpec::new("a", "two")).unwrap();
    let nobody = node.pod(&PodSpec::new("a", "nobody")).unwrap();
    let dns = node.pod(&PodSpec::new("kube-system", "dns")).unwrap();
    for address in [OUTSIDE_V4, OUTSIDE_V6] {
        node.add_outside(addr(address)).unwrap();
    }
    let agent = Agent::start(&binary(), &node, &[]).unwrap();
    let _outside = node.spawn_outside(&Task::serve_tcp(&[PORT])).unwrap();
    let _dns = serve(&dns, &[zone("api.one.example", 0), zone("api.two.example", 9_000)]);
    resolve(&one, &dns, Family::V4, "API.one.example", false);
    resolve(&one, &dns, Family::V6, "api.one.example", false);
    // More than one segment, and more than one event.
    resolve(&two, &dns, Family::V4, "api.two.example", true);
    resolve(&two, &dns, Family::V6, "api.two.example", true);
    for pod in [&one, &two, &nobody] {
        connect(pod, OUTSIDE_V4, PORT, 2);
        connect(pod, OUTSIDE_V6, PORT, 3);
    }
    let expected = [
        row("egress a/nobody -> 203.0.113.7 TCP/443", 2),
        row("egress a/nobody -> 2001:db8:7::7 TCP/443", 3),
        row("egress a/one -> api.one.example TCP/443", 5),
        row("egress a/two -> api.two.example TCP/443", 5),
    ];
    assert_eq!(outside(&agent, 15), expected);
    let report = agent.report().unwrap();
    let target = &report.edge("egress a/one -> api.one.example TCP/443").unwrap().target;
    assert_eq!((&*target.kind, &*target.also), ("name", &[] as &[String]));
    assert_eq!(target.addresses, [OUTSIDE_V4, OUTSIDE_V6]);
    assert!(agent.stop().unwrap().success());
}

#[test]
fn an_answer_names_what_begins_after_it_and_the_newest_one_wins() {
    let mut node = new_node();
    let client = node.pod(&PodSpec::new("a", "client")).unwrap();
    let dns = node.pod(&PodSpec::new("kube-system", "dns")).unwrap();
    node.add_outside(addr(OUTSIDE_V4)).unwrap();
    let agent = Agent::start(&binary(), &node, &[]).unwrap();
    let _outside = node.spawn_outside(&Task::serve_tcp(&[PORT, 8443])).unwrap();
    let _dns = serve(&dns, &[zone("old.example", 0), zone("new.example", 0)]);
    connect(&client, OUTSIDE_V4, PORT, 1);
    let_it_read();
    resolve(&client, &dns, Family::V4, "old.example", false);
    let_it_read();
    connect(&client, OUTSIDE_V4, PORT, 2);
    let_it_read();
    resolve(&client, &dns, Family::V4, "new.example", false);
    let_it_read();
    connect(&client, OUTSIDE_V4, PORT, 4);
    // Of what is read at once with an answer nobody can say which came first.
    let_it_read();
    // A flow of its own: the answer is a moment older, and read no sooner.
    resolve(&client, &dns, Family::V4, "old.example", false);
    connect(&client, OUTSIDE_V4, 8443, 8);
    let expected = [
        row("egress a/client -> 203.0.113.7 TCP/443", 1),
        row("egress a/client -> new.example TCP/443", 4),
        row("egress a/client -> old.example TCP/443", 2),
        row("egress a/client -> old.example TCP/8443", 8),
    ];
    assert_eq!(outside(&agent, 15), expected);
    let report = agent.report().unwrap();
    let also = |edge: &str| report.edge(edge).unwrap().target.also.clone();
    assert_eq!(also("egress a/client -> old.example TCP/443"), [] as [&str; 0]);
    assert_eq!(also("egress a/client -> new.example TCP/443"), ["old.example"]);
    assert!(agent.stop().unwrap().success());
}

#[tokio::test]
async fn a_flood_of_answers_is_counted_and_hides_nothing_else() {
    const ANSWERS: u64 = 8_000;
    let mut node = new_node();
    let client = node.pod(&PodSpec::new("a", "client")).unwrap();
    let dns = node.pod(&PodSpec::new("kube-system", "dns")).unwrap();
    let _dns = serve(&dns, &[zone("a.example", 0)]);
    let config = KernelConfig {
        cgroup_root: node.cgroup_root().to_owned(),
        cgroup_prefix: format!("/{}", node.name()),
        ..KernelConfig::default()
    };
    let mut sensor = Sensor::load(&config).unwrap();
    let server = dns.at(Family::V4, 53);
    let task =
        Resolve { server, name: "a.example".to_owned(), ipv6: false, tcp: false, count: ANSWERS };
    let counts: Counts = client.run(&Task::Resolve(task)).unwrap();
    assert_eq!(counts.answered, ANSWERS, "{counts:?}");
    let (mut read, mut lost, mut flows) = (0, Vec::new(), 0);
    for record in sensor.read_now() {
        match record {
            Record::Dns(_) => read += 1,
            Record::Lost { stage, count } => lost.push((stage, count)),
            Record::Flow(_) => flows += 1,
            Record::CgroupCreated { .. }
            | Record::CgroupRemoved { .. }
            | Record::Read(_)
            | Record::Reader(_) => {}
        }
    }
    assert_eq!(lost, [("names_full", ANSWERS - read)]);
    // Both ends of it.
    assert_eq!(flows, 2);
    assert!(read > 1000, "{read} answers fit the ring");
}
