//! The real sidecar in a simulated world: one seed decides everything that happens, so a failure can be replayed.
//!
//! [`smoke::run`] starts three sidecars, crashes the leader with the loss of everything that was not flushed, then all
//! three, and checks that nothing acknowledged is missing and that terms went on rising. [`chaos::run`] lets anything go
//! wrong ([`faults`]) while clients work ([`coterie_workloads`]), and checks what they saw, and that all replicas hold the same
//! in the end.

#[cfg(not(tokio_unstable))]
compile_error!(
    "the simulator needs `--cfg tokio_unstable`: run cargo inside tests/sim, whose .cargo/config.toml sets it"
);

pub mod application;
pub mod chaos;
pub mod cluster;
pub mod expected;
pub mod faults;
pub mod histories;
pub mod history;
pub mod invariants;
mod look;
pub mod members;
pub mod process;
pub mod smoke;
pub mod summary;
pub mod volume;
pub mod world;
