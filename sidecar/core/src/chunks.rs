//! An ordered map that is cheap to copy while it goes on being changed.
//!
//! Keys lie in chunks of at most [`CHUNK_MAX`]. A copy shares all chunks; a change copies the one chunk that it is in, if
//! that is still shared. So taking a snapshot of a partition, or showing a map to a watcher, stops nobody for long, however
//! much there is.
//!
//! ```text
//!   (a) ─► [ a  b  f ]      a chunk holds the keys from its own label to before the next one's,
//!    g  ─► [ g  h ]         the first one all before that: its label is not looked at
//! ```
//! A value that is large, or of which there may be many parts, is best behind an `Arc` or a `Chunks` of its own: what is
//! copied with a chunk is then small.
//!
//! How the keys are cut into chunks depends on the order of changes, and shows nowhere: two that hold the same are equal,
//! and are the same bytes.

use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::SerializeSeq as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Keys of one chunk: copying one takes some microseconds, and there are few enough of them to copy their list.
pub(crate) const CHUNK_MAX: usize = 256;

/// Values by key. See the module.
#[derive(Clone)]
pub struct Chunks<K, V> {
    chunks: Vec<Chunk<K, V>>,
    len: usize,
}

/// Keys that lie together, with their values. Never empty.
#[derive(Clone)]
struct Chunk<K, V> {
    /// At most the first key, and above the last one of the chunk before.
    label: K,
    items: Arc<Vec<(K, V)>>,
}

/// Where a key is, or would be.
fn seek<K: Borrow<Q>, V, Q: Ord + ?Sized>(items: &[(K, V)], key: &Q) -> Result<usize, usize> {
    items.binary_search_by(|(present, _)| present.borrow().cmp(key))
}

impl<K, V> Default for Chunks<K, V> {
    fn default() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }
}

impl<K, V> Chunks<K, V> {
    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All keys and values, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.chunks.iter().flat_map(|chunk| chunk.items.iter()).map(|(key, value)| (key, value))
    }

    /// All keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// All values, in the order of the keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// How many chunks are those of `other`, too.
    #[cfg(test)]
    pub(crate) fn shared_with(&self, other: &Self) -> usize {
        let theirs = |chunk: &Chunk<K, V>| other.chunks.iter().any(|other| Arc::ptr_eq(&chunk.items, &other.items));
        self.chunks.iter().filter(|chunk| theirs(chunk)).count()
    }

    /// How many chunks there are.
    #[cfg(test)]
    pub(crate) fn chunks(&self) -> usize {
        self.chunks.len()
    }
}

