//! openraft's network on the [`Transport`].

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coterie_core::{MemberName, NodeId, PartitionId};
use coterie_env::Env;
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, Stream, StreamExt as _};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::network::stream_append_sequential;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::type_config::TypeConfigExt as _;
use openraft::{OptionalSend, RaftNetworkFactory, RaftNetworkV2, StorageError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{self, Kind};
use crate::lease::Lease;
use crate::pipeline::{AppendAnswer, Pipeline};
use crate::room::{Answered, Rooms};
use crate::snapshots::{Offer, SendError, Sending, SnapshotData, SnapshotFile};
use crate::transport::{Target, Transport};
use crate::types::{Seat, Snapshot, TypeConfig, Vote};

/// Makes a [`Peer`] for each other replica.
pub(crate) struct Network {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) partition: PartitionId,
    pub(crate) generation: u64,
    /// How long an append with entries may take: the receiver flushes them before it answers.
    pub(crate) append_timeout: Duration,
    /// What the others say of their volumes.
    pub(crate) rooms: Arc<Rooms>,
    /// What ends when the lead is given away.
    pub(crate) lease: Arc<Lease>,
    /// What followers are sent that are too far behind.
    pub(crate) file: SnapshotFile,
    pub(crate) env: Env,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &Seat) -> Peer {
        self.peer(target, node, Appends::Pipelined)
    }

    /// One message and its answer at a time, and none of them behind entries.
    async fn new_heartbeat_client(&mut self, target: u64, node: &Seat) -> Peer {
        self.peer(target, node, Appends::Alone)
    }
}

impl Network {
    fn peer(&self, target: u64, node: &Seat, appends: Appends) -> Peer {
        Peer {
            transport: self.transport.clone(),
            partition: self.partition.clone(),
            generation: self.generation,
            append_timeout: self.append_timeout,
            listener: Listener {
                from: Target { node: NodeId(target), member: MemberName(node.member.clone()) },
                rooms: self.rooms.clone(),
                env: self.env.clone(),
            },
            file: self.file.clone(),
            appends,
            lease: self.lease.clone(),
        }
    }
}

/// How a stream of appends is sent.
enum Appends {
    /// On a lane, many on their way at once.
    Pipelined,
    /// Each as a message of its own.
    Alone,
}

/// Another replica.
pub(crate) struct Peer {
    appends: Appends,
    transport: Arc<dyn Transport>,
    partition: PartitionId,
    generation: u64,
    append_timeout: Duration,
    file: SnapshotFile,
    listener: Listener,
    lease: Arc<Lease>,
}

/// Notes what a replica says of its volume.
#[derive(Clone)]
pub(crate) struct Listener {
    from: Target,
    rooms: Arc<Rooms>,
    env: Env,
}

impl Listener {
    pub(crate) fn heard<A>(&self, answered: Answered<A>) -> A {
        let Answered { answer, room } = answered;
        self.rooms.note(&self.from, room, self.env.clock.monotonic_ms());
        answer
    }
}

/// openraft waits before it tries an unreachable peer again; every failure is treated so, because none goes away by
/// asking again at once.
pub(crate) fn unreachable(error: impl std::fmt::Display) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::from_string(error))
}

impl Peer {
    async fn exchange<A: DeserializeOwned>(
        &self,
        kind: Kind,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<A, RPCError<TypeConfig>> {
        let answer = self
            .transport
            .send(&self.listener.from, &self.partition, kind as u32, payload, timeout)
            .await
            .map_err(unreachable)?;
        codec::decode_message(self.generation, &answer).map_err(unreachable)
    }

    async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        kind: Kind,
        request: &Q,
        option: &RPCOption,
    ) -> Result<A, RPCError<TypeConfig>> {
        self.exchange(kind, codec::encode_message(self.generation, request), option.soft_ttl()).await
    }
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        // A heartbeat that is late is worthless; entries that are being flushed are not.
        let timeout = if request.entries.is_empty() { option.soft_ttl() } else { self.append_timeout };
        let answered = self.exchange(Kind::Append, codec::encode_append(self.generation, &request), timeout).await?;
        Ok(self.listener.heard(answered))
    }

    fn stream_append<'s, S>(
        &'s mut self,
        requests: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, AppendAnswer>, RPCError<TypeConfig>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        match self.appends {
            Appends::Alone => stream_append_sequential(self, requests, option),
            Appends::Pipelined => {
                let lane = self.transport.lane(&self.listener.from, &self.partition).map_err(unreachable);
                let (generation, timeout, listener) = (self.generation, self.append_timeout, self.listener.clone());
                Box::pin(async move {
                    Ok(Pipeline::new(lane?, requests, generation, timeout, listener).into_stream().boxed())
                })
            }
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call(Kind::Vote, &request, &option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call(Kind::PreVote, &request, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let SnapshotData::Saved(stored) = snapshot.snapshot else {
            return Err(unreachable("a snapshot that is not installed here is not sent").into());
        };
        let offer = Offer::new(vote, snapshot.meta, &stored);
        let sending = Sending {
            env: &self.listener.env,
            file: &self.file,
            transport: &*self.transport,
            to: &self.listener.from,
            partition: &self.partition,
            generation: self.generation,
        };
        let sent = tokio::select! {
            biased;
            closed = cancel => return Err(closed.into()),
            sent = sending.run(&offer, stored) => sent,
        };
        sent.map_err(|error| match error {
            // What is read here is wrong, or not there: nothing that another try could mend.
            SendError::Read(error) => {
                StorageError::read_snapshot(None, TypeConfig::err_from_string(error.to_string())).into()
            }
            error @ (SendError::Transport(_) | SendError::Answer(_) | SendError::Silent(_)) => {
                unreachable(error).into()
            }
        })
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        // Before anybody is told: from then on voters need not wait.
        self.lease.give_away(request.from_leader().leader_id.term);
        self.call(Kind::TransferLeader, &request, &option).await
    }
}
