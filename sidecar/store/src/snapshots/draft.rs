//! A snapshot that is being made.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coterie_env::{Disk, File, Spawn};

use super::Snapshots;
use super::format::{HEAD, Label, Piece, Place, VERSION};
use super::give_back::give_back;
use super::stored::Stored;
use crate::limits::SNAPSHOT_SYNC_BYTES;
use crate::sealed;

/// A snapshot that is being made, or that somebody sends.
pub struct Draft {
    disk: Arc<dyn Disk>,
    spawn: Arc<dyn Spawn>,
    file: Arc<dyn File>,
    path: PathBuf,
    target: PathBuf,
    /// Bytes of the head.
    head: u64,
    /// Of what is written.
    label: Label,
    unsynced: u64,
}

impl Draft {
    pub(super) fn begin(of: &Snapshots, path: PathBuf, target: PathBuf, meta: &[u8]) -> io::Result<Self> {
        let (disk, spawn) = (of.disk.clone(), of.spawn.clone());
        let file = disk.open(&path)?;
        file.set_len(0)?;
        let head = sealed::seal(HEAD, VERSION, meta);
        file.write_at(0, &head)?;
        let label = Label { meta: meta.to_vec(), pieces: 0, bytes: 0, checksum: 0 };
        Ok(Draft { disk, spawn, file, path, target, head: head.len() as u64, label, unsynced: 0 })
    }

    /// Writes the next piece. Every [`SNAPSHOT_SYNC_BYTES`] it syncs, so that nothing else waits for long behind what is
    /// written.
    ///
    /// `InvalidData` if the piece is not whole or not the next; then nothing is written.
    pub fn push(&mut self, piece: &Piece) -> io::Result<()> {
        if !piece.is_whole(self.label.pieces) {
            let sentence = format!("piece {} of a snapshot is damaged, or is another one", self.label.pieces);
            return Err(io::Error::new(io::ErrorKind::InvalidData, sentence));
        }
        self.file.write_at(self.head + self.label.bytes, &piece.in_file())?;
        self.label.add(piece);
        self.unsynced += piece.len_in_file();
        if self.unsynced >= SNAPSHOT_SYNC_BYTES { self.sync() } else { Ok(()) }
    }

    /// Makes durable what is written, and says how much that is.
    pub fn durable(&mut self) -> io::Result<Place> {
        if self.unsynced > 0 {
            self.sync()?;
        }
        Ok(self.label.end())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        self.unsynced = 0;
        Ok(())
    }

    /// What it is so far.
    pub fn label(&self) -> &Label {
        &self.label
    }

    /// All pieces are written: ends the file, durably. It does not count before [`Finished::publish`].
    pub fn finish(self) -> io::Result<Finished> {
        let Draft { disk, spawn, file, path, target, head, label, unsynced: _ } = self;
        file.write_at(head + label.bytes, &label.end_frame())?;
        file.sync_data()?;
        Ok(Finished { stored: Stored::new(file, &target, head, label, spawn), disk, path, target })
    }

    /// Removes it.
    pub fn discard(self) -> io::Result<()> {
        self.disk.remove(&self.path)?;
        give_back(self.file.as_ref());
        Ok(())
    }
}

/// A snapshot that is whole and does not count yet.
pub struct Finished {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    target: PathBuf,
    stored: Stored,
}

impl Finished {
    /// What it will be.
    pub fn stored(&self) -> &Stored {
        &self.stored
    }

    /// Puts it in the place of the snapshot before: durable when this returns, the old one whole until then.
    pub fn publish(self) -> io::Result<Stored> {
        self.disk.rename(&self.path, &self.target)?;
        self.disk.sync_dir(self.target.parent().unwrap_or(Path::new("")))?;
        Ok(self.stored)
    }

    /// Removes it.
    pub fn discard(self) -> io::Result<()> {
        self.disk.remove(&self.path)?;
        self.stored.give_back();
        Ok(())
    }
}
