//! Snapshots: per partition one file, replaced as a whole.
//!
//! A snapshot is written beside, synced, renamed over the old one, and the folder synced: after a crash there is the
//! old one or the new one, whole. Its checksum is verified at every load.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use coterie_env::{Disk, Env, disk};

use crate::sealed;

/// The version of the frame that this program writes.
const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"cotersnp";
/// More than frame and meta data have.
const HEADERS_BYTES_MAX: u64 = 64 << 10;

/// The snapshots of a data directory. All calls block.
pub struct Snapshots {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    /// Two writers of one partition would share the file that is written beside.
    writing: Mutex<()>,
}

impl Snapshots {
    /// Opens the snapshots of a data directory (its folder `snap`, made if it is missing) and removes what a crash left
    /// half written.
    pub fn new(env: &Env, dir: &Path) -> io::Result<Self> {
        let folder = dir.join("snap");
        env.disk.create_dir_all(&folder)?;
        env.disk.sync_dir(dir)?;
        for path in env.disk.list(&folder)? {
            if path.extension().is_some_and(|extension| extension == "tmp") {
                env.disk.remove(&path)?;
            }
        }
        Ok(Snapshots { disk: env.disk.clone(), folder, writing: Mutex::new(()) })
    }

    /// Replaces the snapshot of a partition: durable when this returns, the old one whole until then.
    pub fn save(&self, partition: &str, meta: &[u8], data: &[u8]) -> io::Result<()> {
        let mut body = Vec::with_capacity(8 + meta.len() + data.len());
        body.extend_from_slice(&(meta.len() as u64).to_le_bytes());
        body.extend_from_slice(meta);
        body.extend_from_slice(data);
        let sealed = sealed::seal(MAGIC, VERSION, &body);
        drop(body);
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        disk::replace(self.disk.as_ref(), &self.path(partition), &sealed)
    }

    /// Whether the volume has room for one of this many bytes beside the old one. A snapshot that is begun and does not
    /// fit ends a Raft instance.
    pub fn has_room(&self, bytes: u64) -> io::Result<bool> {
        Ok(self.disk.free_bytes(&self.folder)? >= bytes.saturating_add(HEADERS_BYTES_MAX))
    }

    /// The meta data and the data of a partition's snapshot, checked; `None` if there is none. `InvalidData` with a
    /// sentence if it is damaged or of a newer program.
    pub fn load(&self, partition: &str) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
        let path = self.path(partition);
        let sealed = match self.disk.read(&path) {
            Ok(sealed) => sealed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let refused = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        let damaged = |what: String| {
            refused(format!(
                "the snapshot {} is damaged: {what}; empty this member's data directory: it then comes back as a new \
                 member and is replaced",
                path.display()
            ))
        };
        let (_version, body) = sealed::open(MAGIC, VERSION, &sealed).map_err(|error| match error {
            sealed::Error::Version { found, supported } => refused(format!(
                "the snapshot {} has version {found}, and this program reads up to {supported}; run the newer program; \
                 if none ever ran here, the file is damaged",
                path.display()
            )),
            error @ (sealed::Error::Magic | sealed::Error::Length { .. } | sealed::Error::Checksum) => {
                damaged(error.to_string())
            }
        })?;
        match split(body) {
            Some((meta, data)) => Ok(Some((meta.to_vec(), data.to_vec()))),
            None => Err(damaged("its meta data is longer than itself".to_owned())),
        }
    }

    /// Removes a partition's snapshot durably; no error if there is none.
    pub fn remove(&self, partition: &str) -> io::Result<()> {
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        match self.disk.remove(&self.path(partition)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => self.disk.sync_dir(&self.folder),
        }
    }

    /// A file name for any partition name: what is not a letter, a digit, `-` or `_` becomes `%` and its hexadecimal
    /// bytes.
    fn path(&self, partition: &str) -> PathBuf {
        let mut name = String::with_capacity(partition.len() + 5);
        for byte in partition.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(byte)),
                other => name.push_str(&format!("%{other:02x}")),
            }
        }
        self.folder.join(name + ".snap")
    }
}

fn split(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = body.split_at_checked(8)?;
    let length = u64::from_le_bytes(length.try_into().expect("eight bytes"));
    rest.split_at_checked(usize::try_from(length).ok()?)
}
