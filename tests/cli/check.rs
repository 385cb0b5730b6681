//! `parapet check` as a pipeline meets it: whole output, and each exit code of the contract.
//!
//! In: `cases/check`. Out: what was printed. It needs no root and no cluster.

use std::path::Path;

use super::{Done, parapet};

const UNSAFE: &str = "\
candidate: unsafe (2 newly_denied, 0 newly_allowed, 0 undecidable, 1 unchanged_denied, 3 unchanged_allowed)
first policy to isolate shop/api for ingress: 2 edges below

In use, and would be newly denied:
SOURCE    TARGET    PORT  PROTOCOL  ATTEMPTS  ANSWERED  LAST_SEEN                 WHY
shop/web  shop/api  8080  TCP       7         7         2026-11-23T11:00:00.000Z  ingress: isolated by shop/api-only; nearest is rule 0 of shop/api-only: the peer's pod labels differ; first policy to isolate shop/api for ingress

Would be newly denied too, but nothing was ever answered:
SOURCE       TARGET    PORT  PROTOCOL  ATTEMPTS  ANSWERED  LAST_SEEN                 WHY
203.0.113.7  shop/api  22    TCP       2         0         2026-11-23T10:20:00.000Z  ingress: isolated by shop/api-only; nearest is rule 0 of shop/api-only: it asks for pods and the peer is none; first policy to isolate shop/api for ingress

evidence: 7 edges, watched from 2026-11-23T10:00:00.000Z to 2026-11-23T11:00:01.000Z
verdict: unsafe (something in use would be newly denied)
";

/// What was seen at both ends is one edge, and the first policy of a pod is marked.
#[test]
fn ten_if_something_in_use_would_be_denied() {
    expect("--policies check/strict.yaml --evidence check/seen.json", 10, UNSAFE, "");
}

/// The scan from outside would be denied, and is no use.
#[test]
fn zero_if_only_a_scan_would_be_denied() {
    let out = "\
candidate: safe (1 newly_denied, 0 newly_allowed, 0 undecidable, 1 unchanged_denied, 4 unchanged_allowed)
first policy to isolate shop/api for ingress: 1 edge below

Would be newly denied too, but nothing was ever answered:
SOURCE       TARGET    PORT  PROTOCOL  ATTEMPTS  ANSWERED  LAST_SEEN                 WHY
203.0.113.7  shop/api  22    TCP       2         0         2026-11-23T10:20:00.000Z  ingress: isolated by shop/api-only; nearest is rule 0 of shop/api-only: it asks for pods and the peer is none; first policy to isolate shop/api for ingress

evidence: 7 edges, watched from 2026-11-23T10:00:00.000Z to 2026-11-23T11:00:01.000Z
verdict: safe (nothing in use would be newly denied)
";
    expect("--policies check/loose.yaml --evidence check/seen.json", 0, out, "");
}

#[test]
fn eleven_says_every_gap_and_what_is_not_declared() {
    let out = "\
candidate: insufficient_evidence (0 newly_denied, 0 newly_allowed, 2 undecidable, 0 unchanged_denied, 1 unchanged_allowed)

In use, and undecidable:
SOURCE    TARGET      PORT  PROTOCOL  ATTEMPTS  ANSWERED  LAST_SEEN                 WHY
shop/api  shop/cache  6379  TCP       1         0         2026-11-23T11:00:00.000Z  nothing told who began
shop/web  shop/gone   80    TCP       1         1         2026-11-23T11:00:00.000Z  ingress: an end is not known; no running pod of Deployment shop/gone is declared

evidence: 4 edges, watched from 2026-11-23T10:00:00.000Z to 2026-11-23T11:00:01.000Z
evidence is not enough: the agent was still reading objects
evidence is not enough: records or packets were lost: ring_full 3
evidence is not enough: 2 records waited for an identity or a verdict
verdict: insufficient_evidence (what was seen does not tell)
";
    expect("--policies check/loose.yaml --evidence check/gaps.json", 11, out, "");
}

