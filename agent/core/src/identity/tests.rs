//! The index alone: owners, limits of what it believes, and that order does not matter.
//!
//! In: changes written down by hand or made up by proptest. Out: assertions on resolved ends. It
//! never judges.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::flow::{Direction, End, Endpoint, Protocol};
use crate::record::{Counts, FlowRecord};

const SECOND: u64 = 1_000_000_000;

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("the test's object is well-formed")
}

fn pod(name: &str, uid: &str, ip: &str, start: u64) -> Value {
    json!({
        "metadata": {"namespace": "ns", "name": name, "uid": uid, "labels": {"app": name}},
        "status": {"phase": "Running", "podIP": ip,
            "startTime": format!("1970-01-01T00:{:02}:{:02}Z", start / 60, start % 60)},
    })
}

fn applied(value: Value) -> Change {
    Change::Applied(Object::Pod(Box::new(read(value))))
}

/// A full list of pods, as it comes.
fn list(index: &mut Index, pods: impl IntoIterator<Item = Object>, at: Timestamp) {
    Change::list(Kind::Pod, pods).for_each(|change| {
        index.apply(&change, at);
    });
}

fn workload(kind: &str, name: &str, uid: &str, owner: Option<(&str, &str)>) -> Change {
    let owners =
        owner.map(|(kind, name)| json!([{"kind": kind, "name": name, "controller": true}]));
    let metadata = json!({"namespace": "ns", "name": name, "uid": uid,
        "ownerReferences": owners.unwrap_or(json!([]))});
    let mut object: crate::object::WorkloadObject = read(json!({ "metadata": metadata }));
    object.api_kind = kind.to_owned();
    Change::Applied(Object::Workload(object))
}

fn ask(index: &mut Index, peer: &str, at: u64) -> End {
    index.cgroup_created(1, "/system.slice/x");
    let record = FlowRecord {
        cgroup_id: 1,
        peer: peer.parse().expect("an address"),
        local_addr: None,
        local_port: None,
        translation: crate::identity::Translation::default(),
        service_port: 80,
        protocol: Protocol::TCP,
        direction: Some(Direction::Egress),
        since: Timestamp(at * SECOND),
        last_seen: Timestamp(at * SECOND),
        counts: Counts::default(),
    };
    index.resolve(&record).target
}

fn workload_of(changes: &[Change]) -> (String, String) {
    let mut index = Index::default();
    changes.iter().for_each(|change| {
        index.apply(change, Timestamp(SECOND));
    });
    let workload = &index.pod("u").expect("the pod was applied").workload;
    (workload.kind.to_string(), workload.name.to_string())
}

#[test]
fn a_pod_belongs_to_the_top_of_its_owners() {
    let owned = |kind: &str, name: &str, labels: Value| {
        let mut value = pod("p", "u", "10.0.0.1", 1);
        value["metadata"]["labels"] = labels;
        value["metadata"]["ownerReferences"] = json!([{"kind": "X", "name": "x"},
            {"kind": kind, "name": name, "uid": "o", "controller": true}]);
        applied(value)
    };
    let named = |kind: &str, name: &str| (kind.to_owned(), name.to_owned());
    let replica = owned("ReplicaSet", "web-5d4f", json!({"pod-template-hash": "5d4f"}));
    let set = |owner| workload("ReplicaSet", "web-5d4f", "o", owner);
    assert_eq!(workload_of(&[applied(pod("p", "u", "", 1))]), named("Pod", "p"));
    assert_eq!(workload_of(&[owned("Node", "n1", json!({}))]), named("Pod", "p"));
    assert_eq!(workload_of(&[owned("DaemonSet", "d", json!({}))]), named("DaemonSet", "d"));
    // Without the ReplicaSet only the label tells that a Deployment made it.
    assert_eq!(workload_of(std::slice::from_ref(&replica)), named("Deployment", "web"));
    let bare = owned("ReplicaSet", "web-5d4f", json!({}));
    assert_eq!(workload_of(&[bare]), named("ReplicaSet", "web-5d4f"));
    // With it, what it says counts, in either order; another object of that name is not it.
    let rollout = set(Some(("Rollout", "roll")));
    assert_eq!(workload_of(&[replica.clone(), rollout.clone()]), named("Rollout", "roll"));
    assert_eq!(workload_of(&[rollout, replica.clone()]), named("Rollout", "roll"));
    assert_eq!(workload_of(&[replica.clone(), set(None)]), named("ReplicaSet", "web-5d4f"));
    let other = workload("ReplicaSet", "web-5d4f", "other", None);
    assert_eq!(workload_of(&[replica, other]), named("Deployment", "web"));
    let job = owned("Job", "backup-1", json!({}));
    let cron = workload("Job", "backup-1", "o", Some(("CronJob", "backup")));
    assert_eq!(workload_of(std::slice::from_ref(&job)), named("Job", "backup-1"));
    assert_eq!(workload_of(&[cron, job]), named("CronJob", "backup"));
}

