//! What happens to the objects of a cluster, one kind's events in the order they happened.
//!
//! In: steps, picked at random. Out: per kind the events with the time of each, and what is there
//! at any time.

use std::collections::BTreeMap;

use parapet_core::flow::Timestamp;
use parapet_core::object::{Change, Kind, Object, ObjectRef};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{t, time};

/// Seconds from one step to the next.
pub(crate) const STEP: u64 = 20;
pub(crate) const ADDRS: [&str; 3] = ["10.0.0.2", "10.0.0.3", "fd00::3"];
const LETTERS: [&str; 3] = ["a", "b", "c"];
pub(crate) const SERVICE_ADDR: &str = "10.96.0.1";

#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// A pod of this name begins, with this address.
    Begin(usize, usize),
    Relabel(usize, usize),
    Finish(usize),
    Delete(usize),
    Namespace(usize),
    Policy(usize, usize),
    NoPolicy(usize),
    /// The Service's slice names these addresses.
    Slice(usize),
    Service(usize),
    NoService,
    Node(usize),
}

/// Namespace and name of an object of a kind.
type Key = (String, String);
type Event = (Change, Timestamp);

#[derive(Clone, Debug, Default)]
pub(crate) struct Story {
    /// What is there from the beginning.
    pub(crate) first: Vec<Object>,
    pub(crate) events: BTreeMap<Kind, Vec<Event>>,
    pub(crate) end: u64,
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..3_usize, 0..3_usize).prop_map(|(name, addr)| Step::Begin(name, addr)),
        2 => (0..3_usize, 0..2_usize).prop_map(|(name, label)| Step::Relabel(name, label)),
        2 => (0..3_usize).prop_map(Step::Finish),
        4 => (0..3_usize).prop_map(Step::Delete),
        2 => (0..3_usize).prop_map(Step::Namespace),
        2 => (0..2_usize, 0..3_usize).prop_map(|(name, spec)| Step::Policy(name, spec)),
        1 => (0..2_usize).prop_map(Step::NoPolicy),
        2 => (0..8_usize).prop_map(Step::Slice),
        1 => (0..2_usize).prop_map(Step::Service),
        1 => Just(Step::NoService),
        1 => (0..2_usize).prop_map(Step::Node),
    ];
    proptest::collection::vec(step, 1..24)
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn pod(value: &Value) -> Object {
    Object::Pod(Box::new(read(value.clone())))
}

pub(crate) fn watcher() -> Object {
    pod(&json!({
        "metadata": {"namespace": "ns", "name": "watcher", "uid": crate::WATCHER.1,
            "labels": {"app": "watcher"}},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "startTime": time(0)},
    }))
}

fn namespace(team: usize) -> Object {
    let metadata = json!({"name": "ns", "labels": {"team": LETTERS[team]}});
    Object::Namespace(read(json!({ "metadata": metadata })))
}

pub(crate) fn node(zone: usize) -> Object {
    Object::Node(read(json!({
        "metadata": {"name": "n1", "labels": {"zone": LETTERS[zone]}},
        "spec": {"podCIDRs": ["10.0.0.0/24", "fd00::/64"]},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.168.0.1"}]},
    })))
}

fn policy(name: usize, spec: usize) -> Object {
    let spec = [
        json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
        json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [
            {"to": [{"podSelector": {"matchLabels": {"app": "a"}}}]}]}),
        json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [
            {"to": [{"namespaceSelector": {"matchLabels": {"team": "b"}}}]}]}),
    ][spec]
        .clone();
    let metadata = json!({"namespace": "ns", "name": format!("policy-{name}")});
    Object::NetworkPolicy(read(json!({"metadata": metadata, "spec": spec})))
}

fn service(port: usize) -> Object {
    let (metadata, target) = (json!({"namespace": "ns", "name": "s"}), [8080, 9090][port]);
    Object::Service(read(json!({"metadata": metadata, "spec": {
        "clusterIP": SERVICE_ADDR, "ports": [{"port": 80, "targetPort": target}]}})))
}

