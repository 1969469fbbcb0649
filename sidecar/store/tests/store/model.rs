//! What a log must be after each of a list of calls.

use std::collections::BTreeMap;

use bytes::Bytes;
use coterie_store::{Log, LogState};

/// The content of all partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model(pub BTreeMap<String, Part>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    pub vote: Option<Bytes>,
    pub committed: Option<Bytes>,
    pub purged: Option<(u64, Bytes)>,
    pub entries: BTreeMap<u64, Bytes>,
}

/// A call on one partition.
#[derive(Clone, Debug)]
pub enum Call {
    Append {
        count: u64,
        len: usize,
    },
    Vote,
    Committed,
    /// Drops this many of the newest entries.
    Truncate(u64),
    /// Purges up to this many entries behind the first (or behind what is purged).
    Purge(u64),
    Remove,
}

impl Part {
    pub fn next(&self) -> u64 {
        let last = self.entries.keys().next_back().copied();
        let purged = self.purged.as_ref().map(|(index, _)| *index);
        last.max(purged).map_or(1, |index| index + 1)
    }

    fn state(&self) -> LogState {
        LogState {
            vote: self.vote.clone(),
            committed: self.committed.clone(),
            purged: self.purged.clone(),
            first: self.entries.keys().next().copied(),
            last: self.entries.keys().next_back().copied(),
        }
    }
}

impl Model {
    pub fn part(&mut self, key: &str) -> &mut Part {
        self.0.entry(key.to_owned()).or_default()
    }

    /// Whether the log holds exactly this.
    pub fn is_in(&self, log: &Log) -> bool {
        let mut keys: Vec<String> = log.partitions();
        keys.extend(self.0.keys().cloned());
        keys.iter().all(|key| {
            let part = self.0.get(key).cloned().unwrap_or_default();
            let partition = log.partition(key);
            let entries = partition.read(.., usize::MAX).expect("what was recovered can be read");
            partition.state() == part.state() && entries.into_iter().eq(part.entries)
        })
    }
}
