//! openraft's view of the replicated state machine.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use coterie_core::command::{self, Envelope};
use coterie_core::machine::Machine;
use futures_util::{Stream, StreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};

use crate::replica::{Change, Replica, State, undecodable};
use crate::snapshots::SnapshotFile;
use crate::types::{Entry, LogId, Proposal, Response, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};

/// Entries that are applied under one lock: long enough to be cheap, short enough that readers wait for less than a
/// millisecond.
const APPLY_CHUNK: usize = 256;

/// Applies entries to the shared replica; takes, keeps and installs snapshots.
pub(crate) struct StateMachine {
    replica: Arc<Replica>,
    file: SnapshotFile,
}

impl StateMachine {
    pub(crate) fn new(replica: Arc<Replica>, file: SnapshotFile) -> Self {
        Self { replica, file }
    }
}

/// An entry made ready for [`Replica::apply`], and the bytes of its body.
fn prepare(entry: Entry) -> (LogId, Change, u64) {
    let id = entry.log_id;
    match entry.payload {
        EntryPayload::Blank => (id, Change::Blank, 0),
        EntryPayload::Membership(membership) => {
            (id, Change::Membership(StoredMembership::new(Some(id), membership)), 0)
        }
        EntryPayload::Normal(Proposal { ts_ms, body }) => {
            let envelope = command::decode::<Envelope>("command", &body).map_err(|error| {
                tracing::error!(index = id.index, %error, "decode a command from the log");
                undecodable()
            });
            (id, Change::Command { ts_ms, envelope }, body.len() as u64)
        }
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let state = self.replica.state();
        Ok((state.last, state.membership.clone()))
    }

    async fn apply<S>(&mut self, entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut chunks = entries.ready_chunks(APPLY_CHUNK);
        while let Some(chunk) = chunks.next().await {
            let mut changes = Vec::with_capacity(chunk.len());
            let mut responders: Vec<Option<ApplyResponder<TypeConfig>>> = Vec::with_capacity(chunk.len());
            let mut bytes = 0;
            for item in chunk {
                let (entry, responder) = item?;
                let (id, change, len) = prepare(entry);
                bytes += len;
                changes.push((id, change));
                responders.push(responder);
            }
            let entries = changes.len() as u64;
            let results = self.replica.apply(changes).map_err(io::Error::other)?;
            for (responder, result) in responders.into_iter().zip(results) {
                if let Some(responder) = responder {
                    responder.send(Response(result));
                }
            }
            self.replica.count(entries, bytes);
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        self.replica.snapshot_begins();
        let state = self.replica.state();
        let meta = SnapshotMeta { last_log_id: state.last, last_membership: state.membership.clone() };
        Builder { meta, machine: Some(state.machine.clone()), replica: self.replica.clone(), file: self.file.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: Bytes) -> Result<(), io::Error> {
        let machine = Machine::restore(&data).map_err(io::Error::other)?;
        // Durable first: openraft drops the log that the snapshot covers once this returns.
        self.file.save(meta, move || data).await?;
        self.replica.note_snapshot();
        self.replica.install(State { machine, last: meta.last_log_id, membership: meta.last_membership.clone() });
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(self.file.load().await?.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

/// A copy of the state at one revision, to be encoded and saved while entries go on being applied.
pub(crate) struct Builder {
    meta: SnapshotMeta,
    /// Until it is built.
    machine: Option<Machine>,
    replica: Arc<Replica>,
    file: SnapshotFile,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let machine = self.machine.take().ok_or_else(|| io::Error::other("a snapshot is built once"))?;
        let snapshot = self.file.save(&self.meta, move || machine.snapshot().into()).await?;
        self.replica.note_snapshot();
        Ok(Snapshot { meta: self.meta.clone(), snapshot })
    }
}
