//! The locks that the applications beside this sidecar hold, or wait for.
//!
//! | a place in a lock's queue | lasts while |
//! |---|---|
//! | that waits | its caller waits: it is given up when the caller leaves, or its time has passed |
//! | that holds, with a lease | the lease is renewed |
//! | that holds, for a stream | the stream of operations is open |
//!
//! All hang on this sidecar's session on the partition: when that is lost they are gone, and the next is granted the lock.
//!
//! **The rule.** No place is left that nobody holds. Whoever asks is watched over from before the command is sent: if it
//! goes away, or the fate of the command is not known, the same is asked again in the background until it is, and the
//! place is given up. Giving up is proposed until it is committed, or needless.
//!
//! **A stop** ends the session, and with it all that is held: it waits until what holders were told has passed, or they have
//! given it back, and from its beginning on no holder is told of a later time ([`Locks::wait_out`]).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use coterie_core::command::{Command, EventKind, LockEvent, LockOp, Placed, Reply, Standing, View};
use coterie_core::limits::DEADLINE_MS_DEFAULT;
use coterie_core::machine::{Machine, lock};
use coterie_core::{ErrorCode, EventId, LockName, PartitionId, Rejection, RequestId, Revision, Token};
use coterie_env::Env;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::deadline::Deadline;
use crate::presence::bind;
use crate::retry::{Pauses, is_transient};
use crate::router::Router;
use crate::sessions::{Session, SessionState, Sessions};
use crate::watch::Item;

/// The locks of this sidecar. Cheap to clone.
#[derive(Clone)]
pub struct Locks(Arc<Inner>);

struct Inner {
    env: Env,
    router: Router,
    sessions: Sessions,
    stopping: CancellationToken,
    held: Mutex<BTreeMap<Key, Held>>,
    /// By the monotonic clock, in milliseconds: no holder is told of a later time, as the sidecar stops. `u64::MAX` before.
    last_ms: AtomicU64,
    /// A place is held no more.
    let_go: Notify,
}

/// A place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    partition: PartitionId,
    lock: LockName,
    token: Token,
}

/// What is known here of a place.
struct Held {
    /// How many [`Hold`]s there are: a request that is sent again gives the same place.
    holds: usize,
    session: Session,
    /// When it was asked for, or last asked about: it was there then.
    revision: Revision,
    lease: Option<Arc<Lease>>,
    /// Until when its holder was told that nobody else is granted it, by the monotonic clock, in milliseconds.
    told_ms: u64,
}

impl Held {
    /// How long its holder may be told that nobody else is granted it, from now on and up to `last_ms`, in milliseconds;
    /// whatever becomes of the session.
    fn tell(&mut self, ttl_ms: u64, now_ms: u64, last_ms: u64) -> u64 {
        let vouched_ms = self.session.status().borrow().valid_until_ms;
        let until_ms = vouched_ms.min(now_ms.saturating_add(ttl_ms)).min(last_ms);
        self.told_ms = self.told_ms.max(until_ms);
        until_ms.saturating_sub(now_ms)
    }
}

struct Lease {
    ttl_ms: u64,
    until_ms: AtomicU64,
    ended: CancellationToken,
}

/// Who asks for a lock.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Where the lock lives.
    pub partition: PartitionId,
    /// Which.
    pub lock: LockName,
    /// How long to wait for it; 0: only if it is free.
    pub wait_ms: u64,
    /// The request (D11).
    pub request: RequestId,
    /// By when the place in the queue is to be had; waiting in it comes on top.
    pub deadline: Deadline,
}

impl Ask {
    fn command(&self, session: &Session) -> Command {
        let op = LockOp::Acquire { session: session.id(), wait: self.wait_ms > 0 };
        Command::Lock { name: self.lock.clone(), op }
    }
}

/// A lock that is held, or a place in its queue. Dropping the last of it gives it up.
pub struct Hold {
    locks: Locks,
    key: Key,
    revision: Revision,
}

impl Hold {
    /// The fencing token.
    pub fn token(&self) -> Token {
        self.key.token
    }

