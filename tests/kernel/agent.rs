//! The agent on the simulated node: what it reports is what the generators counted.

use std::path::PathBuf;
use std::time::Duration;

use support::agent::Agent;
use support::cgroup::Driver;
use support::network::{Family, SILENT};
use support::node::Node;
use support::pod::{Owner, PodSpec};
use support::process::Program;
use support::report::Report;
use support::service::Port;
use support::task::{Connect, Serve, Sockets, Task};

pub(crate) const BOTH: [Family; 2] = [Family::V4, Family::V6];

pub(crate) fn new_node() -> Node {
    Node::start(&Program::at(env!("CARGO_BIN_EXE_parapet-traffic"))).unwrap()
}

/// The agent that `cargo xtask test` built, or the one beside the tests.
pub(crate) fn binary() -> PathBuf {
    let own = PathBuf::from(env!("CARGO_BIN_EXE_parapet-traffic"));
    std::env::var_os("PARAPET_BIN").map_or_else(|| own.with_file_name("parapet"), PathBuf::from)
}

/// The report once all of these edges ended so and nothing waits; asserts that, and no loss.
pub(crate) fn expect(agent: &Agent, expected: &[(&str, &[(&str, u64)])]) -> Report {
    let holds = |report: &Report| {
        report.pending == 0 && expected.iter().all(|(edge, ended)| report.ended(edge) == *ended)
    };
    let report = agent.report_when(holds).unwrap();
    for (edge, ended) in expected {
        let all: Vec<_> = report.edges.iter().map(|edge| (edge.shown(), edge.ended())).collect();
        assert_eq!(report.ended(edge), *ended, "{edge} in {all:#?}");
    }
    assert_eq!(report.lost.values().sum::<u64>(), 0, "{:?}", report.lost);
    assert_eq!((report.pending, report.unjudged), (0, 0));
    report
}

#[test]
fn answered_and_refused_attempts_have_the_generators_counts() {
    let mut node = new_node();
    let client = node.pod(&PodSpec::new("a", "client")).unwrap();
    let server = node.pod(&PodSpec::new("b", "server").driver(Driver::Systemd)).unwrap();
    let agent = Agent::start(&binary(), &node, &[]).unwrap();
    let serve = Serve { tcp: vec![8080], udp: vec![5353], reply_bytes: 64, ..Serve::default() };
    let _serving = server.spawn(&Task::Serve(serve)).unwrap();
    for (family, count) in [(Family::V4, 7), (Family::V6, 5)] {
        client.run(&Task::connect(server.at(family, 8080), count)).unwrap();
        let refused = client.run(&Task::connect(server.at(family, 8081), count)).unwrap();
        assert_eq!((refused.attempts, refused.refused), (count, count));
        let send = |port, sockets| Task::send(server.at(family, port), count, sockets);
        client.run(&send(5353, Sockets::PerDatagram)).unwrap();
        // One pair of sockets is one attempt, however many datagrams.
        client.run(&send(5353, Sockets::Connected)).unwrap();
        client.run(&send(5353, Sockets::Shared)).unwrap();
        let refused = client.run(&send(5354, Sockets::PerDatagram)).unwrap();
        assert_eq!((refused.attempts, refused.refused), (count, count));
    }
    let report = expect(
        &agent,
        &[
            ("egress a/client -> b/server TCP/8080", &[("answered", 12)]),
            ("ingress a/client -> b/server TCP/8080", &[("answered", 12)]),
            ("egress a/client -> b/server TCP/8081", &[("refused", 12)]),
            ("egress a/client -> b/server UDP/5353", &[("answered", 16)]),
            ("ingress a/client -> b/server UDP/5353", &[("answered", 16)]),
            ("egress a/client -> b/server UDP/5354", &[("refused", 12)]),
        ],
    );
    assert_eq!(report.edges.len(), 6, "what nobody accepted has no receiving end");
    assert!(agent.stop().unwrap().success());
}

