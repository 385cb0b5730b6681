//! The simulated node, without an agent: its generators count what arrives, and it leaves nothing.

use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::cgroup::Driver;
use support::network::{Family, SILENT};
use support::node::Node;
use support::object::NODE_NAME;
use support::pod::PodSpec;
use support::process::Program;
use support::service::Port;
use support::task::{Connect, Counts, Send, Serve, Sockets, Task};
use support::{cgroup, lifetime};

/// Tells a copy of this test program that it is the one to be killed.
const DOOMED: &str = "PARAPET_TEST_DOOMED";

const BOTH: [Family; 2] = [Family::V4, Family::V6];

fn program() -> Program {
    Program::at(env!("CARGO_BIN_EXE_parapet-traffic"))
}

#[test]
fn tcp_is_counted_alike_at_both_ends() {
    let mut node = Node::start(&program()).unwrap();
    let client = node.pod(&PodSpec::new("a", "client")).unwrap();
    let server = node.pod(&PodSpec::new("b", "server").driver(Driver::Systemd)).unwrap();
    for family in BOTH {
        let serving = server.spawn(&Task::serve_tcp(&[8080])).unwrap();
        let counts = client.run(&Task::connect(server.at(family, 8080), 7)).unwrap();
        let expected = Counts {
            attempts: 7,
            answered: 7,
            pairs: 7,
            sent_bytes: 7 * 32,
            received_bytes: 7 * 64,
            ..Counts::default()
        };
        assert_eq!(counts, expected);
        let mirrored = Counts { pairs: 0, sent_bytes: 7 * 64, received_bytes: 7 * 32, ..expected };
        assert_eq!(serving.finish().unwrap(), mirrored);
        let refused = client.run(&Task::connect(server.at(family, 8080), 3)).unwrap();
        let expected = Counts { attempts: 3, refused: 3, pairs: 3, ..Counts::default() };
        assert_eq!(refused, expected);
    }
}

#[test]
fn udp_is_counted_alike_at_both_ends() {
    let mut node = Node::start(&program()).unwrap();
    let client = node.pod(&PodSpec::new("a", "client")).unwrap();
    let server = node.pod(&PodSpec::new("b", "server")).unwrap();
    for (family, sockets, pairs) in [
        (Family::V4, Sockets::Connected, 1),
        (Family::V6, Sockets::Connected, 1),
        (Family::V4, Sockets::PerDatagram, 5),
        (Family::V6, Sockets::Shared, 1),
    ] {
        let serving = server.spawn(&Task::serve_udp(&[53])).unwrap();
        let counts = client.run(&Task::send(server.at(family, 53), 5, sockets)).unwrap();
        let expected = Counts {
            attempts: 5,
            answered: 5,
            pairs,
            sent_bytes: 5 * 32,
            received_bytes: 5 * 32,
            ..Counts::default()
        };
        assert_eq!(counts, expected, "{family:?} {sockets:?}");
        assert_eq!(serving.finish().unwrap(), Counts { pairs: 0, ..expected });
        let task = Task::send(server.at(family, 53), 2, Sockets::PerDatagram);
        let expected =
            Counts { attempts: 2, refused: 2, pairs: 2, sent_bytes: 64, ..Counts::default() };
        assert_eq!(client.run(&task).unwrap(), expected);
    }
}

#[test]
fn one_socket_reaches_many_peers_and_silence_is_seen_as_such() {
    let mut node = Node::start(&program()).unwrap();
    let client = node.pod(&PodSpec::new("a", "client")).unwrap();
    let server = node.pod(&PodSpec::new("b", "server")).unwrap();
    let quiet = node.pod(&PodSpec::new("b", "quiet")).unwrap();
    let _serving = server.spawn(&Task::serve_udp(&[53, 54])).unwrap();
    let silence = Serve { udp: vec![9], silent: true, ..Serve::default() };
    let silent = quiet.spawn(&Task::Serve(silence)).unwrap();
    let targets = vec![
        server.at(Family::V4, 53),
        server.at(Family::V6, 54),
        quiet.at(Family::V4, 9),
        (SILENT.of(Family::V6), 9).into(),
    ];
    let task = Task::Send(Send {
        targets,
        count: 2,
        datagram_bytes: 10,
        timeout_ms: 50,
        pause_ms: 0,
        sockets: Sockets::Shared,
        lite: false,
    });
    let expected = Counts {
        attempts: 8,
        answered: 4,
        unanswered: 4,
        pairs: 4,
        sent_bytes: 80,
        received_bytes: 40,
        ..Counts::default()
    };
    assert_eq!(client.run(&task).unwrap(), expected);
    let expected = Counts { attempts: 2, received_bytes: 20, ..Counts::default() };
    assert_eq!(silent.finish().unwrap(), expected);
}