    /// Whether it has not been given back otherwise.
    pub fn lasts(&self) -> bool {
        self.locks.held().contains_key(&self.key)
    }

    /// When it was asked for, or last asked about.
    pub fn revision(&self) -> Revision {
        self.revision
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.locks.let_go(&self.key) {
            self.locks.give_up(self.key.clone());
        }
    }
}

/// A command whose fate is not known yet. Dropping it sees to it that no place is left.
struct Asking {
    locks: Locks,
    ask: Ask,
    command: Command,
    decided: bool,
}

impl Drop for Asking {
    fn drop(&mut self) {
        if !self.decided {
            let (locks, ask, command) = (self.locks.clone(), self.ask.clone(), self.command.clone());
            self.locks.spawn("lock-resolve", async move { locks.resolve(ask, command).await });
        }
    }
}

impl Locks {
    /// No lock yet. `stopping` ends everything.
    pub fn new(env: &Env, router: Router, sessions: Sessions, stopping: &CancellationToken) -> Self {
        let (env, stopping, held) = (env.clone(), stopping.clone(), Mutex::default());
        let (last_ms, let_go) = (AtomicU64::new(u64::MAX), Notify::new());
        Self(Arc::new(Inner { env, router, sessions, stopping, held, last_ms, let_go }))
    }

    /// Acquires a lock; waits for it in its queue if the caller wants. Cancelling gives up the place.
    ///
    /// # Errors
    /// `lock_held` if it was not granted in time; `token_unknown` if the request was granted the lock before, and that
    /// was given up; whatever the partition answers.
    pub async fn acquire(&self, ask: Ask) -> Result<Hold, Rejection> {
        let inner = &self.0;
        let until = Deadline::after_ms(&inner.env, ask.wait_ms);
        let mut bound = false;
        loop {
            let session = inner.sessions.hold(&ask.partition, ask.deadline).await?;
            let request = if bound { bind(ask.request, session.id()) } else { ask.request };
            let (ask, command) = (Ask { request, ..ask.clone() }, ask.command(&session));
            let mut asking = Asking { locks: self.clone(), ask: ask.clone(), command: command.clone(), decided: false };
            let answer = inner.router.write(request, &ask.partition, command, ask.deadline).await;
            // What is decided from here on is decided before anything is waited for.
            asking.decided = !answer.as_ref().is_err_and(|rejection| is_undecided(rejection.code));
            match answer {
                Ok((revision, Reply::Placed(placed))) if placed.session == session.id() => {
                    return self.placed(&ask, session, revision, placed, until).await;
                }
                Ok((_, Reply::Placed(foreign))) if !bound => {
                    // It was sent before, with a session that is lost, or at another sidecar.
                    self.give_up(Key { partition: ask.partition, lock: ask.lock, token: foreign.token });
                }
                Ok(_) => return Err(Rejection::new(ErrorCode::Internal, "asking for a lock gave something else")),
                // The answer to an id that is not bound may be an old one, about another session.
                Err(rejection) if rejection.code == ErrorCode::SessionUnknown && !bound => {}
                Err(rejection) if rejection.code == ErrorCode::SessionUnknown => {
                    let lost = session.status();
                    wait_lost(lost, ask.deadline.remaining(&inner.env)).await.ok_or(rejection)?;
                }
                Err(rejection) => return Err(rejection),
            }
            bound = true;
        }
    }

    async fn placed(
        &self,
        ask: &Ask,
        session: Session,
        revision: Revision,
        placed: Placed,
        until: Deadline,
    ) -> Result<Hold, Rejection> {
        let Placed { lock, token, session: _, standing } = placed;
        let hold = match standing {
            Standing::Gone => return Err(lock::unknown(&lock, token)),
            Standing::Holds | Standing::Waits => self.hold(ask, session.clone(), revision, token),
        };
        if standing == Standing::Holds {
            return Ok(hold);
        }
        let granted = tokio::time::timeout(until.remaining(&self.0.env), self.granted(&hold));
        tokio::select! {
            granted = granted => match granted {
                Ok(true) => Ok(hold),
                Ok(false) => Err(lock::unknown(&lock, token)),
                Err(_) => Err(lock::held(&lock)),
            },
            _ = wait_lost(session.status(), Duration::MAX) => {
                let message = "this sidecar's session on the partition is lost, and the place in the queue with it";
                Err(Rejection::new(ErrorCode::SessionUnknown, message))
            }
        }
    }

