//! What following secret files costs: applications that open other files, with the agent over
//! without, and the processor time of one secret open over opensnoop's.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use parapet::kernel::measure::StandIns;
use parapet::kernel::{KernelConfig, check};
use support::cgroup;
use support::node::Node;

use crate::load::{Done, Load, Work};
use crate::outcome::{Goal, Outcome, median, number};
use crate::pods::{self, Pods};
use crate::usage;

const TURNS: usize = 11;
/// Opens of a file that is no secret.
const ELSEWHERE_PER_SECOND: u64 = 50_000;
const ELSEWHERE: u64 = 50_000;
/// Opens of a secret one.
const SECRET_PER_SECOND: u64 = 5_000;
const SECRET: u64 = 30_000;
/// Until the last opens are read by both.
const SETTLE: Duration = Duration::from_secs(2);

pub(crate) fn measure() -> anyhow::Result<()> {
    let pods = Pods::start()?;
    let file = pods.node.folder().join("no-secret");
    std::fs::write(&file, "nothing that anybody must not know")?;
    elsewhere(&pods, &file)?;
    secret(&pods)
}

/// What is there while other files are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum There {
    Agent,
    /// A program that does nothing at the end of system calls: what the kernel takes for that on
    /// machines where nothing better can be had.
    Empty,
    Nothing,
}

const ALL: [There; 3] = [There::Agent, There::Nothing, There::Empty];

fn elsewhere(pods: &Pods, file: &Path) -> anyhow::Result<()> {
    third(pods, file, There::Nothing)?;
    let (mut times, mut used) = (ALL.map(|_| Vec::new()), Vec::new());
    for turn in 0..TURNS {
        for place in 0..ALL.len() {
            // Another one first in each turn.
            let place = (place + turn) % ALL.len();
            let (done, cpu) = third(pods, file, ALL[place])?;
            times[place].push(done.p50_us);
            if ALL[place] == There::Agent {
                used.push(cpu.as_secs_f64() / done.seconds * 100.0);
            }
        }
    }
    let [with, without, empty] = times;
    let over = |of: &[f64]| -> Vec<f64> { of.iter().zip(&without).map(|(a, b)| a / b).collect() };
    let ratios = over(&with);
    let spread = |pick: fn(f64, f64) -> f64| ratios.iter().copied().reduce(pick).unwrap_or(0.0);
    let (from, to) = (spread(f64::min), spread(f64::max));
    let name = "p50 of opening other files at 50,000/s";
    Outcome::new(
        name,
        median(ratios.iter().copied()),
        "with the agent over without",
        Goal::AtMost(1.05),
    )
    .with("hook", format!("{:?}", check(&KernelConfig::default()).1))
    .with("with_us", median(with))
    .with("with_an_empty_program_at_system_calls", median(over(&empty)))
    .with("without_us", median(without.iter().copied()))
    .with("ratios_from", from)
    .with("ratios_to", to)
    .print();
    let name = "agent's own processor time meanwhile";
    Outcome::new(name, median(used), "% of a core", Goal::AtMost(0.5)).print();
    Ok(())
}

/// What the agent itself used comes out, too.
fn third(pods: &Pods, file: &Path, there: There) -> anyhow::Result<(Done, Duration)> {
    let agent = (there == There::Agent).then(|| pods.agent()).transpose()?;
    let empty = (there == There::Empty).then(StandIns::of_system_calls).transpose();
    let _empty = empty.map_err(|error| anyhow!(error))?;
    let pid = agent.as_ref().map(|agent| agent.pid());
    if agent.is_some() {
        // What starting costs is no following.
        thread::sleep(Duration::from_secs(1));
    }
    let cpu = |pid: Option<u32>| pid.map_or(Ok(Duration::ZERO), usage::cpu);
    let before = cpu(pid)?;
    let (file, per_second) = (file.to_owned(), ELSEWHERE_PER_SECOND);
    let done = Load::run(&pods.client, Work::Opens { file, per_second, count: ELSEWHERE })?;
    let used = cpu(pid)?.saturating_sub(before);
    if let Some(agent) = agent {
        agent.stop()?;
    }
    Ok((done, used))
}

fn secret(pods: &Pods) -> anyhow::Result<()> {
    let agent = pods.agent()?;
    let snoop = Opensnoop::start(&pods.node)?;
    let _statistics =
        parapet::kernel::measure::statistics().map_err(|error| anyhow!("statistics: {error}"))?;
    let file = pods.secret_file();
    let all = |pid: u32| anyhow::Ok([usage::cpu(pid)?, usage::programs(pid)?]);
    let before = [all(agent.pid())?, all(snoop.child.id())?];
    let work = Work::Opens { file, per_second: SECRET_PER_SECOND, count: SECRET };
    let done = Load::run(&pods.client, work)?;
    thread::sleep(SETTLE);
    let after = [all(agent.pid())?, all(snoop.child.id())?];
    pods::check_opens(&agent, SECRET)?;
    let us = |who: usize, what: usize| {
        after[who][what].saturating_sub(before[who][what]).as_secs_f64() * 1e6 / number(SECRET)
    };
    let (own, other) = (us(0, 0) + us(0, 1), us(1, 0) + us(1, 1));
    ensure!(other > 0.0, "opensnoop did nothing");
    let note = (done.per_second() < 0.95 * number(SECRET_PER_SECOND))
        .then_some("the machine did not keep the rate");
    let name = "processor time of a secret open at 5,000/s, programs included";
    Outcome::new(name, own / other, "times opensnoop's", Goal::AtMost(0.3))
        .noting(note)
        .with("agent_us", us(0, 0))
        .with("programs_us", us(0, 1))
        .with("opensnoop_us", us(1, 0))
        .with("opensnoop_programs_us", us(1, 1))
        .with("opens", SECRET)
        .print();
    Ok(())
}

/// A running opensnoop of Debian's libbpf-tools, which finds its tracepoints in a tracefs of its
/// own. Dropping it kills it.
struct Opensnoop {
    child: Child,
}

impl Opensnoop {
    fn start(node: &Node) -> anyhow::Result<Self> {
        let log = node.folder().join("opensnoop.log");
        let out = std::fs::File::create(&log)?;
        let script = "mount -t tracefs none /sys/kernel/tracing && exec opensnoop";
        let child = Command::new("unshare")
            .args(["--mount", "sh", "-c", script])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(out)
            .spawn()
            .context("cannot start opensnoop (`cargo xtask setup` installs it)")?;
        let mut snoop = Self { child };
        cgroup::join(&node.side_cgroup()?, snoop.child.id())?;
        thread::sleep(Duration::from_secs(1));
        if let Some(status) = snoop.child.try_wait()? {
            bail!("opensnoop ended with {status}: {}", said(&log));
        }
        Ok(snoop)
    }
}

fn said(log: &PathBuf) -> String {
    std::fs::read_to_string(log).unwrap_or_default()
}

impl Drop for Opensnoop {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
