//! One hand-made snapshot, and every projection of it as a whole.

use std::io::{Read, Write};
use std::sync::Arc;

use parapet_core::flow::{Direction, Outcome, Timestamp, Workload};
use parapet_core::judgement::Judgement;
use parapet_core::record::Counts;
use parapet_core::snapshot::{Edge, EdgeEnd, EdgeKey, EndSide, Outcomes, Snapshot};
use parapet_core::verdict::{
    Action, Decision, Delta, Effect, PolicyKind, Profile, Reason, RuleMatch, SideVerdict, Tier,
    Verdict,
};

use super::report::render;
use super::status::SourceHealth;
use super::*;
use crate::kernel::{ProbeStatus, Totals};

pub(super) mod secrets;

pub(super) const SECOND: u64 = 1_000_000_000;
pub(super) const AT: Timestamp = Timestamp(1_795_434_000 * SECOND);

pub(super) fn workload(namespace: &str, name: &str) -> EdgeEnd {
    let workload = Workload { kind: "Deployment".into(), name: name.into() };
    EdgeEnd::Pod { namespace: namespace.into(), workload }
}

fn side(decision: Decision, reason: Reason, effects: Vec<Effect>) -> SideVerdict {
    SideVerdict { decision, reason, tier: None, effects }
}

/// Egress is allowed; ingress is denied by a policy without rules if asked so.
fn verdict(denied: bool) -> Arc<Verdict> {
    let open = || side(Decision::Allowed, Reason::NotIsolated, Vec::new());
    let effect = Effect {
        policy: "shop/deny-all".into(),
        origin: "new".into(),
        kind: PolicyKind::NetworkPolicy,
        tier: Tier::NetworkPolicy,
        action: Action::Allow,
        wanted: None,
        rule: None,
        matched: RuleMatch::NoRules,
    };
    let shut = || side(Decision::Denied, Reason::NoRuleMatched, vec![effect.clone()]);
    Arc::new(Verdict {
        decision: if denied { Decision::Denied } else { Decision::Allowed },
        profile: Profile::Common,
        egress: open(),
        ingress: if denied { shut() } else { open() },
    })
}

/// An ingress edge to shop/api with these outcomes, last seen ten seconds ago.
pub(super) fn edge(source: EdgeEnd, answered: u64, unanswered: u64) -> Edge {
    let key = EdgeKey {
        direction: Some(Direction::Ingress),
        protocol: 6,
        target_port: 8080,
        source,
        target: workload("shop", "api"),
        source_rewritten: None,
    };
    Edge {
        key: key.into(),
        counts: Counts { attempts: answered + unanswered, answered, ..Counts::default() },
        outcomes: Outcomes::from_iter([
            (Outcome::Answered, answered),
            (Outcome::Unanswered, unanswered),
        ]),
        open: 0,
        first_seen: Timestamp(AT.0 - 60 * SECOND),
        last_seen: Timestamp(AT.0 - 10 * SECOND),
        names: None,
        judgement: Arc::new(Judgement {
            verdicts: [("enforced".into(), verdict(false)), ("new".into(), verdict(true))].into(),
            deltas: [("new".into(), Delta::NewlyDenied)].into(),
        }),
    }
}

pub(super) fn snapshot(edges: Vec<Edge>) -> Arc<Snapshot> {
    Arc::new(Snapshot {
        at: AT,
        observing_since: Timestamp(AT.0 - 90 * SECOND),
        synced: true,
        edges: edges.into_iter().map(Arc::new).collect(),
        policy_sets: vec!["enforced".into(), "new".into()],
        lost: [("ring_full", 2)].into(),
        unattributed: [((EndSide::Target, "no_holder"), 4)].into(),
        pending: 1,
        tables: [("edges", (1, 10))].into(),
        ..Snapshot::default()
    })
}

pub(super) fn health() -> Arc<Health> {
    Arc::new(Health {
        probes: vec![ProbeStatus {
            probe: "packet_sent",
            hook: "cgroup_skb/egress",
            feature: "flows",
            required: true,
            attached: true,
            error: None,
        }],
        sources: vec![SourceHealth {
            resource: "manifests".to_owned(),
            synced: true,
            read_at: Timestamp(AT.0 - 5 * SECOND),
            objects: 3,
            problems: vec!["a.yaml:4: bad".to_owned()],
            ..SourceHealth::default()
        }],
        kernel_tables: vec![("flows", 7, 100)],
        kernel_totals: Totals { attempts: 9, answered: 7, refused: 1 },
        engine_at: AT,
        profile: Profile::Common,
        node: "n1".to_owned(),
        ..Health::default()
    })
}

