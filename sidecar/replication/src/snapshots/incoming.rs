//! A snapshot on its way in, on a thread of its own.

use std::io;
use std::sync::Arc;

use coterie_core::machine::Machine;
use coterie_core::machine::snapshot::Restorer;
use coterie_store::snapshots::{Draft, Finished, Label, Piece, Pieces, Place, Stored};
use tokio::sync::OwnedMutexGuard;

use super::{Current, Inner, LoadError, Slot, SnapshotFile, Worker};
use crate::codec;
use crate::types::SnapshotMeta;

/// Pieces that are restored at once, between two signs of life.
const RESTORED_AT_ONCE: usize = 16;

/// What there is of a snapshot that somebody sends.
pub(super) struct Incoming {
    label: Label,
    stage: Stage,
}

enum Stage {
    Written(Draft),
    /// Whole, and read back into a machine.
    Restored {
        finished: Finished,
        pieces: Pieces,
        restorer: Restorer,
    },
    /// Also what it is, and the right to put it in its place.
    Ready {
        finished: Finished,
        machine: Machine,
        inner: Arc<Inner>,
        slot: OwnedMutexGuard<Slot>,
    },
    Gone,
}

fn out_of_step() -> io::Error {
    io::Error::other("a snapshot on its way in was used out of step")
}

impl Incoming {
    /// Begins one that will have this label.
    pub(super) fn begin(inner: &Inner, label: Label) -> io::Result<Self> {
        let draft = inner.snapshots.begin(&inner.key, &label.meta)?;
        Ok(Self { label, stage: Stage::Written(draft) })
    }

    /// What it will be.
    pub(super) fn label(&self) -> &Label {
        &self.label
    }

    /// Up to where it is written, durably. `None` if nobody can go on with it.
    pub(super) fn durable(&mut self) -> Option<io::Result<Place>> {
        match &mut self.stage {
            Stage::Written(draft) => Some(draft.durable()),
            Stage::Restored { .. } => Some(Ok(self.label.end())),
            Stage::Ready { .. } | Stage::Gone => None,
        }
    }

    /// Writes the next piece; gives how many there are.
    pub(super) fn push(&mut self, piece: &Piece) -> io::Result<u64> {
        let Stage::Written(draft) = &mut self.stage else { return Err(out_of_step()) };
        draft.push(piece)?;
        Ok(draft.label().pieces)
    }

    /// All pieces are written: checks that they are those that were offered, and ends the file. Once is enough.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        if let Stage::Restored { .. } = self.stage {
            return Ok(());
        }
        let Stage::Written(draft) = std::mem::replace(&mut self.stage, Stage::Gone) else { return Err(out_of_step()) };
        if *draft.label() != self.label {
            draft.discard()?;
            let sentence = "the pieces of the snapshot are not those that were offered";
            return Err(io::Error::new(io::ErrorKind::InvalidData, sentence));
        }
        let finished = draft.finish()?;
        let pieces = finished.stored().pieces(Place::default());
        self.stage = Stage::Restored { finished, pieces, restorer: Restorer::new() };
        Ok(())
    }

    /// Restores some more pieces, as they are read back from the disk; whether any are left.
    pub(super) fn restore_some(&mut self) -> Result<bool, LoadError> {
        let Stage::Restored { pieces, restorer, .. } = &mut self.stage else { return Err(out_of_step().into()) };
        for _ in 0..RESTORED_AT_ONCE {
            match pieces.next() {
                Some(piece) => restorer.take(&piece?.bytes)?,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// All pieces are restored.
    fn ready(&mut self, inner: Arc<Inner>, slot: OwnedMutexGuard<Slot>) -> Result<(), LoadError> {
        let Stage::Restored { finished, restorer, .. } = std::mem::replace(&mut self.stage, Stage::Gone) else {
            return Err(out_of_step().into());
        };
        match restorer.finish() {
            Ok(machine) => self.stage = Stage::Ready { finished, machine, inner, slot },
            Err(error) => {
                finished.discard()?;
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// Puts it in the place of the present one; gives the machine that it holds.
    fn publish(&mut self) -> io::Result<(Machine, Stored)> {
        let Stage::Ready { finished, machine, inner, mut slot } = std::mem::replace(&mut self.stage, Stage::Gone)
        else {
            return Err(out_of_step());
        };
        let stored = finished.publish()?;
        let meta: SnapshotMeta = codec::decode_mark("snapshot", &self.label.meta)?;
        slot.former = inner.set_current(Current { meta, stored: stored.clone() });
        Ok((machine, stored))
    }

    /// Removes what there is of it.
    pub(super) fn discard(&mut self) -> io::Result<()> {
        match std::mem::replace(&mut self.stage, Stage::Gone) {
            Stage::Written(draft) => draft.discard(),
            Stage::Restored { finished, .. } | Stage::Ready { finished, .. } => finished.discard(),
            Stage::Gone => Ok(()),
        }
    }
}

impl Drop for Incoming {
    /// One that Raft did not need after all goes before its place is free for another. What was only begun stays: it may
    /// go on, and a start removes it.
    fn drop(&mut self) {
        if let Stage::Ready { finished, slot, .. } = std::mem::replace(&mut self.stage, Stage::Gone) {
            if let Err(error) = finished.discard() {
                tracing::warn!(%error, "remove a snapshot that was not needed");
            }
            drop(slot);
        }
    }
}

/// A snapshot that is whole and restored, and not installed yet. Dropping it removes it.
pub(crate) struct Received(Worker<Incoming>);

impl Received {
    /// Takes over one whose pieces are all restored, with the right to put it in its place.
    pub(super) async fn new(
        worker: Worker<Incoming>,
        file: &SnapshotFile,
        slot: OwnedMutexGuard<Slot>,
    ) -> Result<Self, LoadError> {
        let inner = file.0.clone();
        worker.run(move |incoming| incoming.ready(inner, slot)).await??;
        Ok(Self(worker))
    }

    /// Puts it in the place of the present one, durably; gives the machine that it holds, and the bytes of its file.
    pub(crate) async fn publish(&self) -> io::Result<(Machine, u64)> {
        let (machine, stored) = self.0.run(Incoming::publish).await??;
        Ok((machine, stored.len()))
    }

    /// Drops something large where nobody waits for it.
    pub(crate) fn bury<T: Send + 'static>(self, thing: T) {
        self.0.leave(move |_| drop(thing));
    }
}

impl SnapshotFile {
    /// A copy of a snapshot of another replica, made ready to be installed.
    pub(crate) async fn copy(&self, stored: Stored) -> Result<Received, LoadError> {
        let slot = self.0.slot.clone().lock_owned().await;
        let incoming = Incoming::begin(&self.0, stored.label().clone())?;
        let worker = Worker::start(&self.0.env, "snapshot-copy", incoming);
        let copied = worker.run(move |incoming| {
            for piece in stored.pieces(Place::default()) {
                incoming.push(&piece?)?;
            }
            incoming.finish()?;
            while incoming.restore_some()? {}
            Ok::<(), LoadError>(())
        });
        copied.await??;
        Received::new(worker, self, slot).await
    }
}