#[test]
fn a_full_list_ends_what_it_does_not_hold() {
    let mut index = Index::default();
    let first = read::<crate::object::Pod>(pod("a", "ua", "10.0.0.1", 10));
    let second = read::<crate::object::Pod>(pod("b", "ub", "10.0.0.2", 10));
    let objects = |pods: &[&crate::object::Pod]| {
        pods.iter().map(|pod| Object::Pod(Box::new((*pod).clone()))).collect::<Vec<_>>()
    };
    list(&mut index, objects(&[&first, &second]), Timestamp(20 * SECOND));
    list(&mut index, objects(&[&second]), Timestamp(30 * SECOND));
    let name = |end: End| match end.endpoint {
        Endpoint::Pod(pod) => pod.name.to_string(),
        other => format!("{other:?}"),
    };
    assert_eq!(name(ask(&mut index, "10.0.0.1", 29)), "a");
    assert_eq!(name(ask(&mut index, "10.0.0.1", 30)), "Unknown(NoHolder)");
    assert_eq!(name(ask(&mut index, "10.0.0.2", 30)), "b");
    assert_eq!((index.tables()["pods"].0, index.tables()["pod_tombstones"].0), (1, 1));
    // The list was older than what was known: the pod was there all along.
    list(&mut index, objects(&[&first, &second]), Timestamp(40 * SECOND));
    assert_eq!(name(ask(&mut index, "10.0.0.1", 29)), "a");
    assert_eq!(name(ask(&mut index, "10.0.0.1", 35)), "a");
    assert_eq!(name(ask(&mut index, "10.0.0.1", 40)), "a");
    assert_eq!((index.tables()["pods"].0, index.tables()["pod_tombstones"].0), (2, 0));
}

#[test]
fn a_deletion_of_another_uid_deletes_nothing() {
    let mut index = Index::default();
    index.apply(&applied(pod("a", "new", "10.0.0.1", 10)), Timestamp(10 * SECOND));
    let object = ObjectRef {
        kind: Kind::Pod,
        api_kind: String::new(),
        namespace: "ns".to_owned(),
        name: "a".to_owned(),
        uid: Some("old".to_owned()),
    };
    index.apply(&Change::Deleted(object.clone()), Timestamp(20 * SECOND));
    assert_eq!((index.tables()["pods"].0, index.tables()["pod_tombstones"].0), (1, 0));
    index.apply(&Change::Deleted(ObjectRef { uid: None, ..object }), Timestamp(20 * SECOND));
    assert_eq!((index.tables()["pods"].0, index.tables()["pod_tombstones"].0), (0, 1));
}

#[test]
fn tombstones_are_bounded_and_the_oldest_goes_first() {
    let mut index = Index::default();
    for n in 0..TOMBSTONES_MAX as u64 + 2 {
        let name = format!("p{n}");
        index.apply(&applied(pod(&name, &name, "10.0.0.1", 1)), Timestamp(SECOND));
        let object = ObjectRef {
            kind: Kind::Pod,
            api_kind: String::new(),
            namespace: "ns".to_owned(),
            name: name.clone(),
            uid: Some(name),
        };
        index.apply(&Change::Deleted(object), Timestamp(n));
    }
    assert_eq!(index.tables()["pod_tombstones"].0, TOMBSTONES_MAX as u64);
    let known: Vec<_> = ["p0", "p1", "p2"].iter().map(|uid| index.pod(uid).is_some()).collect();
    assert_eq!(known, [false, false, true]);
}

