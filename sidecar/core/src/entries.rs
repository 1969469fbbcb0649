//! The entries of a map: ordered, and cheap to copy while they go on being changed (see [`crate::chunks`]).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::chunks::Chunks;
use crate::command::Entry;

type Item = (Arc<str>, Entry);

/// Entries by key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entries(Chunks<Arc<str>, Entry>);

impl Entries {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One of them.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.0.get(key)
    }

    /// Sets one to what `change` makes of what it was; gives what it was. An error of `change` changes nothing.
    pub fn replace<E>(
        &mut self,
        key: &Arc<str>,
        change: impl FnOnce(Option<&Entry>) -> Result<Entry, E>,
    ) -> Result<Option<Entry>, E> {
        self.0.replace(key, change)
    }

    /// Adds one whose key comes after all that are there; whether it does.
    #[must_use]
    pub fn push(&mut self, key: Arc<str>, entry: Entry) -> bool {
        self.0.push(key, entry)
    }

    /// Removes one; gives what it was.
    pub fn remove(&mut self, key: &str) -> Option<Entry> {
        self.0.remove(key)
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Entry)> {
        self.0.iter()
    }

    /// Those whose keys begin with `prefix` and come after `after` (empty: from the first), in order.
    pub fn range<'a>(&'a self, prefix: &'a str, after: &'a str) -> impl Iterator<Item = (&'a Arc<str>, &'a Entry)> {
        self.0
            .iter_from(prefix.max(after))
            .skip_while(move |(key, _)| !after.is_empty() && ***key == *after)
            .take_while(move |(key, _)| key.starts_with(prefix))
    }
}

impl FromIterator<Item> for Entries {
    fn from_iter<I: IntoIterator<Item = Item>>(items: I) -> Self {
        Self(items.into_iter().collect())
    }
}

impl Extend<Item> for Entries {
    fn extend<I: IntoIterator<Item = Item>>(&mut self, items: I) {
        self.0.extend(items);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::ids::Revision;

    fn entry(revision: u64) -> Entry {
        Entry { value: revision.to_be_bytes().to_vec().into(), revision: Revision(revision) }
    }

    fn key(number: u16) -> String {
        format!("{}/{number:04}", if number.is_multiple_of(3) { "a" } else { "b" })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_range_is_what_begins_with_its_prefix_and_comes_after_its_key(
            numbers in proptest::collection::btree_set(0..1_500_u16, 0..1_000),
            prefix in "a?/?0?",
            after in 0..1_500_u16,
        ) {
            let model: BTreeMap<String, u64> = numbers.iter().map(|number| (key(*number), u64::from(*number))).collect();
            let entries: Entries = model.iter().map(|(key, number)| (key.as_str().into(), entry(*number))).collect();
            for (prefix, after) in [("", ""), (&*prefix, ""), ("", &*key(after)), (&*prefix, &*key(after))] {
                let found: Vec<_> = entries.range(prefix, after).map(|(key, _)| key.to_string()).collect();
                let expected = model.keys().filter(|key| key.starts_with(prefix) && (after.is_empty() || key.as_str() > after));
                prop_assert_eq!(found, expected.cloned().collect::<Vec<_>>());
            }
        }
    }
}