impl<K: Ord + Clone, V: Clone> Chunks<K, V> {
    /// The chunk in which a key is, or would be; 0 if there is none at all.
    fn chunk_of<Q: Ord + ?Sized>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        self.chunks.get(1..).map_or(0, |later| later.partition_point(|chunk| chunk.label.borrow() <= key))
    }

    /// Where a key is: its chunk, and its place in that.
    fn place_of<Q: Ord + ?Sized>(&self, key: &Q) -> Option<(usize, usize)>
    where
        K: Borrow<Q>,
    {
        let number = self.chunk_of(key);
        let chunk = self.chunks.get(number)?;
        Some((number, seek(&chunk.items, key).ok()?))
    }

    fn at_mut(&mut self, (number, at): (usize, usize)) -> &mut V {
        &mut Arc::make_mut(&mut self.chunks[number].items)[at].1
    }

    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.place_of(key).map(|(number, at)| &self.chunks[number].items[at].1)
    }

    /// Whether a key is there.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// The value of a key, to be changed: copies its chunk if that is shared.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let place = self.place_of(key)?;
        Some(self.at_mut(place))
    }

    /// The value of a key, made if it is missing.
    pub fn get_or_insert_with(&mut self, key: &K, make: impl FnOnce() -> V) -> &mut V {
        let place = self.place_of(key).unwrap_or_else(|| {
            self.insert(key.clone(), make());
            self.place_of(key).expect("it is there now")
        });
        self.at_mut(place)
    }

    /// Sets the value of a key to what `change` makes of what it was; gives what it was. An error of `change` changes
    /// nothing.
    pub fn replace<E>(&mut self, key: &K, change: impl FnOnce(Option<&V>) -> Result<V, E>) -> Result<Option<V>, E> {
        match self.place_of(key) {
            Some((number, at)) => {
                let value = change(Some(&self.chunks[number].items[at].1))?;
                Ok(Some(std::mem::replace(self.at_mut((number, at)), value)))
            }
            None => {
                let value = change(None)?;
                Ok(self.insert(key.clone(), value))
            }
        }
    }

    /// Sets a value; gives what it was.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let number = self.chunk_of(&key);
        let Some(chunk) = self.chunks.get_mut(number) else {
            self.chunks.push(Chunk { label: key.clone(), items: Arc::new(vec![(key, value)]) });
            self.len = 1;
            return None;
        };
        let items = Arc::make_mut(&mut chunk.items);
        let at = match seek(items, &key) {
            Ok(at) => return Some(std::mem::replace(&mut items[at].1, value)),
            Err(at) => at,
        };
        items.insert(at, (key, value));
        self.len += 1;
        if items.len() > CHUNK_MAX {
            // Keys that come in order fill their chunks.
            let cut = if at + 1 == items.len() { CHUNK_MAX } else { CHUNK_MAX / 2 };
            let upper = items.split_off(cut);
            self.chunks.insert(number + 1, Chunk { label: upper[0].0.clone(), items: Arc::new(upper) });
        }
        None
    }

    /// Adds a key that comes after all that are there; whether it does.
    #[must_use]
    pub fn push(&mut self, key: K, value: V) -> bool {
        let last = self.chunks.last().and_then(|chunk| chunk.items.last());
        let follows = last.is_none_or(|(last, _)| *last < key);
        if follows {
            self.insert(key, value);
        }
        follows
    }

    /// Removes a key; gives its value.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let number = self.chunk_of(key);
        let chunk = self.chunks.get_mut(number)?;
        let at = seek(&chunk.items, key).ok()?;
        let items = Arc::make_mut(&mut chunk.items);
        let (_, value) = items.remove(at);
        self.len -= 1;
        if items.is_empty() {
            self.chunks.remove(number);
        } else if items.len() < CHUNK_MAX / 4 {
            self.merge(number);
        }
        Some(value)
    }

    /// Puts a small chunk to the one before it, if they fit together well.
    fn merge(&mut self, number: usize) {
        let Some(before) = number.checked_sub(1) else { return };
        if self.chunks[before].items.len() + self.chunks[number].items.len() > CHUNK_MAX / 2 {
            return;
        }
        let chunk = self.chunks.remove(number);
        Arc::make_mut(&mut self.chunks[before].items).extend_from_slice(&chunk.items);
    }

    /// Removes what `keep` does not want to keep.
    pub fn retain(&mut self, keep: impl Fn(&K, &V) -> bool) {
        for chunk in &mut self.chunks {
            if !chunk.items.iter().all(|(key, value)| keep(key, value)) {
                Arc::make_mut(&mut chunk.items).retain(|(key, value)| keep(key, value));
            }
        }
        self.chunks.retain(|chunk| !chunk.items.is_empty());
        self.len = self.chunks.iter().map(|chunk| chunk.items.len()).sum();
    }

    /// All keys from this one on, and their values, in order.
    pub fn iter_from<'a, Q: Ord + ?Sized>(&'a self, key: &Q) -> impl Iterator<Item = (&'a K, &'a V)> + use<'a, K, V, Q>
    where
        K: Borrow<Q>,
    {
        let number = self.chunk_of(key);
        let before = self.chunks.get(number).map_or(0, |chunk| seek(&chunk.items, key).unwrap_or_else(|at| at));
        let chunks = self.chunks.get(number..).unwrap_or_default();
        chunks.iter().flat_map(|chunk| chunk.items.iter()).skip(before).map(|(key, value)| (key, value))
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for Chunks<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(items: I) -> Self {
        let mut chunks = Self::default();
        chunks.extend(items);
        chunks
    }
}

