//! The identity of a data directory.

use std::path::Path;

use coterie_env::Disk;
use coterie_env::mem::MemDisk;
use coterie_store::directory::Error;
use coterie_store::{Directory, Formation, Identity, KnownPeer, Seat};

use super::support::*;

fn open_directory(disk: &MemDisk, seed: u64) -> Result<Directory, Error> {
    Directory::open(&env(disk, seed), Path::new(DIR), "default", "member-1")
}

fn identity_file() -> std::path::PathBuf {
    Path::new(DIR).join("identity")
}

#[test]
fn d14_an_identity_is_minted_once_and_every_start_counts() {
    let disk = MemDisk::new();
    let first = open_directory(&disk, 1).unwrap().identity();
    assert_ne!(first.node_id, 0);
    assert_eq!((first.cluster.as_str(), first.member.as_str()), ("default", "member-1"));
    assert_eq!((first.start_counter, first.formed, &first.cluster_id), (1, false, &None));
    for start in 2..5 {
        disk.crash();
        let again = open_directory(&disk, start).unwrap().identity();
        assert_eq!(again, Identity { start_counter: start, ..first.clone() });
    }
    let other = open_directory(&MemDisk::new(), 2).unwrap().identity();
    assert_ne!(other.node_id, first.node_id);
}

#[test]
fn an_update_is_durable_when_it_returns_and_whole_wherever_the_power_goes() {
    for calls in 0..12 {
        let disk = MemDisk::new();
        let directory = open_directory(&disk, 1).unwrap();
        let before = directory.identity();
        disk.power_off_after(calls);
        let seat = Seat { member: "member-1".into(), node_id: 1, address: "localhost:5001".into() };
        let updated = directory.update(|identity| {
            identity.formation = Some(Formation { cluster_id: 7, seats: vec![seat] });
            identity.cluster_id = Some(7);
            identity.formed = true;
            identity.peers.insert("member-2".into(), KnownPeer { node_id: 2, start_counter: 3, run: 4 });
        });
        let after = directory.identity();
        assert_eq!(after != before, updated.is_ok());
        disk.crash_torn(calls);
        let found = Directory::read(&disk, Path::new(DIR)).unwrap().unwrap();
        match updated {
            Ok(()) => assert_eq!(found, after),
            Err(_) => assert!(found == before || found.formed),
        }
    }
}

#[test]
fn a_start_on_a_volume_without_a_free_byte_counts_and_drops_what_is_half_made() {
    let disk = MemDisk::new();
    drop(open_directory(&disk, 1).unwrap());
    live(async {
        let log = open(&disk).unwrap();
        settle().await;
        log.close().await;
    });
    let spare = Path::new(DIR).join("wal/spare.tmp");
    assert!(disk.read(&spare).is_ok());
    disk.set_capacity(0);
    for start in 2..5 {
        let directory = open_directory(&disk, start).unwrap();
        assert_eq!(directory.identity().start_counter, start);
        directory.update(|identity| identity.formed = true).unwrap();
        assert!(disk.read(&spare).is_err());
        drop(directory);
        disk.crash();
    }
}

#[test]
fn a_second_process_is_refused() {
    let disk = MemDisk::new();
    let held = open_directory(&disk, 1).unwrap();
    assert!(matches!(open_directory(&disk, 2).err(), Some(Error::Locked { .. })));
    drop(held);
    assert_eq!(open_directory(&disk, 3).unwrap().identity().start_counter, 2, "a refused start does not count");
}

#[test]
fn the_directory_of_another_member_or_cluster_is_refused() {
    let disk = MemDisk::new();
    drop(open_directory(&disk, 1).unwrap());
    for (cluster, member) in [("default", "member-2"), ("other", "member-1")] {
        let error = Directory::open(&env(&disk, 1), Path::new(DIR), cluster, member).err().unwrap();
        assert!(matches!(error, Error::BelongsTo { .. }));
        let sentence = error.to_string();
        assert!(sentence.contains("belongs to member member-1 of cluster default"), "{sentence}");
        assert!(sentence.contains(&format!("not to member {member} of cluster {cluster}")), "{sentence}");
    }
}

#[test]
fn an_identity_both_copies_of_which_are_damaged_is_refused_at_any_byte_and_never_replaced() {
    let disk = MemDisk::new();
    drop(open_directory(&disk, 1).unwrap());
    let file = disk.read(&identity_file()).unwrap();
    let slot = file.len() / 2;
    let len = file[..slot].iter().rposition(|byte| *byte != 0).unwrap();
    for byte in 0..len {
        let damaged = disk.fork();
        for copy in [byte, slot + byte] {
            damaged.corrupt(&identity_file(), copy as u64).unwrap();
        }
        let before = damaged.read(&identity_file()).unwrap();
        let error = open_directory(&damaged, 2).err().unwrap();
        assert!(matches!(error, Error::Damaged { .. }), "byte {byte}: {error}");
        assert!(error.to_string().contains("restore it from a copy"));
        assert_eq!(damaged.read(&identity_file()).unwrap(), before);
    }
}

#[test]
fn data_without_an_identity_is_refused() {
    let disk = MemDisk::new();
    drop(open_directory(&disk, 1).unwrap());
    live(async {
        append(&open(&disk).unwrap().partition("p"), 1..=1).await.unwrap();
    });
    disk.remove(&identity_file()).unwrap();
    let error = open_directory(&disk, 2).err().unwrap();
    assert!(matches!(error, Error::IdentityMissing { .. }), "{error}");
}

#[test]
#[should_panic(expected = "keeps the identity")]
fn what_a_directory_was_minted_with_cannot_be_updated() {
    let directory = open_directory(&MemDisk::new(), 1).unwrap();
    let _ = directory.update(|identity| identity.node_id += 1);
}
