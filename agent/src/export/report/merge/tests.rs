//! Reports of nodes as one: by example, and in any order.

use parapet_core::flow::{Outcome, Workload};
use parapet_core::verdict::{Profile, Reason, SideVerdict};
use proptest::prelude::*;

use super::*;
use crate::export::report::NameRow;

fn pod(name: &str) -> EndRow {
    let workload = Workload { kind: "Deployment".into(), name: name.into() };
    EndRow::Pod { namespace: "shop".to_owned(), workload }
}

fn side(decision: Decision) -> SideVerdict {
    let reason = match decision {
        Decision::Denied => Reason::NoRuleMatched,
        _ => Reason::NotIsolated,
    };
    SideVerdict { decision, reason, tier: None, effects: Vec::new() }
}

fn verdict(egress: Decision, ingress: Decision) -> Verdict {
    Verdict {
        decision: Decision::of_both(egress, ingress),
        profile: Profile::Common,
        egress: side(egress),
        ingress: side(ingress),
    }
}

/// An edge of web to api with so many attempts, of which one was refused.
fn edge(direction: Direction, attempts: u64) -> EdgeRow {
    let refused = attempts.min(1);
    let answered = attempts - refused;
    let counts = Counts {
        attempts,
        answered,
        refused,
        sent_packets: 2 * attempts,
        handshake_ns: 3_000 * answered,
        ..Counts::default()
    };
    EdgeRow {
        direction: Some(direction),
        protocol: "TCP".to_owned(),
        target_port: 80,
        source: pod("web"),
        target: pod("api"),
        source_rewritten: None,
        counts,
        outcomes: [(Outcome::Answered, answered), (Outcome::Refused, refused)].into(),
        open: 0,
        refusals: [(Refusal::Reset, refused)].into_iter().filter(|(_, count)| *count > 0).collect(),
        handshake_us_mean: super::super::mean_us(Some(direction), &counts),
        first_seen: "2026-11-23T10:00:01.000Z".to_owned(),
        last_seen: "2026-11-23T10:00:02.000Z".to_owned(),
        verdicts: BTreeMap::new(),
        deltas: BTreeMap::new(),
        newly_isolated: BTreeMap::new(),
        seen: Vec::new(),
    }
}

/// With what `enforced` and the candidate `new` say.
fn judged(mut row: EdgeRow, enforced: Verdict, new: Verdict) -> EdgeRow {
    let delta = Delta::between(enforced.decision, new.decision);
    row.deltas.insert("new".to_owned(), delta);
    row.verdicts = [(ENFORCED.to_owned(), enforced), ("new".to_owned(), new)].into();
    row
}

fn report(node: &str, edges: Vec<EdgeRow>) -> Report {
    Report {
        format: FORMAT,
        node: node.to_owned(),
        nodes: Vec::new(),
        at: "2026-11-23T10:00:03.000Z".to_owned(),
        newest_ns: 7,
        observing_since: "2026-11-23T10:00:00.000Z".to_owned(),
        synced: true,
        policy_sets: vec![ENFORCED.to_owned(), DEFAULT_DENY.to_owned()],
        edges,
        rejections: Vec::new(),
        notices: Vec::new(),
        lost: BTreeMap::new(),
        unattributed: Vec::new(),
        pending: 1,
        unjudged: 0,
        stale_since: String::new(),
        secrets: None,
    }
}

fn fleet(reports: impl IntoIterator<Item = Report>) -> Fleet {
    let mut fleet = Fleet::default();
    reports.into_iter().for_each(|report| fleet.add(report));
    fleet
}

fn seen(direction: Direction, attempts: u64, nodes: &[&str]) -> SeenRow {
    SeenRow {
        direction: Some(direction),
        attempts,
        nodes_total: nodes.len() as u64,
        nodes: nodes.iter().map(|node| (*node).to_owned()).collect(),
    }
}

#[test]
fn a_flow_between_two_nodes_counts_once_and_says_who_saw_it() {
    let merged = fleet([
        report("n1", vec![edge(Direction::Egress, 5)]),
        report("n2", vec![edge(Direction::Ingress, 5)]),
    ])
    .report();
    let both = vec![seen(Direction::Egress, 5, &["n1"]), seen(Direction::Ingress, 5, &["n2"])];
    assert_eq!(merged.edges, [EdgeRow { seen: both, ..edge(Direction::Egress, 5) }]);
    assert_eq!((merged.pending, merged.synced, merged.node), (2, true, String::new()));
    let row = |node: &str| NodeRow {
        node: node.to_owned(),
        problem: None,
        at: "2026-11-23T10:00:03.000Z".to_owned(),
        observing_since: "2026-11-23T10:00:00.000Z".to_owned(),
        synced: true,
        edges: 1,
    };
    assert_eq!(merged.nodes, [row("n1"), row("n2")]);
}

