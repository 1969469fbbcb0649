//! The replicated state machine of one partition.
//!
//! Every replica applies the same commands in the same order and so holds the same state, down to the bytes of its
//! snapshot. Nothing here reads a clock, draws a number or does I/O: time is the leader's stamp on the command,
//! identity is the command's place among all of them.
//!
//! ```text
//!   command ► apply ──► dedup ── a request that was applied before (D11) ──► its outcome again, no events
//!                         │
//!                         ├─► sessions ── a session ends ──┐
//!                         ├─► group ◄──────────────────────┘ members of ended sessions leave
//!                         │     └─► election ── terms, leaders, releases
//!                         ├─► lock  ◄── places of ended sessions are given up
//!                         ├─► map
//!                         └─► directory   only in the management group
//! ```
//!
//! | what | is | so that |
//! |---|---|---|
//! | session id, member id | the revision that made it | it is never used again, and order of ids is order of joining |
//! | token of a lock | the generation and the revision that asked | it rises in the order of granting, and nothing is kept of a free lock |
//! | term | the group's last + 1; the first starts above all of deleted groups and partitions | it only rises for the life of the name (D4) |
//! | event id | revision and number within it | a watch can resume, and all see one order (S34) |
//! | logical time | the largest stamp so far | a clock that steps back changes nothing |
//!
//! What one command changes in a group is announced in this order: who came or went, `Vacated`, `Term`, `Elected`; a term
//! is always announced before its leader (S31), and never without one (S32). When several members go at once, all of
//! them go before the successor is elected, so nobody who is about to go is elected.
//!
//! A command that is refused changes nothing but the record of its request. A membership always hangs on a live
//! session: it is removed by the same command as the session.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::chunks::Chunks;
use crate::code::{ErrorCode, Rejection};
use crate::command::{
    Answer, Command, Envelope, Event, EventKind, GroupEvent, GroupOp, GroupView, LockOp, MapOp, MemberRecord, Outcome,
    PartitionGroupRecord, Placed, PrimitiveAddress, Query, Reply, Standing, View,
};
use crate::ids::{
    EventId, GroupName, LockName, MapName, MemberName, PartitionGroupName, Primitive, PrimitiveKind, Revision,
    SessionId, Term,
};

mod sessions;

mod dedup;

mod asked;

mod group;

mod election;

pub mod lock;

mod map;

mod directory;

pub mod snapshot;

pub mod validate;

#[cfg(test)]
mod tests;

use dedup::{Dedup, Verdict};
use group::Group;
use lock::Lock;
use map::Maps;
use sessions::Sessions;

/// The newest version of the machine's behaviour that this program knows.
pub const MACHINE_VERSION: u32 = 1;

/// How many bits of a term count the elections of one generation of a partition; the bits above hold the generation
/// (D4).
pub const TERM_BITS: u32 = 40;

/// Generations are below this: what is left of 64 bits beside [`TERM_BITS`].
pub const GENERATIONS_MAX: u64 = 1 << (64 - TERM_BITS);

/// The directory: state of the management group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// Members by name.
    pub members: BTreeMap<MemberName, MemberRecord>,
    /// Partition groups by name.
    pub partition_groups: BTreeMap<PartitionGroupName, PartitionGroupRecord>,
    /// Primitives, with the revision of their first use.
    pub primitives: Chunks<PrimitiveAddress, Revision>,
    /// How many partition groups were ever deleted.
    pub deleted_partition_groups: u64,
}

/// What a session is, for the leader that times it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// Which.
    pub id: SessionId,
    /// The sidecar.
    pub member: MemberName,
    /// Its run.
    pub incarnation: u64,
    /// The time-out.
    pub ttl_ms: u64,
}

/// A release that the leader of the partition must time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingRelease {
    /// The group.
    pub group: GroupName,
    /// The term that is to end.
    pub term: Term,
    /// How long the leader may take.
    pub timeout_ms: u64,
    /// The session that carries the leader.
    pub session: SessionId,
}

/// What applying one command gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// For the one who asked.
    pub outcome: Outcome,
    /// For watchers, in order.
    pub events: Vec<Event>,
}

/// What a partition is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Role {
    /// It holds the directory, and no primitives.
    Management,
    /// It holds primitives, and no directory.
    Primitives,
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    role: Role,
    revision: Revision,
    now_ms: u64,
    sessions: Sessions,
    groups: Chunks<GroupName, Arc<Group>>,
    /// The releases that are pending in groups: an index, which a snapshot leaves out.
    releasing: BTreeMap<GroupName, PendingRelease>,
    maps: Maps,
    locks: Chunks<LockName, Arc<Lock>>,
    /// At least the last term of every group that was deleted, and of every partition that had this one's name before.
    term_floor: Term,
    dedup: Dedup,
    directory: Directory,
}

