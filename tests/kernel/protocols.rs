//! What is odd about packets: extension headers, fragments, groups of receivers, errors that quote,
//! headers that lie, and connections that were there before the sensor.
//!
//! In: packets made byte by byte, or by sockets, on a simulated node. Out: nothing but assertions,
//! on whole counts of all flows there are.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use parapet_core::record::Counts;
use support::network::Family;
use support::pod::Pod;
use support::task::{
    Answer, Flood, HeldLine, Hold, Inject, Manner, Packet, Send, Serve, Sockets, Speech, Task,
};

use crate::agent::new_node;
use crate::crafted::{self, to};
use crate::watched::{Flows, Watched, outcomes};

const PORT: u16 = 5353;

fn flows<const N: usize>(flows: [(&str, Counts); N]) -> Flows {
    flows.into_iter().map(|(shown, counts)| (shown.to_string(), counts)).collect()
}

fn asks(attempts: u64, packets: u64, bytes: u64) -> Counts {
    Counts { attempts, sent_packets: packets, sent_bytes: bytes, ..Counts::default() }
}

/// What the other end of [`asks`] sees.
fn asked(attempts: u64, packets: u64, bytes: u64) -> Counts {
    Counts { attempts, received_packets: packets, received_bytes: bytes, ..Counts::default() }
}

fn inject(pod: &Pod, packets: Vec<Packet>) -> u64 {
    let generated = pod.run(&Task::Inject(Inject { packets })).unwrap();
    generated.attempts - generated.refused
}

fn silent_server() -> Task {
    Task::Serve(Serve { udp: vec![PORT], silent: true, ..Serve::default() })
}

/// Addresses of two pods.
fn v6(client: &Pod, server: &Pod) -> (IpAddr, IpAddr) {
    (client.address(Family::V6), server.address(Family::V6))
}

#[tokio::test]
async fn extension_headers_are_passed_over() {
    let mut watched = Watched::new();
    let (client, server) = (watched.pod("client"), watched.pod("server"));
    let _serving = server.spawn(&silent_server()).unwrap();
    let (source, target) = v6(&client, &server);
    let udp = crafted::udp(source, target, (4000, PORT), b"hello");
    let packet = |next, extensions: &[[u8; 8]]| {
        let payload = [extensions.concat(), udp.clone()].concat();
        to(target, crafted::ipv6(client.addresses.v6, server.addresses.v6, next, &payload))
    };
    let packets = vec![
        packet(17, &[]),
        // Hop-by-hop options; destination options; both; a route that leads nowhere else any more.
        packet(0, &[crafted::padding(17)]),
        packet(60, &[crafted::padding(17)]),
        packet(0, &[crafted::padding(60), crafted::padding(17)]),
        packet(43, &[[17, 0, 0, 0, 0, 0, 0, 0]]),
    ];
    assert_eq!(inject(&client, packets), 5);
    // Headers: none, one, one, two, one. Each packet left a socket of its own; the server knows
    // better.
    let bytes = 5 * (40 + 13) + 5 * 8;
    let expected = flows([
        ("client > server 17/5353", asks(5, 5, bytes)),
        ("server < client 17/5353", asked(1, 5, bytes)),
    ]);
    assert_eq!(watched.read(), expected);
    assert_eq!(watched.lost, BTreeMap::new());
}

#[tokio::test]
async fn later_fragments_are_counted_and_make_no_flow() {
    let mut watched = Watched::new();
    let (client, server) = (watched.pod("client"), watched.pod("server"));
    let _serving = server.spawn(&silent_server()).unwrap();
    let payload = [7; 40];
    let mut packets = Vec::new();
    let (source, target) = (client.addresses.v4, server.addresses.v4);
    let udp = crafted::udp(source.into(), target.into(), (4000, PORT), &payload);
    for (fragment, part) in [(0x2000, &udp[..24]), (3, &udp[24..])] {
        packets.push(to(target.into(), crafted::ipv4(source, target, 17, fragment, part)));
    }
    // One that belongs to nothing.
    packets.push(to(target.into(), crafted::ipv4(source, target, 17, 9, &[1; 32])));
    let (source, target) = (client.addresses.v6, server.addresses.v6);
    let udp = crafted::udp(source.into(), target.into(), (4000, PORT), &payload);
    for (fragment, part) in [([0, 1], &udp[..24]), ([0, 24], &udp[24..])] {
        let header = [17, 0, fragment[0], fragment[1], 0, 0, 0, 9];
        let bytes = crafted::ipv6(source, target, 44, &[&header[..], part].concat());
        packets.push(to(target.into(), bytes));
    }
    assert_eq!(inject(&client, packets), 5);
    // The sender made fragments; the receiver's kernel put them together. Both families have the
    // same port, so their flows differ by address only and are added up here.
    let expected = flows([
        ("client > server 17/5353", asks(2, 2, (20 + 24) + (40 + 8 + 24))),
        ("server < client 17/5353", asked(2, 2, (20 + 48) + (40 + 48))),
    ]);
    assert_eq!(watched.read(), expected);
    assert_eq!(watched.lost, BTreeMap::from([("later_fragment", 3)]));
}

