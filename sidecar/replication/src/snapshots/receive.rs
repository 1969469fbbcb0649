//! The receiving side.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use coterie_store::snapshots::Place;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tokio::sync::{OwnedMutexGuard, mpsc, watch};
use tokio::time::timeout;

use super::message::{Answer, decode_piece};
use super::{Incoming, LoadError, Offer, Received, Slot, SnapshotFile, Worker, beside};
use crate::codec;
use crate::timing::{PARTIAL_KEPT, SNAPSHOT_PATIENCE};

/// Between two signs of life of a receiver that works on what it has.
const SIGN_PAUSE: Duration = Duration::from_secs(1);

/// Why a snapshot was not received.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    #[error(transparent)]
    Decode(#[from] codec::Error),
    #[error("the volume has no room for the snapshot of {0} bytes")]
    Full(u64),
    #[error("write the snapshot: {0}")]
    Write(#[source] io::Error),
    #[error("restore the snapshot: {0}")]
    Restore(#[source] LoadError),
    #[error("nothing came for {SNAPSHOT_PATIENCE:?}")]
    Silent,
    #[error("the snapshot ended before its last piece")]
    Ended,
    #[error("another one sends a snapshot now, or the replica is being stopped")]
    Superseded,
}

/// Where a snapshot comes from.
pub(crate) struct Receiving {
    messages: BoxStream<'static, Bytes>,
    answers: Answers,
    turn: watch::Receiver<u64>,
}

/// The way back.
#[derive(Clone)]
pub(crate) struct Answers {
    pub(crate) generation: u64,
    pub(crate) sender: mpsc::Sender<Result<Bytes, String>>,
}

impl Answers {
    async fn send(&self, answer: &Answer) {
        // Who has gone hears nothing; the next message does not come.
        let _ = self.sender.send(Ok(codec::encode_message(self.generation, answer))).await;
    }

    /// Waits for `work`, and says that it goes on whenever a while has passed.
    async fn while_busy<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            match timeout(SIGN_PAUSE, work.as_mut()).await {
                Ok(done) => return done,
                Err(_) => self.send(&Answer::Busy).await,
            }
        }
    }
}

impl Receiving {
    /// The next message.
    pub(crate) async fn next(&mut self) -> Result<Bytes, ReceiveError> {
        tokio::select! {
            biased;
            _ = self.turn.changed() => Err(ReceiveError::Superseded),
            message = timeout(SNAPSHOT_PATIENCE, self.messages.next()) => {
                message.map_err(|_| ReceiveError::Silent)?.ok_or(ReceiveError::Ended)
            }
        }
    }
}

impl SnapshotFile {
    /// Who calls this last is the one who may send a snapshot: whoever did so before is stopped.
    pub(crate) fn receiving(&self, messages: BoxStream<'static, Bytes>, answers: Answers) -> Receiving {
        self.0.turn.send_modify(|turn| *turn += 1);
        Receiving { messages, answers, turn: self.0.turn.subscribe() }
    }

    /// Receives what was offered: writes it piece by piece, and restores it from what was written. What came before an
    /// error is kept, unless it is of no use.
    pub(crate) async fn receive(&self, from: &mut Receiving, offer: &Offer) -> Result<Received, ReceiveError> {
        let answers = from.answers.clone();
        let lock = answers.while_busy(self.0.slot.clone().lock_owned());
        let mut slot = tokio::select! {
            biased;
            _ = from.turn.changed() => return Err(ReceiveError::Superseded),
            slot = lock => slot,
        };
        if self.0.is_closed() {
            return Err(ReceiveError::Superseded);
        }
        let place = self.begin(&mut slot, offer).await?;
        let incoming = slot.partial.as_ref().ok_or(ReceiveError::Superseded)?;
        answers.send(&Answer::Begin(place.into())).await;
        match self.take_all(from, incoming, offer, place).await {
            Ok(()) => {}
            Err(error @ (ReceiveError::Silent | ReceiveError::Ended | ReceiveError::Superseded)) => return Err(error),
            Err(error) => {
                give_up(&mut slot).await;
                return Err(error);
            }
        }
        let incoming = slot.partial.take().ok_or(ReceiveError::Superseded)?;
        Received::new(incoming, self, slot).await.map_err(ReceiveError::Restore)
    }