#[test]
fn replicas_on_many_nodes_are_one_edge_and_the_end_that_saw_more_is_shown() {
    let nodes = ["n1", "n2", "n3"];
    let sources = nodes.map(|node| report(node, vec![edge(Direction::Egress, 2)]));
    let target = report("n4", vec![edge(Direction::Ingress, 9)]);
    let all = fleet(sources.clone().into_iter().chain([target])).report();
    let [row] = all.edges.as_slice() else { panic!("{} edges", all.edges.len()) };
    assert_eq!((row.direction, row.counts.attempts), (Some(Direction::Ingress), 9));
    assert_eq!(row.seen_at().len(), 2);
    assert_eq!(row.seen_by_one(), Some("n4"));
    let sources = fleet(sources).report();
    let counts = Counts {
        attempts: 6,
        answered: 3,
        refused: 3,
        sent_packets: 12,
        handshake_ns: 9_000,
        ..Counts::default()
    };
    let wanted = EdgeRow {
        counts,
        outcomes: [(Outcome::Answered, 3), (Outcome::Refused, 3)].into(),
        refusals: [(Refusal::Reset, 3)].into(),
        handshake_us_mean: Some(3),
        seen: vec![seen(Direction::Egress, 6, &nodes)],
        ..edge(Direction::Egress, 2)
    };
    assert_eq!(sources.edges, [wanted]);
    assert_eq!(sources.edges[0].seen_by_one(), None);
}

#[test]
fn each_side_is_judged_where_it_is_known_and_disagreement_is_not_hidden() {
    use Decision::{Allowed, Denied, Exempt};
    // Only the target's node knows that nothing isolates the target.
    let one =
        judged(edge(Direction::Egress, 5), verdict(Allowed, Allowed), verdict(Allowed, Denied));
    let other =
        judged(edge(Direction::Ingress, 5), verdict(Exempt, Allowed), verdict(Exempt, Allowed));
    let merged = fleet([report("n1", vec![one]), report("n2", vec![other])]).report();
    assert_eq!(merged.edges[0].verdicts["new"], verdict(Allowed, Allowed));
    assert_eq!(merged.edges[0].deltas["new"], Delta::UnchangedAllowed);
    // Two sources, of which one is denied already and one newly.
    let before =
        judged(edge(Direction::Egress, 1), verdict(Denied, Allowed), verdict(Denied, Allowed));
    let newly =
        judged(edge(Direction::Egress, 1), verdict(Allowed, Allowed), verdict(Denied, Allowed));
    let merged = fleet([report("n1", vec![before]), report("n2", vec![newly])]).report();
    assert_eq!(merged.edges[0].deltas["new"], Delta::NewlyDenied);
    assert_eq!(merged.edges[0].verdicts["new"].decision, Denied);
}

#[test]
fn processes_of_a_node_stay_apart_and_are_not_counted_again_at_the_other_end() {
    let from = |unit: Option<&str>, direction, attempts| EdgeRow {
        source: EndRow::Node { name: "n1".to_owned(), cgroup: unit.map(str::to_owned) },
        ..edge(direction, attempts)
    };
    let units =
        vec![from(Some("kubelet"), Direction::Egress, 3), from(Some("cron"), Direction::Egress, 2)];
    let merged =
        fleet([report("n1", units), report("n2", vec![from(None, Direction::Ingress, 5)])])
            .report();
    let shown: Vec<_> =
        merged.edges.iter().map(|row| (row.source.to_string(), row.counts.attempts)).collect();
    assert_eq!(shown, [("node:n1 (cron)".to_owned(), 2), ("node:n1 (kubelet)".to_owned(), 3)]);
}

#[test]
fn one_name_is_one_end_with_what_every_node_found_out() {
    let named = |address: &str, also: &[&str]| EdgeRow {
        target: EndRow::Name(NameRow {
            name: "example.com".to_owned(),
            addresses: vec![address.parse().unwrap()],
            also: also.iter().map(|name| (*name).to_owned()).collect(),
            is_cut: false,
        }),
        ..edge(Direction::Egress, 1)
    };
    let merged = fleet([
        report("n1", vec![named("192.0.2.9", &[])]),
        report("n2", vec![named("192.0.2.1", &["www.example.com"])]),
    ])
    .report();
    let target = EndRow::Name(NameRow {
        name: "example.com".to_owned(),
        addresses: vec!["192.0.2.1".parse().unwrap(), "192.0.2.9".parse().unwrap()],
        also: vec!["www.example.com".to_owned()],
        is_cut: false,
    });
    assert_eq!(merged.edges.len(), 1);
    assert_eq!((&merged.edges[0].target, merged.edges[0].counts.attempts), (&target, 2));
}

