//! What runs inside of each stock kernel: the guest program, and under other names the processes of
//! its pods and the agent itself.
//!
//! In: a fresh machine with /proc, /sys, cgroup2, bpffs, lo and modules to load. Out: one line of
//! JSON for each module, program, flow and edge on stdout, marked so that the kernel's own words on
//! the same console cannot be mistaken for them. It judges nothing: what is to be expected of a
//! kernel is known outside.

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context as _, ensure};
use parapet::kernel::verified::{self, Verified};
use parapet::kernel::{KernelConfig, PINS_DEFAULT, ProbeStatus, Sensor};
use parapet_core::flow::Protocol;
use parapet_core::record::{Counts, FlowRecord, Record};
use support::agent::Agent;
use support::report::Report;
use support::{cgroup, namespace};

use crate::pods::World;
use crate::report::{EdgeLine, FLOWS, FlowKey, FlowLine, Line, ProgramLine};

mod ipvs;
mod modules;
mod pods;
mod report;
mod secrets;
mod sockets;

/// How long the counters may take to reach what was sent; then they are reported as they are.
const SETTLE_MAX: Duration = Duration::from_secs(10);
/// Nothing is read twice: what comes late would still be seen.
const SETTLED: Duration = Duration::from_millis(400);
/// The emulated verifier takes its time: see tests/kernels/machine.rs.
const AGENT_TIME_MAX: Duration = Duration::from_secs(200);
/// Longer than the agent needs between a packet and its report.
const REPORT_SETTLED: Duration = Duration::from_millis(1500);

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("run") {
        return parapet::cli::main();
    }
    if let Some(code) = support::traffic::perform_if_told() {
        return code;
    }
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
    for module in modules::load()? {
        say(&Line::Module(module));
    }
    let mut world = World::open().context("the simulated node")?;
    // As an agent on the host network; what it starts is there too.
    namespace::enter(world.node.network().path())?;
    let counted = verified::count_runs().map_err(anyhow::Error::msg)?;
    let sensor = first_agent(&mut world)?;
    let mut programs = verified::programs(&sensor);
    let mut probes = sensor.probes().to_vec();
    // Its programs stay, and go on counting.
    drop(sensor);
    let secrets = secrets::perform(&world).context("secret files")?;
    for line in secrets.lines {
        say(&Line::Secret(line));
    }
    // These tell of every rung, and the sensor only of its own.
    programs.retain(|program| !program.program.starts_with("secret_"));
    programs.extend(secrets.programs);
    probes.retain(|probe| !probe.probe.starts_with("secret_"));
    probes.extend(secrets.probes);
    drop(counted);
    world.ask_backend().context("between two agents")?;
    for line in second_agent(&world)? {
        say(&Line::Edge(line));
    }
    parapet::kernel::cleanup(Path::new(PINS_DEFAULT)).map_err(anyhow::Error::msg)?;
    // The log is only asked for with nothing else of ours in the kernel.
    let by_log = if programs.iter().any(|one| one.loaded && one.instructions.is_none()) {
        verified::instructions_by_log().map_err(anyhow::Error::msg)?
    } else {
        Vec::new()
    };
    for program in programs {
        say(&Line::Program(program_line(program, &probes, &by_log)));
    }
    // Whoever is on the node ends with it.
    cgroup::join(&cgroup::mount_point()?, 0)
}

/// Loads the programs and tells what they counted of every protocol.
fn first_agent(world: &mut World) -> anyhow::Result<Sensor> {
    let root = world.node.cgroup_root().to_owned();
    let mut sensor = Sensor::load(&KernelConfig {
        cgroup_root: root.clone(),
        cgroup_prefix: format!("/{}", root.strip_prefix(cgroup::mount_point()?)?.display()),
        pin_root: Some(PINS_DEFAULT.into()),
        ..KernelConfig::default()
    })?;
    let gone = root.join("gone");
    fs::create_dir(&gone)?;
    fs::remove_dir(&gone)?;
    let home = root.join("guest");
    cgroup::create(&home)?;
    cgroup::join(&home, 0)?;
    world.serve().context("the backends")?;
    sockets::perform().context("traffic of the guest")?;
    world.track(true)?;
    world.ask_services().context("traffic of a pod")?;
    let mut names = HashMap::from([(cgroup::id(&home)?, "guest")]);
    for (name, pod) in world.pods() {
        names.insert(cgroup::id(&pod.cgroup)?, name);
    }
    for line in flows(&mut sensor, &names) {
        say(&Line::Flow(line));
    }
    Ok(sensor)
}

/// Has the agent take over what the first one pinned, and returns what it reports of pods.
fn second_agent(world: &World) -> anyhow::Result<Vec<EdgeLine>> {
    let agent = Agent::launch(&std::env::current_exe()?, &world.node, &[])?;
    let since = Instant::now();
    while !agent.get("/readyz").is_ok_and(|answer| answer.status == 200) {
        ensure!(since.elapsed() < AGENT_TIME_MAX, "the agent is not ready: {}", agent.log());
        thread::sleep(Duration::from_millis(100));
    }
    world.ask_tracked().context("with connection tracking")?;
    world.track(false)?;
    world.ask_untracked().context("without connection tracking")?;
    let mut last = edges(&agent.report()?);
    let mut changed = Instant::now();
    while changed.elapsed() < REPORT_SETTLED {
        thread::sleep(Duration::from_millis(200));
        let now = edges(&agent.report()?);
        if now != last {
            (last, changed) = (now, Instant::now());
        }
    }
    agent.stop()?;
    Ok(last)
}

/// Those with a pod or a Service, sorted.
fn edges(report: &Report) -> Vec<EdgeLine> {
    let of_pods = report
        .edges
        .iter()
        .filter(|edge| edge.source.namespace.is_some() || edge.target.namespace.is_some());
    let mut lines: Vec<_> = of_pods
        .map(|edge| EdgeLine {
            edge: edge.shown(),
            ended: edge.ended().into_iter().map(|(word, count)| (word.to_owned(), count)).collect(),
        })
        .collect();
    lines.sort();
    lines
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

/// The counts of these cgroups, once there are as many flows as were made and they rest.
fn flows(sensor: &mut Sensor, names: &HashMap<u64, &str>) -> Vec<FlowLine> {
    let mut flows: BTreeMap<FlowKey, FlowLine> = BTreeMap::new();
    let started = Instant::now();
    let mut changed = Instant::now();
    while started.elapsed() < SETTLE_MAX && (flows.len() < FLOWS || changed.elapsed() < SETTLED) {
        for record in sensor.read_now() {
            match record {
                Record::Flow(flow) => {
                    let Some(who) = names.get(&flow.cgroup_id) else { continue };
                    changed = Instant::now();
                    let key = key(who, &flow);
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

fn key(who: &str, flow: &FlowRecord) -> FlowKey {
    FlowKey {
        who: who.to_owned(),
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
    if ![Protocol::TCP.0, Protocol::SCTP.0].contains(&line.key.protocol) {
        line.sent_packets += counts.sent_packets;
        line.received_packets += counts.received_packets;
    }
}
