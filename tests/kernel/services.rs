//! Services and rewritten addresses on the simulated node, with the agent on the host network: who
//! was really asked, and who really began.
//!
//! In: every kind of Service, asked by pods, by the node and from outside. Out: nothing but
//! assertions, on numbers the generators know.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use parapet::kernel::rewrite::Rewrite;
use parapet::node::conntrack::{Conntrack, Translator, Tuple};
use parapet_core::flow::{Direction, Protocol, Timestamp};
use parapet_core::identity::{SourceSeen, Translation};
use parapet_core::record::{Counts, FlowRecord, Record};
use support::agent::Agent;
use support::network::{Addresses, Family, GATEWAY, NODE};
use support::node::Node;
use support::pod::{Pod, PodSpec};
use support::process::Process;
use support::report::{Edge, EdgeCounts, Report};
use support::service::{Backend, Kind, Port};
use support::task::{Serve, Sockets, Task};
use support::tool;

use crate::agent::{BOTH, binary, expect, new_node};

/// Outside addresses that a load balancer leads to the node.
const BALANCER: Addresses = Addresses {
    v4: Ipv4Addr::new(203, 0, 113, 10),
    v6: Ipv6Addr::new(0x2001, 0xdb8, 0xba1, 0, 0, 0, 0, 10),
};

pub(crate) fn web() -> Vec<Port> {
    vec![Port::new("http", "TCP", 80, 8080)]
}

/// A pod that serves this TCP port.
pub(crate) fn server(node: &mut Node, name: &str, port: u16) -> (Pod, Process) {
    let pod = node.pod(&PodSpec::new("b", name)).unwrap();
    let serving = pod.spawn(&Task::serve_tcp(&[port])).unwrap();
    (pod, serving)
}

fn from_outside(node: &Node, target: SocketAddr, count: u64) {
    let counts = node.spawn_outside(&Task::connect(target, count)).unwrap().finish().unwrap();
    assert_eq!((counts.attempts, counts.answered), (count, count), "{target}");
}

fn from_node(node: &Node, target: SocketAddr, count: u64) {
    let counts = node.spawn_on_node(&Task::connect(target, count)).unwrap().finish().unwrap();
    assert_eq!((counts.attempts, counts.answered), (count, count), "{target}");
}

pub(crate) fn from_pod(pod: &Pod, target: SocketAddr, count: u64) {
    let counts = pod.run(&Task::connect(target, count)).unwrap();
    assert_eq!((counts.attempts, counts.answered), (count, count), "{target}");
}

#[test]
fn each_connection_to_a_divided_service_is_its_own_backends() {
    let mut node = new_node();
    let client = node.pod(&PodSpec::new("a", "client")).unwrap();
    let (blue, _blue) = server(&mut node, "blue", 8080);
    let (green, _green) = server(&mut node, "green", 9090);
    let backends = [Backend::new(&blue), Backend::at(&green, 9090)];
    let service = node.service_of("b", "web", web(), (Kind::ClusterIp, false), &backends).unwrap();
    let agent = Agent::start_on(&binary(), &node, &[]).unwrap();
    for (family, count) in [(Family::V4, 6), (Family::V6, 4)] {
        from_pod(&client, service.at(family, 80), count);
        from_node(&node, service.at(family, 80), 2);
    }
    expect(
        &agent,
        &[
            ("egress a/client -> b/blue TCP/8080", &[("answered", 5)]),
            ("egress a/client -> b/green TCP/9090", &[("answered", 5)]),
            ("ingress a/client -> b/blue TCP/8080", &[("answered", 5)]),
            ("ingress a/client -> b/green TCP/9090", &[("answered", 5)]),
            ("egress node-1 -> b/blue TCP/8080", &[("answered", 2)]),
            ("egress node-1 -> b/green TCP/9090", &[("answered", 2)]),
        ],
    );
}

