//! What every application sees, over gRPC and over HTTP, in one cluster that all tests share.

mod decisions;
mod election;
mod groups;
mod limits;
mod locks;
mod maps;