fn report() -> Report {
    Report::new(&snapshot(vec![edge(workload("shop", "web"), 3, 1)]), None)
}

#[test]
fn a_report_reads_back_as_it_was_written() {
    let report = report();
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
}

#[test]
fn an_edge_says_how_its_attempts_ended_and_which_process_of_the_node_it_is() {
    let node =
        |cgroup: Option<&str>| EdgeEnd::Node { name: "n1".into(), cgroup: cgroup.map(Into::into) };
    let mut kubelet = edge(node(Some("system.slice/kubelet.service")), 4, 1);
    Arc::make_mut(&mut kubelet.key).direction = Some(Direction::Egress);
    Arc::make_mut(&mut kubelet.key).protocol = 1;
    kubelet.open = 2;
    kubelet.counts = Counts {
        attempts: 12,
        answered: 4,
        refused: 5,
        refused_port: 2,
        refused_route: 1,
        handshake_ns: 4_010_000,
        ..Counts::default()
    };
    let row = |edge| {
        let report = Report::new(&snapshot(vec![edge]), None);
        let value = serde_json::to_value(&report.edges[0]).unwrap();
        assert_eq!(
            serde_json::from_value::<report::EdgeRow>(value.clone()).unwrap(),
            report.edges[0]
        );
        let fields = ["protocol", "source", "open", "refusals", "handshake_us_mean"];
        let shown = (report.edges[0].source.to_string(), render::rows(&report).1[0][6].clone());
        (fields.map(|field| value.get(field).cloned().unwrap_or_default()), shown)
    };
    let expected = [
        "ICMP".into(),
        serde_json::json!({"kind": "node", "name": "n1", "cgroup": "system.slice/kubelet.service"}),
        2.into(),
        serde_json::json!({"reset": 2, "port_unreachable": 2, "route_or_filter": 1}),
        1_002.into(),
    ];
    let shown = |(source, outcomes): (&str, &str)| (source.to_owned(), outcomes.to_owned());
    assert_eq!(
        row(kubelet),
        (
            expected,
            shown(("node:n1 (system.slice/kubelet.service)", "4 answered, 1 unanswered, 2 open"))
        )
    );
    let remote = edge(node(None), 1, 0);
    let null = serde_json::Value::Null;
    let source = serde_json::json!({"kind": "node", "name": "n1"});
    assert_eq!(
        row(remote),
        (
            ["TCP".into(), source, null.clone(), null.clone(), null],
            shown(("node:n1", "1 answered"))
        )
    );
    let group = EdgeEnd::Multicast { address: "224.0.0.251".parse().unwrap() };
    let group = Report::new(&snapshot(vec![edge(group, 1, 0)]), None).edges.remove(0).source;
    assert_eq!(group.to_string(), "multicast:224.0.0.251");
    let root = report::EndRow::Node { name: String::new(), cgroup: Some(String::new()) };
    assert_eq!(root.to_string(), "node (root cgroup)");
}

#[test]
fn a_table_says_who_talks_to_whom_what_would_change_and_why() {
    let expected = "\
SOURCE    TARGET    PORT  PROTOCOL  DIRECTION  ATTEMPTS  OUTCOMES                  ENFORCED  NEW     DELTA         WHY
shop/web  shop/api  8080  TCP       ingress    4         3 answered, 1 unanswered  allowed   denied  newly_denied  new: ingress: isolated by shop/deny-all; no rule allows anything

1 edges since 2026-11-23T11:38:30.000Z
new: 1 newly_denied, 0 newly_allowed, 0 unchanged_denied, 0 unchanged_allowed, 0 undecidable
2 records or packets were not followed (see /status)
1 records wait for an identity or a verdict
";
    assert_eq!(render::table(&report()), expected);
}

#[test]
fn csv_and_markdown_quote_what_would_break_them() {
    let csv = "source,target,port,protocol,direction,attempts,outcomes,enforced,new,delta,why\r\n\
               shop/web,shop/api,8080,TCP,ingress,4,\"3 answered, 1 unanswered\",allowed,denied,\
               newly_denied,new: ingress: isolated by shop/deny-all; no rule allows anything\r\n";
    assert_eq!(render::csv(&report()), csv);
    let mut piped = report();
    piped.edges[0].target = report::EndRow::Node { name: "a|b".to_owned(), cgroup: None };
    let markdown = render::markdown(&piped);
    assert_eq!(
        markdown.lines().nth(2),
        Some(
            "| shop/web | node:a\\|b | 8080 | TCP | ingress | 4 | 3 answered, 1 unanswered | \
             allowed | denied | newly_denied | new: ingress: isolated by shop/deny-all; no rule \
             allows anything |"
        )
    );
}

