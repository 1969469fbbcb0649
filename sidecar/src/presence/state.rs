//! Decides, without clock or I/O, whether a membership leads and for how long that may be vouched for.
//!
//! | input | says |
//! |---|---|
//! | [`Folded`] | who leads, as far as the watch of the group has come |
//! | [`SessionStatus`] | until when nobody else is granted what the session holds |
//! | [`Control`] | what the application or this sidecar has given up already, and when a lease ends |
//!
//! The answer is yes only while all three say so, and never past the earliest of their deadlines.

use std::collections::BTreeSet;

use coterie_core::command::{Event, EventKind, GroupEvent, GroupView};
use coterie_core::{EventId, MemberId, Term};

use crate::sessions::{SessionState, SessionStatus};

/// A group as far as a watch has come. Inputs that are older than what is known are ignored, so a view or a replica that
/// lags never turns it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folded {
    /// Everything up to here is known.
    pub at: EventId,
    /// Whether there is such a group.
    pub exists: bool,
    /// The term.
    pub term: Term,
    /// Who leads.
    pub leader: Option<MemberId>,
    /// Where in the order of events the present leader became known.
    pub elected_at: EventId,
    /// Until when the leader that was asked to release may go on, by the monotonic clock, in milliseconds.
    pub release_until_ms: Option<u64>,
    /// Who is in the group.
    pub members: BTreeSet<MemberId>,
}

/// The place in the order of events after everything that a view shows.
pub fn place_of(view: &GroupView) -> EventId {
    EventId { revision: view.revision, ordinal: u32::MAX }.max(view.last_event)
}

impl Folded {
    /// What a view shows, read at `now_ms`.
    pub fn of(view: &GroupView, now_ms: u64) -> Self {
        Self {
            at: place_of(view),
            exists: true,
            term: view.term,
            leader: view.leader,
            elected_at: view.last_event,
            release_until_ms: view.releasing.then(|| now_ms.saturating_add(view.config.release_timeout_ms)),
            members: view.members.iter().map(|member| member.id).collect(),
        }
    }

    /// Takes in a view; says whether it was news.
    pub fn view(&mut self, view: &GroupView, now_ms: u64) -> bool {
        if place_of(view) <= self.at {
            return false;
        }
        let mut next = Self::of(view, now_ms);
        if self.exists && next.term == self.term && next.leader == self.leader {
            next.elected_at = self.elected_at;
            // The first word of a release started its time.
            next.release_until_ms = next.release_until_ms.map(|until_ms| self.release_until_ms.unwrap_or(until_ms));
        }
        *self = next;
        true
    }

    /// Takes in an event; says whether it was news.
    pub fn event(&mut self, event: &Event, now_ms: u64) -> bool {
        let EventKind::Group(kind) = &event.kind else { return false };
        if event.id <= self.at {
            return false;
        }
        self.at = event.id;
        match kind {
            GroupEvent::Joined(member) => {
                self.members.insert(member.id);
            }
            GroupEvent::Left { member, reason: _ } => {
                self.members.remove(member);
                if self.leader == Some(*member) {
                    self.vacate();
                }
            }
            GroupEvent::Term(term) => {
                self.term = *term;
                self.vacate();
            }
            GroupEvent::Elected { term, leader } => {
                self.term = *term;
                self.leader = Some(*leader);
                self.elected_at = event.id;
                self.release_until_ms = None;
            }
            GroupEvent::Vacated { term: _, leader: _ } => self.vacate(),
            GroupEvent::Releasing { term: _, leader: _, timeout_ms, reason: _ } => {
                self.release_until_ms = Some(now_ms.saturating_add(*timeout_ms));
            }
            GroupEvent::Updated(_) | GroupEvent::Config { config: _, config_revision: _ } => {}
            GroupEvent::Deleted => self.missing(),
        }
        true
    }

    /// The partition was made again: nobody leads as far as is known, and whatever comes next is news.
    pub fn remade(&mut self) {
        self.at = EventId::default();
        self.vacate();
    }

    /// The group is gone.
    pub fn missing(&mut self) {
        self.exists = false;
        self.members.clear();
        self.vacate();
    }

    /// Whether this member, which was in the group, is known to be in it no more.
    pub fn is_gone(&self, member: MemberId) -> bool {
        !self.members.contains(&member) && self.at.revision.0 >= member.0
    }

    fn vacate(&mut self) {
        self.leader = None;
        self.release_until_ms = None;
    }
}

/// What was given up, or will be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// The membership is about to be given up: nothing is vouched for any more.
    pub withdrawn: bool,
    /// The application has released this term and all before it.
    pub released: Option<Term>,
    /// Nothing is vouched for beyond this term: the sidecar is draining.
    pub last_term: Option<Term>,
    /// When the lease ends, by the monotonic clock, in milliseconds. `None` for other presences.
    pub lease_until_ms: Option<u64>,
    /// What the application was told last: that it leads this term until then.
    pub told: Option<(Term, u64)>,
}

impl Control {
    /// How long the place must still be kept because the application may act on what it was told, in milliseconds.
    pub fn must_keep_ms(&self, member: MemberId, folded: &Folded, now_ms: u64) -> u64 {
        match self.told {
            Some((term, until_ms))
                if folded.leader == Some(member) && folded.term == term && self.released < Some(term) =>
            {
                until_ms.saturating_sub(now_ms)
            }
            Some(_) | None => 0,
        }
    }
}

/// Whether a membership leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelfState {
    /// Whose.
    pub member: MemberId,
    /// Whether it leads.
    pub leads: bool,
    /// The group's term; while it leads, its own.
    pub term: Term,
    /// Until when that it leads may be said, by the monotonic clock, in milliseconds; 0 when it does not lead.
    pub valid_until_ms: u64,
    /// The session that carries it, at this time.
    pub session: SessionState,
    /// Whether it leads and was asked to release.
    pub releasing: bool,
    /// The event that made it lead, if it does; watchers of the same group should see that first.
    pub elected_at: EventId,
}

/// What is known by the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionSays {
    /// How it is.
    pub status: SessionStatus,
    /// Until when the leader may go on that was asked to release, as the partition's leader said with a keep-alive.
    pub release_until_ms: Option<u64>,
}

/// Decides what may be said at `now_ms`.
pub fn decide(member: MemberId, folded: &Folded, session: SessionSays, control: &Control, now_ms: u64) -> SelfState {
    let SessionSays { status: session, release_until_ms } = session;
    let elected = folded.leader == Some(member);
    let given_up = control.withdrawn
        || control.released >= Some(folded.term)
        || control.last_term.is_some_and(|last| folded.term > last);
    let until_ms = session
        .valid_until_ms
        .min(control.lease_until_ms.unwrap_or(u64::MAX))
        .min(folded.release_until_ms.unwrap_or(u64::MAX))
        .min(release_until_ms.unwrap_or(u64::MAX));
    let leads = elected && !given_up && session.state != SessionState::Lost && now_ms < until_ms;
    SelfState {
        member,
        leads,
        term: folded.term,
        valid_until_ms: if leads { until_ms } else { 0 },
        session: session.at(now_ms),
        releasing: elected && folded.release_until_ms.is_some() && session.state != SessionState::Lost,
        elected_at: if elected { folded.elected_at } else { EventId::default() },
    }
}
