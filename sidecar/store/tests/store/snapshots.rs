//! Snapshots are whole, or refused.

use std::io;
use std::path::Path;

use coterie_env::Disk;
use coterie_env::mem::MemDisk;
use coterie_store::Snapshots;
use coterie_store::limits::{SNAPSHOT_FREE_BYTES, SNAPSHOT_SYNC_BYTES};
use coterie_store::snapshots::{Draft, Finished, Label, Piece, Place, Stored};

use super::support::*;

fn open_snapshots(disk: &MemDisk) -> Snapshots {
    Snapshots::new(&env(disk, 1), Path::new(DIR)).unwrap()
}

fn files(disk: &MemDisk) -> Vec<String> {
    let files = disk.list(&Path::new(DIR).join("snap")).unwrap();
    files.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
}

fn push(draft: &mut Draft, pieces: &[Vec<u8>]) -> io::Result<()> {
    for piece in pieces {
        let number = draft.label().pieces;
        draft.push(&Piece::new(number, piece.clone()))?;
    }
    Ok(())
}

fn finish(snapshots: &Snapshots, partition: &str, meta: &[u8], pieces: &[Vec<u8>]) -> io::Result<Finished> {
    let mut draft = snapshots.begin(partition, meta)?;
    push(&mut draft, pieces)?;
    draft.finish()
}

fn save(snapshots: &Snapshots, partition: &str, meta: &[u8], pieces: &[Vec<u8>]) -> io::Result<Stored> {
    finish(snapshots, partition, meta, pieces)?.publish()
}

type Content = (Vec<u8>, Vec<Vec<u8>>);

/// Everything of it, checked.
fn read(stored: &Stored) -> io::Result<Content> {
    let pieces: io::Result<Vec<Piece>> = stored.pieces(Place::default()).collect();
    Ok((stored.label().meta.clone(), pieces?.into_iter().map(|piece| piece.bytes.to_vec()).collect()))
}

fn load(snapshots: &Snapshots, partition: &str) -> io::Result<Option<Content>> {
    snapshots.open(partition)?.map(|stored| read(&stored)).transpose()
}

fn of(bytes: &[u8], pieces: usize) -> Vec<Vec<u8>> {
    (0..pieces).map(|number| [bytes, &[u8::try_from(number).unwrap()]].concat()).collect()
}

#[test]
fn a_snapshot_is_read_as_it_was_written_and_replaced_as_a_whole() {
    let disk = disk();
    let snapshots = open_snapshots(&disk);
    assert!(snapshots.open("data-1").unwrap().is_none());
    save(&snapshots, "data-1", b"meta", &of(b"data", 3)).unwrap();
    save(&snapshots, "data/1", b"", &[]).unwrap();
    let old = snapshots.open("data-1").unwrap().unwrap();
    let newer = save(&snapshots, "data-1", b"newer", &of(b"state", 2)).unwrap();
    assert_eq!(read(&newer).unwrap(), (b"newer".to_vec(), of(b"state", 2)));
    assert_eq!(read(&old).unwrap(), (b"meta".to_vec(), of(b"data", 3)), "whoever reads it keeps it");
    disk.crash();
    let snapshots = open_snapshots(&disk);
    assert_eq!(load(&snapshots, "data-1").unwrap(), Some((b"newer".to_vec(), of(b"state", 2))));
    assert_eq!(load(&snapshots, "data/1").unwrap(), Some((vec![], vec![])));
    let stored = snapshots.open("data-1").unwrap().unwrap();
    assert_eq!(stored.len(), disk.read(&Path::new(DIR).join("snap/data-1.snap")).unwrap().len() as u64);
    snapshots.begin("data-1", b"half").unwrap();
    live(async {
        snapshots.remove("data-1").unwrap();
        snapshots.remove("data-1").unwrap();
    });
    disk.crash();
    assert!(open_snapshots(&disk).open("data-1").unwrap().is_none());
    assert_eq!(files(&disk), ["data%2f1.snap"]);
}

