//! What applications notice: their times at a steady rate and their throughput in closed loops,
//! with the agent over without.
//!
//! All take turns, and who begins changes with each turn. Without means that no agent is there and
//! none of its programs is loaded; empty that programs which do nothing are in their places, which
//! is what the kernel takes for calling any. The number is the middle of the turns' ratios.

use anyhow::{Context as _, anyhow};
use parapet::kernel::measure::EmptyHooks;

use crate::load::{Closed, Done, Load, Work};
use crate::outcome::{Goal, Outcome, median, number};
use crate::pods::{self, Pods, Seen};

const TURNS: usize = 11;
const PER_SECOND: u64 = 5_000;
/// Connections at a steady rate in one third of a turn.
const COUNT: u64 = 6_000;
/// How long each closed loop runs in one third of a turn.
const CLOSED_MS: u64 = 600;

/// One of the three in a turn.
struct Third {
    steady: Done,
    tcp_rr: Done,
    tcp_crr: Done,
    udp_rr: Done,
}

/// What is there while applications are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum There {
    Agent,
    Empty,
    Nothing,
}

/// What one turn measured.
struct Turn {
    agent: Third,
    empty: Third,
    nothing: Third,
}

pub(crate) fn measure() -> anyhow::Result<()> {
    let pods = Pods::start()?;
    third(&pods, There::Nothing)?;
    let turns: Vec<Turn> =
        (0..TURNS).map(|number| turn(&pods, number)).collect::<Result<_, _>>()?;
    let kept = turns.iter().all(|turn| {
        [&turn.agent, &turn.nothing]
            .iter()
            .all(|third| third.steady.per_second() > 0.95 * number(PER_SECOND))
    });
    let note = (!kept).then_some("the machine did not keep the rate");
    let p50 = |third: &Third| third.steady.p50_us;
    let p99 = |third: &Third| third.steady.p99_us;
    report("application's p50 at 5,000/s", &turns, p50, "us", Goal::AtMost(1.05), note);
    report("application's p99 at 5,000/s", &turns, p99, "us", Goal::AtMost(1.10), note);
    let tcp_rr = |third: &Third| third.tcp_rr.per_second();
    let tcp_crr = |third: &Third| third.tcp_crr.per_second();
    let udp_rr = |third: &Third| third.udp_rr.per_second();
    report("TCP_RR in a closed loop", &turns, tcp_rr, "per_second", Goal::AtLeast(0.97), None);
    report("TCP_CRR in a closed loop", &turns, tcp_crr, "per_second", Goal::AtLeast(0.95), None);
    report("UDP_RR in a closed loop", &turns, udp_rr, "per_second", Goal::AtLeast(0.97), None);
    Ok(())
}

/// All three, another one first in each turn.
fn turn(pods: &Pods, number: usize) -> anyhow::Result<Turn> {
    let mut order = [There::Agent, There::Nothing, There::Empty];
    order.rotate_left(number % 3);
    let (mut agent, mut empty, mut nothing) = (None, None, None);
    for there in order {
        let measured = Some(third(pods, there)?);
        match there {
            There::Agent => agent = measured,
            There::Empty => empty = measured,
            There::Nothing => nothing = measured,
        }
    }
    let all = agent.zip(empty).zip(nothing).context("a turn without all three")?;
    let ((agent, empty), nothing) = all;
    Ok(Turn { agent, empty, nothing })
}

fn third(pods: &Pods, there: There) -> anyhow::Result<Third> {
    let agent = (there == There::Agent).then(|| pods.agent_of_flows()).transpose()?;
    let empty = (there == There::Empty).then(|| EmptyHooks::of_packets(pods.node.cgroup_root()));
    let _empty = empty.transpose().map_err(|error| anyhow!(error))?;
    let server = pods.serve()?;
    let targets = pods.targets();
    let closed = |kind| {
        Load::run(&pods.client, Work::Closed { kind, targets: targets.clone(), ms: CLOSED_MS })
    };
    let steady =
        Work::Connections { targets: targets.clone(), per_second: PER_SECOND, count: COUNT };
    let third = Third {
        steady: Load::run(&pods.client, steady)?,
        tcp_rr: closed(Closed::TcpRr)?,
        tcp_crr: closed(Closed::TcpCrr)?,
        udp_rr: closed(Closed::UdpRr)?,
    };
    drop(server);
    if let Some(agent) = agent {
        // One connection and one pair of UDP sockets were used for all that went over them.
        let tcp = third.steady.count + third.tcp_crr.count + 1;
        let edges = u64::try_from(targets.len())? + 1;
        pods::check(&agent, Seen { tcp, udp: 1, edges, lost: 0 })?;
        agent.stop()?;
    }
    Ok(third)
}

fn report(
    name: &str,
    turns: &[Turn],
    of: impl Fn(&Third) -> f64,
    unit: &str,
    goal: Goal,
    note: Option<&'static str>,
) {
    let over = |of_turn: fn(&Turn) -> &Third| -> Vec<f64> {
        turns.iter().map(|turn| of(of_turn(turn)) / of(&turn.nothing)).collect()
    };
    let ratios = over(|turn| &turn.agent);
    let spread = |pick: fn(f64, f64) -> f64| ratios.iter().copied().reduce(pick).unwrap_or(0.0);
    Outcome::new(name, median(ratios.iter().copied()), "with the agent over without", goal)
        .noting(note)
        .with(&format!("with_{unit}"), median(turns.iter().map(|turn| of(&turn.agent))))
        .with(&format!("without_{unit}"), median(turns.iter().map(|turn| of(&turn.nothing))))
        .with("with_empty_programs", median(over(|turn| &turn.empty)))
        .with("ratios_from", spread(f64::min))
        .with("ratios_to", spread(f64::max))
        .with("turns", number(turns.len() as u64))
        .print();
}
