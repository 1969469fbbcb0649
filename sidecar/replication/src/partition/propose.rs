//! Writes.

use std::io::ErrorKind;
use std::time::Duration;

use bytes::Bytes;
use coterie_core::command::{self, Envelope, Outcome};
use coterie_core::{ErrorCode, MemberName, Rejection, Revision};
use coterie_store::log::Demand;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, Fatal, ForwardReason, ForwardToLeader};
use tokio::sync::oneshot::error::RecvError;
use tokio::time::Instant;

use super::{Inner, Partition, left};
use crate::admission::{IN_FLIGHT_BYTES_MAX, IN_FLIGHT_MAX, Permit};
use crate::proposer::{Answer, Group, Queued};
use crate::types::TypeConfig;

/// Why there is no answer to a proposal or a linearizable read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This replica does not lead; perhaps that member does. Nothing was proposed.
    #[error("this replica does not lead{}", .0.as_ref().map(|leader| format!("; {leader} does")).unwrap_or_default())]
    NotLeader(Option<MemberName>),
    /// Refused or failed; only with [`ErrorCode::Unknown`] may it have been applied.
    #[error(transparent)]
    Rejected(#[from] Rejection),
}

impl ProposeError {
    pub(crate) fn rejected(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::Rejected(Rejection::new(code, message))
    }
}

impl Partition {
    /// Proposes a command, an encoded [`coterie_core::command::Envelope`], and waits until it is applied. Returns the
    /// revision and outcome of *this* entry; for a request that was applied before, the outcome is that of the first
    /// time (D11).
    ///
    /// Not proposed, and never will be: [`ProposeError::NotLeader`], and all codes but [`ErrorCode::Unknown`]. With that
    /// one the command may or may not be applied, now or later; a retry with the same request id is applied once.
    ///
    /// A volume that is too full for what applications write still takes what keeps the cluster in order
    /// ([`coterie_core::command::Command::is_upkeep`]).
    pub async fn propose(&self, body: Bytes, timeout: Duration) -> Result<(Revision, Outcome), ProposeError> {
        self.propose_one(Demand::Growth, None, body, timeout).await
    }

    /// Proposes commands, each as [`Partition::propose`] does, and waits for all of them. They are applied in their order,
    /// and share a place in the log where there is room for all; each has an answer of its own.
    pub async fn propose_all(
        &self,
        bodies: Vec<Bytes>,
        timeout: Duration,
    ) -> Vec<Result<(Revision, Outcome), ProposeError>> {
        self.propose_as(Demand::Growth, None, bodies, timeout).await
    }

    /// As [`Partition::propose`], whatever the command is, also when the volume is too full for what applications write.
    pub async fn propose_from_reserve(
        &self,
        body: Bytes,
        timeout: Duration,
    ) -> Result<(Revision, Outcome), ProposeError> {
        self.propose_one(Demand::Reserve, None, body, timeout).await
    }

    /// As [`Partition::propose_from_reserve`], for what the leader of this term has decided: it gets into the log while
    /// that one leads, or never, also if it lay in a queue until the same replica led again.
    pub async fn propose_in_term(
        &self,
        term: u64,
        body: Bytes,
        timeout: Duration,
    ) -> Result<(Revision, Outcome), ProposeError> {
        self.propose_one(Demand::Reserve, Some(term), body, timeout).await
    }

    async fn propose_one(
        &self,
        demand: Demand,
        term: Option<u64>,
        body: Bytes,
        timeout: Duration,
    ) -> Result<(Revision, Outcome), ProposeError> {
        let mut answers = self.propose_as(demand, term, vec![body], timeout).await;
        answers.pop().expect("as many answers as commands")
    }

    async fn propose_as(
        &self,
        demand: Demand,
        term: Option<u64>,
        bodies: Vec<Bytes>,
        timeout: Duration,
    ) -> Vec<Result<(Revision, Outcome), ProposeError>> {
        let (count, since) = (bodies.len(), Instant::now());
        if count == 0 {
            return Vec::new();
        }
        if let Some(error) = self.leads_elsewhere(timeout).await {
            return vec![Err(error); count];
        }
        let queued = match self.queue(demand, term, bodies) {
            Ok(queued) => vec![(count, Ok(queued))],
            Err((error, bodies)) if bodies.len() <= 1 || is_overloaded(&error) => return vec![Err(error); count],
            // There may be room for some of them.
            Err((_, bodies)) => {
                let alone = |body| (1, self.queue(demand, term, vec![body]).map_err(|(error, _)| error));
                bodies.into_iter().map(alone).collect()
            }
        };
        let mut timer = std::pin::pin!(tokio::time::sleep(left(since, timeout)));
        let mut answers = Vec::with_capacity(count);
        for (count, queued) in queued {
            let settled = match queued {
                Ok(mut queued) => {
                    let answer = tokio::select! {
                        biased;
                        answer = &mut queued.answer => Some(answer),
                        () = &mut timer => None,
                    };
                    self.settle(&queued, answer, count)
                }
                Err(error) => Err(error),
            };
            match settled {
                Ok(outcomes) => answers.extend(outcomes.into_iter().map(Ok)),
                Err(error) => answers.extend(std::iter::repeat_n(Err(error), count)),
            }
        }
        answers
    }