impl<K: Ord + Clone, V: Clone> Extend<(K, V)> for Chunks<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, items: I) {
        for (key, value) in items {
            self.insert(key, value);
        }
    }
}

impl<K: PartialEq, V: PartialEq> PartialEq for Chunks<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl<K: Eq, V: Eq> Eq for Chunks<K, V> {}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Chunks<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Serialize, V: Serialize> Serialize for Chunks<K, V> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut list = to.serialize_seq(Some(self.len))?;
        for item in self.iter() {
            list.serialize_element(&item)?;
        }
        list.end()
    }
}

impl<'de, K, V> Deserialize<'de> for Chunks<K, V>
where
    K: Deserialize<'de> + Ord + Clone,
    V: Deserialize<'de> + Clone,
{
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct List<K, V>(PhantomData<(K, V)>);
        impl<'de, K, V> Visitor<'de> for List<K, V>
        where
            K: Deserialize<'de> + Ord + Clone,
            V: Deserialize<'de> + Clone,
        {
            type Value = Chunks<K, V>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("keys and values, in the order of the keys")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut chunks = Chunks::default();
                while let Some((key, value)) = list.next_element()? {
                    if !chunks.push(key, value) {
                        return Err(A::Error::custom("a key does not follow on the one before it"));
                    }
                }
                Ok(chunks)
            }
        }
        from.deserialize_seq(List(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn chunks_are_what_an_ordered_map_is(
            changes in proptest::collection::vec((0..1_500_u16, 0..4_u8), 0..4_000),
            from in 0..1_600_u16,
        ) {
            let (mut chunks, mut model) = (Chunks::default(), BTreeMap::new());
            let mut copies = Vec::new();
            for ((key, change), number) in changes.iter().zip(1_u32..) {
                match change {
                    0 => prop_assert_eq!(chunks.remove(key), model.remove(key)),
                    1 => *chunks.get_or_insert_with(key, || 0) = *model.entry(*key).and_modify(|value| *value = number).or_insert(0),
                    _ => prop_assert_eq!(chunks.insert(*key, number), model.insert(*key, number)),
                }
                if let Some(value) = chunks.get_mut(key) {
                    *value = number;
                    model.insert(*key, number);
                }
                prop_assert_eq!(chunks.len(), model.len());
                if number % 500 == 0 {
                    copies.push((chunks.clone(), model.clone()));
                }
                if number % 1_000 == 0 {
                    chunks.retain(|key, _| key % 3 > 0);
                    model.retain(|key, _| key % 3 > 0);
                }
            }
            copies.push((chunks, model));
            for (chunks, model) in copies {
                prop_assert!(chunks.iter().eq(&model));
                prop_assert!(chunks.iter_from(&from).eq(model.range(from..)));
                prop_assert!((0..1_500).all(|key| chunks.get(&key) == model.get(&key)));
                let bytes = postcard::to_allocvec(&chunks).unwrap();
                prop_assert_eq!(&bytes, &postcard::to_allocvec(&model).unwrap());
                let back: Chunks<u16, u32> = postcard::from_bytes(&bytes).unwrap();
                prop_assert_eq!(back, chunks);
            }
        }
    }

    #[test]
    fn a_copy_shares_what_is_not_changed() {
        let mut chunks: Chunks<u32, u32> = (0..2_000).map(|key| (key, 1)).collect();
        let copy = chunks.clone();
        chunks.insert(700, 2);
        assert_eq!(chunks.shared_with(&copy), chunks.chunks() - 1);
        assert_eq!((copy.get(&700), chunks.get(&700)), (Some(&1), Some(&2)));
        // What is not there costs no copy.
        assert_eq!(chunks.get_mut(&5_000), None);
        assert_eq!(chunks.shared_with(&copy), chunks.chunks() - 1);
    }

    #[test]
    fn a_list_that_is_not_in_order_is_refused() {
        for list in [[(2_u8, 0_u8), (1, 0)], [(2, 0), (2, 0)]] {
            let bytes = postcard::to_allocvec(&list.as_slice()).unwrap();
            assert!(postcard::from_bytes::<Chunks<u8, u8>>(&bytes).is_err());
        }
    }
}
