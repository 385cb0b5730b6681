//! What applications notice: their times at a steady rate and their throughput in closed loops,
//! with the agent over without.
//!
//! Both take turns, and who begins changes with each turn. Without means that no agent is there and
//! none of its programs is loaded. The number is the middle of the turns' ratios.

use crate::load::{Closed, Done, Load, Work};
use crate::outcome::{Goal, Outcome, median, number};
use crate::pods::{self, Pods, Seen};

const TURNS: usize = 11;
const PER_SECOND: u64 = 5_000;
/// Connections at a steady rate in one half of a turn.
const COUNT: u64 = 6_000;
/// How long each closed loop runs in one half of a turn.
const CLOSED_MS: u64 = 600;

/// One half of a turn.
struct Half {
    steady: Done,
    tcp_rr: Done,
    tcp_crr: Done,
    udp_rr: Done,
}

pub(crate) fn measure() -> anyhow::Result<()> {
    let pods = Pods::start()?;
    half(&pods, false)?;
    let mut turns = Vec::new();
    for turn in 0..TURNS {
        let with_first = turn % 2 == 0;
        let first = half(&pods, with_first)?;
        let second = half(&pods, !with_first)?;
        turns.push(if with_first { (first, second) } else { (second, first) });
    }
    let kept = turns.iter().all(|(with, without)| {
        [with, without].iter().all(|half| half.steady.per_second() > 0.95 * number(PER_SECOND))
    });
    let note = (!kept).then_some("the machine did not keep the rate");
    let p50 = |half: &Half| half.steady.p50_us;
    let p99 = |half: &Half| half.steady.p99_us;
    report("application's p50 at 5,000/s", &turns, p50, "us", Goal::AtMost(1.05), note);
    report("application's p99 at 5,000/s", &turns, p99, "us", Goal::AtMost(1.10), note);
    let tcp_rr = |half: &Half| half.tcp_rr.per_second();
    let tcp_crr = |half: &Half| half.tcp_crr.per_second();
    let udp_rr = |half: &Half| half.udp_rr.per_second();
    report("TCP_RR in a closed loop", &turns, tcp_rr, "per_second", Goal::AtLeast(0.97), None);
    report("TCP_CRR in a closed loop", &turns, tcp_crr, "per_second", Goal::AtLeast(0.95), None);
    report("UDP_RR in a closed loop", &turns, udp_rr, "per_second", Goal::AtLeast(0.97), None);
    Ok(())
}

fn half(pods: &Pods, with_agent: bool) -> anyhow::Result<Half> {
    let agent = with_agent.then(|| pods.agent()).transpose()?;
    let server = pods.serve()?;
    let targets = pods.targets();
    let closed = |kind| {
        Load::run(&pods.client, Work::Closed { kind, targets: targets.clone(), ms: CLOSED_MS })
    };
    let steady =
        Work::Connections { targets: targets.clone(), per_second: PER_SECOND, count: COUNT };
    let half = Half {
        steady: Load::run(&pods.client, steady)?,
        tcp_rr: closed(Closed::TcpRr)?,
        tcp_crr: closed(Closed::TcpCrr)?,
        udp_rr: closed(Closed::UdpRr)?,
    };
    drop(server);
    if let Some(agent) = agent {
        // One connection and one pair of UDP sockets were used for all that went over them.
        let tcp = half.steady.count + half.tcp_crr.count + 1;
        let edges = u64::try_from(targets.len())? + 1;
        pods::check(&agent, Seen { tcp, udp: 1, edges, lost: 0 })?;
        agent.stop()?;
    }
    Ok(half)
}

fn report(
    name: &str,
    turns: &[(Half, Half)],
    of: impl Fn(&Half) -> f64,
    unit: &str,
    goal: Goal,
    note: Option<&'static str>,
) {
    let ratio = |(with, without): &(Half, Half)| of(with) / of(without);
    let ratios: Vec<f64> = turns.iter().map(ratio).collect();
    let spread = |pick: fn(f64, f64) -> f64| ratios.iter().copied().reduce(pick).unwrap_or(0.0);
    Outcome::new(name, median(ratios.iter().copied()), "with the agent over without", goal)
        .noting(note)
        .with(&format!("with_{unit}"), median(turns.iter().map(|(with, _)| of(with))))
        .with(&format!("without_{unit}"), median(turns.iter().map(|(_, without)| of(without))))
        .with("ratios_from", spread(f64::min))
        .with("ratios_to", spread(f64::max))
        .with("turns", number(turns.len() as u64))
        .print();
}
