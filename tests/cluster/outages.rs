//! An API server that is away, slow or wrong: the agent goes on with what it knows, asks no more
//! than it may, and is right again when the server is.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::agent::Agent;
use support::fault_proxy::{Asking, Fault, FaultProxy, Order, Request};
use support::network::Family;
use support::pod::{Pod, PodSpec};
use support::process::Process;
use support::task::Task;

use crate::scenarios::{decision, serving, until_decision};
use crate::world::{World, binary, expect, until};

const EDGE: &str = "egress a/client -> b/server TCP/8080";
/// How long a list of one resource must lie back before the next.
const LIST_PAUSE: Duration = Duration::from_secs(30);
/// Until the agent has noticed and its turn to ask has come.
const RECOVERY: Duration = Duration::from_secs(75);

/// More than a page of a list has.
const ACCOUNTS: u32 = 510;

const NOBODY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: nobody, namespace: b}
spec: {podSelector: {}, policyTypes: [Ingress]}
";
const NOBODY_PATH: &str = "/apis/networking.k8s.io/v1/namespaces/b/networkpolicies/nobody";

/// A client and a server that nobody may reach, and a proxy before the API server.
struct Outage {
    world: World,
    proxy: FaultProxy,
    client: Pod,
    server: Pod,
    _serving: Process,
}

impl Outage {
    fn prepare() -> Self {
        let mut world = World::start();
        world.namespace("a", &[]);
        world.namespace("b", &[]);
        world.apply(NOBODY);
        let client = world.pod(&PodSpec::new("a", "client"));
        let server = world.pod(&PodSpec::new("b", "server"));
        let proxy = FaultProxy::start(world.plane.door()).unwrap();
        let _serving = server.spawn(&serving()).unwrap();
        Self { world, proxy, client, server, _serving }
    }

    fn connect(&self, count: u64) {
        self.client.run(&Task::connect(self.server.at(Family::V4, 8080), count)).unwrap();
    }

    fn kubeconfig(&self) -> std::path::PathBuf {
        self.world.kubeconfig(Some(&self.proxy.url()))
    }

    /// Changes the policy and waits until the agent says so.
    fn lives(&mut self, agent: &Agent) {
        self.world.delete(NOBODY_PATH);
        until_decision(agent, EDGE, "allowed");
        self.world.apply(NOBODY);
        until_decision(agent, EDGE, "denied");
    }
}

/// How much longer than needed the server stays away in the test of that: `cargo xtask test --tier
/// cluster` with 1800 here is an outage of half an hour.
fn more_outage() -> Duration {
    let asked = std::env::var("PARAPET_TEST_OUTAGE_SECONDS").ok();
    Duration::from_secs(asked.map_or(0, |seconds| seconds.parse().unwrap()))
}

/// Requests of the last minute, by the agent's own count.
fn requests_last_minute(agent: &Agent) -> u64 {
    let status: Value = serde_json::from_str(&agent.get("/status").unwrap().body).unwrap();
    status["api"]["requests_last_minute"].as_u64().unwrap()
}

/// A value of `/metrics` by what stands before it.
fn metric(agent: &Agent, series: &str) -> Option<f64> {
    let text = agent.get("/metrics").ok()?.body;
    let line = text.lines().find_map(|line| line.strip_prefix(series))?;
    line.trim().parse().ok()
}

fn age(agent: &Agent, resource: &str) -> f64 {
    let series = format!("parapet_watch_age_seconds{{resource=\"{resource}\"}}");
    metric(agent, &series).unwrap_or_else(|| panic!("no {series}"))
}

/// Since when verdicts are stale, by the report and by the status, and the metric of it.
fn stale_since(agent: &Agent) -> (String, String, Option<f64>) {
    let said = |path: &str| {
        let body: Value = serde_json::from_str(&agent.get(path).unwrap().body).unwrap();
        body["stale_since"].as_str().unwrap_or_default().to_string()
    };
    (said("/report"), said("/status"), metric(agent, "parapet_verdicts_stale{}"))
}

/// The most lists of one resource that were answered within 30 s, over all resources. Pages of one
/// list count once.
fn lists_at_once(requests: &[Request]) -> BTreeMap<String, usize> {
    let lists: Vec<_> = requests
        .iter()
        .filter(|request| matches!(request.asking, Asking::List | Asking::StreamingList))
        .filter(|request| !request.query.contains("continue=") && !request.is_faulted)
        .collect();
    let mut most = BTreeMap::new();
    for one in &lists {
        let together = lists.iter().filter(|other| {
            other.resource == one.resource && other.at >= one.at && other.at < one.at + LIST_PAUSE
        });
        let entry = most.entry(one.resource.clone()).or_default();
        *entry = together.count().max(*entry);
    }
    most
}

