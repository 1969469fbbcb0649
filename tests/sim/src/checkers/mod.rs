//! What must hold of what applications saw. Pure: a history in, a verdict out.

pub mod linearizability;
