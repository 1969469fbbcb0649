//! What the files say: reads all segments, changes nothing.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use coterie_env::Disk;

use super::error::Error;
use super::format::{self, BATCH_HEADER_BYTES, Change, HeaderError, Record, SECTOR_BYTES, SegmentHeader};
use super::segment::{self, Location, Segment};
use super::state::{Kept, Partition};
use crate::limits::INDEX_MAX;

/// A log as its files say it is.
#[derive(Default)]
pub(super) struct Recovered {
    partitions: BTreeMap<Arc<str>, Replayed>,
    pub(super) segments: BTreeMap<u32, Arc<Segment>>,
    /// Where the valid batches of the segment before end in something else than zeros.
    cut_off: Option<(PathBuf, usize)>,
    /// In the last segment: where the next batch goes, and what a torn write or a former life of the file left from there
    /// on.
    pub(super) tail: u64,
    pub(super) torn: Option<Range<u64>>,
    /// The number of the next batch.
    pub(super) next_batch: u64,
}

/// One partition during replay. What is replayed may begin in the middle of its life, because needless segments go:
/// then records refer to entries that are not there, and later ones make up for it.
#[derive(Default)]
struct Replayed {
    vote: Kept<Bytes>,
    committed: Kept<Bytes>,
    purged: Kept<(u64, Bytes)>,
    entries: BTreeMap<u64, Location>,
}

/// Where a segment's valid batches end.
struct End {
    offset: usize,
    /// Something other than zeros from there on.
    garbage: Option<Range<usize>>,
}

/// Reads the log in this folder; an empty one if there is no folder.
pub(super) fn scan(disk: &dyn Disk, folder: &Path) -> Result<Recovered, Error> {
    let mut recovered = Recovered { next_batch: 1, ..Recovered::default() };
    let files = segment_files(disk, folder)?;
    let newest = files.last().map(|(seq, _)| *seq);
    for (position, (seq, path)) in files.into_iter().enumerate() {
        let file = disk.open(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        let bytes = read_whole(file.as_ref()).map_err(|source| Error::Read { path: path.clone(), source })?;
        let header = check_header(&path, seq, &bytes)?;
        match position {
            0 => recovered.next_batch = header.first_batch,
            _ => recovered.check_follows(&path, &header)?,
        }
        let is_newest = newest == Some(seq);
        let len = bytes.len() as u64;
        let end = recovered.replay_segment(&path, &header, &bytes)?;
        recovered.cut_off = end.garbage.as_ref().map(|garbage| (path.clone(), garbage.start));
        if is_newest {
            recovered.tail = end.offset as u64;
            recovered.torn = end.garbage.map(|range| range.start as u64..range.end as u64);
        }
        recovered.segments.insert(seq, Arc::new(Segment { seq, salt: header.salt, len, path, file }));
    }
    recovered.check_contiguous(folder)?;
    Ok(recovered)
}

fn segment_files(disk: &dyn Disk, folder: &Path) -> Result<Vec<(u32, PathBuf)>, Error> {
    let entries = match disk.list(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::Read { path: folder.to_owned(), source }),
    };
    let mut files: Vec<_> = entries.into_iter().filter_map(|path| Some((segment::seq_of(&path)?, path))).collect();
    files.sort();
    Ok(files)
}

fn read_whole(file: &dyn coterie_env::File) -> io::Result<Vec<u8>> {
    let len = usize::try_from(file.len()?).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    let mut bytes = vec![0; len];
    file.read_at(0, &mut bytes)?;
    Ok(bytes)
}

fn damaged(segment: &Path, offset: usize, what: impl Into<String>) -> Error {
    Error::Damaged { segment: segment.to_owned(), offset: offset as u64, what: what.into() }
}

fn check_header(path: &Path, seq: u32, bytes: &[u8]) -> Result<SegmentHeader, Error> {
    // A file gets a segment's name only after its header was synced, so an unreadable one is never a torn write.
    let header = SegmentHeader::decode(bytes).map_err(|error| match error {
        HeaderError::Damaged => damaged(path, 0, "its header is not valid"),
        HeaderError::Version(found) => Error::Version { segment: path.to_owned(), found, supported: format::VERSION },
    })?;
    if header.seq != seq {
        return Err(damaged(path, 0, format!("its header says that it is segment {:x}", header.seq)));
    }
    // A segment is written to its end before it has its name, and keeps its length: one that ends elsewhere was cut, also
    // where that is between two batches.
    let len = bytes.len() as u64;
    if header.len.is_some_and(|said| said != len) || !len.is_multiple_of(SECTOR_BYTES as u64) {
        let said = header.len.map_or("whole sectors".to_owned(), |said| format!("{said}"));
        return Err(damaged(path, 0, format!("it has {len} bytes, not {said}")));
    }
    if u32::try_from(bytes.len()).is_err() {
        return Err(damaged(path, 0, "it is 4 GiB or longer, and no segment is"));
    }
    Ok(header)
}