#[test]
fn nothing_seen_is_not_enough() {
    let out = "\
candidate: insufficient_evidence (0 newly_denied, 0 newly_allowed, 0 undecidable, 0 unchanged_denied, 0 unchanged_allowed)

evidence: 0 edges, watched from 2026-11-23T10:00:00.000Z to 2026-11-23T11:00:01.000Z
evidence is not enough: it holds no edge
verdict: insufficient_evidence (what was seen does not tell)
";
    expect("--policies check/strict.yaml --evidence check/nothing.json", 11, out, "");
}

/// The rest is judged and shown, and what lacks a policy is never called safe.
#[test]
fn one_if_a_policy_was_refused_though_the_rest_is_safe() {
    let out = "\
candidate: invalid (1 newly_denied, 0 newly_allowed, 0 undecidable, 1 unchanged_denied, 4 unchanged_allowed)
first policy to isolate shop/api for ingress: 1 edge below

Would be newly denied too, but nothing was ever answered:
SOURCE       TARGET    PORT  PROTOCOL  ATTEMPTS  ANSWERED  LAST_SEEN                 WHY
203.0.113.7  shop/api  22    TCP       2         0         2026-11-23T10:20:00.000Z  ingress: isolated by shop/api-only; nearest is rule 0 of shop/api-only: it asks for pods and the peer is none; first policy to isolate shop/api for ingress

evidence: 7 edges, watched from 2026-11-23T10:00:00.000Z to 2026-11-23T11:00:01.000Z
verdict: invalid (something was refused or could not be read, and was not judged)
";
    let arguments = "--policies check/loose.yaml check/refused.yaml --evidence check/seen.json";
    expect(arguments, 1, out, REFUSED);
}

#[test]
fn ten_though_a_policy_was_refused() {
    let arguments = "--policies check/strict.yaml check/refused.yaml --evidence check/seen.json";
    expect(arguments, 10, UNSAFE, REFUSED);
}

const REFUSED: &str = "ERROR check/refused.yaml:7: document 1: NetworkPolicy shop/web-only: \
                       spec.ingress[0].form: unknown field; known here: from, ports\n";

#[test]
fn without_evidence_policies_are_read_and_no_more() {
    let out = "verdict: valid (every policy can be read; without evidence nothing was judged)\n";
    expect("--policies check/strict.yaml", 0, out, "");
    let out = "verdict: invalid (something was refused or could not be read, and was not judged)\n";
    expect("--policies check/refused.yaml", 1, out, REFUSED);
    let err = "ERROR check/nope.yaml: cannot be read: No such file or directory\n";
    expect("--policies check/nope.yaml", 1, out, err);
    let err = " WARN candidate candidate: Namespace: of a candidate only the network policies count
 WARN candidate candidate: Pod: of a candidate only the network policies count
 WARN candidate candidate: Service: of a candidate only the network policies count
ERROR candidate candidate: its files hold no network policy
";
    expect("--policies cluster.yaml", 1, out, err);
    let err = " INFO not needed and left out: 1 of CiliumNetworkPolicy (cilium.io/v2)\n\
               ERROR candidate candidate: 1 of CiliumNetworkPolicy (cilium.io/v2) cannot be judged\n";
    expect("--policies check/unjudged.yaml", 1, out, err);
}

#[test]
fn lint_groups_by_policy_and_says_the_fix() {
    let out = "\
NetworkPolicy shop/api-only (candidate)
  warning: spec.ingress[0].from[0]: matches nothing that is there now: pods with app=front of namespace shop
    fix: compare the selector with the labels of the pods it is for; a podSelector alone means the policy's own namespace

verdict: valid (every policy can be read; without evidence nothing was judged)
";
    expect("--policies check/strict.yaml --lint", 0, out, "");
    let out = "\
NetworkPolicy shop/backwards (candidate)
  warning: spec.egress: isolates pods for egress that nothing lets ask DNS by UDP: shop/api-5c-ccccc
    fix: add an egress rule for UDP and TCP to the DNS port (53)
  error: spec.ingress: spec.policyTypes does not hold Ingress: these rules are ignored
    fix: add Ingress to spec.policyTypes, or remove the rules

verdict: invalid (lint found an error)
";
    expect("--policies check/backwards.yaml --lint", 1, out, "");
}

