//! What the simulator looks at.

use std::io;

use bytes::Bytes;

use super::Partition;
use crate::codec::decode_record;

/// An entry as the log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Its place.
    pub index: u64,
    /// The term of the leader that made it, and that leader.
    pub leader: (u64, u64),
    /// Everything, encoded.
    pub record: Bytes,
}

impl Partition {
    /// The last entries of the log, so many at most, in order.
    pub fn last_entries(&self, most: u64) -> io::Result<Vec<LogEntry>> {
        let records = self.inner.log.last(most)?;
        let entry = |(index, record): (u64, Bytes)| {
            let leader = decode_record(index, &record).map_err(io::Error::other)?.log_id.leader_id;
            Ok(LogEntry { index, leader: (leader.term, leader.node_id), record })
        };
        records.into_iter().map(entry).collect()
    }
}
