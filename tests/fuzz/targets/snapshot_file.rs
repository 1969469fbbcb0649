//! The file of a snapshot: `coterie_store::Snapshots`.
//!
//! ```text
//! flags u8 | the file        flags: 1 mends all checksums
//! ```
#![no_main]

use std::path::Path;

use coterie_env::Disk as _;
use coterie_fuzz::{DIR, Input, disk_of, mend, still};
use coterie_store::Snapshots;
use coterie_store::snapshots::{Piece, Place};

const FILE: &str = "snap/p.snap";

libfuzzer_sys::fuzz_target!(init: coterie_fuzz::seeds(seeds), |bytes: &[u8]| {
    let mut input = Input(bytes);
    let mended = input.byte() & 1 == 1;
    let mut file = input.0.to_vec();
    if mended {
        mend::snapshot(&mut file);
    }
    let disk = disk_of(&[(FILE, &file)]);
    let snapshots = Snapshots::new(&still(&disk), Path::new(DIR)).expect("the folder is there");
    let Ok(Some(stored)) = snapshots.open("p") else { return };
    let pieces = stored.pieces(Place::default());
    let Ok(pieces) = pieces.collect::<Result<Vec<Piece>, _>>() else { return };
    // Every byte of it counts: what is taken for good is what writing the same makes.
    let again = write(&stored.label().meta, pieces);
    assert!(again == file, "taken, and written as another file");
});

fn write(meta: &[u8], pieces: Vec<Piece>) -> Vec<u8> {
    let disk = disk_of(&[]);
    let snapshots = Snapshots::new(&still(&disk), Path::new(DIR)).expect("make a folder in memory");
    let mut draft = snapshots.begin("p", meta).expect("write in memory");
    for piece in &pieces {
        draft.push(piece).expect("it was read as whole");
    }
    draft.finish().expect("write in memory").publish().expect("rename in memory");
    disk.read(&Path::new(DIR).join(FILE)).expect("it is there")
}

fn seeds() -> Vec<Vec<u8>> {
    let pieces = |count: u64| (0..count).map(|number| Piece::new(number, vec![7; 30 * number as usize])).collect();
    let files = [write(b"", Vec::new()), write(b"meta", pieces(1)), write(b"meta data", pieces(4))];
    files.iter().flat_map(|file| [[&[0], &file[..]].concat(), [&[1], &file[..]].concat()]).collect()
}
