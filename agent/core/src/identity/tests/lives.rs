//! Who held an address when: lives of pods as watches and lists tell them, late and twice too.
//!
//! In: changes written down by hand. Out: assertions on who an address was at each time.

use super::*;

/// One step of a story, told at this second.
enum Step {
    Applied(Value),
    Deleted(&'static str, &'static str),
    List(Vec<Value>),
}

use Step::{Applied, Deleted, List};

fn tell(steps: Vec<(u64, Step)>) -> Index {
    let mut index = Index::default();
    for (at, step) in steps {
        let at = Timestamp(at * SECOND);
        match step {
            Applied(value) => {
                index.apply(&applied(value), at);
            }
            Deleted(name, uid) => {
                index.apply(&deleted(name, uid), at);
            }
            List(pods) => {
                let pods = pods.into_iter().map(|value| Object::Pod(Box::new(read(value))));
                list(&mut index, pods, at);
            }
        }
    }
    index
}

fn deleted(name: &str, uid: &str) -> Change {
    let (namespace, name, uid) = ("ns".to_owned(), name.to_owned(), Some(uid.to_owned()));
    Change::Deleted(ObjectRef { kind: Kind::Pod, api_kind: String::new(), namespace, name, uid })
}

/// Who had the address at each of these seconds: a UID, or why nobody is known.
fn held(index: &mut Index, addr: &str, at: &[u64]) -> Vec<String> {
    let who = |at: &u64| match ask(index, addr, *at).endpoint {
        Endpoint::Pod(pod) => pod.uid.to_string(),
        Endpoint::Unknown(reason) => reason.label().to_owned(),
        other => format!("{other:?}"),
    };
    at.iter().map(who).collect()
}

fn with(mut pod: Value, path: &str, value: Value) -> Value {
    let (parent, field) = path.rsplit_once('/').expect("a path");
    pod.pointer_mut(parent).expect("the path")[field] = value;
    pod
}

fn over(pod: Value) -> Value {
    with(pod, "/status/phase", json!("Succeeded"))
}

const A: &str = "10.0.0.1";
const AT: [u64; 6] = [9, 10, 20, 30, 40, 50];

/// What is told and when, and who had the address at the times of [`AT`].
type Told = (&'static str, Vec<(u64, Step)>, [&'static str; 6]);

const NONE: &str = "no_holder";
const BOTH: &str = "ambiguous_address";

fn a() -> Value {
    pod("a", "ua", A, 10)
}

fn b(start: u64) -> Value {
    pod("b", "ub", A, start)
}

fn expect(all: impl IntoIterator<Item = Told>) {
    for (told, steps, expected) in all {
        let mut index = tell(steps);
        assert_eq!(held(&mut index, A, &AT), expected, "{told}");
    }
}

#[test]
fn an_address_is_whose_it_was_at_that_time() {
    expect([
        (
            "from its start to its end, one after another",
            vec![(12, Applied(a())), (30, Deleted("a", "ua")), (41, Applied(b(40)))],
            [NONE, "ua", "ua", NONE, "ub", "ub"],
        ),
        (
            "what is over holds NONE, though its object is there",
            vec![(12, Applied(a())), (20, Applied(over(a()))), (31, Applied(b(30)))],
            [NONE, "ua", NONE, "ub", "ub", "ub"],
        ),
        (
            "two at once are not the first",
            vec![(12, Applied(a())), (31, Applied(b(30))), (40, Deleted("a", "ua"))],
            [NONE, "ua", "ua", BOTH, "ub", "ub"],
        ),
        (
            "the same name and address again",
            vec![
                (12, Applied(a())),
                (30, Deleted("a", "ua")),
                (41, Applied(with(b(40), "/metadata/name", json!("a")))),
            ],
            [NONE, "ua", "ua", NONE, "ub", "ub"],
        ),
        (
            "the deletion was missed, and the name tells",
            vec![(12, Applied(a())), (41, Applied(with(b(30), "/metadata/name", json!("a"))))],
            [NONE, "ua", "ua", "ub", "ub", "ub"],
        ),
    ]);
}

