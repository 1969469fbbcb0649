//! Snapshots, as they become due.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use coterie_env::Env;
use coterie_mutants::{Point, rarely};
use tokio::sync::watch;

use super::SNAPSHOT_BYTES;
use crate::replica::Replica;
use crate::snapshots::SnapshotFile;
use crate::types::Raft;

/// How often it is looked whether a snapshot that is due can be made now.
const SNAPSHOT_PAUSE: Duration = Duration::from_secs(1);

/// Makes a snapshot whenever one is due, once it can be, and tells Raft, which drops the log behind it. One for which the
/// volume proves too small is tried again; any other failure ends the replica, as a failure of its log does.
pub(super) fn spawn(
    env: &Env,
    raft: Raft,
    replica: Arc<Replica>,
    file: SnapshotFile,
    mut closed: watch::Receiver<bool>,
) {
    let task = async move {
        loop {
            tokio::select! {
                biased;
                _ = closed.changed() => return,
                () = replica.snapshot_due.notified() => {}
            }
            while replica.is_snapshot_due() {
                let Made::Done(made) = make(&replica, &file).await else {
                    tokio::select! {
                        biased;
                        _ = closed.changed() => return,
                        () = tokio::time::sleep(SNAPSHOT_PAUSE) => continue,
                    }
                };
                // Who began to be sent the one before meanwhile needs the log behind that.
                while made.is_ok() && file.is_former_held().await && !replica.is_snapshot_overdue() {
                    tokio::select! {
                        biased;
                        _ = closed.changed() => return,
                        () = tokio::time::sleep(SNAPSHOT_PAUSE) => {}
                    }
                }
                file.note_made(made);
                if raft.trigger().snapshot().await.is_err() {
                    return;
                }
            }
        }
    };
    env.spawn.spawn("snapshots", Box::pin(task));
}

enum Made {
    Done(std::io::Result<()>),
    Later,
}

async fn make(replica: &Replica, file: &SnapshotFile) -> Made {
    if file.is_sending() && !replica.is_snapshot_overdue() || file.is_former_held().await {
        return Made::Later;
    }
    if rarely(Point::SnapshotLater) {
        return Made::Later;
    }
    // A state grows by less than what was applied.
    if !file.has_room(SNAPSHOT_BYTES).await.unwrap_or(false) {
        tracing::warn!("the volume has no room for a snapshot");
        return Made::Later;
    }
    let shot = replica.image();
    let counted = shot.counted();
    match file.make(shot).await {
        Err(error) if [ErrorKind::StorageFull, ErrorKind::Interrupted].contains(&error.kind()) => {
            tracing::warn!(%error, "a snapshot was not made");
            Made::Later
        }
        made => {
            replica.note_made(counted, file.bytes());
            Made::Done(made)
        }
    }
}