/// As kube-proxy in its usual mode, by the kernel's older tables and by the translation to newer
/// ones that current distributions make of the same words.
#[test]
fn a_divided_service_is_seen_through_whichever_tables_divide_it() {
    for (flavor, count) in [("legacy", 6), ("nft", 4)] {
        let mut node = new_node();
        let client = node.pod(&PodSpec::new("a", "client")).unwrap();
        let (blue, _blue) = server(&mut node, "blue", 8080);
        let (green, _green) = server(&mut node, "green", 9090);
        let backends = [Backend::new(&blue), Backend::at(&green, 9090)];
        let cluster_ip = (Kind::ClusterIp, false);
        let service = node.service_of("b", "web", web(), cluster_ip, &backends).unwrap();
        let rules = |family: Family| {
            let asked = service.at(family, 80);
            let lead = format!("-A web -d {} -p tcp --dport 80", asked.ip());
            format!(
                "*nat\n:web - [0:0]\n-A PREROUTING -j web\n-A OUTPUT -j web\n\
                 {lead} -m statistic --mode nth --every 2 --packet 0 -j DNAT --to-destination {}\n\
                 {lead} -j DNAT --to-destination {}\nCOMMIT\n",
                blue.at(family, 8080),
                green.at(family, 9090),
            )
        };
        let all = [("iptables", Family::V4), ("ip6tables", Family::V6)];
        let divide = || {
            tool::nft("delete table inet services")?;
            all.iter().try_for_each(|(program, family)| {
                tool::run(&format!("{program}-{flavor}-restore"), &[], &rules(*family)).map(drop)
            })
        };
        node.network().within(divide).unwrap();
        let agent = Agent::start_on(&binary(), &node, &[]).unwrap();
        for family in BOTH {
            from_pod(&client, service.at(family, 80), count);
            from_node(&node, service.at(family, 80), 2);
        }
        let pod: &[(&str, u64)] = &[("answered", count)];
        let own: &[(&str, u64)] = &[("answered", 2)];
        expect(
            &agent,
            &[
                ("egress a/client -> b/blue TCP/8080", pod),
                ("egress a/client -> b/green TCP/9090", pod),
                ("ingress a/client -> b/blue TCP/8080", pod),
                ("ingress a/client -> b/green TCP/9090", pod),
                ("egress node-1 -> b/blue TCP/8080", own),
                ("egress node-1 -> b/green TCP/9090", own),
            ],
        );
    }
}

#[test]
fn each_socket_pair_of_udp_is_its_own_backends_and_rewritten_where_it_came_from_outside() {
    let mut node = new_node();
    let client = node.pod(&PodSpec::new("a", "client")).unwrap();
    let blue = node.pod(&PodSpec::new("b", "blue")).unwrap();
    let green = node.pod(&PodSpec::new("b", "green")).unwrap();
    let _serving = [(&blue, 5353), (&green, 5354)]
        .map(|(pod, port)| pod.spawn(&Task::serve_udp(&[port])).unwrap());
    let ports = vec![Port::new("echo", "UDP", 7000, 5353).on_nodes(30_053)];
    let backends = [Backend::new(&blue), Backend::at(&green, 5354)];
    let service = node.service_of("b", "dns", ports, (Kind::NodePort, false), &backends).unwrap();
    let agent = Agent::start_on(&binary(), &node, &[]).unwrap();
    for family in BOTH {
        let send = |to, sockets| Task::send(to, 4, sockets);
        let each = client.run(&send(service.at(family, 7000), Sockets::PerDatagram)).unwrap();
        assert_eq!((each.pairs, each.answered), (4, 4));
        // One socket is one pair, and stays with the backend that it got.
        for _ in 0..2 {
            let one = client.run(&send(service.at(family, 7000), Sockets::Shared)).unwrap();
            assert_eq!((one.pairs, one.answered), (1, 4));
        }
        let task = send((NODE.of(family), 30_053).into(), Sockets::PerDatagram);
        let outside = node.spawn_outside(&task).unwrap().finish().unwrap();
        assert_eq!((outside.pairs, outside.answered), (4, 4));
    }
    let report = expect(
        &agent,
        &[
            ("egress a/client -> b/blue UDP/5353", &[("answered", 6)]),
            ("egress a/client -> b/green UDP/5354", &[("answered", 6)]),
            ("ingress a/client -> b/blue UDP/5353", &[("answered", 6)]),
            ("ingress a/client -> b/green UDP/5354", &[("answered", 6)]),
            ("ingress node-1 -> b/blue UDP/5353 (rewritten: conntrack)", &[("answered", 4)]),
            ("ingress node-1 -> b/green UDP/5354 (rewritten: conntrack)", &[("answered", 4)]),
        ],
    );
    assert_eq!(report.edges.len(), 6);
}