#[tokio::test]
async fn datagrams_larger_than_a_packet_are_counted_whole() {
    let mut watched = Watched::new();
    let (client, server) = (watched.pod("client"), watched.pod("server"));
    let _serving = server.spawn(&Task::serve_udp(&[PORT])).unwrap();
    for (family, header) in [(Family::V4, 28), (Family::V6, 48)] {
        for datagram_bytes in [1_500, 9_000, 60_000] {
            let send = Send {
                targets: vec![server.at(family, PORT)],
                count: 2,
                datagram_bytes,
                timeout_ms: 2_000,
                pause_ms: 0,
                sockets: Sockets::Connected,
                lite: false,
            };
            assert_eq!(client.run(&Task::Send(send)).unwrap().answered, 2, "{datagram_bytes}");
            let bytes = 2 * (u64::try_from(datagram_bytes).unwrap() + header);
            let counts = Counts {
                answered: 1,
                received_packets: 2,
                received_bytes: bytes,
                ..asks(1, 2, bytes)
            };
            let expected =
                flows([("client > server 17/5353", counts), ("server < client 17/5353", counts)]);
            assert_eq!(watched.read(), expected, "{family:?} {datagram_bytes}");
        }
    }
    assert_eq!(watched.lost, BTreeMap::new());
}

#[tokio::test]
async fn a_group_of_receivers_is_one_peer() {
    let mut watched = Watched::new();
    let (client, server) = (watched.pod("client"), watched.pod("server"));
    let _serving = server.spawn(&silent_server()).unwrap();
    for (target, shown, header, hears) in [
        ("224.0.0.251:5353", "client > 224.0.0.251 17/5353", 28, false),
        ("[ff02::fb]:5353", "client > ff02::fb 17/5353", 48, false),
        ("255.255.255.255:5353", "client > 255.255.255.255 17/5353", 28, true),
    ] {
        let target: SocketAddr = target.parse().unwrap();
        let send = Send {
            targets: vec![target],
            count: 3,
            datagram_bytes: 32,
            timeout_ms: 20,
            pause_ms: 0,
            sockets: Sockets::Shared,
            lite: false,
        };
        assert_eq!(client.run(&Task::Send(send)).unwrap().unanswered, 3, "{target}");
        let bytes = 3 * (32 + header);
        let mut expected = flows([(shown, asks(1, 3, bytes))]);
        if hears {
            let heard = flows([("server < client 17/5353", asked(1, 3, bytes))]);
            expected.extend(heard);
        }
        assert_eq!(watched.read(), expected, "{target}");
    }
    assert_eq!(watched.lost, BTreeMap::new());
}

#[tokio::test]
async fn an_error_that_quotes_a_packet_makes_no_flow() {
    let mut watched = Watched::new();
    let (client, server) = (watched.pod("client"), watched.pod("server"));
    let _serving = server.spawn(&silent_server()).unwrap();
    // Somebody who reads what ICMP says, at both ends.
    let listens = Task::Answer(Answer { speech: Speech::Echo, manner: Manner::IsSilent });
    let _listening = [server.spawn(&listens).unwrap(), client.spawn(&listens).unwrap()];
    let (own, peer) = (client.addresses, server.addresses);
    let quoted = |target: IpAddr| match target {
        IpAddr::V4(_) => {
            let udp = crafted::udp(target, own.v4.into(), (PORT, 7000), b"");
            [vec![0; 4], crafted::ipv4(peer.v4, own.v4, 17, 0, &udp)].concat()
        }
        IpAddr::V6(_) => {
            let udp = crafted::udp(target, own.v6.into(), (PORT, 7000), b"");
            [vec![0; 4], crafted::ipv6(peer.v6, own.v6, 17, &udp)].concat()
        }
    };
    let mut packets = Vec::new();
    // Unreachable (host, port), too big, redirect, time exceeded, parameter problem.
    for (kind, code) in [(3, 1), (3, 3), (3, 4), (5, 1), (11, 0), (12, 0)] {
        let target = IpAddr::from(peer.v4);
        let icmp = crafted::icmp(own.v4.into(), target, kind, code, &quoted(target));
        packets.push(to(target, crafted::ipv4(own.v4, peer.v4, 1, 0, &icmp)));
    }
    for (kind, code) in [(1, 0), (1, 4), (2, 0), (3, 0), (4, 1), (137, 0)] {
        let target = IpAddr::from(peer.v6);
        let icmp = crafted::icmp(own.v6.into(), target, kind, code, &quoted(target));
        packets.push(to(target, crafted::ipv6(own.v6, peer.v6, 58, &icmp)));
    }
    assert_eq!(inject(&client, packets), 12);
    assert_eq!((watched.read(), &watched.lost), (Flows::new(), &BTreeMap::new()));
}

