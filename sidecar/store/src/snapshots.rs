//! Snapshots: per partition one file, written piece by piece and replaced as a whole.
//!
//! ```text
//!   begin ──▶ Draft ──push, push, …──▶ finish ──▶ Finished ──publish──▶ Stored ──pieces──▶ Pieces
//!             <p>.tmp, synced as it grows          sealed, synced        renamed over <p>.snap, folder synced
//! ```
//! Once nobody holds the one that was replaced, its bytes go back to the volume step by step.
//!
//! After a crash there is the old one or the new one, whole; what was half made is removed at the next start. So a
//! partition never has more than its snapshot and one that is being made, or that another member sends; and, until that is
//! given back, the one before.
//!
//! ```text
//!   head    a frame (`sealed`) with the meta data
//!   pieces  each: length u32 | crc32c u32, of its number, its length and its bytes | bytes
//!   end     a frame with the number of pieces, their bytes in the file, and a checksum of all their checksums
//! ```
//! Head and end are checked when the file is opened, and each piece when it is read. A piece that is damaged, missing or
//! at another place is an error of whoever reads; nothing behind it is given.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coterie_env::{Disk, Env, Spawn};

mod draft;
mod format;
mod give_back;
mod stored;

use give_back::give_back;

pub use draft::{Draft, Finished};
pub use format::{Label, Piece, Place};
pub use stored::{Held, Pieces, Stored};

/// More than frames and meta data have.
const FRAMES_BYTES_MAX: u64 = 128 << 10;

/// The snapshots of a data directory. All calls block.
pub struct Snapshots {
    disk: Arc<dyn Disk>,
    spawn: Arc<dyn Spawn>,
    folder: PathBuf,
}

impl Snapshots {
    /// Opens the snapshots of a data directory (its folder `snap`, made if it is missing) and removes what a crash left
    /// half made.
    pub fn new(env: &Env, dir: &Path) -> io::Result<Self> {
        let folder = dir.join("snap");
        env.disk.create_dir_all(&folder)?;
        env.disk.sync_dir(dir)?;
        for path in env.disk.list(&folder)? {
            if path.extension().is_some_and(|extension| extension == "tmp") {
                env.disk.remove(&path)?;
            }
        }
        Ok(Snapshots { disk: env.disk.clone(), spawn: env.spawn.clone(), folder })
    }

    /// Begins a snapshot of a partition with this meta data, in place of one that was begun before. The caller begins no
    /// second one of a partition while it uses the first.
    pub fn begin(&self, partition: &str, meta: &[u8]) -> io::Result<Draft> {
        Draft::begin(self, self.path(partition, "tmp"), self.path(partition, "snap"), meta)
    }

    /// A partition's snapshot; `None` if there is none. `InvalidData` with a sentence if its head or its end is damaged,
    /// or if another version of this program wrote it.
    pub fn open(&self, partition: &str) -> io::Result<Option<Stored>> {
        let path = self.path(partition, "snap");
        if !self.disk.list(&self.folder)?.contains(&path) {
            return Ok(None);
        }
        Stored::open(self.disk.open(&path)?, &path, &self.spawn).map(Some)
    }

    /// Whether the volume has room for one of this many bytes beside the old one.
    pub fn has_room(&self, bytes: u64) -> io::Result<bool> {
        Ok(self.disk.free_bytes(&self.folder)? >= bytes.saturating_add(FRAMES_BYTES_MAX))
    }

    /// Removes a partition's snapshot durably, and what was begun of one; no error if there is none. Nobody reads it any
    /// longer.
    pub fn remove(&self, partition: &str) -> io::Result<()> {
        let there = self.disk.list(&self.folder)?;
        let mut removed = Vec::new();
        for path in ["tmp", "snap"].map(|extension| self.path(partition, extension)) {
            if there.contains(&path) {
                removed.push(self.disk.open(&path)?);
                self.disk.remove(&path)?;
            }
        }
        self.disk.sync_dir(&self.folder)?;
        if !removed.is_empty() {
            let free = async move { removed.iter().for_each(|file| give_back(file.as_ref())) };
            self.spawn.dedicated(give_back::THREAD, Box::pin(free));
        }
        Ok(())
    }

    /// A file name for any partition name: what is not a letter, a digit, `-` or `_` becomes `%` and its hexadecimal
    /// bytes.
    fn path(&self, partition: &str, extension: &str) -> PathBuf {
        let mut name = String::with_capacity(partition.len() + 5);
        for byte in partition.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(byte)),
                other => name.push_str(&format!("%{other:02x}")),
            }
        }
        self.folder.join(format!("{name}.{extension}"))
    }
}
