//! How flows and socket pairs leave the kernel's tables: when they are idle, sooner where room is
//! scarce, and never while they are used.
//!
//! In: sockets of a child process under a sensor alone. Out: nothing but assertions.

use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use parapet::kernel::{KernelConfig, Sensor};
use parapet_common::{SERVICE_ONE_BY_ONE, ServicePort};

use crate::child::{Cgroup, LISTENS, Seen, child, count, generator, listens, run_in, start_in};

/// How a child knows that it opens two TCP connections to this port and closes one.
const TWO: &str = "PARAPET_TEST_TWO";
/// The same for one that answers UDP until its stdin ends.
const ECHO: &str = "PARAPET_TEST_ECHO";

#[tokio::test]
async fn an_idle_flow_gives_its_slot_to_another_with_counts_from_zero() {
    let listener = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let cgroup = Cgroup::new("idle");
    let config = KernelConfig { idle_max: Duration::from_millis(50), ..cgroup.config(1) };
    let mut sensor = Sensor::load(&config).unwrap();
    for round in 0..3 {
        run_in(&cgroup, generator(1, 5, port));
        let seen = count(&sensor.read_now());
        let expected = Seen { flows: 1, packets: 5, attempts: 1, lost: 0 };
        assert_eq!(seen, expected, "round {round}");
        // Idle, hidden, then free: two more reads with the grace time between them.
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(120)).await;
            assert_eq!(count(&sensor.read_now()), Seen::default());
        }
        assert_eq!(sensor.capacity()[0], ("flows", 0, 1));
    }
}

#[tokio::test]
async fn who_used_up_a_share_waits_a_tenth_of_the_time_for_room() {
    let listener = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let cgroup = Cgroup::new("pressed");
    let idle_max = Duration::from_secs(20);
    let config = KernelConfig { idle_max, share_divisor: 4, ..cgroup.config(64) };
    let mut sensor = Sensor::load(&config).unwrap();
    let seen = |flows, lost| Seen { flows, packets: flows, attempts: flows, lost };
    run_in(&cgroup, generator(20, 1, port));
    assert_eq!(count(&sensor.read_now()), seen(16, 4));
    run_in(&cgroup, generator(20, 1, port));
    // The same socket pairs do not begin again: a child of its own has a socket of its own.
    assert_eq!(count(&sensor.read_now()), seen(16, 4));
    // Idle for long enough, then hidden for long enough.
    for pause_ms in [2_300, 300] {
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        assert_eq!(count(&sensor.read_now()), Seen::default());
    }
    assert_eq!(sensor.capacity()[0], ("flows", 0, 64));
    run_in(&cgroup, generator(3, 1, port));
    assert_eq!(count(&sensor.read_now()), seen(3, 0));
    for pause_ms in [2_300, 300] {
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        sensor.read_now();
    }
    assert_eq!(sensor.capacity()[0], ("flows", 3, 64), "there is room for all: nobody is hurried");
}

#[tokio::test]
async fn a_pair_is_forgotten_when_it_is_idle_and_not_while_it_is_used() {
    let cgroup = Cgroup::new("pairs");
    let config = KernelConfig { pair_idle_max: Duration::from_secs(3), ..cgroup.config(8) };
    let mut sensor = Sensor::load(&config).unwrap();
    let mut child = child("aging::echo_process", ECHO, "");
    start_in(&cgroup, &mut child);
    let (port, _lines) = listens(&mut child);
    let port: u16 = port.parse().unwrap();
    let mut seen = move || {
        let seen = count(&sensor.read_now());
        let pairs = sensor.capacity().into_iter().find(|(table, ..)| *table == "socket_pairs");
        (seen.attempts, pairs.unwrap().1)
    };
    let clients = [(); 2].map(|()| {
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        client.connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        client
    });
    let ask = |client: &UdpSocket| {
        client.send(b"question").unwrap();
        assert_eq!(client.recv(&mut [0; 16]).unwrap(), 8);
    };
    let [busy, other] = &clients;
    for client in [busy, other, busy] {
        ask(client);
    }
    assert_eq!(seen().0, 2);
    // Only the socket hears of the busy one from here on, the table of neither.
    for _ in 0..50 {
        ask(busy);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(seen().0, 0);
    }
    assert_eq!(seen(), (0, 1), "the other one is forgotten");
    ask(other);
    assert_eq!(seen().0, 1, "and begins anew");
    ask(busy);
    assert_eq!(seen().0, 0, "the busy one was in use all the time");
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

/// Not a test of its own: a server of UDP, with one socket for all.
#[test]
fn echo_process() {
    if std::env::var_os(ECHO).is_none() {
        return;
    }
    std::io::stdin().read_exact(&mut [0]).unwrap();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    println!("{LISTENS}{}", socket.local_addr().unwrap().port());
    std::thread::spawn(move || {
        loop {
            let mut bytes = [0; 16];
            let (length, from) = socket.recv_from(&mut bytes).unwrap();
            socket.send_to(&bytes[..length], from).unwrap();
        }
    });
    let _ = std::io::stdin().read(&mut [0]);
}

/// Nor this: two connections, of which one stays until its stdin ends.
#[test]
fn two_process() {
    let Ok(port) = std::env::var(TWO) else { return };
    std::io::stdin().read_exact(&mut [0]).unwrap();
    let address = (Ipv4Addr::LOCALHOST, port.parse().unwrap());
    let _kept = TcpStream::connect(address).unwrap();
    drop(TcpStream::connect(address).unwrap());
    println!("{LISTENS}nothing");
    let _ = std::io::stdin().read(&mut [0]);
}

#[tokio::test]
async fn a_connection_to_a_divided_service_gives_its_slot_back_soon_after_its_end() {
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = server.local_addr().unwrap().port();
    let cgroup = Cgroup::new("two");
    // A thirtieth of this passes between two reads here, and far from all of it. Two flows are more
    // than half of the room.
    let config = KernelConfig { idle_max: Duration::from_secs(6), ..cgroup.config(3) };
    let mut sensor = Sensor::load(&config).unwrap();
    let mut addr = [0; 16];
    addr[..4].copy_from_slice(&Ipv4Addr::LOCALHOST.octets());
    let divided = ServicePort { addr, port, protocol: 6, family: 4, reserved: 0 };
    assert_eq!(sensor.set_services(&[(divided, SERVICE_ONE_BY_ONE)].into()), 0);
    let mut child = child("aging::two_process", TWO, port);
    start_in(&cgroup, &mut child);
    let (_, _lines) = listens(&mut child);
    let seen = count(&sensor.read_now());
    assert_eq!((seen.flows, seen.attempts, seen.lost), (2, 2, 0));
    assert_eq!(sensor.capacity()[0], ("flows", 2, 3));
    // Over for long enough, then hidden for long enough.
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        sensor.read_now();
    }
    assert_eq!(sensor.capacity()[0], ("flows", 1, 3), "the open one stays");
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}
