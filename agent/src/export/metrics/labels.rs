//! What becomes a label, and how it is written.
//!
//! In: the ends, directions and outcomes of edges. Out: label values from closed lists, namespaces,
//! workload names and ports. No address leaves this file.

use std::sync::Arc;

use parapet_core::flow::Direction;
use parapet_core::snapshot::{EdgeEnd, EdgeKey};

/// What stands for everything beyond the bound of a family.
pub(super) const OTHER: &str = "__other__";

/// Namespace and workload of one end; the namespace is empty for what has none.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct End {
    namespace: Value,
    workload: Value,
}

/// One of our own words, or a name of the cluster's. No series holds a copy of either.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Value {
    Word(&'static str),
    Name(Arc<str>),
}

impl Value {
    fn text(&self) -> String {
        match self {
            Self::Word(word) => (*word).to_owned(),
            Self::Name(name) => name.to_string(),
        }
    }
}

/// Both ends and the port, or all that were folded.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Ends {
    Named { source: End, target: End, port: u16 },
    Folded,
}

impl Ends {
    pub(super) fn of(key: &EdgeKey) -> Self {
        Self::Named { source: end(&key.source), target: end(&key.target), port: key.target_port }
    }

    /// The five labels the contract gives to both ends.
    pub(super) fn labels(&self) -> [(&'static str, String); 5] {
        let [a, b, c, d, e] = match self {
            Self::Named { source, target, port } => [
                source.namespace.text(),
                source.workload.text(),
                target.namespace.text(),
                target.workload.text(),
                port.to_string(),
            ],
            Self::Folded => [OTHER; 5].map(str::to_owned),
        };
        [
            ("source_namespace", a),
            ("source_workload", b),
            ("target_namespace", c),
            ("target_workload", d),
            ("target_port", e),
        ]
    }
}

fn end(end: &EdgeEnd) -> End {
    let named = |name: &Arc<str>| Value::Name(Arc::clone(name));
    let without_namespace = |word| (Value::Word(""), Value::Word(word));
    let (namespace, workload) = match end {
        EdgeEnd::Pod { namespace, workload } => (named(namespace), named(&workload.name)),
        EdgeEnd::Service { namespace, name } => (named(namespace), named(name)),
        EdgeEnd::Node { .. } => without_namespace("node"),
        EdgeEnd::External { .. } | EdgeEnd::Name { .. } => without_namespace("external"),
        EdgeEnd::Multicast { .. } => without_namespace("multicast"),
        EdgeEnd::Broadcast { .. } => without_namespace("broadcast"),
        EdgeEnd::Loopback => without_namespace("loopback"),
        EdgeEnd::Unknown { .. } => without_namespace("unknown"),
    };
    End { namespace, workload }
}

/// The namespace of the pod whose policies decide at the side this node saw; none if it is no pod.
pub(super) fn subject_namespace(key: &EdgeKey) -> Option<(&Arc<str>, Direction)> {
    let direction = key.direction?;
    let subject = match direction {
        Direction::Egress => &key.source,
        Direction::Ingress => &key.target,
    };
    match subject {
        EdgeEnd::Pod { namespace, .. } => Some((namespace, direction)),
        _ => None,
    }
}

pub(super) fn direction(direction: Option<Direction>) -> &'static str {
    match direction {
        Some(Direction::Egress) => "egress",
        Some(Direction::Ingress) => "ingress",
        None => "unknown",
    }
}

/// A value of a closed list, in the word the reports use too.
pub(super) fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => "unknown".to_owned(),
    }
}
