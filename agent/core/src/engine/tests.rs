//! The engine from inputs to snapshots, without a cluster or a kernel.
//!
//! In: inputs written down by hand. Out: assertions on whole edges. It never looks inside the
//! engine.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::flow::Protocol;
use crate::object::{Object, ObjectRef};
use crate::record::Counts;
use crate::snapshot::{Edge, EdgeEnd};

mod candidates;
mod ends;
mod outcomes;
mod peers;
mod secrets;

const SECOND: u64 = 1_000_000_000;

fn t(seconds: u64) -> Timestamp {
    Timestamp(seconds * SECOND)
}

fn text(seconds: u64) -> String {
    format!("1970-01-01T{:02}:{:02}:{:02}Z", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn pod(namespace: &str, name: &str, ip: &str, start: u64) -> Value {
    json!({
        "metadata": {"namespace": namespace, "name": name, "uid": format!("uid-{name}"),
            "labels": {"app": name}},
        "spec": {"nodeName": "n1", "containers": []},
        "status": {"phase": "Running", "podIP": ip, "startTime": text(start)},
    })
}

fn set(mut value: Value, pointer: &str, to: Value) -> Value {
    *value.pointer_mut(pointer).expect("the test names an existing field") = to;
    value
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("the test's object is well-formed")
}

fn pod_object(value: Value) -> Object {
    Object::Pod(Box::new(read(value)))
}

fn applied_pod(value: Value) -> Change {
    Change::Applied(pod_object(value))
}

fn deleted_pod(namespace: &str, name: &str) -> Change {
    Change::Deleted(ObjectRef {
        kind: Kind::Pod,
        api_kind: String::new(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: Some(format!("uid-{name}")),
    })
}

fn policy(namespace: &str, name: &str, spec: Value) -> Object {
    let metadata = json!({"namespace": namespace, "name": name});
    Object::NetworkPolicy(read(json!({"metadata": metadata, "spec": spec})))
}

fn candidate(name: &str, objects: Vec<Object>, at: u64) -> Input {
    Input::Candidate(name.into(), Candidate { objects, removed: Vec::new() }, t(at))
}

fn node() -> Change {
    Change::Applied(Object::Node(read(json!({
        "metadata": {"name": "n1"},
        "spec": {"podCIDRs": ["10.0.0.0/24"]},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.168.0.1"}]},
    }))))
}

fn facts() -> Input {
    let addrs = ["192.168.0.1", "10.0.0.1"].map(|addr| addr.parse().expect("an address"));
    Input::Node(NodeFacts { name: "n1".to_owned(), addrs: addrs.to_vec(), ..NodeFacts::default() })
}

/// These objects, and nothing else, are the full lists of all kinds.
fn lists(objects: impl IntoIterator<Item = Change>) -> Vec<Change> {
    let listing = Kind::ALL.into_iter().map(Change::Listing);
    listing.chain(objects).chain(Kind::ALL.map(Change::Listed)).collect()
}

/// The cgroup a pod of these tests runs in.
fn cgroup(id: u64, pod: &str, at: u64) -> Record {
    let path = format!("/kubepods/burstable/poduid-{pod}/container");
    Record::CgroupCreated { cgroup_id: id, path, at: t(at) }
}

fn flow(
    cgroup_id: u64,
    direction: Option<Direction>,
    peer: &str,
    port: u16,
    (since, last_seen): (u64, u64),
) -> FlowRecord {
    FlowRecord {
        cgroup_id,
        peer: peer.parse::<IpAddr>().expect("an address"),
        local_addr: None,
        local_port: None,
        translation: crate::identity::Translation::default(),
        service_port: port,
        protocol: Protocol::TCP,
        direction,
        since: t(since),
        last_seen: t(last_seen),
        counts: Counts {
            sent_packets: 3,
            sent_bytes: 300,
            received_packets: 2,
            received_bytes: 200,
            attempts: 1,
            answered: 1,
            ..Counts::default()
        },
    }
}

const EGRESS: Option<Direction> = Some(Direction::Egress);
const INGRESS: Option<Direction> = Some(Direction::Ingress);

fn records(records: impl IntoIterator<Item = Record>) -> Input {
    Input::Records(records.into_iter().collect())
}

fn flows(all: impl IntoIterator<Item = FlowRecord>) -> Input {
    records(all.into_iter().map(Record::Flow))
}

/// Two pods, `web` (cgroup 1, 10.0.0.10) and `db` (cgroup 2, 10.0.0.20), on this node, all synced.
fn base() -> Vec<Input> {
    let changes = lists([
        node(),
        applied_pod(pod("shop", "web", "10.0.0.10", 10)),
        applied_pod(pod("shop", "db", "10.0.0.20", 10)),
    ]);
    vec![
        facts(),
        Input::Tick(t(100)),
        records([cgroup(1, "web", 10), cgroup(2, "db", 10)]),
        Input::Cluster(changes, t(100)),
    ]
}

fn run(inputs: impl IntoIterator<Item = Input>) -> Engine {
    run_with(EngineConfig::default(), inputs)
}

fn run_with(config: EngineConfig, inputs: impl IntoIterator<Item = Input>) -> Engine {
    let mut engine = Engine::new(config);
    inputs.into_iter().for_each(|input| engine.step(input));
    engine
}

fn with(more: impl IntoIterator<Item = Input>) -> Vec<Input> {
    base().into_iter().chain(more).collect()
}

fn end_line(end: &EdgeEnd) -> String {
    match end {
        EdgeEnd::Pod { namespace, workload } => {
            format!("{namespace}/{}/{}", workload.kind, workload.name)
        }
        EdgeEnd::Node { name, cgroup: None } => format!("node/{name}"),
        EdgeEnd::Node { name, cgroup: Some(cgroup) } => format!("node/{name}:{cgroup}"),
        EdgeEnd::Service { namespace, name } => format!("service/{namespace}/{name}"),
        EdgeEnd::External { address } => address.to_string(),
        EdgeEnd::Multicast { address } => format!("multicast/{address}"),
        EdgeEnd::Broadcast { address } => format!("broadcast/{address}"),
        EdgeEnd::Name { name } => format!("name/{name}"),
        EdgeEnd::Loopback => "loopback".to_owned(),
        EdgeEnd::Unknown { reason } => format!("?{reason}"),
    }
}

fn word(value: impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).expect("a word");
    value.as_str().unwrap_or("unknown").to_owned()
}

/// One edge in one line: who, whom, port, direction, outcomes.
fn seen_line(edge: &Edge) -> String {
    let key = &edge.key;
    let outcomes: Vec<_> =
        edge.outcomes.iter().map(|(outcome, count)| format!("{}={count}", word(outcome))).collect();
    format!(
        "{} -> {} {}/{} {} {}",
        end_line(&key.source),
        end_line(&key.target),
        key.protocol,
        key.target_port,
        word(key.direction),
        outcomes.join(",")
    )
}

fn seen(engine: &mut Engine) -> Vec<String> {
    engine.snapshot().edges.iter().map(|edge| seen_line(edge)).collect()
}

/// What each set says of each edge, with the deltas.
fn judged(engine: &mut Engine) -> Vec<String> {
    let line = |edge: &Arc<Edge>| {
        let said = edge.judgement.verdicts.iter().map(|(name, verdict)| {
            let (side, decided) = verdict.deciding();
            let delta = edge.judgement.deltas.get(name).map(|delta| format!("[{}]", word(delta)));
            format!(
                " {name}={}:{}:{}{}",
                word(verdict.decision),
                word(side),
                word(decided.reason),
                delta.unwrap_or_default()
            )
        });
        format!("{}{}", end_line(&edge.key.target), said.collect::<String>())
    };
    engine.snapshot().edges.iter().map(line).collect()
}

#[test]
fn a_flow_between_two_pods_makes_one_edge_at_each_end() {
    let mut engine = run(with([flows([
        flow(1, EGRESS, "10.0.0.20", 5432, (110, 111)),
        flow(2, INGRESS, "::ffff:10.0.0.10", 5432, (110, 112)),
        flow(1, EGRESS, "10.0.0.20", 5432, (109, 115)),
    ])]));
    let snapshot = engine.snapshot();
    assert_eq!(
        seen(&mut engine),
        [
            "shop/Pod/web -> shop/Pod/db 6/5432 ingress answered=1",
            "shop/Pod/web -> shop/Pod/db 6/5432 egress answered=2",
        ]
    );
    let times = |edge: &Edge| (edge.first_seen, edge.last_seen, edge.counts.sent_bytes);
    assert_eq!(times(&snapshot.edges[0]), (t(110), t(112), 200));
    assert_eq!(times(&snapshot.edges[1]), (t(109), t(115), 600));
    assert_eq!((snapshot.at, snapshot.observing_since), (t(100), t(100)));
}

#[test]
fn an_address_means_the_pod_that_held_it_at_the_time() {
    let mut engine = run(with([
        Input::Cluster(vec![applied_pod(pod("shop", "a", "10.0.0.30", 120))], t(121)),
        Input::Cluster(vec![deleted_pod("shop", "a")], t(200)),
        Input::Cluster(vec![applied_pod(pod("shop", "b", "10.0.0.30", 210))], t(212)),
        flows([
            flow(1, EGRESS, "10.0.0.30", 1, (120, 199)),
            flow(1, EGRESS, "10.0.0.30", 2, (200, 209)),
            flow(1, EGRESS, "10.0.0.30", 3, (210, 220)),
            flow(1, EGRESS, "10.0.0.30", 4, (199, 210)),
        ]),
    ]));
    assert_eq!(engine.snapshot().pending, 1);
    engine.step(Input::Tick(t(222)));
    assert_eq!(
        seen(&mut engine),
        [
            "shop/Pod/web -> shop/Pod/a 6/1 egress answered=1",
            "shop/Pod/web -> ?no_holder 6/2 egress answered=1",
            "shop/Pod/web -> shop/Pod/b 6/3 egress answered=1",
            "shop/Pod/web -> ?ambiguous_address 6/4 egress answered=1",
        ]
    );
    let unattributed: BTreeMap<_, _> =
        [((EndSide::Target, "ambiguous_address"), 1), ((EndSide::Target, "no_holder"), 1)].into();
    assert_eq!(engine.snapshot().unattributed, unattributed);
}

#[test]
fn a_short_pod_is_attributed_when_its_object_comes_late() {
    let mut engine = run(with([
        records([
            cgroup(7, "job", 120),
            Record::Flow(flow(7, EGRESS, "10.0.0.20", 5432, (120, 120))),
            Record::CgroupRemoved { cgroup_id: 7, at: t(121) },
        ]),
        Input::Tick(t(105)),
    ]));
    assert_eq!((engine.snapshot().pending, seen(&mut engine)), (1, vec![]));
    let late = set(pod("shop", "job", "", 119), "/status/phase", json!("Succeeded"));
    engine.step(Input::Cluster(vec![applied_pod(late)], t(125)));
    assert_eq!(seen(&mut engine), ["shop/Pod/job -> shop/Pod/db 6/5432 egress answered=1"]);
    assert_eq!((engine.snapshot().pending, engine.snapshot().unattributed.len()), (0, 0));
}

#[test]
fn what_stays_unknown_is_counted_by_side_and_reason() {
    let mut engine = run(with([
        records([cgroup(7, "ghost", 100)]),
        flows([
            flow(7, EGRESS, "1.2.3.4", 443, (101, 101)),
            flow(8, INGRESS, "1.2.3.4", 80, (101, 101)),
        ]),
        Input::Tick(t(109)),
    ]));
    assert_eq!((engine.snapshot().pending, engine.snapshot().edges.len()), (2, 0));
    engine.step(Input::Tick(t(110)));
    assert_eq!(
        seen(&mut engine),
        [
            "1.2.3.4 -> ?cgroup_not_known 6/80 ingress answered=1",
            "?pod_not_listed -> 1.2.3.4 6/443 egress answered=1",
        ]
    );
    let unattributed: BTreeMap<_, _> =
        [((EndSide::Source, "pod_not_listed"), 1), ((EndSide::Target, "cgroup_not_known"), 1)]
            .into();
    assert_eq!(engine.snapshot().unattributed, unattributed);
}

fn service(extra: Value) -> Change {
    let mut spec = json!({"clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"],
        "ports": [{"name": "pg", "port": 80, "targetPort": "pg"}]});
    let fields = extra.as_object().cloned().unwrap_or_default();
    spec.as_object_mut().expect("an object").extend(fields);
    let metadata = json!({"namespace": "shop", "name": "db"});
    Change::Applied(Object::Service(read(json!({"metadata": metadata, "spec": spec}))))
}

fn slice(endpoints: Value, port: u16) -> Change {
    Change::Applied(Object::EndpointSlice(read(json!({
        "metadata": {"namespace": "shop", "name": format!("db-{port}"),
            "labels": {"kubernetes.io/service-name": "db"}},
        "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"name": "pg", "protocol": "TCP", "port": port}],
    }))))
}

#[test]
fn a_service_is_its_backends_at_their_own_port() {
    let ask = |more: Vec<Change>| {
        let mut engine = run(with([
            Input::Cluster(more, t(100)),
            flows([
                flow(1, EGRESS, "10.96.0.5", 80, (110, 110)),
                flow(1, EGRESS, "10.96.0.5", 81, (110, 110)),
            ]),
        ]));
        engine.step(Input::Tick(t(200)));
        seen(&mut engine)
    };
    let no_port = "shop/Pod/web -> service/shop/db 6/81 egress answered=1";
    let ready = |addr: &str| json!({"addresses": [addr]});
    let out = json!({"addresses": ["10.0.0.99"], "conditions": {"ready": false}});
    let one = vec![service(json!({})), slice(json!([ready("10.0.0.20"), out]), 5432)];
    let to_db = "shop/Pod/web -> shop/Pod/db 6/5432 egress answered=1".to_owned();
    assert_eq!(ask(one), [no_port.to_owned(), to_db.clone()]);
    // Two backends of different workloads: nobody can tell which one got it.
    let two = vec![
        service(json!({})),
        slice(json!([ready("10.0.0.20")]), 5432),
        slice(json!([ready("10.0.0.10")]), 5433),
    ];
    let undecided = "shop/Pod/web -> service/shop/db 6/80 egress answered=1".to_owned();
    assert_eq!(ask(two), [undecided, no_port.to_owned()]);
    // No slice at all: the selector and the pod's own named port.
    let ports = json!([{"name": "c", "ports": [{"name": "pg", "containerPort": 5432}]}]);
    let db = set(pod("shop", "db", "10.0.0.20", 10), "/spec/containers", ports);
    let selected = vec![service(json!({"selector": {"app": "db"}})), applied_pod(db)];
    assert_eq!(ask(selected), [no_port.to_owned(), to_db]);
}

#[test]
fn backends_of_one_workload_are_that_workload() {
    let owned = |name: &str, ip: &str| {
        let mut value = pod("shop", name, ip, 10);
        let owner =
            json!([{"kind": "ReplicaSet", "name": "db-5d4f", "uid": "rs", "controller": true}]);
        value["metadata"]["ownerReferences"] = owner;
        set(value, "/metadata/labels", json!({"app": "db", "pod-template-hash": "5d4f"}))
    };
    let endpoints = json!([{"addresses": ["10.0.0.41"]}, {"addresses": ["10.0.0.42"]}]);
    let mut engine = run(with([
        Input::Cluster(
            vec![
                applied_pod(owned("db-1", "10.0.0.41")),
                applied_pod(owned("db-2", "10.0.0.42")),
                service(json!({})),
                slice(endpoints, 5432),
            ],
            t(100),
        ),
        flows([flow(1, EGRESS, "10.96.0.5", 80, (110, 110))]),
    ]));
    assert_eq!(seen(&mut engine), ["shop/Pod/web -> shop/Deployment/db 6/5432 egress answered=1"]);
}

#[test]
fn host_network_loopback_and_the_node_are_told_apart() {
    let agent = set(pod("sys", "agent", "192.168.0.1", 10), "/spec", json!({"hostNetwork": true}));
    let host = Record::CgroupCreated { cgroup_id: 9, path: "/system.slice/x".into(), at: t(1) };
    let mut engine = run(with([
        Input::Cluster(vec![applied_pod(agent)], t(100)),
        records([cgroup(8, "agent", 10), host]),
        flows([
            flow(8, EGRESS, "10.0.0.20", 1, (110, 110)),
            flow(9, EGRESS, "10.0.0.20", 2, (110, 110)),
            flow(1, EGRESS, "192.168.0.1", 3, (110, 110)),
            flow(2, INGRESS, "10.0.0.1", 4, (110, 110)),
            flow(1, EGRESS, "127.0.0.1", 5, (110, 110)),
            flow(1, INGRESS, "10.0.0.10", 6, (110, 110)),
            flow(1, None, "10.0.0.20", 0, (110, 110)),
        ]),
    ]));
    let mut lines = seen(&mut engine);
    lines.sort();
    assert_eq!(
        lines,
        [
            "loopback -> shop/Pod/web 6/6 ingress answered=1",
            "node/n1 -> shop/Pod/db 6/4 ingress answered=1",
            "node/n1:system.slice/x -> shop/Pod/db 6/2 egress answered=1",
            "shop/Pod/web -> loopback 6/5 egress answered=1",
            "shop/Pod/web -> node/n1 6/3 egress answered=1",
            "shop/Pod/web -> shop/Pod/db 6/0 unknown unknown=1",
            "sys/Pod/agent -> shop/Pod/db 6/1 egress answered=1",
        ]
    );
    let mut verdicts = judged(&mut engine);
    verdicts.retain(|line| line.starts_with("loopback") || line.contains("unknown_direction"));
    assert_eq!(
        verdicts,
        [
            "shop/Pod/db default-deny=undecidable:egress:unknown_direction[undecidable] \
             enforced=undecidable:egress:unknown_direction",
            "loopback default-deny=exempt:egress:loopback[unchanged_allowed] \
             enforced=exempt:egress:loopback",
        ]
    );
}

#[test]
fn nothing_is_judged_before_every_source_was_listed() {
    let config = EngineConfig { candidates: vec!["c".into()], ..EngineConfig::default() };
    let mut engine = run_with(
        config,
        with([flows([flow(1, EGRESS, "10.0.0.20", 5432, (110, 110))]), Input::Tick(t(900))]),
    );
    let snapshot = engine.snapshot();
    let state = (snapshot.synced, snapshot.pending, snapshot.unjudged, snapshot.edges.len());
    assert_eq!(state, (false, 1, 1, 0));
    engine.step(candidate("c", vec![], 901));
    let snapshot = engine.snapshot();
    let state = (snapshot.synced, snapshot.pending, snapshot.unjudged, snapshot.edges.len());
    assert_eq!(state, (true, 0, 0, 1));
    assert_eq!(
        judged(&mut engine),
        ["shop/Pod/db c=allowed:egress:not_isolated[unchanged_allowed] \
          default-deny=denied:egress:no_rule_matched[newly_denied] \
          enforced=allowed:egress:not_isolated"]
    );
}

#[test]
fn a_record_waits_its_time_from_the_first_full_lists_on() {
    let mut inputs = with([]);
    let Some(Input::Cluster(changes, at)) = inputs.pop() else { panic!("base ends with objects") };
    inputs.push(flows([flow(1, EGRESS, "10.0.0.77", 80, (105, 105))]));
    inputs.push(Input::Tick(t(500)));
    let mut engine = run(inputs);
    engine.step(Input::Cluster(changes, at));
    engine.step(Input::Tick(t(509)));
    assert_eq!((engine.snapshot().pending, engine.snapshot().edges.len()), (1, 0));
    let late = applied_pod(pod("shop", "late", "10.0.0.77", 104));
    engine.step(Input::Cluster(vec![late], t(509)));
    assert_eq!(seen(&mut engine), ["shop/Pod/web -> shop/Pod/late 6/80 egress answered=1"]);
}

#[test]
fn too_many_unsynced_records_become_edges_without_verdicts() {
    let config = EngineConfig { pending_max: 1, ..EngineConfig::default() };
    let mut inputs = with([]);
    let Some(Input::Cluster(changes, at)) = inputs.pop() else { panic!("base ends with objects") };
    let (sync, objects): (Vec<_>, Vec<_>) =
        changes.into_iter().partition(|change| matches!(change, Change::Listed(_)));
    inputs.push(Input::Cluster(objects, at));
    inputs.push(flows([
        flow(1, EGRESS, "1.2.3.4", 1, (110, 110)),
        flow(1, EGRESS, "10.0.0.20", 2, (110, 110)),
        flow(1, EGRESS, "10.0.0.20", 3, (110, 110)),
    ]));
    let mut engine = run_with(config, inputs);
    let snapshot = engine.snapshot();
    assert_eq!((snapshot.pending, snapshot.unjudged), (1, 3));
    assert_eq!(snapshot.lost, BTreeMap::from([(STAGE_PENDING_FULL, 2)]));
    engine.step(Input::Cluster(sync, t(120)));
    assert_eq!(
        seen(&mut engine),
        [
            "shop/Pod/web -> ?no_holder 6/1 egress answered=1",
            "shop/Pod/web -> shop/Pod/db 6/2 egress answered=1",
            "shop/Pod/web -> shop/Pod/db 6/3 egress answered=1",
        ]
    );
    let judged: Vec<_> =
        engine.snapshot().edges.iter().map(|edge| edge.judgement.verdicts.len()).collect();
    assert_eq!((judged, engine.snapshot().unjudged), (vec![0, 0, 2], 2));
}

#[test]
fn a_workload_gets_a_quarter_of_the_edges_and_a_full_table_refuses_and_counts() {
    let config = EngineConfig { edges_max: 2, ..EngineConfig::default() };
    let all = (1..=3).map(|port| flow(1, EGRESS, "10.0.0.20", port, (110, 110)));
    let others = (1..=2).map(|port| flow(2, EGRESS, "10.0.0.10", port, (110, 110)));
    let mut engine = run_with(config, with([flows(all.chain(others))]));
    let snapshot = engine.snapshot();
    assert_eq!(snapshot.lost, BTreeMap::from([(STAGE_EDGES_QUOTA, 2), (STAGE_EDGES_FULL, 1)]));
    assert_eq!((snapshot.edges.len(), snapshot.tables["edges"]), (2, (2, 2)));
    let totals = VerdictTotals::from([
        ((ENFORCED.into(), Direction::Egress, Decision::Allowed, Reason::NotIsolated), 5),
        ((DEFAULT_DENY.into(), Direction::Egress, Decision::Denied, Reason::NoRuleMatched), 5),
    ]);
    assert_eq!(snapshot.verdict_totals, totals);
}

#[test]
fn a_candidate_is_judged_with_what_is_enforced_and_replaces_by_name() {
    let deny_all = json!({"podSelector": {}, "policyTypes": ["Ingress"]});
    let allow_web = json!({"policyTypes": ["Ingress"],
        "podSelector": {"matchLabels": {"app": "db"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}]});
    let bad = json!({"podSelector": {}, "ingress": [{"from": [{}]}]});
    let enforce = |name: &str, spec: &Value| {
        let policy = Change::Applied(policy("shop", name, spec.clone()));
        Input::Cluster(vec![policy], t(100))
    };
    let candidate = |name: &str, objects: Vec<Object>| candidate(name, objects, 100);
    let ask = |inputs: Vec<Input>| {
        let ask = flows([flow(2, INGRESS, "10.0.0.10", 5432, (110, 110))]);
        let mut engine = run(with([ask].into_iter().chain(inputs)));
        (judged(&mut engine), engine.rejections().len())
    };
    let (lines, rejected) = ask(vec![
        candidate("deny", vec![policy("shop", "p", deny_all.clone())]),
        candidate("mend", vec![policy("shop", "p", allow_web.clone())]),
        candidate("bad", vec![policy("shop", "p", bad), pod_object(pod("a", "b", "", 1))]),
        candidate("enforced", vec![]),
    ]);
    assert_eq!(
        lines,
        ["shop/Pod/db bad=allowed:egress:not_isolated[unchanged_allowed] \
          default-deny=denied:egress:no_rule_matched[newly_denied] \
          deny=denied:ingress:no_rule_matched[newly_denied] \
          enforced=allowed:egress:not_isolated \
          mend=allowed:egress:not_isolated[unchanged_allowed]"]
    );
    assert_eq!(rejected, 2);
    let (lines, _) = ask(vec![
        enforce("p", &deny_all),
        candidate("add", vec![policy("shop", "q", allow_web.clone())]),
        candidate(
            "replace",
            vec![policy("shop", "p", json!({"podSelector": {"matchLabels": {"a": "b"}}}))],
        ),
        candidate("same", vec![]),
    ]);
    assert_eq!(
        lines,
        ["shop/Pod/db add=allowed:egress:not_isolated[newly_allowed] \
          default-deny=denied:egress:no_rule_matched[unchanged_denied] \
          enforced=denied:ingress:no_rule_matched \
          replace=allowed:egress:not_isolated[newly_allowed] \
          same=denied:ingress:no_rule_matched[unchanged_denied]"]
    );
}

#[test]
fn a_candidate_removes_enforced_policies() {
    let deny_all = json!({"podSelector": {}, "policyTypes": ["Ingress"]});
    let removes = |name: &str, policy: &str| {
        let gone = ObjectRef {
            kind: Kind::NetworkPolicy,
            api_kind: String::new(),
            namespace: "shop".to_owned(),
            name: policy.to_owned(),
            uid: None,
        };
        let candidate = Candidate { objects: Vec::new(), removed: vec![gone] };
        Input::Candidate(name.into(), candidate, t(100))
    };
    let mut engine = run(with([
        Input::Cluster(vec![Change::Applied(policy("shop", "p", deny_all))], t(100)),
        removes("open", "p"),
        removes("typo", "q"),
        flows([flow(2, INGRESS, "10.0.0.10", 5432, (110, 110))]),
    ]));
    assert_eq!(
        judged(&mut engine),
        ["shop/Pod/db default-deny=denied:egress:no_rule_matched[unchanged_denied] \
          enforced=denied:ingress:no_rule_matched \
          open=allowed:egress:not_isolated[newly_allowed] \
          typo=denied:ingress:no_rule_matched[unchanged_denied]"]
    );
    let rejections: Vec<String> = engine
        .rejections()
        .iter()
        .map(|each| format!("{}: {}", each.policy_set, each.rejection.object))
        .collect();
    assert_eq!(rejections, ["typo: NetworkPolicy shop/q"]);
}

#[test]
fn a_changed_policy_gives_up_the_pods_it_selected_before() {
    let deny = |app: &str| {
        let spec =
            json!({"podSelector": {"matchLabels": {"app": app}}, "policyTypes": ["Ingress"]});
        Input::Cluster(vec![Change::Applied(policy("shop", "p", spec))], t(100))
    };
    let ask = flows([flow(2, INGRESS, "10.0.0.10", 5432, (110, 110))]);
    let mut engine = run(with([deny("db"), ask]));
    let decision =
        |engine: &mut Engine| engine.snapshot().edges[0].judgement.verdicts[ENFORCED].decision;
    assert_eq!(decision(&mut engine), Decision::Denied);
    engine.step(deny("other"));
    assert_eq!(decision(&mut engine), Decision::Allowed);
    engine.step(deny("db"));
    assert_eq!(decision(&mut engine), Decision::Denied);
}

#[test]
fn relabelled_pods_and_namespaces_are_judged_anew() {
    let from_a = json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{"from": [
        {"namespaceSelector": {"matchLabels": {"team": "a"}},
         "podSelector": {"matchLabels": {"app": "web"}}}]}]});
    let namespace = |team: &str| {
        let metadata = json!({"name": "shop", "labels": {"team": team}});
        Change::Applied(Object::Namespace(read(json!({ "metadata": metadata }))))
    };
    let mut engine = run(with([
        Input::Cluster(vec![Change::Applied(policy("shop", "p", from_a)), namespace("a")], t(100)),
        flows([flow(2, INGRESS, "10.0.0.10", 5432, (110, 110))]),
    ]));
    let decision =
        |engine: &mut Engine| engine.snapshot().edges[0].judgement.verdicts[ENFORCED].decision;
    assert_eq!(decision(&mut engine), Decision::Allowed);
    engine.step(Input::Cluster(vec![namespace("b")], t(120)));
    assert_eq!(decision(&mut engine), Decision::Denied);
    engine.step(Input::Cluster(vec![namespace("a")], t(121)));
    assert_eq!(decision(&mut engine), Decision::Allowed);
    let other = set(pod("shop", "web", "10.0.0.10", 10), "/metadata/labels", json!({"app": "x"}));
    engine.step(Input::Cluster(vec![applied_pod(other)], t(122)));
    assert_eq!(decision(&mut engine), Decision::Denied);
}