    fn hold(&self, ask: &Ask, session: Session, revision: Revision, token: Token) -> Hold {
        let key = Key { partition: ask.partition.clone(), lock: ask.lock.clone(), token };
        let mut held = self.held();
        held.entry(key.clone()).or_insert(Held { holds: 0, session, revision, lease: None, told_ms: 0 }).holds += 1;
        Hold { locks: self.clone(), key, revision }
    }

    /// Waits until a place holds the lock: `true`; or is gone: `false`. A watch that cannot be had is asked for again.
    async fn granted(&self, hold: &Hold) -> bool {
        let of = (&hold.key.lock).into();
        // The place is in the queue as of here; what became of it comes after.
        let after = EventId { revision: hold.revision, ordinal: u32::MAX };
        let mut pauses = Pauses::new();
        loop {
            if let Ok(mut watch) = self.0.router.watch(&hold.key.partition, &of, Some(after)).await {
                while let Some(item) = watch.next().await {
                    match fate(&item, hold) {
                        Standing::Holds => return true,
                        Standing::Gone => return false,
                        Standing::Waits => {}
                    }
                }
            }
            pauses.wait(&self.0.stopping).await;
        }
    }

    /// Keeps a lock by a lease, from now on. Gives how long nobody else is granted it, in milliseconds.
    pub fn lease(&self, hold: Hold, ttl_ms: u64) -> u64 {
        let now_ms = self.0.env.clock.monotonic_ms();
        let mut held = self.held();
        // It was given back while its holder was told of it.
        let Some(entry) = held.get_mut(&hold.key) else { return 0 };
        let vouched_ms = entry.tell(ttl_ms, now_ms, self.last_ms());
        if let Some(lease) = &entry.lease {
            lease.until_ms.fetch_max(now_ms + ttl_ms, Ordering::Relaxed);
            drop(held);
            return vouched_ms;
        }
        let lease =
            Arc::new(Lease { ttl_ms, until_ms: AtomicU64::new(now_ms + ttl_ms), ended: CancellationToken::new() });
        entry.lease = Some(Arc::clone(&lease));
        let session = entry.session.clone();
        drop(held);
        let this = self.clone();
        self.spawn("lock-lease", async move { this.keep(hold, &lease, &session).await });
        vouched_ms
    }

