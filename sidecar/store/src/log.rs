//! The write-ahead log of all partitions of a process.
//!
//! ```text
//!  PartitionLog::append ─┐                    ┌─ writer: a thread of its own ─────────────────────────┐
//!  save_vote             ├─> memory, queue ──>│ take all │ one write │ one flush │ complete all in order │──> Done
//!  truncate, purge, …    ┘      │             └──────────┴───────────┴───────────┴───────────────────────┘
//!  read <── cache or disk <─────┘                                wal/<seq>.seg
//! ```
//!
//! # Writing
//! A call changes the memory and joins one queue. The writer takes everything that is queued, of all partitions (at most
//! [`crate::limits::BATCH_BYTES_MAX`]), writes it as one batch, flushes once, and completes the calls in their order.
//! While it flushes, the next batch gathers: nobody lingers for company. Nothing is acknowledged before its flush; an
//! entry can be read as soon as it was appended. Order on disk is the order of the calls, over all partitions, so a
//! crash leaves exactly what some prefix of the calls made: no vote outlives an entry that was appended before it.
//!
//! Segments are files whose blocks were written before, because a flush into written blocks changes no metadata of the
//! file system (102 µs against 183 µs where it was measured). One segment that is freed is kept and becomes the next one;
//! its content stays, and its new salt, one more than the former, makes none of it valid. Where none is freed in time a
//! file is filled with zeros: while the writer idles, and in step with what it writes while it does not.
//!
//! # Recovery
//! Segments are scanned in order; batches are numbered without gaps, over segment boundaries, and each begins after the
//! flush of the one before it. So:
//!
//! | found at the end of what is valid | meaning | done |
//! |---|---|---|
//! | zeros to the end of the segment, or its end | the log ends here, or goes on in the next segment | nothing |
//! | something, and a next segment with the next number | what the file held before it was used again | nothing |
//! | something, nothing valid behind it, no next segment | that, or a torn write, which was never acknowledged | zeroed |
//! | something, and a valid batch behind it | flushed bytes have changed | [`Error::Damaged`] |
//! | a batch or a next segment with another number | flushed bytes have changed or are missing | [`Error::Damaged`] |
//!
//! What is valid is flushed again before anything is served: it may have come from the memory of the system.
//!
//! # Space
//! A segment goes when no partition needs it: every later record of a partition makes some earlier one needless, and
//! `purge` its entries. Segments go from the oldest only. An idle partition must not hold them, so once there are more
//! than [`crate::limits::SEGMENTS_BEFORE_COPYING`] segments beside twice the live bytes, the writer copies what is live
//! in the oldest one to the end of the log: its votes, commit and purge positions, and its entries.
//!
//! Before anything is promised, [`Log::admit`] is asked; the writer measures the volume for it. Below two segments of free disk growth
//! is refused with `StorageFull`, whatever room the present segment has, and taken again once there is room; votes,
//! truncations and purges go on (the table is in `space`). What was promised is appended without another look, because a
//! Raft instance does not survive a refusal. The next segment is prepared only above the reserve; if the volume fills
//! while it is, it is given back. A freed segment is kept under the same condition, and not while anybody reads from it.
//!
//! # Failure
//! An I/O error is final: what the page cache and the disk hold after it is unknown. Every later call fails,
//! [`Log::healthy`] is false, and the process must restart. Refusals (`StorageFull`, `WouldBlock`, `InvalidInput`) are
//! not failures.

use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use coterie_env::Env;
use tokio::sync::oneshot;

mod copy;
mod error;
mod format;
mod recover;
mod segment;
mod shared;
mod space;
mod state;
mod writer;

pub use error::Error;
pub use space::Demand;

use crate::limits;
use format::Change;
use shared::Shared;

