//! The bytes of the log. All numbers are little-endian.
//!
//! ```text
//! segment  magic 8 | version u32 | seq u64 | salt u32 | first batch u64 | crc u32 | length u64 | crc u32 | zeros to 512
//!          | batches … | zeros, or a former life
//! batch    magic u32 | length u32 | number u64 | crc u32 | records (length bytes) | zeros to a multiple of 512
//! record   kind u8 | key length u8 | key | …
//!   1 entries    count u32, then per entry: index u64 | length u32 | crc u32 | bytes
//!   2 vote       length u32 | bytes
//!   3 committed  length u32 | bytes
//!   4 truncate   first index that goes, u64
//!   5 purge      last index that goes, u64 | length u32 | bytes of its log id
//!   6 remove
//! ```
//!
//! Every checksum is CRC-32C begun with the segment's salt: random in a new file, one more than the former when a file is
//! used again. For the same bytes two salts never give the same checksum, so nothing that a previous life left behind is
//! ever valid. A batch is valid as a whole or not at all; an entry has a checksum of its own
//! because it is read alone later. The length is the file's: what ends at a batch is whole otherwise, also where a copy was
//! broken off. Programs of before wrote zeros there, and pass over what is there now.

use bytes::Bytes;

/// A disk writes this much in one piece; headers and batches begin at multiples of it.
pub(super) const SECTOR_BYTES: usize = 512;

/// The version of segments that this program writes and the newest that it reads. Before version 2 nothing but zeros lay
/// behind the last batch, and a program of that time takes something else for damage.
pub(super) const VERSION: u32 = 2;

const SEGMENT_MAGIC: [u8; 8] = *b"coterwal";
const BATCH_MAGIC: u32 = 0x4854_4142;

/// Bytes of a batch before its records.
pub(super) const BATCH_HEADER_BYTES: usize = 20;

/// Bytes of an entry before its content.
pub(super) const ENTRY_HEADER_BYTES: usize = 16;

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) seq: u32,
    pub(super) salt: u32,
    /// The number of the first batch in it.
    pub(super) first_batch: u64,
    /// Bytes of the file; `None` if it was written before this was.
    pub(super) len: Option<u64>,
}

/// Why a segment's header was not accepted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderError {
    Damaged,
    Version(u32),
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut header = Vec::with_capacity(SECTOR_BYTES);
        header.extend_from_slice(&SEGMENT_MAGIC);
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&u64::from(self.seq).to_le_bytes());
        header.extend_from_slice(&self.salt.to_le_bytes());
        header.extend_from_slice(&self.first_batch.to_le_bytes());
        let crc = crc32c::crc32c(&header);
        header.extend_from_slice(&crc.to_le_bytes());
        if let Some(len) = self.len {
            header.extend_from_slice(&len.to_le_bytes());
            header.extend_from_slice(&crc32c::crc32c_append(self.salt, &len.to_le_bytes()).to_le_bytes());
        }
        header.resize(SECTOR_BYTES, 0);
        header
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<SegmentHeader, HeaderError> {
        let mut reader = Reader(bytes);
        let read = |reader: &mut Reader<'_>| {
            Some((reader.take(8)? == SEGMENT_MAGIC, reader.u32()?, reader.u64()?, reader.u32()?, reader.u64()?))
        };
        let (is_segment, version, seq, salt, first_batch) = read(&mut reader).ok_or(HeaderError::Damaged)?;
        let covered = bytes.len() - reader.0.len();
        let crc = reader.u32().ok_or(HeaderError::Damaged)?;
        if !is_segment || crc != crc32c::crc32c(&bytes[..covered]) {
            return Err(HeaderError::Damaged);
        }
        if version > VERSION {
            return Err(HeaderError::Version(version));
        }
        let seq = u32::try_from(seq).map_err(|_| HeaderError::Damaged)?;
        let (len, crc) = reader.u64().zip(reader.u32()).ok_or(HeaderError::Damaged)?;
        let len = match (len, crc) {
            (0, 0) => None,
            _ if crc == crc32c::crc32c_append(salt, &len.to_le_bytes()) => Some(len),
            _ => return Err(HeaderError::Damaged),
        };
        Ok(SegmentHeader { seq, salt, first_batch, len })
    }
}

