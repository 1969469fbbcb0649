//! Messages from other replicas.

use std::io::ErrorKind;
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use bytes::Bytes;
use coterie_core::NodeId;
use coterie_mutants::{Mutant, Point, is_on, rarely};
use coterie_store::log::Demand;
use futures_util::stream::{BoxStream, StreamExt as _, poll_fn, unfold};
use openraft::async_runtime::WatchReceiver as _;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, VoteRequest};
use tokio::sync::mpsc;

use super::{Inner, Partition};
use crate::codec::{self, Kind};
use crate::room::{Answered, Room};
use crate::runtime::seeded;
use crate::snapshots::{Answers, Offer, ReceiveError, Receiving, SnapshotData, done};
use crate::timing::SNAPSHOT_ANSWERS;
use crate::types::{Snapshot, TypeConfig, Vote};

/// Why a message is refused.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Decode(#[from] codec::Error),
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    #[error("the sender of the snapshot is gone")]
    Gone,
    #[error("the volume takes nothing: {0}")]
    Log(#[from] std::io::Error),
    #[error("this replica has just started and may have answered a leader before: it votes again within a lease")]
    KeepsStill,
    #[error("raft: {0}")]
    Raft(String),
}

fn raft(error: impl std::fmt::Display) -> Error {
    Error::Raft(error.to_string())
}

impl Partition {
    /// Answers a message that [`crate::Transport::send`] carried here. The caller has checked that it is for this
    /// identity and this partition. An error is a sentence for the sender.
    pub async fn handle(&self, kind: u32, payload: Bytes) -> Result<Bytes, String> {
        let answer = seeded(&self.inner.env, self.dispatch(kind, payload)).await;
        answer.map_err(|error| error.to_string())
    }

