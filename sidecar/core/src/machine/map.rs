//! Maps: what is written most. A write is one insertion; its value is shared by the map, the event and whoever reads it.
//!
//! A map that nobody has written to, and one that was dropped, is a map without entries: reading it is no error.

use std::sync::Arc;

use bytes::Bytes;
use coterie_mutants::{Mutant, is_on};
use serde::{Deserialize, Serialize};

use super::{Machine, Step, validate};
use crate::chunks::Chunks;
use crate::code::{ErrorCode, Rejection};
use crate::command::{Condition, Entry, EventKind, MapEvent, MapOp, MapView, Outcome, Page, Reply};
use crate::entries::Entries;
use crate::ids::{EventId, MapName, Primitive, Revision};
use crate::limits::{ENTRIES_BYTES_MAX, ENTRIES_MAX, MAPS_MAX, PAGE_BYTES_MAX};

/// A map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Map {
    /// For its events.
    of: Primitive,
    /// In a snapshot they are parts of their own.
    #[serde(skip)]
    entries: Entries,
    last_event: EventId,
}

/// The maps of one partition, and how much they hold together, which a snapshot leaves out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Maps {
    by_name: Chunks<MapName, Map>,
    entries: usize,
    bytes: usize,
}

impl Maps {
    /// The next one of a snapshot, with its entries. `None` if it is not the next.
    pub(super) fn restore(&mut self, name: MapName, map: Map) -> Option<()> {
        self.entries += map.entries.len();
        self.bytes += bytes(&map.entries);
        self.by_name.push(name, map).then_some(())
    }

    pub(super) fn named(&self) -> &Chunks<MapName, Map> {
        &self.by_name
    }

    pub(super) fn view(&self, name: &MapName, revision: Revision) -> MapView {
        match self.by_name.get(name) {
            Some(map) => MapView { entries: map.entries.clone(), revision, last_event: map.last_event },
            None => MapView { entries: Entries::default(), revision, last_event: EventId::default() },
        }
    }

    pub(super) fn last_event(&self, name: &MapName) -> Option<EventId> {
        self.by_name.get(name).map(|map| map.last_event)
    }

    pub(super) fn entry(&self, name: &MapName, key: &str) -> Option<Entry> {
        self.by_name.get(name)?.entries.get(key).cloned()
    }

    /// Entries until there are `limit` of them, or enough bytes.
    pub(super) fn page(&self, name: &MapName, prefix: &str, after: &str, limit: u32) -> Page {
        let mut page = Page::default();
        let Some(map) = self.by_name.get(name) else { return page };
        let (limit, mut bytes) = (usize::try_from(limit).unwrap_or(usize::MAX), 0);
        for (key, entry) in map.entries.range(prefix, after) {
            bytes += key.len() + entry.value.len();
            if page.entries.len() == limit || (bytes > PAGE_BYTES_MAX && !page.entries.is_empty()) {
                page.more = true;
                break;
            }
            page.entries.push((key.clone(), entry.clone()));
        }
        page
    }

    fn put(&mut self, step: &mut Step, name: &MapName, key: &Arc<str>, value: &Bytes, only: Condition) -> Outcome {
        validate::key("key", key)?;
        validate::value(value.len())?;
        let held = Held { maps: self.by_name.len(), entries: self.entries, bytes: self.bytes };
        let change = |present: Option<&Entry>, is_new_map: bool| {
            check(only, key, present)?;
            held.check_limits(is_new_map, key.len(), present.map(|entry| entry.value.len()), value.len())?;
            Ok::<_, Rejection>(Entry { value: value.clone(), revision: step.revision })
        };
        let (map, previous) = match self.by_name.get_mut(name) {
            Some(map) => {
                let previous = map.entries.replace(key, |present| change(present, false))?;
                (map, previous)
            }
            None => {
                let entry = change(None, true)?;
                let map = self.by_name.get_or_insert_with(name, || Map::new(name));
                let previous = map.entries.replace(key, |_| Ok::<_, Rejection>(entry))?;
                (map, previous)
            }
        };
        let entry = Entry { value: value.clone(), revision: step.revision };
        map.emit(step, MapEvent::Put { key: key.clone(), entry });
        self.entries += usize::from(previous.is_none());
        self.bytes += key.len() + value.len();
        self.bytes -= previous.as_ref().map_or(0, |entry| key.len() + entry.value.len());
        Ok(written(step, previous))
    }