    /// To be asked first of all: what this replica's volume takes is no matter while another one leads. One that was just
    /// elected waits until all that was acknowledged before is applied, a few milliseconds: Raft takes nothing from it
    /// before a majority has heard of it.
    async fn leads_elsewhere(&self, timeout: Duration) -> Option<ProposeError> {
        let mut leadership = self.inner.leadership.clone();
        let settled = async {
            loop {
                let now = leadership.borrow_and_update().clone();
                if now.leading || self.shutting_down() {
                    return None;
                }
                if !self.inner.raft.is_leader() && now.leader.as_ref() != Some(&self.inner.member) {
                    return Some(ProposeError::NotLeader(now.leader));
                }
                if leadership.changed().await.is_err() {
                    return Some(ProposeError::NotLeader(None));
                }
            }
        };
        let wait = timeout.min(self.inner.timing.lease() * 2);
        let late =
            "the leader is new, and has not applied in time what was acknowledged before it; nothing was proposed";
        let late = |_| Some(ProposeError::rejected(ErrorCode::DeadlineExceeded, late));
        tokio::time::timeout(wait, settled).await.unwrap_or_else(late)
    }

    /// Queues commands for the next round, all or none of them. Gives back what may be queued another time.
    fn queue(
        &self,
        demand: Demand,
        term: Option<u64>,
        bodies: Vec<Bytes>,
    ) -> Result<Queued, (ProposeError, Vec<Bytes>)> {
        match self.admit(demand, &bodies) {
            Ok(permit) => {
                let group = Group { bodies, term, permit };
                self.inner.proposer.queue(group).ok_or_else(|| (shutting_down(), Vec::new()))
            }
            Err(error) => Err((error, bodies)),
        }
    }

    /// What came of queued commands; `None` as their answer if it took too long.
    fn settle(
        &self,
        queued: &Queued,
        answer: Option<Result<Answer, RecvError>>,
        count: usize,
    ) -> Result<Vec<(Revision, Outcome)>, ProposeError> {
        match answer {
            Some(Ok(Ok(outcomes))) if outcomes.len() != count => {
                Err(ProposeError::rejected(ErrorCode::Internal, "commands were applied as another entry"))
            }
            Some(Ok(answer)) => answer.map_err(|error| self.refused(error)),
            Some(Err(_)) if queued.withdraw() => Err(shutting_down()),
            Some(Err(_)) => Err(stopped()),
            None if queued.withdraw() => Err(not_proposed()),
            None => Err(not_committed()),
        }
    }

    fn admit(&self, demand: Demand, bodies: &[Bytes]) -> Result<Permit, ProposeError> {
        let bytes = bodies.iter().map(Bytes::len).sum();
        if self.shutting_down() {
            return Err(shutting_down());
        }
        if bytes > IN_FLIGHT_BYTES_MAX {
            let message = format!("the command has {bytes} bytes; at most {IN_FLIGHT_BYTES_MAX} can be replicated");
            return Err(ProposeError::rejected(ErrorCode::TooLarge, message));
        }
        let permit = self.inner.admission.admit(bodies.len(), bytes).ok_or_else(|| {
            let message = format!("{} has {IN_FLIGHT_MAX} commands or 8 MiB on their way; retry later", self.inner.id);
            ProposeError::rejected(ErrorCode::Overloaded, message)
        })?;
        // What the commands are need not be known while there is room.
        let are_needed = || bodies.iter().all(|body| self.is_needed(body));
        let admitted = match self.inner.log.admit(demand, bytes) {
            Err(error) if error.kind() == ErrorKind::StorageFull && demand == Demand::Growth && are_needed() => {
                self.inner.log.admit(Demand::Reserve, bytes)
            }
            Ok(()) if demand == Demand::Growth => match self.short_majority() {
                Some(reason) if !are_needed() => {
                    let message = format!("{} takes no writes and answers reads, as {reason}", self.inner.id);
                    return Err(ProposeError::rejected(ErrorCode::StorageFull, message));
                }
                Some(_) | None => Ok(()),
            },
            admitted => admitted,
        };
        admitted.map_err(|error| self.refused_by_log(&error))?;
        Ok(permit)
    }

