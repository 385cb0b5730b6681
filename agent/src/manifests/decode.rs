//! From a tree to an object of the API.
//!
//! In: a [`Node`] and the type that is wanted. Out: the value, or a [`Misfit`] that names the field
//! and its line. As in the API server a null is an absent field, and a null in a list is an empty
//! item. It never converts one type into another: the number 1 is no label.

use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    Visitor,
};
use serde::forward_to_deserialize_any;

use super::tree::{Entry, Node, Value};

/// What does not fit, and where.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Misfit {
    /// From the inside out while it is on its way up.
    path: Vec<Segment>,
    /// Counted from 1 in the document.
    pub(super) line: Option<usize>,
    pub(super) problem: String,
}

#[derive(Clone, Debug, PartialEq)]
enum Segment {
    Key(String),
    Index(usize),
}

/// Reads a value of the type that is wanted.
pub(super) fn decode<T: serde::de::DeserializeOwned>(node: &Node) -> Result<T, Misfit> {
    T::deserialize(node).map_err(|misfit| misfit.at_line(node.line))
}

impl Misfit {
    /// `spec.ingress[0].from`; empty for the object itself.
    pub(super) fn field(&self) -> String {
        let mut path = String::new();
        for segment in self.path.iter().rev() {
            match segment {
                Segment::Key(key) if path.is_empty() => path.push_str(key),
                Segment::Key(key) => path.extend([".", key]),
                Segment::Index(index) => path.push_str(&format!("[{index}]")),
            }
        }
        path
    }

    fn at_line(mut self, line: usize) -> Self {
        self.line.get_or_insert(line);
        self
    }

    fn below(mut self, segment: Segment) -> Self {
        self.path.push(segment);
        self
    }
}

impl Error for Misfit {
    fn custom<T: fmt::Display>(problem: T) -> Self {
        Self { path: Vec::new(), line: None, problem: problem.to_string() }
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn serde::de::Expected) -> Self {
        Self::custom(format_args!("must be {}, not {}", wanted(expected), said(unexpected)))
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn serde::de::Expected) -> Self {
        Self::custom(format_args!("must be {expected}, not {}", said(unexpected)))
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        let known = known.join(", ");
        Self::custom(format_args!("unknown field; known here: {known}"))
            .below(Segment::Key(field.to_owned()))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom("is missing").below(Segment::Key(field.to_owned()))
    }
}

/// What is wanted, in the same words.
fn wanted(expected: &dyn serde::de::Expected) -> String {
    match expected.to_string() {
        text if text.starts_with("struct ") => "a map".to_owned(),
        text if text == "a sequence" => "a list".to_owned(),
        text => text,
    }
}

/// What was found, in the words of who wrote the file and not of Rust.
fn said(unexpected: Unexpected<'_>) -> String {
    match unexpected {
        Unexpected::Bool(value) => format!("{value}"),
        Unexpected::Signed(value) => format!("the number {value}"),
        Unexpected::Unsigned(value) => format!("the number {value}"),
        Unexpected::Float(value) => format!("the number {value}"),
        Unexpected::Str(text) => format!("{text:?}"),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a map".to_owned(),
        Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
        other => other.to_string(),
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

impl std::error::Error for Misfit {}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Misfit;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match &self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Int(value) => match u64::try_from(*value) {
                Ok(value) => visitor.visit_u64(value),
                Err(_) => visitor.visit_i64(*value),
            },
            Value::Float(value) => visitor.visit_f64(*value),
            Value::String(value) => visitor.visit_borrowed_str(value),
            Value::List(items) => visitor.visit_seq(Items { items: items.iter().enumerate() }),
            Value::Map(entries) => visitor.visit_map(Fields::of(entries, Nulls::Kept)),
        }
        .map_err(|misfit| misfit.at_line(self.line))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        match &self.value {
            Value::Null => visitor.visit_map(Fields::of(&[], Nulls::Skipped)),
            Value::Map(entries) => visitor.visit_map(Fields::of(entries, Nulls::Skipped)),
            // A list would be read as the fields in their order.
            Value::List(_) => Err(Misfit::invalid_type(Unexpected::Seq, &"a map")),
            Value::String(text) => Err(Misfit::invalid_type(Unexpected::Str(text), &"a map")),
            Value::Int(number) => Err(Misfit::invalid_type(Unexpected::Signed(*number), &"a map")),
            Value::Bool(value) => Err(Misfit::invalid_type(Unexpected::Bool(*value), &"a map")),
            Value::Float(value) => Err(Misfit::invalid_type(Unexpected::Float(*value), &"a map")),
        }
        .map_err(|misfit| misfit.at_line(self.line))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.value {
            Value::Null => visitor.visit_borrowed_str(""),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.deserialize_string(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct
        seq tuple tuple_struct map enum identifier
    }
}

struct Items<'de> {
    items: std::iter::Enumerate<std::slice::Iter<'de, Node>>,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Misfit;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Misfit> {
        let Some((index, node)) = self.items.next() else { return Ok(None) };
        let item = seed.deserialize(node);
        item.map(Some).map_err(|m| m.at_line(node.line).below(Segment::Index(index)))
    }
}

/// What a null is: in a struct an absent field, in a map of strings an empty one.
#[derive(Clone, Copy, PartialEq)]
enum Nulls {
    Kept,
    Skipped,
}

struct Fields<'de> {
    entries: std::slice::Iter<'de, Entry>,
    nulls: Nulls,
    value: Option<&'de Entry>,
}

impl<'de> Fields<'de> {
    fn of(entries: &'de [Entry], nulls: Nulls) -> Self {
        Self { entries: entries.iter(), nulls, value: None }
    }
}

impl<'de> MapAccess<'de> for Fields<'de> {
    type Error = Misfit;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Misfit> {
        let kept = |entry: &&Entry| self.nulls == Nulls::Kept || entry.node.value != Value::Null;
        self.value = self.entries.by_ref().find(kept);
        let Some(entry) = self.value else { return Ok(None) };
        let key: serde::de::value::StrDeserializer<'_, Misfit> =
            entry.key.as_str().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|misfit| misfit.at_line(entry.line))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Misfit> {
        let Some(entry) = self.value.take() else {
            return Err(Misfit::custom("a value was asked for before its key"));
        };
        seed.deserialize(&entry.node)
            .map_err(|m| m.at_line(entry.line).below(Segment::Key(entry.key.clone())))
    }
}
