//! When the keep-alive of which session goes to whom: decides, asks nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use coterie_core::{MemberName, PartitionId, SessionId};
use tokio::time::Instant;

use crate::limits;
use crate::sessions::keeper::Touched;

/// One question of one member: are these alive?
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) member: MemberName,
    pub(super) sessions: Vec<(PartitionId, SessionId)>,
}

/// The keep-alives of all sessions of a sidecar.
#[derive(Debug)]
pub(super) struct Plan {
    /// When the first beat is, and how long it is to the next one.
    first: Instant,
    interval: Duration,
    sessions: BTreeMap<PartitionId, Kept>,
    /// Those that nobody is being asked about, by when that is due.
    due: BTreeSet<(Instant, PartitionId)>,
}

/// A session that this sidecar has from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Opened {
    /// Where.
    pub(super) partition: PartitionId,
    /// Its name.
    pub(super) id: SessionId,
    /// Whether it was opened just now; else it was found.
    pub(super) is_new: bool,
}

#[derive(Debug)]
struct Kept {
    id: SessionId,
    next: Next,
    /// How often in a row no leader has answered.
    failed: usize,
}

/// Whom the next keep-alive goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Next {
    /// With the others of its leader, to whoever that is then.
    Together,
    /// Alone, to the one that was named.
    Named(MemberName),
    /// Alone, to one replica after another.
    Around,
}

impl Plan {
    /// Beats are at `now` and `phase` and one `interval` after another from then on.
    pub(super) fn new(now: Instant, phase: Duration, interval: Duration) -> Self {
        Self { first: now + phase, interval, sessions: BTreeMap::new(), due: BTreeSet::new() }
    }

    /// A session was opened, perhaps in place of another one. Of one that was there already nothing is known: it is asked
    /// about at once.
    pub(super) fn add(&mut self, Opened { partition, id, is_new }: Opened, now: Instant) {
        let kept = Kept { id, next: Next::Together, failed: 0 };
        if self.sessions.insert(partition.clone(), kept).is_some() {
            self.due.retain(|(_, of)| *of != partition);
        }
        self.due.insert((if is_new { self.next_beat(now) } else { now }, partition));
    }

    /// When something is to be asked; `None` while there is nothing.
    pub(super) fn first_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// What is to be asked now. `candidate` says whom in which round of tries; `lasts`, whether the session is still held.
    pub(super) fn take_due(
        &mut self,
        now: Instant,
        own: &MemberName,
        lasts: impl Fn(&PartitionId, SessionId) -> bool,
        candidate: impl Fn(&PartitionId, usize) -> MemberName,
    ) -> Vec<Ask> {
        let (mut together, mut asks) = (BTreeMap::<MemberName, Vec<_>>::new(), Vec::new());
        while let Some((due, partition)) = self.due.pop_first() {
            if due > now {
                self.due.insert((due, partition));
                break;
            }
            let Some(Kept { id, next, failed }) = self.sessions.get(&partition) else { continue };
            if !lasts(&partition, *id) {
                self.sessions.remove(&partition);
                continue;
            }
            let member = match next {
                Next::Named(member) => member.clone(),
                Next::Together | Next::Around => candidate(&partition, *failed),
            };
            let session = (partition.clone(), *id);
            if *next == Next::Together && member != *own {
                together.entry(member).or_default().push(session);
            } else {
                asks.push(Ask { member, sessions: vec![session] });
            }
        }
        for (member, sessions) in together {
            let pieces = sessions.chunks(limits::KEEP_ALIVES_MAX);
            asks.extend(pieces.map(|sessions| Ask { member: member.clone(), sessions: sessions.to_vec() }));
        }
        asks
    }

    /// Takes what `member` has said of a session that it was asked about. False if the session is not one of these.
    pub(super) fn settle(
        &mut self,
        member: &MemberName,
        partition: &PartitionId,
        id: SessionId,
        touched: &Touched,
        now: Instant,
    ) -> bool {
        let next_beat = self.next_beat(now);
        let Some(kept) = self.sessions.get_mut(partition).filter(|kept| kept.id == id) else { return false };
        let due = match touched {
            Touched::Alive(_) => {
                (kept.next, kept.failed) = (Next::Together, 0);
                next_beat
            }
            Touched::Lost => {
                self.sessions.remove(partition);
                return true;
            }
            Touched::Elsewhere(named) => {
                kept.failed += 1;
                let is_named = matches!(kept.next, Next::Named(_));
                let at_once = !is_named && named.as_ref() == Some(member);
                // Two that name each other are not asked for ever.
                kept.next = named.clone().filter(|_| !is_named).map_or(Next::Around, Next::Named);
                let pause = Duration::from_millis(limits::RETRY_PAUSE_MS_MAX).min(self.interval);
                if at_once { now } else { now + pause }
            }
        };
        self.due.insert((due, partition.clone()));
        true
    }

