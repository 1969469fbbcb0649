//! Disk and queue are bounded.

use std::io::ErrorKind;
use std::path::Path;

use coterie_env::Disk;
use coterie_store::Log;
use coterie_store::log::{Demand, Options};

use super::support::*;

#[test]
fn a_full_volume_refuses_growth_takes_what_is_decided_and_recovers_by_itself() {
    let disk = disk();
    live(async {
        let log = open(&disk).unwrap();
        let partition = log.partition("p");
        append(&partition, 1..=3).await.unwrap();
        disk.set_free_bytes(2 * 4096);
        until(|| log.admit(Demand::Growth, 1).is_err()).await;
        let refused = log.admit(Demand::Growth, 1).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::StorageFull);
        assert!(refused.to_string().contains("8192 bytes left"), "{refused}");
        assert_eq!(partition.state().last, Some(3));
        log.admit(Demand::Reserve, 1).unwrap();
        partition.save_vote(bytes("v")).await.unwrap();
        partition.truncate_after(Some(2)).await.unwrap();
        partition.purge(1, bytes("id")).await.unwrap();
        assert!(log.healthy());
        disk.set_free_bytes(u64::MAX);
        until(|| log.admit(Demand::Growth, 1).is_ok()).await;
        append(&partition, [3]).await.unwrap();
        assert_eq!(indexes(&partition), [2, 3]);
    });
}

#[test]
fn a_volume_that_fills_while_nothing_is_written_is_noticed_although_the_segment_has_room() {
    let disk = disk();
    live(async {
        let log = open(&disk).unwrap();
        let partition = log.partition("p");
        log.admit(Demand::Growth, 1).unwrap();
        append(&partition, [1]).await.unwrap();
        // Waits in the queue for somebody else's flush.
        partition.save_committed(bytes("1"));
        disk.set_free_bytes(0);
        until(|| log.admit(Demand::Growth, 1).is_err()).await;
        assert_eq!(log.admit(Demand::Growth, 1).unwrap_err().kind(), ErrorKind::StorageFull);
        disk.set_free_bytes(u64::MAX);
        until(|| log.admit(Demand::Growth, 1).is_ok()).await;
    });
}

#[test]
fn whoever_asks_for_room_asks_memory_and_the_writer_looks_after_each_flush() {
    let disk = disk();
    live(async {
        let log = open(&disk).unwrap();
        settle().await;
        let before = disk.free_bytes_asked();
        for _ in 0..1000 {
            log.admit(Demand::Growth, 1).unwrap();
        }
        assert_eq!(disk.free_bytes_asked(), before);
        disk.set_free_bytes(0);
        append(&log.partition("p"), [1]).await.unwrap();
        assert_eq!(log.admit(Demand::Growth, 1).unwrap_err().kind(), ErrorKind::StorageFull);
    });
}

#[test]
fn a_volume_that_does_not_say_what_is_free_refuses_growth_until_it_does_and_the_log_lives() {
    let disk = disk();
    live(async {
        let log = open(&disk).unwrap();
        settle().await;
        disk.fail_free_bytes(Some(ErrorKind::Other));
        append(&log.partition("p"), [1]).await.unwrap();
        let refused = log.admit(Demand::Growth, 1).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::StorageFull);
        assert!(refused.to_string().contains("does not say"), "{refused}");
        log.admit(Demand::Reserve, 1).unwrap();
        disk.fail_free_bytes(None);
        until(|| log.admit(Demand::Growth, 1).is_ok()).await;
        assert!(log.healthy());
    });
}

#[test]
fn a_volume_that_somebody_else_fills_to_the_last_byte_holds_what_is_decided_and_recovers() {
    let disk = disk();
    live(async {
        let log = open(&disk).unwrap();
        settle().await;
        let partition = log.partition("p");
        append(&partition, [1]).await.unwrap();
        disk.set_capacity(0);
        until(|| log.admit(Demand::Growth, 1).is_err()).await;
        assert_eq!(log.admit(Demand::Growth, 1).unwrap_err().kind(), ErrorKind::StorageFull);
        // What is prepared has room, up to a rest that is left to votes.
        let mut index = 1;
        while log.admit(Demand::Reserve, 600).is_ok() {
            index += 1;
            append_now(&partition, vec![(index, bytes([1; 512]))]).await.unwrap().unwrap();
        }
        assert!(index > 3, "only {index} fitted");
        partition.save_vote(bytes("v")).await.unwrap();
        partition.purge(index - 1, bytes("id")).await.unwrap();
        settle().await;
        assert!(log.healthy());
        disk.set_capacity(1 << 20);
        until(|| log.admit(Demand::Growth, 600).is_ok()).await;
        append(&partition, [index + 1]).await.unwrap();
        assert_eq!(indexes(&partition), [index, index + 1]);
    });
}

