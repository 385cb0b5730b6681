//! The command line as a user meets it: the real binary, whole stdout, whole stderr, exit code.
//!
//! In: files in `cases/`. Out: what was printed. It needs no root and no cluster.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

mod check;
mod doctor;
mod secrets;

const DENIED: &str = "\
pod shop/web-0 -> service shop/api port 80, TCP
denied under policy set new, profile common: ingress: isolated by shop/api-only; nearest is rule 0 of shop/api-only: the peer's pod labels differ
  enforced: allowed
  default-deny: denied, newly denied
  new: denied, newly denied; the first policy to isolate this pod for ingress
  egress: allowed, no NetworkPolicy isolates the pod in this direction
  ingress: denied, isolated, and no rule matches
    shop/api-only (new) ingress[0]: the peer's pod labels differ; it wants pods with app=front of namespace shop
";

#[derive(Debug, PartialEq)]
struct Done {
    code: i32,
    out: String,
    err: String,
}

#[test]
fn explains_a_candidate_through_a_service() {
    let done = parapet(
        "explain --manifests cluster.yaml --candidate new=policy.yaml --from shop/web-0 \
         --to service:shop/api --port 80",
        "",
    );
    assert_eq!(done, Done { code: 0, out: DENIED.to_owned(), err: String::new() });
}

#[test]
fn names_every_problem_answers_from_the_rest_and_fails_at_the_end() {
    let done = parapet(
        "explain --manifests broken.yaml --candidate new=policy.yaml --from shop/web-0 \
         --to service:shop/api --port 80",
        "",
    );
    let err = "\
ERROR broken.yaml:11: document 3: unclosed bracket '['
ERROR broken.yaml:41: document 6: NetworkPolicy shop/typo: spec.ingress[0].form: unknown field; known here: from, ports
ERROR broken.yaml:51: document 7: NetworkPolicy shop/bad: spec.ingress[0].from[0].ipBlock.cidr: \"10.0.0.0/33\" is no CIDR, such as 10.0.0.0/8
ERROR broken.yaml:53: document 7: NetworkPolicy shop/bad: spec.ingress[0].ports[0].port: port name \"80\" is a name and needs a letter; a port number is written without quotes
ERROR broken.yaml:54: document 7: NetworkPolicy shop/bad: spec.ingress[0].ports[1].endPort: endPort may not be given without port
ERROR broken.yaml:62: document 8: NetworkPolicy shop/labels: spec.podSelector.matchLabels.version: must be a string, not the number 1
 INFO not needed and left out: 1 of Secret (v1)
";
    let out = format!("{DENIED}  not judged: what 6 problems in the input are about\n");
    assert_eq!(done, Done { code: 1, out, err: err.to_owned() });
}

/// A misspelt candidate, judged as an empty one, would call every flow unchanged.
#[test]
fn a_path_that_is_not_there_stops_the_agent_before_it_starts() {
    let done = parapet("run --manifests cluster.yaml --candidate new=nope.yaml", "");
    let err = "error: nope.yaml: there is no such file or folder\n";
    assert_eq!(done, Done { code: 1, out: String::new(), err: err.to_owned() });
}

#[test]
fn a_line_that_cannot_be_answered_keeps_its_place() {
    let questions = r#"{"from":{"pod":"shop/web-0"},"to":{"ip":"10.0.0.2"},"port":80,"protocol":"TCP"}
{"from":{"pod":"shop/nope"},"to":{"ip":"1.1.1.1"},"port":80}
{oops
{"from":{"pod":"shop/web-0","ip":"9.9.9.9"},"to":{"ip":"1.1.1.1"},"port":80}
"#;
    let out = r#"{"probe":{"from":{"pod":"shop/web-0"},"to":{"ip":"10.0.0.2"},"port":80,"protocol":"TCP"},"policy_set":"enforced","decision":"allowed","profile":"common","egress":{"decision":"allowed","reason":"not_isolated","effects":[]},"ingress":{"decision":"allowed","reason":"not_isolated","effects":[]}}
{"error":"line 2: from: pod shop/nope: there is no such object"}
{"error":"line 3: key must be a string at line 1 column 2"}
{"error":"line 4: from: pod shop/web-0: 9.9.9.9 is not one of its addresses"}
"#;
    let done = parapet("explain --manifests cluster.yaml --batch -", questions);
    assert_eq!(done, Done { code: 1, out: out.to_owned(), err: String::new() });
}

#[test]
fn nothing_to_judge_by_is_a_failure() {
    let done = parapet("explain --manifests nope.yaml --from a/b --to c/d --port 1", "");
    let err = "\
ERROR nope.yaml: cannot be read: No such file or directory
error: no objects to judge by in --manifests
";
    assert_eq!(done, Done { code: 1, out: String::new(), err: err.to_owned() });
}

#[test]
fn wrong_usage_is_2() {
    let done = parapet("explain --manifests cluster.yaml --from shop --to a/b", "");
    let err = "\
error: invalid value 'shop' for '--from <END>': write a pod as namespace/name, a Service as service:namespace/name, an outside host as dns:name[@address], or an IP address

For more information, try '--help'.
";
    assert_eq!(done, Done { code: 2, out: String::new(), err: err.to_owned() });
}

fn parapet(arguments: &str, stdin: &str) -> Done {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let built = tests.join("../target/release/parapet");
    let mut child = Command::new(std::env::var_os("PARAPET_BIN").map_or(built, PathBuf::from))
        .args(arguments.split_whitespace())
        .current_dir(tests.join("cli/cases"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Done { code: done.status.code().unwrap(), out: text(done.stdout), err: text(done.stderr) }
}
