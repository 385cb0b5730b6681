//! The sensor alone, in this process: what it counts and what it says it lost, against exact
//! numbers.
//!
//! In: sockets of a child process in a cgroup of its own. Out: nothing but assertions. Each test
//! makes its own cgroup and removes it, also when it fails.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::time::Duration;

use parapet::clock;
use parapet::kernel::Sensor;
use parapet_common::{SERVICE_ONE_BY_ONE, ServicePort};
use parapet_core::flow::{Direction, Timestamp};
use parapet_core::record::{Counts, Record};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketType, bind, connect, connect_unspec, ipproto,
    listen, recv, send, socket, sockopt,
};
use support::traffic::raw;

use crate::child::{Cgroup, LISTENS, Seen, child, count, generator, listens, run_in, start_in};

/// How a child knows that it opens a TCP connection at once and writes to it when told.
const CONNECT: &str = "PARAPET_TEST_CONNECT";

/// The same for a child that uses one TCP socket for both of these ports, and then listens on it.
const AGAIN: &str = "PARAPET_TEST_AGAIN";
/// The same for a child that asks this UDP port and is told by the kernel of each packet that left.
const TOLD: &str = "PARAPET_TEST_TOLD";
/// The same for a child that serves UDP with a socket for each client: the port of its only one.
const EACH: &str = "PARAPET_TEST_EACH";

/// The same for a child that sends this port a datagram each time it is told to.
const TIMED: &str = "PARAPET_TEST_TIMED";
/// The same for a child that reads along what TCP says to it and asks this port.
const ALONG: &str = "PARAPET_TEST_ALONG";

/// The same for a child that connects one socket to this port again and again until it can.
const RETRY: &str = "PARAPET_TEST_RETRY";

/// Not a test of its own: the body of the child.
#[test]
fn connector_process() {
    let Ok(port) = std::env::var(CONNECT) else { return };
    std::io::stdin().read_exact(&mut [0]).unwrap();
    let address = (Ipv4Addr::LOCALHOST, port.parse().unwrap());
    let mut stream = TcpStream::connect(address).unwrap();
    std::io::stdin().read_exact(&mut [0]).unwrap();
    stream.write_all(b"mid-stream").unwrap();
}

/// Nor is this.
#[test]
fn again_process() {
    let Ok(ports) = std::env::var(AGAIN) else { return };
    std::io::stdin().read_exact(&mut [0]).unwrap();
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    for (port, bytes) in ports.split(',').zip([FIRST_BYTES, SECOND_BYTES]) {
        connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port.parse().unwrap())).unwrap();
        // A write each, so that they are many packets.
        for _ in 0..bytes / 1_000 {
            assert_eq!(send(&socket, &[0; 1_000], SendFlags::empty()).unwrap(), 1_000);
        }
        // All of it was taken once the other side answers.
        assert_eq!(recv(&socket, &mut [0; 1], RecvFlags::empty()).unwrap().1, 1);
        connect_unspec(&socket).unwrap();
    }
    listen(&socket, 1).unwrap();
    let listener = TcpListener::from(socket);
    println!("{LISTENS}{}", listener.local_addr().unwrap().port());
    let (mut accepted, _) = listener.accept().unwrap();
    accepted.read_exact(&mut [0; SECOND_BYTES]).unwrap();
}

/// Nor this.
#[test]
fn told_process() {
    let Ok(port) = std::env::var(TOLD) else { return };
    std::io::stdin().read_exact(&mut [0]).unwrap();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    raw::tell_of_sent(socket.as_fd()).unwrap();
    socket.connect((Ipv4Addr::LOCALHOST, port.parse().unwrap())).unwrap();
    socket.send(b"question").unwrap();
    assert_eq!(socket.recv(&mut [0; 16]).unwrap(), 6);
}

/// Nor this. It does as DTLS servers do: a first datagram is heard by the socket of all, and
/// answered by one of its client's own on the same port.
#[test]
fn each_process() {
    let Ok(port) = std::env::var(EACH) else { return };
    std::io::stdin().read_exact(&mut [0]).unwrap();
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port.parse().unwrap());
    let bound = || {
        let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).unwrap();
        sockopt::set_socket_reuseaddr(&socket, true).unwrap();
        bind(&socket, &address).unwrap();
        UdpSocket::from(socket)
    };
    let all = bound();
    println!("{LISTENS}{port}");
    let (_, client) = all.recv_from(&mut [0; 16]).unwrap();
    let own = bound();
    own.connect(client).unwrap();
    own.send(b"answer").unwrap();
    own.recv(&mut [0; 16]).unwrap();
    own.send(b"answer").unwrap();
}

