//! One replica of one partition, as the rest of the sidecar uses it.

use std::sync::Arc;
use std::time::Duration;

use coterie_core::machine::Machine;
use coterie_core::{EventId, MemberName, NodeId, PartitionId, Primitive};
use coterie_env::Env;
use coterie_store::log::Log;
use coterie_store::snapshots::Snapshots;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::Fatal;
use tokio::sync::{Mutex, watch};

use crate::admission::Admission;
use crate::key::storage_key;
use crate::lease::{Lease, Restarted};
use crate::log_storage::LogStorage;
use crate::network::Network;
use crate::proposer::Proposer;
use crate::replica::{Progress, Replica, SnapshotPolicy, State};
use crate::room::Rooms;
use crate::runtime::seeded;
use crate::snapshots::{LoadError, SnapshotFile};
use crate::state_machine::StateMachine;
use crate::ticker::Ticker;
use crate::timing::{self, Timing};
use crate::transport::Transport;
use crate::types::{Raft, StoredMembership, TypeConfig};
use crate::watch::Watcher;

mod form;
#[cfg(feature = "sim")]
mod inspect;
mod leadership;
mod maintain;
mod membership;
mod messages;
mod propose;
mod read;
mod reconfigure;

#[cfg(feature = "sim")]
pub use inspect::LogEntry;
pub use leadership::Leadership;
pub use membership::{Membership, ReplicaStatus};
pub use propose::ProposeError;
pub use read::{Read, ReadKind};

/// Applied commands after which a snapshot is taken, by default: replaying as many takes well under a second.
pub const SNAPSHOT_ENTRIES: u64 = 100_000;
/// Bytes of applied bodies after which a snapshot is taken whatever their number: bounds the log on disk.
const SNAPSHOT_BYTES: u64 = 32 * 1024 * 1024;

/// What a replica is made of.
pub struct Options {
    /// The world.
    pub env: Env,
    /// The partition.
    pub id: PartitionId,
    /// This member's identity (D14).
    pub node: NodeId,
    /// This member's name.
    pub member: MemberName,
    /// The partition group's generation ([`coterie_core::command::PartitionGroupRecord::generation`]); 0 for the
    /// management group. Replicas of different generations do not understand each other.
    pub generation: u64,
    /// The process's log.
    pub log: Log,
    /// The process's snapshots.
    pub snapshots: Arc<Snapshots>,
    /// The way to the other replicas.
    pub transport: Arc<dyn Transport>,
    /// The process's timer; of the same [`Timing`] on all replicas.
    pub ticker: Ticker,
    /// Applied commands after which a snapshot is taken; [`SNAPSHOT_ENTRIES`] unless there is a reason.
    pub snapshot_entries: u64,
}