#[test]
fn connection_tracking_knows_the_backend_of_each_connection_and_whose_source_it_rewrote() {
    let mut node = new_node();
    let (blue, _blue) = server(&mut node, "blue", 8080);
    let (green, _green) = server(&mut node, "green", 9090);
    let backends = [Backend::new(&blue), Backend::at(&green, 9090)];
    let ports = vec![Port::new("http", "TCP", 80, 8080).on_nodes(30_080)];
    let kind = (Kind::NodePort, false);
    let service = node.service_of("b", "web", ports, kind, &backends).unwrap();
    for family in BOTH {
        let asked = service.at(family, 80);
        let connect = || Ok((TcpStream::connect(asked)?, Conntrack::open()?));
        let expected = [blue.at(family, 8080), green.at(family, 9090)];
        let mut connections = Vec::new();
        for turn in 0..4 {
            let (stream, mut table) = node.network().within(connect).unwrap();
            let source = stream.local_addr().unwrap();
            let tuple = Tuple { protocol: Protocol::TCP, source, target: asked };
            let entry = table.entry(&tuple).unwrap().unwrap();
            assert_eq!((entry.original, entry.reply.source), (tuple, expected[turn % 2]));
            let other = Tuple { target: (asked.ip(), 81).into(), ..tuple };
            assert_eq!(table.entry(&other), Ok(None));
            connections.push((stream, tuple));
        }
        // Two from outside by the node's port: one for each backend, in the node's name.
        from_outside(&node, (NODE.of(family), 30_080).into(), 2);
        let mut translator = node.network().within(|| Ok(Translator::new(Instant::now()))).unwrap();
        translator.set_own(&[NODE.of(family), GATEWAY.of(family)]);
        let now = Instant::now();
        let (_, tuple) = &connections[1];
        let records = vec![
            record(Direction::Egress, tuple.source, tuple.target, true),
            record(
                Direction::Ingress,
                blue.at(family, 8080),
                (GATEWAY.of(family), 0).into(),
                false,
            ),
            record(
                Direction::Ingress,
                blue.at(family, 8081),
                (GATEWAY.of(family), 0).into(),
                false,
            ),
        ];
        let said: Vec<_> = translator
            .translate(records, now)
            .into_iter()
            .map(|record| match record {
                Record::Flow(flow) => flow.translation,
                other => panic!("{other:?}"),
            })
            .collect();
        let source = |source| Translation { source, ..Translation::default() };
        let led = Translation { backend: Some(expected[1]), ..Translation::default() };
        assert_eq!(said, [led, source(SourceSeen::Rewritten), source(SourceSeen::Kept)]);
        // One that nobody asked for waits: the table was read a moment ago.
        let late = || {
            record(Direction::Ingress, green.at(family, 1), (GATEWAY.of(family), 0).into(), false)
        };
        let soon = now + Duration::from_millis(100);
        assert_eq!((translator.translate(vec![late()], soon), translator.held()), (vec![], 1));
        let later = now + Duration::from_secs(60);
        let Record::Flow(mut expected) = late() else { panic!() };
        expected.translation.source = SourceSeen::Kept;
        let released = translator.translate(Vec::new(), later);
        assert_eq!((released, translator.held()), (vec![Record::Flow(expected)], 0));
    }
}

fn record(direction: Direction, local: SocketAddr, peer: SocketAddr, own: bool) -> Record {
    Record::Flow(FlowRecord {
        cgroup_id: 1,
        peer: peer.ip(),
        local_addr: Some(local.ip()),
        local_port: own.then(|| local.port().try_into().unwrap()),
        translation: Translation::default(),
        service_port: if own { peer.port() } else { local.port() },
        protocol: Protocol::TCP,
        direction: Some(direction),
        since: Timestamp(1),
        last_seen: Timestamp(1),
        counts: Counts { attempts: 1, answered: 1, ..Counts::default() },
    })
}

