//! The real binary, asked about one state of the cluster.
//!
//! In: objects, a profile, questions. Out: a line a question, and what was refused, in the words of
//! the scenarios. It expects nothing.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::scenario::{Manifest, Problem, Question};

/// What the binary said.
#[derive(Debug, PartialEq)]
pub(crate) struct Said {
    /// As [`crate::scenario::Expected::answer`] has them.
    pub(crate) answers: Vec<String>,
    pub(crate) rejected: Vec<Problem>,
    pub(crate) warned: Vec<Problem>,
    /// Anything else on stderr, such as that an object was left out. No scenario can expect it.
    pub(crate) other: Vec<String>,
    pub(crate) code: Option<i32>,
}

pub(crate) fn judge(manifests: &[Manifest], profile: &str, questions: &[&Question]) -> Said {
    let folder = tempfile::tempdir().unwrap();
    let texts: Vec<&str> = manifests.iter().map(|manifest| manifest.text.as_str()).collect();
    std::fs::write(folder.path().join("cluster.yaml"), texts.join("\n---\n")).unwrap();
    let mut running = Command::new(parapet())
        .args(["explain", "--manifests", "cluster.yaml", "--profile", profile, "--batch", "-"])
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: Vec<String> = questions.iter().map(|question| asked(question).to_string()).collect();
    running.stdin.take().unwrap().write_all(lines.join("\n").as_bytes()).unwrap();
    let done = running.wait_with_output().unwrap();
    let (out, err) = (String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr));
    let mut said = Said {
        answers: out.lines().map(answer).collect(),
        rejected: Vec::new(),
        warned: Vec::new(),
        other: Vec::new(),
        code: done.status.code(),
    };
    for line in err.unwrap().lines() {
        match problem(line) {
            Some(("ERROR", problem)) => said.rejected.push(problem),
            Some(("WARN", problem)) => said.warned.push(problem),
            _ => said.other.push(line.to_owned()),
        }
    }
    said
}

fn asked(question: &Question) -> Value {
    let end = |text: &str| match (text.strip_prefix("service:"), text.split_once('@')) {
        (Some(service), _) => json!({ "service": service }),
        (None, Some((pod, ip))) => json!({ "pod": pod, "ip": ip }),
        (None, None) if text.contains('/') => json!({ "pod": text }),
        (None, None) => json!({ "ip": text }),
    };
    let mut asked = json!({
        "from": end(&question.source),
        "to": end(&question.target),
        "protocol": question.protocol,
    });
    if let Some(port) = question.port {
        asked["port"] = port.into();
    }
    asked
}

fn answer(line: &str) -> String {
    let answer: Value = serde_json::from_str(line).unwrap();
    if let Some(error) = answer.get("error") {
        return format!("error: {error}");
    }
    let side = |name: &str| {
        let word = |key: &str| answer[name][key].as_str().unwrap_or("?").to_owned();
        format!("{name} {} {}", word("decision"), word("reason"))
    };
    let decision = answer["decision"].as_str().unwrap_or("?");
    format!("{decision}: {}, {}", side("egress"), side("ingress"))
}

/// "ERROR cluster.yaml:41: document 6: NetworkPolicy red/p: spec.ingress: what is wrong".
fn problem(line: &str) -> Option<(&str, Problem)> {
    let (level, rest) = line.trim_start().split_once(" cluster.yaml:")?;
    let (_, rest) = rest.split_once(": document ")?;
    let (_, rest) = rest.split_once(": ")?;
    Some((level, Problem::read(rest)?))
}

fn parapet() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/parapet");
    std::env::var_os("PARAPET_BIN").map_or(built, PathBuf::from)
}
