//! What sender and receiver of a snapshot say to each other.
//!
//! ```text
//!   sender                          receiver
//!     Offer ─────────────────────────▶     has so much of it already: Begin (or Done, if it needs none)
//!     piece, piece, …  ──────────────▶     each written: Taken       at most a few without one
//!                      ◀──────────────     restores it: Busy, Busy, …
//!                      ◀──────────────     installed: Done
//! ```
//! A piece goes as its checksum (4 bytes, little-endian) and its bytes. Whoever hears nothing for
//! [`crate::timing::SNAPSHOT_PATIENCE`] gives up; what was taken is kept for a while, and the next offer of the same
//! snapshot goes on from there.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use coterie_store::snapshots::{Label, Piece, Place, Stored};
use openraft::raft::SnapshotResponse;
use serde::{Deserialize, Serialize};

use crate::codec;
use crate::types::{SnapshotMeta, TypeConfig, Vote};

/// What a leader sends, first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Offer {
    pub(crate) vote: Vote,
    pub(crate) meta: SnapshotMeta,
    pieces: u64,
    bytes: u64,
    checksum: u32,
}

impl Offer {
    pub(crate) fn new(vote: Vote, meta: SnapshotMeta, stored: &Stored) -> Self {
        let Label { meta: _, pieces, bytes, checksum } = *stored.label();
        Self { vote, meta, pieces, bytes, checksum }
    }

    /// What the whole file will be.
    pub(super) fn label(&self) -> Label {
        let meta = codec::encode_mark(&self.meta).into();
        Label { meta, pieces: self.pieces, bytes: self.bytes, checksum: self.checksum }
    }
}

/// What the receiver answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// It has what is before this place, durably, and wants the rest.
    Begin(At),
    /// It has written so many pieces.
    Taken(u64),
    /// It works on what it has.
    Busy,
    /// Raft's answer; the last one.
    Done(SnapshotResponse<TypeConfig>),
}

/// A place in the sequence of pieces.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct At {
    pieces: u64,
    bytes: u64,
}

impl From<Place> for At {
    fn from(place: Place) -> Self {
        let Place { pieces, bytes } = place;
        Self { pieces, bytes }
    }
}

impl From<At> for Place {
    fn from(at: At) -> Self {
        let At { pieces, bytes } = at;
        Self { pieces, bytes }
    }
}

/// The last answer.
pub(crate) fn done(generation: u64, response: SnapshotResponse<TypeConfig>) -> Bytes {
    codec::encode_message(generation, &Answer::Done(response))
}

pub(super) fn encode_piece(piece: &Piece) -> Bytes {
    let mut payload = BytesMut::with_capacity(4 + piece.bytes.len());
    payload.put_u32_le(piece.checksum);
    payload.extend_from_slice(&piece.bytes);
    payload.freeze()
}

/// What [`encode_piece`] made. Whether it is whole shows when it is written.
pub(crate) fn decode_piece(mut payload: Bytes) -> Result<Piece, codec::Error> {
    if payload.len() < 4 {
        return Err(codec::Error::Short { what: "piece of a snapshot" });
    }
    let checksum = payload.get_u32_le();
    Ok(Piece { checksum, bytes: payload })
}
