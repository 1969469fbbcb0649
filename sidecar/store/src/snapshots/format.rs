//! The bytes of a snapshot's file.

use bytes::Bytes;

use crate::limits::SNAPSHOT_PIECE_BYTES_MAX;
use crate::sealed;

/// The version of the file that this program writes, and the only one that it reads.
pub(super) const VERSION: u32 = 2;
pub(super) const HEAD: [u8; 8] = *b"cotersnp";
const END: [u8; 8] = *b"coterend";

/// Bytes of the frame at the end.
pub(super) const END_BYTES: usize = sealed::HEADER_BYTES + 20;

/// Bytes before each piece.
pub(super) const PIECE_HEADER_BYTES: usize = 8;

/// What tells one snapshot from another: two of the same label are the same bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// What the caller wants to know of it.
    pub meta: Vec<u8>,
    /// How many pieces it has.
    pub pieces: u64,
    /// What they take in the file.
    pub bytes: u64,
    /// Of the checksums of all pieces, in order.
    pub checksum: u32,
}

impl Label {
    /// The frame at the end.
    pub(super) fn end_frame(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(20);
        body.extend_from_slice(&self.pieces.to_le_bytes());
        body.extend_from_slice(&self.bytes.to_le_bytes());
        body.extend_from_slice(&self.checksum.to_le_bytes());
        sealed::seal(END, VERSION, &body)
    }

    /// What [`Label::end_frame`] gave, with the meta data of the head.
    pub(super) fn from_end(meta: Vec<u8>, end: &[u8]) -> Result<Self, sealed::Error> {
        let (_, body) = sealed::open(END, VERSION, end)?;
        let cut = || sealed::Error::Length { found: body.len() as u64, expected: 20 };
        let (pieces, rest) = body.split_first_chunk().ok_or_else(cut)?;
        let (bytes, rest) = rest.split_first_chunk().ok_or_else(cut)?;
        let checksum = rest.try_into().map_err(|_| cut())?;
        Ok(Label {
            meta,
            pieces: u64::from_le_bytes(*pieces),
            bytes: u64::from_le_bytes(*bytes),
            checksum: u32::from_le_bytes(checksum),
        })
    }

    /// One piece more.
    pub(super) fn add(&mut self, piece: &Piece) {
        self.pieces += 1;
        self.bytes += piece.len_in_file();
        self.checksum = crc32c::crc32c_append(self.checksum, &piece.checksum.to_le_bytes());
    }

    /// Behind the last piece.
    pub fn end(&self) -> Place {
        Place { pieces: self.pieces, bytes: self.bytes }
    }
}

/// A place between two pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// How many pieces are before it.
    pub pieces: u64,
    /// What they take in the file.
    pub bytes: u64,
}

/// A piece, and a checksum that says which one it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Of its number, its length and its bytes.
    pub checksum: u32,
    /// What it is.
    pub bytes: Bytes,
}

impl Piece {
    /// The piece of this number.
    ///
    /// # Panics
    /// If it is larger than [`SNAPSHOT_PIECE_BYTES_MAX`].
    pub fn new(number: u64, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        assert!(bytes.len() <= SNAPSHOT_PIECE_BYTES_MAX, "a piece has {} bytes", bytes.len());
        Piece { checksum: checksum(number, &bytes), bytes }
    }

    /// Whether this is the piece of this number, as it was made.
    pub fn is_whole(&self, number: u64) -> bool {
        self.bytes.len() <= SNAPSHOT_PIECE_BYTES_MAX && self.checksum == checksum(number, &self.bytes)
    }

    /// What it takes in the file.
    pub(super) fn len_in_file(&self) -> u64 {
        (PIECE_HEADER_BYTES + self.bytes.len()) as u64
    }

    /// As it is in the file.
    pub(super) fn in_file(&self) -> Vec<u8> {
        let len = u32::try_from(self.bytes.len()).expect("a piece is some megabytes at most");
        let mut bytes = Vec::with_capacity(PIECE_HEADER_BYTES + self.bytes.len());
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(&self.checksum.to_le_bytes());
        bytes.extend_from_slice(&self.bytes);
        bytes
    }
}

fn checksum(number: u64, bytes: &[u8]) -> u32 {
    let checksum = crc32c::crc32c(&number.to_le_bytes());
    let checksum = crc32c::crc32c_append(checksum, &(bytes.len() as u64).to_le_bytes());
    crc32c::crc32c_append(checksum, bytes)
}
