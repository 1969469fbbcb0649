//! One membership that this sidecar holds.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use coterie_core::command::{GroupView, Presence};
use coterie_core::{GroupName, MemberId, PartitionId, Rejection, Term};
use coterie_env::Env;
use tokio::sync::{Notify, watch};

use super::mirror::Mirror;
use super::state::{Control, SelfState, SessionSays, decide};
use super::unheld;
use crate::sessions::{Session, SessionState, SessionStatus};

/// Why a membership ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The application or this sidecar gave it up, and that is committed.
    Left,
    /// The group says that it is gone: removed by somebody, or the group was deleted.
    Gone,
    /// Its session is lost.
    Lost,
    /// The process stops.
    Stopped,
}

/// A membership. Its keeper ([`Held::keep`]) is the only one that publishes its state.
pub(super) struct Held {
    pub(super) id: MemberId,
    pub(super) partition: PartitionId,
    pub(super) group: GroupName,
    pub(super) presence: Presence,
    /// Of a lease; 0 for other presences.
    pub(super) ttl_ms: u64,
    env: Env,
    session: Session,
    mirror: Arc<Mirror>,
    control: Mutex<Control>,
    control_changed: Notify,
    state: watch::Sender<SelfState>,
    ended: watch::Sender<Option<End>>,
}

/// What [`Held::new`] is made of.
pub(super) struct Parts {
    pub(super) id: MemberId,
    pub(super) partition: PartitionId,
    pub(super) group: GroupName,
    pub(super) presence: Presence,
    pub(super) ttl_ms: u64,
    pub(super) session: Session,
    pub(super) mirror: Arc<Mirror>,
}

/// What the keeper does next.
enum Step {
    /// Looks again when something changes, or at this time.
    Wait(Option<u64>),
    /// The lease has run out.
    Expired,
    /// It is over.
    Ended(End),
}

impl Held {
    pub(super) fn new(env: &Env, parts: Parts) -> Self {
        let Parts { id, partition, group, presence, ttl_ms, session, mirror } = parts;
        let now_ms = env.clock.monotonic_ms();
        let lease_until_ms = (presence == Presence::Lease).then(|| now_ms.saturating_add(ttl_ms));
        let control = Control { lease_until_ms, ..Control::default() };
        let status = *session.status().borrow();
        // Nobody is told of this.
        let session_says = SessionSays { status, release_until_ms: None };
        let (state, _) = watch::channel(mirror.with(|folded| decide(id, folded, session_says, &control, now_ms)));
        let (ended, _) = watch::channel(None);
        Self {
            id,
            partition,
            group,
            presence,
            ttl_ms,
            env: env.clone(),
            session,
            mirror,
            control: Mutex::new(control),
            control_changed: Notify::new(),
            state,
            ended,
        }
    }

    /// Its state, followed. What the application is told comes from [`Held::tell`].
    pub(super) fn state(&self) -> watch::Receiver<SelfState> {
        self.state.subscribe()
    }

    /// Why it ended; `None` while it lasts.
    pub(super) fn ended(&self) -> watch::Receiver<Option<End>> {
        self.ended.subscribe()
    }

    /// The session's state at this moment.
    pub(super) fn session_state(&self) -> SessionState {
        self.session.status().borrow().at(self.env.clock.monotonic_ms())
    }

    /// What the application may be told now. The sidecar keeps its place for as long as this says.
    pub(super) fn tell(&self) -> SelfState {
        let mut control = self.lock();
        let said = |state: &SelfState| state.leads.then_some((state.term, state.valid_until_ms));
        let state = self.decide(&control, said);
        if let Some((said, said_ms)) = said(&state) {
            let (term, until_ms) = control.told.unwrap_or_default();
            let kept_ms = if term == said { until_ms } else { 0 };
            control.told = Some((said, said_ms.max(kept_ms)));
        }
        state
    }

    /// Whether it is the group's leader, whatever may be vouched for; and the group's term.
    pub(super) fn elected(&self) -> (bool, Term) {
        self.mirror.with(|folded| (folded.leader == Some(self.id), folded.term))
    }

    /// Takes in what an answer showed.
    pub(super) fn learn(&self, view: &GroupView) {
        self.mirror.learn(view, self.env.clock.monotonic_ms());
    }

    /// Extends the lease.
    pub(super) fn renew(&self) -> Result<(), Rejection> {
        let now_ms = self.env.clock.monotonic_ms();
        let mut control = self.lock();
        let running = control.lease_until_ms.is_some_and(|until_ms| now_ms < until_ms);
        if !running || control.withdrawn {
            return Err(unheld(self.id, &self.group));
        }
        control.lease_until_ms = Some(now_ms.saturating_add(self.ttl_ms));
        drop(control);
        self.control_changed.notify_one();
        Ok(())
    }

    /// From now on nothing is vouched for.
    pub(super) fn withdraw(&self) {
        self.change(|control| control.withdrawn = true);
    }

    /// Takes back [`Held::withdraw`]: the application asked to leave, and that was refused.
    pub(super) fn reinstate(&self) {
        self.change(|control| control.withdrawn = false);
    }

    /// The application says that it no longer acts for this term.
    pub(super) fn released(&self, term: Term) {
        self.change(|control| control.released = control.released.max(Some(term)));
    }

    /// The newest term that there is: a release of a later one does not count.
    pub(super) fn released_at_most(&self, term: Term) {
        self.change(|control| control.released = control.released.min(Some(term)));
    }

