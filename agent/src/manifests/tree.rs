//! One YAML or JSON document as a tree whose every value knows its line.
//!
//! In: the text of one document. Out: a [`Node`], or the line and words of what is wrong. It knows
//! nothing of Kubernetes, and refuses what would grow beyond its limits: depth, aliases, nodes.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Options, Spanned};

/// How deep a document may nest. The API server's own limit for JSON is far above any real object.
const DEPTH_MAX: usize = 64;
/// Values in one document: `kubectl get pods -A` of a very large cluster is one document.
const NODES_MAX: usize = 40_000_000;
/// Anchors and aliases are for people; a few are handy, many are an attack.
const ALIASES_MAX: usize = 1_000;
/// Values that aliases may add to a document.
const REPLAYED_MAX: usize = 100_000;

/// A value and the line it begins at, counted from 1 in the document.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Value,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    String(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One key and its value, in the order they were written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) line: usize,
    pub(super) key: String,
    pub(super) node: Node,
}

/// Why a text is no document.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct NotATree {
    /// Counted from 1 in the document, where known.
    pub(super) line: Option<usize>,
    pub(super) problem: String,
}

/// Reads one document. An empty one is null.
pub(super) fn parse(text: &str) -> Result<Node, NotATree> {
    serde_saphyr::from_str_with_options::<Option<Node>>(text, options())
        .map(|node| node.unwrap_or(Node { line: 1, value: Value::Null }))
        .map_err(|error| NotATree {
            line: error.location().and_then(|at| line(at.line())),
            problem: words(&error),
        })
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_MAX,
            max_nodes: NODES_MAX,
            max_events: NODES_MAX.saturating_mul(2),
            max_aliases: ALIASES_MAX,
            max_total_scalar_bytes: super::FILE_BYTES_MAX_IN_MEMORY,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: REPLAYED_MAX,
        },
    }
}

/// The parser's words without the excerpt and without the place, which are told apart.
fn words(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    let first = text.lines().next().unwrap_or_default();
    let end = first.rfind(" at line ").unwrap_or(first.len());
    first.get(..end).unwrap_or(first).trim_start_matches("error: ").to_owned()
}

fn line(number: u64) -> Option<usize> {
    usize::try_from(number).ok().filter(|line| *line > 0)
}

impl Node {
    /// The value of a key, if this is a map that has it and it is not null.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        let Value::Map(entries) = &self.value else { return None };
        let found = entries.iter().find(|entry| entry.key == key)?;
        (found.node.value != Value::Null).then_some(&found.node)
    }

    /// The text, if this is one.
    pub(super) fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The line of `spec.ingress[0].ports`, or of the deepest part of such a path that is there.
    pub(super) fn line_of(&self, path: &str) -> usize {
        let mut node = self;
        let mut line = self.line;
        for part in path.split(['.', '[']) {
            let next = match part.strip_suffix(']').and_then(|index| index.parse::<usize>().ok()) {
                Some(index) => match &node.value {
                    Value::List(items) => items.get(index).map(|item| (item.line, item)),
                    _ => None,
                },
                None => match &node.value {
                    Value::Map(entries) => entries
                        .iter()
                        .find(|entry| entry.key == part)
                        .map(|entry| (entry.line, &entry.node)),
                    _ => None,
                },
            };
            let Some((found, next)) = next else { return line };
            line = found;
            node = next;
        }
        line
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, .. } = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { line: line(referenced.line()).unwrap_or(1), value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        i64::try_from(value).map(Value::Int).map_err(|_| E::custom("the number is too large"))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Node>()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Node>()? {
            let name = match key.value {
                Value::String(name) => name,
                Value::Int(number) => number.to_string(),
                Value::Bool(value) => value.to_string(),
                _ => return Err(A::Error::custom("a key must be a string")),
            };
            entries.push(Entry { line: key.line, key: name, node: map.next_value::<Node>()? });
        }
        Ok(Value::Map(entries))
    }
}
