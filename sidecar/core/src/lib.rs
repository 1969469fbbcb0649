//! What a sidecar decides, without a clock, chance, I/O or a runtime: the same input gives the same output everywhere.
//!
//! [`machine`] is the replicated state machine of one partition (sessions, deduplication, groups, and in the management
//! group the directory; maps; locks). [`command`] is what goes into its log and comes out of it. [`routing`] says which partition a
//! primitive lives in, [`placement`] on which members a partition's replicas go. [`config`] turns files, the operator's
//! input and local clusters into one validated configuration. [`limits`] bounds everything, [`code`] names every error.

pub mod chunks;
pub mod code;
pub mod command;
pub mod config;
pub mod entries;
pub mod ids;
pub mod limits;
pub mod machine;
pub mod placement;
pub mod routing;

pub use code::{ErrorCode, Rejection};
pub use ids::*;
