//! The deadlines of one partition, in the order in which they run out. Pure: times come in.
//!
//! A look costs what was opened since the last one and what has run out, however many sessions there are and whatever else
//! is written: sessions are named by the revision of their opening, so those that are new come after the newest that is
//! known, and whether one is gone is asked when its time has come.

use std::collections::{BTreeMap, BTreeSet};

use coterie_core::machine::PendingRelease;
use coterie_core::{GroupName, SessionId, Term};
use coterie_mutants::{Mutant, is_on};

use super::RATE_MARGIN;
use crate::limits;

/// So many sessions that are gone are no matter.
const SWEEP_MIN: usize = 1_024;

/// The deadlines of one partition, while this member leads it.
#[derive(Default)]
pub(super) struct Deadlines {
    /// Which leadership they belong to, or belonged to last.
    term: Option<u64>,
    /// Whether this member leads in that term now.
    leads: bool,
    /// When they were last looked at.
    tick_ms: u64,
    /// The newest session that is taken over; 0: none is.
    newest: SessionId,
    /// What a new leader adds to every session's time-out: the longest time that an election takes once the lease of the
    /// leader before is over, unless votes are split.
    election_ms: u64,
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
    /// The sessions after [`Deadlines::newest`], in the order of their ids, with their time-outs.
    pub(super) opened: Vec<(SessionId, u64)>,
    /// All that are pending.
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
    /// Of a partition whose elections take at most `election_ms`.
    pub(super) fn new(election_ms: u64) -> Self {
        Self { election_ms, ..Self::default() }
    }

