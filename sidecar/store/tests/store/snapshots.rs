//! Snapshots are whole, or refused.

use std::path::Path;

use coterie_env::Disk;
use coterie_env::mem::MemDisk;
use coterie_store::Snapshots;

use super::support::*;

fn open_snapshots(disk: &MemDisk) -> Snapshots {
    Snapshots::new(&env(disk, 1), Path::new(DIR)).unwrap()
}

#[test]
fn a_snapshot_is_loaded_as_it_was_saved_and_replaced_as_a_whole() {
    let disk = disk();
    let snapshots = open_snapshots(&disk);
    assert!(snapshots.load("data-1").unwrap().is_none());
    snapshots.save("data-1", b"meta", b"data").unwrap();
    snapshots.save("data/1", b"", b"").unwrap();
    snapshots.save("data-1", b"newer", b"state").unwrap();
    disk.crash();
    let snapshots = open_snapshots(&disk);
    assert_eq!(snapshots.load("data-1").unwrap(), Some((b"newer".to_vec(), b"state".to_vec())));
    assert_eq!(snapshots.load("data/1").unwrap(), Some((vec![], vec![])));
    snapshots.remove("data-1").unwrap();
    snapshots.remove("data-1").unwrap();
    disk.crash();
    assert!(open_snapshots(&disk).load("data-1").unwrap().is_none());
}

#[test]
fn wherever_the_power_goes_there_is_the_old_snapshot_or_the_new_one() {
    for calls in 0..12 {
        for seed in 0..8 {
            let disk = disk();
            let snapshots = open_snapshots(&disk);
            snapshots.save("p", b"old", &[1; 2000]).unwrap();
            disk.power_off_after(calls);
            let is_saved = snapshots.save("p", b"new", &[2; 3000]).is_ok();
            disk.crash_torn(seed);
            let (meta, data) = open_snapshots(&disk).load("p").unwrap().unwrap();
            match meta.as_slice() {
                b"new" => assert_eq!(data, [2; 3000]),
                _ => assert!(!is_saved && meta == b"old" && data == [1; 2000], "{calls} calls, seed {seed}"),
            }
            assert_eq!(disk.list(&Path::new(DIR).join("snap")).unwrap().len(), 1, "nothing half made is left");
        }
    }
}

#[test]
fn a_damaged_snapshot_is_refused() {
    let disk = disk();
    let snapshots = open_snapshots(&disk);
    snapshots.save("p", b"meta", b"data").unwrap();
    let file = Path::new(DIR).join("snap/p.snap");
    for byte in 0..disk.read(&file).unwrap().len() as u64 {
        let damaged = disk.fork();
        damaged.corrupt(&file, byte).unwrap();
        let error = open_snapshots(&damaged).load("p").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
        assert!(error.to_string().contains("is damaged"), "{error}");
    }
}

#[test]
fn a_snapshot_of_a_newer_program_is_refused_and_not_to_be_emptied() {
    let disk = disk();
    let snapshots = open_snapshots(&disk);
    snapshots.save("p", b"meta", b"data").unwrap();
    let file = Path::new(DIR).join("snap/p.snap");
    overwrite(&disk, &file, 8, &7_u32.to_le_bytes());
    let refused = snapshots.load("p").unwrap_err().to_string();
    assert!(refused.contains("has version 7, and this program reads up to 1; run the newer program"), "{refused}");
    assert!(!refused.contains("empty"), "{refused}");
}
