//! Every protocol, outcome, address family and path, each held against the generator's numbers.
//!
//! In: real packets on a simulated node. Out: nothing but assertions, on whole counts of all flows
//! there are. A row that fails says which it is, and the other rows run all the same.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use parapet_core::record::Counts;
use support::network::{Addresses, Family, GATEWAY, NODE, ROUTER};
use support::pod::Pod;
use support::process::Process;
use support::service::{Port, Service};
use support::task::{
    Answer, Connect, Counts as Generated, Manner, Send, Serve, Sockets, Speech, Task,
};

use crate::watched::{Flows, Watched};

const BOTH: [Family; 2] = [Family::V4, Family::V6];
const OUTSIDE: Addresses = Addresses {
    v4: Ipv4Addr::new(203, 0, 113, 5),
    v6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 5),
};

/// From where to where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    PodPod,
    Service,
    /// A pod that reaches itself through its Service.
    Hairpin,
    NodePod,
    PodNode,
    PodOutside,
    OutsidePod,
}

const DIRECT: [Path; 5] =
    [Path::PodPod, Path::NodePod, Path::PodNode, Path::PodOutside, Path::OutsidePod];
const ALL: [Path; 7] = [
    Path::PodPod,
    Path::Service,
    Path::Hairpin,
    Path::NodePod,
    Path::PodNode,
    Path::PodOutside,
    Path::OutsidePod,
];

/// Ports of the server, by how it ends there. Behind the Service they are 8,000 less.
const ANSWERED: u16 = 8080;
const NOBODY: u16 = 8081;
const NO_ROUTE: u16 = 8082;
const NO_PORT: u16 = 8083;
const RESET: u16 = 8084;
const DROPPED: u16 = 8085;
const SILENT: u16 = 8086;
const SERVICE_LESS: u16 = 8000;

/// The node with one of everything on it.
struct Stage {
    watched: Watched,
    client: Pod,
    server: Pod,
    service: Service,
    servers: Vec<Process>,
    /// Whether connections are what is tried: then every address of an end will do.
    is_tcp: bool,
    failures: Vec<String>,
}

impl Stage {
    fn new(protocol: &str) -> Self {
        let mut watched = Watched::new();
        let client = watched.pod("client");
        let server = watched.pod("server");
        let ports = [ANSWERED, NOBODY, NO_ROUTE, NO_PORT, RESET, DROPPED, SILENT];
        let ports = ports.map(|to| Port::new(&format!("p{to}"), protocol, to - SERVICE_LESS, to));
        let ports = if protocol.is_empty() { Vec::new() } else { ports.to_vec() };
        let service = watched.node.service("a", "server", ports, &[&server]).unwrap();
        for address in OUTSIDE.both() {
            watched.node.add_outside(address).unwrap();
            watched.call(address, "outside");
        }
        for address in service.addresses.both() {
            watched.call(address, "service");
        }
        for address in ROUTER.both() {
            watched.call(address, "outside");
        }
        let (servers, failures) = (Vec::new(), Vec::new());
        let is_tcp = protocol == "TCP";
        Self { watched, client, server, service, servers, is_tcp, failures }
    }

    /// Such a server where the path ends, and no other one: every raw socket on the way would hear
    /// what is said.
    fn serve(&mut self, path: Path, task: &Task) {
        let serving = match path {
            Path::PodPod | Path::Service | Path::Hairpin | Path::NodePod | Path::OutsidePod => {
                self.server.spawn(task)
            }
            Path::PodNode => self.watched.node.spawn_on_node(task),
            Path::PodOutside => self.watched.node.spawn_outside(task),
        };
        self.servers.push(serving.unwrap());
    }

    /// Whom the client asks.
    fn target(&self, path: Path, family: Family, port: u16) -> SocketAddr {
        match path {
            Path::Service | Path::Hairpin => self.service.at(family, port - SERVICE_LESS),
            _ => (self.end(path, family), port).into(),
        }
    }