fn assert_lists_are_rare(proxy: &FaultProxy) {
    let most = lists_at_once(&proxy.requests());
    let too_many: Vec<_> = most.iter().filter(|(_, count)| **count > 1).collect();
    assert!(too_many.is_empty(), "more than one list in 30 s: {too_many:?}");
}

#[test]
fn an_agent_that_starts_before_the_server_counts_now_and_judges_later() {
    let outage = Outage::prepare();
    outage.proxy.refuse();
    let agent = outage.world.launch(&outage.kubeconfig());
    let ready = || agent.get("/readyz").ok().map(|answer| answer.status);
    until(RECOVERY, "an answer", || (ready()? == 503).then_some(()));
    let attached = || metric(&agent, "parapet_watch_synced{resource=\"pods\"}");
    until(RECOVERY, "its kinds", || (attached()? == 0.0).then_some(()));
    // The probes are attached before anything else is asked for.
    thread::sleep(Duration::from_secs(1));
    outage.connect(3);
    let report = agent.report_when(|report| report.unjudged > 0).unwrap();
    assert!(!report.synced && report.unjudged > 0, "{report:?}");
    assert!(report.edges.iter().all(|edge| edge.verdicts.is_empty()), "{report:?}");
    outage.proxy.heal();
    until(RECOVERY, "readiness", || (ready()? == 200).then_some(()));
    expect(&agent, &[(EDGE, &[("answered", 3)])]);
    assert_eq!(decision(&agent, EDGE), "denied");
    assert_lists_are_rare(&outage.proxy);
    assert!(agent.stop().unwrap().success());
}

#[test]
fn what_was_known_stays_while_the_server_is_away_and_is_right_when_it_is_back() {
    let mut outage = Outage::prepare();
    let agent = outage.world.agent_with(Some(&outage.proxy.url()), &["--stale-after", "3s"]);
    outage.connect(2);
    expect(&agent, &[(EDGE, &[("answered", 2)])]);
    assert_eq!(decision(&agent, EDGE), "denied");
    assert!(age(&agent, "pods") < 60.0);
    assert_eq!(stale_since(&agent), ("".to_string(), "".to_string(), Some(0.0)));
    outage.proxy.refuse();
    until(RECOVERY, "an age of 4 s", || (age(&agent, "pods") > 4.0).then_some(()));
    until(RECOVERY, "staleness", || (stale_since(&agent).2 == Some(1.0)).then_some(()));
    let (report, status, _) = stale_since(&agent);
    assert!(!report.is_empty() && report == status, "{report:?} {status:?}");
    outage.connect(3);
    expect(&agent, &[(EDGE, &[("answered", 5)])]);
    assert_eq!(decision(&agent, EDGE), "denied");
    let (away_since, mut connected) = (Instant::now(), 5);
    while away_since.elapsed() < more_outage() {
        thread::sleep(Duration::from_secs(20));
        outage.connect(1);
        connected += 1;
        // By then pauses have grown to half a minute, of which half is chance: four times a minute
        // for each of fifteen kinds and for the question which there are.
        let is_settled = away_since.elapsed() > Duration::from_secs(180);
        assert!(!is_settled || requests_last_minute(&agent) <= 75, "{}", agent.log());
    }
    expect(&agent, &[(EDGE, &[("answered", connected)])]);
    assert_eq!(decision(&agent, EDGE), "denied");
    // A node must not leave its Service because the API server has left it.
    assert_eq!(agent.get("/readyz").unwrap().status, 200);
    outage.world.delete(NOBODY_PATH);
    outage.world.plane.stop();
    outage.world.plane.resume().unwrap();
    outage.proxy.heal();
    until(RECOVERY, "the change", || (decision(&agent, EDGE) == "allowed").then_some(()));
    until(RECOVERY, "freshness", || (age(&agent, "pods") < 4.0).then_some(()));
    let fresh = ("".to_string(), "".to_string(), Some(0.0));
    until(RECOVERY, "no staleness", || (stale_since(&agent) == fresh).then_some(()));
    assert_lists_are_rare(&outage.proxy);
    assert!(agent.stop().unwrap().success());
}