/// Why a replica cannot be opened or formed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log's mark cannot be read or was written by a newer program.
    #[error("read the log of {0}")]
    ReadLog(PartitionId, #[source] std::io::Error),
    /// The snapshot cannot be read or was written by a newer program.
    #[error("read the snapshot of {0}")]
    ReadSnapshot(PartitionId, #[source] std::io::Error),
    /// The snapshot holds a state that this program does not understand.
    #[error("restore the snapshot of {0}")]
    RestoreSnapshot(PartitionId, #[source] coterie_core::command::Error),
    /// The timers contradict each other.
    #[error("check the timers")]
    Timing(#[source] openraft::ConfigError),
    /// Raft cannot start on what the store holds.
    #[error("start raft for {0}")]
    Start(PartitionId, #[source] Fatal<TypeConfig>),
    /// The list of seats lacks this member's identity.
    #[error("form {0}: this member is not among the seats")]
    NotASeat(PartitionId),
    /// Raft refused the first membership.
    #[error("form {0}: {1}")]
    Form(PartitionId, String),
}

/// A replica. Clones are the same replica.
#[derive(Clone)]
pub struct Partition {
    inner: Arc<Inner>,
}

struct Inner {
    env: Env,
    id: PartitionId,
    node: NodeId,
    member: MemberName,
    generation: u64,
    timing: Timing,
    raft: Raft,
    replica: Arc<Replica>,
    log: LogStorage,
    file: SnapshotFile,
    admission: Arc<Admission>,
    proposer: Arc<Proposer>,
    rooms: Arc<Rooms>,
    lease: Arc<Lease>,
    restarted: Restarted,
    leadership: watch::Receiver<Leadership>,
    closing: watch::Sender<bool>,
    /// Held by the one call that changes the membership.
    reconfiguring: Mutex<()>,
}

impl std::fmt::Debug for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Partition").field("id", &self.inner.id).field("node", &self.inner.node).finish_non_exhaustive()
    }
}

impl Partition {
    /// Opens the replica with what the store holds of it: the snapshot, then the committed part of the log. A replica
    /// that was never formed waits for [`Partition::form`], or for a leader that was formed with it.
    pub async fn open(options: Options) -> Result<Self, Error> {
        let Options { env, id, node, member, generation, log, snapshots, transport, ticker, snapshot_entries } =
            options;
        let timing = ticker.timing();
        let key = storage_key(&id, generation);
        let log = LogStorage::open(log.partition(&key)).map_err(|source| Error::ReadLog(id.clone(), source))?;
        let file = SnapshotFile::new(env.clone(), snapshots, &key);
        let state = restore(&id, generation, &file).await?;
        let state_is_pristine = state.last.is_none();
        let policy = SnapshotPolicy { entries: snapshot_entries, bytes: SNAPSHOT_BYTES };
        let replica = Replica::new(env.clone(), state, policy);
        if file.current().is_some() {
            replica.note_snapshot(file.bytes());
        }
        let config = timing::config(format!("{id} on {member}"), &timing).map_err(Error::Timing)?;
        let rooms: Arc<Rooms> = Arc::default();
        let lease = Arc::new(Lease::new(timing.lease(), &*env.clock));
        let is_new = log.is_pristine() && state_is_pristine;
        let restarted = if is_new { Restarted::never() } else { Restarted::now() };
        let hands_over = leadership::HandsOver { own: node.0, rooms: rooms.clone() };
        let network = Network {
            transport,
            partition: id.clone(),
            generation,
            append_timeout: timing.append_timeout(),
            rooms: rooms.clone(),
            lease: lease.clone(),
            file: file.clone(),
            env: env.clone(),
        };
        let machine = StateMachine::new(replica.clone(), file.clone());
        let start = Raft::new(node.0, Arc::new(config), network, log.clone(), machine);
        let raft = seeded(&env, Box::pin(start)).await.map_err(|source| Error::Start(id.clone(), source))?;

        let (closing, closed) = watch::channel(false);
        let times = leadership::Times { timing, ticker, restarted };
        let leadership = leadership::spawn(&env, raft.clone(), replica.clone(), times, hands_over, closed.clone());
        maintain::spawn(&env, raft.clone(), replica.clone(), file.clone(), closed);
        let admission = Arc::default();
        let proposer = Proposer::start(&env, raft.clone(), node.0, timing.lease(), closing.subscribe());
        let inner = Inner {
            env,
            id,
            node,
            member,
            generation,
            timing,
            raft,
            replica,
            log,
            file,
            admission,
            proposer,
            rooms,
            lease,
            restarted,
            leadership,
            closing,
            reconfiguring: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The partition.
    pub fn id(&self) -> &PartitionId {
        &self.inner.id
    }

    /// Raft's timers.
    pub fn timing(&self) -> Timing {
        self.inner.timing
    }

    /// The generation that this is a replica of.
    pub fn generation(&self) -> u64 {
        self.inner.generation
    }

    /// Runs `f` on the applied state, while nothing is applied: keep it short, and do not call back into the partition.
    pub fn with_machine<R>(&self, f: impl FnOnce(&Machine) -> R) -> R {
        f(&self.inner.replica.state().machine)
    }

    /// Watches a primitive from after an event, or from now on. The first item says where it starts: see
    /// [`crate::WatchItem`]. An event to resume after that this replica has not applied yet is waited for.
    pub fn watch(&self, of: &Primitive, after: Option<EventId>) -> Watcher {
        Watcher::new(self.inner.replica.clone(), of, after)
    }

    /// How far it has come, as it goes on.
    pub fn applied(&self) -> watch::Receiver<Progress> {
        self.inner.replica.applied()
    }

    /// While this replica leads: up to which index the replica of `node` has said that it holds the log, durably. `None`
    /// if it does not lead, or `node` has not said anything yet.
    pub fn held_by(&self, node: NodeId) -> Option<u64> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let held = metrics.replication.as_ref()?.get(&node.0)?.as_ref()?;
        Some(held.index())
    }

    /// Why this replica works no more (a failed disk, a panic): it must be reported, and the process restarted or the
    /// member replaced. `None` while it works, and after [`Partition::shutdown`].
    pub fn failed(&self) -> Option<String> {
        if *self.inner.closing.borrow() {
            return None;
        }
        let metrics = self.inner.raft.metrics();
        let running = &metrics.borrow_watched().running_state;
        running.as_ref().err().map(ToString::to_string)
    }

    /// Stops the replica; proposals and reads that wait get an error, watchers the end. Nothing that was acknowledged is
    /// lost. Call [`Partition::transfer_away`] before, unless it is urgent.
    pub async fn shutdown(&self) {
        self.inner.closing.send_replace(true);
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::error!(partition = %self.inner.id, %error, "stop raft");
        }
        self.inner.file.close().await;
        self.inner.replica.with_state_and_hub(|_, hub| hub.close());
    }

    fn shutting_down(&self) -> bool {
        *self.inner.closing.borrow()
    }
}

async fn restore(id: &PartitionId, generation: u64, file: &SnapshotFile) -> Result<State, Error> {
    let loaded = file.load().await.map_err(|error| match error {
        LoadError::Read(source) => Error::ReadSnapshot(id.clone(), source),
        LoadError::Restore(source) => Error::RestoreSnapshot(id.clone(), source),
    })?;
    match loaded {
        Some((meta, machine)) => Ok(State { machine, last: meta.last_log_id, membership: meta.last_membership }),
        None => Ok(State { machine: pristine(id, generation), last: None, membership: StoredMembership::default() }),
    }
}

fn pristine(id: &PartitionId, generation: u64) -> Machine {
    if id.group.is_system() { Machine::management() } else { Machine::new(generation) }
}

/// What is left of a time-out that began at `since`.
fn left(since: tokio::time::Instant, timeout: Duration) -> Duration {
    timeout.saturating_sub(since.elapsed())
}
