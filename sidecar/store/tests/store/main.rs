//! The store as its users see it: what was acknowledged is there after a crash, what is damaged is refused.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(unreachable_pub, reason = "helpers of one program")]

mod append;
mod crash;
mod damage;
mod directory;
mod model;
mod real_disk;
mod recovery;
mod snapshots;
mod space;
mod support;
