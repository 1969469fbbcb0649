//! What must hold of what applications saw. Pure: a history in, a verdict out.

pub mod leadership;
pub mod linearizability;
pub mod locks;
pub mod watches;
