//! Verdicts of the public test suites against the real binary.
//!
//! In: `../shared/conformance`, each case one cluster with the expected answer of every probe. Out:
//! all mismatches of a folder at once. Nothing is asked of the core directly: cases become
//! manifests and questions on disk, as a user would write them.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test ends at the first surprise")]

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde_json::{Value, json};

/// Mismatches that are shown one by one; the rest is counted.
const MISMATCHES_SHOWN_MAX: usize = 50;

/// Unit tables that expect what their engine does instead of what the API says: a `nodes` peer is
/// the pods on those nodes there, and the nodes' addresses in the API.
/// Their probes are scored with the opposite expectation.
const DEFECTS: [&str; 1] = ["AdminNetworkPolicy-06-multiport-allow-egress-node-port.json"];

/// One file.
#[derive(Deserialize)]
struct Case {
    namespaces: Vec<Named>,
    #[serde(default)]
    nodes: Vec<Node>,
    pods: Vec<Pod>,
    policies: Vec<Value>,
    probes: Vec<Probe>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
    #[serde(default)]
    labels: Value,
}

#[derive(Deserialize)]
struct Node {
    name: String,
    #[serde(default)]
    labels: Value,
    #[serde(default)]
    ips: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Pod {
    namespace: String,
    name: String,
    #[serde(default)]
    labels: Value,
    #[serde(default)]
    ips: Vec<String>,
    #[serde(default)]
    ports: Vec<Port>,
    #[serde(default)]
    node_name: String,
    #[serde(default)]
    host_network: bool,
}

#[derive(Deserialize)]
struct Port {
    #[serde(default)]
    name: String,
    port: u16,
    #[serde(default)]
    protocol: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    #[serde(default)]
    from: String,
    #[serde(default)]
    to: String,
    #[serde(rename = "fromIP")]
    from_ip: Option<String>,
    #[serde(rename = "toIP")]
    to_ip: Option<String>,
    port: u16,
    protocol: Option<String>,
    expected: Option<bool>,
    expected_egress: Option<bool>,
    expected_ingress: Option<bool>,
    #[serde(default)]
    loopback: bool,
}

#[derive(Default)]
struct Score {
    files: usize,
    probes: usize,
    mismatches: Vec<String>,
}

#[test]
fn kubernetes_e2e_network_policy_tables() {
    check("netpol-e2e", 506);
}

#[test]
fn cyclonus_generated_cases() {
    check("cyclonus-generated", 111_036);
}

#[test]
fn kube_network_policies_unit_tables() {
    check("knp-unit", 28);
}

#[test]
fn cluster_network_policy_v1alpha2() {
    check("npapi/cnp-v1alpha2", 301);
}

#[test]
fn admin_and_baseline_admin_network_policy_v1alpha1() {
    check("npapi/anp-banp-v1alpha1", 289);
}

fn check(folder: &str, probes: usize) {
    let folder_path = shared().join(folder);
    assert!(folder_path.is_dir(), "{} is not there", folder_path.display());
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&folder_path).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut score = Score::default();
    for file in &files {
        judge(file, &mut score);
    }
    let mut report = String::new();
    for mismatch in score.mismatches.iter().take(MISMATCHES_SHOWN_MAX) {
        writeln!(report, "{mismatch}").unwrap();
    }
    let wrong = score.mismatches.len();
    eprintln!("{folder}: {} files, {} probes, {wrong} wrong", score.files, score.probes);
    assert!(wrong == 0, "{folder}: {wrong} of {} probes wrong\n{report}", score.probes);
    assert_eq!(score.probes, probes, "{folder}: scored probes");
}

