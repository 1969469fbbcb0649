//! Sessions: a sidecar's lease on this partition. Keep-alives never enter the log; the leader times sessions in memory
//! and proposes their end. What a session carries ends with it, in the same entry.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Machine, SessionView, Step, validate};
use crate::chunks::Chunks;
use crate::code::{ErrorCode, Rejection};
use crate::command::{LeaveReason, LockLeaveReason, Outcome, Reply};
use crate::ids::{GroupName, LockName, MemberId, MemberName, SessionId, Token};
use crate::limits::{SESSIONS_MAX, SESSIONS_PER_MEMBER_MAX};

/// A live session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Session {
    pub(super) member: MemberName,
    incarnation: u64,
    ttl_ms: u64,
}

/// What hangs on a session.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Thing {
    /// A member of a group.
    Member(GroupName, MemberId),
    /// A place in a lock's queue.
    Place(LockName, Token),
}

/// All live sessions, with two indexes that a snapshot leaves out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sessions {
    live: Chunks<SessionId, Session>,
    /// The sessions of each member; the last is that of its newest run.
    by_member: BTreeSet<(MemberName, SessionId)>,
    /// What hangs on which session.
    held: BTreeSet<(SessionId, Thing)>,
}

impl Sessions {
    /// The next one of a snapshot; what hangs on it is added with [`Sessions::hold`]. `None` if it is not the next.
    pub(super) fn restore(&mut self, id: SessionId, session: Session) -> Option<()> {
        self.by_member.insert((session.member.clone(), id));
        self.live.push(id, session).then_some(())
    }

    pub(super) fn live(&self) -> &Chunks<SessionId, Session> {
        &self.live
    }

    pub(super) fn views(&self) -> Vec<SessionView> {
        self.live.keys().filter_map(|id| self.view(*id)).collect()
    }

    pub(super) fn view(&self, id: SessionId) -> Option<SessionView> {
        let Session { member, incarnation, ttl_ms } = self.live.get(&id)?.clone();
        Some(SessionView { id, member, incarnation, ttl_ms })
    }

    pub(super) fn held_by(&self, id: SessionId, member: &MemberName, incarnation: u64) -> Option<u64> {
        let session = self.live.get(&id)?;
        (session.member == *member && session.incarnation == incarnation).then_some(session.ttl_ms)
    }

    pub(super) fn timeouts(&self, after: SessionId) -> impl Iterator<Item = (SessionId, u64)> {
        let later = self.live.iter_from(&after).skip_while(move |(id, _)| **id == after);
        later.map(|(id, session)| (*id, session.ttl_ms))
    }

    /// The session, or `session_unknown`.
    pub(super) fn get(&self, id: SessionId) -> Result<&Session, Rejection> {
        self.live.get(&id).ok_or_else(|| {
            Rejection::new(
                ErrorCode::SessionUnknown,
                format!(
                    "session {id} ended, or never was; what it held is released: open a new session and join again"
                ),
            )
        })
    }

    /// Something hangs on this session from now on.
    pub(super) fn hold(&mut self, id: SessionId, thing: Thing) {
        debug_assert!(self.live.contains_key(&id), "what is held hangs on a live session");
        self.held.insert((id, thing));
    }

    /// Something hangs on this session no more.
    pub(super) fn drop_held(&mut self, id: SessionId, thing: Thing) {
        self.held.remove(&(id, thing));
    }

    fn insert(&mut self, id: SessionId, session: Session) {
        self.by_member.insert((session.member.clone(), id));
        self.live.insert(id, session);
    }

    /// The sessions of a member, the newest first.
    fn of_member(&self, member: &MemberName) -> impl Iterator<Item = SessionId> {
        let range = (member.clone(), SessionId(0))..=(member.clone(), SessionId(u64::MAX));
        self.by_member.range(range).rev().map(|(_, id)| *id)
    }

