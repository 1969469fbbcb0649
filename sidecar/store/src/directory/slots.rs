//! The identity's file: two slots of one size, both with the newest identity unless a crash came between them.
//!
//! ```text
//! slot: frame (sealed) of: number of the writing u64 | identity ‖ zeros      slot: the same
//! ```
//!
//! An update overwrites the slots one after the other and syncs each, the worse one first: one that does not open, or
//! whose number is lower. So one whole slot is there at any moment, and the blocks of the file stay what they are: on a
//! full volume an update needs no room. Only an identity that outgrows its slot, or one of version 1, is replaced as a
//! file.

use std::io;
use std::path::Path;

use coterie_env::{Disk, disk};

use super::{Damage, Identity, VERSION};
use crate::sealed;

const MAGIC: [u8; 8] = *b"coterie\x01";
/// The smallest slot: a few hundred members fit it.
const SLOT_BYTES_MIN: usize = 16 << 10;

/// What a slot holds.
struct Slot {
    number: u64,
    identity: Identity,
}

/// The identity in a file of either version.
pub(super) fn read(bytes: &[u8]) -> Result<Identity, Damage> {
    if is_single(bytes) {
        let (_version, body) = sealed::open(MAGIC, 1, bytes)?;
        return checked(body);
    }
    let [first, second] = open(bytes)?;
    match (first, second) {
        (Ok(first), Ok(second)) => Ok(if first.number >= second.number { first } else { second }.identity),
        (Ok(slot), Err(_)) | (Err(_), Ok(slot)) => Ok(slot.identity),
        (Err(damage), Err(_)) => Err(damage),
    }
}

/// Makes an identity durable. On an error the file holds the old one or the new one.
pub(super) fn write(disk: &dyn Disk, path: &Path, identity: &Identity) -> io::Result<()> {
    let bytes = match disk.read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        read => read?,
    };
    let numbers = open(&bytes).ok().map(|slots| slots.map(|slot| slot.ok().map(|slot| slot.number)));
    let [first, second] = numbers.unwrap_or_default();
    let number = first.max(second).unwrap_or(0) + 1;
    let mut body = number.to_le_bytes().to_vec();
    body.extend(postcard::to_allocvec(identity).expect("an identity has no type that postcard refuses"));
    let mut sealed = sealed::seal(MAGIC, VERSION, &body);
    let slot_bytes = bytes.len() / 2;
    if first.max(second).is_none() || sealed.len() > slot_bytes {
        // Room to grow to twice as much.
        sealed.resize((2 * sealed.len()).next_power_of_two().max(SLOT_BYTES_MIN), 0);
        return disk::replace(disk, path, &sealed.repeat(2));
    }
    let file = disk.open(path)?;
    // `None` is less than any number.
    let order = if first <= second { [0, slot_bytes] } else { [slot_bytes, 0] };
    for offset in order {
        file.write_at(offset as u64, &sealed)?;
        file.sync_data()?;
    }
    Ok(())
}

/// Whether it is a file of version 1: one frame and nothing else. A slot is longer than what is in it.
fn is_single(bytes: &[u8]) -> bool {
    bytes.len() < 2 * SLOT_BYTES_MIN || sealed::open(MAGIC, 1, bytes).is_ok()
}

fn open(bytes: &[u8]) -> Result<[Result<Slot, Damage>; 2], Damage> {
    if !bytes.len().is_multiple_of(2) || !(bytes.len() / 2).is_power_of_two() || bytes.len() / 2 < SLOT_BYTES_MIN {
        return Err(Damage::Slots(bytes.len() as u64));
    }
    let (first, second) = bytes.split_at(bytes.len() / 2);
    Ok([slot(first), slot(second)])
}

fn slot(bytes: &[u8]) -> Result<Slot, Damage> {
    let (_version, body) = sealed::open_first(MAGIC, VERSION, bytes)?;
    let Some((number, identity)) = body.split_first_chunk::<8>() else {
        return Err(Damage::Slots(body.len() as u64));
    };
    Ok(Slot { number: u64::from_le_bytes(*number), identity: checked(identity)? })
}

fn checked(body: &[u8]) -> Result<Identity, Damage> {
    let identity: Identity = postcard::from_bytes(body).map_err(Damage::Content)?;
    match identity.node_id {
        0 => Err(Damage::NoNode),
        _ => Ok(identity),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use std::path::PathBuf;

    use coterie_env::mem::MemDisk;

    use super::*;

    fn identity(peers: u64) -> Identity {
        let peer = super::super::KnownPeer { node_id: 1, start_counter: 2, run: 3 };
        Identity {
            version: 1,
            cluster: "default".into(),
            cluster_id: Some(7),
            member: "member-1".into(),
            node_id: 5,
            start_counter: 4,
            formation: None,
            formed: true,
            peers: (0..peers).map(|number| (format!("member-{number:032}"), peer)).collect(),
        }
    }

    fn file() -> PathBuf {
        PathBuf::from("identity")
    }

    #[test]
    fn a_file_of_version_1_is_read_and_becomes_two_slots() {
        let disk = MemDisk::new();
        let old = identity(3);
        let sealed = sealed::seal(MAGIC, 1, &postcard::to_allocvec(&old).unwrap());
        disk::replace(&disk, &file(), &sealed).unwrap();
        assert_eq!(read(&disk.read(&file()).unwrap()).unwrap(), old);
        write(&disk, &file(), &Identity { start_counter: 5, ..old.clone() }).unwrap();
        let bytes = disk.read(&file()).unwrap();
        assert_eq!((bytes.len(), read(&bytes).unwrap().start_counter), (2 * SLOT_BYTES_MIN, 5));
    }

    #[test]
    fn an_update_needs_no_room_and_one_that_outgrows_its_slot_gets_larger_ones() {
        let disk = MemDisk::new();
        write(&disk, &file(), &identity(3)).unwrap();
        disk.set_capacity(0);
        write(&disk, &file(), &identity(40)).unwrap();
        assert_eq!(read(&disk.read(&file()).unwrap()).unwrap(), identity(40));
        let error = write(&disk, &file(), &identity(1000)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(read(&disk.read(&file()).unwrap()).unwrap(), identity(40));
        disk.set_capacity(u64::MAX);
        write(&disk, &file(), &identity(1000)).unwrap();
        assert_eq!(read(&disk.read(&file()).unwrap()).unwrap(), identity(1000));
    }

    #[test]
    fn damage_of_one_slot_loses_nothing_and_the_next_update_heals_it() {
        let disk = MemDisk::new();
        write(&disk, &file(), &identity(3)).unwrap();
        for (start, slot) in [(8, 0), (9, 1)] {
            let now = Identity { start_counter: start, ..identity(3) };
            write(&disk, &file(), &now).unwrap();
            disk.corrupt(&file(), (slot * SLOT_BYTES_MIN + 40) as u64).unwrap();
            assert_eq!(read(&disk.read(&file()).unwrap()).unwrap(), now);
        }
    }
}