#[test]
fn silence_is_unanswered_and_is_denied_only_where_a_policy_says_so() {
    let mut node = new_node();
    let client = node.pod(&PodSpec::new("a", "client")).unwrap();
    let server = node.pod(&PodSpec::new("b", "server")).unwrap();
    // The node drops what the policy in force denies, as an enforcing CNI would.
    std::fs::write(node.manifests().join("policy.yaml"), DENY_8080).unwrap();
    let agent = Agent::start(&binary(), &node, &[]).unwrap();
    let serve = Serve { tcp: vec![8080, 9090], udp: vec![8080], ..Serve::default() };
    let _serving = server.spawn(&Task::Serve(serve)).unwrap();
    for family in BOTH {
        for protocol in ["tcp", "udp"] {
            node.deny(client.address(family), server.at(family, 8080), protocol).unwrap();
        }
        client.run(&Task::connect(server.at(family, 8080), 2)).unwrap();
        client.run(&Task::connect(server.at(family, 9090), 3)).unwrap();
        client.run(&Task::send(server.at(family, 8080), 2, Sockets::PerDatagram)).unwrap();
    }
    client.run(&Task::connect((SILENT.v4, 443).into(), 2)).unwrap();
    client.run(&Task::send((SILENT.v6, 443).into(), 3, Sockets::PerDatagram)).unwrap();
    let report = expect(
        &agent,
        &[
            ("egress a/client -> b/server TCP/8080", &[("unanswered", 4)]),
            ("egress a/client -> b/server UDP/8080", &[("unanswered", 4)]),
            ("egress a/client -> b/server TCP/9090", &[("answered", 6)]),
            ("ingress a/client -> b/server TCP/9090", &[("answered", 6)]),
            ("egress a/client -> 198.51.100.9 TCP/443", &[("unanswered", 2)]),
            ("egress a/client -> 2001:db8:dead::9 UDP/443", &[("unanswered", 3)]),
        ],
    );
    let decision = |edge: &str| {
        let verdict = &report.edge(edge).unwrap().verdicts["enforced"];
        (verdict.decision.clone(), verdict.ingress.reason.clone())
    };
    let word = |decision: &str, reason: &str| (decision.to_string(), reason.to_string());
    let denied = word("denied", "no_rule_matched");
    assert_eq!(decision("egress a/client -> b/server TCP/8080"), denied);
    assert_eq!(decision("egress a/client -> b/server UDP/8080"), denied);
    let allowed = word("allowed", "rule_matched");
    assert_eq!(decision("egress a/client -> b/server TCP/9090"), allowed);
    let outside = word("allowed", "not_a_pod");
    assert_eq!(decision("egress a/client -> 198.51.100.9 TCP/443"), outside);
}

const DENY_8080: &str = "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: only-9090, namespace: b, uid: 11111111-1111-4111-8111-111111111111}
spec:
  podSelector: {}
  policyTypes: [Ingress]
  ingress: [{ports: [{protocol: TCP, port: 9090}]}]
";

