//! What is in memory: per partition its vote, commit position, purge position and where its entries lie; the queue of
//! what is to be written; and the cache.
//!
//! A partition's memory is ahead of the disk by what is in the queue. An entry's slot says which: [`Slot::Queued`] with
//! the ticket of the append that will write it, or [`Slot::Written`] with its place. The contents of the newest entries
//! are in memory as well (`cached`, always a suffix): those that are queued must be, the others may.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::format::Change;
use super::segment::{Location, Segment};
use super::{Done, LogState};
use crate::limits::{CACHED_ENTRY_OVERHEAD, INDEX_MAX};

/// Everything behind the log's lock.
pub(super) struct State {
    pub(super) partitions: BTreeMap<Arc<str>, Partition>,
    pub(super) segments: BTreeMap<u32, Arc<Segment>>,
    pub(super) queue: VecDeque<Op>,
    /// Of `queue`: bytes, and how many wait for a flush instead of riding along.
    pub(super) queued_bytes: usize,
    pub(super) urgent: usize,
    pub(super) next_ticket: u64,
    /// Bytes of written entries that are cached, with overhead.
    cached_bytes: usize,
    cache_bytes_max: usize,
    /// Of the volume at the last look, or why it could not be asked.
    pub(super) free_bytes: Result<u64, Arc<str>>,
    /// The writer is to look when it is idle.
    pub(super) look_due: bool,
    /// What the active segment and the full spare one still take.
    pub(super) prepared_bytes: u64,
    pub(super) phase: Phase,
}

/// What the log still takes.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    Open,
    /// What is queued is written, nothing more is taken.
    Closing,
    Failed(io::ErrorKind, Arc<str>),
}

/// A queued change.
pub(super) struct Op {
    pub(super) key: Arc<str>,
    pub(super) change: Change,
    /// Of an append.
    pub(super) ticket: u64,
    pub(super) bytes: usize,
    /// `None` rides along.
    pub(super) done: Option<Done>,
}

/// One partition's log in memory.
#[derive(Default)]
pub(super) struct Partition {
    pub(super) vote: Kept<Bytes>,
    pub(super) committed: Kept<Bytes>,
    pub(super) purged: Kept<(u64, Bytes)>,
    /// Index of the first slot.
    first: u64,
    slots: VecDeque<Slot>,
    cached: VecDeque<Bytes>,
    /// What of `cached` is written, in bytes with overhead.
    cached_bytes: usize,
}

/// A value, and the segment in which it was last written.
pub(super) struct Kept<T> {
    pub(super) value: Option<T>,
    pub(super) segment: Option<u32>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Kept { value: None, segment: None }
    }
}

