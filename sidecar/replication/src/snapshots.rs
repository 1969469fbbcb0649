//! One partition's snapshot on disk, for async callers.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use coterie_env::Env;
use coterie_store::snapshots::Snapshots;
use tokio::sync::{Mutex, oneshot};

use crate::codec;
use crate::types::{LogId, SnapshotMeta};

/// Where this partition's snapshot is. All blocking work runs on a thread of its own.
#[derive(Clone)]
pub(crate) struct SnapshotFile {
    env: Env,
    snapshots: Arc<Snapshots>,
    key: Arc<str>,
    /// What the file holds. Held while it is written, so that an older snapshot never replaces a newer one.
    saved: Arc<Mutex<Option<LogId>>>,
    /// Bytes of its data.
    len: Arc<AtomicU64>,
}

impl SnapshotFile {
    pub(crate) fn new(env: Env, snapshots: Arc<Snapshots>, key: &str) -> Self {
        Self { env, snapshots, key: key.into(), saved: Arc::default(), len: Arc::default() }
    }

    /// Whether the volume has room for the next one, if it is larger than the last by at most this.
    pub(crate) async fn has_room(&self, growth: u64) -> io::Result<bool> {
        let bytes = self.len.load(Ordering::Relaxed).saturating_add(growth);
        let snapshots = self.snapshots.clone();
        self.blocking("snapshot-room", move || snapshots.has_room(bytes)).await
    }

    /// The snapshot, if there is one.
    pub(crate) async fn load(&self) -> io::Result<Option<(SnapshotMeta, Bytes)>> {
        let mut saved = self.saved.lock().await;
        let (snapshots, key) = (self.snapshots.clone(), self.key.clone());
        let Some((meta, data)) = self.blocking("snapshot-load", move || snapshots.load(&key)).await? else {
            return Ok(None);
        };
        let meta: SnapshotMeta = codec::decode_mark("snapshot", &meta)?;
        *saved = meta.last_log_id;
        self.len.store(data.len() as u64, Ordering::Relaxed);
        Ok(Some((meta, data.into())))
    }

    /// Saves what `make` gives, durably, unless the file holds as much already. `make` runs on the thread that may block.
    pub(crate) async fn save(
        &self,
        meta: &SnapshotMeta,
        make: impl FnOnce() -> Bytes + Send + 'static,
    ) -> io::Result<Bytes> {
        let mut saved = self.saved.lock().await;
        let newer = meta.last_log_id > *saved;
        let (snapshots, key) = (self.snapshots.clone(), self.key.clone());
        let mark = codec::encode_mark(meta);
        let data = self
            .blocking("snapshot-save", move || {
                let data = make();
                if newer {
                    snapshots.save(&key, &mark, &data)?;
                }
                Ok(data)
            })
            .await?;
        if newer {
            self.len.store(data.len() as u64, Ordering::Relaxed);
            *saved = meta.last_log_id;
        }
        Ok(data)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (sender, receiver) = oneshot::channel();
        self.env.spawn.dedicated(
            name,
            Box::pin(async move {
                // Nobody waits any longer when the partition was shut down meanwhile.
                let _ = sender.send(work());
            }),
        );
        receiver.await.unwrap_or_else(|_| Err(io::Error::other("the thread for snapshots ended early")))
    }
}
