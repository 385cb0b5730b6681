//! What runs inside of each stock kernel, as the only program beside busybox.
//!
//! In: a fresh machine with /proc, /sys, cgroup2, bpffs and lo. Out: one line of JSON for each
//! program and flow on stdout, marked so that the kernel's own words on the same console cannot be
//! mistaken for them. It judges nothing: what is to be expected of a kernel is known outside.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context as _, bail};
use parapet::kernel::verified::{self, Verified};
use parapet::kernel::{KernelConfig, ProbeStatus, Sensor};
use parapet_core::flow::Protocol;
use parapet_core::record::{Counts, FlowRecord, Record};

use crate::report::{FLOWS, FlowKey, FlowLine, Line, ProgramLine, TCP_CONNECTIONS};

mod report;

const CGROUPS: &str = "/sys/fs/cgroup";
/// How long the counters may take to reach what was sent; then they are reported as they are.
const SETTLE_MAX: Duration = Duration::from_secs(10);
/// Nothing is read twice: what comes late would still be seen.
const SETTLED: Duration = Duration::from_millis(400);

fn main() -> ExitCode {
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")
        .and_then(|runtime| runtime.block_on(async { perform() }));
    match result {
        Ok(()) => {
            say(&Line::Done);
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(&Line::Failed(ends(&format!("{error:#}"))));
            ExitCode::FAILURE
        }
    }
}

/// A verifier's log is megabytes, which the console takes minutes for; its end says what was wrong.
fn ends(text: &str) -> String {
    const PART_CHARS: usize = 1500;
    let chars: Vec<char> = text.chars().collect();
    if chars.len() <= 2 * PART_CHARS {
        return text.to_owned();
    }
    let begin: String = chars[..PART_CHARS].iter().collect();
    let end: String = chars[chars.len() - PART_CHARS..].iter().collect();
    format!("{begin}\n[..]\n{end}")
}

fn say(line: &Line) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}");
    let _ = stdout.flush();
}

fn perform() -> anyhow::Result<()> {
    let _counted = verified::count_runs().map_err(anyhow::Error::msg)?;
    let mut sensor = Sensor::load(&KernelConfig::default())?;
    let gone = Path::new(CGROUPS).join("gone");
    fs::create_dir(&gone)?;
    fs::remove_dir(&gone)?;
    let home = Path::new(CGROUPS).join("traffic");
    fs::create_dir(&home)?;
    fs::write(home.join("cgroup.procs"), std::process::id().to_string())?;

    traffic().context("traffic")?;
    let cgroup_id = std::os::unix::fs::MetadataExt::ino(&fs::metadata(&home)?);
    for line in flows(&mut sensor, cgroup_id) {
        say(&Line::Flow(line));
    }
    let programs = verified::programs(&sensor);
    let probes = sensor.probes().to_vec();
    // The log is only asked for with nothing else of ours in the kernel.
    drop(sensor);
    let by_log = if programs.iter().any(|one| one.loaded && one.instructions.is_none()) {
        verified::instructions_by_log().map_err(anyhow::Error::msg)?
    } else {
        Vec::new()
    };
    for program in programs {
        say(&Line::Program(program_line(program, &probes, &by_log)));
    }
    Ok(())
}

fn program_line(program: Verified, probes: &[ProbeStatus], by_log: &[(&str, u32)]) -> ProgramLine {
    let probe = probes.iter().find(|probe| probe.probe == program.program);
    let logged = by_log.iter().find(|(name, _)| *name == program.program).map(|(_, count)| *count);
    ProgramLine {
        loaded: program.loaded,
        attached: probe.is_some_and(|probe| probe.attached),
        runs: program.runs,
        instructions: program.instructions.or(logged),
        error: match probe {
            Some(probe) => probe.error.as_deref().map(ends),
            None => Some("no probe of the agent loads this program".to_owned()),
        },
        program: program.program,
    }
}

/// What [`report::FLOWS`] says, each from sockets of this process.
fn traffic() -> anyhow::Result<()> {
    for addr in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        tcp_answered(SocketAddr::new(addr, report::TCP_ANSWERED))?;
        let refused = TcpStream::connect(SocketAddr::new(addr, report::TCP_REFUSED));
        if refused.is_ok() {
            bail!("a port without listener answered on {addr}");
        }
        udp_answered(addr)?;
        udp_refused(addr)?;
    }
    Ok(())
}

fn tcp_answered(at: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(at)?;
    for _ in 0..TCP_CONNECTIONS {
        let mut client = TcpStream::connect(at)?;
        let (mut server, _) = listener.accept()?;
        client.write_all(b"question")?;
        server.read_exact(&mut [0; 8])?;
        server.write_all(b"answer")?;
        client.read_exact(&mut [0; 6])?;
        drop(client);
        // The end of the stream: the client's FIN was seen before the next begins.
        server.read_to_end(&mut Vec::new())?;
    }
    Ok(())
}

fn udp_answered(addr: IpAddr) -> anyhow::Result<()> {
    let server = UdpSocket::bind(SocketAddr::new(addr, report::UDP_ANSWERED))?;
    let client = UdpSocket::bind(SocketAddr::new(addr, 0))?;
    client.connect(server.local_addr()?)?;
    for _ in 0..report::DATAGRAMS {
        client.send(b"question")?;
        let (_, from) = server.recv_from(&mut [0; 16])?;
        server.send_to(b"answer", from)?;
        client.recv(&mut [0; 16])?;
    }
    Ok(())
}

fn udp_refused(addr: IpAddr) -> anyhow::Result<()> {
    let client = UdpSocket::bind(SocketAddr::new(addr, 0))?;
    client.connect(SocketAddr::new(addr, report::UDP_REFUSED))?;
    client.set_read_timeout(Some(Duration::from_secs(5)))?;
    client.send(b"question")?;
    match client.recv(&mut [0; 16]) {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
        other => bail!("{addr} did not refuse: {other:?}"),
    }
}

/// The counts of our own cgroup, once there are as many flows as were made and they rest.
fn flows(sensor: &mut Sensor, cgroup_id: u64) -> Vec<FlowLine> {
    let mut flows: BTreeMap<FlowKey, FlowLine> = BTreeMap::new();
    let started = Instant::now();
    let mut changed = Instant::now();
    while started.elapsed() < SETTLE_MAX && (flows.len() < FLOWS || changed.elapsed() < SETTLED) {
        for record in sensor.read_now() {
            match record {
                Record::Flow(flow) if flow.cgroup_id == cgroup_id => {
                    changed = Instant::now();
                    let key = key(&flow);
                    let line = flows.entry(key.clone()).or_insert_with(|| FlowLine::new(key));
                    add(line, &flow.counts);
                }
                Record::Lost { stage, count } => {
                    say(&Line::Lost { stage: stage.to_owned(), count });
                }
                _ => {}
            }
        }
        thread::sleep(Duration::from_millis(50));
    }
    flows.into_values().collect()
}

fn key(flow: &FlowRecord) -> FlowKey {
    FlowKey {
        peer: flow.peer,
        protocol: flow.protocol.0,
        port: flow.service_port,
        direction: flow.direction,
    }
}

/// Adds what was counted since the last read.
fn add(line: &mut FlowLine, counts: &Counts) {
    line.attempts += counts.attempts;
    line.answered += counts.answered;
    line.refused += counts.refused;
    line.closed += counts.closed;
    if line.key.protocol != Protocol::TCP.0 {
        line.sent_packets += counts.sent_packets;
        line.received_packets += counts.received_packets;
    }
}