    /// Goes on with what there is of this snapshot, or begins it; says up to where it is there.
    async fn begin(&self, slot: &mut OwnedMutexGuard<Slot>, offer: &Offer) -> Result<Place, ReceiveError> {
        let label = offer.label();
        let wanted = label.clone();
        let known = match &slot.partial {
            Some(partial) => {
                let known =
                    partial.run(move |incoming| (*incoming.label() == wanted).then(|| incoming.durable()).flatten());
                known.await.map_err(ReceiveError::Write)?
            }
            None => None,
        };
        if let Some(place) = known {
            match place {
                Ok(place) => return self.check_room(label.bytes.saturating_sub(place.bytes)).await.map(|()| place),
                // What a failed flush leaves is not known.
                Err(error) => {
                    give_up(slot).await;
                    return Err(ReceiveError::Write(error));
                }
            }
        }
        give_up(slot).await;
        self.check_room(label.bytes).await?;
        let inner = self.0.clone();
        let begun = beside(&self.0.env, "snapshot-begin", async move { Incoming::begin(&inner, label) }).await;
        let incoming = begun.and_then(|begun| begun).map_err(ReceiveError::Write)?;
        slot.partial = Some(Worker::start(&self.0.env, "snapshot-receive", incoming));
        Ok(Place::default())
    }

    async fn check_room(&self, bytes: u64) -> Result<(), ReceiveError> {
        let inner = self.0.clone();
        let room = beside(&self.0.env, "snapshot-room", async move { inner.snapshots.has_room(bytes) }).await;
        if room.and_then(|room| room).map_err(ReceiveError::Write)? { Ok(()) } else { Err(ReceiveError::Full(bytes)) }
    }

    /// Takes the pieces from `place` on, ends the file and restores what it holds.
    async fn take_all(
        &self,
        from: &mut Receiving,
        incoming: &Worker<Incoming>,
        offer: &Offer,
        place: Place,
    ) -> Result<(), ReceiveError> {
        let answers = from.answers.clone();
        let (mut taken, pieces) = (place.pieces, offer.label().pieces);
        while taken < pieces {
            let piece = decode_piece(from.next().await?)?;
            let pushed = incoming.run(move |incoming| incoming.push(&piece)).await;
            taken = pushed.and_then(|pushed| pushed).map_err(ReceiveError::Write)?;
            answers.send(&Answer::Taken(taken)).await;
        }
        let finished = answers.while_busy(incoming.run(Incoming::finish)).await;
        finished.and_then(|finished| finished).map_err(ReceiveError::Write)?;
        loop {
            let restored =
                incoming.run(Incoming::restore_some).await.map_err(|error| ReceiveError::Restore(error.into()))?;
            if !restored.map_err(ReceiveError::Restore)? {
                return Ok(());
            }
            answers.send(&Answer::Busy).await;
        }
    }

    /// Forgets what was received of a snapshot, unless somebody goes on with it before that is too old.
    pub(crate) async fn forget_partial(&self) {
        let mut turn = self.0.turn.subscribe();
        if self.0.slot.lock().await.partial.is_none() || timeout(PARTIAL_KEPT, turn.changed()).await.is_ok() {
            return;
        }
        let mut slot = self.0.slot.lock().await;
        if !turn.has_changed().unwrap_or(true) {
            give_up(&mut slot).await;
        }
    }
}

/// Removes what there is of a snapshot.
async fn give_up(slot: &mut Slot) {
    if let Some(partial) = slot.partial.take() {
        let discarded = partial.run(Incoming::discard).await;
        if let Err(error) = discarded.and_then(|discarded| discarded) {
            // Whatever is begun next is written over it.
            tracing::warn!(%error, "remove what was received of a snapshot");
        }
    }
}
