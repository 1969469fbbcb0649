//! Locks: one holder at a time, in the order of asking.
//!
//! ```text
//!   acquire ──► queue: [ holder | waits | waits ]        a place = (token, session)
//!                          ▲         each token is larger than the one before it
//!                          └── released, or its session ended: the next holds the lock
//! ```
//! A token is made from the revision of the command that asked, so it is larger than all that the partition gave before,
//! whatever lock they were of; places are granted in the order of asking, so the tokens of a lock's holders only rise. A
//! lock that nobody holds is not kept: what there is to remember of it is in the revision.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use coterie_mutants::{Mutant, is_on};
use serde::{Deserialize, Serialize};

use super::sessions::Thing;
use super::{Machine, Step, TERM_BITS, validate};
use crate::code::{ErrorCode, Rejection};
use crate::command::{
    EventKind, Holder, LockEvent, LockLeaveReason, LockOp, LockView, Outcome, Placed, Reply, Standing,
};
use crate::ids::{LockName, MemberName, Revision, SessionId, Term, Token};
use crate::limits::{LOCK_WAITERS_MAX, LOCKS_MAX};

/// A place in a lock's queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) token: Token,
    pub(super) session: SessionId,
    sidecar: MemberName,
}

/// A lock: its queue, never empty; the first holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lock {
    pub(super) queue: VecDeque<Place>,
}

impl Lock {
    /// The next place of a snapshot. `None` if it is not in the order of asking.
    pub(super) fn restore(&mut self, place: Place) -> Option<()> {
        let follows = self.queue.back().is_none_or(|last| last.token < place.token);
        self.queue.push_back(place);
        follows.then_some(())
    }

    /// Gives up places, then grants the lock if its holder was among them.
    fn remove(&mut self, step: &mut Step, name: &LockName, leaving: &BTreeSet<Token>, reason: LockLeaveReason) {
        let holder = self.queue.front().map(|place| place.token);
        for token in leaving {
            emit(step, name, LockEvent::Left { token: *token, reason });
        }
        self.queue.retain(|place| !leaving.contains(&place.token));
        if let Some(next) = self.queue.front().filter(|next| Some(next.token) != holder) {
            emit(step, name, granted(next));
        }
    }
}

fn emit(step: &mut Step, name: &LockName, event: LockEvent) {
    step.emit(name.into(), EventKind::Lock(event));
}

fn granted(place: &Place) -> LockEvent {
    LockEvent::Granted { token: place.token, sidecar: place.sidecar.clone() }
}

/// The token of a place that is asked for at this revision.
fn token(term_floor: Term, revision: Revision) -> Token {
    assert!(revision.0 < 1 << TERM_BITS, "a partition has fewer entries than terms");
    Token((term_floor.0 >> TERM_BITS << TERM_BITS) | revision.0)
}

impl Machine {
    pub(super) fn change_lock(&mut self, step: &mut Step, name: &LockName, op: &LockOp) -> Outcome {
        self.check_primitives_live_here()?;
        validate::name("lock", name.as_str())?;
        match op {
            LockOp::Acquire { session, wait } => self.acquire(step, name, *session, *wait),
            LockOp::Release(token) => self.release_lock(step, name, *token),
        }
    }

    fn acquire(&mut self, step: &mut Step, name: &LockName, session: SessionId, wait: bool) -> Outcome {
        let sidecar = self.sessions.get(session)?.member.clone();
        let places = self.locks.get(name).map_or(0, |lock| lock.queue.len());
        check_may_ask(name, places, self.locks.len(), wait)?;
        let place = Place { token: token(self.term_floor, step.revision), session, sidecar };
        let token = place.token;
        let standing = if places == 0 {
            emit(step, name, granted(&place));
            Standing::Holds
        } else {
            Standing::Waits
        };
        self.sessions.hold(session, Thing::Place(name.clone(), token));
        Arc::make_mut(self.locks.get_or_insert_with(name, Arc::default)).queue.push_back(place);
        Ok(Reply::Placed(Placed { lock: name.clone(), token, session, standing }))
    }

    fn release_lock(&mut self, step: &mut Step, name: &LockName, token: Token) -> Outcome {
        let is_its = |place: &&Place| place.token == token || is_on(Mutant::SkipFence);
        let place = self.locks.get(name).and_then(|lock| lock.queue.iter().find(is_its));
        let token = place.map_or(token, |place| place.token);
        let session = place.ok_or_else(|| unknown(name, token))?.session;
        self.sessions.drop_held(session, Thing::Place(name.clone(), token));
        self.leave_queue(step, name, &BTreeSet::from([token]), LockLeaveReason::Released);
        Ok(Reply::Done)
    }

    /// Places of one lock are given up; a lock that nobody is left to hold is forgotten.
    pub(super) fn leave_queue(
        &mut self,
        step: &mut Step,
        name: &LockName,
        leaving: &BTreeSet<Token>,
        reason: LockLeaveReason,
    ) {
        let lock = Arc::make_mut(self.locks.get_mut(name).expect("places are of locks that exist"));
        lock.remove(step, name, leaving, reason);
        if lock.queue.is_empty() {
            self.locks.remove(name);
        }
    }

    pub(super) fn lock_view(&self, name: &LockName) -> LockView {
        let queue = self.locks.get(name).map(|lock| &lock.queue);
        let holder = queue.and_then(VecDeque::front).map(|Place { token, session, sidecar }| Holder {
            token: *token,
            session: *session,
            sidecar: sidecar.clone(),
        });
        let waiting = queue.into_iter().flatten().skip(1).map(|place| (place.token, place.session)).collect();
        LockView { name: name.clone(), holder, waiting, revision: self.revision }
    }

    /// What a place is now.
    pub fn standing(&self, name: &LockName, token: Token) -> Standing {
        let Some(lock) = self.locks.get(name) else { return Standing::Gone };
        match lock.queue.iter().position(|place| place.token == token) {
            Some(0) => Standing::Holds,
            Some(_) => Standing::Waits,
            None => Standing::Gone,
        }
    }
}

fn check_may_ask(name: &LockName, places: usize, locks: usize, wait: bool) -> Result<(), Rejection> {
    let limit = |message| Err(Rejection::new(ErrorCode::LimitReached, message));
    if places == 0 {
        return match locks < LOCKS_MAX {
            true => Ok(()),
            false => limit(format!("{LOCKS_MAX} locks of the partition are held, which is the limit; release some")),
        };
    }
    if !wait {
        return Err(held(name));
    }
    match places <= LOCK_WAITERS_MAX {
        true => Ok(()),
        false => limit(format!("{LOCK_WAITERS_MAX} wait for lock `{name}`, which is the limit; ask again later")),
    }
}

/// `lock_held`.
pub fn held(name: &LockName) -> Rejection {
    Rejection::new(ErrorCode::LockHeld, format!("lock `{name}` is held by another: ask again, or wait for it"))
}

/// `token_unknown`.
pub fn unknown(name: &LockName, token: Token) -> Rejection {
    let message = format!(
        "token: {token} is not, or no longer, of the holder of lock `{name}` or of one that waits: acquire it again"
    );
    Rejection::new(ErrorCode::TokenUnknown, message)
}