fn slice(addrs: usize) -> Object {
    let chosen: Vec<_> = (0..2).filter(|at| addrs & (1 << at) != 0).map(|at| ADDRS[at]).collect();
    let labels = json!({"kubernetes.io/service-name": "s"});
    Object::EndpointSlice(read(json!({
        "metadata": {"namespace": "ns", "name": "s-1", "labels": labels}, "addressType": "IPv4",
        "endpoints": chosen.iter().map(|addr| json!({"addresses": [addr]})).collect::<Vec<_>>(),
        "ports": [{"port": 8080}],
    })))
}

pub(crate) fn key(object: &Object) -> Key {
    (object.meta().namespace.clone(), object.meta().name.clone())
}

impl Story {
    pub(crate) fn of(steps: &[Step]) -> Self {
        let first = vec![namespace(0), node(0), watcher()];
        let mut story = Self { first, ..Self::default() };
        let mut pods: [Option<Value>; 3] = Default::default();
        for (n, step) in steps.iter().enumerate() {
            let at = (n as u64 + 1) * STEP;
            story.end = at + STEP;
            match *step {
                Step::Begin(name, addr) if pods[name].is_none() => {
                    let mut value = json!({
                        "metadata": {"namespace": "ns", "name": format!("p{name}"),
                            "uid": format!("u{n}"), "labels": {"app": "a"},
                            "creationTimestamp": time(at)},
                        "status": {"phase": "Pending"},
                    });
                    story.applied(pod(&value), at);
                    value["status"] = json!({"phase": "Running", "podIP": ADDRS[addr],
                        "startTime": time(at + 1)});
                    story.applied(pod(&value), at + 3);
                    pods[name] = Some(value);
                }
                Step::Relabel(name, label) => {
                    let Some(value) = &mut pods[name] else { continue };
                    value["metadata"]["labels"] = json!({"app": LETTERS[label]});
                    story.applied(pod(value), at);
                }
                Step::Finish(name) => {
                    let Some(value) = &mut pods[name] else { continue };
                    value["status"]["phase"] = json!("Succeeded");
                    story.applied(pod(value), at);
                }
                Step::Delete(name) => {
                    let Some(value) = pods[name].take() else { continue };
                    story.deleted(&pod(&value), at);
                }
                Step::Namespace(team) => story.applied(namespace(team), at),
                Step::Policy(name, spec) => story.applied(policy(name, spec), at),
                Step::NoPolicy(name) => story.deleted(&policy(name, 0), at),
                Step::Slice(addrs) => story.applied(slice(addrs), at),
                Step::Service(port) => story.applied(service(port), at),
                Step::NoService => story.deleted(&service(0), at),
                Step::Node(zone) => story.applied(node(zone), at),
                Step::Begin(..) => {}
            }
        }
        story
    }

    fn applied(&mut self, object: Object, at: u64) {
        let events = self.events.entry(object.kind()).or_default();
        events.push((Change::Applied(object), t(at)));
    }

    fn deleted(&mut self, object: &Object, at: u64) {
        let (namespace, name) = key(object);
        let uid = Some(object.meta().uid.clone()).filter(|uid| !uid.is_empty());
        let (kind, api_kind) = (object.kind(), String::new());
        let gone = ObjectRef { kind, api_kind, namespace, name, uid };
        self.events.entry(kind).or_default().push((Change::Deleted(gone), t(at)));
    }

    /// The first lists of every kind.
    pub(crate) fn lists(&self) -> Vec<Event> {
        let list = |kind| Change::list(kind, self.first.clone());
        Kind::ALL.into_iter().flat_map(list).map(|change| (change, t(1))).collect()
    }

    /// What a full list holds after so many events of a kind.
    pub(crate) fn there(&self, kind: Kind, events: usize) -> Vec<Object> {
        let first = self.first.iter().filter(|object| object.kind() == kind).cloned();
        let mut there: BTreeMap<Key, Object> = first.map(|object| (key(&object), object)).collect();
        for (change, _) in &self.events[&kind][..events] {
            match change {
                Change::Applied(object) => {
                    there.insert(key(object), object.clone());
                }
                Change::Deleted(gone) => {
                    there.remove(&(gone.namespace.clone(), gone.name.clone()));
                }
                Change::Listing(_) | Change::Listed(_) => unreachable!("a story has no lists"),
            }
        }
        there.into_values().collect()
    }
}
