//! The sending side.

use std::io;

use bytes::Bytes;
use coterie_core::PartitionId;
use coterie_env::Env;
use coterie_mutants::{Point, rarely};
use coterie_store::snapshots::{Piece, Place, Stored};
use openraft::raft::SnapshotResponse;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::message::{Answer, encode_piece};
use super::{Offer, SnapshotFile};
use crate::codec;
use crate::timing::{SNAPSHOT_AHEAD, SNAPSHOT_PATIENCE};
use crate::transport::{self, Target, Transfer, Transport};
use crate::types::TypeConfig;

/// Why a snapshot was not sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// What was taken until then is kept by the receiver for a while.
    #[error(transparent)]
    Transport(#[from] transport::Error),
    #[error("{0}")]
    Answer(#[from] codec::Error),
    #[error("{0} has not gone on with the snapshot for {SNAPSHOT_PATIENCE:?}")]
    Silent(coterie_core::MemberName),
    /// This replica's own disk.
    #[error(transparent)]
    Read(io::Error),
}

/// One snapshot on its way to one replica.
pub(crate) struct Sending<'a> {
    pub(crate) env: &'a Env,
    pub(crate) file: &'a SnapshotFile,
    pub(crate) transport: &'a dyn Transport,
    pub(crate) to: &'a Target,
    pub(crate) partition: &'a PartitionId,
    pub(crate) generation: u64,
}

impl Sending<'_> {
    /// Sends the snapshot from where the receiver has it, and waits until it is installed there. Never holds more than
    /// [`SNAPSHOT_AHEAD`] pieces that are on their way, and two that are read.
    pub(crate) async fn run(&self, offer: &Offer, stored: Stored) -> Result<SnapshotResponse<TypeConfig>, SendError> {
        self.file.note_sending();
        let opened = timeout(SNAPSHOT_PATIENCE, self.transport.transfer(self.to, self.partition)).await;
        let mut transfer = opened.map_err(|_| self.silent())??;
        self.send(&mut *transfer, codec::encode_message(self.generation, offer)).await?;
        let mut pieces: Option<mpsc::Receiver<io::Result<Piece>>> = None;
        let (mut sent, mut taken) = (0, 0);
        loop {
            let may_send = sent - taken < SNAPSHOT_AHEAD;
            let next = async {
                match pieces.as_mut().filter(|_| may_send) {
                    Some(pieces) => pieces.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                answer = timeout(SNAPSHOT_PATIENCE, transfer.answer()) => {
                    let answer = answer.map_err(|_| self.silent())??;
                    self.file.note_sending();
                    match codec::decode_message(self.generation, &answer)? {
                        Answer::Begin(at) => {
                            let at = Place::from(at);
                            (sent, taken) = (at.pieces, at.pieces);
                            tracing::info!(to = %self.to.member, partition = %self.partition, pieces = stored.label().pieces,
                                from = at.pieces, "send a snapshot");
                            pieces = Some(read(self.env, &stored, at));
                        }
                        Answer::Taken(pieces) => taken = pieces.clamp(taken, sent),
                        Answer::Busy => {}
                        Answer::Done(response) => return Ok(response),
                    }
                }
                piece = next => match piece {
                    Some(piece) => {
                        let piece = piece.map_err(SendError::Read)?;
                        self.send(&mut *transfer, encode_piece(&piece)).await?;
                        sent += 1;
                        if rarely(Point::SnapshotCut) {
                            return Err(self.silent());
                        }
                    }
                    // All of them are sent.
                    None => pieces = None,
                }
            }
        }
    }

    async fn send(&self, transfer: &mut dyn Transfer, payload: Bytes) -> Result<(), SendError> {
        timeout(SNAPSHOT_PATIENCE, transfer.send(payload)).await.map_err(|_| self.silent())?.map_err(SendError::from)
    }

    fn silent(&self) -> SendError {
        SendError::Silent(self.to.member.clone())
    }
}

/// Reads and checks pieces on a thread of their own: one waits while the next is read.
fn read(env: &Env, stored: &Stored, from: Place) -> mpsc::Receiver<io::Result<Piece>> {
    let (sender, receiver) = mpsc::channel(1);
    let pieces = stored.pieces(from);
    let task = async move {
        for piece in pieces {
            if sender.send(piece).await.is_err() {
                return;
            }
        }
    };
    env.spawn.dedicated("snapshot-read", Box::pin(task));
    receiver
}
