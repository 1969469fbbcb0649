//! One partition's snapshot: made, sent, received and installed, piece by piece.
//!
//! ```text
//!  make     Machine::image (under the lock, milliseconds) ──▶ pieces ──▶ Draft ──▶ published
//!  send     Stored ──▶ a few pieces ahead ──▶ Transfer ─ ─ ─ ─ ┐
//!  receive  ┌ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ┘
//!           └▶ Draft, piece by piece, each answered once it is written ──▶ restored from the file, piece by piece
//!  install  the file published, the machine exchanged (under the lock), the old one dropped elsewhere
//! ```
//! Whatever blocks or takes long runs on a thread beside the runtime ([`worker`]). Raft is told of a snapshot that was made
//! once it is on the disk, and given one that was received once it is restored: what it waits for is a renaming and a
//! pointer, so heartbeats are answered all the time, and a volume that runs full ends nothing.
//!
//! | on the volume | for how long |
//! |---|---|
//! | the present snapshot | |
//! | one that is being made or received, or what was received of one whose sender broke off | the latter for [`timing::PARTIAL_KEPT`], or until something else is begun |
//! | one that was replaced while it is being sent | until it is sent; no other is begun before |
//!
//! A snapshot that is being sent is not replaced at once: behind the next one the log is dropped, and the receiver would
//! have to begin again. So the next waits for the receiver, until as much was applied as the snapshot has bytes.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use coterie_core::command;
use coterie_core::machine::Machine;
use coterie_core::machine::snapshot::{Image, Restorer};
use coterie_env::Env;
use coterie_store::snapshots::{Draft, Held, Piece, Place, Snapshots, Stored};
use tokio::sync::watch;

use crate::codec;
use crate::replica::Shot;
use crate::timing::SNAPSHOT_LINGER;
use crate::types::{LogId, SnapshotMeta};

mod incoming;
mod message;
mod receive;
mod send;
mod worker;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests;

use incoming::Incoming;
pub(crate) use incoming::Received;
#[cfg(feature = "fuzz")]
pub(crate) use message::{Answer, decode_piece};
pub(crate) use message::{Offer, done};
pub(crate) use receive::{Answers, ReceiveError, Receiving};
pub(crate) use send::{SendError, Sending};
use worker::{Worker, beside};

/// What openraft passes around: a handle, never the bytes.
pub(crate) enum SnapshotData {
    /// This replica's snapshot on the disk.
    Saved(Stored),
    /// One that a leader sent: whole, restored and not installed yet.
    Received(Received),
    /// One that a leader offered of which everything is applied here: Raft does not install it.
    NotNeeded,
}