#[test]
fn a_segment_that_is_being_prepared_when_the_volume_fills_is_given_back() {
    let disk = disk();
    let segment_bytes = 4 << 20;
    live(async {
        let options = Options { segment_bytes, ..small() };
        let log = Log::open(&env(&disk, 1), DIR.as_ref(), options).unwrap();
        let spare = Path::new(DIR).join("wal/spare.tmp");
        while disk.read(&spare).is_err() {
            tokio::task::yield_now().await;
        }
        disk.set_capacity(0);
        settle().await;
        assert_eq!(disk.read(&spare).unwrap_err().kind(), ErrorKind::NotFound);
        append(&log.partition("p"), [1]).await.unwrap();
        assert!(log.healthy());
        disk.set_capacity(u64::MAX);
        append(&log.partition("p"), [2]).await.unwrap();
        settle().await;
        assert_eq!(disk.read(&spare).unwrap().len(), usize::try_from(segment_bytes).unwrap());
    });
}

#[test]
fn a_full_queue_admits_nothing_more_until_it_has_moved() {
    let disk = disk();
    live(async {
        let options = Options { queue_bytes_max: 1000, ..small() };
        let log = Log::open(&env(&disk, 1), DIR.as_ref(), options).unwrap();
        let partition = log.partition("p");
        log.admit(Demand::Growth, 900).unwrap();
        let queued = append_now(&partition, vec![(1, bytes([0; 900]))]);
        for demand in [Demand::Growth, Demand::Reserve] {
            assert_eq!(log.admit(demand, 900).unwrap_err().kind(), ErrorKind::WouldBlock);
        }
        queued.await.unwrap().unwrap();
        log.admit(Demand::Growth, 900).unwrap();
        append_now(&partition, vec![(2, bytes([0; 900]))]).await.unwrap().unwrap();
    });
}

#[test]
fn what_busy_partitions_were_promised_side_by_side_is_taken_while_the_disk_stalls_and_then_written() {
    let disk = disk();
    live(async {
        let options = Options { queue_bytes_max: 1000, ..small() };
        let log = Log::open(&env(&disk, 1), DIR.as_ref(), options).unwrap();
        let partitions: Vec<_> = ["a", "b", "c", "d"].map(|key| log.partition(key)).into();
        for partition in &partitions {
            partition.admit(Demand::Growth, 900).unwrap();
        }
        // The writer does not move while nothing is awaited: a disk that stalls.
        let queued: Vec<_> =
            partitions.iter().map(|partition| append_now(partition, vec![(1, bytes([0; 900]))])).collect();
        assert_eq!(log.admit(Demand::Growth, 1).unwrap_err().kind(), ErrorKind::WouldBlock);
        for flushed in queued {
            flushed.await.unwrap().unwrap();
        }
        assert!(partitions.iter().all(|partition| partition.state().last == Some(1)));
        log.admit(Demand::Growth, 900).unwrap();
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
        let spare = disk.read(&Path::new(DIR).join("wal/spare.tmp")).unwrap();
        assert_eq!(spare, vec![0; 4096]);
        let segment = disk.read(&segments(&disk)[0]).unwrap();
        assert_eq!(segment.len(), 4096);
        drop(log);
    });
}

#[test]
fn a_needless_segment_is_kept_for_later_while_there_is_room_and_given_back_else() {
    let recycled = Path::new(DIR).join("wal/recycled.tmp");
    for (free, is_kept) in [(u64::MAX, true), (3 * 4096, true), (3 * 4096 - 1, false)] {
        let disk = disk();
        live(async {
            let log = open(&disk).unwrap();
            let partition = log.partition("p");
            for index in 1..=20 {
                append_now(&partition, vec![(index, bytes([1; 700]))]).await.unwrap().unwrap();
            }
            let count = segments(&disk).len();
            assert!(count > 4);
            disk.set_free_bytes(free);
            partition.purge(20, bytes("id")).await.unwrap();
            until(|| segments(&disk).len() == 1).await;
            assert_eq!(disk.read(&recycled).is_ok(), is_kept, "{free} free");
            // It is what the next segment is made of.
            let before = segments(&disk);
            while segments(&disk) == before {
                partition.save_vote(bytes("vote")).await.unwrap();
            }
            let content = disk.read(&segments(&disk).pop().unwrap()).unwrap();
            assert_eq!(all_batches(&content).count() > batches(&content).len(), is_kept, "{free} free");
        });
    }
}
