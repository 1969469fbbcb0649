//! Files. All calls block; whoever must not block calls them from a thread of its own ([`crate::Spawn::dedicated`]).
//!
//! What is written is durable only after [`File::sync_data`]; a file that was created or renamed is durable only after
//! [`Disk::sync_dir`] of its folder. An implementation may lose everything else in a crash, and the simulator's does.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file system.
pub trait Disk: Send + Sync + 'static {
    /// Makes a folder and its parents; no error if it is there.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Opens a file for reading and writing; makes it, empty, if it is missing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// The whole content of a file. `NotFound` if there is none.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Renames a file over another, atomically within one folder.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. `NotFound` if there is none.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes a folder with all that is in it; no error if it is missing.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// The entries of a folder, sorted by name.
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>>;
    /// Makes creations, renames and removals in a folder durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Locks a file against every other process until the lock is dropped. `WouldBlock` if somebody else holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>>;
    /// Bytes that can still be written to the file system of `path`.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
}

/// An open file.
pub trait File: Send + Sync + 'static {
    /// Writes all of `bytes` at `offset`; the file grows as needed.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Fills `buffer` from `offset`, or fails with `UnexpectedEof`.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Makes everything written so far durable, and the file's length.
    fn sync_data(&self) -> io::Result<()>;
    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Cuts or extends (with zeros) the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Whether the file holds no byte.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// A held lock; dropping it releases it.
pub trait Lock: Send + Sync + 'static {}

/// Writes a whole small file so that after a crash it holds either the old content or the new: written beside, synced,
/// renamed, and the folder synced.
pub fn replace(disk: &dyn Disk, path: &Path, content: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".tmp");
    let beside = PathBuf::from(beside);
    let file = disk.open(&beside)?;
    file.set_len(0)?;
    file.write_at(0, content)?;
    file.sync_data()?;
    drop(file);
    disk.rename(&beside, path)?;
    match path.parent() {
        Some(folder) => disk.sync_dir(folder),
        None => Ok(()),
    }
}
