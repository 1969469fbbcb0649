//! What a member with a volume keeps on it: its identity, its log, its snapshots.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use coterie_core::command::MemberKind;
use coterie_core::config::Config;
use coterie_core::{ErrorCode, PartitionId, Rejection};
use coterie_env::Env;
use coterie_proto::peer;
use coterie_replication::storage_key;
use coterie_store::directory::{self, Identity, KnownPeer};
use coterie_store::{Log, Snapshots};

use crate::deadline::Deadline;
use crate::identities::Identities;
use crate::limits;
use crate::node::{Error, Sizes};

/// The durable half of a member with a volume.
pub(crate) struct Store {
    pub(crate) directory: directory::Directory,
    pub(crate) log: Log,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) sizes: Sizes,
}

impl Store {
    /// How far the log of each partition goes.
    pub(crate) fn marks(&self) -> Vec<peer::Mark> {
        let keys = self.log.partitions().into_iter();
        let marks = keys.filter_map(|key| {
            let state = self.log.partition(&key).state();
            let index = state.last.or(state.purged.map(|(index, _)| index))?;
            Some(peer::Mark { key, index })
        });
        marks.collect()
    }
}

impl Identities for Store {
    fn identity(&self) -> Identity {
        self.directory.identity()
    }

    fn has_log(&self) -> bool {
        let state = self.log.partition(&storage_key(&PartitionId::system(), 0)).state();
        state.vote.is_some() || state.last.is_some() || state.purged.is_some()
    }

    fn remember(&self, seen: BTreeMap<String, KnownPeer>) -> io::Result<()> {
        self.directory.update(|identity| identity.peers.extend(seen)).map_err(io::Error::other)
    }
}

/// The data directory of a member with a volume. A directory that is another member's is not used at all: the sidecar
/// then starts without one, says so and serves nothing.
pub(crate) async fn open(
    env: &Env,
    config: &Config,
    path: &Path,
    sizes: Sizes,
) -> Result<(Option<Arc<Store>>, Option<Rejection>), Error> {
    if config.local.kind != MemberKind::Persistent {
        return Ok((None, None));
    }
    let until = Deadline::after_ms(env, limits::LOCK_WAIT_MS);
    let opened = loop {
        // A process that was just killed may hold the lock for a moment more.
        match directory::Directory::open(env, path, &config.cluster, config.local.name.as_str()) {
            Err(directory::Error::Locked { .. }) if !until.passed(env) => {
                tokio::time::sleep(Duration::from_millis(limits::RETRY_PAUSE_MS_MAX)).await;
            }
            opened => break opened,
        }
    };
    let directory = match opened {
        Ok(directory) => directory,
        Err(
            error @ (directory::Error::BelongsTo { .. }
            | directory::Error::IdentityMissing { .. }
            | directory::Error::Damaged { .. }),
        ) => {
            return Ok((None, Some(Rejection::new(ErrorCode::DirectoryReplaced, error.to_string()))));
        }
        Err(error) => return Err(Error::OpenDirectory(error)),
    };
    let options = coterie_store::log::Options { segment_bytes: sizes.segment_bytes, ..Default::default() };
    let log = Log::open(env, path, options).map_err(Error::OpenLog)?;
    let snapshots = Arc::new(Snapshots::new(env, path).map_err(Error::OpenSnapshots)?);
    Ok((Some(Arc::new(Store { directory, log, snapshots, sizes })), None))
}