/// Called when an append is durable or has failed: on the writer's thread, in the order of the calls, or on the caller's
/// if it is refused. It must not block.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// How a log is kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of a segment, rounded up to a multiple of 512, at least [`limits::SEGMENT_BYTES_MIN`]. An append larger than
    /// that gets a segment of its own size.
    pub segment_bytes: u64,
    /// Bytes of written entries kept in memory for readers, over all partitions.
    pub cache_bytes: usize,
    /// Bytes that may wait for the writer before nothing more is admitted. What was admitted is taken all the same.
    pub queue_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            segment_bytes: limits::SEGMENT_BYTES,
            cache_bytes: limits::CACHE_BYTES,
            queue_bytes_max: limits::QUEUE_BYTES_MAX,
        }
    }
}

/// What a partition's log holds, with what is queued.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogState {
    /// The vote saved last.
    pub vote: Option<Bytes>,
    /// The commit position saved last; after a crash it may be an older one.
    pub committed: Option<Bytes>,
    /// The last purged index, with its log id.
    pub purged: Option<(u64, Bytes)>,
    /// The first entry that is there. None if there is no entry, also when there were.
    pub first: Option<u64>,
    /// The last entry that is there.
    pub last: Option<u64>,
}

/// The shared log. Clones are handles of the same; it ends when the last handle, of partitions too, is dropped.
#[derive(Clone)]
pub struct Log {
    handle: Arc<Handle>,
}

/// One partition's part of the log. Clones are handles of the same.
#[derive(Clone)]
pub struct PartitionLog {
    handle: Arc<Handle>,
    key: Arc<str>,
}

/// Ends the writer when nobody can ask it for anything any more.
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.begin_closing();
    }
}

/// What inspection finds in one partition of a log that is not open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// The partition.
    pub partition: String,
    /// What it holds.
    pub state: LogState,
}

impl Log {
    /// Opens the log of a data directory (its folder `wal`, made if it is missing), cuts off a torn tail and starts the
    /// writer. Blocks while it reads all segments.
    ///
    /// The caller holds the directory's lock ([`crate::Directory`]): two logs on one folder destroy each other.
    pub fn open(env: &Env, dir: &Path, options: Options) -> Result<Log, Error> {
        let shared = writer::start(env, dir, options)?;
        Ok(Log { handle: Arc::new(Handle { shared }) })
    }

    /// Reads a log without changing it; for the directories of dead members. Fails as [`Log::open`] does, and leaves a
    /// torn tail where it is.
    pub fn inspect(env: &Env, dir: &Path) -> Result<Vec<Inspected>, Error> {
        let recovered = recover::scan(env.disk.as_ref(), &dir.join("wal"))?;
        let partitions = recovered.into_partitions().into_iter();
        Ok(partitions.map(|(key, found)| Inspected { partition: key.to_string(), state: found.state() }).collect())
    }

    /// A partition's log; an empty one if the name is new. Nothing is written for it until something is saved in it.
    ///
    /// # Panics
    /// If the name is longer than [`limits::PARTITION_KEY_BYTES_MAX`] bytes.
    pub fn partition(&self, key: &str) -> PartitionLog {
        assert!(key.len() <= limits::PARTITION_KEY_BYTES_MAX, "a partition's name is too long: {key}");
        PartitionLog { handle: self.handle.clone(), key: Arc::from(key) }
    }

    /// The partitions of which anything is stored, sorted.
    pub fn partitions(&self) -> Vec<String> {
        self.handle.shared.lock().partitions.keys().map(ToString::to_string).collect()
    }

    /// Forgets a partition durably, its vote too: it must never come back with the same identity.
    pub async fn remove_partition(&self, key: &str) -> io::Result<()> {
        self.handle.shared.change(&Arc::from(key), Change::Remove).await
    }

    /// False after an I/O error: every call fails from then on, and the process must restart.
    pub fn healthy(&self) -> bool {
        self.handle.shared.failure().is_none()
    }

    /// The I/O error that ended the log, in a sentence.
    pub fn failure(&self) -> Option<String> {
        self.handle.shared.failure()
    }

    /// Returns once an I/O error has ended the log, with its sentence; never otherwise.
    pub async fn failed(&self) -> String {
        self.handle.shared.failed().await
    }

