//! openraft's view of the replicated state machine.

use std::io;
use std::sync::Arc;

use coterie_core::command::{self, Envelope};
use coterie_mutants::{Mutant, is_on};
use futures_util::{Stream, StreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};

use crate::replica::{Change, LOCKED_COMMANDS, Replica, Shot, State, undecodable};
use crate::snapshots::{SnapshotData, SnapshotFile};
use crate::types::{Entry, LogId, Response, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};

/// Entries that are made ready before they are applied: rounds of some hundred commands at most.
const APPLY_CHUNK: usize = 16;

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
        EntryPayload::Normal(round) => {
            let decode = |command| {
                command::decode::<Envelope>("command", command).map_err(|error| {
                    tracing::error!(index = id.index, %error, "decode a command from the log");
                    undecodable()
                })
            };
            let mut envelopes: Vec<_> = round.commands().map(decode).collect();
            if is_on(Mutant::ApplyOutOfOrder) {
                envelopes.reverse();
            }
            (id, Change::Round { ts_ms: round.ts_ms, envelopes }, round.commands.len() as u64)
        }
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
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
            let (mut commands, mut bytes) = (0, 0);
            for item in chunk {
                let (entry, responder) = item?;
                let (id, change, len) = prepare(entry);
                commands += change.commands().max(1) as u64;
                bytes += len;
                changes.push((id, change));
                responders.push(responder);
            }
            // Before: what a snapshot holds must not count towards the next one.
            self.replica.count(commands, bytes);
            let outcomes = self.replica.apply(changes).map_err(io::Error::other)?;
            for (responder, outcomes) in responders.into_iter().zip(outcomes) {
                if let Some(responder) = responder {
                    responder.send(Response(outcomes));
                }
            }
            // Entries that were read from the log come without a pause.
            if commands as usize >= LOCKED_COMMANDS {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let made = self.file.take_made();
        let shot = made.is_none().then(|| self.replica.image());
        Builder { made, shot, replica: self.replica.clone(), file: self.file.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: SnapshotData) -> Result<(), io::Error> {
        let received = match data {
            SnapshotData::Received(received) => received,
            SnapshotData::Saved(stored) => self.file.copy(stored).await.map_err(io::Error::other)?,
            SnapshotData::NotNeeded => return Err(io::Error::other("install a snapshot that was not received")),
        };
        // Durable first: openraft drops the log that the snapshot covers once this returns.
        let (machine, bytes) = received.publish().await?;
        self.replica.note_snapshot(bytes);
        let new = State { machine, last: meta.last_log_id, membership: meta.last_membership.clone() };
        received.bury(self.replica.install(new));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(self.file.current().map(|(meta, stored)| Snapshot { meta, snapshot: SnapshotData::Saved(stored) }))
    }
}

/// What openraft is given when it asks for a snapshot: the one that was just made, or else it makes one of the state as
/// it was then, while entries go on being applied.
pub(crate) struct Builder {
    made: Option<io::Result<()>>,
    shot: Option<Shot>,
    replica: Arc<Replica>,
    file: SnapshotFile,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        if let Some(made) = self.made.take() {
            made?;
        }
        if let Some(shot) = self.shot.take() {
            let counted = shot.counted();
            self.file.make(shot).await?;
            self.replica.note_made(counted, self.file.bytes());
        }
        let (meta, stored) = self.file.current().ok_or_else(|| io::Error::other("a snapshot that was made is gone"))?;
        Ok(Snapshot { meta, snapshot: SnapshotData::Saved(stored) })
    }
}