#[test]
fn a_list_ends_what_is_gone_and_nothing_else() {
    expect([
        (
            "a list without it ends it",
            vec![(12, Applied(a())), (30, List(vec![]))],
            [NONE, "ua", "ua", NONE, NONE, NONE],
        ),
        (
            "a list that is older than what is known",
            vec![(12, Applied(a())), (20, List(vec![])), (40, Applied(a()))],
            [NONE, "ua", "ua", "ua", "ua", "ua"],
        ),
        (
            "nor does an old list bring back whose deletion was told",
            vec![(12, Applied(a())), (30, Deleted("a", "ua")), (40, List(vec![a()]))],
            [NONE, "ua", "ua", NONE, NONE, NONE],
        ),
        (
            "what is over stays so, whatever comes again",
            vec![(12, Applied(a())), (20, Applied(over(a()))), (40, Applied(a()))],
            [NONE, "ua", NONE, NONE, NONE, NONE],
        ),
        (
            "over, unnamed, and named again",
            vec![
                (12, Applied(a())),
                (20, Applied(over(a()))),
                (30, List(vec![])),
                (40, List(vec![a()])),
            ],
            [NONE, "ua", NONE, NONE, NONE, NONE],
        ),
        (
            "a node's clock is ahead, and the list says who is there",
            vec![
                (12, Applied(with(a(), "/status/startTime", json!("1970-01-01T00:00:35Z")))),
                (31, List(vec![with(b(30), "/metadata/name", json!("a"))])),
            ],
            [NONE, NONE, NONE, "ub", "ub", "ub"],
        ),
    ]);
}

#[test]
fn what_an_object_says_decides_what_it_holds() {
    expect([
        (
            "without a status it holds nothing, and then all of its life",
            vec![
                (
                    12,
                    Applied(json!({"metadata": {"namespace": "ns", "name": "a", "uid": "ua",
                    "creationTimestamp": "1970-01-01T00:00:10Z"}})),
                ),
                (30, Applied(a())),
            ],
            [NONE, "ua", "ua", "ua", "ua", "ua"],
        ),
        (
            "one without a UID that comes again begins anew",
            vec![
                (12, Applied(with(a(), "/metadata/uid", json!("")))),
                (20, List(vec![])),
                (40, List(vec![with(a(), "/metadata/uid", json!(""))])),
            ],
            [NONE, "ns/a", NONE, NONE, "ns/a", "ns/a"],
        ),
        (
            "on the host network it holds none",
            vec![(
                12,
                Applied(with(with(a(), "/spec", json!({})), "/spec/hostNetwork", json!(true))),
            )],
            ["External"; 6],
        ),
        (
            "another address from when it is told on",
            vec![
                (12, Applied(a())),
                (20, Applied(with(a(), "/status/podIP", json!("10.0.0.9")))),
                (40, Applied(a())),
            ],
            [NONE, "ua", NONE, NONE, "ua", "ua"],
        ),
    ]);
}

#[test]
fn both_families_begin_and_end_with_the_pod() {
    let ips = json!([{"ip": A}, {"ip": "fd00::1"}, {"ip": "fd00::1"}, {"ip": "10.0.0.300"}]);
    let a = with(pod("a", "ua", A, 10), "/status/podIPs", ips);
    let mut index = tell(vec![(12, Applied(a)), (30, Deleted("a", "ua"))]);
    let expected = ["no_holder", "ua", "ua", "no_holder", "no_holder", "no_holder"];
    assert_eq!(held(&mut index, A, &AT), expected);
    assert_eq!(held(&mut index, "fd00::1", &AT), expected);
    let misread =
        Misread { count: 1, object: "Pod ns/a".to_owned(), said: "10.0.0.300".to_owned() };
    assert_eq!(index.unread().iter().collect::<Vec<_>>(), [("status.podIPs", &misread)]);
}

