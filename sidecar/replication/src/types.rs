//! The types that openraft is instantiated with.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use coterie_core::Revision;
use coterie_core::command::Outcome;
use openraft::raft::responder::Responder;
use openraft::storage::RaftStateMachine;
use openraft::vote::RaftLeaderId;
use openraft::{RaftTypeConfig, impls};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::admission::Permit;
use crate::proposer::Round;
use crate::runtime::Runtime;
use crate::state_machine::StateMachine;

/// openraft's parameters here. (By hand: `declare_raft_types!` does not take a responder of one's own.)
#[derive(Debug, Clone, Copy, Default, Eq, PartialEq, Ord, PartialOrd)]
pub struct TypeConfig {}

impl RaftTypeConfig for TypeConfig {
    type D = Proposal;
    type R = Response;
    type NodeId = u64;
    type Node = Seat;
    type Term = u64;
    type LeaderId = impls::leader_id_adv::LeaderId<u64, u64>;
    type Vote = impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Proposal, u64, Seat>;
    type Entry = impls::Entry<<Self::LeaderId as RaftLeaderId>::Committed, Self::Payload>;
    type AsyncRuntime = Runtime;
    type Responder<T>
        = Waiter<T>
    where
        T: Send + 'static;
    type Batch<T>
        = impls::InlineBatch<T>
    where
        T: Send + 'static;
    type ErrorSource = impls::BoxedErrorSource;
}

pub(crate) type Raft = openraft::Raft<TypeConfig, StateMachine>;
pub(crate) type RaftMetrics = openraft::RaftMetrics<TypeConfig>;
pub(crate) type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
pub(crate) type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub(crate) type Membership = openraft::Membership<u64, Seat>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
pub(crate) type Snapshot =
    openraft::type_config::alias::SnapshotOf<TypeConfig, <StateMachine as RaftStateMachine<TypeConfig>>::SnapshotData>;
pub(crate) type WriteResult = openraft::raft::ClientWriteResult<TypeConfig>;

/// What the leader puts into the log for a command.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// The leader's wall clock when it took the command, in Unix milliseconds.
    pub ts_ms: u64,
    /// The encoded [`coterie_core::command::Envelope`], as it was encoded at the edge.
    pub body: Bytes,
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "proposal of {} bytes at {} ms", self.body.len(), self.ts_ms)
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What applying an entry gives to the one who proposed it. `None` for entries that are Raft's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response(pub Option<(Revision, Outcome)>);

/// A voter, beside its node id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// The member's name; its address comes from the member directory, because addresses of pods change.
    pub member: String,
}

/// Hands openraft's answer to the one who waits for it; silent when nobody waits any longer.
pub struct Waiter<T> {
    sender: oneshot::Sender<T>,
    /// Given back when openraft is done with the command, not when its caller goes: until then it is in the log, and
    /// takes the room of another.
    _permit: Permit,
    /// Dropped with it: see [`crate::proposer`].
    _round: Option<Arc<Round>>,
}

impl<T> Waiter<T> {
    pub(crate) fn pair(permit: Permit) -> (Self, oneshot::Receiver<T>) {
        let (sender, receiver) = oneshot::channel();
        (Self { sender, _permit: permit, _round: None }, receiver)
    }

    /// The same, as a part of a round.
    pub(crate) fn in_round(self, round: Arc<Round>) -> Self {
        Self { _round: Some(round), ..self }
    }
}

impl<T: Send + 'static> Responder<TypeConfig, T> for Waiter<T> {
    fn on_complete(self, result: T) {
        // An error means that the caller's deadline has passed; it was told `unknown`.
        let _ = self.sender.send(result);
    }
}
