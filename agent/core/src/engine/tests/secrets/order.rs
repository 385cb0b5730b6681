//! In whatever order and however often what is known is told, in the end the same is said.

use proptest::prelude::*;

use super::*;

/// Everything that is told once the lists are complete.
fn told() -> Vec<Input> {
    let records = |records: Vec<Record>| Input::Records(records);
    let mut all = vec![
        Input::Cluster(vec![pod(api_object())], s(2)),
        Input::Cluster(vec![pod(web_object())], s(2)),
        Input::Volumes(volumes(), s(2)),
    ];
    all.extend(cgroups().into_iter().map(|record| records(vec![record])));
    all.extend(known().into_iter().map(|record| records(vec![record])));
    all
}

fn all_reads() -> Vec<Input> {
    let cgroups = [API_MAIN, API_SIDE, WEB, KUBELET, SHELL];
    let files = [(TLS, 11), (TLS, 12), (TOKEN, 23), (TOKEN, 21)];
    let all = cgroups.iter().flat_map(|cgroup| files.map(|file| (*cgroup, file)));
    let all = all.zip(1..);
    all.map(|((cgroup, (volume, inode)), opens)| {
        Input::Records(vec![reads(volume, inode, cgroup, opens, 3 + opens % 3)])
    })
    .collect()
}

fn end(inputs: impl IntoIterator<Item = Input>) -> SecretsSnapshot {
    let mut engine = Engine::new(EngineConfig::default());
    engine.step(facts());
    for input in inputs {
        engine.step(input);
    }
    engine.step(Input::Tick(s(6)));
    (*answers(&mut engine)).clone()
}

fn inputs() -> impl Strategy<Value = (Vec<Input>, usize)> {
    let told = told();
    let again = proptest::collection::vec(proptest::sample::select(told.clone()), 0..12);
    (again, 0..=told.len() + all_reads().len()).prop_flat_map(move |(again, lists_at)| {
        let all = [told.clone(), all_reads(), again].concat();
        (Just(all).prop_shuffle(), Just(lists_at))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn the_order_does_not_matter((mut inputs, lists_at) in inputs()) {
        let lists = || Input::Cluster(lists([pod(api_object()), pod(web_object())]), s(2));
        let expected = end([vec![lists()], told(), all_reads()].concat());
        prop_assert_eq!(expected.reads.len(), 20);
        prop_assert_eq!(expected.unattributed.len(), 0);
        inputs.insert(lists_at, lists());
        prop_assert_eq!(end(inputs), expected);
    }
}
