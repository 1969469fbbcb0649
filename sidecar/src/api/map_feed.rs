//! The stream of a map's events.
//!
//! A view goes out in parts, each made when the reader is ready for it: the feed holds what it shares with the map, and
//! one message.

use std::sync::Arc;

use bytes::Bytes;
use coterie_core::command::{Event, EventKind, MapEvent, MapView};
use coterie_core::limits::{PAGE_BYTES_MAX, PAGE_ENTRIES_MAX};
use coterie_core::{EventId, Revision};
use coterie_mutants::{Mutant, is_on};
use coterie_proto::v1;
use coterie_proto::v1::map_event::Kind;
use coterie_replication::Told;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use prost::Message as _;
use tokio::sync::OwnedSemaphorePermit;

use super::convert::{self, Wire};
use crate::lineage::Lineage;
use crate::sessions::SessionState;
use crate::watch::{Item, Watch};

/// The events of a map, on the wire.
pub struct MapFeed {
    /// A stream, not a future per item: what it waits for survives a poll that is given up.
    items: BoxStream<'static, Item<MapView>>,
    lineage: Lineage,
    prefix: String,
    /// Everything up to here was sent.
    at: Option<EventId>,
    /// A view of which parts are still to be sent.
    showing: Option<Showing>,
    /// To be said after the view.
    state: Option<SessionState>,
    over: bool,
}

/// A view on its way.
struct Showing {
    view: MapView,
    /// The last key that was sent.
    after: String,
    kind: fn(v1::Entries) -> Kind,
}

impl MapFeed {
    /// Reads a watch; only keys that begin with `prefix`. Everything up to `at` was seen.
    pub fn new(watch: Watch, prefix: String, at: Option<EventId>) -> Self {
        let lineage = watch.lineage();
        let items = stream::unfold(watch, |mut watch| async move { Some((watch.next().await?.entries()?, watch)) });
        Self { items: items.boxed(), lineage, prefix, at, showing: None, state: None, over: false }
    }

    /// Says this first, which was read from the watch already.
    pub fn beginning_with(mut self, view: MapView, kind: fn(v1::Entries) -> Kind, state: Option<SessionState>) -> Self {
        self.show(view, kind);
        self.state = state;
        self
    }

    /// As a stream. `permit` is held as long as it is read.
    pub fn into_stream(self, permit: OwnedSemaphorePermit) -> BoxStream<'static, Said> {
        stream::unfold((self, permit), |(mut feed, permit)| async move {
            feed.next().await.map(|event| (event, (feed, permit)))
        })
        .boxed()
    }

    /// The next message; `None` after the map was dropped.
    async fn next(&mut self) -> Option<Said> {
        while !self.over {
            if let Some(part) = self.part() {
                return Some(Said::Own(part));
            }
            if let Some(state) = self.state.take() {
                return Some(Said::Own(connection(state)));
            }
            let item = self.items.next().await?;
            if let Some(event) = self.take(item) {
                return Some(event);
            }
        }
        None
    }

    /// What an item says to the reader at once.
    fn take(&mut self, item: Item<MapView>) -> Option<Said> {
        match item {
            Item::Connection(state) => return Some(Said::Own(connection(state))),
            Item::Event(event) => {
                let EventKind::Map(kind) = &event.kind else { return None };
                // A replica that lags tells again what another has told.
                if self.at.is_some_and(|at| event.id <= at) && !is_on(Mutant::ReplayEvent) {
                    return None;
                }
                self.at = Some(event.id);
                self.over = *kind == MapEvent::Dropped;
                return self.concerns(kind).then(|| Said::Event(event, self.lineage));
            }
            Item::Snapshot(view) => self.show(view, Kind::Snapshot),
            Item::Resync(Some(view)) => self.show(view, Kind::Resync),
            Item::Remade(lineage) => {
                self.lineage = lineage;
                self.at = None;
                self.showing = None;
            }
            Item::Resync(None) => {}
        }
        None
    }

    fn concerns(&self, event: &MapEvent) -> bool {
        match event {
            MapEvent::Put { key, entry: _ } | MapEvent::Deleted { key } => key.starts_with(&self.prefix),
            MapEvent::Dropped => true,
        }
    }

    /// Begins to send a view, unless it is of a replica that lags: what came after it was sent, and is told again.
    fn show(&mut self, view: MapView, kind: fn(v1::Entries) -> Kind) {
        let place = place_of(view.revision);
        if self.at.is_none_or(|at| place > at) {
            self.at = Some(place);
            self.showing = Some(Showing { view, after: String::new(), kind });
        }
    }

    /// The next part of the view that is being sent. Only the last has an id: who stops before it begins anew.
    fn part(&mut self) -> Option<v1::MapEvent> {
        let Showing { view, after, kind } = self.showing.as_mut()?;
        let (mut entries, mut bytes, mut last) = (Vec::new(), 0, true);
        for (key, entry) in view.entries.range(&self.prefix, after) {
            bytes += key.len() + entry.value.len();
            let full = entries.len() >= PAGE_ENTRIES_MAX as usize || bytes > PAGE_BYTES_MAX;
            if full && !entries.is_empty() {
                last = false;
                break;
            }
            entries.push(convert::entry(key, entry));
        }
        let place = place_of(view.revision);
        let next = entries.last().map(|entry| entry.key.clone());
        let event = kind(v1::Entries { entries, last });
        if last {
            self.showing = None;
            return Some(placed(self.lineage, place, event));
        }
        *after = next.unwrap_or_default();
        Some(v1::MapEvent { id: String::new(), revision: place.revision.0, kind: Some(event) })
    }
}

/// What a feed says.
pub enum Said {
    /// A change, which other feeds say as well, and the life of the partition that it is of.
    Event(Arc<Told>, Lineage),
    /// What only this one says.
    Own(v1::MapEvent),
}

impl Said {
    /// As a message.
    pub fn message(self) -> v1::MapEvent {
        match self {
            Self::Event(event, lineage) => changed(&event, lineage),
            Self::Own(event) => event,
        }
    }

    /// As an encoded message. A change is encoded once for all feeds: what a replica tells is of one life.
    pub fn encoded(self) -> Bytes {
        match self {
            Self::Event(event, lineage) => event.encoded(|event| changed(event, lineage).encode_to_vec().into()),
            Self::Own(event) => event.encode_to_vec().into(),
        }
    }
}

fn changed(event: &Event, lineage: Lineage) -> v1::MapEvent {
    let kind = match &event.kind {
        EventKind::Map(MapEvent::Put { key, entry }) => Some(Kind::Put(convert::entry(key, entry))),
        EventKind::Map(MapEvent::Deleted { key }) => Some(Kind::Deleted(key.to_string())),
        EventKind::Map(MapEvent::Dropped) => Some(Kind::Dropped(v1::Deleted {})),
        EventKind::Group(_) | EventKind::Lock(_) => None,
    };
    v1::MapEvent { id: lineage.id(event.id), revision: event.id.revision.0, kind }
}

fn placed(lineage: Lineage, id: EventId, kind: Kind) -> v1::MapEvent {
    v1::MapEvent { id: lineage.id(id), revision: id.revision.0, kind: Some(kind) }
}

/// Everything up to here is in a view of this revision.
fn place_of(revision: Revision) -> EventId {
    EventId { revision, ordinal: u32::MAX }
}

fn connection(state: SessionState) -> v1::MapEvent {
    let state = v1::SessionState::from(Wire(state)).into();
    v1::MapEvent { id: String::new(), revision: 0, kind: Some(Kind::Connection(v1::Connection { state })) }
}
