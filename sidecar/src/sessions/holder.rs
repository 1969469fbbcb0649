//! Holding sessions.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coterie_core::command::{Command, Reply};
use coterie_core::{ErrorCode, MemberName, PartitionId, Rejection, SessionId};
use coterie_env::Env;
use coterie_proto::peer;
use coterie_proto::peer::frame::Body;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::RATE_MARGIN;
use crate::deadline::Deadline;
use crate::directory::Directory;
use crate::limits;
use crate::partitions::Partitions;
use crate::peers::client::{Peers, to_wire};
use crate::router::Router;
use crate::sessions::keeper::{Holder, Keepers, Touched};

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
    held: Mutex<BTreeMap<PartitionId, Session>>,
    opening: tokio::sync::Mutex<()>,
    stopping: CancellationToken,
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
            stopping,
        }))
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
        self.lock().insert(partition.clone(), session.clone());
        let sessions = self.clone();
        let partition = partition.clone();
        inner.env.spawn.spawn("session", Box::pin(async move { sessions.keep(partition, id, sender).await }));
        Ok(session)
    }

    /// Closes all sessions: the last act of a process that stops in good order.
    pub async fn close(&self, deadline: Deadline) {
        let held = std::mem::take(&mut *self.lock());
        let closing = held.into_iter().map(|(partition, session)| async move {
            let command = Command::CloseSession(session.id);
            let router = &self.0.router;
            if let Err(rejection) = router.write(router.mint(), &partition, command, deadline).await {
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
        self.lock().get(partition).filter(|session| session.status.borrow().state != SessionState::Lost).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<PartitionId, Session>> {
        self.0.held.lock().expect("no panic while the lock is held")
    }

    fn vouched(&self, sent_ms: u64) -> SessionStatus {
        let ttl_ms = self.0.ttl_ms;
        SessionStatus { state: SessionState::Live, valid_until_ms: sent_ms + ttl_ms - ttl_ms.div_ceil(RATE_MARGIN) }
    }

    /// Keeps one session alive until it is lost or the process stops.
    async fn keep(&self, partition: PartitionId, id: SessionId, sender: watch::Sender<SessionStatus>) {
        let interval_ms = self.0.ttl_ms / 3;
        let mut pause_ms = interval_ms;
        let mut round = 0;
        loop {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(pause_ms)) => {}
                () = self.0.stopping.cancelled() => return,
            }
            if self.lock().get(&partition).is_none_or(|session| session.id != id) {
                return;
            }
            let sent_ms = self.0.env.clock.monotonic_ms();
            match self.touch(&partition, id, &mut round).await {
                Touched::Alive => {
                    sender.send_replace(self.vouched(sent_ms));
                    pause_ms = interval_ms;
                }
                Touched::Lost => {
                    let valid_until_ms = self.0.env.clock.monotonic_ms();
                    tracing::warn!(%partition, session = id.0, "the session is lost");
                    sender.send_replace(SessionStatus { state: SessionState::Lost, valid_until_ms });
                    self.lock().remove(&partition);
                    return;
                }
                Touched::Elsewhere(_) => {
                    pause_ms = limits::RETRY_PAUSE_MS_MAX.min(interval_ms);
                    let now_ms = self.0.env.clock.monotonic_ms();
                    sender.send_if_modified(|status| {
                        // A second keep-alive in a row is overdue: two thirds of the time-out are gone.
                        let overdue = now_ms + self.0.ttl_ms / 3 >= status.valid_until_ms;
                        let changed = overdue && status.state == SessionState::Live;
                        if changed {
                            status.state = SessionState::Suspended;
                        }
                        changed
                    });
                }
            }
        }
    }

    async fn touch(&self, partition: &PartitionId, id: SessionId, round: &mut usize) -> Touched {
        let inner = &self.0;
        let Some(member) = inner.directory.candidate(partition, &inner.own, *round) else {
            return Touched::Elsewhere(None);
        };
        *round += 1;
        let timeout = Duration::from_millis(limits::TRY_MS_MAX.min(inner.ttl_ms / 3));
        let touched = if member == inner.own {
            match (inner.partitions.get(partition), inner.keepers.get(partition)) {
                (Some(local), Some(keeper)) => {
                    let holder = Holder { session: id, member: inner.own.clone(), incarnation: inner.incarnation };
                    keeper.touch(&local, &holder, timeout).await
                }
                _ => Touched::Elsewhere(None),
            }
        } else {
            self.touch_remote(&member, partition, id, timeout).await
        };
        match &touched {
            Touched::Alive => *round = 0,
            Touched::Elsewhere(_) if inner.partitions.know_leader(partition) => {}
            Touched::Elsewhere(Some(leader)) => inner.directory.note_leader(partition, leader),
            Touched::Elsewhere(None) => inner.directory.forget_leader(partition, &member),
            Touched::Lost => {}
        }
        touched
    }

    async fn touch_remote(
        &self,
        member: &MemberName,
        partition: &PartitionId,
        id: SessionId,
        timeout: Duration,
    ) -> Touched {
        let request = peer::KeepAliveRequest {
            member: self.0.own.0.clone(),
            incarnation: self.0.incarnation,
            sessions: vec![peer::SessionRef { partition: Some(to_wire(partition)), session: id.0 }],
        };
        let answer = self.0.peers.call(member, Body::KeepAlive(request), timeout).await;
        let Ok(Body::KeptAlive(response)) = answer else { return Touched::Elsewhere(None) };
        match response.sessions.into_iter().next().and_then(|alive| alive.result) {
            Some(peer::session_alive::Result::TtlMs(_)) => Touched::Alive,
            Some(peer::session_alive::Result::Lost(_)) => Touched::Lost,
            Some(peer::session_alive::Result::NotLeader(elsewhere)) => {
                Touched::Elsewhere(Some(elsewhere.leader).filter(|leader| !leader.is_empty()).map(MemberName))
            }
            Some(peer::session_alive::Result::Failure(_)) | None => Touched::Elsewhere(None),
        }
    }
}