/// What is written to the log, without what is done when it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Entries(Vec<(u64, Bytes)>),
    Vote(Bytes),
    Committed(Bytes),
    /// Entries from this index on go.
    Truncate(u64),
    /// Entries up to this index go; the last of them had this log id.
    Purge(u64, Bytes),
    /// The partition goes.
    Remove,
}

impl Change {
    fn kind(&self) -> u8 {
        match self {
            Change::Entries(_) => 1,
            Change::Vote(_) => 2,
            Change::Committed(_) => 3,
            Change::Truncate(_) => 4,
            Change::Purge(..) => 5,
            Change::Remove => 6,
        }
    }

    /// Bytes of the record in a batch.
    pub(super) fn encoded_len(&self, key: &str) -> usize {
        let content = match self {
            Change::Entries(entries) => {
                4 + entries.iter().map(|(_, bytes)| ENTRY_HEADER_BYTES + bytes.len()).sum::<usize>()
            }
            Change::Vote(bytes) | Change::Committed(bytes) => 4 + bytes.len(),
            Change::Truncate(_) => 8,
            Change::Purge(_, log_id) => 12 + log_id.len(),
            Change::Remove => 0,
        };
        2 + key.len() + content
    }
}

/// Bytes of a batch with this many bytes of records, padded.
pub(super) fn batch_len(records: usize) -> usize {
    (BATCH_HEADER_BYTES + records).next_multiple_of(SECTOR_BYTES)
}

/// A batch under construction, in a buffer that is used again.
pub(super) struct BatchWriter<'a> {
    buffer: &'a mut Vec<u8>,
    salt: u32,
}

impl<'a> BatchWriter<'a> {
    pub(super) fn new(buffer: &'a mut Vec<u8>, salt: u32) -> Self {
        buffer.clear();
        buffer.resize(BATCH_HEADER_BYTES, 0);
        BatchWriter { buffer, salt }
    }

    /// Adds a record; for entries, calls `placed` with each one's index, offset in the batch and length.
    pub(super) fn put(&mut self, key: &str, change: &Change, mut placed: impl FnMut(u64, usize, usize)) {
        self.buffer.push(change.kind());
        self.buffer.push(u8::try_from(key.len()).expect("names of partitions are checked when they come in"));
        self.buffer.extend_from_slice(key.as_bytes());
        match change {
            Change::Entries(entries) => {
                self.buffer.extend_from_slice(&length(entries.len()));
                for (index, bytes) in entries {
                    placed(*index, self.buffer.len(), bytes.len());
                    self.put_entry(*index, bytes);
                }
            }
            Change::Vote(bytes) | Change::Committed(bytes) => self.put_bytes(bytes),
            Change::Truncate(from) => self.buffer.extend_from_slice(&from.to_le_bytes()),
            Change::Purge(index, log_id) => {
                self.buffer.extend_from_slice(&index.to_le_bytes());
                self.put_bytes(log_id);
            }
            Change::Remove => {}
        }
    }

    fn put_entry(&mut self, index: u64, bytes: &[u8]) {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&index.to_le_bytes());
        self.buffer.extend_from_slice(&length(bytes.len()));
        let crc = crc32c::crc32c_append(crc32c::crc32c_append(self.salt, &self.buffer[start..]), bytes);
        self.buffer.extend_from_slice(&crc.to_le_bytes());
        self.buffer.extend_from_slice(bytes);
    }

    fn put_bytes(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(&length(bytes.len()));
        self.buffer.extend_from_slice(bytes);
    }

    /// Fills in the header and the padding: the buffer is what goes to the disk.
    pub(super) fn finish(self, number: u64) {
        let records = self.buffer.len() - BATCH_HEADER_BYTES;
        self.buffer[..4].copy_from_slice(&BATCH_MAGIC.to_le_bytes());
        self.buffer[4..8].copy_from_slice(&length(records));
        self.buffer[8..16].copy_from_slice(&number.to_le_bytes());
        let crc = batch_crc(self.salt, self.buffer);
        self.buffer[16..20].copy_from_slice(&crc.to_le_bytes());
        self.buffer.resize(batch_len(records), 0);
    }
}

