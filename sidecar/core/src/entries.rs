//! The entries of a map: ordered, and cheap to copy while they go on being changed.
//!
//! Keys lie in chunks of at most [`CHUNK_MAX`]. A copy shares all chunks; a change copies the one chunk that it is in, if
//! that is still shared. So taking a snapshot of a partition, or showing a map to a watcher, stops nobody for long, however
//! much there is.
//!
//! ```text
//!   ""  ─► [ a  b  f ]      a chunk holds the keys from its own label to before the next one's
//!   "g" ─► [ g  h ]         the first label is empty, so every key has a chunk
//! ```
//! How the keys are cut into chunks depends on the order of changes, and shows nowhere: two that hold the same entries
//! are equal, and are the same bytes.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use serde::de::{SeqAccess, Visitor};
use serde::ser::SerializeSeq as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::command::Entry;

/// Entries of one chunk: copying one takes some microseconds, and there are few enough of them to copy their list.
const CHUNK_MAX: usize = 256;

type Item = (Arc<str>, Entry);

/// Entries by key. See the module.
#[derive(Clone, Debug, Default)]
pub struct Entries {
    /// Never empty ones, but for the first.
    chunks: BTreeMap<Arc<str>, Arc<Vec<Item>>>,
    len: usize,
}

/// Where a key is, or would be.
fn seek(chunk: &[Item], key: &str) -> Result<usize, usize> {
    chunk.binary_search_by(|(present, _)| (**present).cmp(key))
}

fn up_to(key: &str) -> (Bound<&str>, Bound<&str>) {
    (Bound::Unbounded, Bound::Included(key))
}

impl Entries {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// One of them.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        let (_, chunk) = self.chunks.range::<str, _>(up_to(key)).next_back()?;
        seek(chunk, key).ok().map(|at| &chunk[at].1)
    }

    /// Sets one; gives what it was.
    pub fn insert(&mut self, key: Arc<str>, entry: Entry) -> Option<Entry> {
        if self.chunks.is_empty() {
            self.chunks.insert("".into(), Arc::default());
        }
        let (_, shared) = self.chunks.range_mut::<str, _>(up_to(&key)).next_back().expect("the first label is empty");
        let chunk = Arc::make_mut(shared);
        let at = match seek(chunk, &key) {
            Ok(at) => return Some(std::mem::replace(&mut chunk[at].1, entry)),
            Err(at) => at,
        };
        chunk.insert(at, (key, entry));
        self.len += 1;
        if chunk.len() > CHUNK_MAX {
            // Keys that come in order fill their chunks.
            let cut = if at + 1 == chunk.len() { CHUNK_MAX } else { CHUNK_MAX / 2 };
            let upper = chunk.split_off(cut);
            self.chunks.insert(upper[0].0.clone(), Arc::new(upper));
        }
        None
    }

    /// Removes one; gives what it was.
    pub fn remove(&mut self, key: &str) -> Option<Entry> {
        let (label, shared) = self.chunks.range_mut::<str, _>(up_to(key)).next_back()?;
        let at = seek(shared, key).ok()?;
        let chunk = Arc::make_mut(shared);
        let (_, entry) = chunk.remove(at);
        self.len -= 1;
        if chunk.len() < CHUNK_MAX / 4 {
            let label = label.clone();
            self.merge(&label);
        }
        Some(entry)
    }

    /// Puts a small chunk to the one before it, if they fit together well.
    fn merge(&mut self, label: &str) {
        let before = self.chunks.range::<str, _>((Bound::Unbounded, Bound::Excluded(label))).next_back();
        let Some((before, left)) = before else { return };
        let fits = self.chunks.get(label).is_some_and(|chunk| left.len() + chunk.len() <= CHUNK_MAX / 2);
        if !fits {
            return;
        }
        let before = before.clone();
        let Some(chunk) = self.chunks.remove(label) else { return };
        let left = self.chunks.get_mut(&before).expect("found just now");
        Arc::make_mut(left).extend_from_slice(&chunk);
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Entry)> {
        self.chunks.values().flat_map(|chunk| chunk.iter()).map(|(key, entry)| (key, entry))
    }

    /// Those whose keys begin with `prefix` and come after `after` (empty: from the first), in order.
    pub fn range<'a>(&'a self, prefix: &'a str, after: &'a str) -> impl Iterator<Item = (&'a Arc<str>, &'a Entry)> {
        let from = prefix.max(after);
        let first = self.chunks.range::<str, _>(up_to(from)).next_back().map_or("", |(label, _)| &**label);
        let chunks =
            self.chunks.range::<str, _>((Bound::Included(first), Bound::Unbounded)).flat_map(|(_, chunk)| chunk.iter());
        chunks
            .skip_while(move |(key, _)| **key < *prefix || (!after.is_empty() && **key <= *after))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(key, entry)| (key, entry))
    }
}