#[test]
fn the_worst_of_a_workloads_pods_speaks_for_its_edge() {
    let replica = |name: &str, ip: &str, version: &str| {
        let mut value = pod("shop", name, ip, 10);
        value["metadata"]["ownerReferences"] =
            json!([{"kind": "StatefulSet", "name": "api", "controller": true}]);
        applied_pod(set(value, "/metadata/labels", json!({"app": "api", "version": version})))
    };
    let only_v1 = json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{"from": [
        {"podSelector": {"matchLabels": {"version": "1"}}}]}]});
    let mut engine = run(with([
        Input::Cluster(
            vec![replica("api-0", "10.0.0.50", "1"), replica("api-1", "10.0.0.51", "2")],
            t(100),
        ),
        candidate("c", vec![policy("shop", "p", only_v1)], 100),
        flows([
            flow(2, INGRESS, "10.0.0.50", 5432, (110, 110)),
            flow(2, INGRESS, "10.0.0.51", 5432, (110, 110)),
        ]),
    ]));
    assert_eq!(
        seen(&mut engine),
        ["shop/StatefulSet/api -> shop/Pod/db 6/5432 ingress answered=2"]
    );
    let edge = engine.snapshot().edges[0].clone();
    assert_eq!(edge.judgement.deltas["c"], crate::verdict::Delta::NewlyDenied);
    assert!(edge.would_be_denied("c") && !edge.would_be_denied(ENFORCED));
    let key = |decision, reason| ("c".into(), Direction::Ingress, decision, reason);
    let mut totals = engine.snapshot().verdict_totals.clone();
    totals.retain(|(set, ..), _| &**set == "c");
    let expected = VerdictTotals::from([
        (key(Decision::Allowed, Reason::RuleMatched), 1),
        (key(Decision::Denied, Reason::NoRuleMatched), 1),
    ]);
    assert_eq!(totals, expected);
}

