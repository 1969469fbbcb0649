//! The deadlines of one partition, in the order in which they run out. Pure: times come in.
//!
//! What the machine holds is taken over only after it has changed, so a look at sessions that are idle costs the ones
//! that have run out, however many there are.

use std::collections::{BTreeMap, BTreeSet};

use coterie_core::machine::PendingRelease;
use coterie_core::{GroupName, Revision, SessionId, Term};

use crate::limits;

/// The deadlines of one partition, while this member leads it.
#[derive(Default)]
pub(super) struct Deadlines {
    /// Which leadership they belong to, or belonged to last.
    term: Option<u64>,
    /// Whether this member leads in that term now.
    leads: bool,
    /// When they were last looked at.
    tick_ms: u64,
    /// Up to where the machine is taken over.
    taken: Option<Revision>,
    /// What a session gets whose deadline is not known, beside its time-out.
    grace_ms: u64,
    sessions: Ordered<SessionId>,
    expiring: BTreeMap<SessionId, Fate>,
    releases: Ordered<(GroupName, Term)>,
    /// What was due is being proposed.
    proposing: bool,
}

/// Where the expiry of a session may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Not in the log, and it will not be.
    NotProposed,
    /// In the log, or on the way there.
    Unknown,
}

/// What has run out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    /// The leadership that says so.
    pub(super) term: u64,
    pub(super) sessions: Vec<SessionId>,
    pub(super) releases: Vec<(GroupName, Term)>,
}

/// What of a partition's machine is timed.
pub(super) struct Timed {
    pub(super) revision: Revision,
    /// With their time-outs.
    pub(super) sessions: Vec<(SessionId, u64)>,
    pub(super) releases: Vec<PendingRelease>,
}

/// What a keep-alive gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    Alive,
    /// It has run out already.
    Expiring,
    /// Another member leads.
    NotLeading,
}

impl Deadlines {
    /// A session that was kept alive now.
    pub(super) fn keep(&mut self, session: SessionId, now_ms: u64, ttl_ms: u64) -> Kept {
        if !self.leads {
            return Kept::NotLeading;
        }
        if self.expiring.contains_key(&session) {
            return Kept::Expiring;
        }
        self.sessions.set(session, now_ms + ttl_ms);
        Kept::Alive
    }

    /// Goes on to now, with what this leadership and majority are. Whoever led before may have vouched for any session up
    /// to now. And while this process slept, or was without a majority, nobody could be told of keep-alives. In either
    /// case each session gets its full time again, but for those whose expiry may be in the log of this very term.
    pub(super) fn go_on(&mut self, term: u64, has_quorum: bool, now_ms: u64) {
        let new_leader = !self.leads || self.term != Some(term);
        let slept = now_ms > self.tick_ms + limits::LATE_TICK_MS;
        if self.term != Some(term) {
            self.expiring.clear();
            self.proposing = false;
        }
        if new_leader || slept || !has_quorum {
            let (expiring, proposing) = (std::mem::take(&mut self.expiring), self.proposing);
            *self = Self { term: Some(term), leads: true, expiring, proposing, ..Self::default() };
        }
        self.grace_ms = if new_leader { limits::EXPIRY_GRACE_MS } else { 0 };
        self.tick_ms = now_ms;
    }

    /// Another member leads, or none does.
    pub(super) fn resign(&mut self) {
        self.leads = false;
    }

    /// Whether the machine has changed since it was taken over.
    pub(super) fn wants(&self, revision: Revision) -> bool {
        self.taken != Some(revision)
    }

    /// Takes over what the machine holds: what is new gets its full time, what is gone is forgotten.
    pub(super) fn take(&mut self, timed: Timed) {
        let Timed { revision, sessions, releases } = timed;
        self.taken = Some(revision);
        let live: BTreeSet<SessionId> = sessions.iter().map(|(id, _)| *id).collect();
        self.sessions.retain(|id| live.contains(id));
        self.expiring.retain(|id, _| live.contains(id));
        for (id, ttl_ms) in sessions {
            // Its holder was told that it is lost, or will be: there is nothing to wait for.
            let left_ms = if self.expiring.contains_key(&id) { 0 } else { ttl_ms + self.grace_ms };
            self.sessions.set_new(id, self.tick_ms + left_ms);
        }
        let pending: BTreeSet<_> = releases.iter().map(|release| (release.group.clone(), release.term)).collect();
        self.releases.retain(|key| pending.contains(key));
        for PendingRelease { group, term, timeout_ms } in releases {
            self.releases.set_new((group, term), self.tick_ms + timeout_ms);
        }
    }

