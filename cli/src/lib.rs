//! What `coterie` is made of.
//!
//! | module | command |
//! |---|---|
//! | [`local`] | `coterie up`: real sidecar processes on this machine; also the harness of the demo and of the tests |
//! | [`up`] | `coterie up` itself |
//! | [`group`] | `coterie group` |
//! | [`status`] | `coterie status` |

pub mod group;
pub mod local;
pub mod status;
pub mod up;

mod output;
mod table;
