//! How replicas reach each other. The shell implements [`Transport`] over its peer connections; tests over channels.

use std::time::Duration;

use bytes::Bytes;
use coterie_core::{MemberName, NodeId, PartitionId};

/// A replica of a partition, as the one who sends to it knows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The identity that it must have; a message never reaches another one (D14).
    pub node: NodeId,
    /// The member that holds it; the transport finds its address.
    pub member: MemberName,
}

/// Why a message has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It did not get there, or the answer did not come back in time. The receiver may have acted on it.
    #[error("reach {member}: {reason}")]
    Unreachable {
        /// Who was meant.
        member: MemberName,
        /// What happened.
        reason: String,
    },
    /// It got there and was refused: another identity, no such partition, a newer version.
    #[error("{member} refused: {reason}")]
    Refused {
        /// Who refused.
        member: MemberName,
        /// Why.
        reason: String,
    },
}

/// Carries messages between replicas of one partition.
///
/// The receiver checks that it is `to.node`, finds its replica of `partition`, and gives what comes to
/// [`crate::Partition::handle`], [`crate::Partition::handle_lane`] or [`crate::Partition::handle_snapshot`]. Messages
/// outside of lanes and transfers may be lost, delayed, duplicated and reordered. The payload is opaque and at most a few
/// megabytes.
#[async_trait::async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Sends one message and waits at most `timeout` for the answer.
    async fn send(
        &self,
        to: &Target,
        partition: &PartitionId,
        kind: u32,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, Error>;

    /// Opens a lane to a replica: what is sent on it arrives in order and once, or not at all, and each message is answered
    /// in that order. Does not wait for a connection: a lane that cannot be is an error of its first answer.
    fn lane(&self, to: &Target, partition: &PartitionId) -> Result<Box<dyn Lane>, Error>;

    /// Begins to send a snapshot to a replica. What is sent arrives in order and once, or not at all. Nothing else waits
    /// behind it.
    async fn transfer(&self, to: &Target, partition: &PartitionId) -> Result<Box<dyn Transfer>, Error>;
}

/// A snapshot on its way to one replica. Dropping it ends it.
#[async_trait::async_trait]
pub trait Transfer: Send {
    /// Sends the next message. Waits while the receiver does not take what was sent before, but for a few messages.
    async fn send(&mut self, payload: Bytes) -> Result<(), Error>;

    /// The next answer, as the receiver gives it: not one for each message. An error is the last. Cancelling loses nothing.
    async fn answer(&mut self) -> Result<Bytes, Error>;
}

/// Messages to one replica in order, many on their way at once. Dropping it ends it.
#[async_trait::async_trait]
pub trait Lane: Send {
    /// Sends the next message without waiting for the answers of those before.
    fn send(&mut self, payload: Bytes) -> Result<(), Error>;

    /// The next answer. An error is the lane's last. Cancelling loses nothing. As many answers come as messages were sent:
    /// whoever wants a time-out sets one.
    async fn answer(&mut self) -> Result<Bytes, Error>;
}
