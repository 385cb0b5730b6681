//! How attempts end, as time goes on.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::flow::Outcome;
use crate::ledger::UNANSWERED_AFTER_NS;

/// One read of web's flow to db: attempts, answers, refusals.
fn read_at(ms: u64, [attempts, answered, refused]: [u64; 3]) -> Input {
    let at = Timestamp(ms * 1_000_000);
    let counts = Counts { attempts, answered, refused, ..Counts::default() };
    let record = flow(1, EGRESS, "10.0.0.20", 5432, (0, 0));
    flows([FlowRecord { since: at, last_seen: at, counts, ..record }])
}

/// Attempts, answered, refused, unanswered, open of the only edge.
fn ended(engine: &mut Engine) -> [u64; 5] {
    let snapshot = engine.snapshot();
    let [edge] = &*snapshot.edges else { return [0; 5] };
    let of = |outcome| edge.outcomes.get(outcome);
    let [answered, refused, unanswered] =
        [Outcome::Answered, Outcome::Refused, Outcome::Unanswered].map(of);
    [edge.counts.attempts, answered, refused, unanswered, edge.open]
}

#[test]
fn an_attempt_is_open_until_it_ends_or_is_given_up() {
    let mut engine = run(with([read_at(101_000, [3, 0, 0])]));
    assert_eq!(ended(&mut engine), [3, 0, 0, 0, 3]);
    engine.step(read_at(102_000, [0, 1, 1]));
    assert_eq!(ended(&mut engine), [3, 1, 1, 0, 1]);
    engine.step(Input::Tick(Timestamp(101 * SECOND + UNANSWERED_AFTER_NS - 1)));
    assert_eq!(ended(&mut engine), [3, 1, 1, 0, 1]);
    engine.step(Input::Tick(Timestamp(101 * SECOND + UNANSWERED_AFTER_NS)));
    assert_eq!(ended(&mut engine), [3, 1, 1, 1, 0]);
    // Too late: the counts have it, the outcome stays.
    engine.step(read_at(107_000, [0, 1, 0]));
    assert_eq!(ended(&mut engine), [3, 1, 1, 1, 0]);
    assert_eq!(engine.snapshot().edges[0].counts.answered, 2);
    // The agent is told to stop.
    engine.step(read_at(108_000, [1, 0, 0]));
    engine.step(Input::Tick(t(109)));
    assert_eq!(ended(&mut engine), [4, 1, 1, 1, 1]);
}

#[test]
fn a_record_that_waited_for_an_identity_has_its_whole_time() {
    let ghost = |at, counts: [u64; 3]| match read_at(at, counts) {
        Input::Records(mut all) => {
            let Some(Record::Flow(flow)) = all.first_mut() else { return Input::Records(all) };
            flow.cgroup_id = 7;
            Input::Records(all)
        }
        other => other,
    };
    let mut engine = run(with([
        records([cgroup(7, "ghost", 100)]),
        ghost(100_500, [1, 0, 0]),
        Input::Tick(t(101)),
        ghost(101_500, [0, 1, 0]),
        Input::Tick(t(110)),
    ]));
    assert_eq!(ended(&mut engine), [1, 0, 0, 0, 1]);
    engine.step(Input::Tick(t(111)));
    assert_eq!(ended(&mut engine), [1, 1, 0, 0, 0]);
}

#[test]
fn one_flow_of_an_edge_that_is_silent_is_given_up_though_others_are_answered() {
    let mut engine = run(base());
    let silent = FlowRecord {
        counts: Counts { attempts: 1, ..Counts::default() },
        ..flow(1, EGRESS, "10.0.0.20", 5432, (101, 101))
    };
    let other = FlowRecord { cgroup_id: 3, ..flow(1, EGRESS, "10.0.0.20", 5432, (101, 101)) };
    let web = set(pod("shop", "web2", "10.0.0.11", 10), "/metadata/labels", json!({"app": "web"}));
    let owner = json!([{"kind": "StatefulSet", "name": "web", "uid": "s", "controller": true}]);
    let owned = |mut value: Value| {
        value["metadata"]["ownerReferences"] = owner.clone();
        applied_pod(value)
    };
    let both = vec![owned(pod("shop", "web", "10.0.0.10", 10)), owned(web)];
    engine.step(Input::Cluster(both, t(100)));
    engine.step(records([cgroup(3, "web2", 100)]));
    engine.step(flows([silent]));
    for second in 101..107 {
        engine.step(flows([FlowRecord { last_seen: t(second), ..other.clone() }]));
        engine.step(Input::Tick(t(second)));
    }
    assert_eq!(ended(&mut engine), [7, 6, 0, 1, 0]);
}

proptest! {
    #[test]
    fn every_attempt_is_in_one_outcome_and_no_outcome_shrinks(
        steps in vec((0..3_000_u64, 0..4_u64, 0..4_u64, 0..3_u64, any::<bool>()), 1..60),
    ) {
        let mut engine = run(base());
        let (mut ms, mut before) = (101_000, [0; 5]);
        for (later, attempts, answered, refused, ticks) in steps {
            ms += later;
            engine.step(read_at(ms, [attempts, answered, refused]));
            if ticks {
                engine.step(Input::Tick(Timestamp(ms * 1_000_000)));
            }
            let now = ended(&mut engine);
            prop_assert_eq!(now[0], now[1..].iter().sum::<u64>());
            prop_assert!((0..4).all(|at| now[at] >= before[at]), "{before:?} {now:?}");
            before = now;
        }
        engine.step(Input::Tick(Timestamp(ms * 1_000_000 + UNANSWERED_AFTER_NS)));
        prop_assert_eq!(ended(&mut engine)[4], 0);
    }
}