    /// Whether this many bytes may be appended now: `StorageFull`, `WouldBlock` (too much is queued) or the failure. Asks
    /// memory only: the volume was looked at by the writer, at most [`limits::SPACE_LOOK_PAUSE`] and one flush ago. Ask
    /// before promising to append: a refused append ends a Raft instance.
    pub fn admit(&self, demand: Demand, bytes: usize) -> io::Result<()> {
        self.handle.shared.admit(demand, bytes)
    }

    /// Bytes of segments that the log occupies, without the next one that is being prepared.
    pub fn disk_bytes(&self) -> u64 {
        self.handle.shared.lock().segments.values().map(|segment| segment.len).sum()
    }

    /// Bytes of entries that are cached, with their overhead.
    pub fn cached_bytes(&self) -> usize {
        self.handle.shared.lock().cached_bytes()
    }

    /// Writes what is queued and ends the writer; every later call fails. Returns when the log's files are at rest.
    pub async fn close(&self) {
        self.handle.shared.begin_closing();
        self.handle.shared.ended().await;
    }
}

impl PartitionLog {
    /// What the log holds, with what is queued: memory only, never blocks on the disk.
    pub fn state(&self) -> LogState {
        let state = self.handle.shared.lock();
        state.partitions.get(&self.key).map(|partition| partition.state()).unwrap_or_default()
    }

    /// Appends entries, which must be contiguous and continue the log; an empty log may begin anywhere behind what is
    /// purged. They can be read when this returns and are durable when `done` is called.
    ///
    /// Refused, with nothing changed: `InvalidInput` (a gap, an overlap, or [`limits::APPEND_BYTES_MAX`] passed). How full
    /// the queue and the volume are was asked before: [`Log::admit`].
    pub fn append(&self, entries: Vec<(u64, Bytes)>, done: Done) {
        self.handle.shared.append(&self.key, entries, done);
    }

    /// Saves the vote; durable when this returns.
    pub async fn save_vote(&self, vote: Bytes) -> io::Result<()> {
        self.handle.shared.change(&self.key, Change::Vote(vote)).await
    }

    /// Saves the commit position with whatever is flushed next; alone it causes no flush. After a crash it is never
    /// ahead of the entries that were appended before it.
    pub fn save_committed(&self, committed: Bytes) {
        self.handle.shared.ride(&self.key, committed);
    }

    /// Drops the entries behind `index`, or all of them; durable when this returns.
    pub async fn truncate_after(&self, index: Option<u64>) -> io::Result<()> {
        let from = index.map_or(0, |index| index.saturating_add(1));
        self.handle.shared.change(&self.key, Change::Truncate(from)).await
    }

    /// Drops the entries up to `index`, whose log id is kept; durable when this returns. An index that is purged
    /// already changes nothing. It may lie behind the last entry: the next append then follows it.
    pub async fn purge(&self, index: u64, log_id: Bytes) -> io::Result<()> {
        if self.state().purged.is_some_and(|(purged, _)| purged >= index) {
            return Ok(());
        }
        self.handle.shared.change(&self.key, Change::Purge(index, log_id)).await
    }

    /// The entries of a range that are there, in order, until `bytes_max` is passed; at least one if there is one. May
    /// block on the disk for entries that are not cached. `InvalidData` (and the log has failed) if one was damaged.
    pub fn read(&self, range: impl RangeBounds<u64>, bytes_max: usize) -> io::Result<Vec<(u64, Bytes)>> {
        let start = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(index) => index.saturating_add(1),
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        self.handle.shared.read(&self.key, start, end, bytes_max)
    }

    /// As [`Log::admit`].
    pub fn admit(&self, demand: Demand, bytes: usize) -> io::Result<()> {
        self.handle.shared.admit(demand, bytes)
    }

    /// The partition's name.
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// A [`Done`] and what tells that it was called.
fn completion() -> (Done, oneshot::Receiver<io::Result<()>>) {
    let (sender, receiver) = oneshot::channel();
    let done: Done = Box::new(move |result| {
        // Who no longer waits does not need to know.
        let _ = sender.send(result);
    });
    (done, receiver)
}