    /// Removes a session; gives what hung on it.
    fn remove(&mut self, id: SessionId) -> Vec<Thing> {
        let Some(session) = self.live.remove(&id) else { return Vec::new() };
        self.by_member.remove(&(session.member, id));
        let first = (id, Thing::Member(GroupName::default(), MemberId(0)));
        let held: Vec<_> = self.held.range(first..).take_while(|(of, _)| *of == id).cloned().collect();
        for key in &held {
            self.held.remove(key);
        }
        held.into_iter().map(|(_, thing)| thing).collect()
    }
}

impl Machine {
    pub(super) fn open_session(
        &mut self,
        step: &mut Step,
        member: &MemberName,
        incarnation: u64,
        ttl_ms: u64,
    ) -> Outcome {
        validate::name("member", member.as_str())?;
        validate::ttl_ms(ttl_ms)?;
        let newest = self.sessions.of_member(member).next();
        if let Some(id) = newest {
            let session = self.sessions.live.get_mut(&id).expect("the index names live sessions only");
            if session.incarnation == incarnation {
                session.ttl_ms = ttl_ms;
                return Ok(Reply::Session(id));
            }
            // The process that held it is gone, but until it expires applications may act on what that has told them.
            self.check_runs_limit(member)?;
        } else if self.sessions.live.len() >= SESSIONS_MAX {
            return Err(Rejection::new(
                ErrorCode::LimitReached,
                format!("the partition has {SESSIONS_MAX} sessions, which is the limit; try again when one has ended"),
            ));
        }
        let id = SessionId(step.revision.0);
        self.sessions.insert(id, Session { member: member.clone(), incarnation, ttl_ms });
        Ok(Reply::Session(id))
    }

    fn check_runs_limit(&self, member: &MemberName) -> Result<(), Rejection> {
        if self.sessions.of_member(member).count() < SESSIONS_PER_MEMBER_MAX {
            return Ok(());
        }
        Err(Rejection::new(
            ErrorCode::LimitReached,
            format!(
                "sessions of {SESSIONS_PER_MEMBER_MAX} runs of {member} have not expired yet, which is the limit; find out why \
                 it starts so often, and try again when one has"
            ),
        ))
    }

    /// Closing what is closed already is no error: the caller has what it wants.
    pub(super) fn close_session(&mut self, step: &mut Step, session: SessionId) -> Outcome {
        self.end_sessions(step, [session], LeaveReason::SessionClosed);
        Ok(Reply::Done)
    }

    pub(super) fn expire_sessions(&mut self, step: &mut Step, sessions: &[SessionId]) -> Outcome {
        self.end_sessions(step, sessions.iter().copied(), LeaveReason::SessionExpired);
        Ok(Reply::Done)
    }

    /// Ends sessions, and what hangs on them: first all memberships, then one election per group; all places of a lock,
    /// then it is granted.
    fn end_sessions(&mut self, step: &mut Step, sessions: impl IntoIterator<Item = SessionId>, reason: LeaveReason) {
        let mut members: BTreeMap<GroupName, BTreeSet<MemberId>> = BTreeMap::new();
        let mut places: BTreeMap<LockName, BTreeSet<Token>> = BTreeMap::new();
        for thing in sessions.into_iter().flat_map(|id| self.sessions.remove(id)) {
            match thing {
                Thing::Member(group, member) => members.entry(group).or_default().insert(member),
                Thing::Place(lock, token) => places.entry(lock).or_default().insert(token),
            };
        }
        for (name, members) in members {
            let group = self.groups.get_mut(&name).expect("memberships are of groups that exist");
            Arc::make_mut(group).remove(step, &members, reason);
        }
        let reason = match reason {
            LeaveReason::SessionExpired => LockLeaveReason::SessionExpired,
            LeaveReason::SessionClosed | LeaveReason::Left | LeaveReason::GroupDeleted => {
                LockLeaveReason::SessionClosed
            }
        };
        for (name, tokens) in places {
            self.leave_queue(step, &name, &tokens, reason);
        }
    }
}
