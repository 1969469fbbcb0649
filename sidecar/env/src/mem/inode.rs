//! The content of one file in memory.

use std::io;

use super::below;
use crate::random::Random;

/// What a disk writes in one piece.
const SECTOR_BYTES: usize = 512;

/// What is seen, what is durable, and the writes between the two.
#[derive(Clone, Default)]
pub(super) struct Inode {
    seen: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Write>,
}

#[derive(Clone)]
enum Write {
    Bytes { offset: usize, bytes: Vec<u8> },
    Len(usize),
}

impl Write {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Write::Bytes { offset, bytes } => {
                let end = offset + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*offset..end].copy_from_slice(bytes);
            }
            Write::Len(len) => content.resize(*len, 0),
        }
    }
}

impl Inode {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.seen
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.push(Write::Bytes { offset: position(offset)?, bytes: bytes.to_vec() });
        Ok(())
    }

    pub(super) fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.push(Write::Len(position(len)?));
        Ok(())
    }

    fn push(&mut self, write: Write) {
        write.apply(&mut self.seen);
        self.unsynced.push(write);
    }

    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let offset = position(offset)?;
        let found = offset.checked_add(buffer.len()).and_then(|end| self.seen.get(offset..end));
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    pub(super) fn sync(&mut self) {
        for write in self.unsynced.drain(..) {
            write.apply(&mut self.durable);
        }
    }

    pub(super) fn crash(&mut self) {
        self.unsynced.clear();
        self.seen.clone_from(&self.durable);
    }

    /// Each unsynced write is kept, lost, or kept in some of its sectors.
    pub(super) fn crash_torn(&mut self, chance: &dyn Random) {
        for write in std::mem::take(&mut self.unsynced) {
            match (below(chance, 3), &write) {
                (0, _) => {}
                (1, _) | (_, Write::Len(_)) => write.apply(&mut self.durable),
                (_, Write::Bytes { offset, bytes }) => {
                    for piece in sectors(*offset, bytes) {
                        if below(chance, 2) == 0 {
                            piece.apply(&mut self.durable);
                        }
                    }
                }
            }
        }
        self.seen.clone_from(&self.durable);
    }

    pub(super) fn corrupt(&mut self, offset: u64) -> io::Result<()> {
        let offset = position(offset)?;
        for content in [&mut self.seen, &mut self.durable] {
            let byte = content.get_mut(offset).ok_or(io::ErrorKind::UnexpectedEof)?;
            *byte = !*byte;
        }
        Ok(())
    }
}

/// A write in pieces, none of which crosses the boundary of a sector.
fn sectors(offset: usize, bytes: &[u8]) -> Vec<Write> {
    let mut pieces = Vec::new();
    let mut start = 0;
    while start < bytes.len() {
        let room = SECTOR_BYTES - (offset + start) % SECTOR_BYTES;
        let end = bytes.len().min(start + room);
        pieces.push(Write::Bytes { offset: offset + start, bytes: bytes[start..end].to_vec() });
        start = end;
    }
    pieces
}

fn position(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))
}