/// Why a replica's snapshot is not loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error(transparent)]
    Read(#[from] io::Error),
    #[error(transparent)]
    Restore(#[from] command::Error),
}

/// This partition's snapshot. Clones are the same.
#[derive(Clone)]
pub(crate) struct SnapshotFile(Arc<Inner>);

struct Inner {
    env: Env,
    snapshots: Arc<Snapshots>,
    key: Arc<str>,
    current: RwLock<Option<Current>>,
    /// Held while a file is begun, written or put in the place of another.
    slot: Arc<tokio::sync::Mutex<Slot>>,
    /// Rises with everyone who begins to send one here: the last one counts.
    turn: watch::Sender<u64>,
    closed: AtomicBool,
    /// Monotonic milliseconds until which the present one is being sent; 0: it was not.
    sending_until_ms: AtomicU64,
    /// What is made and not yet told to Raft.
    made: Mutex<Option<io::Result<()>>>,
}

/// The snapshot on the disk.
#[derive(Clone)]
struct Current {
    meta: SnapshotMeta,
    stored: Stored,
}

/// What may be begun once.
#[derive(Default)]
struct Slot {
    /// What was received of a snapshot so far.
    partial: Option<Worker<Incoming>>,
    /// The one before the present one.
    former: Held,
}

impl SnapshotFile {
    pub(crate) fn new(env: Env, snapshots: Arc<Snapshots>, key: &str) -> Self {
        Self(Arc::new(Inner {
            env,
            snapshots,
            key: key.into(),
            current: RwLock::default(),
            slot: Arc::default(),
            turn: watch::Sender::new(0),
            closed: AtomicBool::new(false),
            sending_until_ms: AtomicU64::new(0),
            made: Mutex::default(),
        }))
    }

    /// Opens the snapshot and restores what it holds; `None` if there is none.
    pub(crate) async fn load(&self) -> Result<Option<(SnapshotMeta, Machine)>, LoadError> {
        let inner = self.0.clone();
        beside(&self.0.env, "snapshot-load", async move {
            let Some(stored) = inner.snapshots.open(&inner.key)? else { return Ok(None) };
            let meta: SnapshotMeta = codec::decode_mark("snapshot", &stored.label().meta).map_err(io::Error::from)?;
            let mut restorer = Restorer::new();
            for piece in stored.pieces(Place::default()) {
                restorer.take(&piece?.bytes)?;
                tokio::task::yield_now().await;
            }
            let machine = restorer.finish()?;
            inner.set_current(Current { meta: meta.clone(), stored });
            Ok(Some((meta, machine)))
        })
        .await?
    }

    /// The present one, and what it is of.
    pub(crate) fn current(&self) -> Option<(SnapshotMeta, Stored)> {
        self.0.current().map(|Current { meta, stored }| (meta, stored))
    }

    /// Bytes of the present one's file; 0 if there is none.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.current().map_or(0, |current| current.stored.len())
    }

    /// Whether the volume has room for the next one, if it is larger than the present one by at most this.
    pub(crate) async fn has_room(&self, growth: u64) -> io::Result<bool> {
        let bytes = self.bytes().saturating_add(growth);
        let inner = self.0.clone();
        beside(&self.0.env, "snapshot-room", async move { inner.snapshots.has_room(bytes) }).await?
    }

    /// Makes the snapshot of a state, durably, unless there is one of as much already. What was received of another one is
    /// given up.
    ///
    /// `StorageFull` if it does not fit, `Interrupted` once this is closed; then nothing is left of it.
    pub(crate) async fn make(&self, shot: Shot) -> io::Result<()> {
        let Shot { meta, image, .. } = shot;
        let inner = self.0.clone();
        let mut slot = self.0.slot.clone().lock_owned().await;
        beside(&self.0.env, "snapshot-make", async move {
            if inner.is_as_new(&meta) {
                return Ok(());
            }
            if let Some(partial) = slot.partial.take() {
                partial.run(Incoming::discard).await??;
            }
            let mut draft = inner.snapshots.begin(&inner.key, &codec::encode_mark(&meta))?;
            if let Err(error) = inner.write(&mut draft, &image).await {
                // What is left of it is in nobody's way: the next one is written over it.
                let _ = draft.discard();
                return Err(error);
            }
            let stored = draft.finish()?.publish()?;
            slot.former = inner.set_current(Current { meta, stored });
            Ok(())
        })
        .await?
    }

    /// Whether the next one should wait for whoever the present one is sent to.
    pub(crate) fn is_sending(&self) -> bool {
        self.0.env.clock.monotonic_ms() < self.0.sending_until_ms.load(Ordering::Relaxed)
    }

    /// Whether the one before the present one is still being sent.
    pub(crate) async fn is_former_held(&self) -> bool {
        self.0.slot.lock().await.former.is_held()
    }

    /// The present one is being sent, and something of it just arrived.
    pub(crate) fn note_sending(&self) {
        let until = self.0.env.clock.monotonic_ms() + u64::try_from(SNAPSHOT_LINGER.as_millis()).unwrap_or(u64::MAX);
        self.0.sending_until_ms.fetch_max(until, Ordering::Relaxed);
    }

    /// The next builder that Raft asks for has this to give.
    pub(crate) fn note_made(&self, made: io::Result<()>) {
        *self.0.made.lock().expect("no holder panics") = Some(made);
    }

    /// What was noted last, once.
    pub(crate) fn take_made(&self) -> Option<io::Result<()>> {
        self.0.made.lock().expect("no holder panics").take()
    }

    /// Ends what is being made or received, and returns once nothing is written any more.
    pub(crate) async fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
        self.0.turn.send_modify(|turn| *turn += 1);
        self.0.slot.lock().await.partial = None;
    }
}

impl Inner {
    fn current(&self) -> Option<Current> {
        self.current.read().expect("no holder panics").clone()
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Whether the present one is of as much as this. An older one never takes the place of a newer one.
    fn is_as_new(&self, meta: &SnapshotMeta) -> bool {
        let last = |meta: &SnapshotMeta| -> Option<LogId> { meta.last_log_id };
        self.current().is_some_and(|current| last(&current.meta) >= last(meta))
    }

    /// Gives the one before.
    fn set_current(&self, new: Current) -> Held {
        let old = self.current.write().expect("no holder panics").replace(new);
        // What is being sent is the one before.
        self.sending_until_ms.store(0, Ordering::Relaxed);
        let Some(Current { stored, .. }) = old else { return Held::default() };
        stored.replaced();
        stored.held()
    }

    async fn write(&self, draft: &mut Draft, image: &Image) -> io::Result<()> {
        for piece in image.pieces() {
            if self.is_closed() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            draft.push(&Piece::new(draft.label().pieces, piece))?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}
