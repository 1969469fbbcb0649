//! The partition leader's timers: sessions that are not kept alive, and releases that take too long.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use bytes::Bytes;
use coterie_core::command::{self, Command, Envelope, GroupOp};
use coterie_core::machine::PendingRelease;
use coterie_core::{ErrorCode, MemberName, PartitionId, SessionId};
use coterie_env::Env;
use coterie_replication::{Partition, ProposeError};
use tokio_util::sync::CancellationToken;

use super::Heard;
use super::deadlines::{Deadlines, Due, Fate, Kept, Timed};
use crate::limits;

/// Who keeps which session alive.
#[derive(Clone, Debug)]
pub struct Holder {
    /// The session.
    pub session: SessionId,
    /// The sidecar that opened it.
    pub member: MemberName,
    /// Its run.
    pub incarnation: u64,
    /// The releases that it knows of.
    pub heard: Vec<Heard>,
}

/// What a keep-alive gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// The session counts for its full time-out from when the keep-alive was sent. These releases wait for leaders that it
    /// carries.
    Alive(Vec<PendingRelease>),
    /// The session is gone.
    Lost,
    /// Not the leader, or not able to say so; perhaps this one is.
    Elsewhere(Option<MemberName>),
}

/// The timers of one local partition. Cheap to clone.
#[derive(Clone)]
pub struct Keeper {
    env: Env,
    deadlines: Arc<Mutex<Deadlines>>,
}

/// The timers of all local partitions. Cheap to clone.
#[derive(Clone, Default)]
pub struct Keepers(Arc<RwLock<BTreeMap<PartitionId, Keeper>>>);

impl Keepers {
    /// The timers of one partition.
    pub fn get(&self, partition: &PartitionId) -> Option<Keeper> {
        self.0.read().expect("no panic while the lock is held").get(partition).cloned()
    }

    /// Starts the timers of a replica.
    pub fn start(&self, env: &Env, id: &PartitionId, partition: &Partition, stop: CancellationToken) {
        let deadlines = Deadlines::new(partition.timing().election_max_ms);
        let keeper = Keeper { env: env.clone(), deadlines: Arc::new(Mutex::new(deadlines)) };
        self.0.write().expect("no panic while the lock is held").insert(id.clone(), keeper.clone());
        let partition = partition.clone();
        env.spawn.spawn("keeper", Box::pin(async move { keeper.run(partition, stop).await }));
    }

    /// Forgets the timers of a replica that is gone.
    pub fn remove(&self, partition: &PartitionId) {
        self.0.write().expect("no panic while the lock is held").remove(partition);
    }
}

impl Keeper {
    /// Keeps a session alive, if this member surely leads after the keep-alive came in, by its lease or because a majority
    /// says so, and all that earlier leaders decided is applied. So no session is called alive that an earlier leader has
    /// expired, and a later leader gives it its full time from then on. Clocks that run at about the same rate are what
    /// sessions rest on anyway.
    pub async fn touch(&self, partition: &Partition, holder: &Holder, timeout: Duration) -> Touched {
        if let Some(touched) = self.touch_by_lease(partition, holder) {
            return touched;
        }
        match partition.confirm_leadership(timeout).await {
            Ok(()) => self.touched(partition, holder),
            Err(ProposeError::NotLeader(leader)) => Touched::Elsewhere(leader),
            Err(ProposeError::Rejected(_)) => Touched::Elsewhere(None),
        }
    }

    /// The same without waiting for anybody: `None` if that takes a majority's word.
    pub fn touch_by_lease(&self, partition: &Partition, holder: &Holder) -> Option<Touched> {
        partition.leads_by_lease().then(|| self.touched(partition, holder))
    }

