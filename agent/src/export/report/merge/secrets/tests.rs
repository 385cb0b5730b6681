//! What nodes know of secrets as one: by example, and in any order.

use parapet_core::flow::Workload;
use proptest::prelude::*;

use super::*;
use crate::export::report::merge::Fleet;

fn owner(name: &str) -> SecretOwner {
    let workload = Workload { kind: "Deployment".into(), name: name.into() };
    SecretOwner::Workload { namespace: "shop".into(), workload }
}

fn source(name: &str) -> SecretSource {
    SecretSource::Secret { name: name.into() }
}

fn time(second: u64) -> String {
    format!("2026-11-23T10:00:{second:02}.000Z")
}

/// Watched since that second of a minute; read in the second after, if at all.
fn mount(state: MountState, since: u64) -> MountRow {
    let read = if state == MountState::Read { time(since + 1) } else { String::new() };
    MountRow {
        owner: owner("api"),
        source: source("db"),
        way: SecretWay::Volume,
        containers: vec!["main".to_owned()],
        pods: 1,
        state,
        keys: vec![key("pass", state, &read)],
        first_read: read.clone(),
        last_read: read,
        watched_since: time(since),
        watched_seconds: 60 - since,
        starts_seen: 1,
        has_gaps: false,
        stale: Vec::new(),
    }
}

fn key(key: &str, state: MountState, last_read: &str) -> KeyRow {
    let path = key.to_owned();
    KeyRow { key: key.to_owned(), path, state, last_read: last_read.to_owned() }
}

fn stale(node: &str) -> StaleRow {
    StaleRow {
        container: "main".to_owned(),
        read: "..1".to_owned(),
        current: "..2".to_owned(),
        since: time(9),
        node: node.to_owned(),
    }
}

fn read(reader: &str, first: u64, last: u64) -> ReadRow {
    ReadRow {
        owner: owner("api"),
        source: source("db"),
        key: "pass".to_owned(),
        relation: Relation::Node,
        reader: Reader::Node { unit: reader.into() },
        program: "cat".to_owned(),
        comm: format!("thread-{first}"),
        uid: 0,
        pid: 7,
        counts: ReadCounts { opens: 2, reads: 1, maps: 3, held: 4 },
        first_seen: time(first),
        last_seen: time(last),
        generation: format!("..{last}"),
        nodes_total: 0,
        nodes: Vec::new(),
    }
}

fn token(state: MountState) -> TokenRow {
    TokenRow {
        owner: owner("api"),
        service_account: "default".to_owned(),
        mounted_by: TokenMount::Default,
        state,
        read_by: if state == MountState::Read { vec!["main".to_owned()] } else { Vec::new() },
        watched_since: time(0),
        watched_seconds: 60,
        starts_seen: 1,
        has_gaps: false,
        is_candidate: state == MountState::NeverRead,
    }
}

fn secrets(mounts: Vec<MountRow>, reads: Vec<ReadRow>, tokens: Vec<TokenRow>) -> SecretsReport {
    let unattributed = [("volume_not_known".to_owned(), 1)].into();
    SecretsReport { mounts, reads, tokens, unattributed, not_from: Vec::new() }
}

fn fleet<'a>(nodes: impl IntoIterator<Item = (&'a str, Option<SecretsReport>)>) -> Fleet {
    let mut fleet = Fleet::default();
    for (node, secrets) in nodes {
        let empty = Report::new(&parapet_core::snapshot::Snapshot::default(), None);
        fleet.add(Report { node: node.to_owned(), secrets, ..empty });
    }
    fleet
}

#[test]
fn a_mount_is_read_if_any_node_saw_it_read() {
    let mut used = mount(MountState::Read, 5);
    used.containers = vec!["main".to_owned(), "proxy".to_owned()];
    used.keys.push(key("user", MountState::NeverRead, ""));
    used.has_gaps = true;
    used.stale = vec![stale("")];
    let other = SecretWay::Env;
    let variable = MountRow { way: other, ..mount(MountState::Unobservable, 0) };
    let nodes = [
        ("n1", Some(secrets(vec![mount(MountState::NeverRead, 10)], Vec::new(), Vec::new()))),
        ("n2", Some(secrets(vec![used, variable.clone()], Vec::new(), Vec::new()))),
    ];
    let merged = fleet(nodes).report().secrets.unwrap();
    let expected = MountRow {
        containers: vec!["main".to_owned(), "proxy".to_owned()],
        pods: 2,
        state: MountState::Read,
        keys: vec![key("pass", MountState::Read, &time(6)), key("user", MountState::NeverRead, "")],
        first_read: time(6),
        last_read: time(6),
        watched_since: time(10),
        watched_seconds: 50,
        starts_seen: 2,
        has_gaps: true,
        stale: vec![stale("n2")],
        ..mount(MountState::NeverRead, 0)
    };
    assert_eq!(merged.mounts, [expected, variable]);
    assert_eq!(merged.unattributed, [("volume_not_known".to_owned(), 2)].into());
}