impl Recovered {
    pub(super) fn into_partitions(self) -> BTreeMap<Arc<str>, Partition> {
        let partitions = self.partitions.into_iter();
        partitions
            .map(|(key, found)| {
                let first = found.entries.keys().next().copied().unwrap_or(0);
                let entries = found.entries.into_values();
                (key, Partition::recovered(found.vote, found.committed, found.purged, first, entries))
            })
            .collect()
    }

    /// No segment and no batch is missing between this one and the one before.
    fn check_follows(&self, path: &Path, header: &SegmentHeader) -> Result<(), Error> {
        let (before, _) = self.segments.last_key_value().expect("this is not the first");
        if header.seq != before + 1 {
            return Err(damaged(path, 0, format!("the segment {:016x}.seg before it is missing", before + 1)));
        }
        if header.first_batch != self.next_batch {
            if let Some((before, offset)) = &self.cut_off {
                let what =
                    format!("a batch is not valid, and the next segment begins with batch {}", header.first_batch);
                return Err(damaged(before, *offset, what));
            }
            let what = format!("it begins with batch {}, not {}", header.first_batch, self.next_batch);
            return Err(damaged(path, 0, what));
        }
        Ok(())
    }

    fn replay_segment(&mut self, path: &Path, header: &SegmentHeader, bytes: &[u8]) -> Result<End, Error> {
        let mut offset = SECTOR_BYTES;
        while let Some(batch) = format::batch_at(bytes, offset, header.salt) {
            if batch.number != self.next_batch {
                let what = format!("it holds batch {}, not {}", batch.number, self.next_batch);
                return Err(damaged(path, offset, what));
            }
            let records = format::records(batch.records).map_err(|what| damaged(path, offset, what))?;
            for (key, record) in records {
                self.replay(key, record, header.seq, offset + BATCH_HEADER_BYTES);
            }
            let too_many = || damaged(path, offset, "it holds the last batch that there can be");
            self.next_batch = self.next_batch.checked_add(1).ok_or_else(too_many)?;
            offset = batch.end;
        }
        let rest = &bytes[offset.min(bytes.len())..];
        let garbage = rest.iter().rposition(|byte| *byte != 0).map(|last| offset..offset + last + 1);
        if let Some(later) = garbage.as_ref().and_then(|_| later_batch(bytes, offset, header.salt)) {
            let what = format!("a batch is not valid, and the one at byte {later} is");
            return Err(damaged(path, offset, what));
        }
        Ok(End { offset, garbage })
    }

    fn replay(&mut self, key: &str, record: Record, segment: u32, records_at: usize) {
        let change = match record {
            Record::Entries(places) => {
                let entries = &mut self.partition(key).entries;
                for (index, offset, len) in places {
                    let narrow = |number| u32::try_from(number).expect("segments are shorter than 4 GiB");
                    let location = Location { segment, offset: narrow(records_at + offset), len: narrow(len) };
                    entries.insert(index, location);
                }
                return;
            }
            Record::Other(change) => change,
        };
        match change {
            Change::Entries(_) => unreachable!("the decoder gives entries as places"),
            Change::Vote(vote) => self.partition(key).vote = Kept { value: Some(vote), segment: Some(segment) },
            Change::Committed(committed) => {
                self.partition(key).committed = Kept { value: Some(committed), segment: Some(segment) };
            }
            Change::Truncate(from) => {
                self.partition(key).entries.split_off(&from);
            }
            Change::Purge(index, log_id) => {
                let partition = self.partition(key);
                partition.entries.retain(|entry, _| *entry > index);
                partition.purged = Kept { value: Some((index, log_id)), segment: Some(segment) };
            }
            Change::Remove => {
                self.partitions.remove(key);
            }
        }
    }

    fn partition(&mut self, key: &str) -> &mut Replayed {
        self.partitions.entry(Arc::from(key)).or_default()
    }

    /// Every partition's entries are without a gap; a gap means that a segment went that was needed.
    fn check_contiguous(&self, folder: &Path) -> Result<(), Error> {
        for (key, partition) in &self.partitions {
            let indexes: Vec<u64> = partition.entries.keys().copied().collect();
            if let Some(gap) = indexes.windows(2).find(|pair| pair[0] + 1 != pair[1]) {
                let what = format!("partition {key} has entries {} and {}, and none between", gap[0], gap[1]);
                return Err(damaged(folder, 0, what));
            }
            if let Some(last) = indexes.last().filter(|last| **last > INDEX_MAX) {
                let what = format!("partition {key} has entry {last}, and {INDEX_MAX} is the last that there can be");
                return Err(damaged(folder, 0, what));
            }
        }
        Ok(())
    }
}

/// Where a valid batch begins behind an invalid one. Batches begin at sectors.
fn later_batch(bytes: &[u8], offset: usize, salt: u32) -> Option<usize> {
    let mut offsets = (offset + SECTOR_BYTES..bytes.len()).step_by(SECTOR_BYTES);
    offsets.find(|offset| format::batch_at(bytes, *offset, salt).is_some())
}