    fn delete(&mut self, step: &mut Step, name: &MapName, key: &Arc<str>, only: Condition) -> Outcome {
        validate::key("key", key)?;
        let map = self.by_name.get_mut(name);
        check(only, key, map.as_ref().and_then(|map| map.entries.get(key)))?;
        let removed = map.and_then(|map| Some((map.entries.remove(key)?, map)));
        let Some((entry, map)) = removed else { return Ok(written(step, None)) };
        map.emit(step, MapEvent::Deleted { key: key.clone() });
        self.entries -= 1;
        self.bytes -= key.len() + entry.value.len();
        Ok(written(step, Some(entry)))
    }

    fn drop(&mut self, step: &mut Step, name: &MapName) -> Outcome {
        if let Some(mut map) = self.by_name.remove(name) {
            map.emit(step, MapEvent::Dropped);
            self.entries -= map.entries.len();
            self.bytes -= bytes(&map.entries);
        }
        Ok(Reply::Done)
    }
}

/// How much the maps of a partition hold.
#[derive(Clone, Copy)]
struct Held {
    maps: usize,
    entries: usize,
    bytes: usize,
}

impl Held {
    /// Whether a value of `more` bytes may be held under a key of `key` bytes, in place of one of `less` if there is one.
    fn check_limits(self, is_new_map: bool, key: usize, less: Option<usize>, more: usize) -> Result<(), Rejection> {
        let (before, after) = (less.map_or(0, |less| key + less), key + more);
        let problem = if is_new_map && self.maps >= MAPS_MAX {
            format!("the partition has {MAPS_MAX} maps, which is the limit; drop one that is not used")
        } else if less.is_none() && self.entries >= ENTRIES_MAX {
            format!("the maps of the partition have {ENTRIES_MAX} entries, which is the limit; delete some")
        } else if after > before && self.bytes - before + after > ENTRIES_BYTES_MAX {
            format!("the maps of the partition have {ENTRIES_BYTES_MAX} bytes, which is the limit; delete some entries")
        } else {
            return Ok(());
        };
        Err(Rejection::new(ErrorCode::LimitReached, problem))
    }
}

impl Map {
    fn new(name: &MapName) -> Self {
        Self { of: name.into(), entries: Entries::default(), last_event: EventId::default() }
    }

    pub(super) fn entries(&self) -> &Entries {
        &self.entries
    }

    /// The next entry of a snapshot. `None` if it is not the next.
    pub(super) fn restore(&mut self, key: Arc<str>, entry: Entry) -> Option<()> {
        self.entries.push(key, entry).then_some(())
    }

    fn emit(&mut self, step: &mut Step, event: MapEvent) {
        self.last_event = step.emit(self.of.clone(), EventKind::Map(event));
    }
}

fn bytes(entries: &Entries) -> usize {
    entries.iter().map(|(key, entry)| key.len() + entry.value.len()).sum()
}

fn written(step: &Step, previous: Option<Entry>) -> Reply {
    Reply::Written { revision: step.revision, previous: previous.map_or(Revision(0), |entry| entry.revision) }
}

/// Refuses a write whose condition does not hold.
fn check(only: Condition, key: &str, present: Option<&Entry>) -> Result<(), Rejection> {
    let is = || match present {
        Some(entry) => format!("was last changed at {}", entry.revision),
        None => "is not there".to_owned(),
    };
    let problem = match (only, present) {
        (Condition::Always, _) | (Condition::Absent, None) => return Ok(()),
        _ if is_on(Mutant::SkipCondition) => return Ok(()),
        (Condition::At(asked), Some(entry)) if entry.revision == asked => return Ok(()),
        (Condition::Absent, Some(_)) => format!("if_absent: `{key}` {}: read it again", is()),
        (Condition::At(asked), _) => format!("if_revision: is {asked}, `{key}` {}: read it again", is()),
    };
    Err(Rejection::new(ErrorCode::RevisionMismatch, problem))
}

impl Machine {
    pub(super) fn change_map(&mut self, step: &mut Step, name: &MapName, op: &MapOp) -> Outcome {
        self.check_primitives_live_here()?;
        validate::name("map", name.as_str())?;
        match op {
            MapOp::Put { key, value, only } => self.maps.put(step, name, key, value, *only),
            MapOp::Delete { key, only } => self.maps.delete(step, name, key, *only),
            MapOp::Drop => self.maps.drop(step, name),
        }
    }
}