#[test]
fn the_same_inputs_make_the_same_snapshot_in_json() {
    let inputs = with([
        flows([
            flow(1, EGRESS, "10.0.0.20", 5432, (110, 110)),
            flow(1, EGRESS, "10.0.0.77", 5432, (110, 110)),
        ]),
        records([Record::Lost { stage: "ring_full", count: 4 }]),
        candidate("c", vec![pod_object(pod("a", "b", "", 1))], 100),
        Input::Tick(t(300)),
    ]);
    let json = |mut engine: Engine| serde_json::to_value(&*engine.snapshot()).expect("JSON");
    let first = json(run(inputs.clone()));
    assert_eq!(first, json(run(inputs)));
    assert_eq!(first["lost"], json!({"ring_full": 4}));
    let unattributed = json!([{"side": "target", "reason": "no_holder", "count": 1}]);
    assert_eq!(first["unattributed"], unattributed);
    assert_eq!(first["notices"][0]["policy_set"], json!("c"));
    assert_eq!(first["verdict_totals"][0]["policy_set"], json!("c"));
}

/// Flows of web to so many outside addresses.
fn outside(addresses: u8, port: u16, at: u64) -> Input {
    let peers = (1..=addresses).map(|last| format!("203.0.113.{last}"));
    flows(peers.map(|peer| flow(1, EGRESS, &peer, port, (at, at))))
}

