//! What is in a map, and what happens to it.

use std::time::Duration;

use bytes::Bytes;
use coterie_proto::v1;

use crate::types::{Revision, SessionState};

/// One key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Bytes,
    /// When it was last changed: what [`crate::Map::put_if`] compares.
    pub revision: Revision,
}

/// A change that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Of the change: the entry's, if it was put.
    pub revision: Revision,
    /// The revision of the entry before; `None` if there was none.
    pub previous: Option<Revision>,
}

/// What was read under one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The entry; `None` if there is none.
    pub entry: Option<Entry>,
    /// Of the partition, when this was read.
    pub revision: Revision,
    /// For stale answers: how long ago the replica last heard from its leader; else zero.
    pub stale_for: Duration,
}

/// One change of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapEvent {
    /// Its place in the order; resumes a watch after it. Empty for [`MapEventKind::Connection`] and for parts that are not
    /// the last.
    pub id: String,
    /// The revision that made it; 0 for [`MapEventKind::Connection`].
    pub revision: Revision,
    /// What changed.
    pub kind: MapEventKind,
}

/// What changed in a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapEventKind {
    /// The entries as the watch begins, in parts.
    Snapshot(Part),
    /// The entries as they are now, in parts; changes before this may have been skipped (D17).
    Resync(Part),
    /// A key was set.
    Put(Entry),
    /// This key was removed.
    Deleted(String),
    /// The map was dropped; the watch ends.
    Dropped,
    /// Whether what follows is up to date (S18).
    Connection(SessionState),
}

/// A part of all entries, in the order of their keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Whether this part begins the whole anew: forget what was known before it.
    pub first: bool,
    /// Whether this part completes the whole.
    pub last: bool,
}

impl Changed {
    pub(super) fn new(revision: u64, previous: u64) -> Self {
        Self { revision: Revision(revision), previous: (previous != 0).then_some(Revision(previous)) }
    }
}

impl From<v1::Entry> for Entry {
    fn from(v1::Entry { key, value, revision }: v1::Entry) -> Self {
        Self { key, value, revision: Revision(revision) }
    }
}

impl From<v1::GetEntryResponse> for Found {
    fn from(v1::GetEntryResponse { entry, revision, stale_ms }: v1::GetEntryResponse) -> Self {
        let entry = entry.map(Into::into);
        Self { entry, revision: Revision(revision), stale_for: Duration::from_millis(stale_ms) }
    }
}
