//! What is said to a lock, and what it says.

use serde::{Deserialize, Serialize};

use crate::ids::{LockName, MemberName, Revision, SessionId, Token};

/// A change of one lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockOp {
    /// Asks for the lock: takes it if it is free, else the last place in its queue.
    Acquire {
        /// Whose session carries the place.
        session: SessionId,
        /// Else a lock that is not free is refused (`lock_held`).
        wait: bool,
    },
    /// Gives up a place: the holder's, and then the next is granted the lock; or one in the queue.
    Release(Token),
}

/// What became of a place in a lock's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// It holds the lock.
    Holds,
    /// It waits for it.
    Waits,
    /// It was given up, or its session has ended.
    Gone,
}

/// A place in a lock's queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// The lock.
    pub lock: LockName,
    /// Names the place, and fences what its holder does.
    pub token: Token,
    /// The session that carries it.
    pub session: SessionId,
    /// What it is now.
    pub standing: Standing,
}

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The fencing token.
    pub token: Token,
    /// The session that carries it.
    pub session: SessionId,
    /// The sidecar that holds the session.
    pub sidecar: MemberName,
}

/// A lock as it is at one revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockView {
    /// Its name.
    pub name: LockName,
    /// Who holds it; `None`: it is free.
    pub holder: Option<Holder>,
    /// Who waits, in the order of asking, and on which session.
    pub waiting: Vec<(Token, SessionId)>,
    /// Of the partition, when this was read.
    pub revision: Revision,
}

impl LockView {
    /// What a place is now.
    pub fn standing(&self, token: Token) -> Standing {
        if self.holder.as_ref().is_some_and(|holder| holder.token == token) {
            Standing::Holds
        } else if self.waiting.iter().any(|(waiting, _)| *waiting == token) {
            Standing::Waits
        } else {
            Standing::Gone
        }
    }
}

/// What changed in a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockEvent {
    /// A place holds the lock now.
    Granted {
        /// Larger than that of every holder before.
        token: Token,
        /// The sidecar that holds the session.
        sidecar: MemberName,
    },
    /// A place is gone; if it was the holder's, the next is granted the lock with the next event, if anybody waits.
    Left {
        /// Which.
        token: Token,
        /// Why.
        reason: LeaveReason,
    },
}

/// Why a place in a lock's queue is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaveReason {
    /// It was given up.
    Released,
    /// Its session expired.
    SessionExpired,
    /// Its sidecar closed the session, or opened a new one after a restart.
    SessionClosed,
}