    /// Who is behind that. A server of datagrams on all addresses answers with the one that is
    /// nearest to who asked, so that is the one to ask.
    fn end(&self, path: Path, family: Family) -> IpAddr {
        match path {
            Path::PodPod | Path::Service | Path::Hairpin | Path::NodePod | Path::OutsidePod => {
                self.server.address(family)
            }
            Path::PodNode if self.is_tcp => NODE.of(family),
            Path::PodOutside if self.is_tcp => OUTSIDE.of(family),
            Path::PodNode => GATEWAY.of(family),
            Path::PodOutside => ROUTER.of(family),
        }
    }

    fn treat(&self, path: Path, family: Family, matching: &str, verdict: &str) {
        match path {
            Path::NodePod => self.server.treat(family, matching, verdict),
            _ => self.watched.node.treat(self.end(path, family), matching, verdict),
        }
        .unwrap();
    }

    fn spawn(&self, path: Path, task: &Task) -> Process {
        match path {
            Path::PodPod | Path::Service | Path::PodNode | Path::PodOutside => {
                self.client.spawn(task)
            }
            Path::Hairpin => self.server.spawn(task),
            Path::NodePod => self.watched.node.spawn_on_node(task),
            Path::OutsidePod => self.watched.node.spawn_outside(task),
        }
        .unwrap()
    }

    fn run(&self, path: Path, task: &Task) -> Generated {
        self.spawn(path, task).finish().unwrap()
    }

    /// Holds what was seen since the last row against what must have been: `asking` at the client's
    /// end and `asked` at the server's, as far as somebody watches there.
    fn expect(&mut self, row: &Row, asking: Counts, asked: Option<Counts>) {
        self.compare(&format!("{row:?}"), row.begun, &expected(row, asking, asked));
    }

    fn compare(&mut self, what: &str, begun: Instant, expected: &Flows) {
        let seen = self.read(begun);
        if seen != *expected {
            self.failures.push(format!("{what}\n saw      {seen:?}\n expected {expected:?}"));
        }
    }

    /// What was seen. How many packets a TCP connection takes, and how long, is not known before:
    /// the packets of both ends must be the same.
    fn read(&mut self, begun: Instant) -> Flows {
        let mut seen = self.watched.read();
        if self.is_tcp {
            self.compare_ends(&seen);
            for (flow, counts) in &mut seen {
                let shaken = counts.handshake_ns;
                let asks = flow.contains('>') && counts.answered > 0;
                let most = begun.elapsed().as_nanos();
                let right =
                    if asks { shaken > 0 && u128::from(shaken) < most } else { shaken == 0 };
                if !right {
                    self.failures.push(format!("{flow}: {counts:?} within {most} ns"));
                }
                let Counts { attempts, answered, refused, refused_port, refused_route, .. } =
                    *counts;
                let some = Counts { refused_port, refused_route, ..Counts::default() };
                let closed = counts.closed;
                *counts = Counts { attempts, answered, refused, closed, ..some };
            }
        }
        seen
    }

    /// What one end sent the other one received, where both are watched. A FIN that is sent again
    /// finds no socket any more, and neither does the kernel's answer come from one: then the asked
    /// end sees one packet more each way.
    fn compare_ends(&mut self, seen: &Flows) {
        let asking = seen.iter().find(|(flow, counts)| flow.contains('>') && counts.answered > 0);
        let asked = seen.iter().find(|(flow, counts)| flow.contains('<') && counts.answered > 0);
        let (Some((_, asking)), Some((_, asked))) = (asking, asked) else { return };
        let to_nobody = asked.sent_packets.checked_sub(asking.received_packets);
        let from_nobody = asked.received_packets.checked_sub(asking.sent_packets);
        let more = to_nobody.filter(|_| to_nobody == from_nobody);
        let same_bytes =
            (asked.sent_bytes, asked.received_bytes) == (asking.received_bytes, asking.sent_bytes);
        // SYN, ACK, request and FIN; SYN-ACK, answer and FIN.
        let least =
            asking.sent_packets >= 4 * asking.answered && asked.sent_packets >= 3 * asked.answered;
        let right = more.is_some_and(|more| same_bytes == (more == 0) && more <= asked.answered);
        if !right || !least {
            self.failures.push(format!("the ends differ: {asking:?} {asked:?}"));
        }
    }