#[test]
fn services_balance_in_turn_and_refuse_without_backends() {
    let mut node = Node::start(&program()).unwrap();
    let client = node.pod(&PodSpec::new("a", "client")).unwrap();
    let first = node.pod(&PodSpec::new("b", "server")).unwrap();
    let second = node.pod(&PodSpec::new("b", "server")).unwrap();
    let ports = || vec![Port::new("http", "TCP", 80, 8080), Port::new("dns", "UDP", 53, 5353)];
    let full = node.service("b", "server", ports(), &[&first, &second]).unwrap();
    let empty = node.service("b", "empty", ports(), &[]).unwrap();
    let serve =
        Task::Serve(Serve { tcp: vec![8080], udp: vec![5353], reply_bytes: 1, ..Serve::default() });
    for family in BOTH {
        let serving = [first.spawn(&serve).unwrap(), second.spawn(&serve).unwrap()];
        let counts = client.run(&Task::connect(full.at(family, 80), 6)).unwrap();
        assert_eq!((counts.attempts, counts.answered), (6, 6), "{family:?}");
        let task = Task::send(full.at(family, 53), 4, Sockets::PerDatagram);
        let counts = client.run(&task).unwrap();
        assert_eq!((counts.attempts, counts.answered), (4, 4), "{family:?}");
        for server in serving {
            // 3 of 6 connections and 2 of 4 datagrams.
            assert_eq!(server.finish().unwrap().answered, 5, "{family:?}");
        }
        // The kernel ignores an ICMP error that arrives while connect(2) still holds the socket:
        // then only the SYN sent again after a second is refused.
        let mut task = Connect { timeout_ms: 3_000, ..Connect::default() };
        task.targets = vec![empty.at(family, 80)];
        task.count = 2;
        let counts = client.run(&Task::Connect(task)).unwrap();
        assert_eq!((counts.attempts, counts.refused), (2, 2), "{family:?}");
    }
}

#[test]
fn denials_swallow_one_flow_and_no_other() {
    let mut node = Node::start(&program()).unwrap();
    let client = node.pod(&PodSpec::new("a", "client")).unwrap();
    let server = node.pod(&PodSpec::new("b", "server")).unwrap();
    let _serving = server.spawn(&Task::serve_tcp(&[8080, 8081])).unwrap();
    for family in BOTH {
        node.deny(client.address(family), server.at(family, 8080), "tcp").unwrap();
        let denied = client.run(&Task::connect(server.at(family, 8080), 2)).unwrap();
        assert_eq!((denied.attempts, denied.unanswered), (2, 2), "{family:?}");
        let allowed = client.run(&Task::connect(server.at(family, 8081), 2)).unwrap();
        assert_eq!((allowed.attempts, allowed.answered), (2, 2), "{family:?}");
    }
}

#[test]
fn the_outside_answers_where_somebody_is_and_is_silent_elsewhere() {
    let mut node = Node::start(&program()).unwrap();
    let client = node.pod(&PodSpec::new("a", "client")).unwrap();
    for (address, family) in [("203.0.113.10", Family::V4), ("2001:db8::10", Family::V6)] {
        let address: IpAddr = address.parse().unwrap();
        node.add_outside(address).unwrap();
        let serving = node.spawn_outside(&Task::serve_tcp(&[443])).unwrap();
        let counts = client.run(&Task::connect((address, 443).into(), 3)).unwrap();
        assert_eq!((counts.attempts, counts.answered), (3, 3), "{family:?}");
        assert_eq!(serving.finish().unwrap().answered, 3);
        let silent: SocketAddr = (SILENT.of(family), 443).into();
        let counts = client.run(&Task::connect(silent, 2)).unwrap();
        assert_eq!((counts.attempts, counts.unanswered), (2, 2), "{family:?}");
    }
}