#[test]
fn outside_traffic_in_the_nodes_name_is_told_from_the_nodes_own() {
    let mut node = new_node();
    let (web_pod, _web) = server(&mut node, "web", 8080);
    let (kept_pod, _kept) = server(&mut node, "kept", 8080);
    let (probed, _probed) = server(&mut node, "probed", 8080);
    let on = |port| vec![Port::new("http", "TCP", 80, 8080).on_nodes(port)];
    let service = |node: &mut Node, pod: &Pod, port, keeps| {
        let backends = [Backend::new(pod)];
        node.service_of("b", &pod.labels["app"], on(port), (Kind::NodePort, keeps), &backends)
            .unwrap();
    };
    service(&mut node, &web_pod, 30_080, false);
    service(&mut node, &kept_pod, 30_081, true);
    let agent = Agent::start_on(&binary(), &node, &[]).unwrap();
    for (family, count) in [(Family::V4, 3), (Family::V6, 2)] {
        from_outside(&node, (NODE.of(family), 30_080).into(), count);
        from_outside(&node, (NODE.of(family), 30_081).into(), count);
        // As kubelet probes.
        from_node(&node, probed.at(family, 8080), count);
    }
    let report = expect(
        &agent,
        &[
            ("ingress node-1 -> b/web TCP/8080 (rewritten: conntrack)", &[("answered", 5)]),
            ("ingress 192.168.77.1 -> b/kept TCP/8080", &[("answered", 3)]),
            ("ingress fd00:192:168:77::1 -> b/kept TCP/8080", &[("answered", 2)]),
            ("ingress node-1 -> b/probed TCP/8080", &[("answered", 5)]),
            ("egress node-1 -> b/probed TCP/8080", &[("answered", 5)]),
        ],
    );
    assert_eq!(report.edges.len(), 5);
}

#[test]
fn what_comes_from_another_node_may_be_rewritten_where_any_node_takes_outside_traffic() {
    let mut node = new_node();
    let (web_pod, _web) = server(&mut node, "web", 8080);
    let (kept_pod, _kept) = server(&mut node, "kept", 8080);
    let (plain, _plain) = server(&mut node, "plain", 8080);
    for (pod, keeps) in [(&web_pod, false), (&kept_pod, true)] {
        let kind = (Kind::LoadBalancer(if keeps { SECOND_BALANCER } else { BALANCER }), keeps);
        let backends = [Backend::new(pod)];
        node.service_of("b", &pod.labels["app"], web(), kind, &backends).unwrap();
    }
    std::fs::write(node.manifests().join("node_2.yaml"), NODE_2).unwrap();
    let agent = Agent::start_on(&binary(), &node, &[]).unwrap();
    for family in BOTH {
        for pod in [&web_pod, &kept_pod, &plain] {
            from_outside(&node, pod.at(family, 8080), 2);
        }
    }
    expect(
        &agent,
        &[
            ("ingress node-2 -> b/web TCP/8080 (rewritten: possible)", &[("answered", 4)]),
            ("ingress node-2 -> b/kept TCP/8080", &[("answered", 4)]),
            ("ingress node-2 -> b/plain TCP/8080", &[("answered", 4)]),
        ],
    );
}

const SECOND_BALANCER: Addresses = Addresses {
    v4: Ipv4Addr::new(203, 0, 113, 11),
    v6: Ipv6Addr::new(0x2001, 0xdb8, 0xba1, 0, 0, 0, 0, 11),
};

/// The next hop outside, as if it were a node.
const NODE_2: &str = "apiVersion: v1
kind: Node
metadata: {name: node-2, uid: 22222222-2222-4222-8222-222222222222}
status:
  addresses:
  - {type: InternalIP, address: 192.168.77.1}
  - {type: InternalIP, address: 'fd00:192:168:77::1'}
";

#[test]
fn a_pod_that_reaches_itself_through_its_service_is_loopback_and_a_rewritten_source() {
    let mut node = new_node();
    let (web_pod, _web) = server(&mut node, "web", 8080);
    let service = node.service("b", "web", web(), &[&web_pod]).unwrap();
    let agent = Agent::start_on(&binary(), &node, &[]).unwrap();
    for (family, count) in [(Family::V4, 3), (Family::V6, 2)] {
        from_pod(&web_pod, service.at(family, 80), count);
    }
    let report = expect(
        &agent,
        &[
            ("egress b/web -> loopback TCP/8080", &[("answered", 5)]),
            ("ingress node-1 -> b/web TCP/8080 (rewritten: conntrack)", &[("answered", 5)]),
        ],
    );
    assert_eq!(report.edges.len(), 2);
    let verdict = &report.edge("egress b/web -> loopback TCP/8080").unwrap().verdicts["enforced"];
    assert_eq!((&*verdict.decision, &*verdict.egress.reason), ("exempt", "loopback"));
}