    /// Ends the test.
    fn close(self) {
        assert!(self.failures.is_empty(), "{}", self.failures.join("\n"));
        assert_eq!(self.watched.lost.values().sum::<u64>(), 0, "{:?}", self.watched.lost);
    }
}

/// What is tried.
#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "shown by a failure")]
struct Row {
    what: &'static str,
    path: Path,
    family: Family,
    protocol: u8,
    port: u16,
    begun: Instant,
}

impl Row {
    fn new(what: &'static str, path: Path, family: Family, protocol: u8, port: u16) -> Self {
        Self { what, path, family, protocol, port, begun: Instant::now() }
    }
}

/// The flows of a row.
fn expected(row: &Row, asking: Counts, asked: Option<Counts>) -> Flows {
    let Row { path, protocol, port, .. } = *row;
    let (client, server) = match path {
        Path::PodPod => ("client", "server"),
        Path::Service => ("client", "service"),
        // What the node sends back to where it came from has the node's address.
        Path::Hairpin => ("server", "service"),
        Path::NodePod => ("node", "server"),
        Path::PodNode => ("client", "node"),
        Path::PodOutside => ("client", "outside"),
        Path::OutsidePod => ("outside", "server"),
    };
    let mut expected = Flows::new();
    if client != "outside" {
        let less = if server == "service" { SERVICE_LESS } else { 0 };
        expected.insert(
            format!("{client} > {server} {protocol}/{}", port.saturating_sub(less)),
            asking,
        );
    }
    let server = if server == "service" { "server" } else { server };
    let client = if path == Path::Hairpin { "node" } else { client };
    if let Some(asked) = asked.filter(|_| server != "outside") {
        expected.insert(format!("{server} < {client} {protocol}/{port}"), asked);
    }
    expected
}

/// Packets of the same size.
fn sent(packets: u64, bytes: u64) -> Counts {
    Counts { sent_packets: packets, sent_bytes: packets * bytes, ..Counts::default() }
}

fn received(packets: u64, bytes: u64) -> Counts {
    Counts { received_packets: packets, received_bytes: packets * bytes, ..Counts::default() }
}

fn both(packets: u64, bytes: u64) -> Counts {
    let Counts { received_packets, received_bytes, .. } = received(packets, bytes);
    Counts { received_packets, received_bytes, ..sent(packets, bytes) }
}

fn ip_header(family: Family) -> u64 {
    match family {
        Family::V4 => 20,
        Family::V6 => 40,
    }
}

/// What `nft` is told to say that there is no way.
fn no_route(family: Family) -> &'static str {
    match family {
        Family::V4 => "reject with icmp admin-prohibited",
        Family::V6 => "reject with icmpv6 admin-prohibited",
    }
}

fn no_port(family: Family) -> &'static str {
    match family {
        Family::V4 => "reject with icmp port-unreachable",
        Family::V6 => "reject with icmpv6 port-unreachable",
    }
}

