//! The PartitionGroup's controller, the pure part.

pub mod decide;
pub mod status;

pub use decide::{Decision, decide, decide_unread, group_name};
