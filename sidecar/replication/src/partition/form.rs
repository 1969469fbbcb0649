//! The first membership.

use std::collections::BTreeMap;

use openraft::errors::{InitializeError, RaftError};

use super::{Error, Partition};
use crate::runtime::seeded;
use crate::transport::Target;
use crate::types::Seat;

impl Partition {
    /// Gives the partition its first voters, once; no effect on a replica that has a log or a vote already. Every seat
    /// may do so, if all do it with the same seats: they then write the same first entry.
    pub async fn form(&self, seats: Vec<Target>) -> Result<(), Error> {
        let id = &self.inner.id;
        if !seats.iter().any(|seat| seat.node == self.inner.node) {
            return Err(Error::NotASeat(id.clone()));
        }
        let seats: BTreeMap<u64, Seat> =
            seats.into_iter().map(|seat| (seat.node.0, Seat { member: seat.member.0 })).collect();
        match seeded(&self.inner.env, self.inner.raft.initialize(seats)).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(InitializeError::NotInMembers(_))) => Err(Error::NotASeat(id.clone())),
            Err(RaftError::Fatal(fatal)) => Err(Error::Form(id.clone(), fatal.to_string())),
        }
    }

    /// Whether this replica has any log, vote or snapshot: it is, or was, a part of the partition.
    pub fn is_formed(&self) -> bool {
        !self.inner.log.is_pristine() || self.inner.replica.has_snapshot()
    }
}