#[test]
fn a_pod_that_gets_itself_of_two_backends_is_loopback_then_and_only_then() {
    let mut node = new_node();
    let (blue, _blue) = server(&mut node, "blue", 8080);
    let (green, _green) = server(&mut node, "green", 9090);
    let backends = [Backend::new(&blue), Backend::at(&green, 9090)];
    let service = node.service_of("b", "web", web(), (Kind::ClusterIp, false), &backends).unwrap();
    let agent = Agent::start_on(&binary(), &node, &[]).unwrap();
    for family in BOTH {
        from_pod(&blue, service.at(family, 80), 4);
    }
    expect(
        &agent,
        &[
            ("egress b/blue -> loopback TCP/8080", &[("answered", 4)]),
            ("ingress node-1 -> b/blue TCP/8080 (rewritten: conntrack)", &[("answered", 4)]),
            ("egress b/blue -> b/green TCP/9090", &[("answered", 4)]),
            ("ingress b/blue -> b/green TCP/9090", &[("answered", 4)]),
        ],
    );
}

#[test]
fn backends_are_reached_by_every_kind_of_address() {
    let mut node = new_node();
    let client = node.pod(&PodSpec::new("a", "client")).unwrap();
    let kinds = [
        ("cluster", Kind::ClusterIp),
        ("external", Kind::ExternalIps(BALANCER)),
        ("balanced", Kind::LoadBalancer(SECOND_BALANCER)),
        ("ported", Kind::NodePort),
    ];
    let mut all = Vec::new();
    for (name, kind) in kinds {
        let (pod, serving) = server(&mut node, name, 8080);
        let mut ports = web();
        if kind == Kind::NodePort {
            ports = vec![Port::new("http", "TCP", 80, 8080).on_nodes(30_080)];
        }
        let backends = [Backend::new(&pod)];
        let service = node.service_of("b", name, ports, (kind, false), &backends).unwrap();
        all.push((service, pod, serving));
    }
    let agent = Agent::start_on(&binary(), &node, &[]).unwrap();
    for family in BOTH {
        for (service, ..) in &all {
            let asked = match service.kind {
                Kind::ClusterIp | Kind::Headless => service.at(family, 80),
                Kind::NodePort => (NODE.of(family), 30_080).into(),
                Kind::LoadBalancer(addresses) | Kind::ExternalIps(addresses) => {
                    (addresses.of(family), 80).into()
                }
            };
            from_pod(&client, asked, 3);
            from_node(&node, asked, 2);
            if !matches!(service.kind, Kind::ClusterIp) {
                from_outside(&node, asked, 1);
            }
        }
    }
    let mut expected = Vec::new();
    for (name, kind) in kinds {
        let mut row = |edge: String, answered| expected.push((edge, [("answered", answered)]));
        row(format!("egress a/client -> b/{name} TCP/8080"), 6);
        row(format!("egress node-1 -> b/{name} TCP/8080"), 4);
        if kind != Kind::ClusterIp {
            let rewritten = format!("ingress node-1 -> b/{name} TCP/8080 (rewritten: conntrack)");
            // From outside, and what pods and the node ask for as from there.
            row(rewritten, 2 + 6 + 4);
        }
    }
    let expected: Vec<(&str, &[(&str, u64)])> =
        expected.iter().map(|(edge, ended)| (&**edge, &ended[..])).collect();
    expect(&agent, &expected);
}

#[test]
fn the_node_asks_services_by_datagrams_and_is_answered() {
    let mut node = new_node();
    let pod = node.pod(&PodSpec::new("b", "dns")).unwrap();
    let _serving = pod.spawn(&Task::serve_udp(&[5353])).unwrap();
    let ports = vec![Port::new("dns", "UDP", 7000, 5353)];
    let service = node.service("b", "dns", ports, &[&pod]).unwrap();
    let agent = Agent::start_on(&binary(), &node, &[]).unwrap();
    // The agent tells the kernel of the Service within its next second.
    std::thread::sleep(Duration::from_secs(2));
    for family in BOTH {
        // Each socket is one pair, and every datagram of it was answered.
        for sockets in [Sockets::Connected, Sockets::Shared] {
            let task = Task::send(service.at(family, 7000), 4, sockets);
            let counts = node.spawn_on_node(&task).unwrap().finish().unwrap();
            assert_eq!((counts.pairs, counts.answered), (1, 4), "{family:?} {sockets:?}");
        }
    }
    let edge = "egress node-1 -> b/dns UDP/5353";
    let report = expect(&agent, &[(edge, &[("answered", 4)])]);
    let counts = report.edges.iter().find(|each| each.shown() == edge).unwrap().counts;
    assert_eq!((counts.attempts, counts.answered, counts.sent_packets), (4, 4, 16));
}