#[tokio::test]
async fn malformed_packets_are_counted_and_disturb_nothing() {
    let mut watched = Watched::new();
    let (client, server) = (watched.pod("client"), watched.pod("server"));
    let serving = server.spawn(&Task::serve_udp(&[PORT])).unwrap();
    let (own, peer) = (client.addresses, server.addresses);
    let packets = malformed(own.v4, peer.v4.into(), client.addresses.v6, peer.v6.into());
    // A newer kernel does not send IPv4 headers that are too short.
    let count = inject(&client, packets);
    assert!([11, 13].contains(&count), "{count} were sent");
    assert_eq!(watched.read(), Flows::new());
    assert_eq!(watched.lost, BTreeMap::from([("malformed_packet", count)]));
    let task = Task::send(server.at(Family::V4, PORT), 3, Sockets::Connected);
    assert_eq!(client.run(&task).unwrap().answered, 3);
    assert_eq!(serving.finish().unwrap().attempts, 3);
    let bytes = 3 * 60;
    let counts =
        Counts { answered: 1, received_packets: 3, received_bytes: bytes, ..asks(1, 3, bytes) };
    let expected =
        flows([("client > server 17/5353", counts), ("server < client 17/5353", counts)]);
    assert_eq!(watched.read(), expected);
}

/// Packets that a raw socket sends and nobody can read to their ports.
fn malformed(own_v4: Ipv4Addr, v4: IpAddr, own_v6: std::net::Ipv6Addr, v6: IpAddr) -> Vec<Packet> {
    let (IpAddr::V4(peer_v4), IpAddr::V6(peer_v6)) = (v4, v6) else { panic!("{v4} {v6}") };
    let whole = crafted::ipv4(own_v4, peer_v4, 17, 0, &[0; 16]);
    let first = |byte| [&[byte], &whole[1..]].concat();
    let six = |next, payload: &[u8]| to(v6, crafted::ipv6(own_v6, peer_v6, next, payload));
    vec![
        // A header of less than 20 bytes; of none; versions that do not exist.
        to(v4, first(0x44)),
        to(v4, first(0x40)),
        to(v4, first(0x75)),
        // TCP and UDP that end before their ports or flags do.
        to(v4, crafted::ipv4(own_v4, peer_v4, 17, 0, &[1, 2])),
        to(v4, crafted::ipv4(own_v4, peer_v4, 6, 0, &[0; 13])),
        to(v4, crafted::ipv4(own_v4, peer_v4, 1, 0, &[8, 0, 0])),
        to(v4, crafted::ipv4(own_v4, peer_v4, 132, 0, &[0; 12])),
        six(17, &[1, 2]),
        six(6, &[0; 13]),
        six(58, &[128, 0, 0]),
        // Extension headers that say they are longer than the packet, and that never end.
        six(0, &[17, 200, 1, 4, 0, 0, 0, 0]),
        six(60, &[60, 0]),
        six(60, &[60, 0, 1, 4, 0, 0, 0, 0].repeat(20)),
    ]
}

#[tokio::test]
async fn a_heartbeat_of_sctp_belongs_to_an_association_and_begins_none() {
    const INIT: u8 = 1;
    const HEARTBEAT: u8 = 4;
    let mut watched = Watched::new();
    let (client, server) = (watched.pod("client"), watched.pod("server"));
    let listens = Answer { speech: Speech::Sctp, manner: Manner::IsSilent };
    let _listening = server.spawn(&Task::Answer(listens)).unwrap();
    let (own, peer) = (client.addresses, server.addresses);
    // Ports, verification tag and checksum that nobody looks at, and a chunk without a body.
    let sctp = |kind| [&[0x0f, 0xa0, 0x0b, 0x59], &[0; 8][..], &[kind, 0, 0, 4]].concat();
    let four = |kind| to(peer.v4.into(), crafted::ipv4(own.v4, peer.v4, 132, 0, &sctp(kind)));
    let six = |kind| to(peer.v6.into(), crafted::ipv6(own.v6, peer.v6, 132, &sctp(kind)));
    assert_eq!(inject(&client, vec![four(HEARTBEAT), six(HEARTBEAT)]), 2);
    assert_eq!(watched.read(), Flows::new());
    let packets = vec![four(INIT), four(HEARTBEAT), six(INIT), six(HEARTBEAT)];
    assert_eq!(inject(&client, packets), 4);
    let bytes = 2 * (20 + 16) + 2 * (40 + 16);
    let expected = flows([
        ("client > server 132/2905", asks(2, 4, bytes)),
        ("server < client 132/2905", asked(2, 4, bytes)),
    ]);
    assert_eq!((watched.read(), &watched.lost), (expected, &BTreeMap::new()));
}

