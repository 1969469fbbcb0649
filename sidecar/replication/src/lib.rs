//! One handle on a replicated partition: propose, read, watch, give the lead away.
//!
//! ```text
//!            propose ──▶ admission ──▶ openraft ──▶ log storage ──▶ the process's log (coterie-store)
//!                                         │  └────▶ network ─────▶ Transport ─▶ other replicas' handle()
//!                                         ▼ committed
//!               answer ◀── state machine: Machine::apply (coterie-core) ──▶ hub ──▶ watchers
//!               read   ◀── ReadIndex or the lease, and the machine
//! ```
//!
//! A write: the leader stamps a round of commands with its clock, appends it, sends it to the followers while its own log flushes,
//! and answers once a majority has flushed it and it is applied. A linearizable read: the leader asks a majority whether
//! it still leads, waits until what was committed then is applied, and answers from the machine. Nothing here rests on
//! clocks but the timers of elections and what is asked for as `leased`.
//!
//! openraft is used in this crate only. It runs with pre-vote and check-quorum; a leader that lost its majority takes no
//! proposals once its lease has passed. Membership is what [`Partition::form`] was given and [`Partition::reconfigure`]
//! made of it since; nothing else changes it.
//!
//! | to understand | read |
//! |---|---|
//! | what users call | [`partition`](Partition) |
//! | how the membership changes | `reconfiguration` |
//! | what is stored and sent | `codec`, `snapshots` |
//! | how watches stay exact | `watch` |
//! | Raft's timers and limits | `timing` |

mod admission;
mod codec;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod key;
mod lease;
mod log_storage;
mod network;
mod partition;
mod pipeline;
mod proposer;
mod reconfiguration;
mod replica;
mod room;
mod runtime;
mod snapshots;
mod state_machine;
mod ticker;
mod timing;
pub mod transport;
mod types;
mod watch;

pub use key::storage_key;
#[cfg(feature = "sim")]
pub use partition::LogEntry;
pub use partition::{
    Error, Leadership, Membership, Options, Partition, ProposeError, Read, ReadKind, ReplicaStatus, SNAPSHOT_ENTRIES,
};
pub use replica::Progress;
pub use ticker::Ticker;
pub use timing::Timing;
pub use transport::{Lane, Target, Transfer, Transport};
pub use watch::{Told, WatchItem, Watcher};