#[tokio::test]
async fn tcp() {
    let mut stage = Stage::new("TCP");
    for path in [Path::PodPod, Path::PodNode, Path::PodOutside] {
        stage.serve(path, &Task::serve_tcp(&[ANSWERED, NO_ROUTE, NO_PORT, RESET, DROPPED]));
    }
    for family in BOTH {
        for path in ALL {
            treat_connections(&stage, path, family);
        }
        for path in ALL {
            let answered = Counts { attempts: 5, answered: 5, closed: 5, ..Counts::default() };
            let refused = Counts { attempts: 2, refused: 2, ..Counts::default() };
            for (what, port, count, timeout_ms, asking, asked) in [
                ("answered", ANSWERED, 5, 2_000, answered, Some(answered)),
                ("nobody listens", NOBODY, 2, 2_000, refused, None),
                ("reset on the way", RESET, 2, 2_000, refused, None),
                ("dropped", DROPPED, 2, 40, Counts { attempts: 2, ..Counts::default() }, None),
            ] {
                let row = Row::new(what, path, family, 6, port);
                let targets = vec![stage.target(path, family, port)];
                let task = Connect { targets, count, timeout_ms, ..Connect::default() };
                let generated = stage.run(path, &Task::Connect(task));
                let numbers = (generated.attempts, generated.answered, generated.refused);
                assert_eq!(numbers, (asking.attempts, asking.answered, asking.refused), "{row:?}");
                stage.expect(&row, asking, asked);
            }
        }
        refused_by_icmp(&mut stage, family);
    }
    stage.close();
}

fn treat_connections(stage: &Stage, path: Path, family: Family) {
    // One set of rules serves all ways to the same end. Destination NAT is not undone for a reset
    // that the node makes, so the pod makes it.
    if matches!(path, Path::Service | Path::Hairpin | Path::OutsidePod) {
        return;
    }
    for (port, verdict) in [
        (NO_ROUTE, no_route(family)),
        (NO_PORT, no_port(family)),
        (RESET, "reject with tcp reset"),
        (DROPPED, "drop"),
    ] {
        let path = if port == RESET && path == Path::PodPod { Path::NodePod } else { path };
        stage.treat(path, family, &format!("tcp dport {port}"), verdict);
    }
}

/// On one machine the error comes while the SYN is still being sent, which the kernel ignores; the
/// one for the SYN sent again after a second is heard. All ways wait together.
fn refused_by_icmp(stage: &mut Stage, family: Family) {
    let begun = Instant::now();
    let mut running = Vec::new();
    let mut all = Flows::new();
    for path in ALL {
        let once = Counts { attempts: 1, refused: 1, ..Counts::default() };
        for (what, port, asking) in [
            ("no route", NO_ROUTE, Counts { refused_route: 1, ..once }),
            ("no port", NO_PORT, Counts { refused_port: 1, ..once }),
        ] {
            let targets = vec![stage.target(path, family, port)];
            let task = Connect { targets, count: 1, timeout_ms: 4_000, ..Connect::default() };
            let row = Row::new(what, path, family, 6, port);
            running.push((format!("{row:?}"), stage.spawn(path, &Task::Connect(task))));
            all.extend(expected(&row, asking, None));
        }
    }
    for (row, process) in running {
        assert_eq!(process.finish().unwrap().refused, 1, "{row}");
    }
    stage.compare(&format!("refused by ICMP, {family:?}"), begun, &all);
}

#[tokio::test]
async fn udp() {
    datagrams(false, &ALL);
}

#[tokio::test]
async fn udplite() {
    datagrams(true, &DIRECT);
}

