//! Durable bytes of one member: its identity, one write-ahead log for all its partitions, and snapshots.
//!
//! ```text
//! <data directory>/
//!   LOCK                  held by the running process                              directory
//!   identity              who this directory is, minted once                       directory
//!   wal/<seq>.seg         the log: all partitions, one writer, one flush for all   log
//!   snap/<partition>.snap the state of a partition up to some index                snapshots
//! ```
//!
//! Nothing here knows Raft: votes, log ids, entries and snapshots are bytes. Everything goes through
//! [`coterie_env::Disk`], so that the simulator can crash it between any two steps. What was damaged is never guessed
//! at: a damaged identity, log or snapshot is an error that says what to do.
//!
//! Wrong data is never served, lost data is never hidden; a member that lost its disk gets a new identity and is
//! replaced, it does not come back as the one it was.

pub mod directory;
pub mod limits;
pub mod log;
pub mod snapshots;

mod sealed;

pub use directory::{Directory, Formation, Identity, KnownPeer, Seat};
pub use log::{Log, LogState, PartitionLog};
pub use sealed::Error as FrameError;
pub use snapshots::Snapshots;
