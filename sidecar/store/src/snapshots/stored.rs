//! A snapshot that is there.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};

use coterie_env::{File, Spawn};
use tokio::sync::oneshot;

use super::FRAMES_BYTES_MAX;
use super::format::{END_BYTES, HEAD, Label, PIECE_HEADER_BYTES, Piece, Place, VERSION};
use super::give_back::{self, give_back};
use crate::limits::SNAPSHOT_PIECE_BYTES_MAX;
use crate::sealed;

/// A whole snapshot. It can be read for as long as this is held, also after another one took its place; only then its
/// bytes are given back to the volume, see [`Stored::replaced`]. Clones are the same.
#[derive(Clone)]
pub struct Stored(Arc<Inner>);

struct Inner {
    file: Arc<dyn File>,
    path: Box<Path>,
    /// Bytes of the head.
    head: u64,
    label: Label,
    spawn: Arc<dyn Spawn>,
    /// Who frees its bytes, if another one took its place.
    heir: OnceLock<oneshot::Sender<Arc<dyn File>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(heir) = self.heir.take() {
            // Where that one is gone, the file goes with this handle.
            let _ = heir.send(self.file.clone());
        }
    }
}

/// Whether a [`Stored`] is held. Holds nothing itself.
#[derive(Clone, Default)]
pub struct Held(Weak<Inner>);

impl Held {
    /// Whether anybody holds it: its bytes are then taken from the volume, also if another one took its place.
    pub fn is_held(&self) -> bool {
        self.0.strong_count() > 0
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored").field("path", &self.0.path).finish_non_exhaustive()
    }
}

impl Stored {
    pub(super) fn new(file: Arc<dyn File>, path: &Path, head: u64, label: Label, spawn: Arc<dyn Spawn>) -> Self {
        Stored(Arc::new(Inner { file, path: path.into(), head, label, spawn, heir: OnceLock::new() }))
    }

    /// Reads and checks head and end.
    pub(super) fn open(file: Arc<dyn File>, path: &Path, spawn: &Arc<dyn Spawn>) -> io::Result<Self> {
        let len = file.len()?;
        let read = |at: u64, len: u64| {
            let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
            file.read_at(at, &mut bytes).map(|()| bytes)
        };
        let refused = |error| refused(path, &error);
        let frame = sealed::HEADER_BYTES as u64;
        if len < frame + END_BYTES as u64 {
            return Err(refused(sealed::Error::Length { found: len, expected: frame + END_BYTES as u64 }));
        }
        let head = frame.saturating_add(sealed::body_bytes(&read(0, frame)?));
        if head > FRAMES_BYTES_MAX.min(len - END_BYTES as u64) {
            return Err(refused(sealed::Error::Length { found: len, expected: head }));
        }
        let start = read(0, head)?;
        let (version, meta) = sealed::open(HEAD, VERSION, &start).map_err(refused)?;
        if version != VERSION {
            return Err(refused(sealed::Error::Version { found: version, supported: VERSION }));
        }
        let end = read(len - END_BYTES as u64, END_BYTES as u64)?;
        let label = Label::from_end(meta.to_vec(), &end).map_err(refused)?;
        let expected = head.saturating_add(label.bytes).saturating_add(END_BYTES as u64);
        if len != expected {
            return Err(refused(sealed::Error::Length { found: len, expected }));
        }
        Ok(Self::new(file, path, head, label, spawn.clone()))
    }

    /// A way to see whether anybody still holds it.
    pub fn held(&self) -> Held {
        Held(Arc::downgrade(&self.0))
    }

    /// Gives its bytes back to the volume, now: its file has no name any longer.
    pub(super) fn give_back(&self) {
        give_back(self.0.file.as_ref());
    }

    /// Another one took its place, durably: its file has no name any longer. Once nobody holds it, its bytes are given back
    /// to the volume in steps, by a thread of their own, so that nothing else that is flushed waits for all of them.
    pub fn replaced(&self) {
        let (heir, inherited) = oneshot::channel();
        if self.0.heir.set(heir).is_err() {
            return;
        }
        let free = async move {
            if let Ok(file) = inherited.await {
                give_back(file.as_ref());
            }
        };
        self.0.spawn.dedicated(give_back::THREAD, Box::pin(free));
    }

