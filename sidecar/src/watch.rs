//! Watching a group, from a replica on this member or from another member's.
//!
//! A watch starts with a snapshot, so whoever comes late knows the leader and the term at once (D2). After it comes every
//! event, in order. When the replica is left behind or cannot be reached the watcher is told that its view may be stale
//! (S18), and the watch goes on after the last event that was seen; if that is too long ago, with a resync (D17).

use std::sync::Arc;
use std::time::Duration;

use coterie_core::command::{self, Event, GroupView, Query};
use coterie_core::{ErrorCode, EventId, GroupName, PartitionId, Rejection};
use coterie_env::Env;
use coterie_proto::peer;
use coterie_replication::{Partition, WatchItem, Watcher};
use serde::{Deserialize, Serialize};

use crate::directory::Directory;
use crate::limits;
use crate::partitions::Partitions;
use crate::peers::client::{Peers, to_wire};
use crate::sessions::SessionState;

/// What a watcher sees.
#[derive(Clone, Debug)]
pub enum Item {
    /// The group as it is; first, and once.
    Snapshot(GroupView),
    /// Events may have been skipped; the group as it is now, or `None` if it is gone.
    Resync(Option<GroupView>),
    /// A change.
    Event(Arc<Event>),
    /// Whether what is seen is up to date.
    Connection(SessionState),
}

/// One frame of a watch between sidecars.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Frame {
    /// See [`Item::Snapshot`].
    Snapshot(GroupView),
    /// See [`Item::Resync`].
    Resync(Option<GroupView>),
    /// See [`Item::Event`].
    Event(Event),
    /// How long the replica has not heard of its leader.
    Silent(u64),
}

enum Source {
    Local(Partition, Watcher),
    Remote(tonic::Streaming<peer::WatchFrame>),
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

/// A watch of one group.
pub struct Watch {
    ways: Ways,
    partition: PartitionId,
    group: GroupName,
    after: Option<EventId>,
    stale: bool,
    round: usize,
    source: Source,
}

impl Watch {
    /// Opens a watch. `group_unknown` if there is no such group (and `after` is `None`).
    pub async fn open(
        ways: Ways,
        partition: PartitionId,
        group: GroupName,
        after: Option<EventId>,
    ) -> Result<Self, Rejection> {
        let mut watch = Self { ways, partition, group, after, stale: false, round: 0, source: Source::None };
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

    /// The next item; `None` when the group was deleted.
    pub async fn next(&mut self) -> Option<Item> {
        loop {
            let silent_ms = match &self.source {
                Source::Local(partition, _) => Some(partition.silent_ms()),
                Source::None => Some(u64::MAX),
                Source::Remote(_) => None,
            };
            if let Some(item) = silent_ms.and_then(|silent_ms| self.staleness(silent_ms)) {
                return Some(item);
            }
            let tick = tokio::time::sleep(Duration::from_millis(limits::STALENESS_TICK_MS));
            let item = match &mut self.source {
                Source::Local(_, watcher) => tokio::select! {
                    item = watcher.next() => item.map(item_of),
                    () = tick => continue,
                },
                Source::Remote(frames) => match frames.message().await {
                    Ok(Some(frame)) => match command::decode::<Frame>("watch frame", &frame.frame) {
                        Ok(Frame::Silent(silent_ms)) => match self.staleness(silent_ms) {
                            Some(item) => return Some(item),
                            None => continue,
                        },
                        Ok(frame) => Some(item_of_frame(frame)),
                        Err(error) => {
                            tracing::warn!(%error, "a watch frame is not readable");
                            None
                        }
                    },
                    Ok(None) | Err(_) => None,
                },
                Source::None => {
                    tick.await;
                    match self.connect().await {
                        Ok(()) => {}
                        Err(rejection) if rejection.code == ErrorCode::GroupUnknown => return None,
                        Err(_) => {}
                    }
                    continue;
                }
            };
            match item {
                Some(item) => {
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

    fn remember(&mut self, item: &Item) {
        match item {
            Item::Snapshot(view) | Item::Resync(Some(view)) => self.after = Some(after(view)),
            Item::Event(event) => self.after = Some(event.id),
            Item::Resync(None) | Item::Connection(_) => {}
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

    async fn connect(&mut self) -> Result<(), Rejection> {
        if let Some(local) = self.ways.partitions.get(&self.partition) {
            if self.after.is_none() {
                local.with_machine(|machine| machine.query(&Query::Group(self.group.clone())))?;
            }
            let watcher = local.watch(&self.group, self.after);
            self.source = Source::Local(local, watcher);
            return Ok(());
        }
        let replicas = self.ways.directory.replicas(&self.partition);
        let unreachable =
            || Rejection::new(ErrorCode::NoQuorum, format!("no replica of partition {} answers", self.partition));
        let member = replicas.get(self.round % replicas.len().max(1)).ok_or_else(unreachable)?;
        self.round += 1;
        let mut client = self.ways.peers.client(member)?;
        let request = peer::WatchRequest {
            partition: Some(to_wire(&self.partition)),
            key: self.group.0.clone(),
            after: self.after.map(|after| command::encode(&after).into()).unwrap_or_default(),
        };
        let limit = Duration::from_millis(limits::TRY_MS_MAX);
        match tokio::time::timeout(limit, client.watch(request)).await {
            Ok(Ok(frames)) => {
                self.source = Source::Remote(frames.into_inner());
                Ok(())
            }
            Ok(Err(status)) if status.code() == tonic::Code::NotFound => {
                Err(Rejection::new(ErrorCode::GroupUnknown, status.message()))
            }
            Ok(Err(_)) | Err(_) => Err(unreachable()),
        }
    }
}

/// Where a watch goes on after a snapshot: behind everything that the snapshot holds.
fn after(view: &GroupView) -> EventId {
    view.last_event.max(EventId { revision: view.revision, ordinal: u32::MAX })
}

fn item_of(item: WatchItem) -> Item {
    match item {
        WatchItem::Snapshot(view) => Item::Snapshot(view),
        WatchItem::Resync(view) => Item::Resync(view),
        WatchItem::Event(event) => Item::Event(event),
    }
}

fn item_of_frame(frame: Frame) -> Item {
    match frame {
        Frame::Snapshot(view) => Item::Snapshot(view),
        Frame::Resync(view) => Item::Resync(view),
        Frame::Event(event) => Item::Event(Arc::new(event)),
        Frame::Silent(_) => unreachable!("handled before"),
    }
}
