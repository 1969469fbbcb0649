//! What must hold of replicas, whatever clients saw, one file per property. Pure.

pub mod logs;
pub mod states;
