//! What is said to a map, and what it says.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::entries::Entries;
use crate::ids::{EventId, Revision};

/// A change of one map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MapOp {
    /// Sets one key; makes the map if there is none.
    Put {
        /// Which.
        key: Arc<str>,
        /// To what.
        value: Bytes,
        /// Else `revision_mismatch`.
        only: Condition,
    },
    /// Removes one key. A key that is not there is no error.
    Delete {
        /// Which.
        key: Arc<str>,
        /// Else `revision_mismatch`.
        only: Condition,
    },
    /// Removes the map and all that is in it. No effect if there is none.
    Drop,
}

/// When a write is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// Whatever there is.
    Always,
    /// If there is no entry.
    Absent,
    /// If the entry was last changed at this revision.
    At(Revision),
}

/// An entry of a map. Cheap to clone: the value is shared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The value.
    pub value: Bytes,
    /// The change that made it what it is.
    pub revision: Revision,
}

/// What changed in a map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MapEvent {
    /// A key was set.
    Put {
        /// Which.
        key: Arc<str>,
        /// To what.
        entry: Entry,
    },
    /// A key was removed.
    Deleted {
        /// Which.
        key: Arc<str>,
    },
    /// The map was removed.
    Dropped,
}

/// A map as it is at one revision. Cheap to clone and to make: it shares all that it holds with the map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapView {
    /// All of them. Empty if there is no such map.
    pub entries: Entries,
    /// Of the partition, when this was read.
    pub revision: Revision,
    /// The map's last event.
    pub last_event: EventId,
}

/// A part of a map.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// In the order of the keys.
    pub entries: Vec<(Arc<str>, Entry)>,
    /// Whether there are more after the last of these.
    pub more: bool,
}
