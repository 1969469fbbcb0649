//! From the present membership to a declared one.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use coterie_core::{ErrorCode, MemberName, NodeId};
use coterie_store::log::Demand;
use openraft::EntryPayload;
use openraft::async_runtime::Instant as _;
use openraft::async_runtime::WatchReceiver;
use openraft::entry::RaftPayload;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::raft::Precondition;
use tokio::time::{Instant, timeout_at};

use super::membership::Membership;
use super::propose::{no_quorum, shutting_down};
use super::{Partition, ProposeError};
use crate::reconfiguration::{Declared, Refusal, Step, next_step};
use crate::transport::Target;
use crate::types::{self, LogId, RaftMetrics, Seat};

/// What a replica takes in a membership entry beside its name, at most: its identity in each set, and lengths.
const REPLICA_BYTES: usize = 64;

impl Partition {
    /// Brings the membership to the declared voters and waits until it is committed and applied here: newcomers catch up
    /// as learners, one after the other; one joint configuration then adds and removes all voters that differ; the removed
    /// ones are no learners after it. Returns the membership that was reached.
    ///
    /// What is next is decided by the present membership alone (`reconfiguration.rs` opens with the table). So it
    /// can be called again at any time, with the same voters or others: after an error, and on the next leader after a
    /// crash of this one at any step. It must be called until it succeeds, since nobody else leaves a joint configuration.
    ///
    /// A member whose volume was lost is declared as its new identity; the old one goes in the same joint change.
    ///
    /// A leader that is not among the declared voters gives the lead away inside of the joint configuration, to one of
    /// those that stay or come, and the answer is [`ProposeError::NotLeader`] with that one's name: call it there. It
    /// still leads while the newcomers catch up, the next leader is there in milliseconds, and nobody leads who has no
    /// vote. Before the joint configuration there may be nobody to give it to, after it the leader would have to commit
    /// what it has no part in.
    ///
    /// Identities are not remembered once they are removed. One may come back with the directory that it had: it kept its
    /// vote. One that lost it must never be declared again, which only the record of identities can know (D14).
    ///
    /// # Errors
    /// [`ProposeError::NotLeader`], and these codes:
    /// - [`ErrorCode::InvalidArgument`]: there are no voters, a member is named twice, or a node is known as another member.
    ///   Nothing was changed.
    /// - [`ErrorCode::NoQuorum`]: no majority answers.
    /// - [`ErrorCode::DeadlineExceeded`]: in `timeout` it came as far as the sentence says; nothing is on its way.
    /// - [`ErrorCode::Unknown`]: an entry was proposed and may be committed later.
    /// - [`ErrorCode::Overloaded`]: another call is at it, or the log is busy. [`ErrorCode::StorageFull`]: it has no room.
    pub async fn reconfigure(&self, voters: &[Target], timeout: Duration) -> Result<Membership, ProposeError> {
        let deadline = Instant::now() + timeout;
        let _one = self.one_reconfiguration()?;
        while self.step(voters, deadline).await?.is_some() {}
        Ok(self.membership())
    }

    /// As [`Partition::reconfigure`], one log entry at most: its index once it is committed and applied, `None` if the
    /// membership is the declared one.
    pub async fn reconfigure_step(&self, voters: &[Target], timeout: Duration) -> Result<Option<u64>, ProposeError> {
        let deadline = Instant::now() + timeout;
        let _one = self.one_reconfiguration()?;
        self.step(voters, deadline).await
    }

