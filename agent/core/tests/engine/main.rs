//! An engine whose cluster changes says what one says that saw the cluster only as it ended.
//!
//! In: random changes of policies, candidates, labels. Out: passed, or the shortest list of changes
//! after which some edge keeps a verdict it must not keep.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parapet_core::engine::{Candidate, Engine, EngineConfig, Input};
use parapet_core::flow::{Direction, Protocol, Timestamp};
use parapet_core::identity::NodeFacts;
use parapet_core::object::{Change, Kind, Object, ObjectRef};
use parapet_core::record::{Counts, FlowRecord, Record};
use parapet_core::snapshot::EdgeKey;
use parapet_core::verdict::Verdict;
use proptest::bool::weighted;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

/// Everything that can change, by its place in the pools below.
#[derive(Clone, Debug, Default)]
struct State {
    policies: BTreeSet<usize>,
    candidate: BTreeSet<usize>,
    removed: BTreeSet<usize>,
    team: [usize; 2],
    app: [usize; 3],
    zone: usize,
}

#[derive(Clone, Copy, Debug)]
enum Edit {
    Apply(usize),
    Delete(usize),
    Propose(usize),
    Withdraw(usize),
    Remove(usize),
    Keep(usize),
    Team(usize, usize),
    App(usize, usize),
    Zone(usize),
}

const LABELS: [&str; 3] = ["a", "b", "c"];
const PODS: [(&str, &str, &str); 3] =
    [("x", "web", "10.0.0.1"), ("y", "api", "10.0.0.2"), ("y", "db", "10.0.0.3")];

fn edit() -> impl Strategy<Value = Edit> {
    let policy = 0..pool().len();
    let label = 0..LABELS.len();
    prop_oneof![
        3 => policy.clone().prop_map(Edit::Apply),
        2 => policy.clone().prop_map(Edit::Delete),
        2 => policy.clone().prop_map(Edit::Propose),
        1 => policy.clone().prop_map(Edit::Withdraw),
        1 => policy.clone().prop_map(Edit::Remove),
        1 => policy.prop_map(Edit::Keep),
        2 => (0..2_usize, label.clone()).prop_map(|(at, label)| Edit::Team(at, label)),
        2 => (0..3_usize, label.clone()).prop_map(|(at, label)| Edit::App(at, label)),
        1 => label.prop_map(Edit::Zone),
    ]
}

/// Policies of every kind; some share their name, so that one takes the other's place.
fn pool() -> Vec<Object> {
    let netpol = |namespace: &str, name: &str, spec: Value| {
        let metadata = json!({"namespace": namespace, "name": name});
        Object::NetworkPolicy(read(json!({"metadata": metadata, "spec": spec})))
    };
    let cluster = |name: &str, tier: &str, priority: u8, rules: Value| {
        let mut spec = json!({"tier": tier, "priority": priority, "subject": {"namespaces": {}}});
        spec.as_object_mut().unwrap().extend(rules.as_object().unwrap().clone());
        let metadata = json!({"name": name});
        Object::ClusterNetworkPolicy(read(json!({"metadata": metadata, "spec": spec})))
    };
    vec![
        netpol("y", "p", json!({"podSelector": {}})),
        netpol(
            "y",
            "p",
            json!({"podSelector": {}, "ingress": [{"from": [
            {"namespaceSelector": {"matchLabels": {"team": "a"}}}]}]}),
        ),
        netpol(
            "y",
            "q",
            json!({"podSelector": {"matchLabels": {"app": "a"}}, "ingress": [
            {"from": [{"podSelector": {"matchLabels": {"app": "b"}}}]}]}),
        ),
        netpol(
            "x",
            "p",
            json!({"podSelector": {"matchLabels": {"app": "a"}},
            "policyTypes": ["Egress"], "egress": [
            {"to": [{"namespaceSelector": {"matchLabels": {"team": "b"}},
                     "podSelector": {"matchLabels": {"app": "b"}}}]}]}),
        ),
        netpol("x", "q", json!({"policyTypes": ["Egress"], "podSelector": {}})),
        cluster(
            "a",
            "Admin",
            1,
            json!({"ingress": [{"action": "Deny", "from": [
            {"pods": {"namespaceSelector": {"matchLabels": {"team": "c"}}, "podSelector": {}}}]}]}),
        ),
        cluster(
            "b",
            "Admin",
            2,
            json!({"egress": [
            {"action": "Accept", "to": [{"namespaces": {"matchLabels": {"team": "a"}}}]},
            {"action": "Deny", "to": [{"nodes": {"matchLabels": {"zone": "a"}}}]}]}),
        ),
        cluster(
            "c",
            "Baseline",
            1,
            json!({"ingress": [{"action": "Deny", "from": [
            {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "c"}}}}]}]}),
        ),
        netpol("y", "bad", json!({"podSelector": {}, "ingress": [{"from": [{}]}]})),
    ]
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn named(object: &Object) -> ObjectRef {
    let meta = object.meta();
    ObjectRef {
        kind: object.kind(),
        api_kind: String::new(),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: None,
    }
}

impl State {
    fn objects(&self) -> Vec<Object> {
        let names = ["x", "y"].into_iter().zip(self.team);
        let namespaces = names.map(|(name, team)| {
            let labels = json!({"team": LABELS[team]});
            Object::Namespace(read(json!({"metadata": {"name": name, "labels": labels}})))
        });
        let pods = PODS.iter().zip(self.app).map(|((namespace, name, ip), app)| {
            Object::Pod(Box::new(read(json!({
                "metadata": {"namespace": namespace, "name": name, "uid": format!("uid-{name}"),
                    "labels": {"app": LABELS[app]}},
                "spec": {"nodeName": "n1", "containers": []},
                "status": {"phase": "Running", "podIP": ip, "startTime": "1970-01-01T00:00:01Z"},
            }))))
        });
        let node = Object::Node(read(json!({
            "metadata": {"name": "n2", "labels": {"zone": LABELS[self.zone]}},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.168.0.2"}]},
        })));
        namespaces.chain(pods).chain([node]).collect()
    }