/// What it answers has been through the node's NAT when it passes the hook, and comes from another
/// port than the one it was asked on.
#[test]
fn a_server_of_the_node_behind_a_service_is_asked_and_asks_nobody() {
    let mut node = new_node();
    let clients = ["one", "two"].map(|name| node.pod(&PodSpec::new("a", name)).unwrap());
    let serve = Serve { tcp: vec![8080], udp: vec![5353], reply_bytes: 32, ..Serve::default() };
    let _serving = node.spawn_on_node(&Task::Serve(serve)).unwrap();
    // As kube-proxy does it for a Service whose pods are on the host network.
    let asked = |family, port| SocketAddr::from((Addresses::of_service(250).of(family), port));
    for family in BOTH {
        for (protocol, port, own) in [("tcp", 80, 8080), ("udp", 7000, 5353)] {
            // A server of datagrams on all addresses answers with the one next to who asked.
            let own = (GATEWAY.of(family), own).into();
            node.lead(asked(family, port), protocol, own).unwrap();
        }
    }
    let agent = Agent::start_on(&binary(), &node, &[]).unwrap();
    for family in BOTH {
        for client in &clients {
            from_pod(client, asked(family, 80), 6);
        }
        // Both at once, so that the server's only socket hears now the one and now the other.
        let mut send = Task::send(asked(family, 7000), 40, Sockets::Shared);
        if let Task::Send(send) = &mut send {
            send.pause_ms = 5;
        }
        let sending = clients.each_ref().map(|client| client.spawn(&send));
        for process in sending {
            let counts = process.unwrap().finish().unwrap();
            assert_eq!((counts.pairs, counts.answered), (1, 40), "{family:?}");
        }
    }
    let asked = |report: &Report| {
        let counts = |edge: &Edge| {
            let EdgeCounts { attempts, answered, received_packets, .. } = edge.counts;
            let packets = if edge.shown().contains("UDP") { received_packets } else { 0 };
            (edge.shown(), (attempts, answered, packets))
        };
        let by_node = report.edges.iter().filter(|edge| edge.shown().contains("node-1"));
        by_node.map(counts).collect::<BTreeMap<_, _>>()
    };
    let mut expected = BTreeMap::new();
    for client in ["one", "two"] {
        expected.insert(format!("ingress a/{client} -> node-1 TCP/8080"), (12, 12, 0));
        expected.insert(format!("ingress a/{client} -> node-1 UDP/5353"), (2, 2, 80));
    }
    let report = agent.report_when(|report| asked(report) == expected).unwrap();
    assert_eq!(asked(&report), expected);
}

#[test]
fn a_headless_service_is_its_pods() {
    let mut node = new_node();
    let client = node.pod(&PodSpec::new("a", "client")).unwrap();
    let (blue, _blue) = server(&mut node, "blue", 8080);
    let (green, _green) = server(&mut node, "green", 8080);
    let backends = [Backend::new(&blue), Backend::new(&green)];
    node.service_of("b", "web", web(), (Kind::Headless, false), &backends).unwrap();
    let agent = Agent::start_on(&binary(), &node, &[]).unwrap();
    for family in BOTH {
        from_pod(&client, blue.at(family, 8080), 2);
        from_pod(&client, green.at(family, 8080), 3);
    }
    let report = expect(
        &agent,
        &[
            ("egress a/client -> b/blue TCP/8080", &[("answered", 4)]),
            ("egress a/client -> b/green TCP/8080", &[("answered", 6)]),
            ("ingress a/client -> b/blue TCP/8080", &[("answered", 4)]),
            ("ingress a/client -> b/green TCP/8080", &[("answered", 6)]),
        ],
    );
    assert_eq!(report.edges.len(), 4);
}

/// As a CNI that replaces kube-proxy does it: no packet ever carries the Service's address.
#[test]
fn a_backend_that_the_socket_layer_chose_is_the_one_that_was_asked() {
    let mut node = new_node();
    let client = node.pod(&PodSpec::new("a", "client")).unwrap();
    let (server, _serving) = server(&mut node, "server", 8080);
    // No rule of the node knows this address.
    let from = SocketAddrV4::new(Addresses::of_service(250).v4, 80);
    let to = SocketAddrV4::new(server.addresses.v4, 8080);
    let _rewrite = Rewrite::attach(node.cgroup_root(), from, to).unwrap();
    let agent = Agent::start(&binary(), &node, &[]).unwrap();
    from_pod(&client, from.into(), 5);
    expect(
        &agent,
        &[
            ("egress a/client -> b/server TCP/8080", &[("answered", 5)]),
            ("ingress a/client -> b/server TCP/8080", &[("answered", 5)]),
        ],
    );
}
