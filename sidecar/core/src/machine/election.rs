//! The election of one group.
//!
//! ```text
//!             elect: Term(n+1), Elected
//!   nobody ────────────────────────────► leads ──── step down: Releasing ───► leads, releasing
//!     ▲                                   │  │                                     │
//!     │        leaves: Left, Vacated      │  │ release: Vacated                    │ release, or time-out: Vacated
//!     └───────────────────────────────────┘  └──────────────► nobody ◄─────────────┘
//! ```
//! Nobody leads only until the end of the entry, or while there is no member. The candidate that has stood longest is
//! elected (D3); one that released stands from then on, so it is last. A term begins only with its leader (S31, S32).

use coterie_mutants::{Mutant, is_on};

use super::PendingRelease;
use super::Step;
use super::group::{Group, Member};
use crate::command::GroupEvent;
use crate::ids::{MemberId, Term};

impl Group {
    /// Elects the longest-standing member, in a new term, if nobody leads and there is one.
    pub(super) fn elect(&mut self, step: &mut Step) {
        if self.leader.is_some() {
            return;
        }
        let standing = |member: &&Member| (member.candidate_since, member.view.id);
        let longest_standing = match is_on(Mutant::ElectOutOfTurn) {
            true => self.members.values().max_by_key(standing),
            false => self.members.values().min_by_key(standing),
        };
        let Some(leader) = longest_standing.map(|member| member.view.id) else { return };
        let reused = is_on(Mutant::ReuseTerm) && self.term > Term(0);
        let term = if reused { self.term } else { Term(self.term.max(self.terms_from).0 + 1) };
        assert!(term > self.term || reused, "terms rise");
        self.term = term;
        self.leader = Some(leader);
        step.emit_group(self, GroupEvent::Term(term));
        step.emit_group(self, GroupEvent::Elected { term, leader });
    }

    /// The leader, whoever it is, leads no more. Its term stays the present one until the next election.
    pub(super) fn vacate(&mut self, step: &mut Step) {
        self.releasing = None;
        if let Some(leader) = self.leader.take() {
            step.emit_group(self, GroupEvent::Vacated { term: self.term, leader });
        }
    }

    /// Asks the leader to release (D16). No effect if nobody leads, or it was asked already.
    pub(super) fn step_down(&mut self, step: &mut Step, reason: &str) {
        let Some(leader) = self.leader else { return };
        if self.releasing.is_some() {
            return;
        }
        // The time-out that the leader is told is the one that counts, also if the configuration changes meanwhile.
        let timeout_ms = self.config.release_timeout_ms;
        self.releasing = Some(timeout_ms);
        step.emit_group(self, GroupEvent::Releasing { term: self.term, leader, timeout_ms, reason: reason.to_owned() });
    }

    /// The leader of `term` has stopped: it goes to the end of the queue and the next leads. No effect in another term.
    pub(super) fn release(&mut self, step: &mut Step, term: Term) {
        let Some(leader) = self.leader_of(term) else { return };
        self.vacate(step);
        let member = self.members.get_mut(&leader).expect("the leader is a member");
        member.candidate_since = step.revision;
        self.elect(step);
    }

    /// As [`Group::release`], if the leader of `term` was asked to release: nobody who was not is timed.
    pub(super) fn release_timed_out(&mut self, step: &mut Step, term: Term) {
        if self.releasing.is_some() {
            self.release(step, term);
        }
    }

    /// Who leads in `term`, if that is the present one.
    fn leader_of(&self, term: Term) -> Option<MemberId> {
        self.leader.filter(|_| self.term == term)
    }

    /// The release that the partition's leader must time.
    pub(super) fn pending_release(&self) -> Option<PendingRelease> {
        let timeout_ms = self.releasing?;
        let session = self.members.get(&self.leader?)?.view.session;
        Some(PendingRelease { group: self.name.clone(), term: self.term, timeout_ms, session })
    }
}