    /// Whether the log takes this many bytes now.
    pub(super) fn admit_in_log(&self, demand: Demand, bytes: usize) -> Result<(), ProposeError> {
        self.inner.log.admit(demand, bytes).map_err(|error| self.refused_by_log(&error))
    }

    fn refused_by_log(&self, error: &std::io::Error) -> ProposeError {
        let Inner { id, member, .. } = &*self.inner;
        let (code, message) = match error.kind() {
            ErrorKind::WouldBlock => (ErrorCode::Overloaded, format!("{member}, which leads {id}, is busy: {error}")),
            ErrorKind::StorageFull => {
                self.inner.rooms.note_refused();
                let message = format!("{member}, which leads {id}, takes no writes and answers reads: {error}");
                (ErrorCode::StorageFull, message)
            }
            _ => (ErrorCode::Internal, format!("the log of {member}, which leads {id}, takes no command: {error}")),
        };
        ProposeError::rejected(code, message)
    }

    /// Whether a command is taken from the reserve.
    fn is_needed(&self, body: &[u8]) -> bool {
        command::decode::<Envelope>("command", body).is_ok_and(|Envelope { request: _, command }| {
            command.is_upkeep() || self.inner.replica.state().machine.gives_back(&command)
        })
    }

    /// Why writes are refused for want of room, or would be if this replica led; `None` while they are taken.
    pub fn read_only(&self) -> Option<String> {
        match self.inner.log.admit(Demand::Growth, 0) {
            Err(error) if error.kind() == ErrorKind::StorageFull => Some(error.to_string()),
            Err(_) | Ok(()) => self.short_majority(),
        }
    }

    /// Why a majority would refuse growth, if this replica leads.
    fn short_majority(&self) -> Option<String> {
        let Inner { env, raft, rooms, .. } = &*self.inner;
        // What was heard while it led before counts for nothing.
        if !self.inner.leadership.borrow().leading {
            return None;
        }
        let voters = || raft.server_metrics().borrow_watched().membership_config.voter_ids().collect();
        let reason = rooms.short_majority(voters, env.clock.monotonic_ms())?;
        Some(format!("a majority of its replicas has no room: {reason}"))
    }

    fn refused(&self, error: ClientWriteError<TypeConfig>) -> ProposeError {
        match error {
            ClientWriteError::ForwardToLeader(forward) => self.forward(forward),
            ClientWriteError::LogEntryDiscarded(_) => unknown("the leader changed while the command was on its way"),
            error @ (ClientWriteError::ChangeMembershipError(_) | ClientWriteError::PreconditionFailed(_)) => {
                ProposeError::rejected(ErrorCode::Internal, error.to_string())
            }
        }
    }

    pub(super) fn forward(&self, forward: ForwardToLeader<TypeConfig>) -> ProposeError {
        match forward.reason {
            ForwardReason::LeaseExpired => no_quorum(),
            ForwardReason::NotLeader | ForwardReason::LeadershipTransfer => {
                let other = forward.leader_id.is_some_and(|leader| leader != self.inner.node.0);
                let leader = forward.leader_node.filter(|_| other);
                ProposeError::NotLeader(leader.map(|seat| MemberName(seat.member)))
            }
        }
    }

    pub(super) fn fatal(&self, fatal: &Fatal<TypeConfig>) -> ProposeError {
        match fatal {
            Fatal::Stopped => shutting_down(),
            Fatal::StorageError(_) | Fatal::Panicked => {
                ProposeError::rejected(ErrorCode::Internal, format!("the replica of {} failed: {fatal}", self.inner.id))
            }
        }
    }
}

fn is_overloaded(error: &ProposeError) -> bool {
    matches!(error, ProposeError::Rejected(rejection) if rejection.code == ErrorCode::Overloaded)
}

pub(super) fn shutting_down() -> ProposeError {
    ProposeError::rejected(ErrorCode::ShuttingDown, "the sidecar is shutting down")
}

fn stopped() -> ProposeError {
    unknown("the replica stopped while the command was on its way")
}

fn not_committed() -> ProposeError {
    unknown("the command was proposed and not committed in time")
}

fn not_proposed() -> ProposeError {
    ProposeError::rejected(ErrorCode::DeadlineExceeded, "not proposed in time")
}

fn unknown(message: &str) -> ProposeError {
    ProposeError::rejected(ErrorCode::Unknown, format!("{message}; retry with the same request id"))
}

pub(super) fn no_quorum() -> ProposeError {
    ProposeError::rejected(ErrorCode::NoQuorum, "the leader does not hear from a majority of the replicas")
}