impl FromIterator<Item> for Entries {
    fn from_iter<I: IntoIterator<Item = Item>>(items: I) -> Self {
        let mut entries = Self::default();
        entries.extend(items);
        entries
    }
}

impl Extend<Item> for Entries {
    fn extend<I: IntoIterator<Item = Item>>(&mut self, items: I) {
        for (key, entry) in items {
            self.insert(key, entry);
        }
    }
}

impl PartialEq for Entries {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl Eq for Entries {}

impl Serialize for Entries {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut list = to.serialize_seq(Some(self.len))?;
        for item in self.iter() {
            list.serialize_element(&item)?;
        }
        list.end()
    }
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Entries;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("entries")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Entries, A::Error> {
                let mut entries = Entries::default();
                while let Some((key, entry)) = list.next_element()? {
                    entries.insert(key, entry);
                }
                Ok(entries)
            }
        }
        from.deserialize_seq(List)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

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
        fn entries_are_what_an_ordered_map_holds(
            changes in proptest::collection::vec((0..1_500_u16, any::<bool>()), 0..4_000),
            prefix in "a?/?0?",
            after in 0..1_500_u16,
        ) {
            let (mut entries, mut model) = (Entries::default(), BTreeMap::new());
            let mut copies = Vec::new();
            for ((number, put), revision) in changes.iter().zip(1..) {
                let key = key(*number);
                if *put {
                    prop_assert_eq!(entries.insert(key.as_str().into(), entry(revision)), model.insert(key, entry(revision)));
                } else {
                    prop_assert_eq!(entries.remove(&key), model.remove(&key));
                }
                prop_assert_eq!(entries.len(), model.len());
                if revision % 500 == 0 {
                    copies.push((entries.clone(), model.clone()));
                }
            }
            copies.push((entries, model));
            for (entries, model) in copies {
                let all: Vec<_> = entries.iter().map(|(key, entry)| (key.to_string(), entry.clone())).collect();
                prop_assert_eq!(&all, &model.clone().into_iter().collect::<Vec<_>>());
                for (prefix, after) in [("", ""), (&*prefix, ""), ("", &*key(after)), (&*prefix, &*key(after))] {
                    let found: Vec<_> = entries.range(prefix, after).map(|(key, _)| key.to_string()).collect();
                    let expected = model.keys().filter(|key| key.starts_with(prefix) && (after.is_empty() || key.as_str() > after));
                    prop_assert_eq!(found, expected.cloned().collect::<Vec<_>>());
                }
                for (key, expected) in &model {
                    prop_assert_eq!(entries.get(key), Some(expected));
                }
                let bytes = postcard::to_allocvec(&entries).unwrap();
                let back: Entries = postcard::from_bytes(&bytes).unwrap();
                prop_assert_eq!(&back, &entries);
                prop_assert_eq!(postcard::to_allocvec(&back).unwrap(), bytes);
            }
        }
    }

    #[test]
    fn a_copy_shares_what_is_not_changed() {
        let mut entries: Entries = (0..2_000).map(|number| (key(number).into(), entry(1))).collect();
        let copy = entries.clone();
        entries.insert(key(0).into(), entry(2));
        let shared = entries.chunks.iter().filter(|(label, chunk)| Arc::ptr_eq(chunk, &copy.chunks[*label])).count();
        assert_eq!(shared, entries.chunks.len() - 1);
        assert_eq!(copy.get(&key(0)), Some(&entry(1)));
    }
}
