//! Files of the log.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use coterie_env::{Disk, File, Random};

use super::format::{self, ENTRY_HEADER_BYTES, SECTOR_BYTES, SegmentHeader};
use crate::limits;

/// One segment: readable through an open handle even after its file was removed.
pub(super) struct Segment {
    pub(super) seq: u32,
    pub(super) salt: u32,
    /// Bytes, all of them written before it was used.
    pub(super) len: u64,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn File>,
}

/// Where an entry's header begins, and the length of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) segment: u32,
    pub(super) offset: u32,
    pub(super) len: u32,
}

impl Location {
    /// Bytes with the header.
    pub(super) fn footprint(&self) -> u64 {
        ENTRY_HEADER_BYTES as u64 + u64::from(self.len)
    }

    /// Whether another entry lies directly behind this one.
    pub(super) fn is_followed_by(&self, next: &Location) -> bool {
        self.segment == next.segment && u64::from(self.offset) + self.footprint() == u64::from(next.offset)
    }
}

impl Segment {
    /// Reads entries that lie directly behind one another, in one read, and checks each.
    pub(super) fn read_run(&self, run: &[(u64, Location)]) -> io::Result<Vec<(u64, Bytes)>> {
        let Some((_, first)) = run.first() else { return Ok(Vec::new()) };
        let total: u64 = run.iter().map(|(_, location)| location.footprint()).sum();
        let mut raw = vec![0; usize::try_from(total).expect("a run is far below 4 GiB")];
        self.file.read_at(u64::from(first.offset), &mut raw)?;
        let mut raw = Bytes::from(raw);
        let mut entries = Vec::with_capacity(run.len());
        for (index, location) in run {
            let footprint = usize::try_from(location.footprint()).expect("it is part of the run");
            let entry = raw.split_to(footprint);
            let content = format::entry_content(&entry, *index, self.salt).ok_or_else(|| {
                let sentence = format!("{} is damaged: entry {index} at byte {}", self.path.display(), location.offset);
                io::Error::new(io::ErrorKind::InvalidData, sentence)
            })?;
            entries.push((*index, content));
        }
        Ok(entries)
    }
}

/// Fills this range with zeros, without a flush.
pub(super) fn write_zeros(file: &dyn File, range: Range<u64>) -> io::Result<()> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let mut at = range.start;
    while at < range.end {
        let step = usize::try_from(range.end - at).unwrap_or(usize::MAX).min(ZEROS.len());
        file.write_at(at, &ZEROS[..step])?;
        at += step as u64;
    }
    Ok(())
}

/// The file of a segment.
pub(super) fn path_of(folder: &Path, seq: u32) -> PathBuf {
    folder.join(format!("{seq:016x}.seg"))
}

/// The number in the name of a segment's file; `None` if it is no such name.
pub(super) fn seq_of(path: &Path) -> Option<u32> {
    let digits = path.file_name()?.to_str()?.strip_suffix(".seg")?;
    (digits.len() == 16).then(|| u32::from_str_radix(digits, 16).ok())?
}

/// A file that becomes a segment: filled with zeros, or a former segment. It has no segment's name until then, so a crash leaves
/// nothing that recovery could take for one.
pub(super) struct Blank {
    path: PathBuf,
    file: Arc<dyn File>,
    len: u64,
    filled: u64,
    synced: u64,
    /// Of the segment that it was.
    former_salt: Option<u32>,
}

impl Blank {
    /// Begins one of this many bytes.
    pub(super) fn begin(disk: &dyn Disk, folder: &Path, name: &str, len: u64) -> io::Result<Blank> {
        let path = folder.join(name);
        let file = disk.open(&path)?;
        file.set_len(0)?;
        Ok(Blank { path, file, len, filled: 0, synced: 0, former_salt: None })
    }

    /// Makes one of a segment that nobody needs or reads any longer. Durable when this returns; its content stays, and is
    /// not valid under another salt.
    pub(super) fn recycle(segment: Segment, disk: &dyn Disk, folder: &Path, name: &str) -> io::Result<Blank> {
        let path = folder.join(name);
        disk.rename(&segment.path, &path)?;
        disk.sync_dir(folder)?;
        let Segment { seq: _, salt, len, path: _, file } = segment;
        Ok(Blank { path, file, len, filled: len, synced: len, former_salt: Some(salt) })
    }

    /// The salt for the segment that it becomes. For the same bytes the checksums of two salts always differ; one more than
    /// the former is none that this file has had.
    pub(super) fn salt(&self, random: &dyn Random) -> u32 {
        match self.former_salt {
            Some(former) => former.wrapping_add(1),
            None => u32::try_from(random.next_u64() >> 32).expect("32 bits are left"),
        }
    }

    /// Bytes it will have.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn is_full(&self) -> bool {
        self.filled == self.len
    }

    /// Writes at most this many more zeros. Syncs now and then, so that no single sync is long.
    pub(super) fn fill(&mut self, bytes: u64) -> io::Result<()> {
        let until = self.len.min(self.filled.saturating_add(bytes));
        write_zeros(self.file.as_ref(), self.filled..until)?;
        self.filled = until;
        if self.is_full() || self.filled - self.synced >= limits::FILL_STEP_BYTES {
            self.file.sync_data()?;
            self.synced = self.filled;
        }
        Ok(())
    }

    /// Gives its room back.
    pub(super) fn discard(self, disk: &dyn Disk) -> io::Result<()> {
        disk.remove(&self.path)
    }

    /// Makes it the segment of this header, durably.
    pub(super) fn become_segment(mut self, disk: &dyn Disk, header: SegmentHeader) -> io::Result<Segment> {
        if !self.is_full() {
            self.fill(u64::MAX)?;
        }
        self.file.write_at(0, &header.encode())?;
        self.file.sync_data()?;
        let folder = self.path.parent().expect("it was made in a folder").to_owned();
        let path = path_of(&folder, header.seq);
        disk.rename(&self.path, &path)?;
        disk.sync_dir(&folder)?;
        Ok(Segment { seq: header.seq, salt: header.salt, len: self.len, path, file: self.file })
    }
}

/// The bytes of a segment that holds a batch of this size, at least.
pub(super) fn len_for(segment_bytes: u64, batch: u64) -> u64 {
    segment_bytes.max(SECTOR_BYTES as u64 + batch)
}
