//! Holding sessions.

mod keeping;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use coterie_core::command::{Command, Reply};
use coterie_core::{ErrorCode, MemberName, PartitionId, Rejection, SessionId};
use coterie_env::Env;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

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

/// One session. Cheap to clone.
#[derive(Clone)]
pub struct Session {
    id: SessionId,
    status: watch::Receiver<SessionStatus>,
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
    held: Mutex<BTreeMap<PartitionId, Held>>,
    opening: tokio::sync::Mutex<()>,
    /// When the beats of keep-alives began.
    begun: Instant,
    /// A session was opened.
    opened: Notify,
    stopping: CancellationToken,
}

/// A session, and its keep-alives.
struct Held {
    session: Session,
    status: watch::Sender<SessionStatus>,
    /// When the next one goes; `None` while one is under way.
    due: Option<Instant>,
    /// How many were not answered by the leader since the last that was.
    tries: usize,
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
    /// No session yet.
    pub fn new(parts: Parts) -> Self {
        let Parts { env, own, incarnation, ttl_ms, router, directory, partitions, keepers, peers, stopping } = parts;
        let held = Mutex::default();
        let opening = tokio::sync::Mutex::default();
        Self(Arc::new(Inner {
            env,
            own,
            incarnation,
            ttl_ms,
            router,
            directory,
            partitions,
            keepers,
            peers,
            held,
            opening,
            begun: Instant::now(),
            opened: Notify::new(),
            stopping,
        }))
    }

    /// Keeps the sessions alive until the process stops.
    pub async fn run(self) {
        keeping::run(&self).await;
    }

    /// The session on a partition; opened if there is none, or if the one that was is lost.
    pub async fn hold(&self, partition: &PartitionId, deadline: Deadline) -> Result<Session, Rejection> {
        if let Some(session) = self.held(partition) {
            return Ok(session);
        }
        let waiting = tokio::time::timeout(deadline.remaining(&self.0.env), self.0.opening.lock()).await;
        let _one_at_a_time = waiting.map_err(|_| {
            Rejection::new(ErrorCode::NoQuorum, format!("no session on partition {partition} could be opened in time"))
        })?;
        if let Some(session) = self.held(partition) {
            return Ok(session);
        }
        let inner = &self.0;
        let sent_ms = inner.env.clock.monotonic_ms();
        let command =
            Command::OpenSession { member: inner.own.clone(), incarnation: inner.incarnation, ttl_ms: inner.ttl_ms };
        let (_, reply) = inner.router.write(inner.router.mint(), partition, command, deadline).await?;
        let Reply::Session(id) = reply else {
            return Err(Rejection::new(ErrorCode::Internal, "opening a session did not answer with one"));
        };
        let (sender, status) = watch::channel(self.vouched(sent_ms));
        let session = Session { id, status };
        let held = Held { session: session.clone(), status: sender, due: Some(self.next_beat()), tries: 0 };
        self.lock().insert(partition.clone(), held);
        inner.opened.notify_one();
        Ok(session)
    }

    /// Closes all sessions: the last act of a process that stops in good order.
    pub async fn close(&self, deadline: Deadline) {
        let held = std::mem::take(&mut *self.lock());
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
        self.lock().len()
    }

    fn held(&self, partition: &PartitionId) -> Option<Session> {
        let held = self.lock();
        let session = held.get(partition).map(|held| &held.session);
        session.filter(|session| session.status.borrow().state != SessionState::Lost).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PartitionId, Held>> {
        self.0.held.lock().expect("no panic while the lock is held")
    }

    fn vouched(&self, sent_ms: u64) -> SessionStatus {
        let ttl_ms = self.0.ttl_ms;
        SessionStatus { state: SessionState::Live, valid_until_ms: sent_ms + ttl_ms - ttl_ms.div_ceil(RATE_MARGIN) }
    }
}