#[test]
fn wherever_the_power_goes_there_is_the_old_snapshot_or_the_new_one() {
    for calls in 0..16 {
        for seed in 0..8 {
            let disk = disk();
            let snapshots = open_snapshots(&disk);
            save(&snapshots, "p", b"old", &[vec![1; 2000]]).unwrap();
            disk.power_off_after(calls);
            let is_saved = save(&snapshots, "p", b"new", &[vec![2; 2000], vec![3; 3000]]).is_ok();
            disk.crash_torn(seed);
            let (meta, pieces) = load(&open_snapshots(&disk), "p").unwrap().unwrap();
            match meta.as_slice() {
                b"new" => assert_eq!(pieces, [vec![2; 2000], vec![3; 3000]]),
                _ => assert!(!is_saved && meta == b"old" && pieces == [vec![1; 2000]], "{calls} calls, seed {seed}"),
            }
            assert_eq!(files(&disk), ["p.snap"], "nothing half made is left");
        }
    }
}

#[test]
fn a_snapshot_that_is_damaged_or_cut_anywhere_is_refused() {
    let disk = disk();
    let snapshots = open_snapshots(&disk);
    save(&snapshots, "p", b"meta", &of(b"data", 3)).unwrap();
    let file = Path::new(DIR).join("snap/p.snap");
    let whole = disk.read(&file).unwrap();
    for byte in 0..whole.len() {
        let damaged = disk.fork();
        damaged.corrupt(&file, byte as u64).unwrap();
        let cut = disk.fork();
        cut.open(&file).unwrap().set_len(byte as u64).unwrap();
        let grown = disk.fork();
        grown.open(&file).unwrap().write_at(byte as u64, &[&[0], &whole[byte..]].concat()).unwrap();
        for (disk, what) in [(damaged, "damaged"), (cut, "cut"), (grown, "grown")] {
            let error = load(&open_snapshots(&disk), "p").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{what} at {byte}: {error}");
            let other = error.to_string().contains("run the newer program");
            assert!(error.to_string().contains("is damaged") || (other && what != "cut"), "{what} at {byte}: {error}");
        }
    }
}

#[test]
fn a_snapshot_of_a_newer_program_is_refused_and_not_to_be_emptied() {
    let disk = disk();
    let snapshots = open_snapshots(&disk);
    save(&snapshots, "p", b"meta", &of(b"data", 3)).unwrap();
    let file = Path::new(DIR).join("snap/p.snap");
    overwrite(&disk, &file, 8, &7_u32.to_le_bytes());
    let refused = load(&snapshots, "p").unwrap_err().to_string();
    assert!(refused.contains("has version 7, and this program reads up to 2; run the newer program"), "{refused}");
    assert!(!refused.contains("empty"), "{refused}");
}

#[test]
fn nothing_behind_a_damaged_piece_is_given() {
    let disk = disk();
    let snapshots = open_snapshots(&disk);
    let stored = save(&snapshots, "p", b"meta", &of(b"data", 3)).unwrap();
    let file = Path::new(DIR).join("snap/p.snap");
    let end = disk.read(&file).unwrap().len() as u64 - 44;
    // In the second piece of three, of 13 bytes each.
    disk.corrupt(&file, end - 13 - 2).unwrap();
    let mut pieces = stored.pieces(Place::default());
    assert_eq!(pieces.next().unwrap().unwrap().bytes, [b"data".as_slice(), &[0]].concat());
    assert!(pieces.next().unwrap().unwrap_err().to_string().contains("piece 1"));
    assert!(pieces.next().is_none());
}

