//! What applications notice: their times at a steady rate and their throughput in closed loops,
//! with the agent over without.
//!
//! Four nodes take turns of a moment, each with a client and a server: one that an agent watches,
//! one with programs that do nothing in the places of the agent's, which is what the kernel takes
//! for calling any, one with the least that a flow counter can do, and one with neither. All are
//! there all the time, so that what else happens on the machine happens to all; their order changes
//! with each turn, and in the end each was watched. The number is the middle of the turns' ratios.
//! What the agent's own process takes meanwhile all notice, and `cost` measures by itself.

use anyhow::anyhow;
use parapet::kernel::measure::{StandIn, StandIns};
use support::agent::Agent;

use crate::load::{Closed, Done, Load, Work};
use crate::outcome::{Goal, Outcome, median, number};
use crate::pods::{self, Pods, Seen};

/// Turns with the same node watched. Then the next one is: nodes are not quite alike.
const TURNS: usize = 40;
const PER_SECOND: u64 = 5_000;
/// Connections at a steady rate in one node's part of a turn.
const COUNT: u64 = 500;
/// How long each closed loop runs there.
const CLOSED_MS: u64 = 50;

/// A node's client, and what there is for it.
struct Place {
    client: Load,
    work: [Work; 4],
    _server: Load,
    pods: Pods,
}

/// One node's part of a turn.
#[derive(Default)]
struct Part {
    steady: Done,
    tcp_rr: Done,
    tcp_crr: Done,
    udp_rr: Done,
}

/// The parts of the nodes, in the order of these.
type Turn = [Part; PLACES];
const PLACES: usize = 4;
const WATCHED: usize = 0;
const EMPTY: usize = 1;
const FLOOR: usize = 2;
const NEITHER: usize = 3;

pub(crate) fn measure() -> anyhow::Result<()> {
    let mut places = [Place::start()?, Place::start()?, Place::start()?, Place::start()?];
    let mut turns = Vec::new();
    for _ in 0..places.len() {
        turns.extend(take_turns(&mut places)?);
        places.rotate_left(1);
    }
    let kept = turns.iter().filter(|turn| {
        [&turn[WATCHED], &turn[NEITHER]]
            .iter()
            .all(|part| part.steady.per_second() > 0.95 * number(PER_SECOND))
    });
    let note = (kept.count() * 10 < turns.len() * 9).then_some("the machine did not keep the rate");
    let p50 = |part: &Part| part.steady.p50_us;
    let p99 = |part: &Part| part.steady.p99_us;
    report("application's p50 at 5,000/s", &turns, p50, "us", Goal::AtMost(1.05), note);
    report("application's p99 at 5,000/s", &turns, p99, "us", Goal::AtMost(1.10), note);
    let tcp_rr = |part: &Part| part.tcp_rr.per_second();
    let tcp_crr = |part: &Part| part.tcp_crr.per_second();
    let udp_rr = |part: &Part| part.udp_rr.per_second();
    report("TCP_RR in a closed loop", &turns, tcp_rr, "per_second", Goal::AtLeast(0.97), None);
    report("TCP_CRR in a closed loop", &turns, tcp_crr, "per_second", Goal::AtLeast(0.95), None);
    report("UDP_RR in a closed loop", &turns, udp_rr, "per_second", Goal::AtLeast(0.97), None);
    Ok(())
}

impl Place {
    fn start() -> anyhow::Result<Self> {
        let pods = Pods::start()?;
        let server = pods.serve()?;
        let client = Load::start(&pods.client, Work::Obey)?;
        let targets = pods.targets();
        let closed = |kind| Work::Closed { kind, targets: targets.clone(), ms: CLOSED_MS };
        let steady =
            Work::Connections { targets: targets.clone(), per_second: PER_SECOND, count: COUNT };
        let work = [steady, closed(Closed::TcpRr), closed(Closed::TcpCrr), closed(Closed::UdpRr)];
        Ok(Self { client, work, _server: server, pods })
    }

    fn part(&mut self) -> anyhow::Result<Part> {
        let [steady, tcp_rr, tcp_crr, udp_rr] = &self.work;
        Ok(Part {
            steady: self.client.order(steady)?,
            tcp_rr: self.client.order(tcp_rr)?,
            tcp_crr: self.client.order(tcp_crr)?,
            udp_rr: self.client.order(udp_rr)?,
        })
    }
}

/// Turns with the first place watched and others' programs in the next two.
fn take_turns(places: &mut [Place; PLACES]) -> anyhow::Result<Vec<Turn>> {
    let agent = places[WATCHED].pods.agent_of_flows()?;
    let stand_in = |place: usize, what| {
        let root = places[place].pods.node.cgroup_root();
        StandIns::of_packets(root, what).map_err(|error| anyhow!(error))
    };
    let _stand_ins = [stand_in(EMPTY, StandIn::Empty)?, stand_in(FLOOR, StandIn::Floor)?];
    let mut turns = Vec::new();
    // The first one only warms.
    for number in 0..=TURNS {
        let mut turn = Turn::default();
        for place in order(number) {
            turn[place] = places[place].part()?;
        }
        turns.push(turn);
    }
    check(&agent, &places[WATCHED], &turns)?;
    agent.stop()?;
    turns.remove(0);
    Ok(turns)
}

/// Each place is first, second and so on as often as any other.
fn order(number: usize) -> [usize; PLACES] {
    let mut order = [WATCHED, EMPTY, FLOOR, NEITHER];
    order.rotate_left(number % PLACES);
    if number / PLACES % 2 == 1 {
        order.reverse();
    }
    order
}

/// What the agent counted is what its node's client did. One connection, and one pair of UDP
/// sockets, was used for all that went over it in a part.
fn check(agent: &Agent, watched: &Place, turns: &[Turn]) -> anyhow::Result<()> {
    let parts = turns.iter().map(|turn| &turn[WATCHED]);
    let tcp = parts.map(|part| part.steady.count + part.tcp_crr.count + 1).sum();
    let udp = u64::try_from(turns.len())?;
    let edges = u64::try_from(watched.pods.targets().len())? + 1;
    pods::check(agent, Seen { tcp, udp, edges, lost: 0 })
}

fn report(
    name: &str,
    turns: &[Turn],
    of: impl Fn(&Part) -> f64,
    unit: &str,
    goal: Goal,
    note: Option<&'static str>,
) {
    let all = |place: usize| turns.iter().map(|turn| of(&turn[place])).collect::<Vec<_>>();
    let neither = all(NEITHER);
    let over = |place: usize| -> Vec<f64> {
        all(place).iter().zip(&neither).map(|(with, without)| with / without).collect()
    };
    let mut ratios = over(WATCHED);
    let value = median(ratios.iter().copied());
    ratios.sort_unstable_by(f64::total_cmp);
    let at = |quarter: usize| ratios.get(ratios.len() * quarter / 4).copied().unwrap_or(0.0);
    let with_empty = median(over(EMPTY));
    let note = note.or((!goal.is_met_by(with_empty)).then_some("programs that do nothing miss it"));
    Outcome::new(name, value, "with the agent over without", goal)
        .noting(note)
        .with(&format!("with_{unit}"), median(all(WATCHED)))
        .with(&format!("without_{unit}"), median(neither.iter().copied()))
        .with("with_empty_programs", with_empty)
        .with("with_floor_programs", median(over(FLOOR)))
        .with("quarter_below", at(1))
        .with("quarter_above", at(3))
        .with("turns", number(turns.len() as u64))
        .print();
}
