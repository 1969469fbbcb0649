//! Files of the operating system.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, File, Lock};

/// The file system of this machine.
pub(super) struct SystemDisk;

impl Disk for SystemDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(SystemFile(open(path)?)))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut entries = fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        entries.sort();
        Ok(entries)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let file = open(path)?;
        file.try_lock().map_err(io::Error::from)?;
        Ok(Box::new(SystemLock { _file: file }))
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let found = rustix::fs::statvfs(path)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }
}

fn open(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

struct SystemFile(fs::File);

impl File for SystemFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
}

/// An advisory lock (`flock`): the kernel releases it when the process dies, however it dies.
struct SystemLock {
    _file: fs::File,
}

impl Lock for SystemLock {}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;

    #[test]
    fn files_are_written_read_renamed_and_listed() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        let file = SystemDisk.open(&a).unwrap();
        file.write_at(3, b"xyz").unwrap();
        file.sync_data().unwrap();
        assert_eq!(file.len().unwrap(), 6);
        let mut read = [1; 4];
        file.read_at(1, &mut read).unwrap();
        assert_eq!(&read, b"\0\0xy");
        assert_eq!(file.read_at(4, &mut read).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        crate::disk::replace(&SystemDisk, &b, b"whole").unwrap();
        assert_eq!(SystemDisk.list(folder.path()).unwrap(), vec![a.clone(), b.clone()]);
        SystemDisk.rename(&b, &a).unwrap();
        assert_eq!(SystemDisk.read(&a).unwrap(), b"whole");
        SystemDisk.remove(&a).unwrap();
        SystemDisk.sync_dir(folder.path()).unwrap();
        assert_eq!(SystemDisk.read(&a).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(SystemDisk.free_bytes(folder.path()).unwrap() > 0);
        SystemDisk.remove_dir_all(&folder.path().join("missing")).unwrap();
    }

    #[test]
    fn a_locked_file_is_refused_until_the_lock_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("LOCK");
        let held = SystemDisk.lock(&path).unwrap();
        assert_eq!(SystemDisk.lock(&path).err().unwrap().kind(), io::ErrorKind::WouldBlock);
        drop(held);
        SystemDisk.lock(&path).unwrap();
    }
}
