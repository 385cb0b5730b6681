//! The table of TCP connections: who began and how it ended is the same of a connection that finds
//! its place there taken, and a place is free again when its connection is gone.
//!
//! In: both ends of connections in one watched cgroup. Out: nothing but assertions.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use parapet::kernel::{KernelConfig, Sensor};
use parapet_core::flow::Direction;
use parapet_core::record::Record;
use rustix::net::{AddressFamily, SocketType, connect, socket, sockopt};

use crate::child::{Cgroup, LISTENS, child, listens, start_in};

/// How a child knows that it has so many connections with itself at once, and whether who asks
/// speaks before the handshake is over: `64,true`.
const TALK: &str = "PARAPET_TEST_TALK";
const CONNECTIONS: u64 = 64;
/// More than one segment: what an accepted connection begins with may be many.
const GREETING_BYTES: usize = 30_000;

/// Not a test of its own: the body of the child.
#[test]
fn talk_process() {
    let Ok(order) = std::env::var(TALK) else { return };
    let (connections, is_eager) = order.split_once(',').unwrap();
    let is_eager: bool = is_eager.parse().unwrap();
    std::io::stdin().read_exact(&mut [0]).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let pairs: Vec<_> = (0..connections.parse().unwrap())
        .map(|_: u64| {
            let asking = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
            // Then the kernel waits for data to send together with the end of the handshake.
            sockopt::set_tcp_quickack(&asking, !is_eager).unwrap();
            connect(&asking, &address).unwrap();
            let mut asking = TcpStream::from(asking);
            if is_eager {
                asking.write_all(b"thanks").unwrap();
            }
            let (mut asked, _) = listener.accept().unwrap();
            asked.write_all(&[0; GREETING_BYTES]).unwrap();
            asking.read_exact(&mut [0; GREETING_BYTES]).unwrap();
            if !is_eager {
                asking.write_all(b"thanks").unwrap();
            }
            asked.read_exact(&mut [0; 6]).unwrap();
            (asking, asked)
        })
        .collect();
    println!("{LISTENS}{}", address.port());
    std::io::stdin().read_exact(&mut [0]).unwrap();
    drop(pairs);
}

/// It counts with each read.
fn sensor(cgroup: &Cgroup, flows_max: u32) -> Sensor {
    let config = KernelConfig { count_every: Duration::ZERO, ..cgroup.config(flows_max) };
    Sensor::load(&config).unwrap()
}

/// Entries and capacity.
fn places(sensor: &Sensor) -> (u64, u64) {
    let table = sensor.capacity().into_iter().find(|(table, ..)| *table == "tcp_sockets");
    let (_, entries, capacity) = table.unwrap();
    (entries, capacity)
}

/// Direction, port, attempts, answered and closed of each flow.
fn flows(records: &[Record]) -> Vec<(Option<Direction>, u16, u64, u64, u64)> {
    let mut flows: Vec<_> = records
        .iter()
        .filter_map(|record| match record {
            Record::Flow(flow) => {
                let counts = flow.counts;
                let outcomes = (counts.attempts, counts.answered, counts.closed);
                Some((flow.direction, flow.service_port, outcomes.0, outcomes.1, outcomes.2))
            }
            Record::Lost { stage, count } => panic!("{count} lost at {stage}"),
            _ => None,
        })
        .collect();
    flows.sort_unstable();
    flows
}

/// Has a child talk, and holds what is counted against what it did.
fn talk(
    cgroup: &Cgroup,
    sensor: &mut Sensor,
    is_eager: bool,
    expected_places: impl Fn((u64, u64)) -> bool,
) {
    let mut child = child("connections::talk_process", TALK, format!("{CONNECTIONS},{is_eager}"));
    start_in(cgroup, &mut child);
    let (port, _lines) = listens(&mut child);
    let port = port.parse().unwrap();
    let open = [Direction::Egress, Direction::Ingress]
        .map(|direction| (Some(direction), port, CONNECTIONS, CONNECTIONS, 0));
    let mut expected = open.to_vec();
    expected.sort_unstable();
    assert_eq!(flows(&sensor.read_now()), expected, "while all are open");
    let seen = places(sensor);
    assert!(expected_places(seen), "places while all are open: {seen:?}");

    child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    assert!(child.wait().unwrap().success());
    for flow in &mut expected {
        (flow.2, flow.3, flow.4) = (0, 0, CONNECTIONS);
    }
    let patience = Instant::now() + Duration::from_secs(10);
    let mut records = sensor.read_now();
    while places(sensor).0 > 0 && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(10));
        records.extend(sensor.read_now());
    }
    assert_eq!(places(sensor).0, 0, "each place is free once its socket is gone");
    assert_eq!(flows(&records), expected, "once all are closed");
}

#[tokio::test]
async fn each_connection_and_who_listens_have_a_place_until_they_are_gone() {
    let cgroup = Cgroup::new("places");
    let mut sensor = sensor(&cgroup, 65_536);
    for is_eager in [false, true] {
        talk(&cgroup, &mut sensor, is_eager, |places| places == (2 * CONNECTIONS + 1, 65_536));
    }
}

#[tokio::test]
async fn a_connection_that_finds_its_place_taken_is_followed_all_the_same() {
    let cgroup = Cgroup::new("taken");
    let mut sensor = sensor(&cgroup, 4);
    for is_eager in [false, true] {
        talk(&cgroup, &mut sensor, is_eager, |(entries, capacity)| {
            (1..=4).contains(&entries) && capacity == 4
        });
    }
}