    fn touched(&self, partition: &Partition, holder: &Holder) -> Touched {
        let Holder { session, member, incarnation, heard } = holder;
        let session = *session;
        let held = partition.with_machine(|machine| {
            let ttl_ms = machine.session_held_by(session, member, *incarnation)?;
            let releases: Vec<_> = machine.releases_of(session).take(limits::RELEASES_MAX).cloned().collect();
            Some((ttl_ms, releases))
        });
        let Some((ttl_ms, releases)) = held else { return Touched::Lost };
        let now_ms = self.env.clock.monotonic_ms();
        let mut deadlines = self.lock();
        match deadlines.keep(session, now_ms, ttl_ms) {
            Kept::Alive => {
                for Heard { group, term, left_ms } in heard {
                    if releases.iter().any(|release| release.group == *group && release.term == *term) {
                        deadlines.heard((group.clone(), *term), *left_ms, now_ms);
                    }
                }
                Touched::Alive(releases)
            }
            Kept::Expiring => Touched::Lost,
            Kept::NotLeading => Touched::Elsewhere(None),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Deadlines> {
        self.deadlines.lock().expect("no panic while the lock is held")
    }

    async fn run(self, partition: Partition, stop: CancellationToken) {
        let mut leadership = partition.leadership();
        loop {
            let leading = {
                let now = leadership.borrow_and_update();
                now.leading.then_some(now.term)
            };
            let Some(term) = leading else {
                self.lock().resign();
                tokio::select! {
                    changed = leadership.changed() => if changed.is_err() { return },
                    () = stop.cancelled() => return,
                }
                continue;
            };
            let due = self.due(&partition, term);
            if !due.is_empty() {
                // Not here: a tick that waits for a majority would look like one that was slept through.
                let (this, partition) = (self.clone(), partition.clone());
                self.env.spawn.spawn("expiry", Box::pin(async move { this.propose(&partition, due).await }));
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(limits::EXPIRY_TICK_MS)) => {}
                changed = leadership.changed() => if changed.is_err() { return },
                () = stop.cancelled() => return,
            }
        }
    }

    /// Moves the deadlines on and says what has run out.
    fn due(&self, partition: &Partition, term: u64) -> Due {
        let has_quorum = partition.leadership().borrow().has_quorum;
        let now_ms = self.env.clock.monotonic_ms();
        let mut deadlines = self.lock();
        deadlines.go_on(term, has_quorum, now_ms);
        partition.with_machine(|machine| {
            let opened = machine.session_timeouts(deadlines.newest()).collect();
            deadlines.take(Timed { opened, releases: machine.pending_releases().cloned().collect() });
            deadlines.sweep(machine.session_count(), |id| machine.has_session(id));
            deadlines.due(|id| machine.has_session(id))
        })
    }

    /// What fails here stays due and is proposed again at the next tick, by this leader or the next.
    async fn propose(&self, partition: &Partition, due: Due) {
        let Due { term, sessions, releases } = due;
        let expire = async {
            if sessions.is_empty() {
                return Fate::NotProposed;
            }
            propose(partition, term, "sessions", Command::ExpireSessions(sessions.clone())).await
        };
        // All at once: none waits for another that no majority takes.
        let releases = releases.into_iter().map(|(name, of)| {
            propose(partition, term, "a release", Command::Group { name, op: GroupOp::ReleaseTimedOut(of) })
        });
        let (fate, _) = tokio::join!(expire, futures_util::future::join_all(releases));
        self.lock().proposed(term, &sessions, fate);
    }
}

async fn propose(partition: &Partition, term: u64, what: &str, command: Command) -> Fate {
    let body = Bytes::from(command::encode(&Envelope { request: None, command }));
    match partition.propose_in_term(term, body, Duration::from_millis(limits::TRY_MS_MAX)).await {
        Ok((revision, _)) => {
            tracing::info!(%revision, what, "expired");
            // What it did is in the machine, which the next tick takes over.
            Fate::Unknown
        }
        Err(error) => {
            tracing::debug!(?error, what, "an expiry was not committed");
            match error {
                ProposeError::Rejected(rejection) if rejection.code == ErrorCode::Unknown => Fate::Unknown,
                ProposeError::NotLeader(_) | ProposeError::Rejected(_) => Fate::NotProposed,
            }
        }
    }
}