#[test]
fn pieces_that_are_damaged_repeated_or_left_out_are_not_written() {
    let disk = disk();
    let snapshots = open_snapshots(&disk);
    let stored = save(&snapshots, "p", b"meta", &of(b"data", 3)).unwrap();
    let pieces: Vec<Piece> = stored.pieces(Place::default()).map(Result::unwrap).collect();
    let mut draft = snapshots.begin("p", b"meta").unwrap();
    draft.push(&pieces[0]).unwrap();
    let mut damaged = pieces[1].clone();
    damaged.bytes = b"dbta\x01".as_slice().into();
    for wrong in [&pieces[0], &pieces[2], &damaged] {
        assert_eq!(draft.push(wrong).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
    for piece in &pieces[1..] {
        draft.push(piece).unwrap();
    }
    assert_eq!(draft.label(), stored.label(), "the same pieces are the same snapshot");
    let finished = draft.finish().unwrap();
    assert_eq!(read(finished.stored()).unwrap(), read(&stored).unwrap());
    finished.discard().unwrap();
    assert_eq!(files(&disk), ["p.snap"]);
}

#[test]
fn pieces_are_read_from_any_place_on() {
    let disk = disk();
    let snapshots = open_snapshots(&disk);
    let pieces = of(b"data", 5);
    let stored = save(&snapshots, "p", b"meta", &pieces).unwrap();
    let mut draft = snapshots.begin("q", b"meta").unwrap();
    for from in 0..=pieces.len() {
        let place = draft.durable().unwrap();
        let rest: Vec<_> = stored.pieces(place).map(|piece| piece.unwrap().bytes).collect();
        assert_eq!(rest, pieces[from..]);
        push(&mut draft, &pieces[from..pieces.len().min(from + 1)]).unwrap();
    }
    let nowhere = Place { pieces: 2, bytes: 3 };
    assert!(stored.pieces(nowhere).next().unwrap().is_err());
}

#[test]
fn what_is_written_is_synced_as_it_grows() {
    let disk = disk();
    let snapshots = open_snapshots(&disk);
    let mut draft = snapshots.begin("p", b"meta").unwrap();
    let before = disk.syncs();
    let piece = usize::try_from(SNAPSHOT_SYNC_BYTES / 4).unwrap();
    push(&mut draft, &vec![vec![7; piece]; 12]).unwrap();
    assert_eq!(disk.syncs() - before, 3);
    let Label { pieces, bytes, .. } = *draft.label();
    assert_eq!(draft.durable().unwrap(), Place { pieces, bytes });
    assert_eq!(disk.syncs() - before, 3, "all of it was synced");
}

#[test]
fn what_was_replaced_is_given_back_step_by_step_once_nobody_reads_it() {
    let disk = disk();
    let snapshots = open_snapshots(&disk);
    let large = vec![vec![7; usize::try_from(SNAPSHOT_FREE_BYTES / 2).unwrap()]; 6];
    live(async {
        let old = save(&snapshots, "p", b"old", &large).unwrap();
        let reader = old.clone();
        let new = save(&snapshots, "p", b"new", &of(b"x", 2)).unwrap();
        old.replaced();
        drop(old);
        let before = disk.syncs();
        tokio::task::yield_now().await;
        assert_eq!(disk.syncs(), before, "somebody reads it");
        assert_eq!(read(&reader).unwrap().1, large);
        drop(reader);
        tokio::task::yield_now().await;
        assert_eq!(disk.syncs() - before, 4, "three steps of what it holds, and one of its frames");
        assert_eq!(read(&new).unwrap().1, of(b"x", 2));
        drop(new);

        save(&snapshots, "q", b"gone", &large).unwrap();
        let before = disk.syncs();
        snapshots.remove("q").unwrap();
        assert_eq!(files(&disk), ["p.snap"]);
        tokio::task::yield_now().await;
        assert_eq!(disk.syncs() - before, 4, "and so is what was removed");
        snapshots.remove("q").unwrap();
    });
    assert_eq!(load(&snapshots, "p").unwrap().unwrap().0, b"new");
}
