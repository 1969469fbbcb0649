//! The partition leader's timers: sessions that are not kept alive, and releases that take too long.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use bytes::Bytes;
use coterie_core::command::{self, Command, Envelope, GroupOp};
use coterie_core::{GroupName, MemberName, PartitionId, SessionId, Term};
use coterie_env::Env;
use coterie_replication::{Partition, ProposeError};
use tokio_util::sync::CancellationToken;

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
}

/// What a keep-alive gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// The session counts for its full time-out from when the keep-alive was sent.
    Alive,
    /// The session is gone.
    Lost,
    /// Not the leader, or not able to say so; perhaps this one is.
    Elsewhere(Option<MemberName>),
}

/// The deadlines of one partition, while this member leads it.
#[derive(Default)]
struct Deadlines {
    /// Which leadership they belong to; `None` while another member leads.
    term: Option<u64>,
    /// When they were last looked at.
    tick_ms: u64,
    sessions: BTreeMap<SessionId, u64>,
    expiring: BTreeSet<SessionId>,
    releases: BTreeMap<(GroupName, Term), u64>,
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
        let keeper = Keeper { env: env.clone(), deadlines: Arc::default() };
        self.0.write().expect("no panic while the lock is held").insert(id.clone(), keeper.clone());
        let partition = partition.clone();
        env.spawn.spawn("keeper", Box::pin(async move { keeper.run(partition, stop).await }));
    }

    /// Forgets the timers of a replica that is gone.
    pub fn remove(&self, partition: &PartitionId) {
        self.0.write().expect("no panic while the lock is held").remove(partition);
    }
}

/// What has run out.
#[derive(Default)]
struct Due {
    sessions: Vec<SessionId>,
    releases: Vec<(GroupName, Term)>,
}

impl Keeper {
    /// Keeps a session alive, if this member surely leads: a majority says so after the keep-alive came in, and all that
    /// earlier leaders decided is applied. So no session is called alive that an earlier leader has expired.
    pub async fn touch(&self, partition: &Partition, holder: &Holder, timeout: Duration) -> Touched {
        let Holder { session, member, incarnation } = holder;
        let session = *session;
        match partition.confirm_leadership(timeout).await {
            Ok(()) => {}
            Err(ProposeError::NotLeader(leader)) => return Touched::Elsewhere(leader),
            Err(ProposeError::Rejected(_)) => return Touched::Elsewhere(None),
        }
        let found = partition.with_machine(|machine| {
            let mut sessions = machine.sessions().into_iter();
            sessions.find(|present| {
                present.id == session && present.member == *member && present.incarnation == *incarnation
            })
        });
        let Some(found) = found else { return Touched::Lost };
        let now_ms = self.env.clock.monotonic_ms();
        let mut deadlines = self.lock();
        if deadlines.term.is_none() {
            return Touched::Elsewhere(None);
        }
        if deadlines.expiring.contains(&session) {
            return Touched::Lost;
        }
        deadlines.sessions.insert(session, now_ms + found.ttl_ms);
        Touched::Alive
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
                *self.lock() = Deadlines::default();
                tokio::select! {
                    changed = leadership.changed() => if changed.is_err() { return },
                    () = stop.cancelled() => return,
                }
                continue;
            };
            let due = self.due(&partition, term);
            self.propose(&partition, due).await;
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(limits::EXPIRY_TICK_MS)) => {}
                changed = leadership.changed() => if changed.is_err() { return },
                () = stop.cancelled() => return,
            }
        }
    }

    /// Moves the deadlines on and says what has run out.
    fn due(&self, partition: &Partition, term: u64) -> Due {
        let (sessions, releases) = partition.with_machine(|machine| (machine.sessions(), machine.pending_releases()));
        let now_ms = self.env.clock.monotonic_ms();
        let mut deadlines = self.lock();
        // Whoever led before may have vouched for any of these up to now. And while this process slept, or was without a
        // majority, nobody could be told of keep-alives. In either case each session gets its full time again.
        let new_leader = deadlines.term != Some(term);
        let slept = now_ms > deadlines.tick_ms + limits::LATE_TICK_MS;
        if new_leader || slept || !partition.leadership().borrow().has_quorum {
            *deadlines = Deadlines { term: Some(term), ..Deadlines::default() };
        }
        deadlines.tick_ms = now_ms;
        let grace_ms = if new_leader { limits::EXPIRY_GRACE_MS } else { 0 };
        let live: BTreeSet<SessionId> = sessions.iter().map(|session| session.id).collect();
        deadlines.sessions.retain(|id, _| live.contains(id));
        deadlines.expiring.retain(|id| live.contains(id));
        for session in &sessions {
            deadlines.sessions.entry(session.id).or_insert(now_ms + session.ttl_ms + grace_ms);
        }
        let pending: BTreeSet<_> = releases.iter().map(|release| (release.group.clone(), release.term)).collect();
        deadlines.releases.retain(|key, _| pending.contains(key));
        for release in releases {
            deadlines.releases.entry((release.group, release.term)).or_insert(now_ms + release.timeout_ms);
        }
        let mut due = Due::default();
        let ran_out = deadlines.sessions.iter().filter(|(_, at_ms)| **at_ms <= now_ms).map(|(id, _)| *id);
        due.sessions = ran_out.take(limits::EXPIRE_BATCH_MAX).collect();
        deadlines.expiring.extend(due.sessions.iter().copied());
        due.releases = deadlines.releases.iter().filter(|(_, at)| **at <= now_ms).map(|(key, _)| key.clone()).collect();
        due
    }

    async fn propose(&self, partition: &Partition, due: Due) {
        let mut commands = Vec::new();
        if !due.sessions.is_empty() {
            commands.push(("sessions", Command::ExpireSessions(due.sessions)));
        }
        for (name, term) in due.releases {
            commands.push(("a release", Command::Group { name, op: GroupOp::ReleaseTimedOut(term) }));
        }
        for (what, command) in commands {
            let body = Bytes::from(command::encode(&Envelope { request: None, command }));
            // What fails here stays due and is proposed again at the next tick, by this leader or the next.
            match partition.propose(body, Duration::from_millis(limits::TRY_MS_MAX)).await {
                Ok((revision, _)) => tracing::info!(%revision, what, "expired"),
                Err(error) => tracing::debug!(?error, what, "an expiry was not committed"),
            }
        }
    }
}
