//! Candidates that come and go while the engine runs.
//!
//! In: inputs as a live cluster gives them. Out: assertions on sets, verdicts and totals.

use super::*;

fn gone(name: &str, at: u64) -> Input {
    Input::CandidateGone(name.into(), t(at))
}

fn deny_db() -> Vec<Object> {
    let spec = json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"]});
    vec![policy("shop", "p", spec)]
}

fn sets(engine: &mut Engine) -> Vec<String> {
    engine.snapshot().policy_sets.iter().map(ToString::to_string).collect()
}

/// Of which sets there are verdicts, deltas and totals.
fn told_of(engine: &mut Engine) -> [Vec<String>; 3] {
    let snapshot = engine.snapshot();
    let names = |names: &mut dyn Iterator<Item = &Arc<str>>| {
        let mut names: Vec<_> = names.map(ToString::to_string).collect();
        names.dedup();
        names
    };
    let edge = &snapshot.edges[0];
    [
        names(&mut edge.verdicts.keys()),
        names(&mut edge.deltas.keys()),
        names(&mut snapshot.verdict_totals.keys().map(|(set, ..)| set)),
    ]
}

#[test]
fn one_that_appears_is_judged_and_one_that_goes_leaves_nothing() {
    let ask = || flows([flow(2, INGRESS, "10.0.0.10", 5432, (110, 110))]);
    let mut engine = run(with([ask()]));
    let always = ["default-deny", "enforced"].map(str::to_owned).to_vec();
    let before = [always.clone(), always[..1].to_vec(), always.clone()];
    assert_eq!(told_of(&mut engine), before);
    engine.step(candidate("live", deny_db(), 120));
    assert_eq!(sets(&mut engine), ["enforced", "default-deny", "live"]);
    assert_eq!(engine.snapshot().edges[0].deltas["live"], crate::verdict::Delta::NewlyDenied);
    engine.step(ask());
    let all = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let three = all(&["default-deny", "enforced", "live"]);
    assert_eq!(told_of(&mut engine), [three.clone(), all(&["default-deny", "live"]), three]);
    engine.step(gone("live", 130));
    assert_eq!(told_of(&mut engine), before);
    assert_eq!(sets(&mut engine), ["enforced", "default-deny"]);
    // It may come again, and its totals begin anew.
    engine.step(candidate("live", vec![], 140));
    engine.step(ask());
    let totals = engine.snapshot().verdict_totals.clone();
    let of_live: Vec<_> = totals.iter().filter(|((set, ..), _)| &**set == "live").collect();
    let key = ("live".into(), Direction::Ingress, Decision::Allowed, Reason::NotIsolated);
    assert_eq!(of_live, [(&key, &1)]);
    engine.step(gone("nobody", 150));
    assert_eq!(sets(&mut engine), ["enforced", "default-deny", "live"]);
}

#[test]
fn one_that_was_awaited_and_goes_is_not_awaited_any_more() {
    let awaiting = || EngineConfig { candidates: vec!["c".into()], ..EngineConfig::default() };
    let mut engine = run_with(awaiting(), with([]));
    assert!(!engine.snapshot().synced);
    engine.step(gone("c", 110));
    assert!(engine.snapshot().synced);
    let mut engine = run_with(awaiting(), with([candidate("c", vec![], 105)]));
    assert!(engine.snapshot().synced);
    engine.step(gone("c", 110));
    assert!(engine.snapshot().synced);
}

#[test]
fn too_many_are_refused_by_name_and_a_place_that_is_free_is_given() {
    let name = |n: usize| format!("c{n:02}");
    let many = (0..2 * CANDIDATES_MAX + 3).map(|n| candidate(&name(n), vec![], 100));
    let mut engine = run(with(many));
    let max = CANDIDATES_MAX as u64;
    assert_eq!(engine.snapshot().tables["candidates"], (max, max));
    let told = |engine: &Engine| {
        let all = engine.rejections();
        let all = all.iter().map(|each| format!("{}: {}", each.policy_set, each.rejection.object));
        all.collect::<Vec<_>>()
    };
    let refused = |n: usize| format!("{0}: candidate {0}", name(n));
    let mut expected: Vec<_> = (CANDIDATES_MAX..2 * CANDIDATES_MAX).map(refused).collect();
    expected.push(": further candidates".to_owned());
    assert_eq!(told(&engine), expected);
    assert_eq!(
        engine.rejections()[CANDIDATES_MAX].rejection.problem,
        "refused 3 times: more than 16"
    );
    // Given again once there is room, it is a set and refused no more.
    engine.step(gone(&name(0), 110));
    engine.step(candidate(&name(20), vec![], 110));
    expected.remove(4);
    assert_eq!(told(&engine), expected);
    assert!(sets(&mut engine).contains(&name(20)));
}

#[test]
fn nothing_is_judged_before_every_kind_was_listed() {
    for missing in Kind::ALL {
        let mut inputs = with([flows([flow(2, INGRESS, "10.0.0.10", 5432, (110, 110))])]);
        for input in &mut inputs {
            if let Input::Cluster(changes, _) = input {
                changes.retain(|change| *change != Change::Listed(missing));
            }
        }
        let mut engine = run(inputs);
        let told = |engine: &mut Engine| {
            let snapshot = engine.snapshot();
            (snapshot.synced, snapshot.unjudged, snapshot.edges.len())
        };
        assert_eq!(told(&mut engine), (false, 1, 0), "{missing:?}");
        engine.step(Input::Cluster(vec![Change::Listed(missing)], t(120)));
        assert_eq!(told(&mut engine), (true, 0, 1), "{missing:?}");
        // The end of a list that never began is no list.
        let unlisted = |input| match input {
            Input::Cluster(mut changes, at) => {
                changes.retain(|change| *change != Change::Listing(missing));
                Input::Cluster(changes, at)
            }
            other => other,
        };
        let mut never = run(with([]).into_iter().map(unlisted));
        assert!(!never.snapshot().synced, "{missing:?}");
        // Nor does one that is told again in part take that back.
        engine.step(Input::Cluster(vec![Change::Listing(missing)], t(121)));
        assert!(engine.snapshot().synced, "{missing:?}");
    }
}
