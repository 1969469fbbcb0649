//! YAML as a tree that knows its lines. It keeps duplicate keys and every type, so that the reader can name all problems
//! instead of the first.

use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_saphyr::Spanned;

use super::error::{Error, Problem};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// From 1; 0 for one that was not read.
    pub(super) line: u64,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    Flag(bool),
    Number(u64),
    /// A number that no key takes: negative or fractional. As text.
    OtherNumber(String),
    Text(String),
    List(Vec<Node>),
    /// In the order of the text; keys may repeat.
    Table(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Of the key; 0 for one that was not read.
    pub(super) line: u64,
    pub(super) key: String,
    pub(super) node: Node,
}

impl Value {
    /// What it is, for people.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Flag(flag) => format!("the truth value `{flag}`"),
            Self::Number(number) => format!("the number {number}"),
            Self::OtherNumber(number) => format!("the number {number}"),
            Self::Text(text) => format!("the text `{text}`"),
            Self::List(_) => "a list".to_owned(),
            Self::Table(_) => "a table".to_owned(),
        }
    }
}

/// Parses a whole file.
pub(super) fn parse(text: &str) -> Result<Node, Error> {
    if text.lines().all(|line| line.trim_start().starts_with('#') || line.trim().is_empty()) {
        return Ok(Node { line: 1, value: Value::Null });
    }
    let options = serde_saphyr::options! {
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough,
        strict_booleans: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options::<Node>(text, options).map_err(|error| Error::new(vec![syntax(&error)]))
}

fn syntax(error: &serde_saphyr::Error) -> Problem {
    let line = error.location().map_or(0, |location| location.line());
    let what = error.to_string();
    let what = what.split(" at line ").next().unwrap_or(&what).to_owned();
    let problem = Problem::invalid("", what, "write it as YAML 1.2, with two spaces for each level");
    if line == 0 { problem } else { problem.at(line) }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { line: spanned.referenced.line(), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Flag(flag))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(u64::try_from(number).map_or_else(|_| Value::OtherNumber(number.to_string()), Value::Number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::OtherNumber(number.to_string()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(node) = access.next_element()? {
            list.push(node);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut table = Vec::new();
        while let Some(key) = access.next_key::<Spanned<String>>()? {
            table.push(Entry { line: key.referenced.line(), key: key.value, node: access.next_value()? });
        }
        Ok(Value::Table(table))
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Flag(flag) => serializer.serialize_bool(*flag),
            Self::Number(number) => serializer.serialize_u64(*number),
            Self::OtherNumber(text) | Self::Text(text) => serializer.serialize_str(text),
            Self::List(list) => {
                let mut out = serializer.serialize_seq(Some(list.len()))?;
                for node in list {
                    out.serialize_element(&node.value)?;
                }
                out.end()
            }
            Self::Table(table) => {
                let mut out = serializer.serialize_map(Some(table.len()))?;
                for entry in table {
                    out.serialize_entry(&entry.key, &entry.node.value)?;
                }
                out.end()
            }
        }
    }
}