    /// A session that was kept alive now.
    pub(super) fn keep(&mut self, session: SessionId, now_ms: u64, ttl_ms: u64) -> Kept {
        if !self.leads {
            return Kept::NotLeading;
        }
        if self.expiring.contains_key(&session) {
            return Kept::Expiring;
        }
        let ttl_ms = if is_on(Mutant::ExpireEarly) { ttl_ms / 8 } else { ttl_ms };
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
            *self = Self { term: Some(term), leads: true, expiring, proposing, ..Self::new(self.election_ms) };
        }
        self.grace_ms = if new_leader { self.election_ms } else { 0 };
        self.tick_ms = now_ms;
    }

    /// Another member leads, or none does.
    pub(super) fn resign(&mut self) {
        self.leads = false;
    }

    /// The newest session that is taken over.
    pub(super) fn newest(&self) -> SessionId {
        self.newest
    }

    /// Takes over what the machine holds: what is new gets its full time.
    pub(super) fn take(&mut self, timed: Timed) {
        let Timed { opened, releases } = timed;
        if self.newest == SessionId(0) && !self.expiring.is_empty() {
            // These are all that there are.
            let live: BTreeSet<SessionId> = opened.iter().map(|(id, _)| *id).collect();
            self.expiring.retain(|id, _| live.contains(id));
        }
        for (id, ttl_ms) in opened {
            // Its holder was told that it is lost, or will be: there is nothing to wait for.
            let left_ms = if self.expiring.contains_key(&id) { 0 } else { ttl_ms + self.grace_ms };
            self.sessions.set_new(id, self.tick_ms + left_ms);
            self.newest = self.newest.max(id);
        }
        if self.releases.is_empty() {
            return;
        }
        let pending: BTreeSet<_> = releases.into_iter().map(|release| (release.group, release.term)).collect();
        self.releases.retain(|key| pending.contains(key));
    }

    /// The sidecar of a leader that was asked to release knows of that, and vouches for so much longer at most. Its first
    /// word counts: what it says later is later. The caller knows that this release is pending.
    pub(super) fn heard(&mut self, release: (GroupName, Term), left_ms: u64, now_ms: u64) {
        if self.leads {
            self.releases.set_new(release, now_ms + left_ms + left_ms.div_ceil(RATE_MARGIN));
        }
    }

    /// Forgets sessions that are gone once they are as many as the `live` ones, so that those with long time-outs do not
    /// add up.
    pub(super) fn sweep(&mut self, live: usize, is_live: impl Fn(SessionId) -> bool) {
        if self.sessions.len() > 2 * live + SWEEP_MIN {
            self.sessions.retain(|id| is_live(*id));
            self.expiring.retain(|id, _| is_live(*id));
        }
    }

    /// What has run out, longest overdue first, to be proposed now; nothing until [`Deadlines::proposed`] says what became
    /// of the last. It stays due until it is gone.
    pub(super) fn due(&mut self, is_live: impl Fn(SessionId) -> bool) -> Due {
        if self.proposing {
            return Due::default();
        }
        let mut sessions = Vec::new();
        let mut gone = Vec::new();
        for session in self.sessions.until(self.tick_ms).copied() {
            match is_live(session) {
                true if sessions.len() == limits::EXPIRE_BATCH_MAX => break,
                true => sessions.push(session),
                false => gone.push(session),
            }
        }
        for session in gone {
            self.sessions.remove(&session);
            self.expiring.remove(&session);
        }
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

/// Deadlines by what they are of, and by time. A deadline that moves on, as those of sessions do three times before each
/// would run out, is put in its new place only when the old one comes.
struct Ordered<K> {
    deadlines: BTreeMap<K, Deadline>,
    /// By [`Deadline::filed_ms`].
    order: BTreeSet<(u64, K)>,
}

struct Deadline {
    at_ms: u64,
    /// Its place in the order: at most `at_ms`.
    filed_ms: u64,
}

impl<K> Default for Ordered<K> {
    fn default() -> Self {
        Self { deadlines: BTreeMap::new(), order: BTreeSet::new() }
    }
}

impl<K: Ord + Clone> Ordered<K> {
    fn set(&mut self, key: K, at_ms: u64) {
        if let Some(deadline) = self.deadlines.get_mut(&key)
            && deadline.filed_ms <= at_ms
        {
            deadline.at_ms = at_ms;
            return;
        }
        self.remove(&key);
        self.deadlines.insert(key.clone(), Deadline { at_ms, filed_ms: at_ms });
        self.order.insert((at_ms, key));
    }

    fn set_new(&mut self, key: K, at_ms: u64) {
        if !self.deadlines.contains_key(&key) {
            self.set(key, at_ms);
        }
    }

    fn remove(&mut self, key: &K) {
        if let Some(Deadline { filed_ms, .. }) = self.deadlines.remove(key) {
            self.order.remove(&(filed_ms, key.clone()));
        }
    }

    fn len(&self) -> usize {
        self.deadlines.len()
    }

    fn is_empty(&self) -> bool {
        self.deadlines.is_empty()
    }

    fn retain(&mut self, keeps: impl Fn(&K) -> bool) {
        self.deadlines.retain(|key, _| keeps(key));
        self.order.retain(|(_, key)| keeps(key));
    }

    /// What has run out, longest overdue first.
    fn until(&mut self, now_ms: u64) -> impl Iterator<Item = &K> {
        let filed = self.order.iter().take_while(|(filed_ms, _)| *filed_ms <= now_ms);
        let moved: Vec<(u64, K)> =
            filed.filter(|(filed_ms, key)| self.deadlines[key].at_ms > *filed_ms).cloned().collect();
        for (filed_ms, key) in moved {
            let deadline = self.deadlines.get_mut(&key).expect("what is filed has a deadline");
            deadline.filed_ms = deadline.at_ms;
            let at_ms = deadline.at_ms;
            self.order.remove(&(filed_ms, key.clone()));
            self.order.insert((at_ms, key));
        }
        self.order.iter().take_while(move |(at_ms, _)| *at_ms <= now_ms).map(|(_, key)| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL_MS: u64 = 5_000;
    const ELECTION_MS: u64 = 400;
    const NONE: [u64; 0] = [];

    /// Deadlines, and the sessions that the machine holds.
    #[derive(Default)]
    struct Led {
        deadlines: Deadlines,
        live: BTreeSet<SessionId>,
    }

    impl std::ops::Deref for Led {
        type Target = Deadlines;

        fn deref(&self) -> &Deadlines {
            &self.deadlines
        }
    }

    impl std::ops::DerefMut for Led {
        fn deref_mut(&mut self) -> &mut Deadlines {
            &mut self.deadlines
        }
    }

    impl Led {
        /// Looks at a machine that holds these sessions.
        fn look(&mut self, live: impl IntoIterator<Item = u64>) {
            self.live = live.into_iter().map(SessionId).collect();
            let opened = self.live.iter().filter(|id| **id > self.deadlines.newest()).map(|id| (*id, TTL_MS)).collect();
            self.deadlines.take(Timed { opened, releases: Vec::new() });
        }

        fn due(&mut self) -> Due {
            let Self { deadlines, live } = self;
            deadlines.sweep(live.len(), |id| live.contains(&id));
            deadlines.due(|id| live.contains(&id))
        }
    }

    /// A leader of term 1 that looked at these sessions at 0.
    fn leading(sessions: impl IntoIterator<Item = u64>) -> Led {
        let mut led = Led { deadlines: Deadlines::new(ELECTION_MS), live: BTreeSet::new() };
        led.go_on(1, true, 0);
        led.look(sessions);
        led
    }

    /// Ticks as a keeper does, in the term that it leads in, up to `until_ms`; what is due then, and is being proposed.
    fn propose(led: &mut Led, until_ms: u64) -> Vec<u64> {
        let term = led.term.expect("it leads");
        while led.tick_ms < until_ms {
            let now_ms = until_ms.min(led.tick_ms + limits::EXPIRY_TICK_MS);
            led.go_on(term, true, now_ms);
        }
        led.due().sessions.into_iter().map(|id| id.0).collect()
    }

    /// The same, and whether it was proposed is not known.
    fn tick(led: &mut Led, until_ms: u64) -> Vec<u64> {
        let due = propose(led, until_ms);
        end(led, &due, Fate::Unknown);
        due
    }

    fn end(deadlines: &mut Deadlines, sessions: &[u64], fate: Fate) {
        let sessions: Vec<_> = sessions.iter().copied().map(SessionId).collect();
        deadlines.proposed(deadlines.term.expect("it leads"), &sessions, fate);
    }

    /// A leader of term 1 that has proposed to expire session 1 and waits for the answer; and when.
    fn expiring() -> (Led, u64) {
        let now_ms = TTL_MS + ELECTION_MS;
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
        assert_eq!(tick(&mut deadlines, TTL_MS + ELECTION_MS - 1), NONE);
        assert_eq!(tick(&mut deadlines, TTL_MS + ELECTION_MS), [3]);
        assert_eq!(tick(&mut deadlines, 7_000), [3, 1, 2], "it stays due until it is gone");
        assert_eq!(deadlines.keep(SessionId(1), 7_000, TTL_MS), Kept::Expiring);
        deadlines.look([2]);
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
            assert_eq!(deadlines.newest(), SessionId(0), "it takes everything over again");
            deadlines.look([1]);
            assert_eq!(tick(&mut deadlines, now_ms + TTL_MS - 1), NONE, "{term} {has_quorum}");
            let grace_ms = if term == 2 { ELECTION_MS } else { 0 };
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
            deadlines.look([1]);
            assert_eq!(deadlines.keep(SessionId(1), now_ms + late_ms, TTL_MS), Kept::Expiring);
            end(&mut deadlines, &[1], Fate::Unknown);
            assert_eq!(tick(&mut deadlines, now_ms + late_ms), [1], "it gets no more time: its holder knows");
            deadlines.look([2]);
            assert_eq!(tick(&mut deadlines, now_ms + late_ms), NONE);
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
        deadlines.look([1]);
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
    fn of_ten_thousand_sessions_each_look_costs_those_that_are_new_or_due() {
        let mut deadlines = leading(1..=10_000);
        for now_ms in (50..60_000).step_by(50) {
            deadlines.go_on(1, true, now_ms);
            assert_eq!(deadlines.newest(), SessionId(10_000), "none is new, whatever is written meanwhile");
            // Each within its time-out: 125 per tick make all of them in 4 s.
            for id in 0..125 {
                let session = SessionId((now_ms / 50 * 125 + id) % 10_000 + 1);
                assert_eq!(deadlines.keep(session, now_ms, TTL_MS), Kept::Alive);
            }
            let due = deadlines.deadlines.due(|id| panic!("{id} is not asked about: it has not run out"));
            assert!(due.is_empty());
        }
        assert_eq!(deadlines.sessions.order.len(), 10_000, "one deadline per session");
        // Half of them end: they are forgotten when their time has come, and nothing is proposed about them.
        deadlines.look(1..=5_000);
        for id in 1..=5_000 {
            assert_eq!(deadlines.keep(SessionId(id), 60_000, TTL_MS), Kept::Alive);
        }
        assert_eq!(tick(&mut deadlines, 64_999), NONE);
        assert_eq!(deadlines.sessions.len(), 5_000);
        assert_eq!(tick(&mut deadlines, 65_000).len(), limits::EXPIRE_BATCH_MAX, "so many at once");
    }

    #[test]
    fn sessions_that_come_and_go_do_not_add_up_before_their_time_has_come() {
        let mut deadlines = leading([]);
        for id in 1..=100_000 {
            deadlines.look([id]);
            assert!(deadlines.due().is_empty());
            assert!(deadlines.sessions.len() <= 2 + SWEEP_MIN);
        }
        assert!(deadlines.sessions.deadlines.contains_key(&SessionId(100_000)), "the one that is there");
    }

    #[test]
    fn d16_a_release_runs_out_once_its_leaders_sidecar_knows_of_it_and_not_after_it_is_done() {
        let mut deadlines = leading([]);
        let release = PendingRelease { group: "g".into(), term: Term(3), timeout_ms: 100, session: SessionId(1) };
        let take = |deadlines: &mut Led| {
            deadlines.take(Timed { opened: Vec::new(), releases: vec![release.clone()] });
        };
        take(&mut deadlines);
        tick(&mut deadlines, 400);
        assert_eq!(deadlines.due().releases, [], "nobody knows of it");
        deadlines.heard(("g".into(), Term(3)), 100, 400);
        deadlines.heard(("g".into(), Term(3)), 900, 450);
        take(&mut deadlines);
        tick(&mut deadlines, 500);
        assert_eq!(deadlines.due().releases, [], "clocks may run at different rates");
        tick(&mut deadlines, 501);
        assert_eq!(deadlines.due().releases, [("g".into(), Term(3))], "the first word counts");
        end(&mut deadlines, &[], Fate::Unknown);
        deadlines.look([]);
        assert!(deadlines.due().is_empty());
    }
}
