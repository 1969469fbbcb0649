//! The pure half of the operator: what a valid spec and what was observed mean, as data.
//!
//! ```text
//!  Cluster ──► cluster::validate ──► Validated ─┐
//!  API server, members ──► cluster::Observed ───┼─► cluster::plan ──► Desired (objects, resize, next pod to replace)
//!                                               └─► cluster::status ──► ClusterStatus ─► condition::changes ──► events
//!
//!  PartitionGroup, its siblings, its Cluster, members::View ──► group::decide ──► Decision
//!                                            its outcome ──► group::status ──► PartitionGroupStatus
//! ```
//!
//! What is absent: a client, a clock (the time comes in as an argument), randomness, I/O, tokio. The shell
//! (`coterie-operator`) observes, calls these functions, and applies what they return.

#![forbid(unsafe_code)]

pub mod certificate;
pub mod cluster;
pub mod condition;
pub mod group;
pub mod members;
pub mod names;
pub mod quantity;