    /// What has run out, longest overdue first, to be proposed now; nothing until [`Deadlines::proposed`] says what became
    /// of the last. It stays due until the machine says that it is gone.
    pub(super) fn due(&mut self) -> Due {
        if self.proposing {
            return Due::default();
        }
        let sessions: Vec<_> = self.sessions.until(self.tick_ms).take(limits::EXPIRE_BATCH_MAX).copied().collect();
        for session in &sessions {
            self.expiring.entry(*session).or_insert(Fate::NotProposed);
        }
        let due = Due {
            term: self.term.unwrap_or_default(),
            sessions,
            releases: self.releases.until(self.tick_ms).cloned().collect(),
        };
        self.proposing = !due.is_empty();
        due
    }

    /// What became of proposing what was due in `term`: the expiry of these sessions. One that was never proposed may be
    /// kept alive again, if no try before it may be in the log.
    pub(super) fn proposed(&mut self, term: u64, sessions: &[SessionId], fate: Fate) {
        if self.term != Some(term) {
            return;
        }
        self.proposing = false;
        for session in sessions {
            match (fate, self.expiring.get_mut(session)) {
                (Fate::Unknown, Some(so_far)) => *so_far = Fate::Unknown,
                (Fate::NotProposed, Some(Fate::NotProposed)) => {
                    self.expiring.remove(session);
                }
                (Fate::NotProposed, Some(Fate::Unknown)) | (_, None) => {}
            }
        }
    }
}

impl Due {
    pub(super) fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.releases.is_empty()
    }
}

/// Deadlines by what they are of, and by time.
struct Ordered<K> {
    at_ms: BTreeMap<K, u64>,
    order: BTreeSet<(u64, K)>,
}

impl<K> Default for Ordered<K> {
    fn default() -> Self {
        Self { at_ms: BTreeMap::new(), order: BTreeSet::new() }
    }
}

impl<K: Ord + Clone> Ordered<K> {
    fn set(&mut self, key: K, at_ms: u64) {
        if let Some(was) = self.at_ms.insert(key.clone(), at_ms) {
            self.order.remove(&(was, key.clone()));
        }
        self.order.insert((at_ms, key));
    }

    fn set_new(&mut self, key: K, at_ms: u64) {
        if !self.at_ms.contains_key(&key) {
            self.set(key, at_ms);
        }
    }

    fn retain(&mut self, keeps: impl Fn(&K) -> bool) {
        self.at_ms.retain(|key, _| keeps(key));
        self.order.retain(|(_, key)| keeps(key));
    }

