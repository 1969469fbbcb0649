//! openraft's log on one partition of the shared write-ahead log.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, RwLock};

use bytes::Bytes;
use coterie_mutants::{Mutant, is_on};
use coterie_store::log::{Demand, PartitionLog};
use futures_util::{Stream, StreamExt, stream};
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};

use crate::codec;
use crate::timing::APPEND_BYTES_MAX;
use crate::types::{Entry, LogId, TypeConfig, Vote};

/// The log of one partition; also its reader. Clones share everything.
#[derive(Clone)]
pub(crate) struct LogStorage {
    log: PartitionLog,
    /// The last durable vote, decoded: readers compare it for every batch.
    vote: Arc<RwLock<Option<Vote>>>,
}

impl LogStorage {
    /// Reads the vote.
    pub(crate) fn open(log: PartitionLog) -> io::Result<Self> {
        let vote = decode_optional("vote", log.state().vote)?;
        Ok(Self { log, vote: Arc::new(RwLock::new(vote)) })
    }

    /// Whether anything was ever written.
    pub(crate) fn is_pristine(&self) -> bool {
        let state = self.log.state();
        state.vote.is_none() && state.last.is_none() && state.purged.is_none()
    }

    /// Whether the log takes this many bytes now. To be asked before anything is given to Raft: an append that the log
    /// refuses ends the replica.
    pub(crate) fn admit(&self, demand: Demand, bytes: usize) -> io::Result<()> {
        self.log.admit(demand, bytes)
    }

    /// The last entries, so many at most, as they are kept.
    #[cfg(feature = "sim")]
    pub(crate) fn last(&self, most: u64) -> io::Result<Vec<(u64, Bytes)>> {
        let Some(last) = self.log.state().last else { return Ok(Vec::new()) };
        self.log.read((last + 1).saturating_sub(most)..=last, usize::MAX)
    }

    fn entries(&self, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        if start >= end {
            return Ok(Vec::new());
        }
        let records = self.log.read(start..end, bytes_max)?;
        let entries = records.iter().map(|(index, record)| Ok(codec::decode_record(*index, record)?));
        entries.collect()
    }
}

fn decode_optional<T: serde::de::DeserializeOwned>(what: &'static str, mark: Option<Bytes>) -> io::Result<Option<T>> {
    Ok(mark.map(|bytes| codec::decode_mark(what, &bytes)).transpose()?)
}

/// A range as `start..end`.
fn half_open(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl RaftLogReader<TypeConfig> for LogStorage {
    async fn try_get_log_entries<R>(&mut self, range: R) -> Result<Vec<Entry>, io::Error>
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = half_open(&range);
        self.entries(start, end, usize::MAX)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.entries(start, end, APPEND_BYTES_MAX)
    }

    /// Reads a part at a time: a restarted replica may have a long log to apply.
    async fn entries_stream<R>(&mut self, range: R) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = half_open(&range);
        let reader = self.clone();
        let parts = stream::unfold(Some(start), move |start| {
            let part = start.map(|start| reader.entries(start, end, APPEND_BYTES_MAX));
            async move {
                match part? {
                    Ok(entries) => {
                        let next = entries.last()?.index() + 1;
                        Some((entries.into_iter().map(Ok).collect(), Some(next)))
                    }
                    Err(error) => Some((vec![Err(error)], None)),
                }
            }
        });
        parts.map(stream::iter).flatten()
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(*self.vote.read().expect("no holder panics"))
    }
}

impl RaftLogStorage<TypeConfig> for LogStorage {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let state = self.log.state();
        let last_purged_log_id = match state.purged {
            Some((_, mark)) => Some(codec::decode_mark::<LogId>("purged log id", &mark)?),
            None => None,
        };
        let last_entry = match state.last {
            Some(last) => self.entries(last, last + 1, usize::MAX)?.pop().map(|entry| entry.log_id),
            None => None,
        };
        Ok(LogState { last_purged_log_id, last_log_id: last_entry.or(last_purged_log_id) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        if !is_on(Mutant::ForgetVote) {
            self.log.save_vote(codec::encode_mark(vote)).await?;
        }
        *self.vote.write().expect("no holder panics") = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        if let Some(committed) = committed {
            self.log.save_committed(codec::encode_mark(&committed));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        decode_optional("committed log id", self.log.state().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let records = entries.into_iter().map(|entry| (entry.log_id.index, codec::encode_record(&entry))).collect();
        self.log.append(records, Box::new(move |result| callback.io_completed(result)));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        self.log.truncate_after(last.map(|id| id.index)).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.log.purge(upto.index, codec::encode_mark(&upto)).await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod suite_tests;