    fn one_reconfiguration(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, ProposeError> {
        self.inner.reconfiguring.try_lock().map_err(|_| {
            let message = format!("another call changes the membership of {} already", self.inner.id);
            ProposeError::rejected(ErrorCode::Overloaded, message)
        })
    }

    async fn step(&self, voters: &[Target], deadline: Instant) -> Result<Option<u64>, ProposeError> {
        let declared = declared(voters)?;
        self.confirm_leadership(deadline.saturating_duration_since(Instant::now())).await?;
        let own = self.inner.node.0;
        let mut watched = self.inner.raft.metrics();
        let mut round = Round::begin(&watched.borrow_watched());
        loop {
            let metrics = watched.borrow_watched().clone();
            self.still_leads(&metrics)?;
            round.renew(&metrics, self.inner.timing.election_min());
            // What an earlier leader left is not known to be committed for a moment.
            let mut awaited = None;
            if metrics.committed_membership_config == metrics.membership_config {
                let stored = &metrics.membership_config;
                let follows = |node| node == own || round.follows(&metrics, node, self.inner.timing.lease());
                let refused =
                    |refusal: Refusal| ProposeError::rejected(ErrorCode::InvalidArgument, refusal.to_string());
                match next_step(own, stored.membership(), &declared, follows).map_err(refused)? {
                    Step::Done => return Ok(None),
                    Step::Append(next) => {
                        if let Some(index) = self.append(*stored.log_id(), next, deadline).await? {
                            return Ok(Some(index));
                        }
                    }
                    Step::HandOver(fit) => {
                        self.transfer_to(|node| fit.contains(&node)).await;
                        return Err(self.other_leads());
                    }
                    Step::Await(nodes) => awaited = Some(nodes),
                }
            }
            match timeout_at(deadline, watched.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(shutting_down()),
                Err(_) => return Err(late(&Membership::from(&metrics), &awaited.unwrap_or_default(), round.mark)),
            }
        }
    }

    /// Appends a membership on top of the one at `present` and waits until it is committed. `None` if that one is not, or
    /// no longer, the last.
    async fn append(
        &self,
        present: Option<LogId>,
        next: types::Membership,
        deadline: Instant,
    ) -> Result<Option<u64>, ProposeError> {
        let bytes = next.nodes().map(|(_, seat)| REPLICA_BYTES + seat.member.len()).sum();
        self.admit_in_log(Demand::Reserve, bytes)?;
        tracing::info!(partition = %self.inner.id, %next, "the membership changes");
        let only_then = Precondition::LastMembershipLogId { last_membership_log_id: present };
        let entry = EntryPayload::blank();
        let append = self.inner.raft.append_membership(next, entry, [only_then]);
        let unknown = |what: &str| {
            let message = format!("a change of the membership of {} was proposed and {what}; ask again", self.inner.id);
            ProposeError::rejected(ErrorCode::Unknown, message)
        };
        match timeout_at(deadline, append).await {
            Ok(Ok(response)) => Ok(Some(response.log_id.index)),
            Ok(Err(RaftError::Fatal(fatal))) => Err(self.fatal(&fatal)),
            Ok(Err(RaftError::APIError(error))) => match error {
                ClientWriteError::ForwardToLeader(forward) => Err(self.forward(forward)),
                ClientWriteError::LogEntryDiscarded(_) => Err(unknown("the leader changed")),
                ClientWriteError::PreconditionFailed(_)
                | ClientWriteError::ChangeMembershipError(
                    ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_),
                ) => Ok(None),
                error @ ClientWriteError::ChangeMembershipError(
                    ChangeMembershipError::EmptyMembership(_)
                    | ChangeMembershipError::LearnerNotFound(_)
                    | ChangeMembershipError::UnsupportedMembershipTransition(_)
                    | ChangeMembershipError::NodeMetadataChanged(_),
                ) => Err(ProposeError::rejected(ErrorCode::Internal, error.to_string())),
            },
            Err(_) => Err(unknown("not committed in time")),
        }
    }

    /// Whether this replica leads and a majority follows, as it was a moment ago.
    fn still_leads(&self, metrics: &RaftMetrics) -> Result<(), ProposeError> {
        if self.shutting_down() {
            return Err(shutting_down());
        }
        if let Err(fatal) = &metrics.running_state {
            return Err(self.fatal(fatal));
        }
        if !metrics.state.is_leader() {
            return Err(self.other_leads());
        }
        let leadership = self.inner.leadership.borrow();
        if leadership.leading && !leadership.has_quorum { Err(no_quorum()) } else { Ok(()) }
    }

    fn other_leads(&self) -> ProposeError {
        let server = self.inner.raft.server_metrics();
        let server = server.borrow_watched();
        let leader = server.current_leader.filter(|leader| *leader != self.inner.node.0);
        let seat = leader.and_then(|leader| server.membership_config.membership().get_node(&leader));
        ProposeError::NotLeader(seat.map(|seat| MemberName(seat.member.clone())))
    }
}

fn declared(voters: &[Target]) -> Result<Declared, ProposeError> {
    let mut declared = Declared::new();
    for Target { node, member } in voters {
        if let Some(Seat { member: other }) = declared.insert(node.0, Seat { member: member.0.clone() }) {
            let message = format!("node {node} is declared twice, as {other} and as {member}");
            return Err(ProposeError::rejected(ErrorCode::InvalidArgument, message));
        }
    }
    Ok(declared)
}

/// A replica follows when it holds what was committed as the round began (Ongaro's thesis, section 4.2.1): the rest takes
/// it about as long as the round has lasted, whatever the sizes and the rate of writes are.
struct Round {
    began: Instant,
    mark: Option<u64>,
}

impl Round {
    fn begin(metrics: &RaftMetrics) -> Self {
        Self { began: Instant::now(), mark: metrics.local_committed.map(|id| id.index) }
    }

    /// Begins another one when this one has lasted for long.
    fn renew(&mut self, metrics: &RaftMetrics, longest: Duration) {
        if self.began.elapsed() > longest {
            *self = Self::begin(metrics);
        }
    }

    fn follows(&self, metrics: &RaftMetrics, node: u64, lately: Duration) -> bool {
        let held = metrics.replication.as_ref().and_then(|held| held.get(&node)?.as_ref());
        let heard = metrics.heartbeat.as_ref().and_then(|heard| heard.get(&node)?.as_ref());
        held.map(|id| id.index) >= self.mark && heard.is_some_and(|at| at.elapsed() < lately)
    }
}

/// How far it came.
fn late(now: &Membership, awaited: &BTreeSet<u64>, mark: Option<u64>) -> ProposeError {
    let mut message = "the membership is not the declared one in time".to_owned();
    for node in awaited {
        let Some(replica) = now.replicas.get(&NodeId(*node)) else { continue };
        let held = replica.held.map_or("nothing".to_owned(), |held| format!("up to {held}"));
        let mark = mark.unwrap_or_default();
        let _ = write!(message, "; {} (node {node}) holds {held} of {mark} log entries", replica.member);
        match replica.silent_ms {
            Some(silent) => drop(write!(message, " and answered a heartbeat of {silent} ms ago")),
            None => message.push_str(" and has answered no heartbeat"),
        }
    }
    message.push_str("; ask again");
    ProposeError::rejected(ErrorCode::DeadlineExceeded, message)
}
