//! A log on a disk in memory, run by the test's own thread: the writer moves only while the test awaits.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use coterie_env::mem::{MemDisk, SeededRandom};
use coterie_env::spawn::BoxFuture;
use coterie_env::{Disk, Env, Spawn};
use coterie_store::log::{Error, Options};
use coterie_store::{Log, PartitionLog};
use tokio::sync::oneshot;

pub const DIR: &str = "/data";

struct TaskSpawn;

impl Spawn for TaskSpawn {
    fn spawn(&self, _name: &'static str, task: BoxFuture) {
        tokio::spawn(task);
    }

    fn dedicated(&self, _name: &'static str, task: BoxFuture) {
        tokio::spawn(task);
    }
}

pub fn env(disk: &MemDisk, seed: u64) -> Env {
    Env {
        disk: Arc::new(disk.clone()),
        random: Arc::new(SeededRandom::new(seed)),
        spawn: Arc::new(TaskSpawn),
        ..coterie_env::real()
    }
}

/// One life of the process: when it ends, its tasks are gone in the middle of whatever they did.
pub fn live<T>(life: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(life)
}

pub fn small() -> Options {
    Options { segment_bytes: 4096, cache_bytes: 2048, ..Options::default() }
}

pub fn disk() -> MemDisk {
    let disk = MemDisk::new();
    disk.create_dir_all(Path::new(DIR)).unwrap();
    disk
}

pub fn open(disk: &MemDisk) -> Result<Log, Error> {
    Log::open(&env(disk, 1), Path::new(DIR), small())
}

pub fn bytes(content: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(content.as_ref())
}

/// Appends entries that say their index, and waits for the flush.
pub async fn append(log: &PartitionLog, indexes: impl IntoIterator<Item = u64>) -> io::Result<()> {
    let entries = indexes.into_iter().map(|index| (index, bytes(format!("entry {index}")))).collect();
    append_now(log, entries).await.unwrap()
}

/// Appends, and returns what becomes ready after the flush.
pub fn append_now(log: &PartitionLog, entries: Vec<(u64, Bytes)>) -> oneshot::Receiver<io::Result<()>> {
    let (sender, receiver) = oneshot::channel();
    log.append(entries, Box::new(move |result| drop(sender.send(result))));
    receiver
}

pub fn indexes(log: &PartitionLog) -> Vec<u64> {
    log.read(.., usize::MAX).unwrap().into_iter().map(|(index, _)| index).collect()
}

/// Lets the writer do all that it has to do.
pub async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// Waits until this holds, which the writer makes true.
pub async fn until(holds: impl Fn() -> bool) {
    let waited = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), waited).await.unwrap();
}

/// The segments' files.
pub fn segments(disk: &MemDisk) -> Vec<PathBuf> {
    let files = disk.list(&Path::new(DIR).join("wal")).unwrap();
    files.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "seg")).collect()
}

/// Where batches begin in a segment, and where the records of each end; without those of a former life of the file.
pub fn batches(segment: &[u8]) -> Vec<std::ops::Range<usize>> {
    let first = number_at(segment, 24);
    all_batches(segment).filter(|at| number_at(segment, at.start + 8) >= first).collect()
}

/// Also those of a former life of the file.
pub fn all_batches(segment: &[u8]) -> impl Iterator<Item = std::ops::Range<usize>> {
    let starts = (512..segment.len()).step_by(512).filter(|at| segment[*at..].starts_with(b"BATH"));
    starts.map(|at| {
        let len = u32::from_le_bytes(segment[at + 4..at + 8].try_into().unwrap());
        at..at + 20 + len as usize
    })
}

fn number_at(segment: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(segment[offset..offset + 8].try_into().unwrap())
}

/// Writes bytes to a file behind the log's back, durably.
pub fn overwrite(disk: &MemDisk, path: &Path, offset: usize, content: &[u8]) {
    let file = disk.open(path).unwrap();
    file.write_at(offset as u64, content).unwrap();
    file.sync_data().unwrap();
}

/// A list that completions write to.
#[derive(Clone, Default)]
pub struct Journal(Arc<Mutex<Vec<String>>>);

impl Journal {
    pub fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    pub fn read(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}
