//! The wire of Coterie: [`v1`] for applications, [`peer`] between sidecars, [`admin`] for the operator and the CLI.
//! Generated from the files beside this crate; it knows no client and no runtime.

#![allow(missing_docs, unused_qualifications, unreachable_pub, clippy::all)]

/// What applications call on localhost.
pub mod v1 {
    tonic::include_proto!("coterie.v1");
}

/// What sidecars say to each other, over mTLS.
pub mod peer {
    tonic::include_proto!("coterie.peer.v1");
}

/// What the operator and the CLI ask of a sidecar.
pub mod admin {
    tonic::include_proto!("coterie.admin.v1");
}

pub mod shared;

/// The descriptors of all of it, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/coterie.bin"));
