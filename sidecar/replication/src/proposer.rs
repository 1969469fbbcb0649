//! Proposals of one partition, in rounds.
//!
//! ```text
//!  propose ──▶ queue ──▶ the proposer's task ──▶ openraft: one entry, one message to each follower, one flush each
//!                                 ▲                  │
//!                                 └──────────────────┘ the round is applied or refused
//! ```
//!
//! A round is one entry of the log: it costs about the same however much is in it. So what comes while one is on its way
//! waits for its end, and then goes together. Nobody waits for a timer, or for company: what finds no round on its way
//! goes at once, and so does what fills one. (Nagle's rule for segments, RFC 896, said of rounds.)
//!
//! A round that takes longer than a lease holds nothing up any more: its leader has no majority, and says so to what comes
//! next.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use coterie_core::Revision;
use coterie_core::command::Outcome;
use coterie_env::Env;
use coterie_mutants::{Point, rarely};
use openraft::errors::ClientWriteError;
use openraft::impls::leader_id_adv::LeaderId;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use crate::admission::Permit;
use crate::types::{Proposal, Raft, Response, TypeConfig, Waiter, WriteResult};

/// Commands, or bytes of them, that need not wait for the end of the round before.
const FULL: usize = 256;
const FULL_BYTES: usize = 64 * 1024;
/// Commands and bytes of them in one round at most, passed by the last group of them.
const ROUND_MAX: usize = 512;
const ROUND_BYTES_MAX: usize = 256 * 1024;
/// Rounds on their way at once: enough of full ones to keep a slow disk and a slow network busy.
const ROUNDS_MAX: usize = 16;

/// What came of a group of commands: the outcome of each, in their order, or why none of them has one.
pub(crate) type Answer = Result<Vec<(Revision, Outcome)>, ClientWriteError<TypeConfig>>;

/// Commands that are proposed together.
pub(crate) struct Group {
    /// Each an encoded [`coterie_core::command::Envelope`].
    pub(crate) bodies: Vec<Bytes>,
    /// The term in which they may get into the log; any other: never.
    pub(crate) term: Option<u64>,
    /// Given back when openraft is done with them, not when their caller goes: until then they are in the log, and take the
    /// room of others.
    pub(crate) permit: Permit,
}

/// The queue, and what wakes the task.
#[derive(Default)]
pub(crate) struct Proposer {
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Default)]
struct Queue {
    /// `None`: withdrawn.
    waiting: VecDeque<Option<Waiting>>,
    /// The number of the first of them; each is one more than the one before.
    first: u64,
    commands: usize,
    bytes: usize,
    rounds: usize,
    /// When the last of them began.
    begun: Option<Instant>,
    closed: bool,
}

struct Waiting {
    group: Group,
    answer: oneshot::Sender<Answer>,
}

/// A round on its way, which openraft drops when it is done with it.
struct Round {
    proposer: Arc<Proposer>,
    /// How many commands each has, and who waits for them.
    waiting: Vec<(usize, oneshot::Sender<Answer>)>,
    _permits: Vec<Permit>,
}

impl Round {
    fn new(proposer: Arc<Proposer>, round: Vec<Waiting>) -> Self {
        let taken = round.into_iter().map(|Waiting { group, answer }| ((group.bodies.len(), answer), group.permit));
        let (waiting, permits) = taken.unzip();
        Self { proposer, waiting, _permits: permits }
    }

    /// Tells everybody what came of theirs. Nobody may wait any longer: then the deadline has passed, and they were told
    /// `unknown`.
    fn end(mut self, result: WriteResult) {
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        match result {
            Ok(written) => {
                let Response(mut outcomes) = written.data;
                for (count, answer) in waiting {
                    let later = outcomes.split_off(count.min(outcomes.len()));
                    let _ = answer.send(Ok(std::mem::replace(&mut outcomes, later)));
                }
            }
            Err(error) => waiting.for_each(|(_, answer)| _ = answer.send(Err(error.clone()))),
        }
    }
}

impl Drop for Round {
    fn drop(&mut self) {
        self.proposer.lock().rounds -= 1;
        self.proposer.wake.notify_one();
    }
}

/// A group that may still be in the queue. Dropping it withdraws the group.
pub(crate) struct Queued {
    proposer: Arc<Proposer>,
    number: u64,
    /// What came of it. An error: openraft, or the queue, has ended.
    pub(crate) answer: oneshot::Receiver<Answer>,
}

impl Queued {
    /// Sees to it that the group is never proposed; false if it has left in a round.
    pub(crate) fn withdraw(&self) -> bool {
        self.proposer.lock().withdraw(self.number)
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.withdraw();
    }
}

impl Group {
    fn bytes(&self) -> usize {
        self.bodies.iter().map(Bytes::len).sum()
    }
}

