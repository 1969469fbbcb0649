//! What the targets share: seeds, checksums that are right again, and a world without time, tasks and network.
//!
//! ```text
//!   seeds ──▶ libFuzzer ──bytes──▶ target: takes them as the product does ──▶ refused, or good: then it must be itself
//!               ▲   │                 │
//!               └───┴── coverage ◀────┘
//! ```
//!
//! A target panics, and so ends the run, where the product panics, where bytes are taken for good that are not what writing
//! makes, or where what was taken does not come back as it was.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use coterie_env::mem::{MemDisk, SeededRandom};
use coterie_env::spawn::BoxFuture;
use coterie_env::{Clock, Disk as _, Env, Listener, Network, Spawn, Stream};

mod commands;
pub mod mend;

pub use commands::{directory, envelopes};

/// Where the seeds are to be written.
const SEEDS: &str = "COTERIE_FUZZ_SEEDS";

/// Writes a target's seeds and ends, if that is what the program was started for. They are made by the code that writes what
/// the target reads, so that none is of a form that is gone.
///
/// # Panics
/// If they cannot be written.
pub fn seeds(make: impl FnOnce() -> Vec<Vec<u8>>) {
    let Some(folder) = std::env::var_os(SEEDS).map(PathBuf::from) else { return };
    for (number, seed) in make().into_iter().enumerate() {
        std::fs::write(folder.join(format!("seed-{number:02}")), seed).expect("write a seed");
    }
    std::process::exit(0);
}

/// Takes parts off the front of an input.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// A byte; 0 at the end.
    pub fn byte(&mut self) -> u8 {
        let Some((byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *byte
    }

    /// As many bytes as two bytes say (little endian), or all that are left; `None` at the end. See [`framed`].
    pub fn part(&mut self) -> Option<&'a [u8]> {
        let (len, rest) = self.0.split_first_chunk::<2>()?;
        let (part, rest) = rest.split_at(rest.len().min(usize::from(u16::from_le_bytes(*len))));
        self.0 = rest;
        Some(part)
    }
}

/// A part as [`Input::part`] takes it.
///
/// # Panics
/// If it is longer than two bytes can say.
pub fn framed(part: &[u8]) -> Vec<u8> {
    let len = u16::try_from(part.len()).expect("parts of seeds are short");
    [&len.to_le_bytes(), part].concat()
}

/// The data directory on every disk.
pub const DIR: &str = "/data";

/// A world around a disk: chance from a seed, no time, nobody else, and nothing that is begun beside goes on.
pub fn still(disk: &MemDisk) -> Env {
    Env {
        clock: Arc::new(Still),
        random: Arc::new(SeededRandom::new(1)),
        disk: Arc::new(disk.clone()),
        network: Arc::new(Still),
        spawn: Arc::new(Still),
    }
}

struct Still;

impl Clock for Still {
    fn monotonic_ms(&self) -> u64 {
        1_000
    }

    fn wall_ms(&self) -> u64 {
        1_700_000_000_000
    }
}

impl Spawn for Still {
    fn spawn(&self, _name: &'static str, _task: BoxFuture) {}

    fn dedicated(&self, _name: &'static str, _task: BoxFuture) {}
}

#[async_trait::async_trait]
impl Network for Still {
    async fn connect(&self, _address: &str) -> std::io::Result<Box<dyn Stream>> {
        Err(std::io::ErrorKind::ConnectionRefused.into())
    }

    async fn listen(&self, _address: &str) -> std::io::Result<Box<dyn Listener>> {
        Ok(Box::new(Still))
    }
}

#[async_trait::async_trait]
impl Listener for Still {
    async fn accept(&mut self) -> std::io::Result<(Box<dyn Stream>, std::net::SocketAddr)> {
        std::future::pending().await
    }

    fn local_addr(&self) -> std::io::Result<std::net::SocketAddr> {
        Ok(([127, 0, 0, 1], 1).into())
    }
}

/// A disk with these files, all of them durable.
///
/// # Panics
/// Never: the disk is in memory.
pub fn disk_of(files: &[(&str, &[u8])]) -> MemDisk {
    let disk = MemDisk::new();
    for (name, content) in files {
        let path = Path::new(DIR).join(name);
        let folder = path.parent().expect("it is in the directory");
        disk.create_dir_all(folder).expect("make a folder in memory");
        let file = disk.open(&path).expect("make a file in memory");
        file.write_at(0, content).expect("write in memory");
        file.sync_data().expect("sync in memory");
        disk.sync_dir(folder).expect("sync in memory");
    }
    disk
}

/// Runs what blocks on nothing that is still.
///
/// # Panics
/// If there is no runtime to be had.
pub fn live<T>(life: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("build a runtime").block_on(life)
}
