//! What a start makes of damaged files.

use std::ops::Range;
use std::path::{Path, PathBuf};

use coterie_env::Disk;
use coterie_env::mem::MemDisk;
use coterie_store::Log;
use coterie_store::log::Error;

use super::support::*;

/// A log whose last segment ends with three batches, of which the last has three sectors.
struct ThreeBatches {
    disk: MemDisk,
    segment: PathBuf,
    /// What the segment held before the last batch was written.
    before: Vec<u8>,
    /// The three.
    batches: Vec<Range<usize>>,
}

/// In a new file, and in one that was a segment before and held valid batches of the same partition and indexes.
fn three_batches() -> [ThreeBatches; 2] {
    let new = disk();
    live(async { open(&new).unwrap().close().await });
    [new, disk_with_recycled_segment()].map(|disk| {
        let segment = segments(&disk).pop().unwrap();
        live(async {
            let log = open_unrepaired(&disk, &segment, &disk.read(&segment).unwrap());
            let partition = log.partition("p");
            append(&partition, 1..=2).await.unwrap();
            append(&partition, 3..=4).await.unwrap();
            log.close().await;
        });
        let before = disk.read(&segment).unwrap();
        live(async {
            let log = open_unrepaired(&disk, &segment, &before);
            let last = vec![(5, bytes([b'x'; 600])), (6, bytes([b'y'; 600]))];
            append_now(&log.partition("p"), last).await.unwrap().unwrap();
            log.close().await;
        });
        let mut batches = batches(&disk.read(&segment).unwrap());
        let batches = batches.split_off(batches.len() - 3);
        assert_eq!(segments(&disk).pop().unwrap(), segment, "all in one segment");
        let was_there = before[batches[2].clone()].iter().any(|byte| *byte != 0);
        assert_eq!(was_there, !segment.ends_with("0000000000000001.seg"), "only a recycled file holds something");
        ThreeBatches { disk, segment, before, batches }
    })
}

/// Opens a log whose start would clear what lies behind the end, with that put back: as if it had never been closed.
fn open_unrepaired(disk: &MemDisk, segment: &Path, content: &[u8]) -> Log {
    let log = open(disk).unwrap();
    overwrite(disk, segment, 0, content);
    log
}

/// A log without entries whose last segment was one before.
fn disk_with_recycled_segment() -> MemDisk {
    let disk = disk();
    live(async {
        let log = open(&disk).unwrap();
        // Many small batches, and the same with others.
        for index in 1..=12 {
            append(&log.partition("p"), index..=index).await.unwrap();
        }
        log.remove_partition("p").await.unwrap();
        until(|| segments(&disk).len() == 1 && disk.read(Path::new("/data/wal/recycled.tmp")).is_ok()).await;
        let before = segments(&disk);
        while segments(&disk) == before {
            log.partition("v").save_vote(bytes("vote")).await.unwrap();
        }
        log.close().await;
        let content = disk.read(&segments(&disk).pop().unwrap()).unwrap();
        let former = all_batches(&content).count() - batches(&content).len();
        assert!(former >= 5, "the file was a segment before, and {former} of its batches are there");
    });
    disk
}

fn recovered(disk: &MemDisk) -> Vec<u64> {
    live(async { indexes(&open(disk).unwrap().partition("p")) })
}

