//! Who has a replica, and how far each of them is.

use std::collections::{BTreeMap, BTreeSet};

use coterie_core::{MemberName, NodeId};
use openraft::async_runtime::Instant as _;
use openraft::async_runtime::WatchReceiver;

use super::Partition;
use crate::types::RaftMetrics;

/// A partition's membership, as one replica knows it; what a removed replica knows stays as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The index of the log entry that made it; `None` while this replica knows of no membership.
    pub index: Option<u64>,
    /// Whether it is known to be committed. One that is not may be replaced by the one before.
    pub is_committed: bool,
    /// The set of voters; in a joint configuration two, the former and the later one, and everything needs a majority of
    /// each. None while this replica knows of no membership.
    pub voters: Vec<BTreeSet<NodeId>>,
    /// Every replica. Those that are in no set of voters are learners.
    pub replicas: BTreeMap<NodeId, ReplicaStatus>,
}

/// One replica of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// The member that holds it.
    pub member: MemberName,
    /// Up to which index it has said that it holds the leader's log, durably. Known to the leader only.
    pub held: Option<u64>,
    /// How long ago the last heartbeat was sent that it answered, in milliseconds. Known to the leader only, of others.
    pub silent_ms: Option<u64>,
}

impl Membership {
    /// Whether it is on its way from one set of voters to another.
    pub fn is_joint(&self) -> bool {
        self.voters.len() > 1
    }

    /// Whether a node votes, in one of the sets.
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.voters.iter().any(|voters| voters.contains(&node))
    }

    /// Those that get the log and do not vote.
    pub fn learners(&self) -> impl Iterator<Item = NodeId> {
        self.replicas.keys().copied().filter(|node| !self.is_voter(*node))
    }
}

impl From<&RaftMetrics> for Membership {
    fn from(metrics: &RaftMetrics) -> Self {
        let stored = &metrics.membership_config;
        let voters = stored.membership().get_joint_config();
        let replicas = stored.membership().nodes().map(|(node, seat)| {
            let held = metrics.replication.as_ref().and_then(|held| held.get(node)?.as_ref());
            let heard = metrics.heartbeat.as_ref().and_then(|heard| heard.get(node)?.as_ref());
            let status = ReplicaStatus {
                member: MemberName(seat.member.clone()),
                held: held.map(|id| id.index()),
                silent_ms: heard.map(|at| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX)),
            };
            (NodeId(*node), status)
        });
        Self {
            index: stored.log_id().as_ref().map(|id| id.index()),
            is_committed: metrics.committed_membership_config == *stored,
            voters: voters.iter().map(|side| side.iter().copied().map(NodeId).collect()).collect(),
            replicas: replicas.collect(),
        }
    }
}

impl Partition {
    /// The membership and, on the leader, how far each replica is; as of the last event in this replica.
    pub fn membership(&self) -> Membership {
        Membership::from(&*self.inner.raft.metrics().borrow_watched())
    }
}
