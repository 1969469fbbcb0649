//! Watching a primitive, from a replica on this member or from another member's.
//!
//! A watch starts with a snapshot, so whoever comes late knows the leader and the term at once (D2). After it comes every
//! event, in order. When the replica is left behind or cannot be reached the watcher is told that its view may be stale
//! (S18), and the watch goes on after the last event that was seen; if that is too long ago, with a resync (D17). So it
//! does when the partition was made again meanwhile: places of its earlier life mean nothing in the next.
//!
//! Between sidecars a view of a map goes in parts: each is a message of its own, and the last is the view.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use coterie_core::command::{self, Event, GroupView, MapView, Page, View};
use coterie_core::entries::Entries;
use coterie_core::limits::PAGE_BYTES_MAX;
use coterie_core::machine::Machine;
use coterie_core::{ErrorCode, EventId, PartitionId, Primitive, Rejection};
use coterie_env::Env;
use coterie_proto::peer;
use coterie_replication::{Partition, Told, WatchItem, Watcher};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, Sleep};

use crate::directory::Directory;
use crate::limits;
use crate::lineage::Lineage;
use crate::partitions::Partitions;
use crate::peers::client::{Peers, to_wire};
use crate::sessions::SessionState;

/// What a watcher sees.
#[derive(Clone, Debug)]
pub enum Item<V = View> {
    /// The primitive as it is; first, and once.
    Snapshot(V),
    /// Events may have been skipped; the primitive as it is now, or `None` if it is gone.
    Resync(Option<V>),
    /// A change.
    Event(Arc<Told>),
    /// Whether what is seen is up to date.
    Connection(SessionState),
    /// The partition was made again: all places of before are forgotten, and a resync comes next.
    Remade(Lineage),
}

impl<V> Item<V> {
    /// The same with another view; `None` if there is none.
    fn map<U>(self, of: impl FnOnce(V) -> Option<U>) -> Option<Item<U>> {
        Some(match self {
            Self::Snapshot(view) => Item::Snapshot(of(view)?),
            Self::Resync(Some(view)) => Item::Resync(Some(of(view)?)),
            Self::Resync(None) => Item::Resync(None),
            Self::Event(event) => Item::Event(event),
            Self::Connection(state) => Item::Connection(state),
            Self::Remade(lineage) => Item::Remade(lineage),
        })
    }
}

impl Item {
    /// Of the watch of a group. `None` if it is not.
    pub fn group(self) -> Option<Item<GroupView>> {
        self.map(|view| match view {
            View::Group(view) => Some(view),
            View::Map(_) | View::Lock(_) => None,
        })
    }

    /// Of the watch of a map. `None` if it is not.
    pub fn entries(self) -> Option<Item<MapView>> {
        self.map(|view| match view {
            View::Map(view) => Some(view),
            View::Group(_) | View::Lock(_) => None,
        })
    }
}

/// One frame of a watch between sidecars.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Frame {
    /// See [`Item::Snapshot`].
    Snapshot(View),
    /// See [`Item::Resync`].
    Resync(Option<View>),
    /// See [`Item::Event`].
    Event(Event),
    /// How long the replica has not heard of its leader.
    Silent(u64),
    /// Entries of the map whose view comes next.
    Part(Page),
}

impl Frame {
    /// What tells another sidecar of this.
    pub fn of(item: WatchItem) -> Vec<Self> {
        let mut frames = Vec::new();
        let last = match item {
            WatchItem::Snapshot(view) => Self::Snapshot(cut(view, &mut frames)),
            WatchItem::Resync(view) => Self::Resync(view.map(|view| cut(view, &mut frames))),
            WatchItem::Event(event) => Self::Event(Event::clone(&event)),
        };
        frames.push(last);
        frames
    }
}

/// Takes entries off a large view until the rest fits a message.
fn cut(view: View, parts: &mut Vec<Frame>) -> View {
    let View::Map(view) = view else { return view };
    let MapView { entries, revision, last_event } = view;
    let (mut page, mut bytes) = (Page::default(), 0);
    for (key, entry) in entries.iter() {
        bytes += key.len() + entry.value.len();
        if bytes > PAGE_BYTES_MAX && !page.entries.is_empty() {
            parts.push(Frame::Part(std::mem::take(&mut page)));
            bytes = key.len() + entry.value.len();
        }
        page.entries.push((key.clone(), entry.clone()));
    }
    View::Map(MapView { entries: page.entries.into_iter().collect(), revision, last_event })
}

/// Puts the parts that came before a view to it.
fn join(view: View, parts: &mut Entries) -> View {
    let View::Map(mut view) = view else { return view };
    let mut entries = std::mem::take(parts);
    entries.extend(view.entries.iter().map(|(key, entry)| (key.clone(), entry.clone())));
    view.entries = entries;
    View::Map(view)
}

