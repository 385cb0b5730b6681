//! The rendered families as a whole, counters over time, and what promtool says.

use std::io::Write;
use std::process::{Command, Stdio};

use super::*;
use crate::export::tests::secrets::secrets;
use crate::export::tests::{AT, SECOND, edge, health, snapshot, workload};
use parapet_core::flow::Direction;
use parapet_core::record::Counts;
use parapet_core::secrets::SecretsSnapshot;
use parapet_core::snapshot::EdgeEnd;

fn lines(text: &str, family: &str) -> Vec<String> {
    text.lines().filter(|line| line.starts_with(family)).map(str::to_owned).collect()
}

#[test]
fn an_edge_is_counted_by_outcome_and_by_verdict() {
    let metrics = Metrics::default();
    let snapshot = snapshot(vec![edge(workload("shop", "web"), 3, 1)]);
    let text = metrics.classic(&snapshot, &health(), AT).unwrap();
    let ends = "source_namespace=\"shop\",source_workload=\"web\",target_namespace=\"shop\",\
                target_workload=\"api\",target_port=\"8080\"";
    let samples: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.contains("events_lost"))
        .filter(|line| !line.contains("series_overflow"))
        .collect();
    let version = env!("CARGO_PKG_VERSION");
    let expected = [
        format!(
            "parapet_flow_attempts_total{{direction=\"ingress\",protocol=\"TCP\",\
             outcome=\"answered\",{ends}}} 3"
        ),
        format!(
            "parapet_flow_attempts_total{{direction=\"ingress\",protocol=\"TCP\",\
             outcome=\"unanswered\",{ends}}} 1"
        ),
        format!(
            "parapet_policy_verdicts_total{{policy_set=\"enforced\",direction=\"ingress\",\
             decision=\"allowed\",reason=\"not_isolated\",{ends}}} 4"
        ),
        format!(
            "parapet_policy_verdicts_total{{policy_set=\"new\",direction=\"ingress\",\
             decision=\"denied\",reason=\"no_rule_matched\",{ends}}} 4"
        ),
        "parapet_would_be_denied_edges{policy_set=\"enforced\",subject_namespace=\"shop\",\
         direction=\"ingress\"} 0"
            .to_owned(),
        "parapet_would_be_denied_edges{policy_set=\"new\",subject_namespace=\"shop\",\
         direction=\"ingress\"} 1"
            .to_owned(),
        "parapet_policy_drift_edges{kind=\"denied_but_passing\",subject_namespace=\"shop\",\
         direction=\"ingress\"} 0"
            .to_owned(),
        "parapet_observation_window_seconds{subject_namespace=\"shop\"} 90.0".to_owned(),
        "parapet_kernel_attempts_total{event=\"begun\"} 9".to_owned(),
        "parapet_kernel_attempts_total{event=\"answered\"} 7".to_owned(),
        "parapet_kernel_attempts_total{event=\"refused\"} 1".to_owned(),
        "parapet_unattributed_total{side=\"target\",reason=\"no_holder\"} 4".to_owned(),
        "parapet_pending_records{} 1".to_owned(),
        "parapet_unjudged_records{} 0".to_owned(),
        "parapet_map_entries{map=\"edges\"} 1".to_owned(),
        "parapet_map_entries{map=\"flows\"} 7".to_owned(),
        "parapet_map_capacity{map=\"edges\"} 10".to_owned(),
        "parapet_map_capacity{map=\"flows\"} 100".to_owned(),
        "parapet_probe_attached{probe=\"packet_sent\",hook=\"cgroup_skb/egress\"} 1".to_owned(),
        "parapet_watch_synced{resource=\"manifests\"} 1".to_owned(),
        "parapet_watch_age_seconds{resource=\"manifests\"} 5.0".to_owned(),
        format!("parapet_build_info{{version=\"{version}\"}} 1"),
    ];
    assert_eq!(samples, expected);
}

