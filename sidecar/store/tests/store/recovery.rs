//! What a start makes of damaged files.

use std::path::Path;

use coterie_env::Disk;
use coterie_env::mem::MemDisk;
use coterie_store::Log;
use coterie_store::log::Error;

use super::support::*;

/// A log of one segment with three batches, of which the last has three sectors.
fn three_batches() -> MemDisk {
    let disk = disk();
    live(async {
        let log = open(&disk).unwrap();
        let partition = log.partition("p");
        append(&partition, 1..=2).await.unwrap();
        append(&partition, 3..=4).await.unwrap();
        append_now(&partition, vec![(5, bytes([b'x'; 600])), (6, bytes([b'y'; 600]))]).await.unwrap().unwrap();
        log.close().await;
    });
    disk
}

fn recovered(disk: &MemDisk) -> Vec<u64> {
    live(async { indexes(&open(disk).unwrap().partition("p")) })
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_and_the_log_goes_on() {
    let original = three_batches();
    let segment = &segments(&original)[0];
    let content = original.read(segment).unwrap();
    let last = batches(&content)[2].clone();
    assert!(last.len() > 1024);
    for byte in last.clone() {
        // Written up to this byte only; and written whole, with this byte wrong.
        let cut = original.fork();
        overwrite(&cut, segment, byte, &vec![0; last.end - byte]);
        let flipped = original.fork();
        flipped.corrupt(segment, byte as u64).unwrap();
        for disk in [cut, flipped] {
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

#[test]
fn a_tail_that_misses_any_sectors_is_cut() {
    let original = three_batches();
    let segment = &segments(&original)[0];
    let last = batches(&original.read(segment).unwrap())[2].clone();
    let sectors: Vec<_> = (last.start..last.end).step_by(512).collect();
    for missing in 1..1_u32 << sectors.len() {
        let disk = original.fork();
        for (position, sector) in sectors.iter().enumerate() {
            if missing & (1 << position) != 0 {
                overwrite(&disk, segment, *sector, &[0; 512]);
            }
        }
        assert_eq!(recovered(&disk), [1, 2, 3, 4], "missing sectors {missing:b}");
    }
}

#[test]
fn damage_before_a_later_batch_is_refused_and_says_where() {
    let original = three_batches();
    let segment = &segments(&original)[0];
    let damaged = batches(&original.read(segment).unwrap())[1].clone();
    for byte in damaged.clone() {
        let disk = original.fork();
        disk.corrupt(segment, byte as u64).unwrap();
        let before = disk.read(segment).unwrap();
        match live(async { open(&disk) }).err() {
            Some(error @ Error::Damaged { .. }) => {
                let sentence = error.to_string();
                assert!(sentence.contains(segment.to_str().unwrap()), "{sentence}");
                assert!(sentence.contains(&format!("byte {}", damaged.start)), "{sentence}");
                assert!(sentence.contains("empty its data directory"), "{sentence}");
            }
            other => panic!("byte {byte}: {other:?}"),
        }
        assert_eq!(disk.read(segment).unwrap(), before, "nothing is changed");
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
    assert!(matches!(live(async { open(&disk) }).err(), Some(Error::Damaged { .. })));
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
    assert!(matches!(live(async { open(&newer) }).err(), Some(Error::Version { found: 9, supported: 1, .. })));
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
    let disk = three_batches();
    let segment = &segments(&disk)[0];
    let last = batches(&disk.read(segment).unwrap())[2].clone();
    disk.corrupt(segment, last.end as u64 - 1).unwrap();
    let before = disk.read(segment).unwrap();
    let found = Log::inspect(&env(&disk, 1), Path::new(DIR)).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].partition.as_str(), found[0].state.last), ("p", Some(4)));
    assert_eq!(disk.read(segment).unwrap(), before);
    assert!(Log::inspect(&env(&MemDisk::new(), 1), Path::new("/nowhere")).unwrap().is_empty());
}