    async fn dispatch(&self, kind: u32, payload: Bytes) -> Result<Bytes, Error> {
        let (raft_, generation) = (&self.inner.raft, self.inner.generation);
        match Kind::try_from(kind)? {
            Kind::Append => {
                let request = self.append_request(&payload)?;
                let answer = raft_.append_entries(request).await.map_err(raft)?;
                if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
                    self.inner.replica.heard();
                }
                Ok(codec::encode_message(generation, &Answered { answer, room: self.room() }))
            }
            Kind::Vote => {
                let request: VoteRequest<TypeConfig> = codec::decode_message(generation, &payload)?;
                if self.inner.restarted.keeps_still() && !request.leadership_transfer {
                    return Err(Error::KeepsStill);
                }
                let answer = raft_.vote(request).await.map_err(raft)?;
                Ok(codec::encode_message(generation, &answer))
            }
            Kind::PreVote if self.inner.restarted.keeps_still() => Err(Error::KeepsStill),
            Kind::PreVote => {
                let answer = raft_.pre_vote(codec::decode_message(generation, &payload)?).await.map_err(raft)?;
                Ok(codec::encode_message(generation, &answer))
            }
            Kind::TransferLeader => {
                let request = codec::decode_message(generation, &payload)?;
                let answer = raft_.handle_transfer_leader(request).await.map_err(raft)?;
                Ok(codec::encode_message(generation, &answer))
            }
        }
    }

    /// Takes appends that [`crate::Transport::lane`] carried here, in order, and answers them in that order. An error is
    /// the last answer. Ends when the messages end.
    pub async fn handle_lane(&self, messages: mpsc::Receiver<Bytes>) -> BoxStream<'static, Result<Bytes, String>> {
        // What is wrong with a message is said once what came before it is answered.
        let refused: Arc<OnceLock<String>> = Arc::default();
        let (partition, note) = (self.clone(), refused.clone());
        let requests = unfold((messages, partition, note), |(mut messages, partition, note)| async {
            let payload = messages.recv().await?;
            match partition.append_request(&payload) {
                Ok(request) => Some((request, (messages, partition, note))),
                Err(error) => {
                    let _ = note.set(error.to_string());
                    None
                }
            }
        });
        let answers = seeded(&self.inner.env, async { self.inner.raft.stream_append(requests) }).await;
        let partition = self.clone();
        let answers = answers.map(move |answer| match answer {
            Ok(answer) => {
                if !matches!(answer, Err(StreamAppendError::HigherVote(_))) {
                    partition.inner.replica.heard();
                }
                let answered = Answered { answer, room: partition.room() };
                Ok(codec::encode_message(partition.inner.generation, &answered))
            }
            Err(fatal) => Err(fatal.to_string()),
        });
        answers.chain(poll_fn(move |_| Poll::Ready(refused.get().cloned().map(Err))).take(1)).boxed()
    }

    /// What the leader is told of this replica's volume: as if the largest command were to be taken, so that a lead that
    /// is given to it for its room does not go on at once.
    fn room(&self) -> Room {
        match self.inner.log.admit(Demand::Growth, coterie_core::limits::REQUEST_BYTES_MAX) {
            Err(error) if error.kind() == ErrorKind::StorageFull => Room::Short(error.to_string()),
            _ => Room::Ample,
        }
    }

    fn append_request(&self, payload: &Bytes) -> Result<AppendEntriesRequest<TypeConfig>, Error> {
        let request = codec::decode_append(self.inner.generation, payload)?;
        if !request.entries.is_empty() {
            if rarely(Point::AppendRefused) {
                return Err(Error::Log(ErrorKind::Interrupted.into()));
            }
            // The leader refuses growth by what it and a majority have; what it took should find that majority.
            self.inner.log.admit(Demand::Reserve, payload.len())?;
        }
        Ok(request)
    }

    /// Takes a snapshot that [`crate::Transport::transfer`] carries here, and answers as it goes on. An error is the last
    /// answer. When the messages end too early, what came is kept for a while: the next one goes on from there.
    pub fn handle_snapshot(&self, messages: BoxStream<'static, Bytes>) -> BoxStream<'static, Result<Bytes, String>> {
        let (sender, mut answers) = mpsc::channel(SNAPSHOT_ANSWERS);
        let partition = self.clone();
        let task = async move {
            let (env, file) = (&partition.inner.env, &partition.inner.file);
            let from =
                file.receiving(messages, Answers { generation: partition.inner.generation, sender: sender.clone() });
            let installed = tokio::select! {
                biased;
                installed = seeded(env, Box::pin(partition.install(from))) => installed,
                () = sender.closed() => Err(Error::Gone),
            };
            if let Err(error) = &installed {
                tracing::info!(partition = %partition.inner.id, %error, "a snapshot was not received");
            }
            // The one who waited for it may be gone.
            let _ = sender.send(installed.map_err(|error| error.to_string())).await;
            drop(sender);
            let mut closed = partition.inner.closing.subscribe();
            tokio::select! {
                _ = closed.wait_for(|closed| *closed) => {}
                () = file.forget_partial() => {}
            }
        };
        self.inner.env.spawn.spawn("snapshot", Box::pin(task));
        poll_fn(move |context| answers.poll_recv(context)).boxed()
    }

    /// A process has given a sign of life: for [`Mutant::HideDeadPartition`] that of its leader, if it was the last that led.
    pub fn heard_of_process(&self, node: NodeId) {
        let leader = self.inner.raft.server_metrics().borrow_watched().current_leader;
        if is_on(Mutant::HideDeadPartition) && leader == Some(node.0) {
            self.inner.replica.heard();
        }
    }

    async fn install(&self, mut from: Receiving) -> Result<Bytes, Error> {
        let Inner { raft: raft_, replica, generation, file, .. } = &*self.inner;
        let offer: Offer = codec::decode_message(*generation, &from.next().await?)?;
        let ours = raft_.server_metrics().borrow_watched().vote;
        if is_higher(&ours, &offer.vote) {
            return Ok(done(*generation, SnapshotResponse::new(ours)));
        }
        // The answer to one that was installed may have been lost. Raft is told in any case: the sender counts on it that
        // this replica has heard it.
        let has_as_much = replica.state().last >= offer.meta.last_log_id;
        let data = match has_as_much {
            true => SnapshotData::NotNeeded,
            false => SnapshotData::Received(file.receive(&mut from, &offer).await?),
        };
        let Offer { vote, meta, .. } = offer;
        let snapshot = Snapshot { meta, snapshot: data };
        let answer = raft_.install_full_snapshot(vote, snapshot).await.map_err(raft)?;
        if !is_higher(&answer.vote, &vote) {
            replica.heard();
        }
        Ok(done(*generation, answer))
    }
}

/// Whether `ours` refuses a leader that comes with `theirs`.
fn is_higher(ours: &Vote, theirs: &Vote) -> bool {
    ours.leader_id > theirs.leader_id
}
