//! SPEC.md by number, against real member processes, over both wires.
//!
//! | where | what |
//! |---|---|
//! | `tests/wires` | what every application sees, twice: over gRPC and over HTTP, in one cluster that all tests share |
//! | `tests/handles.rs` | numbers about handles and listeners, in the Rust SDK (D21) |
//! | `tests/sdk` | maps and locks in the Rust SDK |
//! | `tests/config.rs` | the file form and its rules, through `coterie-sidecar check` |
//! | `tests/partition_groups.rs`, `tests/failures.rs`, `tests/primitives.rs`, `tests/presence.rs` | what needs members to be killed: a cluster for each test |
//! | `tests/directories.rs` | wiped, rolled-back and copied data directories |
//! | `tests/table.rs` | `docs/conformance.md`: which number is shown by which test |
//!
//! A test is named after the numbers that it shows: `s23_first_member_to_join_leads`.

pub mod harness;
pub mod table;
pub mod wire;

pub use harness::{eventually, name, run, shared};
pub use wire::{Events, Failure, Grpc, Http, Primitives, Wire};

/// Runs each test over gRPC and over HTTP.
#[macro_export]
macro_rules! both_wires {
    ($($(#[$meta:meta])* async fn $test:ident<$wire:ident: Wire>() $body:block)*) => {
        $($(#[$meta])* async fn $test<$wire: $crate::Wire>() $body)*
        mod grpc {
            $(#[test] fn $test() { $crate::run(super::$test::<$crate::Grpc>()); })*
        }
        mod http {
            $(#[test] fn $test() { $crate::run(super::$test::<$crate::Http>()); })*
        }
    };
}