    /// Until the lease has run out, or the lock is no longer held.
    async fn keep(&self, hold: Hold, lease: &Lease, session: &Session) {
        loop {
            let left_ms = lease.until_ms.load(Ordering::Relaxed).saturating_sub(self.0.env.clock.monotonic_ms());
            if left_ms == 0 {
                tracing::info!(lock = %hold.key.lock, token = hold.key.token.0, "the lease of a lock has run out");
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(left_ms)) => {}
                () = lease.ended.cancelled() => return,
                _ = wait_lost(session.status(), Duration::MAX) => return,
                () = self.0.stopping.cancelled() => return,
            }
        }
    }

    /// How long nobody else is granted what is held, unless it is given back before. In milliseconds.
    pub fn vouched_ms(&self, hold: &Hold) -> u64 {
        let now_ms = self.0.env.clock.monotonic_ms();
        self.held().get_mut(&hold.key).map_or(0, |entry| entry.tell(u64::MAX, now_ms, self.last_ms()))
    }

    /// Extends the lease of a holder, if it has one. Gives how long nobody else is granted the lock, in milliseconds;
    /// what a stream holds is given back earlier when that ends.
    ///
    /// # Errors
    /// `token_unknown` if this sidecar holds no such lock: the lease ran out, the session was lost, the sidecar was
    /// restarted, or its replica has seen that the lock was given back through another one.
    pub fn renew(&self, partition: &PartitionId, lock: &LockName, token: Token) -> Result<u64, Rejection> {
        let key = Key { partition: partition.clone(), lock: lock.clone(), token };
        let now_ms = self.0.env.clock.monotonic_ms();
        let revision = self.held().get(&key).map(|held| held.revision).ok_or_else(|| lock::unknown(lock, token))?;
        // Whoever has the token may have given it back elsewhere.
        let is_gone =
            |machine: &Machine| machine.revision() >= revision && machine.standing(lock, token) == Standing::Gone;
        if self.0.router.seen(partition, is_gone) == Some(true) {
            self.forget(&key);
            return Err(lock::unknown(lock, token));
        }
        let mut held = self.held();
        let lost = |held: &&mut Held| held.session.status().borrow().state == SessionState::Lost;
        let entry = held.get_mut(&key).filter(|held| !lost(held)).ok_or_else(|| lock::unknown(lock, token))?;
        let Some(lease) = &entry.lease else { return Ok(entry.tell(u64::MAX, now_ms, self.last_ms())) };
        if lease.until_ms.load(Ordering::Relaxed) <= now_ms {
            return Err(lock::unknown(lock, token));
        }
        let ttl_ms = lease.ttl_ms;
        lease.until_ms.store(now_ms + ttl_ms, Ordering::Relaxed);
        Ok(entry.tell(ttl_ms, now_ms, self.last_ms()))
    }

    /// Gives a lock back, or a place in its queue. It need not be one of this sidecar's.
    ///
    /// # Errors
    /// `token_unknown`; whatever the partition answers.
    pub async fn release(
        &self,
        partition: &PartitionId,
        lock: &LockName,
        token: Token,
        request: RequestId,
        deadline: Deadline,
    ) -> Result<Revision, Rejection> {
        let key = Key { partition: partition.clone(), lock: lock.clone(), token };
        let command = Command::Lock { name: lock.clone(), op: LockOp::Release(token) };
        let released = self.0.router.write(request, partition, command, deadline).await;
        let mine = match &released {
            Ok(_) => self.forget(&key),
            Err(rejection) if rejection.code == ErrorCode::TokenUnknown => self.forget(&key),
            // Its holder acts on it no more, whatever became of this.
            Err(rejection) if rejection.code == ErrorCode::Unknown => self.forget(&key),
            Err(_) => false,
        };
        if mine && released.as_ref().is_err_and(|rejection| rejection.code == ErrorCode::Unknown) {
            self.give_up(key);
        }
        released.map(|(revision, _)| revision)
    }

    /// Waits until nobody may act as the holder of a lock any more on the word of this sidecar, which is about to end its
    /// sessions: what holders were told has passed, or they have given it back. From now on none is told of a later time, so
    /// this takes no longer than a session is vouched for.
    pub async fn wait_out(&self) {
        loop {
            let told_ms = {
                let held = self.held();
                let told_ms = held.values().map(|held| held.told_ms).max().unwrap_or_default();
                self.0.last_ms.fetch_min(told_ms, Ordering::Relaxed);
                told_ms
            };
            let left_ms = told_ms.saturating_sub(self.0.env.clock.monotonic_ms());
            if left_ms == 0 {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(left_ms)) => {}
                () = self.0.let_go.notified() => {}
            }
        }
    }

    /// How many places there are.
    pub fn count(&self) -> usize {
        self.held().len()
    }

    /// Forgets a place whoever holds it here; whether there was one.
    fn forget(&self, key: &Key) -> bool {
        let removed = self.held().remove(key);
        self.0.let_go.notify_one();
        if let Some(lease) = removed.as_ref().and_then(|held| held.lease.as_ref()) {
            lease.ended.cancel();
        }
        removed.is_some()
    }

    /// One [`Hold`] is gone; whether it was the last of its place.
    fn let_go(&self, key: &Key) -> bool {
        let mut held = self.held();
        let Some(entry) = held.get_mut(key) else { return false };
        entry.holds -= 1;
        let last = entry.holds == 0;
        if last {
            held.remove(key);
            self.0.let_go.notify_one();
        }
        last
    }

    /// Gives up a place in the background.
    fn give_up(&self, key: Key) {
        let this = self.clone();
        self.spawn("lock-release", async move { this.release_until_done(key).await });
    }

    async fn release_until_done(&self, key: Key) {
        let mut request = self.0.router.mint();
        let mut pauses = Pauses::new();
        while !self.0.stopping.is_cancelled() {
            let command = Command::Lock { name: key.lock.clone(), op: LockOp::Release(key.token) };
            match self.0.router.write(request, &key.partition, command, self.deadline()).await {
                Ok(_) => return,
                Err(rejection) if rejection.code == ErrorCode::Expired => request = self.0.router.mint(),
                Err(rejection) if is_transient(rejection.code) => {}
                Err(rejection) => {
                    if rejection.code != ErrorCode::TokenUnknown {
                        tracing::warn!(lock = %key.lock, token = key.token.0, %rejection, "release a lock");
                    }
                    return;
                }
            }
            pauses.wait(&self.0.stopping).await;
        }
    }

    /// Learns what became of a request that nobody waits for, and gives up the place that it made.
    async fn resolve(&self, ask: Ask, command: Command) {
        let mut pauses = Pauses::new();
        while !self.0.stopping.is_cancelled() {
            match self.0.router.write(ask.request, &ask.partition, command.clone(), self.deadline()).await {
                Ok((_, Reply::Placed(Placed { lock, token, session: _, standing }))) => {
                    let key = Key { partition: ask.partition, lock, token };
                    // It may have been sent again meanwhile, and be held.
                    if standing != Standing::Gone && !self.held().contains_key(&key) {
                        self.release_until_done(key).await;
                    }
                    return;
                }
                Err(rejection) if is_transient(rejection.code) => {}
                Err(rejection) if rejection.code == ErrorCode::Expired => {
                    tracing::warn!(lock = %ask.lock, "what became of a request for a lock is not known any more");
                    return;
                }
                Ok(_) | Err(_) => return,
            }
            pauses.wait(&self.0.stopping).await;
        }
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<Key, Held>> {
        self.0.held.lock().expect("no panic while the lock is held")
    }

    /// Read while [`Locks::held`] is locked.
    fn last_ms(&self) -> u64 {
        self.0.last_ms.load(Ordering::Relaxed)
    }

    fn deadline(&self) -> Deadline {
        Deadline::after_ms(&self.0.env, DEADLINE_MS_DEFAULT)
    }

    fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.0.env.spawn.spawn(name, Box::pin(task));
    }
}

