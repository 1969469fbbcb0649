//! Reads.

use std::time::Duration;

use coterie_core::command::{Answer, Query};
use coterie_core::{ErrorCode, Revision};
use openraft::errors::{LinearizableReadError, RaftError};
use openraft::{LinearizerOption, ReadPolicy};
use tokio::time::Instant;

use super::propose::no_quorum;
use super::{Partition, ProposeError, left};

/// An answer, and what it is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The answer.
    pub answer: Answer,
    /// The last revision that it includes.
    pub revision: Revision,
    /// How old it may be: 0 for a linearizable read, else how long the leader has not been heard.
    pub stale_ms: u64,
}

impl Partition {
    /// Answers a query: `stale` from what is applied here, at any time; else linearizably, on the leader only. A
    /// linearizable answer includes everything that was acknowledged before the call, whatever the clocks say: the
    /// leader asks a majority whether it still leads (ReadIndex; Ongaro's thesis, section 6.4), once for all reads that
    /// wait.
    pub async fn read(&self, query: &Query, stale: bool, timeout: Duration) -> Result<Read, ProposeError> {
        let stale_ms = if stale { self.silent_ms() } else { 0 };
        if !stale {
            self.confirm_leadership(timeout).await?;
        }
        let state = self.inner.replica.state();
        let answer = state.machine.query(query)?;
        Ok(Read { answer, revision: state.revision(), stale_ms })
    }

    /// Waits until a majority has confirmed, after the call, that this replica leads, and everything that was
    /// acknowledged before the call is applied here. [`ErrorCode::NoQuorum`] when no majority answers.
    pub async fn confirm_leadership(&self, timeout: Duration) -> Result<(), ProposeError> {
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
        let mut applied = self.inner.replica.applied();
        let caught_up = applied.wait_for(|revision| revision.0 >= index);
        match tokio::time::timeout(left(since, timeout), caught_up).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ProposeError::rejected(ErrorCode::ShuttingDown, "the sidecar is shutting down")),
            Err(_) => {
                Err(ProposeError::rejected(ErrorCode::DeadlineExceeded, "what was committed is not applied in time"))
            }
        }
    }
}