#[test]
fn a_node_that_does_not_answer_is_named_until_it_does() {
    let mut fleet = fleet([report("n1", vec![])]);
    fleet.silent("n1", "asked twice".to_owned());
    fleet.silent("n2", "no answer in 30 s".to_owned());
    let told: Vec<_> =
        fleet.report().silent().map(|(node, why)| (node.to_owned(), why.to_owned())).collect();
    assert_eq!(told, [("n2".to_owned(), "no answer in 30 s".to_owned())]);
    fleet.add(report("n2", vec![]));
    assert_eq!(fleet.report().silent().count(), 0);
}

#[test]
fn news_of_a_node_replace_its_edges_and_a_restart_all_of_them() {
    let other = |attempts| EdgeRow { target_port: 443, ..edge(Direction::Egress, attempts) };
    let mut fleet = fleet([report("n1", vec![edge(Direction::Egress, 5), other(7)])]);
    let attempts = |fleet: &Fleet| -> Vec<u64> {
        fleet.report().edges.iter().map(|row| row.counts.attempts).collect()
    };
    assert!(!fleet.update(report("n1", vec![edge(Direction::Egress, 6)])));
    assert_eq!(attempts(&fleet), [6, 7]);
    let anew = Report {
        observing_since: "2026-11-23T10:05:00.000Z".to_owned(),
        ..report("n1", vec![other(1)])
    };
    assert!(fleet.update(anew));
    assert_eq!(attempts(&fleet), [1]);
}

#[test]
fn a_merged_report_is_read_as_it_was_written() {
    let mut fleet = fleet([report("n1", vec![edge(Direction::Egress, 5)])]);
    fleet.silent("n2", "gone".to_owned());
    let merged = fleet.report();
    let text = serde_json::to_string(&merged).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), merged);
}

/// Few nodes, ends and times, so that they meet.
fn any_report() -> impl Strategy<Value = Report> {
    let row = (any::<bool>(), 0u64..4, 80u16..82, any::<bool>()).prop_map(
        |(egress, attempts, port, denied)| {
            let direction = if egress { Direction::Egress } else { Direction::Ingress };
            let new = if denied { Decision::Denied } else { Decision::Allowed };
            let row = EdgeRow { target_port: port, ..edge(direction, attempts) };
            let allowed = verdict(Decision::Allowed, Decision::Allowed);
            judged(row, allowed, verdict(new, Decision::Allowed))
        },
    );
    (0..4, 0..3, proptest::collection::vec(row, 0..5), 0u64..3).prop_map(
        |(node, at, rows, lost)| {
            let mut edges: BTreeMap<_, EdgeRow> = BTreeMap::new();
            edges.extend(rows.into_iter().map(|row| ((row.direction, row.target_port), row)));
            Report {
                at: format!("2026-11-23T10:00:0{at}.000Z"),
                lost: [("ring_full".to_owned(), lost)].into(),
                ..report(&format!("n{node}"), edges.into_values().collect())
            }
        },
    )
}

/// What one question to several nodes brings.
fn any_fleet() -> impl Strategy<Value = Fleet> {
    let silent = proptest::collection::vec((0..5, 0..2), 0..3);
    (proptest::collection::vec(any_report(), 0..4), silent).prop_map(|(reports, silent)| {
        let mut fleet = fleet(reports);
        for (node, why) in silent {
            fleet.silent(&format!("n{node}"), format!("reason {why}"));
        }
        fleet
    })
}

fn merged(a: &Fleet, b: &Fleet) -> Fleet {
    let mut merged = a.clone();
    merged.merge(b.clone());
    merged
}

proptest! {
    #[test]
    fn neither_order_nor_repetition_changes_the_sum(
        a in any_fleet(), b in any_fleet(), c in any_fleet()
    ) {
        prop_assert_eq!(merged(&a, &b), merged(&b, &a));
        prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
        prop_assert_eq!(merged(&a, &a), a.clone());
        prop_assert_eq!(merged(&merged(&a, &b), &a), merged(&a, &b));
        prop_assert_eq!(merged(&a, &b).report(), merged(&b, &a).report());
    }

    #[test]
    fn every_edge_is_there_once_with_what_the_fuller_end_saw(all in any_fleet()) {
        let mut seen: BTreeMap<u16, [u64; 2]> = BTreeMap::new();
        for row in all.nodes.values().flat_map(|report| &report.edges) {
            let ends = seen.entry(row.target_port).or_default();
            ends[usize::from(row.direction == Some(Direction::Egress))] += row.counts.attempts;
        }
        let report = all.report();
        let shown: Vec<_> =
            report.edges.iter().map(|row| (row.target_port, row.counts.attempts)).collect();
        let fuller = |(port, ends): (&u16, &[u64; 2])| (*port, ends[0].max(ends[1]));
        let wanted: Vec<_> = seen.iter().map(fuller).collect();
        prop_assert_eq!(shown, wanted);
        for row in &report.edges {
            prop_assert_eq!(row.outcomes.values().sum::<u64>() + row.open, row.counts.attempts);
        }
    }
}