/// One command while it is applied.
#[derive(Debug)]
struct Step {
    revision: Revision,
    /// The partition's time, which never goes back.
    now_ms: u64,
    /// The clock of the leader that took it.
    stamped_ms: u64,
    events: Vec<Event>,
}

impl Step {
    /// Announces a change; gives its place in the order.
    fn emit(&mut self, of: Primitive, kind: EventKind) -> EventId {
        let ordinal = u32::try_from(self.events.len()).expect("what hangs on a session is far less than 2^32");
        let id = EventId { revision: self.revision, ordinal };
        self.events.push(Event { id, of, kind });
        id
    }

    /// Announces a change of `group`.
    fn emit_group(&mut self, group: &mut Group, event: GroupEvent) {
        group.last_event = self.emit((&group.name).into(), EventKind::Group(event));
    }
}

impl Machine {
    /// The state of a partition that has no entry yet. `generation` is the partition group's
    /// ([`PartitionGroupRecord::generation`]): all terms of this partition are above `generation << TERM_BITS`.
    ///
    /// # Panics
    /// If `generation` is not below [`GENERATIONS_MAX`]; the directory hands out none that is not.
    pub fn new(generation: u64) -> Self {
        assert!(generation < GENERATIONS_MAX, "generation {generation} leaves no room for terms");
        Self::empty(Role::Primitives, Term(generation << TERM_BITS))
    }

    /// The state of the management group's partition that has no entry yet. It takes sessions and directory commands;
    /// commands of primitives are refused.
    pub fn management() -> Self {
        Self::empty(Role::Management, Term(0))
    }

    fn empty(role: Role, term_floor: Term) -> Self {
        Self {
            role,
            revision: Revision(0),
            now_ms: 0,
            sessions: Sessions::default(),
            groups: Chunks::default(),
            releasing: BTreeMap::new(),
            maps: Maps::default(),
            locks: Chunks::default(),
            term_floor,
            dedup: Dedup::default(),
            directory: Directory::default(),
        }
    }

    /// Applies one command. `revision` is its own, `ts_ms` the leader's stamp; logical time is the maximum of
    /// stamps.
    ///
    /// A request that was applied before gives its outcome again, without events. Where that outcome holds a view of
    /// the group, the view is of now (see [`GroupView::revision`]), and so is what became of a place in a lock's queue:
    /// what was done is never done again, what is shown is fresh. The id of a request that asked for something else is
    /// refused (`invalid_argument`), and nothing is done.
    ///
    /// # Panics
    /// If `revision` is not above that of the command before: one that is applied twice would make replicas differ.
    pub fn apply(&mut self, revision: Revision, ts_ms: u64, envelope: &Envelope) -> Applied {
        assert!(revision > self.revision, "command {revision} comes after command {}", self.revision);
        self.revision = revision;
        self.now_ms = self.now_ms.max(ts_ms);
        let mut step = Step { revision, now_ms: self.now_ms, stamped_ms: ts_ms, events: Vec::new() };
        let outcome = match envelope.request {
            None => self.execute(&mut step, &envelope.command),
            Some(request) => {
                let asked = asked::asked(&envelope.command);
                match self.dedup.admit(request, asked, &step) {
                    Verdict::Refused(rejection) => Err(rejection),
                    Verdict::Applied(outcome) => self.refresh(outcome),
                    Verdict::New => {
                        let outcome = self.execute(&mut step, &envelope.command);
                        self.dedup.keep(request, asked, &step, &outcome);
                        outcome
                    }
                }
            }
        };
        debug_assert!(outcome.is_ok() || step.events.is_empty(), "what is refused changes nothing");
        self.note_releases(&step.events);
        Applied { outcome, events: step.events }
    }

    /// Counts a command that cannot be decoded and so changes nothing, so that the next one has the same revision everywhere.
    pub fn skip(&mut self) -> Revision {
        self.revision = Revision(self.revision.0 + 1);
        self.revision
    }

