//! Reads a tree key by key and collects what is wrong on the way.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::error::Problem;
use super::keys;
use super::tree::{Node, Value};

/// Where each key of a file stands.
#[derive(Debug, Default)]
pub(super) struct Places {
    lines: BTreeMap<String, u64>,
    options: BTreeMap<&'static str, &'static str>,
}

impl Places {
    /// Where the whole begins: the place of what has no other.
    pub(super) fn set_root(&mut self, line: u64) {
        self.lines.insert(String::new(), line);
    }

    /// The value at `path` now comes from an option of the command line.
    pub(super) fn set_by_option(&mut self, path: &'static str, option: &'static str) {
        self.options.insert(path, option);
    }

    /// All problems with their lines: those of reading, and those that the rules found, without the ones that only follow
    /// from a value that could not be read.
    pub(super) fn locate(&self, read: Vec<Problem>, found: Vec<Problem>, spoiled: &[String]) -> Vec<Problem> {
        let mut all = read;
        let follows = |problem: &Problem| spoiled.iter().any(|path| is_within(&problem.key, path));
        for problem in found {
            if !follows(&problem) {
                all.push(self.place(problem));
            }
        }
        all
    }

    fn place(&self, problem: Problem) -> Problem {
        if let Some(option) = self.options.get(problem.key.as_str()) {
            return Problem { key: (*option).to_owned(), ..problem };
        }
        let nearest = self
            .lines
            .iter()
            .filter(|(path, _)| is_within(&problem.key, path))
            .max_by_key(|(path, _)| path.len())
            .map(|(_, line)| *line);
        Problem { line: nearest.or(problem.line), ..problem }
    }
}

/// Whether `key` is `path` or below it.
fn is_within(key: &str, path: &str) -> bool {
    key.strip_prefix(path).is_some_and(|rest| path.is_empty() || rest.is_empty() || rest.starts_with(['.', '[']))
}

/// The path of `key` in the table at `path`.
fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// A value and its path.
#[derive(Clone, Debug)]
pub(super) struct Field<'a> {
    pub(super) path: String,
    pub(super) node: &'a Node,
}

/// A table whose keys are checked.
#[derive(Debug)]
pub(super) struct Table<'a> {
    pub(super) path: String,
    /// Of its key.
    pub(super) line: u64,
    fields: BTreeMap<&'a str, &'a Node>,
}

impl<'a> Table<'a> {
    /// The value of `key`. A key without a value counts as absent for lists and tables, see [`Reader`].
    pub(super) fn get(&self, key: &str) -> Option<Field<'a>> {
        self.fields.get(key).map(|node| Field { path: join(&self.path, key), node })
    }
}

#[derive(Debug, Default)]
pub(super) struct Reader {
    pub(super) places: Places,
    pub(super) problems: Vec<Problem>,
    /// Paths whose value could not be read: what the rules say about them would only mislead.
    pub(super) spoiled: Vec<String>,
}

impl Reader {
    /// Refuses the value of a field.
    pub(super) fn refuse(&mut self, field: &Field<'_>, what: impl Into<String>, right: impl Into<String>) {
        self.problems.push(Problem::invalid(&field.path, what, right).at(field.node.line));
        self.spoiled.push(field.path.clone());
    }

    fn wrong_type(&mut self, field: &Field<'_>, right: impl Into<String>) {
        self.refuse(field, format!("has {}", field.node.value.describe()), right);
    }

    /// Complains about a key that must be there.
    pub(super) fn missing(&mut self, table: &Table<'_>, key: &str, right: impl Into<String>) {
        let path = join(&table.path, key);
        if !self.spoiled.iter().any(|spoiled| is_within(&path, spoiled)) {
            self.problems.push(Problem::invalid(&path, "is missing", right).at(table.line));
            self.spoiled.push(path);
        }
    }