#[test]
fn counters_never_go_down_when_an_edge_settles_is_judged_anew_or_is_forgotten() {
    let metrics = Metrics::default();
    let total = |snapshot: &Arc<Snapshot>| {
        let text = metrics.classic(snapshot, &health(), AT).unwrap();
        let values = |family: &str| {
            let values = lines(&text, family).into_iter();
            let last = values.map(|line| line.rsplit(' ').next().unwrap().to_owned());
            last.collect::<Vec<_>>().join(" ")
        };
        (values("parapet_flow_attempts_total{"), values("parapet_policy_verdicts_total{"))
    };
    let web = || workload("shop", "web");
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    let mut open = edge(web(), 1, 0);
    (open.counts.attempts, open.open) = (3, 2);
    assert_eq!(total(&snapshot(vec![open])), pair("1", "3 3"));
    assert_eq!(total(&snapshot(vec![edge(web(), 2, 1)])), pair("2 1", "3 3"));
    assert_eq!(total(&snapshot(Vec::new())), pair("2 1", "3 3"));
    let mut anew = edge(web(), 1, 0);
    let denied = Arc::clone(&anew.judgement.verdicts["new"]);
    Arc::make_mut(&mut anew.judgement).verdicts.insert("enforced".into(), denied);
    assert_eq!(total(&snapshot(vec![anew])), pair("3 1", "3 1 4"));
}

#[test]
fn refusals_and_handshakes_are_counted_by_kind_and_time() {
    let metrics = Metrics::default();
    let egress = |attempts| {
        let mut egress = edge(workload("shop", "web"), 0, 0);
        Arc::make_mut(&mut egress.key).direction = Some(Direction::Egress);
        egress.counts = Counts {
            attempts,
            answered: 4,
            refused: 6,
            refused_port: 1,
            refused_route: 2,
            handshake_ns: 1_500_000_000,
            ..Counts::default()
        };
        egress
    };
    // Neither of these has handshakes of its own.
    let mut ingress = egress(10);
    Arc::make_mut(&mut ingress.key).direction = Some(Direction::Ingress);
    let mut echo = egress(10);
    Arc::make_mut(&mut echo.key).protocol = 1;
    let first = snapshot(vec![egress(10), ingress, echo]);
    metrics.observe(&first);
    let text = metrics.classic(&first, &health(), AT).unwrap();
    let ends = "source_namespace=\"shop\",source_workload=\"web\",target_namespace=\"shop\",\
                target_workload=\"api\",target_port=\"8080\"";
    let samples = |text: &str| {
        let ours = ["parapet_flow_refusals_total{direction=\"egress\"", "parapet_tcp_handshake"];
        ours.iter().flat_map(|family| lines(text, family)).collect::<Vec<_>>()
    };
    let refusals = [("TCP", 3, 1, 2), ("ICMP", 3, 1, 2)].into_iter();
    let mut expected: Vec<String> = refusals
        .flat_map(|(protocol, reset, port, route)| {
            [("reset", reset), ("port_unreachable", port), ("route_or_filter", route)].map(
                |(kind, count)| {
                    format!(
                        "parapet_flow_refusals_total{{direction=\"egress\",\
                         protocol=\"{protocol}\",kind=\"{kind}\",{ends}}} {count}"
                    )
                },
            )
        })
        .collect();
    expected.sort();
    let mut sorted = samples(&text);
    sorted.sort();
    expected.push(format!("parapet_tcp_handshake_seconds_total{{{ends}}} 1.5"));
    expected.push(format!("parapet_tcp_handshakes_total{{{ends}}} 4"));
    assert_eq!(sorted, expected);
    let total = |text: &str| lines(text, "parapet_tcp_handshake_seconds_total{").join("");
    let mut more = egress(11);
    (more.counts.answered, more.counts.handshake_ns) = (5, 1_750_000_000);
    let more = metrics.classic(&snapshot(vec![more]), &health(), AT).unwrap();
    assert_eq!(total(&more), format!("parapet_tcp_handshake_seconds_total{{{ends}}} 1.75"));
}

#[test]
fn protocols_are_named_and_others_are_numbers() {
    let metrics = Metrics::default();
    let edges = [1, 58, 136, 3].map(|protocol| {
        let mut edge = edge(workload("shop", "web"), 1, 0);
        Arc::make_mut(&mut edge.key).protocol = protocol;
        edge
    });
    let text = metrics.classic(&snapshot(edges.to_vec()), &health(), AT).unwrap();
    let named = lines(&text, "parapet_flow_attempts_total").into_iter();
    let named = named.filter_map(|line| line.split('"').nth(3).map(str::to_owned));
    assert_eq!(named.collect::<Vec<_>>(), ["ICMP", "3", "ICMPv6", "UDPLite"]);
}

