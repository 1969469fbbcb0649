//! openraft's own suite for storage, on the real log and state machine over a disk in memory.

use std::path::Path;

use coterie_core::machine::Machine;
use coterie_env::Env;
use coterie_env::mem::MemDisk;
use coterie_store::log::{Log, Options};
use coterie_store::snapshots::Snapshots;
use openraft::StorageError;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};

use super::*;
use crate::replica::{Change, Replica, SnapshotPolicy, State};
use crate::snapshots::{SnapshotData, SnapshotFile};
use crate::state_machine::{Builder, StateMachine};
use crate::types::{Snapshot, SnapshotMeta, StoredMembership};

/// The suite applies entries with gaps between them, which a replica refuses; this fills them.
struct GapFilling {
    inner: StateMachine,
    replica: Arc<Replica>,
}

impl GapFilling {
    fn fill(&self, entry: &Entry) {
        let next = self.replica.state().last.map_or(0, |last| last.index + 1);
        let leader = entry.log_id.leader_id;
        let blanks = (next..entry.log_id.index).map(|index| (LogId::new(leader, index), Change::Blank)).collect();
        self.replica.apply(blanks).unwrap();
    }
}

impl RaftStateMachine<TypeConfig> for GapFilling {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        self.inner.applied_state().await
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            self.fill(&entry);
            self.inner.apply(stream::iter([Ok((entry, responder))])).await?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        self.inner.get_snapshot_builder().await
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: SnapshotData) -> Result<(), io::Error> {
        self.inner.install_snapshot(meta, data).await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        self.inner.get_current_snapshot().await
    }
}

struct OnMemDisk;

impl StoreBuilder<TypeConfig, LogStorage, GapFilling> for OnMemDisk {
    async fn build(&self) -> Result<((), LogStorage, GapFilling), StorageError<TypeConfig>> {
        let env = Env { disk: Arc::new(MemDisk::new()), ..coterie_env::real::real() };
        let dir = Path::new("/data");
        env.disk.create_dir_all(dir).unwrap();
        let options = Options { segment_bytes: 256 * 1024, ..Options::default() };
        let log = Log::open(&env, dir, options).unwrap();
        let snapshots = Arc::new(Snapshots::new(&env, dir).unwrap());
        let state = State { machine: Machine::new(0), last: None, membership: StoredMembership::default() };
        let replica = Replica::new(env.clone(), state, SnapshotPolicy { entries: 1_000, bytes: 1_000_000 });
        let inner = StateMachine::new(replica.clone(), SnapshotFile::new(env, snapshots, "data"));
        Ok(((), LogStorage::open(log.partition("data")).unwrap(), GapFilling { inner, replica }))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openrafts_own_suite_passes() {
    Suite::test_all(OnMemDisk).await.unwrap();
}