impl Queue {
    fn withdraw(&mut self, number: u64) -> bool {
        let Some(at) = number.checked_sub(self.first) else { return false };
        let place = usize::try_from(at).ok().and_then(|at| self.waiting.get_mut(at));
        if let Some(Waiting { group, answer: _ }) = place.and_then(Option::take) {
            self.commands -= group.bodies.len();
            self.bytes -= group.bytes();
        }
        while let Some(None) = self.waiting.front() {
            self.waiting.pop_front();
            self.first += 1;
        }
        true
    }

    /// The next round, if it is time for it; else when it will be, at the latest.
    fn take(&mut self, now: Instant, patience: Duration) -> Result<Vec<Waiting>, Option<Instant>> {
        if self.waiting.is_empty() {
            return Err(None);
        }
        let is_full = self.commands >= FULL || self.bytes >= FULL_BYTES;
        let until = self.begun.filter(|_| self.rounds > 0).map(|begun| begun + patience);
        if let Some(until) = until.filter(|until| *until > now)
            && !(is_full && self.rounds < ROUNDS_MAX)
        {
            return Err(Some(until));
        }
        let (mut round, mut commands, mut bytes) = (Vec::<Waiting>::new(), 0, 0);
        while commands < ROUND_MAX && bytes < ROUND_BYTES_MAX && (round.is_empty() || !rarely(Point::CutRound)) {
            // One entry is of one term.
            let term = |waiting: &Option<Waiting>| waiting.as_ref().map(|waiting| waiting.group.term);
            let ends = |next: &mut Option<Waiting>| match (round.first(), term(next)) {
                (Some(first), Some(term)) => first.group.term == term,
                (None, _) | (_, None) => true,
            };
            let Some(waiting) = self.waiting.pop_front_if(ends) else { break };
            self.first += 1;
            let Some(waiting) = waiting else { continue };
            commands += waiting.group.bodies.len();
            bytes += waiting.group.bytes();
            round.push(waiting);
        }
        self.commands -= commands;
        self.bytes -= bytes;
        if round.is_empty() {
            return Err(None);
        }
        self.rounds += 1;
        self.begun = Some(now);
        Ok(round)
    }
}

impl Proposer {
    /// Starts the task that proposes, until `closed` says so or Raft has ended.
    /// A round that takes longer than `lease` holds nothing up.
    pub(crate) fn start(
        env: &Env,
        raft: Raft,
        node: u64,
        lease: Duration,
        mut closed: watch::Receiver<bool>,
    ) -> Arc<Self> {
        let proposer = Arc::<Self>::default();
        let (this, clock) = (proposer.clone(), env.clock.clone());
        let task = async move {
            loop {
                let round = tokio::select! {
                    biased;
                    _ = closed.wait_for(|closed| *closed) => break,
                    round = this.next_round(lease) => round,
                };
                let term = round.first().and_then(|waiting| waiting.group.term);
                let bodies = round.iter().flat_map(|waiting| &waiting.group.bodies);
                let proposal = Proposal::new(clock.wall_ms(), bodies);
                let round = Round::new(this.clone(), round);
                let write = raft.write(proposal).responder(Waiter::new(move |result| round.end(result)));
                let sent = match term {
                    Some(term) => write.with_leader(LeaderId { term, node_id: node }).await,
                    None => write.await,
                };
                if sent.is_err() {
                    break;
                }
            }
            this.close();
        };
        env.spawn.spawn("proposer", Box::pin(task));
        proposer
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no panic while the lock is held")
    }

    /// Queues a group. `None` if nothing is proposed any more.
    pub(crate) fn queue(self: &Arc<Self>, group: Group) -> Option<Queued> {
        let (sender, answer) = oneshot::channel();
        let mut queue = self.lock();
        if queue.closed {
            return None;
        }
        let number = queue.first + queue.waiting.len() as u64;
        queue.commands += group.bodies.len();
        queue.bytes += group.bytes();
        queue.waiting.push_back(Some(Waiting { group, answer: sender }));
        drop(queue);
        self.wake.notify_one();
        Some(Queued { proposer: self.clone(), number, answer })
    }

    async fn next_round(&self, patience: Duration) -> Vec<Waiting> {
        loop {
            let taken = self.lock().take(Instant::now(), patience);
            match taken {
                Ok(round) => return round,
                Err(None) => self.wake.notified().await,
                // Too late to be woken is no error: then it is time.
                Err(Some(until)) => _ = tokio::time::timeout_at(until, self.wake.notified()).await,
            }
        }
    }