#[test]
fn a_server_without_streaming_lists_is_asked_for_plain_ones_and_watched_from_there() {
    let mut outage = Outage::prepare();
    for number in 0..ACCOUNTS {
        let account = json!({"metadata": {"name": format!("account-{number}")}});
        outage.world.make("/api/v1/namespaces/a/serviceaccounts", &account);
    }
    outage.proxy.order(Order::new(Fault::NoStreaming).asking(&[Asking::StreamingList]));
    let agent = outage.world.agent(Some(&outage.proxy.url()));
    outage.connect(2);
    expect(&agent, &[(EDGE, &[("answered", 2)])]);
    assert_eq!(decision(&agent, EDGE), "denied");
    outage.lives(&agent);
    let status: Value = serde_json::from_str(&agent.get("/status").unwrap().body).unwrap();
    let mut sources = status["sources"].as_array().unwrap().iter();
    let accounts = sources.find(|source| source["resource"] == "serviceaccounts").unwrap();
    // Its own account is the one more.
    assert_eq!(accounts["objects"], ACCOUNTS + 1, "{accounts}");
    let requests = outage.proxy.requests();
    let plain = |one: &&Request| one.asking == Asking::List && one.resource == "serviceaccounts";
    let pages = requests.iter().filter(plain).count();
    assert!((1..=2).contains(&pages), "{pages} pages");
    assert_lists_are_rare(&outage.proxy);
    assert!(agent.stop().unwrap().success());
}

#[test]
fn watches_that_end_in_every_way_there_is_lose_nothing() {
    let mut outage = Outage::prepare();
    let agent = outage.world.agent(Some(&outage.proxy.url()));
    outage.connect(2);
    expect(&agent, &[(EDGE, &[("answered", 2)])]);
    let since = Instant::now();
    let watch = [Asking::Watch];
    for (resource, fault) in [
        ("pods", Fault::GoneEvent),
        ("networkpolicies", Fault::Gone),
        ("namespaces", Fault::TooManyRequests(2)),
        ("nodes", Fault::Broken),
        ("services", Fault::BookmarksOnly(Duration::from_millis(200))),
        ("endpointslices", Fault::CutAfter(0)),
        ("roles", Fault::Slow(64, Duration::from_millis(20))),
        ("serviceaccounts", Fault::Hang),
    ] {
        outage.proxy.order(Order::new(fault).asking(&watch).of(resource).times(1));
    }
    outage.proxy.cut();
    let faulted = || outage.proxy.requests().iter().filter(|one| one.is_faulted).count();
    until(RECOVERY, "all faults but those of unused watches", || (faulted() >= 6).then_some(()));
    outage.connect(1);
    outage.lives(&agent);
    expect(&agent, &[(EDGE, &[("answered", 3)])]);
    // Asked to wait two seconds, it waits at least that long.
    let (first, second) = until(RECOVERY, "namespaces asked for again", || {
        let requests = outage.proxy.requests().into_iter();
        let mut namespaces = requests
            .filter(|one| one.resource == "namespaces" && one.at >= since)
            .skip_while(|one| !one.is_faulted);
        namespaces.next().zip(namespaces.next())
    });
    let pause = second.at.duration_since(first.at);
    assert!(pause >= Duration::from_millis(1900), "asked again after {pause:?}");
    assert_lists_are_rare(&outage.proxy);
    assert!(agent.stop().unwrap().success());
}

