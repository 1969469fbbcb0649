//! Checksums that are right again, as if a program had written what chance did: so a fuzzer comes past them. What is damaged
//! as disks damage it is the other half of the inputs, which nobody mends.

/// Bytes of a frame of `coterie-store` before its body.
const FRAME_BYTES: usize = 24;
const SECTOR: usize = 512;
const BATCH_BYTES: usize = 20;

fn number(bytes: &[u8], at: usize) -> usize {
    bytes.get(at..at + 4).map_or(0, |bytes| u32::from_le_bytes(bytes.try_into().expect("four bytes")) as usize)
}

fn put(bytes: &mut [u8], at: usize, number: u32) {
    if let Some(place) = bytes.get_mut(at..at + 4) {
        place.copy_from_slice(&number.to_le_bytes());
    }
}

/// The frame at the start of `bytes` (`sidecar/store/src/sealed.rs`): its checksum, where the length that it says is there.
pub fn frame(bytes: &mut [u8]) {
    let body = number(bytes, 12);
    if let Some(body) = bytes.get(FRAME_BYTES..FRAME_BYTES.saturating_add(body)) {
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..20]), body);
        put(bytes, 20, checksum);
    }
}

/// A segment of the log (`sidecar/store/src/log/format.rs`): its header, and whatever begins as a batch at a sector.
pub fn segment(bytes: &mut [u8]) {
    if bytes.len() < SECTOR {
        return;
    }
    let header = crc32c::crc32c(&bytes[..32]);
    put(bytes, 32, header);
    let salt = u32::try_from(number(bytes, 20)).expect("it was one");
    for at in (SECTOR..bytes.len()).step_by(SECTOR) {
        let batch = &bytes[at..];
        let end = BATCH_BYTES.saturating_add(number(batch, 4));
        if batch.starts_with(b"BATH")
            && let Some(records) = batch.get(BATCH_BYTES..end)
        {
            let checksum = crc32c::crc32c_append(crc32c::crc32c_append(salt, &batch[..16]), records);
            put(bytes, at + 16, checksum);
        }
    }
}

/// The file of a snapshot (`sidecar/store/src/snapshots/format.rs`): its head, its pieces, and an end that names them.
pub fn snapshot(bytes: &mut [u8]) {
    const END_BYTES: usize = FRAME_BYTES + 20;
    frame(bytes);
    let Some(end) = bytes.len().checked_sub(END_BYTES) else { return };
    let (mut at, mut pieces, mut all) = (FRAME_BYTES.saturating_add(number(bytes, 12)), 0_u64, 0);
    while at + 8 <= end {
        let len = number(bytes, at);
        let Some(piece) = bytes[..end].get(at + 8..(at + 8).saturating_add(len)) else { break };
        let head = crc32c::crc32c_append(crc32c::crc32c(&pieces.to_le_bytes()), &(len as u64).to_le_bytes());
        let checksum = crc32c::crc32c_append(head, piece);
        put(bytes, at + 4, checksum);
        all = crc32c::crc32c_append(all, &checksum.to_le_bytes());
        (at, pieces) = (at + 8 + len, pieces + 1);
    }
    put(bytes, end + FRAME_BYTES + 16, all);
    frame(&mut bytes[end..]);
}
