//! Every bound of this crate, with its reason.

use std::time::Duration;

/// Bytes of one segment unless [`crate::log::Options`] says otherwise. Large enough that rolling is rare (once a second
/// at full speed), small enough that a member needs little room and recovers in milliseconds.
pub const SEGMENT_BYTES: u64 = 16 << 20;

/// The smallest segment: a header, and room for a few batches. Tests use small ones.
pub const SEGMENT_BYTES_MIN: u64 = 4 << 10;

/// Bytes written per flush, unless one record alone is larger. Beyond it a flush takes noticeably longer, and what
/// waits behind it gains nothing.
pub const BATCH_BYTES_MAX: usize = 1 << 20;

/// Bytes that may wait for the writer before nothing more is admitted. Half a second of work on a slow volume. What was
/// admitted before may pass it, by what all partitions together may have on their way.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;

/// Saved commit positions that may wait for somebody else's flush before they get one of their own.
pub const RIDERS_MAX: usize = 1024;

/// Bytes of entries kept in memory for readers, over all partitions.
pub const CACHE_BYTES: usize = 8 << 20;

/// What an entry in memory costs beside its bytes: its handle, its place in the index, the allocation.
pub const CACHED_ENTRY_OVERHEAD: usize = 96;

/// Segments kept before live records of idle partitions are copied forward, beside two per segment of live bytes. So
/// the disk holds at most `4 + 2 × live` segments, and two that are prepared, and a byte is copied less than once per byte
/// written.
pub const SEGMENTS_BEFORE_COPYING: u64 = 4;

/// Segments' worth of free disk that growth leaves untouched, for votes, purges and snapshots that free space.
pub const RESERVE_SEGMENTS: u64 = 2;

/// Of these, what entries that other members have sent leave untouched as well: the next segment, once this one is full.
pub const RESERVE_SEGMENTS_HARD: u64 = 1;

/// How long the volume's free space is believed while nothing is written. What others write to it in that time is far
/// below the reserve.
pub const SPACE_LOOK_PAUSE: Duration = Duration::from_millis(500);

/// Bytes of the next segment filled with zeros in one step; a request waits at most for one step.
pub const FILL_STEP_BYTES: u64 = 1 << 20;

/// The longest name of a partition, in bytes; it is stored in every record.
pub const PARTITION_KEY_BYTES_MAX: usize = 255;

/// The largest index of an entry. Nobody comes there, and what is counted from it stays a number.
pub const INDEX_MAX: u64 = u64::MAX >> 1;

/// Bytes of one append. Places in a segment are 32 bits wide.
pub const APPEND_BYTES_MAX: usize = 1 << 30;

/// Bytes of one piece of a snapshot: what is read into memory at once. Far more than the largest value.
pub const SNAPSHOT_PIECE_BYTES_MAX: usize = 8 << 20;

/// Bytes of a snapshot that are written between two flushes of it: a flush of the log waits for less than this takes.
pub const SNAPSHOT_SYNC_BYTES: u64 = 2 << 20;

/// Bytes of a snapshot that nobody needs any longer, freed between two flushes of it: a flush of the log waits for less
/// than this takes.
pub const SNAPSHOT_FREE_BYTES: u64 = 4 << 20;

const _: () = assert!(RESERVE_SEGMENTS_HARD < RESERVE_SEGMENTS);
