//! Holding sessions.

mod keep_alives;
mod plan;
mod releases;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use coterie_core::command::{Command, Reply};
use coterie_core::{ErrorCode, MemberName, PartitionId, Rejection, SessionId};
use coterie_env::Env;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use self::plan::Opened;
pub use self::releases::{Heard, Releases};
use super::RATE_MARGIN;
use crate::deadline::Deadline;
use crate::directory::Directory;
use crate::partitions::Partitions;
use crate::peers::client::Peers;
use crate::router::Router;
use crate::sessions::keeper::Keepers;

/// What a session is to its holder (S38).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionState {
    /// Kept alive in time.
    Live,
    /// Not confirmed in time: what is seen may be stale; it may become live again or lost.
    Suspended,
    /// Ended: what it held is released.
    Lost,
}

/// A session's state and how long it surely counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionStatus {
    /// The state.
    pub state: SessionState,
    /// By the monotonic clock, in milliseconds: until then nobody else is granted what this session holds.
    pub valid_until_ms: u64,
}

impl SessionStatus {
    /// The state to tell at this time. One that was not kept alive in time is suspended, also if whoever would have noticed
    /// stood still.
    pub fn at(&self, now_ms: u64) -> SessionState {
        match self.state {
            SessionState::Live if self.valid_until_ms <= now_ms => SessionState::Suspended,
            state => state,
        }
    }
}

/// One session. Cheap to clone.
#[derive(Clone)]
pub struct Session {
    partition: PartitionId,
    id: SessionId,
    status: watch::Receiver<SessionStatus>,
    releases: Arc<Releases>,
    opened: mpsc::UnboundedSender<Opened>,
}

impl Session {
    /// Its id on its partition.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Its status, followed.
    pub fn status(&self) -> watch::Receiver<SessionStatus> {
        self.status.clone()
    }

    /// The leaders that it carries, as far as they are asked to release.
    pub fn releases(&self) -> &Releases {
        &self.releases
    }

    /// Keeps it alive at once: the partition's leader waits for word of a release.
    pub fn hurry(&self) {
        // An error: the process stops.
        let _ = self.opened.send(Opened { partition: self.partition.clone(), id: self.id, is_new: false });
    }
}

/// The sessions of this sidecar. Cheap to clone.
#[derive(Clone)]
pub struct Sessions(Arc<Inner>);

struct Inner {
    env: Env,
    own: MemberName,
    incarnation: u64,
    ttl_ms: u64,
    router: Router,
    directory: Directory,
    partitions: Partitions,
    keepers: Keepers,
    peers: Peers,
    table: Mutex<Table>,
    /// To the one that keeps them alive: as many as are held at most, as it takes them at once.
    opened: mpsc::UnboundedSender<Opened>,
    stopping: CancellationToken,
}

#[derive(Default)]
struct Table {
    sessions: BTreeMap<PartitionId, Held>,
    /// One at a time is opened on each partition.
    opening: BTreeMap<PartitionId, Arc<tokio::sync::Mutex<()>>>,
    /// None is held any more.
    closed: bool,
}

struct Held {
    session: Session,
    status: watch::Sender<SessionStatus>,
}

impl Held {
    /// Nothing is vouched for any more.
    fn lose(&self, now_ms: u64) {
        self.status.send_replace(SessionStatus { state: SessionState::Lost, valid_until_ms: now_ms });
    }
}

/// What [`Sessions`] is made of.
pub struct Parts {
    /// The world.
    pub env: Env,
    /// This member.
    pub own: MemberName,
    /// Its run.
    pub incarnation: u64,
    /// The time-out of its sessions.
    pub ttl_ms: u64,
    /// For opening.
    pub router: Router,
    /// Where leaders are.
    pub directory: Directory,
    /// Local replicas.
    pub partitions: Partitions,
    /// Their timers.
    pub keepers: Keepers,
    /// Calls.
    pub peers: Peers,
    /// The end of the process.
    pub stopping: CancellationToken,
}