#[test]
fn status_is_one_document() {
    let status = Status::new(&health(), &snapshot(Vec::new()), AT);
    let expected = serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"), "node": "n1", "profile": "common",
        "ready": true, "waiting_for": [],
        "observing_since": "2026-11-23T11:38:30.000Z",
        "probes": [{"probe": "packet_sent", "hook": "cgroup_skb/egress", "feature": "flows",
                    "required": true, "attached": true, "error": null}],
        "sources": [{"resource": "manifests", "synced": true, "age_seconds": 5.0, "objects": 3,
                     "problems_count": 1, "problems": ["a.yaml:4: bad"], "left_out": {}}],
        "rejections": [],
        "lost": {"ring_full": 2, "flow_table_full": 0, "flow_quota": 0, "malformed_packet": 0,
                 "later_fragment": 0, "no_socket": 0, "names_full": 0, "socket_storage": 0,
                 "socket_pair": 0, "secrets_full": 0, "reads_full": 0, "reads_quota": 0,
                 "descriptor_gone": 0, "fixed_file": 0, "volume_reused": 0},
        "tables": {"edges": {"entries": 1, "capacity": 10},
                   "flows": {"entries": 7, "capacity": 100}},
        "pending": 1, "unjudged": 0,
    });
    assert_eq!(serde_json::to_value(status).unwrap(), expected);
}

#[test]
fn what_keeps_the_agent_from_being_ready_is_named() {
    let mut health = Health::clone(&health());
    health.probes[0].attached = false;
    health.sources[0].synced = false;
    let status = Status::new(&health, &Snapshot::default(), Timestamp(AT.0 + 11 * SECOND));
    let expected = [
        "probe packet_sent is not attached",
        "manifests has not been read yet",
        "the engine waits for the first full lists",
        "the engine made no step for 11 s",
    ];
    assert_eq!(status.waiting_for, expected);
}

/// The status line, the content type and the body of one request.
fn ask(address: std::net::SocketAddr, request: &str, accept: &str) -> (String, String, String) {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(
        stream,
        "{request} HTTP/1.1\r\nhost: x\r\naccept: {accept}\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.lines().next().unwrap().to_owned();
    let kind = head.lines().find_map(|line| line.strip_prefix("content-type: "));
    (status, kind.unwrap_or_default().to_owned(), body.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn every_path_answers_and_no_other_does() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let published = Arc::new(Published::default());
    published.set_snapshot(snapshot(vec![edge(workload("shop", "web"), 3, 1)]));
    tokio::spawn(http::serve(listener, published));
    let asked = tokio::task::spawn_blocking(move || {
        let any = |request: &str| ask(address, request, "*/*");
        let ok = "HTTP/1.1 200 OK";
        let json = "application/json";
        let (status, kind, body) = any("GET /livez");
        assert_eq!((status.as_str(), body.as_str()), (ok, "ok\n"));
        assert_eq!(kind, "text/plain; charset=utf-8");
        let (status, kind, _) = any("GET /metrics");
        assert_eq!((status.as_str(), kind.as_str()), (ok, metrics::CLASSIC));
        let open = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;q=0.5";
        let (_, kind, body) = ask(address, "GET /metrics", open);
        assert_eq!((kind.as_str(), body.ends_with("# EOF\n")), (metrics::OPENMETRICS, true));
        let (status, _, body) = any("GET /readyz");
        assert_eq!(status, "HTTP/1.1 503 Service Unavailable");
        let waiting = "probes are not loaded yet; the engine has not started";
        assert_eq!(body, format!("{{\"error\":\"{waiting}\"}}"));
        let (status, kind, body) = any("GET /report");
        assert_eq!((status.as_str(), kind.as_str()), (ok, json));
        assert_eq!(serde_json::from_str::<Report>(&body).unwrap(), report());
        let since = AT.0 - 10 * SECOND;
        let (_, _, body) = any(&format!("GET /flows?since={since}"));
        assert_eq!(serde_json::from_str::<Report>(&body).unwrap().edges, Vec::new());
        let (status, kind, _) = any("GET /flows?since=x");
        assert_eq!((status.as_str(), kind.as_str()), ("HTTP/1.1 400 Bad Request", json));
        let (status, kind, _) = any("GET /nope");
        assert_eq!((status.as_str(), kind.as_str()), ("HTTP/1.1 404 Not Found", json));
        let (status, ..) = any("POST /report");
        assert_eq!(status, "HTTP/1.1 405 Method Not Allowed");
    });
    asked.await.unwrap();
}
