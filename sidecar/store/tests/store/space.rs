//! Disk and queue are bounded.

use std::io::ErrorKind;

use coterie_env::Disk;
use coterie_store::Log;
use coterie_store::log::Options;

use super::support::*;

#[test]
fn a_full_disk_refuses_appends_changes_nothing_and_recovers_by_itself() {
    let disk = disk();
    live(async {
        let log = open(&disk).unwrap();
        let partition = log.partition("p");
        append(&partition, 1..=3).await.unwrap();
        disk.set_free_bytes(2 * 4096 - 1);
        assert_eq!(log.admit(1).unwrap_err().kind(), ErrorKind::StorageFull);
        assert_eq!(append(&partition, [4]).await.unwrap_err().kind(), ErrorKind::StorageFull);
        assert_eq!(partition.state().last, Some(3));
        partition.save_vote(bytes("v")).await.unwrap();
        partition.truncate_after(Some(2)).await.unwrap();
        partition.purge(1, bytes("id")).await.unwrap();
        assert!(log.healthy());
        disk.set_free_bytes(u64::MAX);
        append(&partition, [3]).await.unwrap();
        assert_eq!(indexes(&partition), [2, 3]);
    });
}

#[test]
fn a_full_queue_refuses_appends_until_it_has_moved() {
    let disk = disk();
    live(async {
        let options = Options { queue_bytes_max: 1000, ..small() };
        let log = Log::open(&env(&disk, 1), DIR.as_ref(), options).unwrap();
        let partition = log.partition("p");
        let queued = append_now(&partition, vec![(1, bytes([0; 900]))]);
        let refused = append_now(&partition, vec![(2, bytes([0; 900]))]);
        assert_eq!(refused.await.unwrap().unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(partition.state().last, Some(1));
        queued.await.unwrap().unwrap();
        append_now(&partition, vec![(2, bytes([0; 900]))]).await.unwrap().unwrap();
    });
}

#[test]
fn purged_segments_are_freed() {
    let disk = disk();
    live(async {
        let log = open(&disk).unwrap();
        let partition = log.partition("p");
        for index in 0..100 {
            append_now(&partition, vec![(index, bytes([1; 900]))]).await.unwrap().unwrap();
        }
        assert!(log.disk_bytes() > 90_000);
        partition.purge(99, bytes("id")).await.unwrap();
        settle().await;
        assert_eq!(log.disk_bytes(), 4096);
        assert_eq!(segments(&disk).len(), 1);
    });
    live(async {
        assert_eq!(open(&disk).unwrap().partition("p").state().purged, Some((99, bytes("id"))));
    });
}

#[test]
fn an_idle_partition_holds_no_old_segments_and_loses_nothing() {
    let disk = disk();
    live(async {
        let log = open(&disk).unwrap();
        let idle = log.partition("idle");
        append(&idle, 1..=9).await.unwrap();
        idle.save_vote(bytes("vote")).await.unwrap();
        idle.purge(2, bytes("id 2")).await.unwrap();
        idle.truncate_after(Some(7)).await.unwrap();
        idle.save_committed(bytes("c"));
        log.partition("voter").save_vote(bytes("voted once")).await.unwrap();
        let busy = log.partition("busy");
        for index in 1..=500_u64 {
            append_now(&busy, vec![(index, bytes([1; 700]))]).await.unwrap().unwrap();
            if index % 10 == 0 {
                busy.purge(index - 5, bytes("id")).await.unwrap();
            }
            settle().await;
            assert!(log.disk_bytes() <= 4096 * 10, "after {index}: {} bytes", log.disk_bytes());
        }
        assert_eq!(indexes(&idle), [3, 4, 5, 6, 7]);
    });
    disk.crash();
    live(async {
        let log = open(&disk).unwrap();
        let idle = log.partition("idle");
        assert_eq!(idle.read(3..=3, 0).unwrap(), vec![(3, bytes("entry 3"))]);
        let state = idle.state();
        assert_eq!((state.first, state.last), (Some(3), Some(7)));
        assert_eq!((state.vote, state.committed), (Some(bytes("vote")), Some(bytes("c"))));
        assert_eq!(state.purged, Some((2, bytes("id 2"))));
        assert_eq!(log.partition("voter").state().vote, Some(bytes("voted once")));
        assert_eq!(log.partition("busy").state().last, Some(500));
    });
}

#[test]
fn the_next_segment_is_ready_before_it_is_needed_and_full_of_zeros() {
    let disk = disk();
    live(async {
        let log = open(&disk).unwrap();
        settle().await;
        let spare = disk.read(&std::path::Path::new(DIR).join("wal/spare.tmp")).unwrap();
        assert_eq!(spare, vec![0; 4096]);
        let segment = disk.read(&segments(&disk)[0]).unwrap();
        assert_eq!(segment.len(), 4096);
        drop(log);
    });
}