    /// What is still queued is dropped, and never counts as having left: those who wait find out that it was not proposed.
    fn close(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        let waiting = std::mem::take(&mut queue.waiting);
        drop(queue);
        drop(waiting);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use coterie_core::command::Reply;

    use super::*;
    use crate::admission::Admission;

    const PATIENCE: Duration = Duration::from_secs(60);

    struct Sent {
        proposer: Arc<Proposer>,
        admission: Arc<Admission>,
        queued: Vec<Queued>,
    }

    impl Sent {
        fn new() -> Self {
            Self { proposer: Arc::default(), admission: Arc::default(), queued: Vec::new() }
        }

        fn group(&self, count: usize, bytes: usize, term: Option<u64>) -> Group {
            let permit = self.admission.admit(count, count * bytes).unwrap();
            Group { bodies: vec![Bytes::from(vec![0; bytes]); count], term, permit }
        }

        /// Groups of one command each.
        fn queue(&mut self, count: usize, bytes: usize) {
            for _ in 0..count {
                self.queue_group(1, bytes, None);
            }
        }

        fn queue_group(&mut self, count: usize, bytes: usize, term: Option<u64>) {
            self.queued.push(self.proposer.queue(self.group(count, bytes, term)).unwrap());
        }

        /// How much the next round has, and what stands for it.
        fn take(&self) -> (usize, Option<Round>) {
            self.take_at(Instant::now())
        }

        fn take_at(&self, now: Instant) -> (usize, Option<Round>) {
            let taken = self.proposer.lock().take(now, PATIENCE);
            taken.map_or((0, None), |round| {
                let commands = round.iter().map(|waiting| waiting.group.bodies.len()).sum();
                (commands, Some(Round::new(self.proposer.clone(), round)))
            })
        }
    }

    #[test]
    fn what_comes_while_a_round_is_on_its_way_goes_together_after_it() {
        let mut sent = Sent::new();
        assert_eq!(sent.take().0, 0);
        sent.queue(1, 10);
        let (first, round) = sent.take();
        assert_eq!(first, 1);
        sent.queue(FULL - 1, 10);
        assert_eq!(sent.take().0, 0, "they wait");
        drop(round);
        assert_eq!(sent.take().0, FULL - 1);
    }

    #[test]
    fn what_fills_a_round_does_not_wait_until_there_are_too_many() {
        let mut sent = Sent::new();
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS_MAX {
            sent.queue(1, FULL_BYTES);
            let (taken, round) = sent.take();
            assert_eq!(taken, 1);
            rounds.push(round);
        }
        sent.queue_group(FULL, 1, None);
        assert_eq!(sent.take().0, 0);
        rounds.pop();
        assert_eq!(sent.take().0, FULL);
    }

    #[test]
    fn a_round_that_takes_too_long_holds_nothing_up() {
        let mut sent = Sent::new();
        sent.queue(1, 10);
        let (_, stuck) = sent.take();
        sent.queue(1, 10);
        let now = Instant::now();
        assert_eq!(sent.take_at(now).0, 0);
        assert_eq!(sent.take_at(now + PATIENCE).0, 1);
        drop(stuck);
    }

    #[test]
    fn a_round_is_bounded_and_a_group_stays_together() {
        let mut sent = Sent::new();
        sent.queue(ROUND_MAX - 1, 1);
        sent.queue_group(3, 1, None);
        sent.queue(1, 1);
        assert_eq!(sent.take().0, ROUND_MAX + 2);
        let mut sent = Sent::new();
        sent.queue(ROUND_BYTES_MAX / FULL_BYTES + 2, FULL_BYTES);
        assert_eq!(sent.take().0, ROUND_BYTES_MAX / FULL_BYTES);
    }

    #[test]
    fn a_round_is_of_one_term() {
        let mut sent = Sent::new();
        for term in [None, None, Some(3), Some(3), Some(4), None] {
            sent.queue_group(1, 10, term);
        }
        drop(sent.queued.remove(1));
        let rounds: Vec<usize> = (0..5).map(|_| sent.take().0).collect();
        assert_eq!(rounds, [1, 2, 1, 1, 0]);
    }

    #[test]
    fn everybody_gets_the_outcomes_of_their_own() {
        let mut sent = Sent::new();
        sent.queue_group(2, 10, None);
        sent.queue_group(1, 10, None);
        let (_, round) = sent.take();
        let outcome = |revision| (Revision(revision), Ok(Reply::Done));
        let data = Response((7..10).map(outcome).collect());
        let log_id = openraft::LogId::new(LeaderId { term: 1, node_id: 1 }, 5);
        round.unwrap().end(Ok(openraft::raft::ClientWriteResponse { log_id, data, membership: None }));
        let answers = sent.queued.iter_mut().map(|queued| queued.answer.try_recv().unwrap().unwrap());
        assert_eq!(answers.collect::<Vec<_>>(), [vec![outcome(7), outcome(8)], vec![outcome(9)]]);
        sent.queue(1, 10);
        assert_eq!(sent.take().0, 1, "the round has ended");
    }

    #[test]
    fn d11_what_is_withdrawn_is_never_proposed_and_what_has_left_cannot_be_withdrawn() {
        let mut sent = Sent::new();
        sent.queue(3, 10);
        assert!(sent.queued[1].withdraw());
        drop(sent.queued.remove(0));
        assert_eq!(sent.take().0, 1);
        assert!(!sent.queued[1].withdraw());
        sent.queue(1, 10);
        sent.proposer.close();
        assert!(sent.queued[2].withdraw(), "it was not proposed, and will not be");
        let group = sent.group(1, 1, None);
        assert!(sent.proposer.queue(group).is_none());
    }
}
