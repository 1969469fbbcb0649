//! A machine's volume as its sidecar sees it: a disk in memory that tells the history of every snapshot that is put in its
//! place, and by whom, and of every write that it has no room for.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coterie_env::mem::MemDisk;
use coterie_env::{Disk, File, Lock};

use crate::history::{History, Snapshot};
use crate::world;

/// More than all files of a simulation have, and finite: what is left of it tells how many bytes they have.
const WHOLE: u64 = 1 << 50;

/// What lacks on a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// Nothing is free, it says; what is written is written all the same.
    Said,
    /// It holds so many bytes and not one more.
    Capacity(u64),
}

/// Bytes of all files of a disk that lacks nothing.
pub fn used(disk: &MemDisk) -> u64 {
    disk.set_capacity(WHOLE);
    disk.set_free_bytes(u64::MAX);
    let free = disk.free_bytes(Path::new("/")).expect("it was not told to fail");
    disk.set_capacity(u64::MAX);
    WHOLE - free
}

/// Makes a disk lack this, all of it at once, and nothing else.
pub fn lack(disk: &MemDisk, lacks: &[Lack]) {
    let capacity = |lack: &Lack| match lack {
        Lack::Capacity(bytes) => Some(*bytes),
        Lack::Said => None,
    };
    disk.set_capacity(lacks.iter().filter_map(capacity).min().unwrap_or(u64::MAX));
    disk.set_free_bytes(if lacks.contains(&Lack::Said) { 0 } else { u64::MAX });
}

/// The disk of a host, and who is told of its snapshots.
pub struct Volume {
    /// Its name.
    pub host: &'static str,
    /// Its disk.
    pub disk: MemDisk,
    /// Told of snapshots.
    pub history: History,
}

impl Disk for Volume {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let (host, history, path) = (self.host, self.history.clone(), path.to_owned());
        Ok(Arc::new(Watched { host, history, file: self.disk.open(&path)?, path }))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.disk.read(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)?;
        if to.extension().is_some_and(|extension| extension == "snap") {
            // One that is received has a thread of its own, as one that is made.
            let kind = if world::thread() == Some("snapshot-make") { Snapshot::Made } else { Snapshot::Installed };
            self.history.snapshot(self.host, kind, &to.display().to_string());
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.disk.list(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        self.disk.lock(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.disk.free_bytes(path)
    }
}

/// A file of a volume.
struct Watched {
    host: &'static str,
    history: History,
    path: PathBuf,
    file: Arc<dyn File>,
}

impl Watched {
    fn note<T>(&self, written: io::Result<T>) -> io::Result<T> {
        written.inspect_err(|error| {
            if error.kind() == io::ErrorKind::StorageFull {
                *self.history.seen().refused_writes.entry(self.host).or_default() += 1;
                self.history.note(self.host, &format!("NO ROOM {}", self.path.display()));
            }
        })
    }
}

impl File for Watched {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.note(self.file.write_at(offset, bytes))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, buffer)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.note(self.file.set_len(len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_lacks_room_takes_what_is_left_of_it_and_refuses_the_rest() {
        let disk = MemDisk::new();
        disk.create_dir_all(Path::new("/data")).expect("nothing is wrong yet");
        let file = disk.open(Path::new("/data/file")).expect("nothing is wrong yet");
        file.write_at(0, &[1; 100]).expect("nothing is wrong yet");
        assert_eq!(used(&disk), 100);
        lack(&disk, &[Lack::Said, Lack::Capacity(120), Lack::Capacity(110)]);
        assert_eq!(disk.free_bytes(Path::new("/data")).ok(), Some(0));
        let refused = file.write_at(100, &[1; 11]).expect_err("ten are left").kind();
        assert_eq!(refused, io::ErrorKind::StorageFull);
        file.write_at(100, &[1; 10]).expect("ten are left");
        lack(&disk, &[Lack::Said]);
        file.write_at(110, &[1; 100]).expect("it only says so");
        lack(&disk, &[]);
        assert!(disk.free_bytes(Path::new("/data")).is_ok_and(|free| free > WHOLE));
    }
}
