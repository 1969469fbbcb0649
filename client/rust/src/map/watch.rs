//! Changes of a map, in order, across broken connections.

use std::pin::Pin;
use std::task::{Context, Poll};

use coterie_proto::v1;
use coterie_proto::v1::map_event::Kind as Wire;
use futures_util::Stream;
use tokio_util::task::AbortOnDropHandle;
use tonic::Streaming;

use super::types::Part;
use super::{Map, MapEvent, MapEventKind};
use crate::error::{Error, Kind};
use crate::resume::{self, Meaning, Received, Source};
use crate::types::{Revision, SessionState};

/// Changes of one map, in order. Also a [`Stream`].
///
/// The entries come first; then every change, once. While the sidecar cannot be reached it says
/// [`MapEventKind::Connection`] with [`SessionState::Suspended`] (S18), and resumes after the last event that it gave. A
/// reader that is slow keeps nobody else waiting: what is left waits at the sidecar, and beyond its limits the entries come
/// again, as [`MapEventKind::Resync`]. It ends after [`MapEventKind::Dropped`], and after an error that waiting cannot cure.
///
/// ```no_run
/// # async fn example(map: coterie_client::Map) -> Result<(), coterie_client::Error> {
/// use std::collections::BTreeMap;
/// use coterie_client::MapEventKind;
///
/// let (mut copy, mut watch) = (BTreeMap::new(), map.watch("user/"));
/// while let Some(event) = watch.next().await {
///     match event?.kind {
///         MapEventKind::Snapshot(part) | MapEventKind::Resync(part) => {
///             if part.first {
///                 copy.clear();
///             }
///             copy.extend(part.entries.into_iter().map(|entry| (entry.key, entry.value)));
///         }
///         MapEventKind::Put(entry) => _ = copy.insert(entry.key, entry.value),
///         MapEventKind::Deleted(key) => _ = copy.remove(&key),
///         MapEventKind::Dropped => copy.clear(),
///         MapEventKind::Connection(state) => println!("the copy is {state:?}"),
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct MapWatch {
    events: Received<MapEvent>,
    _task: AbortOnDropHandle<()>,
}

impl MapWatch {
    pub(super) fn start(map: Map, prefix: String, after: String) -> Self {
        let (events, task) = resume::start(Changes { map, prefix, inside: false }, after);
        Self { events, _task: task }
    }

    /// The next change; `None` at the end. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<MapEvent, Error>> {
        self.events.recv().await
    }
}

impl Stream for MapWatch {
    type Item = Result<MapEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.poll_recv(context)
    }
}

/// The changes of one map.
struct Changes {
    map: Map,
    prefix: String,
    /// Some parts of a whole have come, and not the last.
    inside: bool,
}

impl Changes {
    fn part(&mut self, v1::Entries { entries, last }: v1::Entries) -> Part {
        let first = !self.inside;
        self.inside = !last;
        Part { entries: entries.into_iter().map(Into::into).collect(), first, last }
    }
}

impl Source for Changes {
    type Wire = v1::MapEvent;
    type Event = MapEvent;

    async fn open(&self, after: String) -> Result<Streaming<v1::MapEvent>, Error> {
        let (map, partition_group) = self.map.address();
        let message = v1::WatchMapRequest { map, partition_group, prefix: self.prefix.clone(), after };
        let client = self.map.client();
        let mut wire = client.maps();
        client.open(wire.watch(client.open_request(message, None))).await
    }

    fn begin(&mut self) {
        self.inside = false;
    }

    fn read(&mut self, v1::MapEvent { id, revision, kind }: v1::MapEvent) -> Result<MapEvent, Error> {
        let kind = match kind.ok_or(Error::Protocol { missing: "event" })? {
            Wire::Snapshot(part) => MapEventKind::Snapshot(self.part(part)),
            Wire::Resync(part) => MapEventKind::Resync(self.part(part)),
            Wire::Put(entry) => MapEventKind::Put(entry.into()),
            Wire::Deleted(key) => MapEventKind::Deleted(key),
            Wire::Dropped(v1::Deleted {}) => MapEventKind::Dropped,
            Wire::Connection(connection) => MapEventKind::Connection(connection.state().into()),
        };
        Ok(MapEvent { id, revision: Revision(revision), kind })
    }

    fn broken(&self, status: &tonic::Status) -> Error {
        self.map.client().error(status, Kind::Read)
    }

    fn meaning(event: &MapEvent) -> Meaning<'_> {
        match event.kind {
            MapEventKind::Connection(state) => Meaning::Connection(state),
            MapEventKind::Dropped => Meaning::End,
            _ => Meaning::Change(&event.id),
        }
    }

    fn connection(state: SessionState) -> MapEvent {
        MapEvent { id: String::new(), revision: Revision(0), kind: MapEventKind::Connection(state) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Client;

    #[tokio::test]
    async fn a_part_says_whether_the_whole_begins_with_it_also_after_it_broke_off() {
        let map = Client::connect("http://127.0.0.1:1").expect("well formed").map("m");
        let mut changes = Changes { map, prefix: String::new(), inside: false };
        let mut read = |last, begins| {
            if begins {
                changes.begin();
            }
            let part = v1::Entries { entries: Vec::new(), last };
            let event = v1::MapEvent { kind: Some(Wire::Snapshot(part)), ..v1::MapEvent::default() };
            match changes.read(event).expect("an event").kind {
                MapEventKind::Snapshot(part) => part.first,
                other => panic!("{other:?}"),
            }
        };
        let said = [read(false, true), read(false, false), read(false, true), read(true, false), read(true, false)];
        assert_eq!(said, [true, false, true, false, true]);
    }
}
