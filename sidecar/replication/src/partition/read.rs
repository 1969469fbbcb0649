//! Reads.

use std::time::Duration;

use coterie_core::command::{Answer, Query};
use coterie_core::{ErrorCode, Rejection, Revision};
use coterie_mutants::{Mutant, is_on};
use openraft::async_runtime::{Instant as _, WatchReceiver as _};
use openraft::errors::{LinearizableReadError, RaftError};
use openraft::{LinearizerOption, ReadPolicy};
use tokio::time::Instant;

use super::propose::no_quorum;
use super::{Inner, Partition, ProposeError, left};

/// What a read rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadKind {
    /// On the leader, which asks a majority whether it still leads, once for all reads that wait (ReadIndex; Ongaro's
    /// thesis, section 6.4). Includes everything that was acknowledged before the call, whatever the clocks say.
    Linearizable,
    /// On the leader, which asks nobody while its lease holds: the same, as long as the clocks of members run at rates
    /// that differ by less than a tenth. Without a lease it is read as linearizable.
    Leased,
    /// Anywhere, at any time, from what is applied there.
    Stale,
}

/// Answers, and what they are worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read<A = Answer> {
    /// The answer.
    pub answer: A,
    /// The last revision that it includes.
    pub revision: Revision,
    /// How old it may be: 0 unless it is a stale read, else how long the leader has not been heard.
    pub stale_ms: u64,
}

impl Partition {
    /// Answers a query.
    pub async fn read(&self, query: &Query, kind: ReadKind, timeout: Duration) -> Result<Read, ProposeError> {
        let Read { mut answer, revision, stale_ms } = self.read_all(std::slice::from_ref(query), kind, timeout).await?;
        let answer = answer.pop().expect("as many answers as questions")?;
        Ok(Read { answer, revision, stale_ms })
    }

    /// Answers queries, all of them at one revision, in their order.
    pub async fn read_all(
        &self,
        queries: &[Query],
        kind: ReadKind,
        timeout: Duration,
    ) -> Result<Read<Vec<Result<Answer, Rejection>>>, ProposeError> {
        match kind {
            ReadKind::Stale => return Ok(self.answers(queries, self.silent_ms())),
            ReadKind::Leased => {
                let led = self.led_term();
                let read = self.answers(queries, 0);
                // After reading, so that a pause of the process before it counts, and one after it does no harm.
                if led.is_some_and(|term| self.holds_lease(term)) {
                    return Ok(read);
                }
            }
            ReadKind::Linearizable => {}
        }
        self.confirm_leadership(timeout).await?;
        Ok(self.answers(queries, 0))
    }

    fn answers(&self, queries: &[Query], stale_ms: u64) -> Read<Vec<Result<Answer, Rejection>>> {
        let state = self.inner.replica.state();
        let answer = queries.iter().map(|query| state.machine.query(query)).collect();
        Read { answer, revision: state.machine.revision(), stale_ms }
    }

    /// The term that this replica leads in, once all that was acknowledged before that term is applied here. What is
    /// acknowledged in it is applied before that.
    fn led_term(&self) -> Option<u64> {
        let leadership = self.inner.leadership.borrow();
        (leadership.leading && !self.shutting_down()).then_some(leadership.term)
    }

    /// Whether nobody else can lead, if this replica leads in that term.
    fn holds_lease(&self, term: u64) -> bool {
        let Inner { raft, lease, env, .. } = &*self.inner;
        let age = raft.data_metrics().borrow_watched().last_quorum_acked.map(|at| at.elapsed());
        let holds = |age| lease.holds(term, age, &*env.clock);
        age.is_some_and(holds) || self.is_only_replica() && holds(Duration::ZERO)
    }

    /// Whether there is nobody else, not even to become a voter: then nobody's answer is needed, and none ever comes.
    fn is_only_replica(&self) -> bool {
        self.inner.raft.server_metrics().borrow_watched().membership_config.membership().nodes().count() == 1
    }

    /// Whether this replica surely leads now, as a leased read has it: nobody else can, and all that earlier leaders decided
    /// is applied here. Asks nobody.
    pub fn leads_by_lease(&self) -> bool {
        self.led_term().is_some_and(|term| self.holds_lease(term))
    }

    /// Waits until a majority has confirmed, after the call, that this replica leads, and everything that was
    /// acknowledged before the call is applied here. [`ErrorCode::NoQuorum`] when no majority answers.
    pub async fn confirm_leadership(&self, timeout: Duration) -> Result<(), ProposeError> {
        if is_on(Mutant::ReadWithoutLease) && self.led_term().is_some() {
            return Ok(());
        }
        let since = Instant::now();
        // A majority that says nothing for two leases is not going to.
        let wait = timeout.min(self.inner.timing.lease() * 2);
        let option = LinearizerOption::from(ReadPolicy::ReadIndex).with_wait_timeout(wait);
        let confirm = self.inner.raft.get_read_linearizer(option);
        let index = match tokio::time::timeout(timeout, confirm).await {
            Ok(Ok(linearizer)) => linearizer.read_log_id().index(),
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)))) => {
                return Err(self.forward(forward));
            }
            Ok(Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)))) | Err(_) => return Err(no_quorum()),
            Ok(Err(RaftError::Fatal(fatal))) => return Err(self.fatal(&fatal)),
        };
        if self.inner.replica.state().applied().index >= index {
            return Ok(());
        }
        let mut applied = self.inner.replica.applied();
        let caught_up = applied.wait_for(|applied| applied.index >= index);
        match tokio::time::timeout(left(since, timeout), caught_up).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ProposeError::rejected(ErrorCode::ShuttingDown, "the sidecar is shutting down")),
            Err(_) => {
                Err(ProposeError::rejected(ErrorCode::DeadlineExceeded, "what was committed is not applied in time"))
            }
        }
    }
}