#[tokio::test]
async fn a_raw_socket_that_reads_along_counts_nothing() {
    let mut watched = Watched::new();
    let (client, server) = (watched.pod("client"), watched.pod("server"));
    let _serving = server.spawn(&silent_server()).unwrap();
    let accepts = server.spawn(&Task::serve_tcp(&[80])).unwrap();
    let mut listening = Vec::new();
    for number in [6, 17] {
        let speech = Speech::Other(number);
        let task = Task::Answer(Answer { speech, manner: Manner::IsSilent });
        listening.push(server.spawn(&task).unwrap());
    }
    for family in [Family::V4, Family::V6] {
        let send = Task::send(server.at(family, PORT), 1, Sockets::PerDatagram);
        client.run(&send).unwrap();
        let connect = Task::connect(server.at(family, 80), 1);
        assert_eq!(client.run(&connect).unwrap().answered, 1);
    }
    drop(accepts);
    for process in listening {
        assert!(process.finish().unwrap().attempts > 0, "it heard something");
    }
    let once = Counts { attempts: 2, answered: 2, closed: 2, ..Counts::default() };
    let seen = watched.read();
    assert_eq!(seen["server < client 17/5353"], asked(2, 2, (28 + 32) + (48 + 32)));
    let expected = flows([
        ("client > server 17/5353", Counts { attempts: 2, ..Counts::default() }),
        ("client > server 6/80", once),
        ("server < client 17/5353", Counts { attempts: 2, ..Counts::default() }),
        ("server < client 6/80", once),
    ]);
    assert_eq!(outcomes(seen), expected);
}

#[tokio::test]
async fn a_syn_that_a_process_makes_itself_is_an_attempt() {
    let mut watched = Watched::new();
    let (client, server) = (watched.pod("client"), watched.pod("server"));
    let scan = Flood::Scan {
        sources: vec![client.addresses.v4],
        target: server.addresses.v4,
        ports: (80, 82),
    };
    assert_eq!(client.run(&Task::Flood(scan)).unwrap().attempts, 3);
    let syn = asks(1, 1, 40);
    let expected = flows([
        ("client > server 6/80", syn),
        ("client > server 6/81", syn),
        ("client > server 6/82", syn),
    ]);
    assert_eq!((watched.read(), &watched.lost), (expected, &BTreeMap::new()));
}

#[tokio::test]
async fn connections_older_than_the_sensor_keep_their_direction() {
    let mut node = new_node();
    let spec = |name| support::pod::PodSpec::new("a", name);
    let client = node.pod(&spec("client")).unwrap();
    let server = node.pod(&spec("server")).unwrap();
    let serve = Serve { tcp: vec![80], udp: vec![PORT], reply_bytes: 8, ..Serve::default() };
    let _serving = server.spawn(&Task::Serve(serve)).unwrap();
    let hold = |line, port| {
        let target = server.at(Family::V4, port);
        client.spawn(&Task::Hold(Hold { target, line, count: 3 })).unwrap()
    };
    let tcp = hold(HeldLine::Tcp, 80);
    let connected = hold(HeldLine::UdpConnected, PORT);
    let unconnected = hold(HeldLine::UdpUnconnected, PORT);
    let mut watched = Watched::with(node, |config| config);
    watched.name(&client, "client");
    watched.name(&server, "server");
    assert_eq!(tcp.finish().unwrap().received_bytes, 8);
    let seen = outcomes(watched.read());
    let closed = Counts { closed: 1, ..Counts::default() };
    assert_eq!(seen, flows([("client > server 6/80", closed), ("server < client 6/80", closed)]));
    let bytes = 3 * (28 + 8);
    let both = |counts| Counts {
        sent_packets: 3,
        sent_bytes: bytes,
        received_packets: 3,
        received_bytes: bytes,
        ..counts
    };
    // Nobody can tell who began a connected UDP socket's exchange. The server hears the client
    // first, and so takes its next question for the beginning.
    let begun = both(Counts { attempts: 1, answered: 1, ..Counts::default() });
    for process in [connected, unconnected] {
        process.finish().unwrap();
        let expected = flows([
            ("client ? server 17/0", both(Counts::default())),
            ("server < client 17/5353", begun),
        ]);
        assert_eq!(watched.read(), expected);
    }
}