    fn proposed(&self) -> Candidate {
        let pool = pool();
        Candidate {
            objects: self.candidate.iter().map(|at| pool[*at].clone()).collect(),
            removed: self.removed.iter().map(|at| named(&pool[*at])).collect(),
        }
    }

    /// What the engine is told of an edit, once it is made here.
    fn take(&mut self, edit: Edit) -> Input {
        let pool = pool();
        let at = Timestamp(10_000_000_000);
        let same_name = |other: &usize, at: usize| named(&pool[*other]) == named(&pool[at]);
        let applied = |object: Object| Input::Cluster(vec![Change::Applied(object)], at);
        match edit {
            Edit::Apply(policy) => {
                self.policies.retain(|other| !same_name(other, policy));
                self.policies.insert(policy);
                applied(pool[policy].clone())
            }
            Edit::Delete(policy) => {
                self.policies.retain(|other| !same_name(other, policy));
                Input::Cluster(vec![Change::Deleted(named(&pool[policy]))], at)
            }
            Edit::Propose(_) | Edit::Withdraw(_) | Edit::Remove(_) | Edit::Keep(_) => {
                match edit {
                    Edit::Propose(policy) => self.candidate.insert(policy),
                    Edit::Withdraw(policy) => self.candidate.remove(&policy),
                    Edit::Remove(policy) => self.removed.insert(policy),
                    Edit::Keep(policy) => self.removed.remove(&policy),
                    _ => false,
                };
                Input::Candidate("c".into(), self.proposed(), at)
            }
            Edit::Team(namespace, label) => {
                self.team[namespace] = label;
                applied(self.objects()[namespace].clone())
            }
            Edit::App(pod, label) => {
                self.app[pod] = label;
                applied(self.objects()[2 + pod].clone())
            }
            Edit::Zone(label) => {
                self.zone = label;
                applied(self.objects()[5].clone())
            }
        }
    }
}

/// All three pods run here and talk to each other and to the other node.
fn flows() -> Input {
    let cgroups = PODS.iter().enumerate().map(|(index, (_, name, _))| Record::CgroupCreated {
        cgroup_id: index as u64,
        path: format!("/kubepods/poduid-{name}/c"),
        at: Timestamp(1),
    });
    let peers: Vec<&str> = PODS.iter().map(|(_, _, ip)| *ip).chain(["192.168.0.2"]).collect();
    let pairs = (0..PODS.len()).flat_map(|local| peers.iter().map(move |peer| (local, *peer)));
    let directions = [Direction::Egress, Direction::Ingress];
    let records = pairs.flat_map(|pair| directions.map(|direction| (pair, direction)));
    let records = records.map(|((local, peer), direction)| {
        Record::Flow(FlowRecord {
            cgroup_id: local as u64,
            peer: peer.parse().unwrap(),
            local_addr: None,
            local_port: None,
            translation: parapet_core::identity::Translation::default(),
            service_port: 80,
            protocol: Protocol::TCP,
            direction: Some(direction),
            since: Timestamp(5_000_000_000),
            last_seen: Timestamp(6_000_000_000),
            counts: Counts { attempts: 1, answered: 1, ..Counts::default() },
        })
    });
    Input::Records(cgroups.chain(records).collect())
}

fn engine(state: &State) -> Engine {
    let config = EngineConfig { candidates: vec!["c".into()], ..EngineConfig::default() };
    let mut engine = Engine::new(config);
    let addrs = vec!["192.168.0.1".parse().unwrap()];
    engine.step(Input::Node(NodeFacts { name: "n1".to_owned(), addrs, ..NodeFacts::default() }));
    let pool = pool();
    let policies = state.policies.iter().map(|at| pool[*at].clone());
    let objects = state.objects().into_iter().chain(policies).map(Change::Applied);
    let listing = Kind::ALL.map(Change::Listing).into_iter();
    let changes = listing.chain(objects).chain(Kind::ALL.map(Change::Listed)).collect();
    engine.step(Input::Cluster(changes, Timestamp(2_000_000_000)));
    engine.step(Input::Candidate("c".into(), state.proposed(), Timestamp(2_000_000_000)));
    engine.step(flows());
    engine
}

type Verdicts = BTreeMap<EdgeKey, BTreeMap<Arc<str>, Arc<Verdict>>>;

fn verdicts(engine: &mut Engine) -> Verdicts {
    let snapshot = engine.snapshot();
    snapshot.edges.iter().map(|edge| (edge.key.clone(), edge.verdicts.clone())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(1_500)
    })]

    #[test]
    fn what_changed_is_judged_as_if_it_had_always_been_so(
        edits in vec((edit(), weighted(0.7)), 1..12),
    ) {
        let mut state = State { app: [0, 1, 2], ..State::default() };
        let mut changed = engine(&state);
        for (edit, looks) in edits {
            changed.step(state.take(edit));
            // Whoever looks has verdicts made, which must be given up later where they do not hold.
            if looks {
                changed.snapshot();
            }
        }
        let (changed, anew) = (verdicts(&mut changed), verdicts(&mut engine(&state)));
        prop_assert_eq!(changed.len(), 24);
        prop_assert_eq!(changed, anew);
    }
}
