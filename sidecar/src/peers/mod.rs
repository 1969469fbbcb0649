//! Between sidecars: one HTTP/2 connection to each peer that is called, mTLS around it, gRPC in it.
//!
//! | file | is |
//! |---|---|
//! | [`tls`] | certificates, re-read when they change, and what a certificate's name allows |
//! | [`connection`] | one connection as gRPC sees it, with the caller's role and whether it is still open |
//! | [`client`] | calls to peers by name; [`client::Peers`] is also Raft's transport |
//! | `link` | the stream to one peer that carries all that is small and frequent; `queue` is what waits for it |
//! | `linked` | the same stream at the side that answers |
//! | [`admission`] | whether a data directory is the one that is known (D14): decides, does no I/O |
//! | [`server`] | the service that peers call |
//! | [`admin`] | the service that the operator calls |

pub mod admin;
pub mod admission;
pub mod client;
pub mod connection;
mod link;
mod linked;
mod queue;
pub mod server;
pub mod tls;

pub use link::CallError;
