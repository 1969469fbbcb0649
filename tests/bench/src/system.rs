//! The systems that are compared, behind one face.

pub mod coterie;
pub mod etcd;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use coterie_core::config::builder::Timing;

use crate::fanout::Fanout;
use crate::load::{Part, Samples};

/// How long a member may take until it serves.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Keys that are written when the question is whether every key can be written, one per lane. In Coterie they lie in as
/// many maps, and so in every partition.
pub const LANES: usize = 12;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum System {
    /// etcd, as its release is.
    Etcd,
    /// This project.
    Coterie,
}

impl System {
    /// Its word in results.
    pub fn label(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Coterie => "coterie",
        }
    }
}

/// How to start a system.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Where everything of it goes; new and empty.
    pub directory: PathBuf,
    /// Whether members speak mTLS with each other. Clients never do.
    pub peer_tls: bool,
    /// The timers of Coterie's members.
    pub timing: Timing,
    /// The program of a member.
    pub program: PathBuf,
}

/// Three members of a system: real processes, with their data on disk.
#[async_trait]
pub trait Cluster: Send + Sync {
    /// The members' processes, by place.
    fn processes(&self) -> Result<Vec<u32>>;
    /// The member whose loss stops most writes.
    async fn leader(&self) -> Result<usize>;
    /// Ends a member with SIGKILL.
    async fn kill(&self, place: usize) -> Result<()>;
    /// Ends a member with SIGTERM, and waits until it is gone.
    async fn stop(&self, place: usize) -> Result<()>;
    /// Starts an ended member again, and waits until all members serve.
    async fn restart(&self, place: usize) -> Result<()>;
    /// A connection of its own to a member.
    async fn connect(&self, place: usize) -> Result<Arc<dyn Connection>>;
}

/// One connection to one member.
#[async_trait]
pub trait Connection: Send + Sync {
    /// Keeps all slots of a part busy until its window is over.
    async fn drive(&self, part: Part) -> Result<Samples>;
    /// Writes the key of a lane once, and waits at most `timeout`. Whether it was written.
    async fn write_lane(&self, lane: usize, timeout: Duration) -> Result<(), String>;
    /// Writes a key that watchers watch.
    async fn write_watched(&self, fanout: &Fanout, slot: usize, round: u64) -> Result<(), String>;
    /// Starts this many watchers of all watched keys, and returns when they watch; they tell `fanout` what they see, until
    /// the connection is dropped.
    async fn watch(&self, watchers: usize, fanout: Arc<Fanout>) -> Result<()>;
}

/// Starts a system; it serves when this returns.
pub async fn start(system: System, setup: &Setup) -> Result<Box<dyn Cluster>> {
    Ok(match system {
        System::Etcd => Box::new(etcd::Members::start(setup).await?),
        System::Coterie => Box::new(coterie::Members::start(setup).await?),
    })
}

/// A file or directory as the argument of a program.
fn argument(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