#[test]
fn a_service_is_seen_through_to_its_pods_and_ports() {
    let mut node = new_node();
    let client = node.pod(&PodSpec::new("a", "client")).unwrap();
    let first = node.pod(&PodSpec::new("b", "server")).unwrap();
    let second = node.pod(&PodSpec::new("b", "server")).unwrap();
    let ports = || vec![Port::new("http", "TCP", 80, 8080), Port::new("echo", "UDP", 7000, 5353)];
    let full = node.service("b", "server", ports(), &[&first, &second]).unwrap();
    let empty = node.service("b", "empty", ports(), &[]).unwrap();
    let agent = Agent::start(&binary(), &node, &[]).unwrap();
    let serve = Task::Serve(Serve { tcp: vec![8080], udp: vec![5353], ..Serve::default() });
    let _serving = [first.spawn(&serve).unwrap(), second.spawn(&serve).unwrap()];
    for family in BOTH {
        client.run(&Task::connect(full.at(family, 80), 6)).unwrap();
        client.run(&Task::send(full.at(family, 7000), 4, Sockets::PerDatagram)).unwrap();
    }
    // Long enough for the SYN sent again when the first ICMP error came too early to be heard.
    let task = Connect {
        targets: vec![empty.at(Family::V4, 80)],
        count: 2,
        timeout_ms: 3_000,
        ..Connect::default()
    };
    let refused = client.run(&Task::Connect(task)).unwrap();
    assert_eq!((refused.attempts, refused.refused), (2, 2));
    expect(
        &agent,
        &[
            ("egress a/client -> b/server TCP/8080", &[("answered", 12)]),
            ("ingress a/client -> b/server TCP/8080", &[("answered", 12)]),
            ("egress a/client -> b/server UDP/5353", &[("answered", 8)]),
            ("ingress a/client -> b/server UDP/5353", &[("answered", 8)]),
            ("egress a/client -> b/empty TCP/80", &[("refused", 2)]),
        ],
    );
}

#[test]
fn a_pod_of_a_hundred_milliseconds_has_its_name_on_its_flows() {
    let mut node = new_node();
    let server = node.pod(&PodSpec::new("b", "server")).unwrap();
    let agent = Agent::start(&binary(), &node, &[]).unwrap();
    let _serving = server.spawn(&Task::serve_tcp(&[80])).unwrap();
    for count in [1, 2] {
        let spec = PodSpec::new("a", "nightly").owned_by(Owner::CronJob);
        let pod = node.pod(&spec).unwrap();
        // A machine under load may need a second SYN, which is the same attempt.
        let task = Connect {
            targets: vec![server.at(Family::V4, 80)],
            count,
            timeout_ms: 3_000,
            ..Connect::default()
        };
        pod.run(&Task::Connect(task)).unwrap();
        node.complete_pod(&pod).unwrap();
    }
    expect(
        &agent,
        &[
            ("egress a/nightly -> b/server TCP/80", &[("answered", 3)]),
            ("ingress a/nightly -> b/server TCP/80", &[("answered", 3)]),
        ],
    );
}

#[test]
fn an_address_used_again_belongs_to_whoever_held_it_then() {
    let mut node = new_node();
    let client = node.pod(&PodSpec::new("a", "client")).unwrap();
    let first = node.pod(&PodSpec::new("b", "first")).unwrap();
    let agent = Agent::start(&binary(), &node, &[]).unwrap();
    let serving = first.spawn(&Task::serve_tcp(&[80])).unwrap();
    client.run(&Task::connect(first.at(Family::V4, 80), 2)).unwrap();
    drop(serving);
    node.delete_pod(&first).unwrap();
    expect(&agent, &[("egress a/client -> b/first TCP/80", &[("answered", 2)])]);
    // startTime has whole seconds: within the same one nobody could tell the two apart.
    std::thread::sleep(Duration::from_millis(1_100));
    let second = node.pod(&PodSpec::new("c", "second").reusing(first.addresses)).unwrap();
    let _serving = second.spawn(&Task::serve_tcp(&[80])).unwrap();
    client.run(&Task::connect(second.at(Family::V4, 80), 3)).unwrap();
    second.run(&Task::connect(client.at(Family::V4, 81), 4)).unwrap();
    let report = expect(
        &agent,
        &[
            ("egress a/client -> b/first TCP/80", &[("answered", 2)]),
            ("ingress a/client -> b/first TCP/80", &[("answered", 2)]),
            ("egress a/client -> c/second TCP/80", &[("answered", 3)]),
            ("ingress a/client -> c/second TCP/80", &[("answered", 3)]),
            ("egress c/second -> a/client TCP/81", &[("refused", 4)]),
        ],
    );
    assert_eq!(report.edges.len(), 5);
}