#[test]
fn a_list_that_runs_is_begun_anew_by_another() {
    let mut index = Index::default();
    let t = |at| Timestamp(at * SECOND);
    index.apply(&applied(pod("a", "ua", A, 1)), t(1));
    index.apply(&Change::Listed(Kind::Pod), t(2));
    index.apply(&Change::Listing(Kind::Pod), t(3));
    index.apply(&applied(pod("a", "ua", A, 1)), t(4));
    index.apply(&applied(pod("b", "ub", "10.0.0.2", 4)), t(4));
    // That list broke off: what it named may be gone by now.
    index.apply(&Change::Listing(Kind::Pod), t(5));
    index.apply(&applied(pod("c", "uc", "10.0.0.3", 5)), t(6));
    index.apply(&applied(pod("a", "ua", A, 1)), t(7));
    index.apply(&Change::Listed(Kind::Pod), t(8));
    index.apply(&Change::Listed(Kind::Pod), t(9));
    let now = |addr| held(&mut index, addr, &[10]).remove(0);
    assert_eq!([A, "10.0.0.2", "10.0.0.3"].map(now), ["ua", "no_holder", "uc"]);
}

#[test]
fn a_job_of_a_cron_job_is_known_by_its_minute() {
    // 1970-01-21T20:00:00Z is minute 30,000.
    let workload = |job: &str, created: &str| {
        let mut value = pod("p", "u", "10.0.0.1", 1);
        value["metadata"]["creationTimestamp"] = json!(created);
        value["metadata"]["ownerReferences"] =
            json!([{"kind": "Job", "name": job, "uid": "j", "controller": true}]);
        workload_of(&[applied(value)])
    };
    let named = |kind: &str, name: &str| (kind.to_owned(), name.to_owned());
    for (job, created, is_cron) in [
        ("backup-30000", "1970-01-21T20:00:00Z", true),
        ("backup-30000", "1970-01-21T20:07:31Z", true),
        ("backup-30000", "1970-01-21T19:59:00Z", true),
        ("backup-30000", "1970-01-21T19:58:59Z", false),
        ("backup-30000", "1970-01-22T20:00:59Z", true),
        ("backup-30000", "1970-01-22T20:01:00Z", false),
        ("backup-7", "1970-01-21T20:00:00Z", false),
        ("backup-030000", "1970-01-21T20:00:00Z", false),
        ("backup-+30000", "1970-01-21T20:00:00Z", false),
        ("backup-", "1970-01-21T20:00:00Z", false),
        ("-30000", "1970-01-21T20:00:00Z", false),
        ("30000", "1970-01-21T20:00:00Z", false),
        ("backup-1800000", "1970-01-21T20:00:00Z", false),
        ("backup-99999999999999999999", "1970-01-21T20:00:00Z", false),
        ("backup-30000", "yesterday", false),
    ] {
        let expected = if is_cron { named("CronJob", "backup") } else { named("Job", job) };
        assert_eq!(workload(job, created), expected, "{job} {created}");
    }
    // A date is no minute near today, and neither is a time in seconds.
    for job in ["backup-20261123", "backup-1795432773"] {
        assert_eq!(workload(job, "2026-11-23T11:19:33Z"), named("Job", job));
    }
    assert_eq!(workload("backup-29923878", "2026-11-23T11:19:33Z"), named("CronJob", "backup"));
}

#[test]
fn what_an_object_says_of_a_job_comes_first() {
    let mut value = pod("p", "u", "10.0.0.1", 1);
    value["metadata"]["creationTimestamp"] = json!("1970-01-21T20:00:00Z");
    value["metadata"]["ownerReferences"] =
        json!([{"kind": "Job", "name": "x-30000", "uid": "j", "controller": true}]);
    let named = |kind: &str, name: &str| (kind.to_owned(), name.to_owned());
    let by_hand = workload("Job", "x-30000", "j", None);
    let other = workload("Job", "x-30000", "other", None);
    let of = |changes: &[Change]| workload_of(changes);
    assert_eq!(of(&[by_hand.clone(), applied(value.clone())]), named("Job", "x-30000"));
    assert_eq!(of(&[applied(value.clone()), by_hand]), named("Job", "x-30000"));
    assert_eq!(of(&[applied(value), other]), named("CronJob", "x"));
}