    /// The first beat after `now`.
    fn next_beat(&self, now: Instant) -> Instant {
        match now.checked_duration_since(self.first) {
            None => self.first,
            Some(since) => {
                let past = u32::try_from(since.as_nanos() / self.interval.as_nanos()).unwrap_or(u32::MAX - 1);
                self.first + self.interval * (past + 1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(900);
    const PAUSE: Duration = Duration::from_millis(limits::RETRY_PAUSE_MS_MAX);

    fn alive() -> Touched {
        Touched::Alive(Vec::new())
    }

    struct Planned {
        plan: Plan,
        begun: Instant,
    }

    fn partition(index: u32) -> PartitionId {
        PartitionId { group: "data".into(), index }
    }

    fn opened(index: u32, id: u64) -> Opened {
        Opened { partition: partition(index), id: SessionId(id), is_new: true }
    }

    /// `a` leads what is odd, `b` what is even; on odd rounds it is `c`'s turn.
    fn candidate(partition: &PartitionId, round: usize) -> MemberName {
        match (round % 2, partition.index % 2) {
            (0, 1) => "a".into(),
            (0, _) => "b".into(),
            _ => "c".into(),
        }
    }

    impl Planned {
        /// With a session on each of so many partitions, of the number of the partition.
        fn with(sessions: u32) -> Self {
            let begun = Instant::now();
            let mut plan = Plan::new(begun, Duration::from_millis(100), INTERVAL);
            (1..=sessions).for_each(|index| plan.add(opened(index, index.into()), begun));
            Self { plan, begun }
        }

        fn ms(&self, at: Instant) -> u128 {
            (at - self.begun).as_millis()
        }

        /// What is asked when the next is due: when that is, and whom about which.
        fn next(&mut self) -> (u128, Vec<(String, Vec<u32>)>) {
            let due = self.plan.first_due().expect("something is due");
            let asks = self.plan.take_due(due, &"own".into(), |_, _| true, candidate).into_iter();
            let asks = asks.map(|Ask { member, sessions }| {
                (member.0, sessions.into_iter().map(|(partition, _)| partition.index).collect())
            });
            (self.ms(due), asks.collect())
        }

        fn settle(&mut self, member: &str, index: u32, touched: &Touched, at_ms: u64) -> bool {
            let at = self.begun + Duration::from_millis(at_ms);
            self.plan.settle(&member.into(), &partition(index), SessionId(index.into()), touched, at)
        }
    }

    fn asks<const N: usize>(asks: [(&str, &[u32]); N]) -> Vec<(String, Vec<u32>)> {
        asks.map(|(member, sessions)| (member.to_owned(), sessions.to_vec())).to_vec()
    }

    #[test]
    fn sessions_of_one_leader_share_a_message_at_every_beat() {
        let mut planned = Planned::with(3);
        assert_eq!(planned.next(), (100, asks([("a", &[1, 3]), ("b", &[2])])));
        assert_eq!(planned.plan.first_due(), None, "nothing is asked while it is asked already");
        planned.settle("a", 1, &alive(), 150);
        planned.settle("a", 3, &alive(), 150);
        planned.settle("b", 2, &alive(), 990);
        assert_eq!(planned.next(), (1_000, asks([("a", &[1, 3]), ("b", &[2])])));
    }

    #[test]
    fn a_session_that_is_opened_between_beats_waits_for_the_next_one() {
        let mut planned = Planned::with(0);
        assert_eq!(planned.plan.first_due(), None);
        for (at_ms, due_ms) in [(0, 100), (99, 100), (100, 1_000), (1_500, 1_900)] {
            let at = planned.begun + Duration::from_millis(at_ms);
            planned.plan.add(opened(1, 1), at);
            assert_eq!(planned.plan.first_due().map(|due| planned.ms(due)), Some(due_ms), "opened at {at_ms}");
        }
    }

    #[test]
    fn s22_a_session_that_was_there_already_is_asked_about_at_once() {
        let mut planned = Planned::with(1);
        let now = planned.begun + Duration::from_millis(30);
        planned.plan.add(Opened { is_new: false, ..opened(2, 2) }, now);
        assert_eq!(planned.next(), (30, asks([("b", &[2])])));
        planned.settle("b", 2, &alive(), 40);
        assert_eq!(planned.next(), (100, asks([("a", &[1]), ("b", &[2])])), "and then with the others");
    }

    #[test]
    fn one_that_no_leader_answers_is_asked_for_alone_and_holds_up_no_other() {
        let mut planned = Planned::with(3);
        planned.next();
        planned.settle("a", 1, &alive(), 110);
        planned.settle("a", 3, &Touched::Elsewhere(None), 110);
        assert_eq!(planned.next(), (210, asks([("c", &[3])])), "the next round");
        planned.settle("c", 3, &Touched::Elsewhere(None), 220);
        assert_eq!(planned.next(), (320, asks([("a", &[3])])));
        planned.settle("a", 3, &alive(), 330);
        assert_eq!(planned.next(), (1_000, asks([("a", &[1, 3])])), "and then with the others");
    }

    #[test]
    fn who_is_named_is_asked_next_and_at_once_if_it_named_itself() {
        let mut planned = Planned::with(1);
        planned.next();
        planned.settle("a", 1, &Touched::Elsewhere(Some("a".into())), 110);
        assert_eq!(planned.next(), (110, asks([("a", &[1])])));
        planned.settle("a", 1, &Touched::Elsewhere(Some("a".into())), 120);
        let (due_ms, asked) = planned.next();
        assert_eq!((due_ms, asked), (220, asks([("a", &[1])])), "its turn in the second round, after a pause");
        planned.settle("a", 1, &Touched::Elsewhere(Some("d".into())), 230);
        assert_eq!(planned.next(), (330, asks([("d", &[1])])));
        planned.settle("d", 1, &Touched::Elsewhere(Some("a".into())), 340);
        assert_eq!(planned.next(), (440, asks([("a", &[1])])), "not because it was named: it is the leader's turn");
        planned.settle("a", 1, &Touched::Elsewhere(None), 450);
        assert_eq!(planned.next(), (450 + PAUSE.as_millis(), asks([("c", &[1])])));
    }

    #[test]
    fn a_lost_session_ends_alone_and_an_answer_for_an_earlier_one_is_for_nobody() {
        let mut planned = Planned::with(3);
        planned.next();
        assert!(planned.settle("a", 1, &Touched::Lost, 110));
        assert!(planned.settle("a", 3, &alive(), 110));
        assert!(!planned.settle("a", 1, &alive(), 120), "it is forgotten");
        let now = planned.begun + Duration::from_millis(130);
        planned.plan.add(opened(2, 22), now);
        assert!(!planned.settle("b", 2, &Touched::Lost, 140), "another one has its place");
        assert_eq!(planned.next(), (1_000, asks([("a", &[3]), ("b", &[2])])));
    }

    #[test]
    fn own_sessions_go_one_by_one_and_a_message_has_no_more_than_it_may() {
        let mut planned = Planned::with(2 * u32::try_from(limits::KEEP_ALIVES_MAX).expect("small") + 2);
        let due = planned.begun + INTERVAL;
        let odd = |_: &PartitionId, id: SessionId| id.0 % 2 == 1;
        let asked = planned.plan.take_due(due, &"own".into(), odd, candidate);
        let counts: Vec<_> = asked.iter().map(|ask| ask.sessions.len()).collect();
        assert_eq!(counts, [limits::KEEP_ALIVES_MAX, 1], "those that are held no longer are not asked for");
        let mut planned = Planned::with(3);
        let asked = planned.plan.take_due(due, &"a".into(), |_, _| true, candidate);
        let counts: Vec<_> = asked.iter().map(|ask| (ask.member.as_str(), ask.sessions.len())).collect();
        assert_eq!(counts, [("a", 1), ("a", 1), ("b", 1)]);
    }
}