#[test]
fn what_a_recycled_file_held_is_not_there_whatever_is_written_over_it() {
    let disk = disk_with_recycled_segment();
    let (segment, content) = live(async {
        let segment = segments(&disk).pop().unwrap();
        let content = disk.read(&segment).unwrap();
        let log = open_unrepaired(&disk, &segment, &content);
        assert!(indexes(&log.partition("p")).is_empty());
        (segment, content)
    });
    // As many crashes as there is room for, each after one more batch, with what was there before behind it.
    overwrite(&disk, &segment, 0, &content);
    for round in 1..=3 {
        assert_eq!(recovered(&disk.fork()), (1..round).collect::<Vec<_>>());
        live(async {
            let held = disk.read(&segment).unwrap();
            let log = open_unrepaired(&disk, &segment, &held);
            append(&log.partition("p"), round..=round).await.unwrap();
        });
        disk.crash();
        assert_eq!(recovered(&disk.fork()), (1..=round).collect::<Vec<_>>());
    }
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_and_the_log_goes_on() {
    for ThreeBatches { disk: original, segment, before, batches } in three_batches() {
        let last = batches[2].clone();
        assert!(last.len() > 1024);
        for byte in last.clone() {
            // Written up to this byte only; and written whole, with this byte wrong.
            let cut = original.fork();
            overwrite(&cut, &segment, byte, &before[byte..last.end]);
            let flipped = original.fork();
            flipped.corrupt(&segment, byte as u64).unwrap();
            let is_changed = before[byte..last.end] != original.read(&segment).unwrap()[byte..last.end];
            for disk in [is_changed.then_some(cut), Some(flipped)].into_iter().flatten() {
                live(async {
                    let log = open(&disk).unwrap();
                    let partition = log.partition("p");
                    assert_eq!(indexes(&partition), [1, 2, 3, 4], "byte {byte}");
                    append(&partition, 5..=5).await.unwrap();
                });
                disk.crash();
                assert_eq!(recovered(&disk), [1, 2, 3, 4, 5], "byte {byte}");
            }
        }
    }
}

#[test]
fn a_tail_that_misses_any_sectors_is_cut() {
    for ThreeBatches { disk: original, segment, before, batches } in three_batches() {
        let last = batches[2].clone();
        let sectors: Vec<_> = (last.start..last.end).step_by(512).collect();
        for missing in 1..1_u32 << sectors.len() {
            let disk = original.fork();
            for (position, sector) in sectors.iter().enumerate() {
                if missing & (1 << position) != 0 {
                    overwrite(&disk, &segment, *sector, &before[*sector..sector + 512]);
                }
            }
            assert_eq!(recovered(&disk), [1, 2, 3, 4], "missing sectors {missing:b}");
        }
    }
}

#[test]
fn damage_before_a_later_batch_is_refused_and_says_where() {
    for ThreeBatches { disk: original, segment, batches, .. } in three_batches() {
        let damaged = batches[1].clone();
        for byte in damaged.clone() {
            let disk = original.fork();
            disk.corrupt(&segment, byte as u64).unwrap();
            let before = disk.read(&segment).unwrap();
            match live(async { open(&disk) }).err() {
                Some(error @ Error::Damaged { .. }) => {
                    let sentence = error.to_string();
                    assert!(sentence.contains(segment.to_str().unwrap()), "{sentence}");
                    assert!(sentence.contains(&format!("byte {}", damaged.start)), "{sentence}");
                    assert!(sentence.contains("empty its data directory"), "{sentence}");
                }
                other => panic!("byte {byte}: {other:?}"),
            }
            assert_eq!(disk.read(&segment).unwrap(), before, "nothing is changed");
        }
    }
}

/// A log of several segments.
fn several_segments() -> MemDisk {
    let disk = disk();
    live(async {
        let log = open(&disk).unwrap();
        for index in 1..=20 {
            append_now(&log.partition("p"), vec![(index, bytes([1; 700]))]).await.unwrap().unwrap();
        }
        log.close().await;
    });
    assert!(segments(&disk).len() >= 4);
    disk
}

#[test]
fn a_damaged_end_of_an_earlier_segment_is_refused() {
    let disk = several_segments();
    let segment = &segments(&disk)[1];
    let last = batches(&disk.read(segment).unwrap()).pop().unwrap();
    disk.corrupt(segment, last.end as u64 - 1).unwrap();
    match live(async { open(&disk) }).err() {
        Some(Error::Damaged { segment: found, offset, .. }) => {
            assert_eq!((&found, offset), (segment, last.start as u64));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_batch_that_vanished_from_an_earlier_segment_is_noticed() {
    let disk = several_segments();
    let segment = &segments(&disk)[1];
    let last = batches(&disk.read(segment).unwrap()).pop().unwrap();
    overwrite(&disk, segment, last.start, &vec![0; last.len()]);
    let error = live(async { open(&disk) }).err().unwrap();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
}

#[test]
fn a_missing_segment_is_noticed() {
    let disk = several_segments();
    disk.remove(&segments(&disk)[2]).unwrap();
    let error = live(async { open(&disk) }).err().unwrap();
    assert!(error.to_string().contains("before it is missing"), "{error}");
}

#[test]
fn a_damaged_header_is_refused_and_a_newer_version_says_so() {
    let disk = several_segments();
    let newest = segments(&disk).pop().unwrap();
    let newer = disk.fork();
    disk.corrupt(&newest, 3).unwrap();
    assert!(matches!(live(async { open(&disk) }).err(), Some(Error::Damaged { offset: 0, .. })));
    let mut header = newer.read(&newest).unwrap()[..32].to_vec();
    header[8] = 9;
    let crc = crc32c::crc32c(&header);
    header.extend_from_slice(&crc.to_le_bytes());
    overwrite(&newer, &newest, 0, &header);
    assert!(matches!(live(async { open(&newer) }).err(), Some(Error::Version { found: 9, supported: 2, .. })));
}

#[test]
fn an_entry_that_rots_while_the_log_is_open_is_not_served() {
    let disk = several_segments();
    live(async {
        let log = open(&disk).unwrap();
        let segment = &segments(&disk)[0];
        let first = batches(&disk.read(segment).unwrap())[0].clone();
        disk.corrupt(segment, first.end as u64 - 1).unwrap();
        let error = log.partition("p").read(1..=1, 10).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
        assert!(error.to_string().contains("is damaged"), "{error}");
        assert!(!log.healthy());
    });
}

#[test]
fn what_a_crashed_process_left_in_the_systems_memory_is_made_durable_before_it_is_served() {
    let disk = disk();
    live(async { append(&open(&disk).unwrap().partition("p"), 1..=1).await.unwrap() });
    let segment = segments(&disk)[0].clone();
    let content = disk.read(&segment).unwrap();
    let batch = batches(&content)[0].clone();
    // The batch is on the disk no more, but still in the memory of the system.
    overwrite(&disk, &segment, batch.start, &[0; 512]);
    disk.open(&segment).unwrap().write_at(batch.start as u64, &content[batch.clone()]).unwrap();
    assert_eq!(recovered(&disk), [1]);
    disk.crash();
    assert_eq!(recovered(&disk), [1]);
}

#[test]
fn inspection_reads_and_changes_nothing() {
    let [ThreeBatches { disk, segment, batches, .. }, _] = three_batches();
    let segment = &segment;
    disk.corrupt(segment, batches[2].end as u64 - 1).unwrap();
    let before = disk.read(segment).unwrap();
    let found = Log::inspect(&env(&disk, 1), Path::new(DIR)).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].partition.as_str(), found[0].state.last), ("p", Some(4)));
    assert_eq!(disk.read(segment).unwrap(), before);
    assert!(Log::inspect(&env(&MemDisk::new(), 1), Path::new("/nowhere")).unwrap().is_empty());
}