/// What an item of the lock's watch says of a place.
fn fate(item: &Item, hold: &Hold) -> Standing {
    let Hold { locks: _, key, revision } = hold;
    match item {
        Item::Event(event) => match &event.kind {
            EventKind::Lock(LockEvent::Granted { token, sidecar: _ }) if *token == key.token => Standing::Holds,
            EventKind::Lock(LockEvent::Left { token, reason: _ }) if *token == key.token => Standing::Gone,
            EventKind::Lock(_) | EventKind::Group(_) | EventKind::Map(_) => Standing::Waits,
        },
        // A replica that lags does not know the place yet.
        Item::Snapshot(View::Lock(view)) | Item::Resync(Some(View::Lock(view))) if view.revision >= *revision => {
            view.standing(key.token)
        }
        Item::Remade(_) => Standing::Gone,
        Item::Snapshot(_) | Item::Resync(_) | Item::Connection(_) => Standing::Waits,
    }
}

/// Waits until this sidecar knows that a session is lost; `None` if it does not in time.
async fn wait_lost(
    mut status: tokio::sync::watch::Receiver<crate::sessions::SessionStatus>,
    within: Duration,
) -> Option<()> {
    let lost = status.wait_for(|status| status.state == SessionState::Lost);
    tokio::time::timeout(within, lost).await.ok()?.ok().map(|_| ())
}

/// Whether a command may have been applied nevertheless.
fn is_undecided(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::Unknown | ErrorCode::Expired)
}