fn datagrams(lite: bool, paths: &[Path]) {
    let (protocol, word) = if lite { (136, "udplite") } else { (17, "udp") };
    let mut stage = Stage::new(if lite { "" } else { "UDP" });
    let ports = |lite_ports: bool, ports: &[u16]| {
        if lite == lite_ports { ports.to_vec() } else { Vec::new() }
    };
    let loud = [ANSWERED, NO_ROUTE, DROPPED];
    let serve = Serve { udp: ports(false, &loud), udplite: ports(true, &loud), ..Serve::default() };
    let (udp, udplite) = (ports(false, &[SILENT]), ports(true, &[SILENT]));
    let silent = Serve { udp, udplite, silent: true, ..Serve::default() };
    for path in [Path::PodPod, Path::PodNode, Path::PodOutside] {
        stage.serve(path, &Task::Serve(serve.clone()));
        stage.serve(path, &Task::Serve(silent.clone()));
    }
    for (path, family) in paths.iter().flat_map(|path| BOTH.map(|family| (*path, family))) {
        for (port, verdict) in [(NO_ROUTE, no_route(family)), (DROPPED, "drop")] {
            if !matches!(path, Path::Service | Path::Hairpin | Path::OutsidePod) {
                stage.treat(path, family, &format!("{word} dport {port}"), verdict);
            }
        }
        let bytes = ip_header(family) + 8 + 32;
        for sockets in [Sockets::PerDatagram, Sockets::Connected, Sockets::Shared] {
            let count = 3;
            let begun = if sockets == Sockets::PerDatagram { count } else { 1 };
            let attempts = |counts| Counts { attempts: begun, ..counts };
            let answered = Counts { answered: begun, ..attempts(both(count, bytes)) };
            // Nobody tells an unconnected socket. A connected one is told once what it is told.
            let refused = if sockets == Sockets::Shared { 0 } else { begun };
            let no = Counts { refused, ..attempts(sent(count, bytes)) };
            let silence = attempts(sent(count, bytes));
            for (what, port, timeout_ms, asking, asked) in [
                ("answered", ANSWERED, 2_000, answered, Some(answered)),
                ("nobody listens", NOBODY, 12, Counts { refused_port: refused, ..no }, None),
                ("no route", NO_ROUTE, 12, Counts { refused_route: refused, ..no }, None),
                ("dropped", DROPPED, 12, silence, None),
                ("silent", SILENT, 12, silence, Some(attempts(received(count, bytes)))),
            ] {
                let row = Row::new(what, path, family, protocol, port);
                let targets = vec![stage.target(path, family, port)];
                let send = Send {
                    targets,
                    count,
                    datagram_bytes: 32,
                    timeout_ms,
                    pause_ms: 0,
                    sockets,
                    lite,
                };
                stage.run(path, &Task::Send(send));
                stage.expect(&row, asking, asked);
            }
        }
    }
    stage.close();
}

#[tokio::test]
async fn echo_by_raw_sockets() {
    echo(Speech::Echo);
}

#[tokio::test]
async fn echo_by_ping_sockets() {
    echo(Speech::Ping);
}

/// The kernel answers: the asked end has no socket and sees nothing.
fn echo(speech: Speech) {
    let mut stage = Stage::new("");
    for (path, family) in DIRECT.into_iter().flat_map(|path| BOTH.map(|family| (path, family))) {
        let protocol = if family == Family::V4 { 1 } else { 58 };
        let bytes = ip_header(family) + 16;
        let task = Task::exchange(speech, stage.target(path, family, 0), 4);
        let row = Row::new("answered", path, family, protocol, 0);
        let generated = stage.run(path, &task);
        assert_eq!(generated.answered, 4, "{row:?}");
        let one = |counts| Counts { attempts: 1, ..counts };
        stage.expect(&row, Counts { answered: 1, ..one(both(4, bytes)) }, None);
    }
    for (path, family) in DIRECT.into_iter().flat_map(|path| BOTH.map(|family| (path, family))) {
        if path == Path::OutsidePod {
            continue;
        }
        let protocol = if family == Family::V4 { 1 } else { 58 };
        let bytes = ip_header(family) + 16;
        let request = if family == Family::V4 {
            "icmp type echo-request"
        } else {
            "icmpv6 type echo-request"
        };
        let task = Task::exchange(speech, stage.target(path, family, 0), 1);
        let one = |counts| Counts { attempts: 1, ..counts };
        let refused = Counts { refused: 1, ..one(sent(1, bytes)) };
        // The first rule that matches holds, so each is limited to what the rows before left over.
        for (what, verdict, asking) in [
            ("no route", no_route(family), Counts { refused_route: 1, ..refused }),
            ("no port", no_port(family), Counts { refused_port: 1, ..refused }),
            ("dropped", "drop", one(sent(1, bytes))),
        ] {
            let row = Row::new(what, path, family, protocol, 0);
            stage.treat(
                path,
                family,
                &format!("{request} limit rate 1/hour burst 1 packets"),
                verdict,
            );
            stage.run(path, &task);
            stage.expect(&row, asking, None);
        }
    }
    stage.close();
}

