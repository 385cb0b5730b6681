//! The sensor alone, killed at the worst moments: while it gives slots back. None is lost by it.
//!
//! In: as many flows as there are slots, and a child process that kills itself within a read. Out:
//! nothing but assertions.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use parapet::kernel::{KernelConfig, Sensor};
use parapet_core::record::Record;
use rustix::process::{Signal, getpid, kill_process};
use support::network::Family;
use support::node::Node;
use support::pod::PodSpec;
use support::task::{Send, Serve, Sockets, Task};

use super::pins;
use crate::agent::{BOTH, new_node};

/// How a child knows that it is one: `cgroup folder,prefix,pins,complete reads,microseconds`.
const DIE: &str = "PARAPET_TEST_DIE";

const PORTS: u16 = 256;
/// Each port, in both families, at both ends.
const FLOWS: u32 = PORTS as u32 * 4;
const ROUNDS: u64 = 24;
/// Longer than the sensor waits before a slot that it hid is free.
const GRACE: Duration = Duration::from_millis(120);

fn config(root: &Path, prefix: &str, pins: &Path, idle_max: Duration) -> KernelConfig {
    KernelConfig {
        cgroup_root: root.to_owned(),
        cgroup_prefix: prefix.to_owned(),
        pin_root: Some(pins.to_owned()),
        flows_max: FLOWS,
        share_divisor: 1,
        idle_max,
        ..KernelConfig::default()
    }
}

/// Not a test of its own: a sensor that lets every flow go and kills itself meanwhile.
#[tokio::test]
async fn doomed_process() {
    let Ok(order) = std::env::var(DIE) else { return };
    let words: Vec<&str> = order.split(',').collect();
    let [root, prefix, pins, reads, delay_us] = words[..] else { panic!("{order}") };
    let idle_max = Duration::from_millis(1);
    let config = config(Path::new(root), prefix, Path::new(pins), idle_max);
    let mut sensor = Sensor::load(&config).unwrap();
    for _ in 0..reads.parse().unwrap() {
        sensor.read_now();
        thread::sleep(GRACE);
    }
    let delay = Duration::from_micros(delay_us.parse().unwrap());
    let (begin, begins) = mpsc::channel();
    thread::spawn(move || {
        let since: Instant = begins.recv().unwrap();
        while since.elapsed() < delay {
            std::hint::spin_loop();
        }
        kill_process(getpid(), Signal::KILL).unwrap();
    });
    // A moment for the thread to wait in.
    thread::sleep(Duration::from_millis(5));
    begin.send(Instant::now()).unwrap();
    sensor.read_now();
    thread::sleep(Duration::from_secs(60));
}

/// Reads until every slot is free again; nothing may have been lost since there are pins.
fn drain(config: &KernelConfig) {
    let mut sensor = Sensor::load(config).unwrap();
    let since = Instant::now();
    loop {
        assert_nothing_lost(&sensor.read_now());
        if sensor.capacity()[0] == ("flows", 0, u64::from(FLOWS)) {
            return;
        }
        assert!(since.elapsed() < Duration::from_secs(20), "{:?}", sensor.capacity());
        thread::sleep(GRACE);
    }
}

fn assert_nothing_lost(records: &[Record]) {
    let lost: Vec<_> =
        records.iter().filter(|record| matches!(record, Record::Lost { .. })).collect();
    assert!(lost.is_empty(), "{lost:?}");
}

fn die(node: &Node, prefix: &str, pins: &Path, reads: u64, delay_us: u64) {
    let root = node.cgroup_root().display();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "survival::killed::doomed_process", "--nocapture"])
        .env(DIE, format!("{root},{prefix},{},{reads},{delay_us}", pins.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
}

#[tokio::test]
async fn a_sensor_killed_while_it_frees_slots_leaks_none() {
    let mut node = new_node();
    let client = node.pod(&PodSpec::new("a", "client")).unwrap();
    let server = node.pod(&PodSpec::new("b", "server")).unwrap();
    let ports: Vec<u16> = (10_000..10_000 + PORTS).collect();
    let serve = Serve { udp: ports.clone(), ..Serve::default() };
    let _serving = server.spawn(&Task::Serve(serve)).unwrap();
    let targets = BOTH
        .into_iter()
        .flat_map(|family: Family| ports.iter().map(move |port| (family, *port)))
        .map(|(family, port)| server.at(family, port))
        .collect();
    let fill = Task::Send(Send {
        targets,
        count: 1,
        datagram_bytes: 8,
        timeout_ms: 10_000,
        pause_ms: 0,
        sockets: Sockets::Shared,
        lite: false,
    });
    let pins: PathBuf = pins(&node);
    let prefix = format!("/{}/root", node.name());
    let root = node.cgroup_root().to_owned();
    let with_idle = |idle_max| config(&root, &prefix, &pins, idle_max);
    let letting_go = with_idle(Duration::from_millis(1));
    drain(&letting_go);
    for round in 0..ROUNDS {
        assert_eq!(client.run(&fill).unwrap().answered, u64::from(FLOWS / 2));
        // While it hides them, or while it frees what it hid; early and late in it.
        let (reads, delay_us) = (round % 2, 150 + round / 2 * 250);
        die(&node, &prefix, &pins, reads, delay_us);
        drain(&letting_go);
    }
    assert_eq!(client.run(&fill).unwrap().answered, u64::from(FLOWS / 2));
    let mut sensor = Sensor::load(&with_idle(Duration::from_secs(300))).unwrap();
    assert_nothing_lost(&sensor.read_now());
    assert_eq!(sensor.capacity()[0], ("flows", u64::from(FLOWS), u64::from(FLOWS)));
}
