//! `parapet-bench`: what the packet programs cost, as ratios to an empty program and to the floor.
//!
//! In: nothing. Out: one JSON object a line and a table in words. All four programs see the same
//! packets in the same run, so that a noisy machine disturbs them alike. Traffic stays on loopback.
#![expect(clippy::print_stdout, reason = "the results of a bench go to stdout")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;

use anyhow::{Result, anyhow};
use parapet::kernel::measure::{Measured, PROGRAMS, RunTime};
use support::cgroup;

/// The goal of packet_sent over the floor.
const GOAL: f64 = 1.5;
const PACKETS: u32 = 200_000;
const ROUNDS: u32 = 5;
/// A process may open 1,024 descriptors by default.
const SOCKETS_MAX: u32 = 900;

fn main() -> Result<()> {
    let cgroup = Cgroup::new()?;
    cgroup::join(&cgroup.folder, 0)?;
    for edges in [64, 10_000] {
        measure(&cgroup, &format!("udp4, {edges} edges, one socket for all"), |seed| {
            udp_one_socket(edges, seed)
        })?;
        let sockets = edges.min(SOCKETS_MAX);
        measure(&cgroup, &format!("udp4, {sockets} edges, a socket for each"), |_| {
            udp_connected(sockets)
        })?;
        test_run(&cgroup, edges)?;
    }
    measure(&cgroup, "udp6, 1 edge", |_| udp6())?;
    measure(&cgroup, "tcp4, 64 connections", |_| tcp())?;
    Ok(())
}

/// Takes the median of the rounds' ratios: each round has its own floor.
fn measure(cgroup: &Cgroup, name: &str, mut traffic: impl FnMut(u32) -> Result<()>) -> Result<()> {
    let mut measured = Measured::attach(&cgroup.folder).map_err(|error| anyhow!(error))?;
    traffic(0)?;
    let mut rounds = Vec::new();
    for round in 1..=ROUNDS {
        let before = measured.run_times().map_err(|error| anyhow!(error))?;
        traffic(round)?;
        let after = measured.run_times().map_err(|error| anyhow!(error))?;
        rounds.push(ns_a_run(&before, &after));
    }
    print(&format!("real traffic: {name}"), &rounds);
    Ok(())
}

fn ns_a_run(before: &[RunTime], after: &[RunTime]) -> Vec<f64> {
    before.iter().zip(after).map(|(before, after)| after.ns_a_run_since(before)).collect()
}

fn print(name: &str, rounds: &[Vec<f64>]) {
    let median = |program: usize, over: Option<usize>| {
        let mut values: Vec<f64> = rounds
            .iter()
            .map(|round| round[program] / over.map_or(1.0, |over| round[over]))
            .collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    for (program, label) in PROGRAMS.iter().enumerate().skip(2) {
        if rounds.iter().all(|round| round[program] == 0.0) {
            continue;
        }
        let (ns, over_empty, over_floor) =
            (median(program, None), median(program, Some(0)), median(program, Some(1)));
        let met = over_floor <= GOAL;
        let line = serde_json::json!({
            "bench": name, "program": label, "ns_a_run": ns, "over_empty": over_empty,
            "over_floor": over_floor, "goal_over_floor": GOAL, "met": met,
        });
        println!("{line}");
        let verdict = if met { "met" } else { "MISSED" };
        println!(
            "  {name}: {label} {over_floor:.2}x the floor (goal <= {GOAL}: {verdict}), \
             {over_empty:.2}x the empty program"
        );
    }
}

fn address(edge: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 2, 0, 1)) + edge)
}

/// Round robin over all peers: the socket's memory never fits, every packet asks the pair table.
fn udp_one_socket(edges: u32, seed: u32) -> Result<()> {
    let sink = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 40_053))?;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 40_054))?;
    for packet in 0..PACKETS {
        let edge = packet.wrapping_add(seed) % edges;
        socket.send_to(b"x", (address(edge), sink.local_addr()?.port()))?;
    }
    Ok(())
}

fn udp_connected(edges: u32) -> Result<()> {
    let sink = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let sockets: Vec<UdpSocket> = (0..edges)
        .map(|edge| {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            socket.connect((address(edge), sink.local_addr()?.port()))?;
            Ok(socket)
        })
        .collect::<std::io::Result<_>>()?;
    for packet in 0..PACKETS as usize {
        sockets[packet % sockets.len()].send(b"x")?;
    }
    Ok(())
}

fn udp6() -> Result<()> {
    let sink = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0))?;
    let socket = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0))?;
    socket.connect(sink.local_addr()?)?;
    for _ in 0..PACKETS {
        socket.send(b"x")?;
    }
    Ok(())
}

fn tcp() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address: SocketAddr = listener.local_addr()?;
    let mut pairs = Vec::new();
    for _ in 0..64 {
        let client = TcpStream::connect(address)?;
        client.set_nodelay(true)?;
        let (server, _) = listener.accept()?;
        server.set_nodelay(true)?;
        pairs.push((client, server));
    }
    let mut byte = [0];
    for packet in 0..PACKETS as usize / 4 {
        let count = pairs.len();
        let (client, server) = &mut pairs[packet % count];
        client.write_all(b"x")?;
        server.read_exact(&mut byte)?;
        server.write_all(b"y")?;
        client.read_exact(&mut byte)?;
    }
    Ok(())
}

/// The same program over and over on one frame: the price when everything is in the caches.
fn test_run(cgroup: &Cgroup, edges: u32) -> Result<()> {
    let mut measured = Measured::attach(&cgroup.folder).map_err(|error| anyhow!(error))?;
    udp_one_socket(edges, 0)?;
    let mut rounds = Vec::new();
    for edge in 0..ROUNDS {
        let frame = udp_frame(address(edge * (edges / ROUNDS)), 40_053);
        let mut round = Vec::new();
        for program in PROGRAMS {
            let ns = if program == "packet_received" {
                0
            } else {
                measured.test_run(program, &frame, PACKETS).map_err(|error| anyhow!(error))?
            };
            #[expect(clippy::cast_precision_loss, reason = "nanoseconds of one run")]
            round.push((ns as f64).max(1.0) * f64::from(u8::from(program != "packet_received")));
        }
        rounds.push(round);
    }
    print(&format!("BPF_PROG_TEST_RUN: udp4, {edges} edges"), &rounds);
    Ok(())
}

/// Ethernet, IPv4, UDP, one byte.
fn udp_frame(target: Ipv4Addr, port: u16) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend([0x08, 0x00]);
    frame.extend([0x45, 0, 0, 29, 0, 0, 0, 0, 64, 17, 0, 0, 127, 0, 0, 1]);
    frame.extend(target.octets());
    frame.extend(40_054_u16.to_be_bytes());
    frame.extend(port.to_be_bytes());
    frame.extend([0, 9, 0, 0, b'x']);
    frame
}

/// A cgroup of the bench's own; the process leaves it before it is removed.
struct Cgroup {
    root: PathBuf,
    folder: PathBuf,
}

impl Cgroup {
    fn new() -> Result<Self> {
        let root = cgroup::mount_point()?;
        let folder = root.join(format!("prp{}-bench", std::process::id()));
        cgroup::create(&folder)?;
        Ok(Self { root, folder })
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // To remove it is to end who is still in it.
        if cgroup::join(&self.root, 0).is_ok() {
            let _ = cgroup::remove(&self.folder);
        }
    }
}
