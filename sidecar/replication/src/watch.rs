//! Watches: the events of one partition, in order, to whoever asks.
//!
//! ```text
//! apply ──▶ ring of the last EVENTS_KEPT events ──▶ (resume)  ┐
//!      └──▶ queue of each watcher of the primitive ──────────▶ Watcher::next
//! ```
//!
//! Registering happens under the state's read lock and publishing under its write lock, so what a watcher sees first (a
//! view, or the events after the one it names) and what is queued for it afterwards fit without gap or overlap. An event
//! exists once, however many watch it. A watcher that does not keep up loses its queue, not the partition its memory.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use bytes::Bytes;
use coterie_core::command::{Event, View};
use coterie_core::limits::{EVENTS_BYTES_MAX, EVENTS_KEPT, WATCHER_QUEUE_BYTES_MAX, WATCHER_QUEUE_MAX};
use coterie_core::machine::Machine;
use coterie_core::{EventId, Primitive, Revision};
use coterie_mutants::{Mutant, Point, is_on, rarely};
use tokio::sync::Notify;

use crate::replica::Replica;

/// What a watcher is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchItem {
    /// The primitive as it is; events after [`View::place`] follow. First, if no event to resume after was named.
    Snapshot(View),
    /// Events were missed (too old to resume, too slow, or a snapshot was installed): forget what was known, take this
    /// view, events follow. `None`: there is no such primitive now.
    Resync(Option<View>),
    /// The next event.
    Event(Arc<Told>),
}

/// An event, and what is made of it once for all who are told.
#[derive(Debug)]
pub struct Told {
    event: Event,
    encoded: OnceLock<Bytes>,
    /// About how many bytes of memory it keeps.
    kept: usize,
}

impl Told {
    /// Nothing is made of it yet.
    pub fn new(event: Event) -> Self {
        Self::to(event, false)
    }

    /// To watchers, who may have it encoded, which keeps as much again.
    fn to(event: Event, is_watched: bool) -> Self {
        let kept = event.weight() * if is_watched { 2 } else { 1 };
        Self { event, encoded: OnceLock::new(), kept }
    }

    /// What `encode` makes of it, which has to be the same whoever asks first.
    pub fn encoded(&self, encode: impl FnOnce(&Event) -> Bytes) -> Bytes {
        self.encoded.get_or_init(|| encode(&self.event)).clone()
    }
}

impl Deref for Told {
    type Target = Event;

    fn deref(&self) -> &Event {
        &self.event
    }
}

impl PartialEq for Told {
    fn eq(&self, other: &Self) -> bool {
        self.event == other.event
    }
}

impl Eq for Told {}

/// The last events, and who waits for more.
#[derive(Debug)]
pub(crate) struct Hub {
    /// In order.
    ring: VecDeque<Arc<Told>>,
    /// What the ring keeps.
    bytes: usize,
    /// Every event of the partition after this one is in the ring.
    floor: EventId,
    watchers: BTreeMap<Primitive, BTreeMap<u64, Arc<Queue>>>,
    next_watcher: u64,
    closed: bool,
}

/// What waits for one watcher.
#[derive(Debug)]
struct Queue {
    inner: Mutex<QueueInner>,
    wake: Notify,
}

#[derive(Debug)]
struct QueueInner {
    items: VecDeque<WatchItem>,
    /// Past this many items the watcher is slow.
    bound: usize,
    /// What is queued of events that came after the watcher began.
    bytes: usize,
    /// Events up to this one are not for this watcher.
    after: EventId,
    /// Something was lost; the watcher is owed a [`WatchItem::Resync`].
    lost: bool,
    closed: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, QueueInner> {
        self.inner.lock().expect("no holder panics")
    }

    fn push(&self, event: &Arc<Told>) {
        let mut inner = self.lock();
        if inner.lost || event.id <= inner.after {
            return;
        }
        inner.bytes += event.weight();
        let is_full = inner.items.len() >= inner.bound || inner.bytes > WATCHER_QUEUE_BYTES_MAX;
        if is_full || rarely(Point::WatchFull) {
            inner.items.clear();
            inner.lost = true;
        } else {
            inner.items.push_back(WatchItem::Event(event.clone()));
        }
        drop(inner);
        self.wake.notify_one();
    }

    fn lose(&self) {
        let mut inner = self.lock();
        inner.items.clear();
        inner.lost = true;
        drop(inner);
        self.wake.notify_one();
    }

    fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }
}

impl Hub {
    /// A hub whose ring will hold everything after `revision`.
    pub(crate) fn new(revision: Option<Revision>) -> Self {
        Self {
            ring: VecDeque::new(),
            bytes: 0,
            floor: floor_at(revision),
            watchers: BTreeMap::new(),
            next_watcher: 0,
            closed: false,
        }
    }

    /// Keeps the events of one revision and queues them for those who watch. Call under the state's write lock.
    pub(crate) fn publish(&mut self, events: Vec<Event>) {
        for event in events {
            debug_assert!(self.ring.back().is_none_or(|last| last.id < event.id), "events are made in order");
            let watchers = self.watchers.get(&event.of);
            let event = Arc::new(Told::to(event, watchers.is_some()));
            if let Some(watchers) = watchers {
                let is_lost = is_on(Mutant::LoseEvent) && event.id.revision.0.is_multiple_of(16);
                watchers.values().filter(|_| !is_lost).for_each(|queue| queue.push(&event));
            }
            self.bytes += event.kept;
            self.ring.push_back(event);
            while self.ring.len() > EVENTS_KEPT || self.bytes > EVENTS_BYTES_MAX {
                let Some(oldest) = self.ring.pop_front() else { break };
                self.bytes -= oldest.kept;
                self.floor = oldest.id;
            }
        }
    }