    /// Keeps the index of releases: each begins and ends with an event.
    fn note_releases(&mut self, events: &[Event]) {
        for Event { id: _, of, kind } in events {
            let EventKind::Group(event) = kind else { continue };
            let group = || GroupName::from(&*of.name);
            match event {
                GroupEvent::Releasing { .. } => {
                    let release = self.groups.get(&group()).and_then(|group| group.pending_release());
                    self.releasing.extend(release.map(|release| (group(), release)));
                }
                GroupEvent::Vacated { .. } | GroupEvent::Deleted if !self.releasing.is_empty() => {
                    self.releasing.remove(&group());
                }
                GroupEvent::Vacated { .. }
                | GroupEvent::Deleted
                | GroupEvent::Joined(_)
                | GroupEvent::Left { .. }
                | GroupEvent::Updated(_)
                | GroupEvent::Term(_)
                | GroupEvent::Elected { .. }
                | GroupEvent::Config { .. } => {}
            }
        }
    }

    fn execute(&mut self, step: &mut Step, command: &Command) -> Outcome {
        match command {
            Command::OpenSession { member, incarnation, ttl_ms } => {
                self.open_session(step, member, *incarnation, *ttl_ms)
            }
            Command::CloseSession(session) => self.close_session(step, *session),
            Command::ExpireSessions(sessions) => self.expire_sessions(step, sessions),
            Command::Group { name, op } => self.change_group(step, name, op),
            Command::Directory(op) => self.change_directory(step, op),
            Command::Map { name, op } => self.change_map(step, name, op),
            Command::Lock { name, op } => self.change_lock(step, name, op),
        }
    }

    /// Answers a query from what is applied.
    ///
    /// # Errors
    /// `group_unknown`; `invalid_argument` for the directory outside the management group, for primitives in it, and for
    /// fields that are wrong.
    pub fn query(&self, query: &Query) -> Result<Answer, Rejection> {
        match query {
            Query::Directory => self.check_directory_lives_here()?,
            Query::Revision => {}
            Query::Group(_) | Query::Groups | Query::Entry { .. } | Query::Entries { .. } | Query::Lock(_) => {
                self.check_primitives_live_here()?;
            }
        }
        match query {
            Query::Group(name) => {
                validate::name("group", name.as_str())?;
                let view = self.group(name).ok_or_else(|| group::unknown(name))?;
                Ok(Answer::Group(Box::new(view)))
            }
            Query::Groups => Ok(Answer::Groups(self.groups.values().map(|group| group.view(self.revision)).collect())),
            Query::Directory => Ok(Answer::Directory(Box::new(self.directory.clone()))),
            Query::Entry { map, key } => Ok(Answer::Entry(self.maps.entry(map, key))),
            Query::Entries { map, prefix, after, limit } => {
                validate::page(*limit)?;
                Ok(Answer::Entries(self.maps.page(map, prefix, after, *limit)))
            }
            Query::Lock(name) => Ok(Answer::Lock(Box::new(self.lock_view(name)))),
            Query::Revision => Ok(Answer::Revision(self.revision)),
        }
    }

    /// A primitive as it is now. `None` for a group that there is not; maps without entries and locks that are free are
    /// always there.
    pub fn view(&self, of: &Primitive) -> Option<View> {
        let name = &*of.name;
        match of.kind {
            PrimitiveKind::Group => self.group(&name.into()).map(View::Group),
            PrimitiveKind::Map => Some(View::Map(self.maps.view(&name.into(), self.revision))),
            PrimitiveKind::Lock => Some(View::Lock(self.lock_view(&name.into()))),
        }
    }

    /// The last event of a primitive. `None` if that is not known.
    pub fn last_event(&self, of: &Primitive) -> Option<EventId> {
        let name = &*of.name;
        match of.kind {
            PrimitiveKind::Group => self.groups.get(&GroupName::from(name)).map(|group| group.last_event),
            PrimitiveKind::Map => self.maps.last_event(&MapName::from(name)),
            PrimitiveKind::Lock => None,
        }
    }

    /// Whether a command would give something back that is there now: a place in a group, a leadership, a lock, what a
    /// map or a group holds. A volume that is too full for what grows takes it, and since each can be given back once,
    /// nobody can make much of it.
    pub fn gives_back(&self, command: &Command) -> bool {
        match command {
            Command::Group { name, op } => self.groups.get(name).is_some_and(|group| match op {
                GroupOp::Leave(member) => group.members.contains_key(member),
                GroupOp::Release(term) | GroupOp::ReleaseTimedOut(term) => {
                    group.term == *term && group.leader.is_some()
                }
                GroupOp::Delete => true,
                GroupOp::Create { .. }
                | GroupOp::Configure { .. }
                | GroupOp::Join { .. }
                | GroupOp::SetMetadata { .. }
                | GroupOp::StepDown { .. } => false,
            }),
            Command::Map { name, op } => match op {
                MapOp::Delete { key, only: _ } => self.maps.entry(name, key).is_some(),
                MapOp::Drop => self.maps.last_event(name).is_some(),
                MapOp::Put { .. } => false,
            },
            Command::Lock { name, op } => match op {
                LockOp::Release(token) => self.standing(name, *token) != Standing::Gone,
                LockOp::Acquire { .. } => false,
            },
            Command::OpenSession { .. }
            | Command::CloseSession(_)
            | Command::ExpireSessions(_)
            | Command::Directory(_) => false,
        }
    }