#[test]
fn a_second_pod_takes_over_the_addresses_of_a_deleted_one() {
    let mut node = Node::start(&program()).unwrap();
    let client = node.pod(&PodSpec::new("a", "client")).unwrap();
    let first = node.pod(&PodSpec::new("b", "first")).unwrap();
    let addresses = first.addresses;
    let gone = first.pod_cgroup.clone();
    let _serving = first.spawn(&Task::serve_tcp(&[80])).unwrap();
    let one = client.run(&Task::connect(first.at(Family::V4, 80), 2)).unwrap();
    node.delete_pod(&first).unwrap();
    assert!(!gone.exists());
    let second = node.pod(&PodSpec::new("c", "second").reusing(addresses)).unwrap();
    let serving = second.spawn(&Task::serve_tcp(&[80])).unwrap();
    let two = client.run(&Task::connect(second.at(Family::V4, 80), 3)).unwrap();
    assert_eq!((one.answered, two.answered), (2, 3));
    assert_eq!(serving.finish().unwrap().answered, 3);
}

#[test]
fn manifests_name_what_stands_on_the_node() {
    let mut node = Node::start(&program()).unwrap();
    let spec = PodSpec::new("a", "web").port("http", "TCP", 8080);
    let pod = node.pod(&spec).unwrap();
    node.service("a", "web", vec![Port::new("http", "TCP", 80, 8080)], &[&pod]).unwrap();
    let mut names: Vec<_> = std::fs::read_dir(node.manifests())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let expected = [
        "deployment_a_web.yaml".to_string(),
        "endpointslice_a_web-ipv4.yaml".to_string(),
        "endpointslice_a_web-ipv6.yaml".to_string(),
        "namespace_a.yaml".to_string(),
        format!("node_{NODE_NAME}.yaml"),
        format!("pod_a_{}.yaml", pod.name),
        "replicaset_a_web-5c9d7b8f6.yaml".to_string(),
        "service_a_web.yaml".to_string(),
    ];
    assert_eq!(names, expected);
    let file = node.manifests().join(format!("pod_a_{}.yaml", pod.name));
    let text = std::fs::read_to_string(file).unwrap();
    let object: parapet_core::object::Pod = serde_saphyr::from_str(&text).unwrap();
    assert_eq!(object.metadata.uid, pod.uid);
    assert_eq!(object.spec.containers[0].ports[0].container_port, 8080);
    let addresses: Vec<_> = object.status.pod_ips.into_iter().map(|ip| ip.ip).collect();
    assert_eq!(addresses, pod.addresses.both().map(|ip| ip.to_string()));
}

#[test]
fn a_panic_leaves_nothing_behind() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let run = std::thread::spawn(move || {
        let mut node = Node::start(&program()).unwrap();
        let pod = node.pod(&PodSpec::new("a", "doomed")).unwrap();
        let _serving = pod.spawn(&Task::serve_tcp(&[80])).unwrap();
        let name = node.name().to_string();
        let there = lifetime::remains(&name).unwrap();
        sender.send((name, there)).unwrap();
        panic!("as planned");
    });
    let (name, there) = receiver.recv().unwrap();
    assert!(run.join().is_err());
    let folder = std::env::temp_dir().join(&name);
    let expected = ["node", "outside", "p0"].map(|part| format!("netns {name}-{part}"));
    let rest = [format!("cgroup {name}"), format!("folder {}", folder.display())];
    assert_eq!(there, [expected.to_vec(), rest.to_vec()].concat());
    assert_eq!(lifetime::remains(&name).unwrap(), Vec::<String>::new());
}

#[test]
fn a_kill_leaves_nothing_behind() {
    if std::env::var_os(DOOMED).is_some() {
        let mut node = Node::start(&program()).unwrap();
        let pod = node.pod(&PodSpec::new("a", "doomed")).unwrap();
        let _serving = pod.spawn(&Task::serve_tcp(&[80])).unwrap();
        std::thread::sleep(Duration::from_secs(60));
        return;
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "node::a_kill_leaves_nothing_behind"])
        .env(DOOMED, "1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let name = format!("prp{}-0", child.id());
    // A pod's cgroup is the last thing to be made before its processes.
    let root = cgroup::mount_point().unwrap().join(&name).join("root/kubepods/burstable");
    wait_until("a node that stands", || root.is_dir());
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("a clean machine", || lifetime::remains(&name).unwrap().is_empty());
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < Duration::from_secs(20), "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
