//! `coterie-bench`: the same load on Coterie and on etcd, in the same run, on this machine.
//!
//! ```text
//! for TLS between peers off, on:
//!   for each round: for each system, taking turns at being first:
//!     three fresh members ─▶ cold start ─▶ idle ─▶ loads ─▶ memory after load
//!   for each system: three fresh members ─▶ kills of the leader ─▶ stops of the leader
//! ```
//! | module | |
//! |---|---|
//! | [`load`] | what is asked, the same for both |
//! | [`system`] | the systems behind one face: processes and clients |
//! | [`fanout`] | which watcher was told of what |
//! | [`measure`] | one function for each thing that is measured |
//! | [`machine`] | memory, CPU, flushes |
//! | [`results`], [`table`], [`plot`] | what comes out |

pub mod fanout;
pub mod load;
pub mod machine;
pub mod measure;
pub mod memory;
pub mod options;
pub mod plot;
pub mod progress;
pub mod results;
pub mod rounds;
pub mod system;
pub mod table;

mod authority;
mod ports;