    /// The state was replaced by one at `revision`: what happened in between is not known. Call under the write lock.
    pub(crate) fn reset(&mut self, revision: Option<Revision>) {
        self.ring.clear();
        self.bytes = 0;
        self.floor = floor_at(revision);
        self.queues().for_each(|queue| queue.lose());
    }

    /// Nothing comes any more; watchers take what is queued, and then the end.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.queues().for_each(|queue| queue.close());
    }

    fn queues(&self) -> impl Iterator<Item = &Arc<Queue>> {
        self.watchers.values().flat_map(BTreeMap::values)
    }

    /// The events of a primitive after `after`, if none that came after it is forgotten.
    fn since(&self, of: &Primitive, after: EventId, last: Option<EventId>) -> Option<VecDeque<WatchItem>> {
        let nothing_missed = last.is_some_and(|last| last <= after);
        if after < self.floor && !nothing_missed {
            return None;
        }
        let is_seen = |event: &Arc<Told>| event.id < after || event.id == after && !is_on(Mutant::ReplayEvent);
        let from = self.ring.partition_point(is_seen);
        let events = self.ring.range(from..).filter(|event| event.of == *of);
        Some(events.cloned().map(WatchItem::Event).collect())
    }

    fn register(&mut self, of: &Primitive, after: Option<EventId>, machine: &Machine) -> (u64, Arc<Queue>) {
        let resumed = after.and_then(|after| Some((after, self.since(of, after, machine.last_event(of))?)));
        let (after, items) = match (resumed, after) {
            (Some((after, items)), _) => (after, items),
            (None, None) => {
                let first = machine.view(of).map_or(WatchItem::Resync(None), WatchItem::Snapshot);
                (EventId::default(), VecDeque::from([first]))
            }
            (None, Some(_)) => (EventId::default(), VecDeque::from([WatchItem::Resync(machine.view(of))])),
        };
        let bound = items.len() + WATCHER_QUEUE_MAX;
        let inner = QueueInner { items, bound, bytes: 0, after, lost: false, closed: self.closed };
        let queue = Arc::new(Queue { inner: Mutex::new(inner), wake: Notify::new() });
        let id = self.next_watcher;
        self.next_watcher += 1;
        self.watchers.entry(of.clone()).or_default().insert(id, queue.clone());
        (id, queue)
    }

    fn unregister(&mut self, of: &Primitive, id: u64) {
        if let Some(watchers) = self.watchers.get_mut(of) {
            watchers.remove(&id);
            if watchers.is_empty() {
                self.watchers.remove(of);
            }
        }
    }
}

/// The place after which everything is known to a state that was taken over at `revision`.
fn floor_at(revision: Option<Revision>) -> EventId {
    revision.map_or(EventId::default(), |revision| EventId { revision, ordinal: u32::MAX })
}

/// Who watches one primitive. Dropping it ends the watch.
#[derive(Debug)]
pub struct Watcher {
    replica: Arc<Replica>,
    of: Primitive,
    id: u64,
    queue: Arc<Queue>,
}

impl Watcher {
    pub(crate) fn new(replica: Arc<Replica>, of: &Primitive, after: Option<EventId>) -> Self {
        let (id, queue) = replica.with_state_and_hub(|state, hub| hub.register(of, after, &state.machine));
        Self { replica, of: of.clone(), id, queue }
    }

    /// What comes next, in order, without gap and without duplicate. `None` once the replica has stopped or failed.
    /// Cancelling loses nothing.
    pub async fn next(&mut self) -> Option<WatchItem> {
        loop {
            if let Some(step) = self.step() {
                return step;
            }
            self.queue.wake.notified().await;
        }
    }

    /// What [`Watcher::next`] returns at once; `None` if it has to wait.
    pub fn try_next(&mut self) -> Option<Option<WatchItem>> {
        self.step()
    }

    fn step(&self) -> Option<Option<WatchItem>> {
        let mut inner = self.queue.lock();
        if inner.lost {
            drop(inner);
            return Some(Some(self.resync()));
        }
        match inner.items.pop_front() {
            Some(item) => {
                if let WatchItem::Event(event) = &item {
                    inner.bytes = inner.bytes.saturating_sub(event.weight());
                }
                Some(Some(item))
            }
            None => inner.closed.then_some(None),
        }
    }

    fn resync(&self) -> WatchItem {
        self.replica.with_state_and_hub(|state, _| {
            // Nothing is published while the state is locked, so the view and what is queued from here on fit.
            let mut inner = self.queue.lock();
            inner.items.clear();
            inner.lost = false;
            inner.after = EventId::default();
            inner.bound = WATCHER_QUEUE_MAX;
            inner.bytes = 0;
            WatchItem::Resync(state.machine.view(&self.of))
        })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.replica.with_state_and_hub(|_, hub| hub.unregister(&self.of, self.id));
    }
}