#[test]
fn objects_that_cannot_be_read_or_are_huge_harm_no_other() {
    let mut outage = Outage::prepare();
    let list = outage.world.api.want("GET", "/api/v1/pods", &json!(null)).unwrap();
    let version = list["metadata"]["resourceVersion"].as_str().unwrap().to_string();
    let event = |object: Value| format!("{}\n", json!({"type": "ADDED", "object": object}));
    let metadata = |name: &str| {
        json!({"name": name, "namespace": "a", "resourceVersion": version,
        "uid": format!("00000000-0000-4000-8000-{:012}", name.len())})
    };
    let mut huge = metadata("huge");
    huge["annotations"] = json!({"text": "x".repeat(2 << 20)});
    let pods = [
        json!({"kind": "Pod", "apiVersion": "v1", "metadata": huge, "spec": {"containers": []}}),
        json!({"kind": "Pod", "apiVersion": "v1", "metadata": metadata("nothing-else")}),
        json!({"kind": "Pod", "apiVersion": "v1", "metadata": metadata("no-address"),
            "spec": {"containers": []}, "status": {"phase": "Running", "podIPs": [{"ip": "10.x"}]}}),
        json!({"kind": "Pod", "apiVersion": "v1", "metadata": metadata("numbers"), "spec": 7}),
    ];
    let policy = json!({"kind": "NetworkPolicy", "apiVersion": "networking.k8s.io/v1",
        "metadata": metadata("odd"), "spec": {"podSelector": {"matchExpressions":
            [{"key": "a", "operator": "Sometimes"}]}}});
    let before = |resource: &str, bytes: String| {
        let order = Order::new(Fault::Before(bytes)).asking(&[Asking::Watch]).of(resource);
        outage.proxy.order(order.times(1));
    };
    before("pods", pods.into_iter().map(event).collect());
    before("networkpolicies", event(policy));
    let agent = outage.world.agent(Some(&outage.proxy.url()));
    outage.connect(2);
    expect(&agent, &[(EDGE, &[("answered", 2)])]);
    assert_eq!(decision(&agent, EDGE), "denied");
    // Where lists stream, the first watch comes when the stream has ended.
    outage.proxy.cut();
    let faulted = || outage.proxy.requests().iter().filter(|one| one.is_faulted).count();
    until(RECOVERY, "both", || (faulted() == 2).then_some(()));
    outage.lives(&agent);
    // The proxy hands on two megabytes before the first object with a fault: what was ordered is
    // not yet what was read.
    until(RECOVERY, "the pod with a fault named in the status", || {
        let status: Value = serde_json::from_str(&agent.get("/status").unwrap().body).unwrap();
        let mut pods =
            status["sources"].as_array().unwrap().iter().filter(|one| one["resource"] == "pods");
        pods.any(|source| source["problems"].to_string().contains("numbers")).then_some(())
    });
    let log = agent.log();
    assert!(log.contains("numbers"), "named in the log: {log}");
    assert_lists_are_rare(&outage.proxy);
    assert!(agent.stop().unwrap().success());
}

/// The agent's own time of day is set by a library before the C library; its monotonic clock, and
/// everybody else's time, stay as they are.
#[test]
fn a_clock_that_jumps_and_is_set_back_confuses_nobody() {
    const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
    assert!(Path::new(LIBRARY).exists(), "`cargo xtask setup` installs libfaketime");
    let mut outage = Outage::prepare();
    let folder = outage.world.node.folder();
    let (set, wrapper) = (folder.join("clock"), folder.join("agent-with-clock"));
    std::fs::write(&set, "+0").unwrap();
    let script = format!(
        "#!/bin/sh\nLD_PRELOAD={LIBRARY} FAKETIME_TIMESTAMP_FILE={} FAKETIME_NO_CACHE=1 \
         FAKETIME_DONT_FAKE_MONOTONIC=1 FAKETIME_DONT_RESET=1 exec {} \"$@\"\n",
        set.display(),
        binary().display()
    );
    std::fs::write(&wrapper, script).unwrap();
    std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let arguments = ["--pin-dir".to_string(), "none".to_string()];
    let kubeconfig = outage.kubeconfig();
    let agent = Agent::start_live(&wrapper, &outage.world.node, &kubeconfig, &arguments).unwrap();
    let jump = |by: &str| {
        std::fs::write(&set, by).unwrap();
        // A reading and a tick.
        thread::sleep(Duration::from_millis(1_500));
    };
    let at = || {
        let report: Value = serde_json::from_str(&agent.get("/report").unwrap().body).unwrap();
        report["at"].as_str().unwrap().to_string()
    };
    outage.connect(2);
    expect(&agent, &[(EDGE, &[("answered", 2)])]);
    let before = at();
    jump("+3600s");
    outage.connect(3);
    expect(&agent, &[(EDGE, &[("answered", 5)])]);
    let ahead = at();
    assert_ne!(ahead[..13], before[..13], "an hour later: {before} {ahead}");
    jump("+0");
    outage.connect(4);
    assert!(at() > ahead, "{} {ahead}", at());
    let late = outage.world.pod(&PodSpec::new("a", "late"));
    late.run(&Task::connect(outage.server.at(Family::V4, 8080), 2)).unwrap();
    const LATE: &str = "egress a/late -> b/server TCP/8080";
    expect(&agent, &[(EDGE, &[("answered", 9)]), (LATE, &[("answered", 2)])]);
    let status: Value = serde_json::from_str(&agent.get("/status").unwrap().body).unwrap();
    assert!(status["clock_ahead_seconds"].as_u64() > Some(3_000), "{status}");
    assert_eq!(decision(&agent, EDGE), "denied");
    outage.lives(&agent);
    assert_eq!(stale_since(&agent), ("".to_string(), "".to_string(), Some(0.0)));
    assert!(agent.stop().unwrap().success());
}