#[test]
fn edges_of_which_all_sets_say_the_same_share_one_judgement() {
    let mut engine = run(with([outside(200, 443, 110)]));
    let shared = |snapshot: &Snapshot| {
        let first = Arc::clone(&snapshot.edges[0].judgement);
        assert!(snapshot.edges.iter().all(|edge| Arc::ptr_eq(&edge.judgement, &first)));
        (snapshot.edges.len(), first)
    };
    let (edges, before) = shared(&engine.snapshot());
    assert_eq!((edges, engine.judgements.len()), (200, 1));
    // Judged anew, all of them are one again, and of the old one nothing is left.
    let deny = policy("shop", "deny", json!({"podSelector": {}, "policyTypes": ["Egress"]}));
    engine.step(Input::Cluster(vec![Change::Applied(deny)], t(120)));
    let (edges, after) = shared(&engine.snapshot());
    assert_eq!((edges, engine.judgements.len()), (200, 2));
    assert_eq!(before.verdicts[ENFORCED].decision, Decision::Allowed);
    assert_eq!(after.verdicts[ENFORCED].decision, Decision::Denied);
    drop(before);
    engine.step(outside(1, 444, 121));
    assert_eq!((engine.snapshot().edges.len(), engine.judgements.len()), (201, 1));
}

