//! The PartitionGroup's controller, the pure part.

pub mod decide;
pub mod status;

pub use decide::{Decision, decide, group_name};