    /// Nothing is vouched for beyond this term.
    pub(super) fn last_term(&self, term: Term) {
        self.change(|control| control.last_term = Some(term));
    }

    /// Waits out what the application was told, as far as it may still act on it. Call [`Held::withdraw`] before.
    pub(super) async fn wait_out(&self) {
        loop {
            let now_ms = self.env.clock.monotonic_ms();
            let keep_ms = {
                let control = self.lock();
                self.mirror.with(|folded| control.must_keep_ms(self.id, folded, now_ms))
            };
            if keep_ms == 0 {
                return;
            }
            let mut folded = self.mirror.folded();
            let mut ended = self.ended();
            folded.mark_unchanged();
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(keep_ms)) => {}
                _ = folded.changed() => {}
                _ = ended.wait_for(Option::is_some) => return,
            }
        }
    }

    /// Waits until this term is over for it, whoever ended it.
    pub(super) async fn wait_term_over(&self, term: Term) {
        let mut folded = self.mirror.folded();
        let mut ended = self.ended();
        tokio::select! {
            _ = folded.wait_for(|folded| folded.leader != Some(self.id) || folded.term != term) => {}
            _ = ended.wait_for(Option::is_some) => {}
        }
    }

    /// Ends it, once.
    pub(super) fn end(&self, end: End) {
        self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            if first {
                *ended = Some(end);
            }
            first
        });
    }

    /// It is over by somebody else's doing: nothing is vouched for from now on.
    pub(super) fn end_as(&self, end: End) {
        self.withdraw();
        self.end(end);
    }

    /// Waits until nothing can be vouched for any more, because the session was not confirmed for too long or is lost.
    pub(super) async fn wait_unvouched(&self) {
        let mut session = self.session.status();
        loop {
            let status = *session.borrow_and_update();
            if is_unvouched(status, self.env.clock.monotonic_ms()) {
                return;
            }
            tokio::select! {
                changed = session.changed() => if changed.is_err() { return },
                () = sleep_until(&self.env, Some(status.valid_until_ms)) => {}
            }
        }
    }

    /// Publishes every change until it ends. `expired` is called once when a lease has run out.
    pub(super) async fn keep(&self, expired: impl FnOnce() + Send) -> End {
        let mut folded = self.mirror.folded();
        let mut session = self.session.status();
        let mut ended = self.ended();
        let mut expired = Some(expired);
        loop {
            folded.mark_unchanged();
            session.mark_unchanged();
            let wake_ms = match self.step() {
                Step::Ended(end) => return end,
                Step::Expired => {
                    if let Some(expired) = expired.take() {
                        self.withdraw();
                        expired();
                    }
                    None
                }
                Step::Wait(wake_ms) => wake_ms,
            };
            tokio::select! {
                _ = folded.changed() => {}
                changed = session.changed() => if changed.is_err() { self.end(End::Stopped) },
                () = self.control_changed.notified() => {}
                _ = ended.wait_for(Option::is_some) => {}
                () = sleep_until(&self.env, wake_ms) => {}
            }
        }
    }

    fn step(&self) -> Step {
        let now_ms = self.env.clock.monotonic_ms();
        let control = self.lock().clone();
        let next = self.decide(&control, |_| None);
        let wake_ms = next.leads.then_some(next.valid_until_ms);
        if next.session == SessionState::Lost {
            self.end(End::Lost);
        } else if self.mirror.with(|folded| folded.is_gone(self.id)) {
            self.end(End::Gone);
        }
        self.state.send_if_modified(|state| {
            let changed = *state != next;
            if next.releasing && !state.releasing {
                self.session.hurry();
            }
            *state = next;
            changed
        });
        if let Some(end) = *self.ended.borrow() {
            return Step::Ended(end);
        }
        match control.lease_until_ms.filter(|_| !control.withdrawn) {
            Some(until_ms) if until_ms <= now_ms => Step::Expired,
            Some(until_ms) => Step::Wait(Some(wake_ms.unwrap_or(until_ms).min(until_ms))),
            None => Step::Wait(wake_ms),
        }
    }

    /// What may be said; `said`, what of it the application is told.
    fn decide(&self, control: &Control, said: impl FnOnce(&SelfState) -> Option<(Term, u64)>) -> SelfState {
        let status = *self.session.status().borrow();
        let now_ms = self.env.clock.monotonic_ms();
        let decide = |release_until_ms: &dyn Fn(Term) -> Option<u64>| {
            self.mirror.with(|folded| {
                let session = SessionSays { status, release_until_ms: release_until_ms(folded.term) };
                decide(self.id, folded, session, control, now_ms)
            })
        };
        self.session.releases().tell(&self.group, decide, said, now_ms)
    }

    fn change(&self, change: impl FnOnce(&mut Control)) {
        change(&mut self.lock());
        self.control_changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Control> {
        self.control.lock().expect("no panic while the lock is held")
    }
}

/// Whether a session vouches for nothing: then it will be, or is, expired by the partition.
pub(super) fn is_unvouched(status: SessionStatus, now_ms: u64) -> bool {
    status.state == SessionState::Lost || status.valid_until_ms <= now_ms
}

/// At a time of the monotonic clock; never for `None`.
async fn sleep_until(env: &Env, at_ms: Option<u64>) {
    match at_ms {
        Some(at_ms) => {
            let left_ms = at_ms.saturating_sub(env.clock.monotonic_ms());
            tokio::time::sleep(Duration::from_millis(left_ms)).await;
        }
        None => std::future::pending().await,
    }
}