const FIRST_BYTES: usize = 5_000;
const SECOND_BYTES: usize = 90_000;

#[tokio::test]
async fn every_packet_is_counted_or_counted_as_lost() {
    const CAPACITY: u32 = 64;
    const DATAGRAMS: u32 = 3;
    // Somebody must listen, or the kernel would answer with ICMP. Outside of the watched cgroup.
    let listener = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    for peers in [0, 1, CAPACITY - 1, CAPACITY, 8 * CAPACITY] {
        let cgroup = Cgroup::new(&format!("overload{peers}"));
        let mut sensor = Sensor::load(&cgroup.config(CAPACITY)).unwrap();
        run_in(&cgroup, generator(peers, DATAGRAMS, port));
        let seen = count(&sensor.read_now());
        let kept = u64::from(peers.min(CAPACITY));
        let datagrams = u64::from(DATAGRAMS);
        let expected = Seen {
            flows: kept,
            packets: kept * datagrams,
            attempts: kept,
            lost: (u64::from(peers) - kept) * datagrams,
        };
        assert_eq!(seen, expected, "{peers} peers");
        assert_eq!(sensor.capacity()[0], ("flows", kept, u64::from(CAPACITY)));
        let totals = sensor.totals();
        let totals = (totals.attempts, totals.answered, totals.refused);
        assert_eq!(totals, (u64::from(peers), 0, 0), "whatever room there was");
        assert_eq!(count(&sensor.read_now()), Seen::default(), "nothing is counted twice");
    }
}

#[tokio::test]
async fn a_full_ring_loses_events_by_count_and_no_flow() {
    const CGROUPS: u64 = 4_000;
    let listener = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let cgroup = Cgroup::new("ring");
    let mut sensor = Sensor::load(&cgroup.config(8)).unwrap();
    // Nobody reads meanwhile, so the ring must overflow.
    for number in 0..CGROUPS / 2 {
        let child = cgroup.folder.join(number.to_string());
        std::fs::create_dir(&child).unwrap();
        std::fs::remove_dir(&child).unwrap();
    }
    run_in(&cgroup, generator(2, 7, port));
    let mut events = 0;
    let mut ring_full = 0;
    let mut packets = 0;
    for record in sensor.read_now() {
        match record {
            Record::CgroupCreated { .. } | Record::CgroupRemoved { .. } => events += 1,
            Record::Dns(_) | Record::Read(_) | Record::Reader(_) => {}
            Record::Lost { stage: "ring_full", count } => ring_full += count,
            Record::Lost { stage, count } => panic!("{count} lost at {stage}"),
            Record::Flow(flow) => packets += flow.counts.sent_packets,
        }
    }
    assert!(ring_full > 0, "the ring held {events} events");
    // The two flows' events are among the lost ones; their packets are not.
    assert_eq!(events + ring_full, CGROUPS + 2);
    assert_eq!(packets, 14);
}

#[tokio::test]
async fn a_connection_older_than_the_sensor_has_a_direction_and_no_attempt() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let cgroup = Cgroup::new("midstream");
    let mut child = child("sensor::connector_process", CONNECT, port);
    start_in(&cgroup, &mut child);
    let (mut accepted, _) = listener.accept().unwrap();
    let mut sensor = Sensor::load(&cgroup.config(8)).unwrap();
    child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    let mut text = String::new();
    accepted.read_to_string(&mut text).unwrap();
    assert_eq!(text, "mid-stream");
    assert!(child.wait().unwrap().success());
    let records = sensor.read_now();
    let [Record::Flow(flow)] = &records[..] else { panic!("{records:?}") };
    assert_eq!((flow.direction, flow.service_port), (Some(Direction::Egress), port));
    let Counts { attempts, answered, refused, sent_packets, .. } = flow.counts;
    assert_eq!((attempts, answered, refused), (0, 0, 0));
    assert!(sent_packets >= 2, "the text and the end, {sent_packets} packets");
}

