//! A sensor alone and what it watches: child processes in a cgroup of the test's own.
//!
//! In: what a child is to do, in a variable of its environment. Out: the child in its cgroup, which
//! is removed with everything in it, also when the test fails.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use parapet::kernel::KernelConfig;
use parapet_core::record::Record;
use support::cgroup;

/// How a child knows that it is one: `peers,datagrams a peer,port`.
const GENERATE: &str = "PARAPET_TEST_GENERATE";

/// What the child says before its port, in a line of its own.
pub(crate) const LISTENS: &str = "listens on ";

/// A cgroup of the test's own.
pub(crate) struct Cgroup {
    pub(crate) folder: PathBuf,
    prefix: String,
}

impl Cgroup {
    pub(crate) fn new(name: &str) -> Self {
        let prefix = format!("/prp{}-{name}", std::process::id());
        let folder = cgroup::mount_point().unwrap().join(prefix.trim_start_matches('/'));
        cgroup::create(&folder).unwrap();
        Self { folder, prefix }
    }

    pub(crate) fn config(&self, flows_max: u32) -> KernelConfig {
        KernelConfig {
            cgroup_root: self.folder.clone(),
            cgroup_prefix: self.prefix.clone(),
            flows_max,
            share_divisor: 1,
            ..KernelConfig::default()
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Also ends a child that a failed test left waiting.
        let _ = cgroup::remove(&self.folder);
    }
}

/// A child that waits for a byte, and then does what the variable says.
pub(crate) fn child(test: &str, variable: &str, order: impl ToString) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(variable, order.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What a child says once it listens. What it says it with is to be kept until the child is
/// through: it has more to say.
pub(crate) fn listens(child: &mut Child) -> (String, impl Iterator<Item = String> + use<>) {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let said = lines.find_map(|line| Some(line.split_once(LISTENS)?.1.to_owned())).unwrap();
    (said, lines)
}

/// A child that waits for a byte, and then sends.
pub(crate) fn generator(peers: u32, datagrams: u32, port: u16) -> Child {
    child("child::generator_process", GENERATE, format!("{peers},{datagrams},{port}"))
}

/// The child is let go once it is in the cgroup; it ends when its stdin does.
pub(crate) fn start_in(cgroup: &Cgroup, child: &mut Child) {
    cgroup::join(&cgroup.folder, child.id()).unwrap();
    child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
}

pub(crate) fn run_in(cgroup: &Cgroup, mut child: Child) {
    start_in(cgroup, &mut child);
    assert!(child.wait().unwrap().success());
}

/// Not a test of its own: the body of the child processes.
#[test]
fn generator_process() {
    let Ok(order) = std::env::var(GENERATE) else { return };
    let numbers: Vec<u32> = order.split(',').map(|number| number.parse().unwrap()).collect();
    let [peers, datagrams, port] = numbers[..] else { panic!("{order}") };
    std::io::stdin().read_exact(&mut [0]).unwrap();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let first = u32::from(Ipv4Addr::new(127, 1, 0, 1));
    for _ in 0..datagrams {
        for peer in 0..peers {
            let address = Ipv4Addr::from(first + peer);
            let port = u16::try_from(port).unwrap();
            assert_eq!(socket.send_to(b"x", SocketAddrV4::new(address, port)).unwrap(), 1);
        }
    }
}

/// What a generator's flows counted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) flows: u64,
    pub(crate) packets: u64,
    pub(crate) attempts: u64,
    pub(crate) lost: u64,
}

pub(crate) fn count(records: &[Record]) -> Seen {
    let mut seen = Seen::default();
    for record in records {
        match record {
            Record::Flow(flow) => {
                seen.flows += 1;
                seen.packets += flow.counts.sent_packets;
                seen.attempts += flow.counts.attempts;
            }
            Record::Lost { stage: "flow_table_full" | "flow_quota", count } => seen.lost += count,
            Record::Lost { stage, count } => panic!("{count} lost at {stage}"),
            Record::CgroupCreated { .. } | Record::CgroupRemoved { .. } => {}
            Record::Dns(_) | Record::Read(_) | Record::Reader(_) => {}
        }
    }
    seen
}