#[test]
fn an_edge_that_is_judged_as_before_stays_as_it_was_published() {
    let mut engine = run(with([outside(2, 443, 110)]));
    let before = engine.snapshot();
    engine.ledger.forget_judgements(|_| true);
    let after = engine.snapshot();
    let same = |(old, new): (&Arc<Edge>, &Arc<Edge>)| Arc::ptr_eq(old, new);
    assert!(before.edges.iter().zip(&after.edges).all(same));
    // A changed one is another version, under the same key and judgement.
    engine.step(outside(1, 443, 111));
    let changed = engine.snapshot();
    let (old, new) = (&after.edges[0], &changed.edges[0]);
    assert_eq!((old.counts.attempts, new.counts.attempts), (1, 2));
    assert!(Arc::ptr_eq(&old.key, &new.key) && Arc::ptr_eq(&old.judgement, &new.judgement));
    assert!(Arc::ptr_eq(&after.edges[1], &changed.edges[1]));
}

#[test]
fn an_edge_is_written_as_it_always_was() {
    let mut engine = run(with([outside(1, 443, 110)]));
    let edge = serde_json::to_value(&*engine.snapshot().edges[0]).expect("JSON");
    assert_eq!(edge["outcomes"], json!({"answered": 1}));
    assert_eq!(edge["names"], json!({"addresses": [], "also": [], "is_cut": false}));
    assert_eq!(edge["verdicts"][ENFORCED]["decision"], json!("allowed"));
    assert_eq!(edge["deltas"], json!({"default-deny": "newly_denied"}));
    let mut fields: Vec<_> = edge.as_object().expect("an object").keys().cloned().collect();
    fields.sort();
    let expected = [
        "counts",
        "deltas",
        "first_seen",
        "key",
        "last_seen",
        "names",
        "open",
        "outcomes",
        "verdicts",
    ];
    assert_eq!(fields, expected);
}