impl Sessions {
    /// No session yet. Starts the task that keeps them alive.
    pub fn new(parts: Parts) -> Self {
        let Parts { env, own, incarnation, ttl_ms, router, directory, partitions, keepers, peers, stopping } = parts;
        let (opened, receiver) = mpsc::unbounded_channel();
        let spawn = env.spawn.clone();
        let sessions = Self(Arc::new(Inner {
            env,
            own,
            incarnation,
            ttl_ms,
            router,
            directory,
            partitions,
            keepers,
            peers,
            table: Mutex::default(),
            opened,
            stopping,
        }));
        let this = sessions.clone();
        let keeping = async move {
            keep_alives::run(&this, receiver).await;
            // Whoever follows one hears that it has ended.
            let mut table = this.lock();
            table.closed = true;
            table.sessions.clear();
        };
        spawn.spawn("sessions", Box::pin(keeping));
        sessions
    }

    /// The session on a partition; opened if there is none, or if the one that was is lost.
    pub async fn hold(&self, partition: &PartitionId, deadline: Deadline) -> Result<Session, Rejection> {
        if let Some(session) = self.held(partition) {
            return Ok(session);
        }
        let opening = self.lock().opening.entry(partition.clone()).or_default().clone();
        let waiting = tokio::time::timeout(deadline.remaining(&self.0.env), opening.lock()).await;
        let _one_at_a_time = waiting.map_err(|_| {
            Rejection::new(ErrorCode::NoQuorum, format!("no session on partition {partition} could be opened in time"))
        })?;
        if let Some(session) = self.held(partition) {
            return Ok(session);
        }
        let inner = &self.0;
        let shutting_down = || Rejection::new(ErrorCode::ShuttingDown, "the sidecar is shutting down");
        if self.lock().closed {
            return Err(shutting_down());
        }
        let sent_ms = inner.env.clock.monotonic_ms();
        let command =
            Command::OpenSession { member: inner.own.clone(), incarnation: inner.incarnation, ttl_ms: inner.ttl_ms };
        let (revision, reply) = inner.router.write(inner.router.mint(), partition, command, deadline).await?;
        let Reply::Session(id) = reply else {
            return Err(Rejection::new(ErrorCode::Internal, "opening a session did not answer with one"));
        };
        // A try whose fate was not known may have opened it long before, and nobody has kept it alive since.
        let is_new = revision.0 == id.0;
        let vouched = self.vouched(sent_ms);
        let unproven = SessionStatus { valid_until_ms: sent_ms, ..vouched };
        let (sender, status) = watch::channel(if is_new { vouched } else { unproven });
        let (partition_of, opened) = (partition.clone(), inner.opened.clone());
        let session = Session { partition: partition_of, id, status, releases: Arc::default(), opened };
        let mut table = self.lock();
        if table.closed {
            // It expires.
            return Err(shutting_down());
        }
        table.sessions.insert(partition.clone(), Held { session: session.clone(), status: sender });
        drop(table);
        // An error: the process stops.
        let _ = inner.opened.send(Opened { partition: partition.clone(), id, is_new });
        Ok(session)
    }

    /// Closes all sessions: the last act of a process that stops in good order.
    pub async fn close(&self, deadline: Deadline) {
        let held = {
            let mut table = self.lock();
            table.closed = true;
            std::mem::take(&mut table.sessions)
        };
        // Others may be granted what they hold as soon as one of them is closed.
        let now_ms = self.0.env.clock.monotonic_ms();
        held.values().for_each(|held| held.lose(now_ms));
        let closing = held.iter().map(|(partition, held)| async move {
            let command = Command::CloseSession(held.session.id);
            let router = &self.0.router;
            if let Err(rejection) = router.write(router.mint(), partition, command, deadline).await {
                tracing::warn!(%partition, %rejection, "a session was not closed; it will expire");
            }
        });
        futures_util::future::join_all(closing).await;
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.lock().sessions.len()
    }

    fn held(&self, partition: &PartitionId) -> Option<Session> {
        let table = self.lock();
        let session = table.sessions.get(partition).map(|held| &held.session);
        session.filter(|session| session.status.borrow().state != SessionState::Lost).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().expect("no panic while the lock is held")
    }

    fn vouched(&self, sent_ms: u64) -> SessionStatus {
        let ttl_ms = self.0.ttl_ms;
        SessionStatus { state: SessionState::Live, valid_until_ms: sent_ms + ttl_ms - ttl_ms.div_ceil(RATE_MARGIN) }
    }
}