impl<T> Kept<T> {
    /// Notes where the value was written. The value of a partition that was removed and made again is not there yet.
    pub(super) fn written(&mut self, segment: u32) {
        if self.value.is_some() {
            self.segment = Some(segment);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    Queued(u64),
    Written(Location),
}

/// An entry to be read: its content, or where it lies.
pub(super) enum Found {
    Content(Bytes),
    At(Location),
}

fn cost(content: &Bytes) -> usize {
    content.len() + CACHED_ENTRY_OVERHEAD
}

impl Partition {
    /// A partition as recovery found it. The entries must be contiguous from `first`.
    pub(super) fn recovered(
        vote: Kept<Bytes>,
        committed: Kept<Bytes>,
        purged: Kept<(u64, Bytes)>,
        first: u64,
        entries: impl Iterator<Item = Location>,
    ) -> Self {
        let slots = entries.map(Slot::Written).collect();
        Partition { vote, committed, purged, first, slots, ..Partition::default() }
    }

    pub(super) fn state(&self) -> LogState {
        LogState {
            vote: self.vote.value.clone(),
            committed: self.committed.value.clone(),
            purged: self.purged.value.clone(),
            first: (!self.slots.is_empty()).then_some(self.first),
            last: (!self.slots.is_empty()).then(|| self.end() - 1),
        }
    }

    /// One past the last index.
    fn end(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    fn position(&self, index: u64) -> Option<usize> {
        let position = usize::try_from(index.checked_sub(self.first)?).ok()?;
        (position < self.slots.len()).then_some(position)
    }

    /// Whether these entries continue the log without a gap; otherwise the sentence that says why not.
    pub(super) fn check_append(&self, entries: &[(u64, Bytes)]) -> Result<(), String> {
        if let Some(pair) = entries.windows(2).find(|pair| pair[0].0.checked_add(1) != Some(pair[1].0)) {
            return Err(format!("entry {} is followed by entry {}", pair[0].0, pair[1].0));
        }
        let Some((index, _)) = entries.first() else { return Ok(()) };
        if let Some((last, _)) = entries.last().filter(|(last, _)| *last > INDEX_MAX) {
            return Err(format!("entry {last} is appended, and {INDEX_MAX} is the last that there can be"));
        }
        if !self.slots.is_empty() && *index != self.end() {
            return Err(format!("entry {index} is appended to a log that ends at {}", self.end() - 1));
        }
        match &self.purged.value {
            Some((purged, _)) if index <= purged => {
                Err(format!("entry {index} is appended to a log that is purged up to {purged}"))
            }
            _ => Ok(()),
        }
    }

    /// Adds entries that [`Partition::check_append`] accepted.
    pub(super) fn append(&mut self, entries: &[(u64, Bytes)], ticket: u64) {
        let Some((index, _)) = entries.first() else { return };
        if self.slots.is_empty() {
            self.first = *index;
        }
        for (_, content) in entries {
            self.slots.push_back(Slot::Queued(ticket));
            self.cached.push_back(content.clone());
        }
    }

    /// Drops the entries from this index on; the bytes that left the cache.
    fn truncate(&mut self, from: u64) -> usize {
        let mut freed = 0;
        while !self.slots.is_empty() && self.end() > from {
            let slot = self.slots.pop_back().expect("it is not empty");
            freed += self.uncache(CacheEnd::Back, slot);
        }
        freed
    }

    /// Drops the entries up to this index; the bytes that left the cache.
    fn purge(&mut self, index: u64) -> usize {
        let mut freed = 0;
        while !self.slots.is_empty() && self.first <= index {
            let slot = self.slots.pop_front().expect("it is not empty");
            if self.cached.len() > self.slots.len() {
                freed += self.uncache(CacheEnd::Front, slot);
            }
            self.first += 1;
        }
        freed
    }

    fn uncache(&mut self, end: CacheEnd, slot: Slot) -> usize {
        let content = match end {
            CacheEnd::Front => self.cached.pop_front(),
            CacheEnd::Back => self.cached.pop_back(),
        };
        match (content, slot) {
            (Some(content), Slot::Written(_)) => {
                self.cached_bytes -= cost(&content);
                cost(&content)
            }
            _ => 0,
        }
    }

    /// Drops the oldest cached entry that is written; the bytes that left the cache, 0 if there is none.
    fn evict(&mut self) -> usize {
        if self.cached.is_empty() {
            return 0;
        }
        let slot = self.slots[self.slots.len() - self.cached.len()];
        match slot {
            Slot::Queued(_) => 0,
            Slot::Written(_) => self.uncache(CacheEnd::Front, slot),
        }
    }

    /// Notes where an entry was written, unless it has gone or was replaced since.
    fn written(&mut self, index: u64, was: Slot, location: Location) -> usize {
        let Some(position) = self.position(index) else { return 0 };
        if self.slots[position] != was {
            return 0;
        }
        self.slots[position] = Slot::Written(location);
        let uncached = self.slots.len() - self.cached.len();
        match (was, position.checked_sub(uncached).map(|cached| &self.cached[cached])) {
            (Slot::Queued(_), Some(content)) => {
                self.cached_bytes += cost(content);
                cost(content)
            }
            _ => 0,
        }
    }

    /// Entries from `start` up to and without `end`, until `bytes_max` is passed; at least one if there is one.
    pub(super) fn find(&self, start: u64, end: u64, bytes_max: usize) -> Vec<(u64, Found)> {
        let mut found = Vec::new();
        let mut bytes = 0_usize;
        let uncached = self.slots.len() - self.cached.len();
        for index in start.max(self.first)..end.min(self.end()) {
            let position = self.position(index).expect("the range was cut to what is there");
            let (entry, len) = match (self.slots[position], position.checked_sub(uncached)) {
                (_, Some(cached)) => (Found::Content(self.cached[cached].clone()), self.cached[cached].len()),
                (Slot::Written(location), None) => (Found::At(location), location.len as usize),
                (Slot::Queued(_), None) => unreachable!("a queued entry is cached"),
            };
            bytes = bytes.saturating_add(len);
            if bytes > bytes_max && !found.is_empty() {
                break;
            }
            found.push((index, entry));
        }
        found
    }

    /// The written entries, in order.
    pub(super) fn written_entries(&self) -> impl Iterator<Item = (u64, Location)> {
        (self.first..).zip(&self.slots).filter_map(|(index, slot)| match slot {
            Slot::Written(location) => Some((index, *location)),
            Slot::Queued(_) => None,
        })
    }

    /// The oldest segment that a restart needs for this partition.
    pub(super) fn oldest_needed(&self) -> Option<u32> {
        let entries = self.written_entries().map(|(_, location)| location.segment);
        entries.chain(self.vote.segment).chain(self.committed.segment).chain(self.purged.segment).min()
    }
}

enum CacheEnd {
    Front,
    Back,
}

impl State {
    pub(super) fn new(cache_bytes_max: usize) -> Self {
        State {
            partitions: BTreeMap::new(),
            segments: BTreeMap::new(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            urgent: 0,
            next_ticket: 0,
            cached_bytes: 0,
            cache_bytes_max,
            free_bytes: Err("it was not looked at yet".into()),
            look_due: true,
            prepared_bytes: 0,
            phase: Phase::Open,
        }
    }

    /// Whether these entries continue their partition's log; otherwise the sentence that says why not.
    pub(super) fn check_append(&self, key: &Arc<str>, change: &Change) -> Result<(), String> {
        let Change::Entries(entries) = change else { return Ok(()) };
        match self.partitions.get(key) {
            Some(partition) => partition.check_append(entries),
            None => Partition::default().check_append(entries),
        }
    }

    /// Changes the memory as the disk will be changed, and queues the change.
    pub(super) fn enqueue(&mut self, key: &Arc<str>, change: Change, done: Option<Done>) {
        self.next_ticket += 1;
        self.apply(key, &change);
        let bytes = change.encoded_len(key);
        self.queued_bytes += bytes;
        self.urgent += usize::from(done.is_some());
        self.queue.push_back(Op { key: key.clone(), change, ticket: self.next_ticket, bytes, done });
    }

    fn apply(&mut self, key: &Arc<str>, change: &Change) {
        if *change == Change::Remove {
            if let Some(partition) = self.partitions.remove(key) {
                self.cached_bytes -= partition.cached_bytes;
            }
            return;
        }
        let partition = self.partitions.entry(key.clone()).or_default();
        match change {
            Change::Entries(entries) => partition.append(entries, self.next_ticket),
            Change::Vote(vote) => partition.vote.value = Some(vote.clone()),
            Change::Committed(committed) => partition.committed.value = Some(committed.clone()),
            Change::Truncate(from) => self.cached_bytes -= partition.truncate(*from),
            Change::Purge(index, log_id) => {
                partition.purged.value = Some((*index, log_id.clone()));
                self.cached_bytes -= partition.purge(*index);
            }
            Change::Remove => {}
        }
    }

    /// Saves a commit position without asking for a flush: it takes the place of one that still waits directly behind
    /// nothing else.
    pub(super) fn ride(&mut self, key: &Arc<str>, committed: Bytes) {
        if let Some(last) = self.queue.back_mut()
            && last.key == *key
            && let Change::Committed(waiting) = &mut last.change
            && waiting.len() == committed.len()
        {
            *waiting = committed.clone();
            self.partitions.entry(key.clone()).or_default().committed.value = Some(committed);
            return;
        }
        self.enqueue(key, Change::Committed(committed), None);
    }

    /// Takes from the front of the queue, at least one op and at most `bytes_max` (unless one is larger).
    pub(super) fn take(&mut self, bytes_max: usize) -> Vec<Op> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some(op) = self.queue.front() {
            if !taken.is_empty() && bytes + op.bytes > bytes_max {
                break;
            }
            let op = self.queue.pop_front().expect("there is a front");
            bytes += op.bytes;
            self.queued_bytes -= op.bytes;
            self.urgent -= usize::from(op.done.is_some());
            taken.push(op);
        }
        taken
    }

    /// Notes that a change lies in this segment. `places` are those of its entries.
    pub(super) fn written(&mut self, op: &Op, segment: u32, places: &[(u64, Location)]) {
        // A partition that was removed in the meantime needs nothing; one that was made again under the same name has
        // only slots with later tickets, and a place too early for its vote holds a segment a little longer.
        let Some(partition) = self.partitions.get_mut(&op.key) else { return };
        match &op.change {
            Change::Entries(_) => {
                for (index, location) in places {
                    self.cached_bytes += partition.written(*index, Slot::Queued(op.ticket), *location);
                }
            }
            Change::Vote(_) => partition.vote.written(segment),
            Change::Committed(_) => partition.committed.written(segment),
            Change::Purge(..) => partition.purged.written(segment),
            Change::Truncate(_) | Change::Remove => {}
        }
    }

    /// Notes that an entry was copied.
    pub(super) fn moved(&mut self, key: &Arc<str>, index: u64, from: Location, to: Location) {
        if let Some(partition) = self.partitions.get_mut(key) {
            partition.written(index, Slot::Written(from), to);
        }
    }

    /// Drops cached entries, of the partition that holds most first, until the cache is within its bound.
    pub(super) fn evict(&mut self) {
        while self.cached_bytes > self.cache_bytes_max {
            let most = self.partitions.values_mut().max_by_key(|partition| partition.cached_bytes);
            let Some(most) = most else { return };
            // A good part at once, so that the search is not repeated for each entry.
            let until = most.cached_bytes - most.cached_bytes / 8;
            while most.cached_bytes >= until && self.cached_bytes > self.cache_bytes_max {
                match most.evict() {
                    0 => return,
                    freed => self.cached_bytes -= freed,
                }
            }
        }
    }

    /// Bytes of written entries in the cache, with overhead.
    pub(super) fn cached_bytes(&self) -> usize {
        self.cached_bytes
    }

    /// The oldest segment that holds what a restart needs.
    pub(super) fn oldest_needed(&self) -> Option<u32> {
        self.partitions.values().filter_map(Partition::oldest_needed).min()
    }

    /// Bytes that a restart needs, without padding.
    pub(super) fn live_bytes(&self) -> u64 {
        let of = |partition: &Partition| partition.written_entries().map(|(_, at)| at.footprint()).sum::<u64>();
        self.partitions.values().map(of).sum()
    }
}
