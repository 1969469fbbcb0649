//! The sidecar: the shell around `coterie-core`.
//!
//! ```text
//! application ─▶ api ─▶ presence ─▶ router ─▶ a partition's leader, here or over peers ─▶ replication ─▶ store
//!                                     ▲
//!              directory (who, where) ┘◀─ cluster (find or form, register, open replicas) ◀─ greetings
//! ```
//!
//! | module | is |
//! |---|---|
//! | [`node`] | one sidecar put together; starts and stops it |
//! | [`state`] | what it is doing, in a word |
//! | [`api`] | what applications call: parses and bounds, decides nothing |
//! | [`presence`], [`locks`] | the memberships and the locks of the applications beside it |
//! | [`router`], [`watch`], [`lineage`] | from a primitive's name to its partition's leader; events back, and of which life |
//! | [`sessions`] | its lease on each partition, and the leader's timers |
//! | [`identities`], [`greetings`], [`formation`], [`cluster`] | who takes part; how a cluster comes to be; a member's duties |
//! | [`directory`], [`partitions`] | what it knows of the cluster; the replicas that it holds |
//! | [`volume`] | what it keeps on disk |
//! | [`peers`] | between sidecars: mTLS, gRPC |
//! | [`status`], [`health`] | what it tells people and Kubernetes |

pub mod api;
pub mod cluster;
pub mod deadline;
pub mod directory;
pub mod formation;
pub mod greetings;
pub mod health;
pub mod identities;
pub mod limits;
pub mod lineage;
pub mod locks;
pub mod node;
pub mod partitions;
pub mod peers;
pub mod presence;
mod retry;
pub mod router;
pub mod sessions;
pub mod state;
pub mod status;
pub mod volume;
pub mod watch;

pub use deadline::Deadline;
pub use node::Node;
pub use state::State;
