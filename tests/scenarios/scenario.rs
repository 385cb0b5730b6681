//! One scenario as it stands in its file.
//!
//! In: the text of a file. Out: its [`Step`]s, each with the objects it applies and what it expects
//! after them. It judges nothing and panics on what is no scenario.

use std::fmt;

use serde::Deserialize;
use serde_json::Value;

/// A change of the cluster and what holds after it.
pub(crate) struct Step {
    /// The rule that the file proves, or what changes in a later step.
    pub(crate) title: String,
    /// That of the step before where it does not say, and `spec` at first.
    pub(crate) profile: String,
    pub(crate) deleted: Vec<Id>,
    /// Objects that are refused and not judged by.
    pub(crate) rejected: Vec<Problem>,
    /// Objects that are judged by, though something of them is not understood.
    pub(crate) warned: Vec<Problem>,
    pub(crate) expected: Vec<Expected>,
    pub(crate) applied: Vec<Manifest>,
}

/// One line of `probes`.
pub(crate) struct Expected {
    pub(crate) question: Question,
    /// "allowed: egress allowed rule_matched, ingress exempt own_node"
    pub(crate) answer: String,
}

/// `red/a -> blue/b TCP 80`, `red/a@fd00:1::1 -> service:blue/web TCP 80`, `1.1.1.1 -> red/a ICMP`.
pub(crate) struct Question {
    pub(crate) text: String,
    pub(crate) source: String,
    pub(crate) target: String,
    pub(crate) protocol: String,
    pub(crate) port: Option<u16>,
}

/// `NetworkPolicy red/p: spec.ingress[0].from[0]: a peer must have`
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Problem {
    pub(crate) object: String,
    pub(crate) field: String,
    /// A part of the message in a scenario, the whole of it from Parapet.
    pub(crate) message: String,
}

/// An object as kubectl would take it, with its text untouched.
#[derive(Clone)]
pub(crate) struct Manifest {
    pub(crate) id: Id,
    pub(crate) text: String,
}

/// `NetworkPolicy red/p`, or `Namespace red`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Id(String);

/// A document without `apiVersion`: it opens a step, and the objects after it belong to it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    rule: Option<String>,
    then: Option<String>,
    profile: Option<String>,
    #[serde(default)]
    deleted: Vec<String>,
    #[serde(default)]
    rejected: Vec<String>,
    #[serde(default)]
    warned: Vec<String>,
    probes: String,
}

enum Document {
    Head(Head),
    Manifest(Manifest),
}

/// What one file says, in its order.
pub(crate) fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for document in documents(text) {
        match document {
            Document::Head(head) => steps.push(Step::new(head, steps.last())),
            Document::Manifest(manifest) => {
                steps.last_mut().expect("a rule stands first").applied.push(manifest);
            }
        }
    }
    assert!(!steps.is_empty(), "no rule");
    steps
}

impl Step {
    fn new(head: Head, before: Option<&Self>) -> Self {
        let title = match (head.rule, head.then, before) {
            (Some(title), None, None) | (None, Some(title), Some(_)) => title,
            _ => panic!("`rule` opens a file, `then` each further step"),
        };
        let profile = match (head.profile, before) {
            (Some(profile), _) => profile,
            (None, Some(before)) => before.profile.clone(),
            (None, None) => "spec".to_owned(),
        };
        let lines = head.probes.lines().map(str::trim);
        let expected: Vec<Expected> =
            lines.filter(|line| !line.is_empty()).map(Expected::read).collect();
        assert!(!expected.is_empty(), "{title}: no probes");
        Self {
            title,
            profile,
            deleted: head.deleted.into_iter().map(Id).collect(),
            rejected: problems(&head.rejected),
            warned: problems(&head.warned),
            expected,
            applied: Vec::new(),
        }
    }
}

impl Expected {
    fn read(line: &str) -> Self {
        let (question, answer) = line.split_once(" = ").unwrap_or_else(|| panic!("no = in {line}"));
        let text = spaced(question);
        let words: Vec<&str> = text.split(' ').collect();
        let (source, target, protocol, port) = match *words {
            [source, "->", target, protocol] => (source, target, protocol, None),
            [source, "->", target, protocol, port] => {
                (source, target, protocol, Some(port.parse().expect("a port number")))
            }
            _ => panic!("no probe: {text}"),
        };
        let [source, target, protocol] = [source, target, protocol].map(str::to_owned);
        let question = Question { source, target, protocol, port, text };
        Self { question, answer: spaced(answer) }
    }
}

impl Problem {
    /// Nothing if it is not of the form `object: field: message`.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ": ").map(str::to_owned);
        Some(Self { object: parts.next()?, field: parts.next()?, message: parts.next()? })
    }
}

impl Id {
    fn of(object: &Value) -> Self {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let kind = text("/kind").expect("an object has a kind");
        let name = text("/metadata/name").expect("an object has a name");
        Self(match text("/metadata/namespace") {
            Some(namespace) => format!("{kind} {namespace}/{name}"),
            None => format!("{kind} {name}"),
        })
    }

    pub(crate) fn is_policy(&self) -> bool {
        self.0.split(' ').next().is_some_and(|kind| kind.ends_with("NetworkPolicy"))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn problems(texts: &[String]) -> Vec<Problem> {
    let read = |text: &String| Problem::read(text).unwrap_or_else(|| panic!("no problem: {text}"));
    texts.iter().map(read).collect()
}

/// The objects of a file that holds nothing else.
pub(crate) fn manifests(text: &str) -> Vec<Manifest> {
    let manifest = |document| match document {
        Document::Manifest(manifest) => manifest,
        Document::Head(_) => panic!("no step belongs here"),
    };
    documents(text).map(manifest).collect()
}

fn documents(text: &str) -> impl Iterator<Item = Document> {
    text.split("\n---\n").map(|text| {
        let value: Value = read_yaml(text);
        if value.get("apiVersion").is_some() {
            Document::Manifest(Manifest { id: Id::of(&value), text: text.to_owned() })
        } else {
            Document::Head(read_yaml(text))
        }
    })
}

fn read_yaml<T: serde::de::DeserializeOwned>(text: &str) -> T {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Columns may be aligned by any number of spaces.
fn spaced(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