/// One UDP answer to this cgroup.
fn told(cgroup_id: u64, name: &str, address: &str, at: u64) -> Record {
    use simple_dns::rdata::{A, RData};
    use simple_dns::{CLASS, Name, Packet, QCLASS, QTYPE, Question, ResourceRecord, TYPE};
    let mut packet = Packet::new_reply(1);
    let name = Name::new(name).expect("a name");
    let kind = QTYPE::TYPE(TYPE::A);
    packet.questions.push(Question::new(name.clone(), kind, QCLASS::CLASS(CLASS::IN), false));
    let ip: std::net::Ipv4Addr = address.parse().expect("an address");
    let data = RData::A(A { address: ip.into() });
    packet.answers.push(ResourceRecord::new(name, CLASS::IN, 60, data));
    let payload = packet.build_bytes_vec().expect("a message");
    let carrier = crate::record::DnsCarrier::Udp { is_cut: false };
    Record::Dns(crate::record::DnsRecord { cgroup_id, at: t(at), carrier, payload })
}

#[test]
fn only_outside_targets_of_the_pod_that_asked_have_names() {
    let mut engine = run(base());
    let outside = "203.0.113.7";
    engine.step(records([
        told(1, "api.example", outside, 110),
        told(1, "other.example", "203.0.113.8", 110),
        told(1, "api.example", "203.0.113.9", 110),
        told(1, "db.shop.example", "10.0.0.20", 110),
        told(1, "node.example", "192.168.0.1", 110),
    ]));
    engine.step(flows([
        flow(1, EGRESS, outside, 443, (111, 112)),
        flow(1, EGRESS, "203.0.113.9", 443, (111, 112)),
        flow(1, EGRESS, "203.0.113.8", 443, (109, 112)),
        flow(1, INGRESS, outside, 80, (111, 112)),
        flow(1, EGRESS, "10.0.0.20", 5432, (111, 112)),
        flow(1, EGRESS, "192.168.0.1", 10250, (111, 112)),
        flow(2, EGRESS, outside, 443, (111, 112)),
    ]));
    let snapshot = engine.snapshot();
    let ends = |edge: &Arc<Edge>| {
        let addresses: Vec<_> =
            edge.names.iter().flat_map(|names| &names.addresses).map(ToString::to_string).collect();
        let (source, target) = (end_line(&edge.key.source), end_line(&edge.key.target));
        format!("{source} {target} {}", addresses.join(" "))
    };
    let mut found: Vec<_> = snapshot.edges.iter().map(ends).collect();
    found.sort();
    let mut named = found.clone();
    named.retain(|line| line.contains("name/"));
    assert_eq!(named.len(), 1, "{found:#?}");
    assert!(named[0].ends_with("name/api.example 203.0.113.7 203.0.113.9"), "{named:?}");
    assert_eq!(found.len(), 6, "{found:#?}");
    assert_eq!(snapshot.tables["names"].0, 5);
}