#[test]
fn an_answer_that_came_late_passed_all_the_same() {
    let mut late = edge(workload("shop", "web"), 0, 1);
    late.counts.answered = 1;
    let denied = Arc::clone(&late.judgement.verdicts["new"]);
    Arc::make_mut(&mut late.judgement).verdicts.insert("enforced".into(), denied);
    let text = Metrics::default().classic(&snapshot(vec![late]), &health(), AT).unwrap();
    let expected = "parapet_policy_drift_edges{kind=\"denied_but_passing\",\
                    subject_namespace=\"shop\",direction=\"ingress\"} 1";
    assert_eq!(lines(&text, "parapet_policy_drift_edges"), [expected]);
}

#[test]
fn no_address_becomes_a_label_and_what_is_too_much_is_folded() {
    let metrics = Metrics::with_series_max(1);
    let outside = EdgeEnd::External { address: "203.0.113.9".parse().unwrap() };
    let snapshot = snapshot(vec![edge(outside, 5, 0), edge(workload("shop", "web"), 7, 0)]);
    let text = metrics.classic(&snapshot, &health(), AT).unwrap();
    assert!(!text.contains("203.0.113.9"), "{text}");
    let prefix = "parapet_flow_attempts_total{direction=\"ingress\",protocol=\"TCP\",\
                  outcome=\"answered\",";
    let expected = vec![
        format!(
            "{prefix}source_namespace=\"\",source_workload=\"external\",target_namespace=\"shop\",\
             target_workload=\"api\",target_port=\"8080\"}} 5"
        ),
        format!(
            "{prefix}source_namespace=\"__other__\",source_workload=\"__other__\",\
             target_namespace=\"__other__\",target_workload=\"__other__\",\
             target_port=\"__other__\"}} 7"
        ),
    ];
    assert_eq!(lines(&text, "parapet_flow_attempts_total"), expected);
    let overflow = "parapet_series_overflow_total{family=\"flow_attempts_total\"}";
    assert_eq!(lines(&text, overflow), vec![format!("{overflow} 1")]);
}

#[test]
fn labels_are_escaped() {
    let metrics = Metrics::default();
    let snapshot = snapshot(vec![edge(workload("a\"b", "c\\d\ne"), 1, 0)]);
    let text = metrics.openmetrics(&snapshot, &health(), AT).unwrap();
    let escaped = "source_namespace=\"a\\\"b\",source_workload=\"c\\\\d\\ne\"";
    assert_eq!(text.matches(escaped).count(), 3, "{text}");
}

#[test]
fn promtool_accepts_the_classic_format() {
    let spawned = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = spawned else {
        assert!(std::env::var_os("CI").is_none(), "CI provides promtool, and it is not there");
        let _ = writeln!(std::io::stderr(), "SKIPPED: promtool is not installed");
        return;
    };
    let flows = snapshot(vec![edge(workload("a\"b", "c\\d"), 1, 1)]);
    let snapshot = with_secrets(&flows, secrets());
    let now = parapet_core::flow::Timestamp(AT.0 + SECOND);
    let text = Metrics::default().classic(&snapshot, &health(), now).unwrap();
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    assert_eq!((output.status.success(), said.as_str()), (true, ""));
}

#[test]
fn openmetrics_is_given_to_those_who_ask_for_it() {
    let asked = [
        None,
        Some("*/*"),
        Some("text/plain"),
        Some("application/openmetrics-text;version=1.0.0,*/*;q=0.1"),
        Some("text/plain, application/openmetrics-text; q=0.5"),
        Some("application/openmetrics-text;q=0"),
    ];
    assert_eq!(asked.map(wants_openmetrics), [false, false, false, true, true, false]);
}

fn with_secrets(flows: &Snapshot, secrets: SecretsSnapshot) -> Arc<Snapshot> {
    Arc::new(Snapshot { secrets: Arc::new(secrets), ..flows.clone() })
}

/// One more open of the first row, the owner's own.
fn one_more(secrets: &SecretsSnapshot) -> SecretsSnapshot {
    let mut more = secrets.clone();
    Arc::make_mut(&mut more.reads[0]).counts.opens += 1;
    more
}

