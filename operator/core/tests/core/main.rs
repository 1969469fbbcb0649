//! The pure half of the operator, fed with objects: one binary, since linking costs more than running.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod fixtures;
mod foreign;
mod group;
mod plan;
mod rollout;
mod samples;
mod status;