#[test]
fn what_one_node_cannot_see_is_not_called_never_read() {
    let states = |a, b| {
        let of = |state| Some(secrets(vec![mount(state, 0)], Vec::new(), Vec::new()));
        fleet([("n1", of(a)), ("n2", of(b))]).report().secrets.unwrap().mounts[0].state
    };
    use MountState::{NeverRead, Read, Unobservable};
    assert_eq!(states(NeverRead, NeverRead), NeverRead);
    assert_eq!(states(NeverRead, Unobservable), Unobservable);
    assert_eq!(states(Unobservable, Read), Read);
}

#[test]
fn reads_of_one_reader_are_summed_and_a_process_id_is_of_one_node() {
    let of = |reads| Some(secrets(Vec::new(), reads, Vec::new()));
    let nodes = [
        ("n1", of(vec![read("a.service", 2, 3)])),
        ("n2", of(vec![read("a.service", 1, 8), read("b.service", 1, 1)])),
    ];
    let expected = ReadRow {
        comm: "thread-1".to_owned(),
        pid: 0,
        counts: ReadCounts { opens: 4, reads: 2, maps: 6, held: 8 },
        first_seen: time(1),
        last_seen: time(8),
        generation: "..8".to_owned(),
        nodes_total: 2,
        nodes: vec!["n1".to_owned(), "n2".to_owned()],
        ..read("a.service", 0, 0)
    };
    let one = vec!["n2".to_owned()];
    let other = ReadRow { nodes_total: 1, nodes: one, ..read("b.service", 1, 1) };
    assert_eq!(fleet(nodes).report().secrets.unwrap().reads, [expected, other]);
}

#[test]
fn a_token_is_a_candidate_only_if_it_is_on_every_node() {
    let of = |state| Some(secrets(Vec::new(), Vec::new(), vec![token(state)]));
    let merged = |a, b| fleet([("n1", of(a)), ("n2", of(b))]).report().secrets.unwrap().tokens;
    let summed = |state| TokenRow { starts_seen: 2, ..token(state) };
    let (unread, read) = (MountState::NeverRead, MountState::Read);
    assert_eq!(merged(unread, unread), [summed(unread)]);
    assert_eq!(merged(unread, read), [summed(read)]);
    let unsure = TokenRow { is_candidate: false, has_gaps: true, ..token(unread) };
    let gaps = Some(secrets(Vec::new(), Vec::new(), vec![unsure.clone()]));
    let both = fleet([("n1", gaps), ("n2", of(unread))]).report().secrets.unwrap().tokens;
    assert_eq!(both, [TokenRow { starts_seen: 2, ..unsure }]);
}

#[test]
fn an_agent_of_before_is_named_and_nothing_is_known_without_any_other() {
    let nothing = || Some(secrets(Vec::new(), Vec::new(), Vec::new()));
    let merged = fleet([("n1", None), ("n2", nothing())]).report().secrets.unwrap();
    assert_eq!(merged.not_from, ["n1"]);
    assert_eq!(fleet([("n1", None)]).report().secrets, None);
}

fn any_state() -> impl Strategy<Value = MountState> {
    prop_oneof![Just(MountState::Read), Just(MountState::NeverRead), Just(MountState::Unobservable)]
}

/// Few names and times, so that they meet.
fn any_secrets() -> impl Strategy<Value = SecretsReport> {
    let mounts = proptest::option::of((any_state(), 0u64..4))
        .prop_map(|one| one.map(|(state, since)| mount(state, since)));
    let reads = proptest::collection::btree_map(0u8..3, (0u64..4, 4u64..8), 0..3);
    let reads = reads.prop_map(|reads| {
        let row = |(unit, (first, last)): (u8, (u64, u64))| read(&format!("{unit}"), first, last);
        reads.into_iter().map(row).collect()
    });
    let tokens = proptest::option::of(any_state()).prop_map(|state| state.map(token));
    (mounts, reads, tokens).prop_map(|(mount, reads, token)| {
        secrets(mount.into_iter().collect(), reads, token.into_iter().collect())
    })
}

proptest! {
    #[test]
    fn neither_order_nor_repetition_changes_the_sum(
        told in proptest::collection::vec((0u8..4, any_secrets()), 0..5)
    ) {
        // One report a node: which of two is the newer one is the fleet's business.
        let nodes: BTreeMap<u8, SecretsReport> = told.into_iter().collect();
        let names: Vec<(String, &SecretsReport)> =
            nodes.iter().map(|(node, all)| (format!("n{node}"), all)).collect();
        let each = || names.iter().map(|(node, all)| (node.as_str(), Some((*all).clone())));
        let merged = fleet(each()).report();
        prop_assert_eq!(&fleet(each().rev()).report(), &merged);
        prop_assert_eq!(&fleet(each().chain(each())).report(), &merged);
        let opens = |all: &SecretsReport| all.reads.iter().map(|row| row.counts.opens).sum::<u64>();
        let summed: u64 = nodes.values().map(opens).sum();
        prop_assert_eq!(merged.secrets.as_ref().map_or(0, opens), summed);
        let read_somewhere = nodes.values().flat_map(|all| &all.tokens)
            .any(|row| row.state == MountState::Read);
        let candidate = merged.secrets.iter().flat_map(|all| &all.tokens)
            .any(|row| row.is_candidate);
        prop_assert!(!(read_somewhere && candidate));
    }
}
