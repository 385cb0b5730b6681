//! What the packet programs cost, over an empty program and over the least a counter can do.
//!
//! In: nothing. Out: ratios of nanoseconds a run, as the kernel counts them. All programs see the
//! same packets, so each round has its own floor. Hot is one edge over and over while the others
//! are in the tables; cold is all of them in turn.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use parapet::kernel::measure::{Counted, Measured, PROGRAMS, RunTime};
use support::network::Family;

use crate::outcome::{Goal, Outcome, median, number};
use crate::place::Place;
use crate::sockets::Kind;

const UNIT: &str = "times the floor";
const GOAL: Goal = Goal::AtMost(1.5);
const KINDS: [(Kind, Family, &str); 5] = [
    (Kind::Tcp, Family::V4, "tcp4"),
    (Kind::Tcp, Family::V6, "tcp6"),
    (Kind::Udp, Family::V4, "udp4"),
    (Kind::Udp, Family::V6, "udp6"),
    (Kind::Sendto, Family::V4, "udp4 by sendto"),
];
const EDGES: [u32; 3] = [64, 10_000, 100_000];
/// Room in the flow table, for the most edges.
const FLOWS_MAX: u32 = 1 << 17;
/// Packets of one round in one direction, or one for each edge if they are more.
const PACKETS: u32 = 20_000;
const ROUNDS: usize = 5;
/// Where in [`PROGRAMS`] they are.
const EMPTY: usize = 0;
const FLOOR: usize = 1;
const SENT: usize = 2;
const RECEIVED: usize = 3;

/// Nanoseconds a run of each program, in one round.
type Round = [f64; PROGRAMS.len()];

pub(crate) fn measure() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut worst = 0.0;
    for edges in EDGES {
        for (kind, family, name) in KINDS {
            // One socket may have a share of the pair table only.
            if kind == Kind::Sendto && edges > 10_000 {
                continue;
            }
            let name = format!("{name}, {edges} edges");
            let ratio =
                hot_and_cold(&place, kind, family, edges, &name).with_context(|| name.clone())?;
            worst = f64::max(worst, ratio);
        }
    }
    Outcome::new("packet programs, the dearest of all these", worst, UNIT, GOAL).print();
    Ok(())
}

/// Both ways over the same sockets and the same full tables. The higher ratio comes out.
fn hot_and_cold(
    place: &Place,
    kind: Kind,
    family: Family,
    edges: u32,
    name: &str,
) -> anyhow::Result<f64> {
    let mut measured =
        Measured::attach(place.measured(), FLOWS_MAX).map_err(|error| anyhow!(error))?;
    let mut sockets = place.open(kind, family, edges)?;
    sockets.sweep()?;
    let cold =
        rounds(&mut measured, || (0..PACKETS.div_ceil(edges)).try_for_each(|_| sockets.sweep()))?;
    let cold = report(&format!("{name}, cold"), &cold);
    let hot = rounds(&mut measured, || sockets.hot(PACKETS))?;
    let hot = report(&format!("{name}, hot"), &hot);
    check(&mut measured, edges)?;
    Ok(cold.max(hot))
}

fn rounds(
    measured: &mut Measured,
    mut traffic: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Vec<Round>> {
    let mut times = || measured.run_times().map_err(|error| anyhow!(error));
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let before = times()?;
        traffic()?;
        let after = times()?;
        let mut round = Round::default();
        for (ns, (before, after)) in round.iter_mut().zip(before.iter().zip(&after)) {
            *ns = RunTime::ns_a_run_since(after, before);
        }
        rounds.push(round);
    }
    Ok(rounds)
}

/// Every packet that the programs saw is in a flow, and every edge has one.
fn check(measured: &mut Measured, edges: u32) -> anyhow::Result<()> {
    // A last ACK is delayed by as much as 200 ms (`TCP_DELACK_MAX`).
    thread::sleep(Duration::from_millis(300));
    let times = measured.run_times().map_err(|error| anyhow!(error))?;
    let expected = Counted {
        flows: u64::from(edges),
        sent_packets: times[SENT].runs,
        received_packets: times[RECEIVED].runs,
        lost: 0,
    };
    let counted = measured.counted();
    ensure!(counted == expected, "counted {counted:?}, and not {expected:?}");
    Ok(())
}

/// The higher of the programs' ratios comes out.
fn report(name: &str, rounds: &[Round]) -> f64 {
    let mut highest = 0.0;
    let middle = |of: &dyn Fn(&Round) -> f64| median(rounds.iter().map(of));
    for program in [SENT, RECEIVED] {
        if rounds.iter().all(|round| round[program] == 0.0) {
            continue;
        }
        let ratio = middle(&|round| round[program] / round[FLOOR]);
        highest = f64::max(highest, ratio);
        let name = format!("{}: {name}", PROGRAMS[program]);
        Outcome::new(name, ratio, UNIT, GOAL)
            .with("over_empty", middle(&|round| round[program] / round[EMPTY]))
            .with("ns_a_run", middle(&|round| round[program]))
            .with("floor_ns_a_run", middle(&|round| round[FLOOR]))
            .with("rounds", number(rounds.len() as u64))
            .print();
    }
    highest
}
