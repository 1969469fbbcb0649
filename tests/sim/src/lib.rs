//! The real sidecar in a simulated world: one seed decides everything that happens, so a failure can be replayed.
//!
//! [`smoke::run`] starts three sidecars, crashes the leader with the loss of everything that was not flushed, then all
//! three, and checks that nothing acknowledged is missing and that terms went on rising. [`chaos::run`] lets anything go
//! wrong ([`faults`]) while clients use a map ([`workloads`]), and checks that what they saw is linearizable
//! ([`checkers`]) and that all replicas hold the same in the end.

#[cfg(not(tokio_unstable))]
compile_error!(
    "the simulator needs `--cfg tokio_unstable`: run cargo inside tests/sim, whose .cargo/config.toml sets it"
);

pub mod application;
pub mod chaos;
pub mod checkers;
pub mod cluster;
pub mod faults;
pub mod histories;
pub mod history;
pub mod smoke;
pub mod summary;
pub mod volume;
pub mod workloads;
pub mod world;