#[test]
fn a_removed_policy_allows_what_it_denied() {
    let out = "\
open: safe (0 newly_denied, 1 newly_allowed, 0 undecidable, 0 unchanged_denied, 5 unchanged_allowed)

Would be newly allowed:
SOURCE    TARGET     PORT  PROTOCOL  ATTEMPTS  ANSWERED  LAST_SEEN                 WHY
shop/web  shop/db-0  5432  TCP       3         0         2026-11-23T10:30:00.000Z  ingress: no NetworkPolicy isolates the pod in this direction; as enforced, ingress: isolated by shop/db-from-api; nearest is rule 0 of shop/db-from-api: the peer's pod labels differ

evidence: 7 edges, watched from 2026-11-23T10:00:00.000Z to 2026-11-23T11:00:01.000Z
verdict: safe (nothing in use would be newly denied)
";
    expect("--remove open=shop/db-from-api --evidence check/seen.json", 0, out, "");
    let done = check("--remove open=shop/nope --evidence check/seen.json", "");
    let err = "ERROR candidate open: NetworkPolicy shop/nope: is to be removed, and no such policy \
               is enforced\n";
    assert_eq!((done.code, done.err.as_str()), (1, err));
}

/// The node that was watched is the one that is ever a local end, and the pods it saw ran on it.
#[test]
fn the_watched_node_is_the_own_node_of_the_pods_it_saw() {
    let out = "\
default-deny: unsafe (1 newly_denied, 0 newly_allowed, 0 undecidable, 0 unchanged_denied, 2 unchanged_allowed)
first policy to isolate shop/web for ingress: 1 edge below

In use, and would be newly denied:
SOURCE       TARGET    PORT  PROTOCOL  ATTEMPTS  ANSWERED  LAST_SEEN                 WHY
node:node-b  shop/web  9000  TCP       4         4         2026-11-23T11:00:00.000Z  ingress: isolated by default-deny; no rule allows anything; first policy to isolate shop/web for ingress

evidence: 3 edges, watched from 2026-11-23T10:00:00.000Z to 2026-11-23T11:00:01.000Z
verdict: unsafe (something in use would be newly denied)
";
    expect("--evidence check/home.json", 10, out, "");
}

/// To policies the processes of a node are one, so that what they did is one edge, and the same as
/// at the other end. Protocols read by name and by number.
#[test]
fn processes_of_a_node_groups_and_any_protocol_are_judged() {
    let out = "\
default-deny: unsafe (1 newly_denied, 0 newly_allowed, 3 undecidable, 0 unchanged_denied, 0 unchanged_allowed)
first policy to isolate shop/web for ingress: 1 edge below

In use, and would be newly denied:
SOURCE       TARGET    PORT  PROTOCOL  ATTEMPTS  ANSWERED  LAST_SEEN                 WHY
node:node-b  shop/web  9000  TCP       4         4         2026-11-23T11:00:00.000Z  ingress: isolated by default-deny; no rule allows anything; first policy to isolate shop/web for ingress

In use, and undecidable:
SOURCE    TARGET       PORT  PROTOCOL  ATTEMPTS  ANSWERED  LAST_SEEN                 WHY
shop/web  203.0.113.7  0     ICMP      2         2         2026-11-23T11:00:00.000Z  egress: NetworkPolicy does not define this protocol
shop/web  203.0.113.8  0     1         2         2         2026-11-23T11:00:00.000Z  egress: NetworkPolicy does not define this protocol

Undecidable, and nothing was ever answered:
SOURCE    TARGET                 PORT  PROTOCOL  ATTEMPTS  ANSWERED  LAST_SEEN                 WHY
shop/web  multicast:224.0.0.251  0     IGMP      2         0         2026-11-23T11:00:00.000Z  egress: NetworkPolicy does not define this protocol

evidence: 6 edges, watched from 2026-11-23T10:00:00.000Z to 2026-11-23T11:00:01.000Z
verdict: unsafe (something in use would be newly denied)
";
    expect("--evidence check/units.json", 10, out, "");
}

