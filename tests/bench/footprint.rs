//! What the agent takes when it has little to do, and how soon it says what it saw.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use support::agent::Agent;
use support::network::{Family, SILENT};

use crate::load::{Load, Work, now_ns};
use crate::outcome::{Goal, Outcome, median, number};
use crate::pods::{self, Pods, Seen};
use crate::usage;

const IDLE: Duration = Duration::from_secs(10);
const EDGES: u16 = 10_000;
const PORT_FIRST: u16 = 20_000;
/// How often a new edge is waited for, each with a port of its own.
const FIRST_PACKETS: usize = 7;
/// Scrapes after which memory is read: the first ones make room.
const SCRAPES: usize = 3;

pub(crate) fn measure() -> anyhow::Result<()> {
    let pods = Pods::start()?;
    let agent = pods.agent()?;
    let server = pods.serve()?;
    idle(&agent)?;
    let asked = first_packets(&pods, &agent)?;
    memory(&pods, &agent, asked)?;
    drop(server);
    Ok(())
}

fn idle(agent: &Agent) -> anyhow::Result<()> {
    // What starting costs is no idling.
    thread::sleep(Duration::from_secs(1));
    let before = usage::cpu(agent.pid())?;
    thread::sleep(IDLE);
    let used = usage::cpu(agent.pid())?.saturating_sub(before);
    let percent = 100.0 * used.as_secs_f64() / IDLE.as_secs_f64();
    Outcome::new("idle agent", percent, "% of a core", Goal::AtMost(0.5)).print();
    Ok(())
}

/// How many edges were made comes out.
fn first_packets(pods: &Pods, agent: &Agent) -> anyhow::Result<u64> {
    let mut seconds = Vec::new();
    for target in pods.targets().iter().take(FIRST_PACKETS) {
        let mut load = Load::start(&pods.client, one(*target))?;
        let done = load.wait()?;
        let labels = ["source_workload=\"client\"", &format!("target_port=\"{}\"", target.port())];
        let shown_ns = shown(agent, &labels)?;
        seconds.push(number(shown_ns.saturating_sub(done.began_ns)) / 1e9);
    }
    let slowest = seconds.iter().copied().fold(0.0, f64::max);
    Outcome::new("first packet to metric, the slowest", slowest, "seconds", Goal::AtMost(1.0))
        .with("median", median(seconds.iter().copied()))
        .with("times", number(seconds.len() as u64))
        .print();
    Ok(seconds.len() as u64)
}

fn one(target: SocketAddr) -> Work {
    Work::Datagrams { target: target.ip(), ports: target.port()..target.port() + 1 }
}

/// When `/metrics` first has a line of attempts with all of these labels.
fn shown(agent: &Agent, labels: &[&str]) -> anyhow::Result<u64> {
    let since = Instant::now();
    loop {
        let answer = agent.get("/metrics")?;
        let now = now_ns();
        let is_it = |line: &str| {
            line.starts_with("parapet_flow_attempts_total{")
                && line.contains("direction=\"egress\"")
                && labels.iter().all(|label| line.contains(label))
        };
        if answer.body.lines().any(is_it) {
            return Ok(now);
        }
        if since.elapsed() > Duration::from_secs(10) {
            bail!("/metrics does not show {labels:?}");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn memory(pods: &Pods, agent: &Agent, asked: u64) -> anyhow::Result<()> {
    let few = usage::memory(agent.pid())?;
    let ports = PORT_FIRST..PORT_FIRST + EDGES;
    let work = Work::Datagrams { target: SILENT.of(Family::V4), ports };
    let mut load = Load::start(&pods.client, work)?;
    let done = load.wait()?;
    // Long enough for what nobody answers to be known as that, and for metrics to be counted.
    thread::sleep(Duration::from_secs(7));
    for _ in 0..SCRAPES {
        let status = agent.get("/metrics").context("/metrics")?.status;
        ensure!(status == 200, "/metrics answered {status}");
    }
    let full = usage::memory(agent.pid())?;
    let expected = done.count + asked;
    let seen = Seen { udp: expected, edges: expected, ..Seen::default() };
    pods::check(agent, seen)?;
    let after_report = usage::memory(agent.pid())?;
    let name = "agent's memory with 10,000 edges";
    Outcome::new(name, full.resident, "MB", Goal::AtMost(40.0))
        .with("anonymous", full.anonymous)
        .with("file", full.file)
        .with("with_few_edges", few.resident)
        .with("with_few_edges_anonymous", few.anonymous)
        .with("after_a_report", after_report.resident)
        .with("highest", after_report.highest)
        .print();
    Ok(())
}