fn judge(file: &Path, score: &mut Score) {
    let text = std::fs::read_to_string(file).unwrap();
    let case: Case = serde_json::from_str(&text).unwrap();
    let scored: Vec<&Probe> = case.probes.iter().filter(|probe| is_scored(probe)).collect();
    let folder = tempfile::tempdir().unwrap();
    let manifests = folder.path().join("cluster.json");
    std::fs::write(&manifests, objects(&case).to_string()).unwrap();
    let questions = folder.path().join("questions.jsonl");
    let lines: Vec<String> = scored.iter().map(|probe| question(probe).to_string()).collect();
    std::fs::write(&questions, lines.join("\n")).unwrap();
    let done = Command::new(parapet())
        .args(["explain", "--profile", "spec", "--manifests"])
        .arg(&manifests)
        .arg("--batch")
        .arg(&questions)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    std::io::stderr().write_all(&done.stderr).unwrap();
    let name = file.file_name().unwrap().to_str().unwrap();
    assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
    let answers = String::from_utf8(done.stdout).unwrap();
    let answers: Vec<Value> =
        answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), scored.len(), "{name}: one answer a question");
    score.files += 1;
    for (probe, answer) in scored.iter().zip(&answers) {
        score.probes += 1;
        let sides = [
            (probe.expected, &answer["decision"]),
            (probe.expected_egress, &answer["egress"]["decision"]),
            (probe.expected_ingress, &answer["ingress"]["decision"]),
        ];
        let defect = DEFECTS.contains(&name);
        let expected =
            |(expected, said): (Option<bool>, &Value)| match expected.map(|e| e != defect) {
                None => true,
                Some(true) => said == "allowed" || said == "exempt",
                Some(false) => said == "denied",
            };
        if !sides.into_iter().all(expected) {
            score.mismatches.push(format!(
                "{name}: expected {:?} (egress {:?}, ingress {:?}), got {answer}",
                probe.expected, probe.expected_egress, probe.expected_ingress
            ));
        }
    }
}

fn is_scored(probe: &Probe) -> bool {
    !probe.loopback && probe.protocol.is_some() && probe.expected.is_some()
}

fn question(probe: &Probe) -> Value {
    let end = |pod: &str, ip: &Option<String>| match (pod, ip) {
        ("", Some(ip)) => json!({ "ip": ip }),
        (pod, Some(ip)) => json!({ "pod": pod, "ip": ip }),
        (pod, None) => json!({ "pod": pod }),
    };
    json!({
        "from": end(&probe.from, &probe.from_ip),
        "to": end(&probe.to, &probe.to_ip),
        "port": probe.port,
        "protocol": probe.protocol,
    })
}

fn objects(case: &Case) -> Value {
    let namespaces = case.namespaces.iter().map(|Named { name, labels }| {
        json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels }
        })
    });
    let nodes = case.nodes.iter().map(|Node { name, labels, ips }| {
        let addresses: Vec<Value> =
            ips.iter().map(|ip| json!({ "type": "InternalIP", "address": ip })).collect();
        json!({
            "apiVersion": "v1", "kind": "Node", "metadata": { "name": name, "labels": labels },
            "status": { "addresses": addresses },
        })
    });
    let pods = case.pods.iter().map(|pod| {
        let ports: Vec<Value> = pod
            .ports
            .iter()
            .map(|Port { name, port, protocol }| {
                json!({ "name": name, "containerPort": port, "protocol": protocol })
            })
            .collect();
        let ips: Vec<Value> = pod.ips.iter().map(|ip| json!({ "ip": ip })).collect();
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "namespace": pod.namespace, "name": pod.name, "labels": pod.labels },
            "spec": {
                "nodeName": pod.node_name, "hostNetwork": pod.host_network,
                "containers": [{ "name": "serve", "ports": ports }],
            },
            "status": { "phase": "Running", "podIP": pod.ips.first(), "podIPs": ips },
        })
    });
    let policies = case.policies.iter().map(ordinary);
    let items: Vec<Value> = namespaces.chain(nodes).chain(pods).chain(policies).collect();
    json!({ "apiVersion": "v1", "kind": "List", "items": items })
}

/// A unit table never asked the API server, which wants names in lower case and no end of a range
/// above the last port there is. Neither changes what the policy means.
fn ordinary(policy: &Value) -> Value {
    let mut policy = policy.clone();
    let name = policy["metadata"]["name"].as_str().unwrap().to_lowercase();
    policy["metadata"]["name"] = name.into();
    for rules in ["ingress", "egress"] {
        for rule in array(policy["spec"].get_mut(rules)) {
            for port in array(rule.get_mut("ports")) {
                if port.get("endPort").and_then(Value::as_u64) > Some(65_535) {
                    port["endPort"] = 65_535.into();
                }
            }
        }
    }
    policy
}

fn array(value: Option<&mut Value>) -> impl Iterator<Item = &mut Value> {
    value.and_then(Value::as_array_mut).into_iter().flatten()
}

fn parapet() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/parapet");
    std::env::var_os("PARAPET_BIN").map_or(built, PathBuf::from)
}

fn shared() -> PathBuf {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance");
    std::env::var_os("PARAPET_CONFORMANCE").map_or(beside, PathBuf::from)
}