    /// A table with fixed keys; `pattern` names it in [`keys::TABLES`].
    pub(super) fn table<'a>(&mut self, field: &Field<'a>, pattern: &str) -> Table<'a> {
        let known = keys::of(pattern);
        let entries = self
            .entries(field, || format!("it is a table with the keys {}", keys::choice(known).replace(" or ", " and ")));
        let mut fields = BTreeMap::new();
        for (key, entry) in entries {
            if known.contains(&key) {
                fields.insert(key, entry.node);
            } else {
                let line = self.places.lines.get(&entry.path).copied().unwrap_or(entry.node.line);
                // That the key that was meant is missing then needs no saying.
                self.spoiled.extend(keys::nearest(key, known).map(|meant| join(&field.path, meant)));
                let right = keys::instead_of(key, known);
                self.problems.push(Problem::invalid(entry.path, "is not a known key", right).at(line));
            }
        }
        let line = self.places.lines.get(&field.path).copied().unwrap_or(field.node.line);
        Table { path: field.path.clone(), line, fields }
    }

    /// A table with free keys, in the order of the text. A key that repeats counts once and is refused.
    pub(super) fn entries<'a>(
        &mut self,
        field: &Field<'a>,
        right: impl FnOnce() -> String,
    ) -> Vec<(&'a str, Field<'a>)> {
        let entries = match &field.node.value {
            Value::Table(entries) => entries,
            Value::Null => return Vec::new(),
            _ => {
                self.wrong_type(field, right());
                return Vec::new();
            }
        };
        let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
        let mut out = Vec::new();
        for entry in entries {
            let path = join(&field.path, &entry.key);
            if let Some(first) = seen.get(entry.key.as_str()) {
                let what = format!("stands twice, first in line {first}");
                self.problems.push(Problem::invalid(path, what, "keep one of the two").at(entry.line));
            } else {
                seen.insert(&entry.key, entry.line);
                self.places.lines.insert(path.clone(), entry.line);
                out.push((entry.key.as_str(), Field { path, node: &entry.node }));
            }
        }
        out
    }

    /// A list of texts; nothing is an empty list. An item that is not a text is refused, and `None`.
    pub(super) fn list<'a>(&mut self, field: &Field<'a>, of_what: &str) -> Vec<(Option<String>, Field<'a>)> {
        let nodes = match &field.node.value {
            Value::List(nodes) => nodes,
            Value::Null => return Vec::new(),
            _ => {
                self.wrong_type(field, format!("it is a list of {of_what}"));
                return Vec::new();
            }
        };
        let mut out = Vec::new();
        for (i, node) in nodes.iter().enumerate() {
            let item = Field { path: format!("{}[{i}]", field.path), node };
            self.places.lines.insert(item.path.clone(), node.line);
            out.push((self.text(&item), item));
        }
        out
    }

    pub(super) fn text(&mut self, field: &Field<'_>) -> Option<String> {
        match &field.node.value {
            Value::Text(text) => Some(text.clone()),
            Value::Number(_) | Value::OtherNumber(_) | Value::Flag(_) => {
                self.wrong_type(field, "it is a text: put it in quotes");
                None
            }
            Value::Null | Value::List(_) | Value::Table(_) => {
                self.wrong_type(field, "it is a text");
                None
            }
        }
    }

    pub(super) fn number(&mut self, field: &Field<'_>, range: RangeInclusive<u64>) -> Option<u64> {
        match &field.node.value {
            Value::Number(number) if range.contains(number) => Some(*number),
            _ => {
                self.wrong_type(field, format!("it is a whole number from {} to {}", range.start(), range.end()));
                None
            }
        }
    }

    pub(super) fn port(&mut self, field: &Field<'_>) -> Option<u16> {
        self.number(field, 1..=u64::from(u16::MAX)).and_then(|port| u16::try_from(port).ok())
    }

    pub(super) fn flag(&mut self, field: &Field<'_>) -> Option<bool> {
        match &field.node.value {
            Value::Flag(flag) => Some(*flag),
            _ => {
                self.wrong_type(field, "it is `true` or `false`");
                None
            }
        }
    }

    /// One of several words; what stands there if it is none of them is refused.
    pub(super) fn word<T: Copy>(&mut self, field: &Field<'_>, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(field)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.refuse(field, format!("`{text}` is not known"), keys::instead_of(&text, &known));
        }
        found
    }
}
