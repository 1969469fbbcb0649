#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use super::*;

fn path(name: &str) -> PathBuf {
    Path::new("/data").join(name)
}

fn disk() -> MemDisk {
    let disk = MemDisk::new();
    disk.create_dir_all(Path::new("/data")).unwrap();
    disk
}

#[test]
fn a_crash_drops_what_was_not_synced() {
    let disk = disk();
    let file = disk.open(&path("a")).unwrap();
    file.write_at(0, b"synced").unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("/data")).unwrap();
    file.write_at(0, b"UNSYNCED").unwrap();
    assert_eq!(disk.read(&path("a")).unwrap(), b"UNSYNCED");
    disk.crash();
    assert_eq!(disk.read(&path("a")).unwrap(), b"synced");
    assert!(file.write_at(0, b"x").is_err(), "the handle is from before the crash");
}

#[test]
fn a_file_whose_folder_was_not_synced_is_gone_after_a_crash() {
    let disk = disk();
    let file = disk.open(&path("a")).unwrap();
    file.write_at(0, b"x").unwrap();
    file.sync_data().unwrap();
    disk.crash();
    assert_eq!(disk.read(&path("a")).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_volume_that_is_lost_takes_what_was_synced_with_it() {
    let disk = disk();
    crate::disk::replace(&disk, &path("a"), b"synced").unwrap();
    let file = disk.open(&path("a")).unwrap();
    disk.lose();
    assert_eq!(disk.files(), 0);
    assert!(file.write_at(0, b"x").is_err(), "the handle is from before the loss");
    disk.create_dir_all(Path::new("/data")).unwrap();
    assert_eq!(disk.list(Path::new("/data")).unwrap(), Vec::<PathBuf>::new());
}

#[test]
fn a_rename_whose_folder_was_not_synced_is_undone_by_a_crash() {
    let disk = disk();
    crate::disk::replace(&disk, &path("a"), b"old").unwrap();
    disk.open(&path("b")).unwrap().write_at(0, b"new").unwrap();
    disk.open(&path("b")).unwrap().sync_data().unwrap();
    disk.sync_dir(Path::new("/data")).unwrap();
    disk.rename(&path("b"), &path("a")).unwrap();
    assert_eq!(disk.read(&path("a")).unwrap(), b"new");
    disk.crash();
    assert_eq!(disk.read(&path("a")).unwrap(), b"old");
    assert_eq!(disk.read(&path("b")).unwrap(), b"new");
    assert_eq!(disk.list(Path::new("/data")).unwrap(), vec![path("a"), path("b")]);
}

#[test]
fn a_replaced_file_is_read_through_its_handle_and_gone_once_that_is_dropped() {
    let disk = disk();
    crate::disk::replace(&disk, &path("a"), b"old").unwrap();
    let old = disk.open(&path("a")).unwrap();
    crate::disk::replace(&disk, &path("a"), b"newer").unwrap();
    assert_eq!((disk.files(), old.len().unwrap()), (2, 3));
    drop(old);
    assert_eq!(disk.files(), 1);
    disk.remove(&path("a")).unwrap();
    assert_eq!(disk.files(), 1, "a crash would bring it back");
    disk.sync_dir(Path::new("/data")).unwrap();
    assert_eq!(disk.files(), 0);
}

#[test]
fn replace_leaves_the_old_or_the_new_content_wherever_the_power_goes() {
    for calls in 0..12 {
        for seed in 0..8 {
            let disk = disk();
            crate::disk::replace(&disk, &path("a"), b"old").unwrap();
            disk.power_off_after(calls);
            let done = crate::disk::replace(&disk, &path("a"), b"newer").is_ok();
            disk.crash_torn(seed);
            let found = disk.read(&path("a")).unwrap();
            assert!(found == b"newer" || (found == b"old" && !done), "{calls} calls, seed {seed}: {found:?}");
        }
    }
}

#[test]
fn a_torn_crash_is_decided_by_its_seed_and_tears_at_sectors() {
    let torn = |seed| {
        let disk = disk();
        let file = disk.open(&path("a")).unwrap();
        file.set_len(8 * 512).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(Path::new("/data")).unwrap();
        file.write_at(0, &[1; 8 * 512]).unwrap();
        disk.crash_torn(seed);
        disk.read(&path("a")).unwrap()
    };
    let all: BTreeSet<Vec<u8>> = (0..32).map(torn).collect();
    assert!(all.len() > 4);
    assert!(all.iter().flat_map(|content| content.chunks(512)).all(|s| s.iter().all(|b| *b == s[0])));
    assert_eq!(torn(5), torn(5));
}

#[test]
fn a_silent_sync_loses_what_it_claimed_to_keep() {
    let disk = disk();
    let file = disk.open(&path("a")).unwrap();
    disk.sync_dir(Path::new("/data")).unwrap();
    disk.fail_sync_silently(Lie::On);
    file.write_at(0, b"x").unwrap();
    file.sync_data().unwrap();
    disk.crash();
    assert_eq!(disk.read(&path("a")).unwrap(), b"");
}

#[test]
fn locks_exclude_until_dropped_or_crashed() {
    let disk = disk();
    let held = disk.lock(&path("LOCK")).unwrap();
    assert_eq!(disk.lock(&path("LOCK")).err().unwrap().kind(), io::ErrorKind::WouldBlock);
    disk.crash();
    let again = disk.lock(&path("LOCK")).unwrap();
    drop(held);
    assert!(disk.lock(&path("LOCK")).is_err(), "a lock from before the crash releases nothing");
    drop(again);
    disk.lock(&path("LOCK")).unwrap();
}

#[test]
fn a_removed_file_stays_readable_through_an_open_handle() {
    let disk = disk();
    let file = disk.open(&path("a")).unwrap();
    file.write_at(0, b"x").unwrap();
    disk.remove(&path("a")).unwrap();
    let mut byte = [0];
    file.read_at(0, &mut byte).unwrap();
    assert_eq!(&byte, b"x");
}

#[test]
fn bit_rot_and_failures_can_be_ordered() {
    let disk = disk();
    crate::disk::replace(&disk, &path("a"), b"\0\0").unwrap();
    disk.corrupt(&path("a"), 1).unwrap();
    assert_eq!(disk.read(&path("a")).unwrap(), [0, 0xff]);
    assert!(disk.corrupt(&path("a"), 2).is_err());
    let fork = disk.fork();
    disk.fail(Some(io::ErrorKind::StorageFull));
    assert_eq!(disk.remove(&path("a")).unwrap_err().kind(), io::ErrorKind::StorageFull);
    fork.remove(&path("a")).unwrap();
    disk.fail(None);
    assert_eq!(disk.read(&path("a")).unwrap().len(), 2);
}
