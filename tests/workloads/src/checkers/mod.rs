//! What must hold of what clients saw, one file per promise. Pure: a history in, a verdict out.

pub mod elections;
pub mod exactly_once;
pub mod happened;
pub mod identities;
pub mod leaders;
pub mod linearizability;
pub mod locks;
pub mod sessions;
pub mod terms;
pub mod watches;