fn length(len: usize) -> [u8; 4] {
    u32::try_from(len).expect("records are far below 4 GiB").to_le_bytes()
}

/// Of a batch's header without its checksum, and its records.
fn batch_crc(salt: u32, unpadded: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(salt, &unpadded[..16]), &unpadded[BATCH_HEADER_BYTES..])
}

/// A valid batch in a segment.
pub(super) struct Batch<'a> {
    pub(super) number: u64,
    pub(super) records: &'a [u8],
    /// Where the next one begins, from the start of the segment.
    pub(super) end: usize,
}

/// The batch at an offset of a segment, if there is a valid one.
pub(super) fn batch_at(segment: &[u8], offset: usize, salt: u32) -> Option<Batch<'_>> {
    let mut reader = Reader(segment.get(offset..)?);
    if reader.u32()? != BATCH_MAGIC {
        return None;
    }
    let len = usize::try_from(reader.u32()?).ok()?;
    let number = reader.u64()?;
    let crc = reader.u32()?;
    let records = reader.take(len)?;
    let end = offset + batch_len(len);
    let unpadded = &segment[offset..offset + BATCH_HEADER_BYTES + len];
    (end <= segment.len() && batch_crc(salt, unpadded) == crc).then_some(Batch { number, records, end })
}

/// The content of an entry that was read from the disk with its header; `None` if it is not the entry that was written.
pub(super) fn entry_content(raw: &Bytes, index: u64, salt: u32) -> Option<Bytes> {
    let mut reader = Reader(raw);
    let found = reader.u64()?;
    let len = usize::try_from(reader.u32()?).ok()?;
    let crc = reader.u32()?;
    let content = reader.take(len)?;
    let expected = crc32c::crc32c_append(crc32c::crc32c_append(salt, &raw[..12]), content);
    (found == index && reader.0.is_empty() && crc == expected).then(|| raw.slice(ENTRY_HEADER_BYTES..))
}

/// A record of a batch; entries as places instead of contents.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// Index, offset of the entry's header in the batch's records, length of its content.
    Entries(Vec<(u64, usize, usize)>),
    Other(Change),
}

/// The records of a valid batch, with their partitions, in order. An error says what is not understood: the checksum
/// matched, so a program wrote it so.
pub(super) fn records(bytes: &[u8]) -> Result<Vec<(&str, Record)>, String> {
    let mut reader = Reader(bytes);
    let mut found = Vec::new();
    while !reader.0.is_empty() {
        let kind = reader.0[0];
        let record = record(&mut reader, bytes.len());
        found.push(record.ok_or_else(|| format!("record {} (kind {kind}) is not understood", found.len()))?);
    }
    Ok(found)
}

fn record<'a>(reader: &mut Reader<'a>, total: usize) -> Option<(&'a str, Record)> {
    let kind = reader.u8()?;
    let key = usize::from(reader.u8()?);
    let key = std::str::from_utf8(reader.take(key)?).ok()?;
    let record = match kind {
        1 => {
            let count = reader.u32()?;
            let mut entries = Vec::new();
            for _ in 0..count {
                let offset = total - reader.0.len();
                let index = reader.u64()?;
                let len = usize::try_from(reader.u32()?).ok()?;
                reader.u32()?;
                reader.take(len)?;
                entries.push((index, offset, len));
            }
            Record::Entries(entries)
        }
        2 => Record::Other(Change::Vote(reader.bytes()?)),
        3 => Record::Other(Change::Committed(reader.bytes()?)),
        4 => Record::Other(Change::Truncate(reader.u64()?)),
        5 => Record::Other(Change::Purge(reader.u64()?, reader.bytes()?)),
        6 => Record::Other(Change::Remove),
        _ => return None,
    };
    Some((key, record))
}