#[test]
fn secrets_are_counted_by_reader_and_no_key_no_path_and_no_process_is_told() {
    let with = |secrets| with_secrets(&snapshot(Vec::new()), secrets);
    let text = Metrics::default().classic(&with(secrets()), &health(), AT).unwrap();
    let api = "subject_namespace=\"shop\",subject_workload=\"api\",secret=\"db\"";
    let bare = "subject_namespace=\"\",subject_workload=";
    let reads = |labels: &str, reader: &str, count: u64| {
        format!("parapet_secret_reads_total{{{labels},reader=\"{reader}\"}} {count}")
    };
    let mounts = |workload: &str, secret: &str, state: &str, count: u64| {
        format!(
            "parapet_secret_mounts{{subject_namespace=\"shop\",subject_workload=\"{workload}\",\
             secret=\"{secret}\",state=\"{state}\"}} {count}"
        )
    };
    let expected = [
        reads(api, "self", 2),
        reads(api, "sibling", 2),
        reads(api, "other_pod", 4),
        reads(api, "node", 1),
        reads(api, "kubelet", 2),
        reads(&format!("{bare}\"node\",secret=\"node_file\""), "node", 2),
        reads(&format!("{bare}\"unknown\",secret=\"unknown_volume\""), "unknown", 2),
        mounts("api", "db", "read", 2),
        mounts("job", "db", "unobservable", 2),
        mounts("web", "tls", "never_read", 2),
        mounts("web", "service_account_token", "never_read", 4),
        "parapet_unattributed_total{side=\"secret\",reason=\"volume_not_known\"} 5".to_owned(),
    ];
    let families = ["parapet_secret_", "parapet_unattributed_total{side=\"secret\""];
    let found: Vec<String> = families.iter().flat_map(|family| lines(&text, family)).collect();
    assert_eq!(found, expected);
    for hidden in ["pass", "/etc", "ca.crt", "cat", "evil", "main", "proxy", "user.slice"] {
        assert!(!found.iter().any(|line| line.contains(hidden)), "{hidden}");
    }
}

#[test]
fn reads_never_go_down_when_a_row_is_forgotten_and_are_folded_beyond_the_bound() {
    let first = secrets();
    let with = |secrets: &SecretsSnapshot| with_secrets(&snapshot(Vec::new()), secrets.clone());
    let own = |metrics: &Metrics, secrets: &SecretsSnapshot| {
        let text = metrics.classic(&with(secrets), &health(), AT).unwrap();
        let own = text.lines().find(|line| line.contains("reader=\"self\""));
        own.and_then(|line| line.rsplit(' ').next()).map(str::to_owned)
    };
    let metrics = Metrics::default();
    let is = |count: &str| Some(count.to_owned());
    assert_eq!(own(&metrics, &first), is("2"));
    assert_eq!(own(&metrics, &one_more(&first)), is("3"));
    assert_eq!(own(&metrics, &SecretsSnapshot::default()), is("3"));
    assert_eq!(own(&metrics, &first), is("5"));
    let mut anew = first.clone();
    Arc::make_mut(&mut anew.reads[0]).counts.opens = 1;
    assert_eq!(own(&metrics, &anew), is("6"));
    let metrics = Metrics::with_series_max(1);
    let text = metrics.classic(&with(&first), &health(), AT).unwrap();
    let other = "subject_namespace=\"__other__\",subject_workload=\"__other__\",\
                 secret=\"__other__\"";
    let folded = |family: &str| {
        let lines = lines(&text, family).into_iter();
        lines.filter(|line| line.contains("__other__")).collect::<Vec<_>>()
    };
    let reads = [("sibling", 2), ("other_pod", 4), ("node", 3), ("kubelet", 2), ("unknown", 2)];
    let reads = reads.map(|(reader, n)| {
        format!("parapet_secret_reads_total{{{other},reader=\"{reader}\"}} {n}")
    });
    assert_eq!(folded("parapet_secret_reads_total"), reads);
    let mounts = [("never_read", 6), ("unobservable", 2)];
    let mounts =
        mounts.map(|(state, n)| format!("parapet_secret_mounts{{{other},state=\"{state}\"}} {n}"));
    assert_eq!(folded("parapet_secret_mounts"), mounts);
    let overflow = |family: &str| {
        lines(&text, &format!("parapet_series_overflow_total{{family=\"{family}\"}}"))
    };
    let is = |family: &str, n: u64| {
        vec![format!("parapet_series_overflow_total{{family=\"{family}\"}} {n}")]
    };
    assert_eq!(overflow("secret_reads_total"), is("secret_reads_total", 7));
    assert_eq!(overflow("secret_mounts"), is("secret_mounts", 4));
}
