//! Proposals of one partition, in rounds.
//!
//! ```text
//!  propose ──▶ queue ──▶ the proposer's task ──▶ openraft: one append, one message to each follower, one flush each
//!                                 ▲                  │
//!                                 └──────────────────┘ all of the round is applied or refused
//! ```
//!
//! A round costs about the same however much is in it: messages, flushes and wake-ups on all members. So what comes while
//! one is on its way waits for its end, and then goes together. Nobody waits for a timer, or for company: what finds no
//! round on its way goes at once, and so does what fills one. (Nagle's rule for segments, RFC 896, said of rounds.)
//!
//! A round that takes longer than a lease holds nothing up any more: its leader has no majority, and says so to what comes
//! next.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use coterie_env::Env;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use crate::admission::Permit;
use crate::types::{Proposal, Raft, Waiter, WriteResult};

/// Proposals, or bytes of bodies, that need not wait for the end of the round before.
const FULL: usize = 256;
const FULL_BYTES: usize = 64 * 1024;
/// Proposals and bytes of bodies in one round at most, passed by the last of them.
const ROUND_MAX: usize = 1_024;
const ROUND_BYTES_MAX: usize = 256 * 1024;
/// Rounds on their way at once: enough of full ones to keep a slow disk and a slow network busy.
const ROUNDS_MAX: usize = 16;

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
    bytes: usize,
    rounds: usize,
    /// When the last of them began.
    begun: Option<Instant>,
    closed: bool,
}

struct Waiting {
    body: Bytes,
    waiter: Waiter<WriteResult>,
}

/// A round on its way: each of its waiters has a part of it, which openraft drops when it is done with the proposal.
pub(crate) struct Round(Arc<Proposer>);

impl Drop for Round {
    fn drop(&mut self) {
        self.0.lock().rounds -= 1;
        self.0.wake.notify_one();
    }
}

/// A proposal that may still be in the queue. Dropping it withdraws the proposal.
pub(crate) struct Queued {
    proposer: Arc<Proposer>,
    number: u64,
    /// What came of it. An error: openraft, or the queue, has ended.
    pub(crate) answer: oneshot::Receiver<WriteResult>,
}

impl Queued {
    /// Sees to it that the proposal is never proposed; false if it has left in a round.
    pub(crate) fn withdraw(&self) -> bool {
        self.proposer.lock().withdraw(self.number)
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.withdraw();
    }
}

impl Queue {
    fn withdraw(&mut self, number: u64) -> bool {
        let Some(at) = number.checked_sub(self.first) else { return false };
        let place = usize::try_from(at).ok().and_then(|at| self.waiting.get_mut(at));
        if let Some(waiting) = place.and_then(Option::take) {
            self.bytes -= waiting.body.len();
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
        let is_full = self.waiting.len() >= FULL || self.bytes >= FULL_BYTES;
        let until = self.begun.filter(|_| self.rounds > 0).map(|begun| begun + patience);
        if let Some(until) = until.filter(|until| *until > now)
            && !(is_full && self.rounds < ROUNDS_MAX)
        {
            return Err(Some(until));
        }
        let (mut round, mut bytes) = (Vec::new(), 0);
        while round.len() < ROUND_MAX && bytes < ROUND_BYTES_MAX {
            let Some(waiting) = self.waiting.pop_front() else { break };
            self.first += 1;
            let Some(waiting) = waiting else { continue };
            bytes += waiting.body.len();
            round.push(waiting);
        }
        self.bytes -= bytes;
        self.rounds += 1;
        self.begun = Some(now);
        Ok(round)
    }
}

impl Proposer {
    /// Starts the task that proposes, until `closed` says so or Raft has ended.
    /// A round that takes longer than `lease` holds nothing up.
    pub(crate) fn start(env: &Env, raft: Raft, lease: Duration, mut closed: watch::Receiver<bool>) -> Arc<Self> {
        let proposer = Arc::<Self>::default();
        let (this, clock) = (proposer.clone(), env.clock.clone());
        let task = async move {
            loop {
                let round = tokio::select! {
                    biased;
                    _ = closed.wait_for(|closed| *closed) => break,
                    round = this.next_round(lease) => round,
                };
                let (ts_ms, shared) = (clock.wall_ms(), Arc::new(Round(this.clone())));
                let mut ended = false;
                for Waiting { body, waiter } in round {
                    let waiter = waiter.in_round(shared.clone());
                    ended |= raft.client_write_ff(Proposal { ts_ms, body }, Some(waiter)).await.is_err();
                }
                if ended {
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

    /// Queues a proposal. `None` if nothing is proposed any more.
    pub(crate) fn queue(self: &Arc<Self>, body: Bytes, permit: Permit) -> Option<Queued> {
        let (waiter, answer) = Waiter::pair(permit);
        let mut queue = self.lock();
        if queue.closed {
            return None;
        }
        let number = queue.first + queue.waiting.len() as u64;
        queue.bytes += body.len();
        queue.waiting.push_back(Some(Waiting { body, waiter }));
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

        fn queue(&mut self, count: usize, bytes: usize) {
            for _ in 0..count {
                let permit = self.admission.admit(bytes).unwrap();
                self.queued.push(self.proposer.queue(Bytes::from(vec![0; bytes]), permit).unwrap());
            }
        }

        /// How much the next round has, and what stands for it.
        fn take(&self) -> (usize, Option<Arc<Round>>) {
            self.take_at(Instant::now())
        }

        fn take_at(&self, now: Instant) -> (usize, Option<Arc<Round>>) {
            match self.proposer.lock().take(now, PATIENCE) {
                Ok(round) => (round.len(), Some(Arc::new(Round(self.proposer.clone())))),
                Err(_) => (0, None),
            }
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
        let part = round.clone();
        drop(round);
        assert_eq!(sent.take().0, 0, "a part of the round is still on its way");
        drop(part);
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
        sent.queue(FULL, 1);
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
    fn a_round_is_bounded() {
        let mut sent = Sent::new();
        sent.queue(ROUND_MAX + 1, 1);
        assert_eq!(sent.take().0, ROUND_MAX);
        let mut sent = Sent::new();
        sent.queue(ROUND_BYTES_MAX / FULL_BYTES + 2, FULL_BYTES);
        assert_eq!(sent.take().0, ROUND_BYTES_MAX / FULL_BYTES);
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
        let permit = sent.admission.admit(1).unwrap();
        assert!(sent.proposer.queue(Bytes::from_static(b"x"), permit).is_none());
    }
}