#[tokio::test]
async fn a_socket_used_again_counts_for_its_new_peer() {
    let listeners = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    let [first, second] = listeners.each_ref().map(|it| it.local_addr().unwrap().port());
    let cgroup = Cgroup::new("again");
    let mut sensor = Sensor::load(&cgroup.config(8)).unwrap();
    let mut child = child("sensor::again_process", AGAIN, format!("{first},{second}"));
    start_in(&cgroup, &mut child);
    for (listener, bytes) in listeners.iter().zip([FIRST_BYTES, SECOND_BYTES]) {
        let (mut accepted, _) = listener.accept().unwrap();
        accepted.read_exact(&mut vec![0; bytes]).unwrap();
        accepted.write_all(b"y").unwrap();
    }
    let (own, _lines) = listens(&mut child);
    let own: u16 = own.parse().unwrap();
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, own)).unwrap();
    stream.write_all(&[0; SECOND_BYTES]).unwrap();
    assert!(child.wait().unwrap().success());

    let mut seen = Vec::new();
    for record in sensor.read_now() {
        let Record::Flow(flow) = record else { continue };
        let Counts { attempts, answered, sent_bytes, received_bytes, .. } = flow.counts;
        let mostly = sent_bytes.max(received_bytes);
        assert!(mostly > FIRST_BYTES as u64, "{flow:?}");
        let is_much = mostly > SECOND_BYTES as u64;
        seen.push((flow.direction, flow.service_port, attempts, answered, is_much));
    }
    seen.sort_unstable();
    let mut expected = vec![
        (Some(Direction::Egress), first, 1, 1, false),
        (Some(Direction::Egress), second, 1, 1, true),
        (Some(Direction::Ingress), own, 1, 1, true),
    ];
    expected.sort_unstable();
    assert_eq!(seen, expected);
}

/// Direction, port, attempts, answered and refused of the only flow.
fn only_flow(sensor: &mut Sensor) -> (Option<Direction>, u16, u64, u64, u64) {
    let records = sensor.read_now();
    let flows = records.iter().filter_map(|record| match record {
        Record::Flow(flow) => Some(flow),
        _ => None,
    });
    let flows: Vec<_> = flows.collect();
    let [flow] = flows[..] else { panic!("{flows:?}") };
    let Counts { attempts, answered, refused, refused_port, refused_route, .. } = flow.counts;
    let refused = refused + refused_port + refused_route;
    (flow.direction, flow.service_port, attempts, answered, refused)
}

#[tokio::test]
async fn what_the_kernel_tells_of_sent_packets_is_no_refusal() {
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = server.local_addr().unwrap().port();
    let cgroup = Cgroup::new("told");
    let mut sensor = Sensor::load(&cgroup.config(8)).unwrap();
    let mut child = child("sensor::told_process", TOLD, port);
    start_in(&cgroup, &mut child);
    let (_, client) = server.recv_from(&mut [0; 16]).unwrap();
    server.send_to(b"answer", client).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(only_flow(&mut sensor), (Some(Direction::Egress), port, 1, 1, 0));
}

#[tokio::test]
async fn a_socket_for_one_client_of_a_server_asks_nobody() {
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    // Free a moment ago: the child needs one that is known before it is bound.
    let port = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let cgroup = Cgroup::new("each");
    let mut sensor = Sensor::load(&cgroup.config(8)).unwrap();
    let mut child = child("sensor::each_process", EACH, port);
    start_in(&cgroup, &mut child);
    let (_, _lines) = listens(&mut child);
    for _ in 0..2 {
        client.send_to(b"question", (Ipv4Addr::LOCALHOST, port)).unwrap();
        assert_eq!(client.recv(&mut [0; 16]).unwrap(), 6);
    }
    assert!(child.wait().unwrap().success());
    assert_eq!(only_flow(&mut sensor), (Some(Direction::Ingress), port, 1, 1, 0));
}

/// Nor this: one socket for all attempts, each given up after half a second.
#[test]
fn retry_process() {
    let Ok(port) = std::env::var(RETRY) else { return };
    std::io::stdin().read_exact(&mut [0]).unwrap();
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port.parse().unwrap());
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    sockopt::set_tcp_user_timeout(&socket, 500).unwrap();
    assert_eq!(connect(&socket, &address), Err(rustix::io::Errno::TIMEDOUT));
    println!("{LISTENS}nothing");
    std::io::stdin().read_exact(&mut [0]).unwrap();
    connect(&socket, &address).unwrap();
}

#[tokio::test]
async fn each_try_of_a_socket_to_connect_is_an_attempt() {
    let server = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&server, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
    listen(&server, 0).unwrap();
    let server = TcpListener::from(server);
    let address = server.local_addr().unwrap();
    // A queue of no length holds one connection, and no other SYN is answered until that is taken.
    let _first = TcpStream::connect(address).unwrap();
    let cgroup = Cgroup::new("retry");
    let mut sensor = Sensor::load(&cgroup.config(8)).unwrap();
    let mut child = child("sensor::retry_process", RETRY, address.port());
    start_in(&cgroup, &mut child);
    let (_, _lines) = listens(&mut child);
    server.accept().unwrap();
    child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    server.accept().unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(only_flow(&mut sensor), (Some(Direction::Egress), address.port(), 2, 1, 0));
}