#[tokio::test]
async fn sctp() {
    let mut stage = Stage::new("");
    for (what, manner, count) in [
        ("answered", Manner::Answers, 3),
        ("aborted", Manner::Refuses, 2),
        ("silent", Manner::IsSilent, 1),
    ] {
        for (path, family) in DIRECT.into_iter().flat_map(|path| BOTH.map(|family| (path, family)))
        {
            let bytes = ip_header(family) + 16;
            let begun = |counts| Counts { attempts: count, ..counts };
            let (asking, asked) = match manner {
                // INIT, COOKIE ECHO, DATA, ABORT; INIT ACK, COOKIE ACK, SACK.
                Manner::Answers => (
                    Counts { answered: count, ..begun(exchanged(4 * count, 3 * count, bytes)) },
                    Counts { answered: count, ..begun(exchanged(3 * count, 4 * count, bytes)) },
                ),
                Manner::Refuses => {
                    let counts = Counts { refused: count, ..begun(both(count, bytes)) };
                    (counts, counts)
                }
                Manner::IsSilent => (begun(sent(count, bytes)), begun(received(count, bytes))),
            };
            let row = Row::new(what, path, family, 132, 80);
            stage.servers.clear();
            stage.serve(path, &Task::Answer(Answer { speech: Speech::Sctp, manner }));
            stage.run(path, &Task::exchange(Speech::Sctp, stage.target(path, family, 80), count));
            stage.expect(&row, asking, Some(asked));
        }
    }
    stage.close();
}

fn exchanged(sent_packets: u64, received_packets: u64, bytes: u64) -> Counts {
    let Counts { received_bytes, .. } = received(received_packets, bytes);
    Counts { received_packets, received_bytes, ..sent(sent_packets, bytes) }
}

#[tokio::test]
async fn a_protocol_by_its_number() {
    let speech = Speech::Other(253);
    let mut stage = Stage::new("");
    for manner in [Some(Manner::Answers), Some(Manner::IsSilent), None] {
        for (path, family) in DIRECT.into_iter().flat_map(|path| BOTH.map(|family| (path, family)))
        {
            let header = ip_header(family);
            let one = |counts| Counts { attempts: 1, ..counts };
            let (question, answer) = (header + 8, header + 6);
            let (what, asking, asked) = match manner {
                Some(Manner::Answers) => {
                    let Counts { received_packets, received_bytes, .. } = received(2, answer);
                    let asking = Counts {
                        answered: 1,
                        received_packets,
                        received_bytes,
                        ..one(sent(2, question))
                    };
                    let Counts { received_packets, received_bytes, .. } = received(2, question);
                    let asked = Counts {
                        answered: 1,
                        received_packets,
                        received_bytes,
                        ..one(sent(2, answer))
                    };
                    ("answered", asking, Some(asked))
                }
                Some(_) => ("silent", one(sent(2, question)), Some(one(received(2, question)))),
                // ICMP says "protocol unreachable"; ICMPv6 says "parameter problem", which is no
                // refusal to anybody but a reader of RFC 4443.
                None if family == Family::V4 => (
                    "nobody",
                    Counts { refused: 1, refused_port: 1, ..one(sent(2, question)) },
                    None,
                ),
                None => ("nobody", one(sent(2, question)), None),
            };
            let row = Row::new(what, path, family, 253, 0);
            stage.servers.clear();
            if let Some(manner) = manner {
                stage.serve(path, &Task::Answer(Answer { speech, manner }));
            }
            stage.run(path, &Task::exchange(speech, stage.target(path, family, 0), 2));
            stage.expect(&row, asking, asked);
        }
    }
    stage.close();
}