/// Takes numbers off the front of a slice.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4).map(|bytes| u32::from_le_bytes(bytes.try_into().expect("four bytes")))
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8).map(|bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
    }

    fn bytes(&mut self) -> Option<Bytes> {
        let len = usize::try_from(self.u32()?).ok()?;
        self.take(len).map(Bytes::copy_from_slice)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;

    fn changes() -> Vec<(&'static str, Change)> {
        vec![
            ("a", Change::Entries(vec![(7, Bytes::from_static(b"seven")), (8, Bytes::new())])),
            ("b", Change::Vote(Bytes::from_static(b"vote"))),
            ("a", Change::Committed(Bytes::from_static(b"c"))),
            ("a", Change::Truncate(8)),
            ("a", Change::Purge(7, Bytes::from_static(b"id"))),
            ("b", Change::Remove),
        ]
    }

    fn segment(salt: u32) -> Vec<u8> {
        let mut buffer = Vec::new();
        let mut batch = BatchWriter::new(&mut buffer, salt);
        for (key, change) in changes() {
            batch.put(key, &change, |_, _, _| {});
        }
        batch.finish(3);
        let records: usize = changes().iter().map(|(key, change)| change.encoded_len(key)).sum();
        assert_eq!(buffer.len(), batch_len(records));
        [vec![0; SECTOR_BYTES], buffer].concat()
    }

    #[test]
    fn a_batch_reads_back_as_it_was_written() {
        let segment = segment(5);
        let batch = batch_at(&segment, SECTOR_BYTES, 5).unwrap();
        assert_eq!((batch.number, batch.end), (3, segment.len()));
        let found = records(batch.records).unwrap();
        assert_eq!(found.len(), changes().len());
        for ((key, record), (expected_key, expected)) in found.into_iter().zip(changes()) {
            assert_eq!(key, expected_key);
            match (record, expected) {
                (Record::Entries(places), Change::Entries(entries)) => {
                    for ((index, offset, len), (expected_index, content)) in places.into_iter().zip(entries) {
                        assert_eq!(index, expected_index);
                        let raw = &batch.records[offset..offset + ENTRY_HEADER_BYTES + len];
                        let raw = Bytes::copy_from_slice(raw);
                        assert_eq!(entry_content(&raw, index, 5), Some(content));
                        assert_eq!(entry_content(&raw, index + 1, 5), None);
                        assert_eq!(entry_content(&raw, index, 6), None);
                    }
                }
                (record, expected) => assert_eq!(record, Record::Other(expected)),
            }
        }
    }

    #[test]
    fn a_batch_of_another_salt_or_with_a_changed_byte_is_not_valid() {
        let written = segment(5);
        assert!(batch_at(&written, SECTOR_BYTES, 6).is_none());
        let end = SECTOR_BYTES + BATCH_HEADER_BYTES + batch_at(&written, SECTOR_BYTES, 5).unwrap().records.len();
        for position in SECTOR_BYTES..end {
            let mut damaged = written.clone();
            damaged[position] ^= 0x40;
            assert!(batch_at(&damaged, SECTOR_BYTES, 5).is_none(), "byte {position}");
        }
    }

    #[test]
    fn a_segment_header_reads_back_and_a_newer_version_says_so() {
        let header = SegmentHeader { seq: 9, salt: 0xffff_0001, first_batch: 1 << 40, len: Some(4096) };
        let mut bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        let before = SegmentHeader { len: None, ..header };
        assert_eq!(SegmentHeader::decode(&before.encode()), Ok(before));
        let mut set_version = |version: u8| {
            bytes[8] = version;
            assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderError::Damaged));
            let crc = crc32c::crc32c(&bytes[..32]);
            bytes[32..36].copy_from_slice(&crc.to_le_bytes());
            SegmentHeader::decode(&bytes)
        };
        assert_eq!(set_version(3), Err(HeaderError::Version(3)));
        assert_eq!(set_version(1), Ok(header), "the previous one is read");
        assert_eq!(SegmentHeader::decode(&bytes[..20]), Err(HeaderError::Damaged));
    }

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    fn change() -> impl Strategy<Value = Change> {
        let bytes = || vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        prop_oneof![
            3 => vec((any::<u64>(), bytes()), 0..5).prop_map(Change::Entries),
            1 => bytes().prop_map(Change::Vote),
            1 => bytes().prop_map(Change::Committed),
            1 => any::<u64>().prop_map(Change::Truncate),
            1 => (any::<u64>(), bytes()).prop_map(|(index, log_id)| Change::Purge(index, log_id)),
            1 => Just(Change::Remove),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_batch_reads_back_and_is_not_valid_once_a_byte_is_changed_or_missing(
            changes in vec(("[a-z/]{0,9}", change()), 0..6),
            (salt, number) in (any::<u32>(), any::<u64>()),
            damages in vec((any::<Index>(), 1_u8..), 1..30),
        ) {
            let mut whole = Vec::new();
            let mut batch = BatchWriter::new(&mut whole, salt);
            for (key, change) in &changes {
                batch.put(key, change, |_, _, _| {});
            }
            batch.finish(number);
            let read = batch_at(&whole, 0, salt).unwrap();
            prop_assert_eq!((read.number, read.end), (number, whole.len()));
            let unpadded = BATCH_HEADER_BYTES + read.records.len();
            let found = records(read.records).unwrap();
            prop_assert_eq!(found.len(), changes.len());
            for ((key, record), (expected_key, expected)) in found.into_iter().zip(&changes) {
                prop_assert_eq!(key, expected_key);
                match (record, expected) {
                    (Record::Other(change), expected) => prop_assert_eq!(&change, expected),
                    (Record::Entries(places), Change::Entries(entries)) => {
                        for ((index, offset, len), (_, content)) in places.into_iter().zip(entries) {
                            let raw = Bytes::copy_from_slice(&read.records[offset..offset + ENTRY_HEADER_BYTES + len]);
                            prop_assert_eq!(entry_content(&raw, index, salt), Some(content.clone()));
                            for (at, change) in &damages {
                                let mut damaged = raw.to_vec();
                                damaged[at.index(raw.len())] ^= change;
                                prop_assert_eq!(entry_content(&damaged.into(), index, salt), None);
                            }
                        }
                    }
                    (record, expected) => prop_assert!(false, "{record:?} instead of {expected:?}"),
                }
            }
            for (at, change) in damages {
                let at = at.index(unpadded);
                let mut damaged = whole.clone();
                damaged[at] ^= change;
                prop_assert!(batch_at(&damaged, 0, salt).is_none(), "byte {}", at);
                prop_assert!(batch_at(&whole[..at], 0, salt).is_none(), "cut at {}", at);
            }
        }

        #[test]
        fn any_header_reads_back_and_is_refused_once_a_byte_is_changed(
            (seq, salt, first_batch) in any::<(u32, u32, u64)>(),
            len in proptest::option::of(1_u64..),
            damages in vec((0_usize..48, 1_u8..), 1..30),
        ) {
            let header = SegmentHeader { seq, salt, first_batch, len };
            let whole = header.encode();
            prop_assert_eq!((SegmentHeader::decode(&whole), whole.len()), (Ok(header), SECTOR_BYTES));
            for (at, change) in damages {
                let mut damaged = whole.clone();
                damaged[at] ^= change;
                prop_assert!(SegmentHeader::decode(&damaged).is_err(), "byte {}", at);
            }
        }

        #[test]
        fn no_bytes_make_the_readers_of_a_segment_panic(bytes in vec(any::<u8>(), 0..200), offset in 0_usize..300) {
            let batch = [&BATCH_MAGIC.to_le_bytes(), &bytes[..]].concat();
            prop_assert!(batch_at(&bytes, offset, 7).is_none() && batch_at(&batch, 0, 7).is_none());
            let _ = records(&bytes);
            for kind in 1..=6 {
                let _ = records(&[&[kind, 1, b'a'], &bytes[..]].concat());
            }
            prop_assert!(SegmentHeader::decode(&bytes).is_err());
            prop_assert!(SegmentHeader::decode(&[&SEGMENT_MAGIC, &bytes[..]].concat()).is_err());
            prop_assert_eq!(entry_content(&bytes.into(), 0, 7), None);
        }
    }
}