/// Without a candidate the question is default-deny. A probe of a pod's own node passes whatever is
/// said, of another node it does not; two pods of one workload are not one pod.
#[test]
fn an_end_is_the_pod_that_the_evidence_means() {
    let out = "\
default-deny: unsafe (2 newly_denied, 0 newly_allowed, 0 undecidable, 0 unchanged_denied, 1 unchanged_allowed)
first policy to isolate shop/web for ingress: 2 edges below
first policy to isolate shop/web for egress: 1 edge below

In use, and would be newly denied:
SOURCE       TARGET    PORT  PROTOCOL  ATTEMPTS  ANSWERED  LAST_SEEN                 WHY
shop/web     shop/web  7946  TCP       4         4         2026-11-23T11:00:00.000Z  egress: isolated by default-deny; no rule allows anything; first policy to isolate shop/web for egress; first policy to isolate shop/web for ingress
node:node-a  shop/web  9000  TCP       4         4         2026-11-23T11:00:00.000Z  ingress: isolated by default-deny; no rule allows anything; first policy to isolate shop/web for ingress

evidence: 3 edges, watched from 2026-11-23T10:00:00.000Z to 2026-11-23T11:00:01.000Z
verdict: unsafe (something in use would be newly denied)
";
    expect("--evidence check/nodes.json", 10, out, "");
}

#[test]
fn evidence_comes_from_stdin_and_json_goes_to_stdout() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("cli/cases/check");
    let seen = std::fs::read_to_string(cases.join("seen.json")).unwrap();
    let expected = std::fs::read_to_string(cases.join("strict.json")).unwrap();
    let arguments = "--candidate strict=check/strict.yaml --candidate loose=check/loose.yaml \
                     --evidence - --profile spec -o json";
    let done = check(arguments, &seen);
    assert_eq!(done, Done { code: 10, out: expected, err: String::new() });
}

#[test]
fn what_is_no_evidence_is_a_failure() {
    let no_file = "error: nope.json cannot be read: No such file or directory (os error 2)\n";
    expect("--policies check/strict.yaml --evidence nope.json", 1, "", no_file);
    let no_json = "error: - is no report: expected ident at line 1 column 2\n";
    expect("--policies check/strict.yaml --evidence -", 1, "", no_json);
    let no_agent = check("--policies check/strict.yaml --agent http://127.0.0.1:1", "");
    let words = "error: no agent answers at http://127.0.0.1:1: is `parapet run` there?";
    assert_eq!((no_agent.code, no_agent.err.starts_with(words)), (1, true), "{no_agent:?}");
    let twice = "error: stdin can be one of --manifests, --policies, --candidate and --evidence, \
                 not more\n";
    expect("--policies - --evidence -", 1, "", twice);
}

#[test]
fn nothing_asked_is_wrong_usage() {
    let err = "\
error: the following required arguments were not provided:
  <--policies <PATH>...|--candidate <NAME=PATH>|--remove <NAME=POLICY>|--lint|--evidence <FILE>|--agent <URL>|--cluster>

Usage: parapet check --manifests <PATH>... <--policies <PATH>...|--candidate <NAME=PATH>|--remove <NAME=POLICY>|--lint|--evidence <FILE>|--agent <URL>|--cluster>

For more information, try '--help'.
";
    expect("", 2, "", err);
}

#[track_caller]
fn expect(arguments: &str, code: i32, out: &str, err: &str) {
    let stdin = if arguments.ends_with("strict.yaml --evidence -") { "no report" } else { "" };
    let expected = Done { code, out: out.to_owned(), err: err.to_owned() };
    assert_eq!(check(arguments, stdin), expected, "{arguments}");
}

fn check(arguments: &str, stdin: &str) -> Done {
    parapet(&format!("check --manifests check/cluster.yaml {arguments}"), stdin)
}