#[test]
fn pods_share_what_they_have_in_common_until_the_last_one_is_forgotten() {
    let replica = |n: usize| {
        let mut value = pod(&format!("web-5d4f-{n}"), &format!("u{n}"), &format!("10.0.0.{n}"), 1);
        value["metadata"]["labels"] = json!({"app": "web", "pod-template-hash": "5d4f"});
        value["metadata"]["ownerReferences"] =
            json!([{"kind": "ReplicaSet", "name": "web-5d4f", "controller": true}]);
        value["spec"] = json!({"nodeName": "n1", "serviceAccountName": "web", "containers":
            [{"name": "c", "ports": [{"name": "http", "containerPort": 80}]}]});
        value
    };
    let mut index = Index::default();
    for n in 0..2 {
        index.apply(&applied(replica(n)), Timestamp(SECOND));
    }
    let shared = |index: &Index| {
        let [a, b] = ["u0", "u1"].map(|uid| index.pod(uid).expect("it was applied"));
        let texts = |pod: &PodIdentity| {
            let PodIdentity { namespace, node, service_account, workload, .. } = pod;
            [namespace, node, service_account, &workload.kind, &workload.name].map(Arc::as_ptr)
        };
        let all = texts(a).into_iter().zip(texts(b)).all(|(a, b)| std::ptr::eq(a, b));
        (Arc::ptr_eq(&a.labels, &b.labels), Arc::ptr_eq(&a.named_ports, &b.named_ports), all)
    };
    assert_eq!(shared(&index), (true, true, true));
    // Also when the owner becomes another one, and when one of them was changed and back.
    index.apply(&workload("ReplicaSet", "web-5d4f", "", Some(("Rollout", "r"))), Timestamp(2));
    assert_eq!(shared(&index), (true, true, true));
    let mut other = replica(0);
    other["metadata"]["labels"]["app"] = json!("db");
    index.apply(&applied(other), Timestamp(SECOND));
    assert_eq!(shared(&index), (false, true, true));
    index.apply(&applied(replica(0)), Timestamp(SECOND));
    assert_eq!(shared(&index), (true, true, true));

    let labels = Arc::downgrade(&index.pod("u0").expect("it was applied").labels);
    list(&mut index, [], Timestamp(SECOND));
    assert_eq!(labels.strong_count(), 2, "tombstones know what they were");
    for n in 0..TOMBSTONES_MAX {
        let name = format!("p{n}");
        let mut value = pod(&name, &name, "10.1.0.1", 1);
        value["status"]["phase"] = json!("Failed");
        index.apply(&applied(value), Timestamp(2 * SECOND));
    }
    list(&mut index, [], Timestamp(2 * SECOND));
    assert_eq!(labels.strong_count(), 0);
}

#[test]
fn forgotten_pods_leave_nothing_to_share() {
    let mut index = Index::default();
    let count = 2 * TOMBSTONES_MAX + 100;
    let pods = (0..count).map(|n| {
        let name = format!("p{n}");
        Object::Pod(Box::new(read(pod(&name, &name, "", 1))))
    });
    list(&mut index, pods, Timestamp(SECOND));
    // Each has a label value of its own; the key, the namespace, "", and "Pod" are common.
    assert_eq!(index.interner.sizes(), [count + 4, count, 1, 0]);
    list(&mut index, [], Timestamp(SECOND));
    assert_eq!(index.interner.sizes(), [TOMBSTONES_MAX + 4, TOMBSTONES_MAX, 1, 0]);
}

#[test]
fn a_pod_that_begins_to_run_is_behind_its_service() {
    let mut index = Index::default();
    let service = json!({"metadata": {"namespace": "ns", "name": "s"}, "spec": {
        "clusterIP": "10.96.0.1", "selector": {"app": "a"}, "ports": [{"port": 80}]}});
    index.apply(&Change::Applied(Object::Service(read(service))), Timestamp(SECOND));
    let mut value = pod("a", "ua", "10.0.0.1", 1);
    value["status"]["phase"] = json!("Pending");
    index.apply(&applied(value.clone()), Timestamp(SECOND));
    let backends = |index: &mut Index| match ask(index, "10.96.0.1", 2).endpoint {
        Endpoint::Service(service) => service.backends.len(),
        Endpoint::Pod(_) => 1,
        other => panic!("{other:?}"),
    };
    assert_eq!(backends(&mut index), 0);
    // The only thing that changes, and nobody may go on with what was found out before.
    value["status"]["phase"] = json!("Running");
    let effect = index.apply(&applied(value.clone()), Timestamp(2 * SECOND));
    assert_eq!(effect, Effect { index: true, ..Effect::default() });
    assert_eq!(backends(&mut index), 1);
    // What nobody reads changes nothing.
    value["status"]["containerStatuses"] = json!([{"name": "c", "containerID": "x://1"}]);
    assert_eq!(index.apply(&applied(value), Timestamp(3 * SECOND)), Effect::default());
}

/// One pod's life, as the changes that tell of it in their order.
fn life(slot: usize, start: u64, end: Option<u64>, finished: bool) -> Vec<(Change, Timestamp)> {
    let (name, uid, ip) =
        (format!("p{}", slot % 4), format!("u{slot}"), format!("10.0.0.{}", slot % 3));
    let mut value = pod(&name, &uid, &ip, start);
    value["metadata"]["ownerReferences"] =
        json!([{"kind": "Job", "name": format!("j{}", slot % 2), "controller": true}]);
    let mut all = vec![(applied(value.clone()), Timestamp(start * SECOND))];
    if let Some(end) = end {
        let at = Timestamp(end * SECOND);
        if finished {
            value["status"]["phase"] = json!("Succeeded");
            all.push((applied(value), at));
        } else {
            let (namespace, uid) = ("ns".to_owned(), Some(uid));
            let api_kind = String::new();
            all.push((
                Change::Deleted(ObjectRef { kind: Kind::Pod, api_kind, namespace, name, uid }),
                at,
            ));
        }
    }
    all
}