    /// One group as it is now; `None` if there is none of this name.
    pub fn group(&self, name: &GroupName) -> Option<GroupView> {
        self.groups.get(name).map(|group| group.view(self.revision))
    }

    /// Live sessions. In the order of their ids.
    pub fn sessions(&self) -> Vec<SessionView> {
        self.sessions.views()
    }

    /// One live session.
    pub fn session(&self, id: SessionId) -> Option<SessionView> {
        self.sessions.view(id)
    }

    /// Live sessions that were opened after this one, with their time-outs, for the leader's timers. In the order of their
    /// ids, which is that of opening. Costs as much as it gives.
    pub fn session_timeouts(&self, after: SessionId) -> impl Iterator<Item = (SessionId, u64)> {
        self.sessions.timeouts(after)
    }

    /// The time-out of a session that is live and of this run of this sidecar.
    pub fn session_held_by(&self, id: SessionId, member: &MemberName, incarnation: u64) -> Option<u64> {
        self.sessions.held_by(id, member, incarnation)
    }

    /// How many sessions are live.
    pub fn session_count(&self) -> usize {
        self.sessions.live().len()
    }

    /// Whether a session is live.
    pub fn has_session(&self, id: SessionId) -> bool {
        self.sessions.live().contains_key(&id)
    }

    /// Releases that are pending and wait for the leaders that a session carries. Costs as much as there are of all sessions.
    pub fn releases_of(&self, session: SessionId) -> impl Iterator<Item = &PendingRelease> {
        self.releasing.values().filter(move |release| release.session == session)
    }

    /// Releases that are pending, for the leader's timers. In the order of the groups' names. Costs as much as it gives.
    pub fn pending_releases(&self) -> impl Iterator<Item = &PendingRelease> {
        self.releasing.values()
    }

    /// The directory (empty outside the management group).
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The revision of the last command that was applied; 0 before the first.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Logical time: the largest stamp of the commands applied, in Unix milliseconds; 0 before the first.
    pub fn logical_ms(&self) -> u64 {
        self.now_ms
    }

    fn check_primitives_live_here(&self) -> Result<(), Rejection> {
        match self.role {
            Role::Primitives => Ok(()),
            Role::Management => Err(Rejection::new(
                ErrorCode::InvalidArgument,
                "partition_group: the name `system` is reserved: the management group holds no primitives; name another \
                 partition group",
            )),
        }
    }

    fn check_directory_lives_here(&self) -> Result<(), Rejection> {
        match self.role {
            Role::Management => Ok(()),
            Role::Primitives => Err(Rejection::new(
                ErrorCode::InvalidArgument,
                "partition: the directory is in the management group only; send this to partition `system/1`",
            )),
        }
    }

    /// The outcome of a request that was applied before, with what it shows as it is now.
    fn refresh(&self, outcome: Outcome) -> Outcome {
        match outcome {
            Ok(Reply::Joined(joined)) => {
                let (member, as_of_then) = *joined;
                // A member that is gone is shown as of its join, so that the caller finds itself and then sees that it
                // left.
                let now = self.group(&as_of_then.name).filter(|view| view.members.iter().any(|m| m.id == member));
                Ok(Reply::Joined(Box::new((member, now.unwrap_or(as_of_then)))))
            }
            Ok(Reply::Group(as_of_then)) => {
                let now = self.group(&as_of_then.name);
                Ok(Reply::Group(now.map_or(as_of_then, Box::new)))
            }
            Ok(Reply::Placed(as_of_then)) => {
                let standing = self.standing(&as_of_then.lock, as_of_then.token);
                Ok(Reply::Placed(Placed { standing, ..as_of_then }))
            }
            Ok(Reply::Done | Reply::Session(_) | Reply::PartitionGroup(_) | Reply::Written { .. }) | Err(_) => outcome,
        }
    }
}