    /// What tells it from others.
    pub fn label(&self) -> &Label {
        &self.0.label
    }

    /// Bytes of the file.
    pub fn len(&self) -> u64 {
        self.0.head + self.0.label.bytes + END_BYTES as u64
    }

    /// Never: it has a head and an end.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Its pieces from a place on. All calls of the iterator block.
    pub fn pieces(&self, from: Place) -> Pieces {
        Pieces { stored: self.clone(), at: from, checksum: (from == Place::default()).then_some(0), failed: false }
    }
}

/// The pieces of a snapshot, each checked. An error is the last: `InvalidData` with a sentence if what follows is damaged.
pub struct Pieces {
    stored: Stored,
    at: Place,
    /// Of the checksums so far, if all were read.
    checksum: Option<u32>,
    failed: bool,
}

impl Pieces {
    fn read(&mut self) -> io::Result<Option<Piece>> {
        let Inner { file, path, head, label, .. } = &*self.stored.0;
        let damaged = |what: String| damaged(path, &what);
        if self.at.pieces == label.pieces {
            let all = self.at.bytes == label.bytes && self.checksum.is_none_or(|checksum| checksum == label.checksum);
            return if all { Ok(None) } else { Err(damaged("its pieces are not those that its end names".to_owned())) };
        }
        let number = self.at.pieces;
        let left = label.bytes.saturating_sub(self.at.bytes);
        let mut header = [0; PIECE_HEADER_BYTES];
        if left < header.len() as u64 {
            return Err(damaged(format!("it has no piece {number}")));
        }
        file.read_at(head + self.at.bytes, &mut header)?;
        let [a, b, c, d, checksum @ ..] = header;
        let len = u32::from_le_bytes([a, b, c, d]);
        let fits = usize::try_from(len).ok().filter(|len| *len <= SNAPSHOT_PIECE_BYTES_MAX);
        let Some(fits) = fits.filter(|_| u64::from(len) <= left - header.len() as u64) else {
            return Err(damaged(format!("piece {number} is longer than it can be")));
        };
        let mut bytes = vec![0; fits];
        file.read_at(head + self.at.bytes + header.len() as u64, &mut bytes)?;
        let piece = Piece { checksum: u32::from_le_bytes(checksum), bytes: bytes.into() };
        if !piece.is_whole(number) {
            return Err(damaged(format!("the checksum of piece {number} does not match")));
        }
        self.at.pieces += 1;
        self.at.bytes += piece.len_in_file();
        self.checksum = self.checksum.map(|sum| crc32c::crc32c_append(sum, &piece.checksum.to_le_bytes()));
        Ok(Some(piece))
    }
}

impl Iterator for Pieces {
    type Item = io::Result<Piece>;

    fn next(&mut self) -> Option<io::Result<Piece>> {
        if self.failed {
            return None;
        }
        let next = self.read();
        self.failed = next.is_err();
        next.transpose()
    }
}

fn refused(path: &Path, error: &sealed::Error) -> io::Error {
    match error {
        sealed::Error::Version { found, supported } if found > supported => {
            let sentence = format!(
                "the snapshot {} has version {found}, and this program reads up to {supported}; run the newer program; if \
                 none ever ran here, the file is damaged",
                path.display()
            );
            io::Error::new(io::ErrorKind::InvalidData, sentence)
        }
        sealed::Error::Version { .. }
        | sealed::Error::Magic
        | sealed::Error::Length { .. }
        | sealed::Error::Checksum => damaged(path, &error.to_string()),
    }
}

fn damaged(path: &Path, what: &str) -> io::Error {
    let sentence = format!(
        "the snapshot {} is damaged: {what}; empty this member's data directory: it then comes back as a new member and is \
         replaced",
        path.display()
    );
    io::Error::new(io::ErrorKind::InvalidData, sentence)
}