/// Whether a watch of this may begin with what there is.
pub fn check_known(machine: &Machine, of: &Primitive) -> Result<(), Rejection> {
    match machine.view(of) {
        Some(_) => Ok(()),
        None => Err(Rejection::new(ErrorCode::GroupUnknown, format!("there is no group `{}`", of.name))),
    }
}

enum Source {
    Local(Partition, Watcher),
    Remote(Box<tonic::Streaming<peer::WatchFrame>>, Entries),
    None,
}

/// What a watch finds replicas with.
#[derive(Clone)]
pub struct Ways {
    /// The world.
    pub env: Env,
    /// Replicas on this member.
    pub partitions: Partitions,
    /// Calls to the others.
    pub peers: Peers,
    /// Where the others are.
    pub directory: Directory,
}

/// A watch of one primitive.
pub struct Watch {
    ways: Ways,
    partition: PartitionId,
    of: Primitive,
    after: Option<EventId>,
    /// Of the partition that `after` is a place in; `None` before a replica was found.
    generation: Option<u64>,
    /// What the next generation owes its watcher.
    remade: Remade,
    stale: bool,
    /// When it is looked at next whether the view is stale.
    look: Pin<Box<Sleep>>,
    round: usize,
    source: Source,
}

/// How far a watcher was told that the partition was made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remade {
    No,
    /// It is to be told.
    Tell,
    /// It is owed a resync.
    Resync,
}

impl Watch {
    /// Opens a watch. `group_unknown` if there is no such group (and `after` is `None`).
    pub async fn open(
        ways: Ways,
        partition: PartitionId,
        of: Primitive,
        after: Option<EventId>,
    ) -> Result<Self, Rejection> {
        let (generation, remade, source) = (None, Remade::No, Source::None);
        let look = Box::pin(tokio::time::sleep_until(Instant::now()));
        let mut watch = Self { ways, partition, of, after, generation, remade, stale: false, look, round: 0, source };
        let until_ms = watch.now_ms() + coterie_core::limits::DEADLINE_MS_DEFAULT;
        loop {
            match watch.connect().await {
                Ok(()) => return Ok(watch),
                Err(rejection) if rejection.code != ErrorCode::NoQuorum => return Err(rejection),
                Err(rejection) if watch.now_ms() >= until_ms => return Err(rejection),
                Err(_) => tokio::time::sleep(Duration::from_millis(limits::RETRY_PAUSE_MS_MAX)).await,
            }
        }
    }

    /// The life of the partition that is watched.
    pub fn lineage(&self) -> Lineage {
        self.ways.directory.lineage(&self.partition, self.generation.unwrap_or_default())
    }

    /// The next item; `None` when there is no such group any more.
    pub async fn next(&mut self) -> Option<Item> {
        loop {
            if self.remade == Remade::Tell {
                self.remade = Remade::Resync;
                return Some(Item::Remade(self.lineage()));
            }
            // Now and then, not for each event: it asks what Raft knows.
            if Instant::now() >= self.look.deadline() {
                let next = Instant::now() + Duration::from_millis(limits::STALENESS_TICK_MS);
                self.look.as_mut().reset(next);
                let silent_ms = match &self.source {
                    Source::Local(partition, _) => Some(partition.silent_ms()),
                    Source::None => Some(u64::MAX),
                    Source::Remote(..) => None,
                };
                if let Some(item) = silent_ms.and_then(|silent_ms| self.staleness(silent_ms)) {
                    return Some(item);
                }
            }
            let item = match &mut self.source {
                Source::Local(_, watcher) => match watcher.try_next() {
                    Some(item) => item.map(item_of),
                    None => tokio::select! {
                        item = watcher.next() => item.map(item_of),
                        () = &mut self.look => continue,
                    },
                },
                Source::Remote(frames, parts) => match frames.message().await {
                    Ok(Some(frame)) => match command::decode::<Frame>("watch frame", &frame.frame) {
                        Ok(Frame::Silent(silent_ms)) => match self.staleness(silent_ms) {
                            Some(item) => return Some(item),
                            None => continue,
                        },
                        Ok(Frame::Part(page)) => {
                            parts.extend(page.entries);
                            continue;
                        }
                        Ok(Frame::Snapshot(view)) => Some(Item::Snapshot(join(view, parts))),
                        Ok(Frame::Resync(view)) => Some(Item::Resync(view.map(|view| join(view, parts)))),
                        Ok(Frame::Event(event)) => Some(Item::Event(Arc::new(Told::new(event)))),
                        Err(error) => {
                            tracing::warn!(%error, "a watch frame is not readable");
                            None
                        }
                    },
                    Ok(None) | Err(_) => None,
                },
                Source::None => {
                    self.look.as_mut().await;
                    match self.connect().await {
                        Ok(()) => {}
                        Err(rejection) if rejection.code == ErrorCode::GroupUnknown => {
                            match self.remade {
                                Remade::No => return None,
                                Remade::Tell => {}
                                // That is what it is owed, until a replica has a view.
                                Remade::Resync => return Some(Item::Resync(None)),
                            }
                        }
                        Err(_) => {}
                    }
                    continue;
                }
            };
            match item {
                Some(item) => {
                    let item = self.owed(item);
                    self.remember(&item);
                    return Some(item);
                }
                None => self.source = Source::None,
            }
        }
    }