    fn until(&self, now_ms: u64) -> impl Iterator<Item = &K> {
        self.order.iter().take_while(move |(at_ms, _)| *at_ms <= now_ms).map(|(_, key)| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL_MS: u64 = 5_000;
    const NONE: [u64; 0] = [];

    fn timed(revision: u64, sessions: impl IntoIterator<Item = u64>) -> Timed {
        let sessions = sessions.into_iter().map(|id| (SessionId(id), TTL_MS)).collect();
        Timed { revision: Revision(revision), sessions, releases: Vec::new() }
    }

    /// A leader of term 1 that looked at these sessions at 0.
    fn leading(sessions: impl IntoIterator<Item = u64>) -> Deadlines {
        let mut deadlines = Deadlines::default();
        deadlines.go_on(1, true, 0);
        deadlines.take(timed(1, sessions));
        deadlines
    }

    /// Ticks as a keeper does, in the term that it leads in, up to `until_ms`; what is due then, and is being proposed.
    fn propose(deadlines: &mut Deadlines, until_ms: u64) -> Vec<u64> {
        let term = deadlines.term.expect("it leads");
        while deadlines.tick_ms < until_ms {
            let now_ms = until_ms.min(deadlines.tick_ms + limits::EXPIRY_TICK_MS);
            deadlines.go_on(term, true, now_ms);
        }
        deadlines.due().sessions.into_iter().map(|id| id.0).collect()
    }

    /// The same, and whether it was proposed is not known.
    fn tick(deadlines: &mut Deadlines, until_ms: u64) -> Vec<u64> {
        let due = propose(deadlines, until_ms);
        end(deadlines, &due, Fate::Unknown);
        due
    }

    fn end(deadlines: &mut Deadlines, sessions: &[u64], fate: Fate) {
        let sessions: Vec<_> = sessions.iter().copied().map(SessionId).collect();
        deadlines.proposed(deadlines.term.expect("it leads"), &sessions, fate);
    }

    /// A leader of term 1 that has proposed to expire session 1 and waits for the answer; and when.
    fn expiring() -> (Deadlines, u64) {
        let now_ms = TTL_MS + limits::EXPIRY_GRACE_MS;
        let mut deadlines = leading([1]);
        assert_eq!(propose(&mut deadlines, now_ms), [1]);
        (deadlines, now_ms)
    }

    #[test]
    fn a_session_that_is_kept_alive_stays_and_the_others_run_out_in_the_order_of_their_deadlines() {
        let mut deadlines = leading([1, 2, 3]);
        assert_eq!(tick(&mut deadlines, 1_000), NONE);
        assert_eq!(deadlines.keep(SessionId(1), 1_000, TTL_MS), Kept::Alive);
        assert_eq!(tick(&mut deadlines, 2_000), NONE);
        assert_eq!(deadlines.keep(SessionId(2), 2_000, TTL_MS), Kept::Alive);
        // A new leader adds its grace.
        assert_eq!(tick(&mut deadlines, TTL_MS + limits::EXPIRY_GRACE_MS - 1), NONE);
        assert_eq!(tick(&mut deadlines, TTL_MS + limits::EXPIRY_GRACE_MS), [3]);
        assert_eq!(tick(&mut deadlines, 7_000), [3, 1, 2], "it stays due until it is gone");
        assert_eq!(deadlines.keep(SessionId(1), 7_000, TTL_MS), Kept::Expiring);
        deadlines.take(timed(2, [2]));
        assert_eq!(tick(&mut deadlines, 7_050), [2]);
    }

    #[test]
    fn a_new_leader_a_lost_majority_and_a_late_tick_give_every_session_its_full_time() {
        for (term, has_quorum, now_ms) in [(2, true, 4_900), (1, false, 4_900), (1, true, 4_900)] {
            let mut deadlines = leading([1]);
            // The last of them is late: nothing ticked in between.
            if (term, has_quorum) != (1, true) {
                tick(&mut deadlines, 4_850);
            }
            deadlines.go_on(term, has_quorum, now_ms);
            assert!(deadlines.wants(Revision(1)), "it takes everything over again");
            deadlines.take(timed(1, [1]));
            assert_eq!(tick(&mut deadlines, now_ms + TTL_MS - 1), NONE, "{term} {has_quorum}");
            let grace_ms = if term == 2 { limits::EXPIRY_GRACE_MS } else { 0 };
            assert_eq!(deadlines.keep(SessionId(1), now_ms + TTL_MS - 1, 1 + grace_ms), Kept::Alive);
            assert_eq!(tick(&mut deadlines, now_ms + TTL_MS + grace_ms), [1], "and no more than that");
        }
    }

    #[test]
    fn s12_s22_a_session_whose_expiry_may_be_in_the_log_is_never_called_alive_again_in_that_term() {
        // A majority that was lost, and a tick that came late, while the answer is waited for and after it is not known.
        for (has_quorum, late_ms, answered) in
            [(false, 50, false), (true, limits::LATE_TICK_MS + 1, false), (false, 50, true), (true, 1_000, true)]
        {
            let (mut deadlines, now_ms) = expiring();
            if answered {
                end(&mut deadlines, &[1], Fate::Unknown);
            }
            deadlines.go_on(1, has_quorum, now_ms + late_ms);
            assert_eq!(deadlines.keep(SessionId(1), now_ms + late_ms, TTL_MS), Kept::Expiring);
            deadlines.take(timed(1, [1]));
            assert_eq!(deadlines.keep(SessionId(1), now_ms + late_ms, TTL_MS), Kept::Expiring);
            end(&mut deadlines, &[1], Fate::Unknown);
            assert_eq!(tick(&mut deadlines, now_ms + late_ms), [1], "it gets no more time: its holder knows");
            deadlines.take(timed(2, [2]));
            assert!(deadlines.expiring.is_empty(), "it is gone");
        }
    }

    #[test]
    fn s12_an_expiry_that_was_never_proposed_lets_its_session_live_and_one_of_unknown_fate_does_not() {
        let (mut deadlines, now_ms) = expiring();
        end(&mut deadlines, &[1], Fate::NotProposed);
        assert_eq!(deadlines.keep(SessionId(1), now_ms, TTL_MS), Kept::Alive);
        assert_eq!(propose(&mut deadlines, now_ms + TTL_MS), [1]);
        end(&mut deadlines, &[1], Fate::Unknown);
        assert_eq!(propose(&mut deadlines, now_ms + TTL_MS), [1]);
        end(&mut deadlines, &[1], Fate::NotProposed);
        assert_eq!(
            deadlines.keep(SessionId(1), now_ms + TTL_MS, TTL_MS),
            Kept::Expiring,
            "the first may be in the log"
        );
    }

    #[test]
    fn s12_the_next_leadership_begins_anew_and_hears_nothing_of_what_the_last_had_proposed() {
        let (mut deadlines, now_ms) = expiring();
        deadlines.resign();
        assert_eq!(deadlines.keep(SessionId(1), now_ms, TTL_MS), Kept::NotLeading);
        deadlines.go_on(3, true, now_ms);
        deadlines.take(timed(2, [1]));
        assert_eq!(deadlines.keep(SessionId(1), now_ms, TTL_MS), Kept::Alive, "what was in the log is settled");
        assert_eq!(propose(&mut deadlines, now_ms + TTL_MS), [1]);
        deadlines.proposed(1, &[SessionId(1)], Fate::NotProposed);
        assert_eq!(deadlines.keep(SessionId(1), now_ms + TTL_MS, TTL_MS), Kept::Expiring);
    }

    #[test]
    fn a_member_that_leads_again_in_the_same_term_still_knows_what_it_has_proposed() {
        let (mut deadlines, now_ms) = expiring();
        deadlines.resign();
        deadlines.go_on(1, true, now_ms);
        assert_eq!(deadlines.keep(SessionId(1), now_ms, TTL_MS), Kept::Expiring);
    }

    #[test]
    fn nothing_is_proposed_while_the_answer_to_the_last_proposal_is_waited_for() {
        let (mut deadlines, now_ms) = expiring();
        assert_eq!(propose(&mut deadlines, now_ms + 900), NONE);
        end(&mut deadlines, &[1], Fate::Unknown);
        assert_eq!(propose(&mut deadlines, now_ms + 900), [1]);
    }

    #[test]
    fn nothing_is_kept_by_a_member_that_does_not_lead() {
        assert_eq!(Deadlines::default().keep(SessionId(1), 0, TTL_MS), Kept::NotLeading);
    }

    #[test]
    fn ten_thousand_idle_sessions_are_taken_over_once_and_kept_alive_one_by_one() {
        let mut deadlines = leading(1..=10_000);
        let mut taken = 0;
        for now_ms in (0..60_000).step_by(50) {
            deadlines.go_on(1, true, now_ms);
            if deadlines.wants(Revision(1)) {
                taken += 1;
            }
            // Each within its time-out: 125 per tick make all of them in 4 s.
            for id in 0..125 {
                let session = SessionId((now_ms / 50 * 125 + id) % 10_000 + 1);
                assert_eq!(deadlines.keep(session, now_ms, TTL_MS), Kept::Alive);
            }
            assert!(deadlines.due().is_empty());
        }
        assert_eq!(taken, 0, "nothing in the machine has changed");
        assert_eq!(deadlines.sessions.order.len(), 10_000, "one deadline per session");
    }

    #[test]
    fn a_release_runs_out_once_it_is_pending_and_not_after_it_is_done() {
        let mut deadlines = leading([]);
        let release = PendingRelease { group: "g".into(), term: Term(3), timeout_ms: 100 };
        deadlines.take(Timed { releases: vec![release], ..timed(2, []) });
        tick(&mut deadlines, 99);
        assert_eq!(deadlines.due().releases, []);
        tick(&mut deadlines, 100);
        assert_eq!(deadlines.due().releases, [("g".into(), Term(3))]);
        end(&mut deadlines, &[], Fate::Unknown);
        deadlines.take(timed(3, []));
        assert!(deadlines.due().is_empty());
    }
}