/// Lives of pods that use few names and addresses again and again, one after another in each.
fn lives() -> impl Strategy<Value = Vec<Vec<(Change, Timestamp)>>> {
    proptest::collection::vec((0u64..40, any::<bool>()), 1..12).prop_map(|seeds| {
        let mut lives = vec![
            vec![(workload("Job", "j0", "", Some(("CronJob", "c"))), Timestamp(SECOND))],
            vec![(workload("Job", "j1", "", None), Timestamp(SECOND))],
        ];
        for (slot, (length, finished)) in seeds.into_iter().enumerate() {
            let start = 1 + slot as u64 * 60;
            // A finished pod keeps its object and so its name: it is the last one of that name.
            lives.push(life(slot, start, Some(start + length), finished && slot >= 8));
        }
        lives
    })
}

/// Picks the next change of one of the lives, again and again; some come twice.
fn interleave(
    lives: &[Vec<(Change, Timestamp)>],
    picks: &[(usize, bool)],
) -> Vec<(Change, Timestamp)> {
    let mut next = vec![0; lives.len()];
    let mut all = Vec::new();
    for (pick, twice) in picks.iter().cycle() {
        let open: Vec<_> =
            (0..lives.len()).filter(|life| next[*life] < lives[*life].len()).collect();
        if open.is_empty() {
            break;
        }
        let life = open[pick % open.len()];
        let change = &lives[life][next[life]];
        all.push(change.clone());
        if *twice {
            all.push(change.clone());
        }
        next[life] += 1;
    }
    all
}

fn answers(changes: &[(Change, Timestamp)]) -> Vec<End> {
    let mut index = Index::default();
    for (change, at) in changes {
        index.apply(change, *at);
    }
    let mut all = Vec::new();
    for at in (0..800).step_by(7) {
        for ip in 0..3 {
            all.push(ask(&mut index, &format!("10.0.0.{ip}"), at));
        }
    }
    all
}

proptest! {
    #[test]
    fn the_order_of_different_objects_and_repetition_do_not_matter(
        lives in lives(),
        picks in proptest::collection::vec((0usize..16, any::<bool>()), 1..40),
    ) {
        let in_order = interleave(&lives, &[(0, false)]);
        let other_order = interleave(&lives, &picks);
        prop_assert_eq!(answers(&in_order), answers(&other_order));
    }

    #[test]
    fn no_text_in_an_object_makes_it_panic(
        texts in proptest::collection::vec("\\PC{0,12}|[0-9:./T+-]{0,24}Z?", 12),
        port in any::<u16>(),
        number in any::<i64>(),
    ) {
        let t = |at: usize| texts[at].clone();
        let objects = [
            Object::Pod(Box::new(read(json!({
                "metadata": {"name": t(0), "namespace": t(1), "uid": t(2), "labels": {t(3): t(4)},
                    "creationTimestamp": t(5),
                    "ownerReferences": [{"kind": "ReplicaSet", "name": t(6), "controller": true}]},
                "status": {"phase": t(7), "podIP": t(8), "podIPs": [{"ip": t(9)}],
                    "startTime": t(10)},
            })))),
            Object::Node(read(json!({"metadata": {"name": t(0)}, "spec": {"podCIDRs": [t(1), t(2)]},
                "status": {"addresses": [{"type": t(3), "address": t(4)}]}}))),
            Object::Service(read(json!({"metadata": {"name": t(0), "namespace": t(1)},
                "spec": {"clusterIP": t(2), "selector": {t(3): t(4)},
                    "ports": [{"port": port, "protocol": t(5), "targetPort": number}]}}))),
            Object::EndpointSlice(read(json!({"metadata": {"name": t(0), "namespace": t(1),
                "labels": {"kubernetes.io/service-name": t(0)}},
                "endpoints": [{"addresses": [t(2)]}], "ports": [{"name": t(3)}]}))),
        ];
        let mut index = Index::default();
        for object in objects {
            let kind = object.kind();
            index.apply(&Change::Applied(object.clone()), Timestamp(u64::MAX));
            for change in Change::list(kind, [object]) {
                index.apply(&change, Timestamp(0));
            }
        }
        index.cgroup_created(2, &t(11));
        ask(&mut index, "10.0.0.1", 5);
        list(&mut index, [], Timestamp(0));
    }

    #[test]
    fn no_path_makes_it_panic(
        path in "(/(kubepods|pod|-pod|\\.slice|:|burstable|\\PC){0,4}){0,60}",
    ) {
        let _ = cgroup::parse(&path);
    }
}

mod lives;
