//! The types that openraft is instantiated with.

use std::fmt;

use bytes::Bytes;
use coterie_core::Revision;
use coterie_core::command::Outcome;
use openraft::raft::responder::Responder;
use openraft::storage::RaftStateMachine;
use openraft::vote::RaftLeaderId;
use openraft::{RaftTypeConfig, impls};
use serde::{Deserialize, Serialize};

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

/// What the leader puts into the log for a round of commands: one entry.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// The leader's wall clock when it took the commands, in Unix milliseconds.
    pub ts_ms: u64,
    /// The encoded [`coterie_core::command::Envelope`]s back to back, as they were encoded at the edge, each behind its length
    /// (4 bytes, little endian).
    pub commands: Bytes,
}

impl Proposal {
    /// Of commands, in this order.
    pub(crate) fn new<'a>(ts_ms: u64, bodies: impl Iterator<Item = &'a Bytes> + Clone) -> Self {
        let mut commands = Vec::with_capacity(bodies.clone().map(|body| LENGTH_BYTES + body.len()).sum());
        for body in bodies {
            let len = u32::try_from(body.len()).expect("a body is at most some megabytes");
            commands.extend_from_slice(&len.to_le_bytes());
            commands.extend_from_slice(body);
        }
        Self { ts_ms, commands: commands.into() }
    }

    /// The commands, in order, up to where they are not what [`Proposal::new`] made.
    pub(crate) fn commands(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &*self.commands;
        std::iter::from_fn(move || {
            let (len, behind) = rest.split_first_chunk::<LENGTH_BYTES>()?;
            let (command, behind) = behind.split_at_checked(u32::from_le_bytes(*len) as usize)?;
            rest = behind;
            Some(command)
        })
    }

    /// Whether all of it are commands.
    pub(crate) fn is_whole(&self) -> bool {
        self.commands().map(|command| LENGTH_BYTES + command.len()).sum::<usize>() == self.commands.len()
    }
}

/// Of the length of a command in a round.
const LENGTH_BYTES: usize = 4;

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "round of {} bytes at {} ms", self.commands.len(), self.ts_ms)
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What applying an entry gives to the one who proposed it: one for each of its commands, in their order. Entries that are
/// Raft's own have none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response(pub Vec<(Revision, Outcome)>);

/// A voter, beside its node id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// The member's name; its address comes from the member directory, because addresses of pods change.
    pub member: String,
}

/// Hands openraft's answer to those who wait for it. Dropped without one when openraft has ended.
pub struct Waiter<T>(Box<dyn FnOnce(T) + Send>);

impl<T> Waiter<T> {
    pub(crate) fn new(tell: impl FnOnce(T) + Send + 'static) -> Self {
        Self(Box::new(tell))
    }
}

impl<T: Send + 'static> Responder<TypeConfig, T> for Waiter<T> {
    fn on_complete(self, result: T) {
        (self.0)(result);
    }
}