#[test]
fn a_static_pod_is_known_by_what_its_kubelet_calls_it() {
    let mut index = Index::default();
    let mirror = |uid: &str| {
        let annotations = json!({"kubernetes.io/config.mirror": "0123abcd", "other": "kept not"});
        with(pod("proxy", uid, A, 1), "/metadata/annotations", annotations)
    };
    let asked = |index: &Index| index.pod("0123abcd").map(|pod| pod.uid.to_string());
    index.apply(&applied(mirror("u1")), Timestamp(SECOND));
    assert_eq!(asked(&index), Some("u1".to_owned()));
    // Its object was deleted, and the kubelet made another.
    index.apply(&deleted("proxy", "u1"), Timestamp(2 * SECOND));
    index.apply(&applied(mirror("u2")), Timestamp(3 * SECOND));
    assert_eq!(asked(&index), Some("u2".to_owned()));
}

#[test]
fn a_service_leads_to_no_pod_that_began_later() {
    let mut index = Index::default();
    let service = json!({"metadata": {"namespace": "ns", "name": "s"}, "spec": {
        "clusterIP": "10.96.0.1", "selector": {"app": "a"}, "ports": [{"port": 80}]}});
    index.apply(&Change::Applied(Object::Service(read(service))), Timestamp(SECOND));
    let labelled = |name: &str, uid: &str, ip: &str, start| {
        with(pod(name, uid, ip, start), "/metadata/labels", json!({"app": "a"}))
    };
    index.apply(&applied(labelled("a", "ua", A, 10)), Timestamp(11 * SECOND));
    index.apply(&applied(labelled("b", "ub", "10.0.0.2", 20)), Timestamp(21 * SECOND));
    let backends = |index: &mut Index, at| match ask(index, "10.96.0.1", at).endpoint {
        Endpoint::Service(service) => {
            let pods = service.backends.iter().flat_map(|(end, _)| end.pods());
            pods.map(|pod| pod.uid.to_string()).collect()
        }
        Endpoint::Pod(pod) => vec![format!("only {}", pod.uid)],
        other => vec![format!("{other:?}")],
    };
    for (at, expected) in
        [(25, &["ua", "ub"][..]), (19, &["only ua"]), (20, &["ua", "ub"]), (9, &[])]
    {
        assert_eq!(backends(&mut index, at), expected, "at {at}");
    }
}

#[test]
fn what_cannot_be_read_is_counted_by_field_and_the_first_is_named() {
    let mut index = Index::default();
    let mut apply = |object| index.apply(&Change::Applied(object), Timestamp(SECOND));
    for _ in 0..2 {
        apply(Object::Pod(Box::new(read(with(
            pod("a", "ua", "x", 1),
            "/status/startTime",
            json!("noon"),
        )))));
    }
    apply(Object::Pod(Box::new(read(pod("b", "ub", "10.0.0.1/24", 1)))));
    apply(Object::Node(read(
        json!({"metadata": {"name": "n"}, "spec": {"podCIDRs": ["10.0.0.0"]},
        "status": {"addresses": [{"type": "Hostname", "address": "n"},
            {"type": "InternalIP", "address": "n"}]}}),
    )));
    apply(Object::Service(read(json!({"metadata": {"namespace": "ns", "name": "s"}, "spec": {
        "clusterIP": "None", "clusterIPs": ["None"], "externalIPs": [""]}}))));
    apply(Object::EndpointSlice(read(json!({"metadata": {"namespace": "ns", "name": "e"},
        "endpoints": null, "ports": null}))));
    apply(Object::EndpointSlice(read(json!({"metadata": {"namespace": "ns", "name": "f"},
        "addressType": "FQDN", "endpoints": [{"addresses": ["a.example"]}]}))));
    apply(Object::EndpointSlice(read(json!({"metadata": {"namespace": "ns", "name": "g"},
        "addressType": "IPv4", "endpoints": [{"addresses": ["a.example"]}]}))));
    let told = index.unread().iter().map(|(field, misread)| {
        let Misread { count, object, said } = misread;
        format!("{field} {count} {object} {said}")
    });
    assert_eq!(
        told.collect::<Vec<_>>(),
        [
            "endpoints[].addresses 1 EndpointSlice ns/g a.example",
            "spec.podCIDRs 1 Node n 10.0.0.0",
            "status.addresses 1 Node n n",
            "status.podIP 3 Pod ns/a x",
            "status.startTime 2 Pod ns/a noon",
        ]
    );
}
