//! The identity of a data directory: `coterie_store::Directory`.
//!
//! ```text
//! flags u8 | the file                              flags: 1 mends all checksums
//! flags u8 | slot, framed | the other slot         2 makes a file of two slots of it
//! ```
#![no_main]

use std::path::Path;

use coterie_env::Disk as _;
use coterie_env::mem::MemDisk;
use coterie_fuzz::{DIR, Input, disk_of, framed, mend, still};
use coterie_store::{Directory, Formation, KnownPeer, Seat};

const SLOT_BYTES: usize = 16 << 10;

libfuzzer_sys::fuzz_target!(init: coterie_fuzz::seeds(seeds), |bytes: &[u8]| {
    let mut input = Input(bytes);
    let flags = input.byte();
    let slots = if flags & 2 == 2 { vec![input.part().unwrap_or_default(), input.0] } else { Vec::new() };
    let mut file = Vec::new();
    for slot in &slots {
        let mut slot = slot.to_vec();
        slot.resize(SLOT_BYTES, 0);
        file.extend(slot);
    }
    if slots.is_empty() {
        file = input.0.to_vec();
    }
    if flags & 1 == 1 {
        let half = if slots.is_empty() { file.len().max(1) } else { SLOT_BYTES };
        file.chunks_mut(half).for_each(mend::frame);
    }
    let disk = disk_of(&[("identity", &file)]);
    let Ok(Some(found)) = Directory::read(&disk, Path::new(DIR)) else { return };
    assert_ne!(found.node_id, 0, "no directory has this identity");
    if found.start_counter == u64::MAX {
        return;
    }
    // The next start reads the same and counts one more.
    drop(Directory::open(&still(&disk), Path::new(DIR), &found.cluster, &found.member).expect("its owner opens it"));
    let next = Directory::read(&disk, Path::new(DIR)).expect("it was opened").expect("it is there");
    assert_eq!((next.node_id, next.start_counter), (found.node_id, found.start_counter + 1));
    assert_eq!((next.formation, next.peers, next.formed), (found.formation, found.peers, found.formed));
});

fn seeds() -> Vec<Vec<u8>> {
    let disk = MemDisk::new();
    let directory = Directory::open(&still(&disk), Path::new(DIR), "default", "member-1").expect("mint one in memory");
    let update = directory.update(|identity| {
        let seats =
            vec![Seat { member: "member-1".into(), node_id: identity.node_id, address: "localhost:5001".into() }];
        identity.formation = Some(Formation { cluster_id: 7, seats });
        identity.peers.insert("member-2".into(), KnownPeer { node_id: 2, start_counter: 3, run: 4 });
    });
    update.expect("write in memory");
    let file = disk.read(&Path::new(DIR).join("identity")).expect("it is there");
    let slot = |at: usize| {
        let slot = &file[at * SLOT_BYTES..(at + 1) * SLOT_BYTES];
        &slot[..slot.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)]
    };
    let two = [framed(slot(0)), slot(1).to_vec()].concat();
    // Version 1: one frame, and what is in it has no number before it.
    let mut single = slot(0).to_vec();
    single.drain(24..32);
    single[8] = 1;
    let len = u32::try_from(single.len() - 24).expect("it is short");
    single[12..16].copy_from_slice(&len.to_le_bytes());
    vec![[&[2], &two[..]].concat(), [&[3], &two[..]].concat(), [&[1], &single[..]].concat()]
}