    fn now_ms(&self) -> u64 {
        self.ways.env.clock.monotonic_ms()
    }

    /// A view that begins anew is a resync to a watcher that has seen something before.
    fn owed(&mut self, item: Item) -> Item {
        match (self.remade, item) {
            (Remade::Resync, Item::Snapshot(view)) => {
                self.remade = Remade::No;
                Item::Resync(Some(view))
            }
            (Remade::Resync, Item::Resync(view)) => {
                self.remade = Remade::No;
                Item::Resync(view)
            }
            (Remade::No | Remade::Tell | Remade::Resync, item) => item,
        }
    }

    fn remember(&mut self, item: &Item) {
        match item {
            Item::Snapshot(view) | Item::Resync(Some(view)) => self.after = Some(view.place()),
            Item::Event(event) => self.after = Some(event.id),
            Item::Resync(None) | Item::Connection(_) | Item::Remade(_) => {}
        }
    }

    /// An item if the view has just become stale, or fresh again.
    fn staleness(&mut self, silent_ms: u64) -> Option<Item> {
        let stale = silent_ms > limits::STALE_MS;
        if stale == self.stale {
            return None;
        }
        self.stale = stale;
        Some(Item::Connection(if stale { SessionState::Suspended } else { SessionState::Live }))
    }

    /// A place of another generation than the present one is forgotten.
    fn follow(&mut self, generation: u64) {
        if self.generation.replace(generation).is_some_and(|before| before != generation) {
            tracing::info!(partition = %self.partition, generation, "a watched partition was made again");
            self.after = None;
            self.remade = Remade::Tell;
        }
    }

    async fn connect(&mut self) -> Result<(), Rejection> {
        let present = self.ways.directory.generation(&self.partition);
        let local = self.ways.partitions.get(&self.partition);
        // One that is about to be removed shows what is gone.
        let local = local.filter(|local| present.is_none_or(|present| present == local.generation()));
        if let Some(local) = local {
            self.follow(local.generation());
            if self.after.is_none() && self.remade == Remade::No {
                local.with_machine(|machine| check_known(machine, &self.of))?;
            }
            let watcher = local.watch(&self.of, self.after);
            self.source = Source::Local(local, watcher);
            return Ok(());
        }
        if let Some(present) = present {
            self.follow(present);
        }
        let replicas = self.ways.directory.replicas(&self.partition);
        let unreachable =
            || Rejection::new(ErrorCode::NoQuorum, format!("no replica of partition {} answers", self.partition));
        let member = replicas.get(self.round % replicas.len().max(1)).ok_or_else(unreachable)?;
        self.round += 1;
        let mut client = self.ways.peers.client(member)?;
        let request = peer::WatchRequest {
            generation: self.generation,
            partition: Some(to_wire(&self.partition)),
            key: self.of.to_string(),
            after: self.after.map(|after| command::encode(&after).into()).unwrap_or_default(),
        };
        let limit = Duration::from_millis(limits::TRY_MS_MAX);
        match tokio::time::timeout(limit, client.watch(request)).await {
            Ok(Ok(frames)) => {
                self.source = Source::Remote(Box::new(frames.into_inner()), Entries::default());
                Ok(())
            }
            Ok(Err(status)) if status.code() == tonic::Code::NotFound => {
                Err(Rejection::new(ErrorCode::GroupUnknown, status.message()))
            }
            Ok(Err(_)) | Err(_) => Err(unreachable()),
        }
    }
}

fn item_of(item: WatchItem) -> Item {
    match item {
        WatchItem::Snapshot(view) => Item::Snapshot(view),
        WatchItem::Resync(view) => Item::Resync(view),
        WatchItem::Event(event) => Item::Event(event),
    }
}

#[cfg(test)]
mod tests {
    use coterie_core::Revision;
    use coterie_core::command::Entry;

    use super::*;

    #[test]
    fn a_view_of_a_large_map_goes_in_parts_and_comes_out_whole() {
        let entry = |number: u8| {
            (
                format!("{number:03}").into(),
                Entry { value: vec![number; PAGE_BYTES_MAX / 3].into(), revision: Revision(number.into()) },
            )
        };
        let entries: Entries = (0..8).map(entry).collect();
        let view = View::Map(MapView { entries, revision: Revision(9), last_event: EventId::default() });
        let mut frames = Frame::of(WatchItem::Snapshot(view.clone()));
        assert_eq!(frames.len(), 4);
        let Some(Frame::Snapshot(last)) = frames.pop() else { panic!("the view is last") };
        let mut parts = Entries::default();
        for frame in frames {
            let Frame::Part(page) = frame else { panic!("{frame:?} is not a part") };
            parts.extend(page.entries);
        }
        assert_eq!(join(last, &mut parts), view);
        assert!(parts.is_empty());
    }
}