#[tokio::test]
async fn a_port_that_becomes_a_divided_services_is_counted_one_by_one_from_then_on() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let cgroup = Cgroup::new("divided");
    let mut sensor = Sensor::load(&cgroup.config(64)).unwrap();
    let mut addr = [0; 16];
    addr[..4].copy_from_slice(&Ipv4Addr::LOCALHOST.octets());
    let service = ServicePort { addr, port, protocol: 6, family: 4, reserved: 0 };
    // Attempts, and whether they are one connection's, of each flow that three connections made.
    let mut connect = |bits| {
        assert_eq!(sensor.set_services(&HashMap::from([(service, bits)])), 0);
        for _ in 0..3 {
            let mut child = child("sensor::connector_process", CONNECT, port);
            start_in(&cgroup, &mut child);
            listener.accept().unwrap();
            child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
            child.wait().unwrap();
        }
        let records = sensor.read_now();
        let flows = records.iter().filter_map(|record| match record {
            Record::Flow(flow) => Some((flow.counts.attempts, flow.local_port.is_some())),
            _ => None,
        });
        flows.collect::<Vec<_>>()
    };
    assert_eq!(connect(0), [(3, false)]);
    assert_eq!(connect(SERVICE_ONE_BY_ONE), [(1, true); 3]);
    assert_eq!(connect(0), [(3, false)]);
}

/// Nor this.
#[test]
fn timed_process() {
    let Ok(port) = std::env::var(TIMED) else { return };
    std::io::stdin().read_exact(&mut [0]).unwrap();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.connect((Ipv4Addr::LOCALHOST, port.parse().unwrap())).unwrap();
    while std::io::stdin().read(&mut [0]).unwrap() == 1 {
        socket.send(b"x").unwrap();
    }
}

#[tokio::test]
async fn a_packet_has_the_time_at_which_it_passed() {
    /// A tick is ten milliseconds at most, and what is told may be two of them late.
    const LATE_NS: u64 = 20_000_000;
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let cgroup = Cgroup::new("timed");
    let mut sensor = Sensor::load(&cgroup.config(8)).unwrap();
    let mut child = child("sensor::timed_process", TIMED, server.local_addr().unwrap().port());
    start_in(&cgroup, &mut child);
    for pause_ms in [0, 100, 1_500] {
        std::thread::sleep(Duration::from_millis(pause_ms));
        let before = clock::now();
        child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        server.recv(&mut [0; 1]).unwrap();
        let after = clock::now();
        // What is read later is no newer for that.
        std::thread::sleep(Duration::from_millis(100));
        let records = sensor.read_now();
        let [Record::Flow(flow)] = &records[..] else { panic!("{records:?}") };
        let earliest = Timestamp(before.0 - LATE_NS);
        let seen = flow.last_seen;
        assert!((earliest..=after).contains(&seen), "{seen:?} in {earliest:?} to {after:?}");
    }
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

/// Nor this.
#[test]
fn along_process() {
    let Ok(port) = std::env::var(ALONG) else { return };
    std::io::stdin().read_exact(&mut [0]).unwrap();
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port.parse().unwrap());
    let along = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::TCP)).unwrap();
    connect(&along, &address).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.read_exact(&mut [0; 6]).unwrap();
    // The end of the handshake, and more.
    for _ in 0..2 {
        assert!(recv(&along, &mut [0; 128], RecvFlags::empty()).unwrap().1 >= 40);
    }
}

#[tokio::test]
async fn a_connected_raw_socket_that_reads_along_counts_nothing() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let cgroup = Cgroup::new("along");
    let mut sensor = Sensor::load(&cgroup.config(8)).unwrap();
    let mut child = child("sensor::along_process", ALONG, port);
    start_in(&cgroup, &mut child);
    listener.accept().unwrap().0.write_all(b"answer").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(only_flow(&mut sensor), (Some(Direction::Egress), port, 1, 1, 0));
}

#[tokio::test]
async fn programs_of_others_on_the_same_cgroup_keep_working() {
    let listener = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let cgroup = Cgroup::new("others");
    let mut first = Sensor::load(&cgroup.config(8)).unwrap();
    let second = Sensor::load(&cgroup.config(8)).unwrap();
    run_in(&cgroup, generator(4, 5, port));
    let expected = Seen { flows: 4, packets: 20, attempts: 4, lost: 0 };
    assert_eq!(count(&first.read_now()), expected);
    // One that leaves takes nothing from the other.
    drop(second);
    run_in(&cgroup, generator(4, 5, port));
    assert_eq!(count(&first.read_now()), expected);
}
