//! Writing and reading while the process lives, and after a clean restart.

use std::io::ErrorKind;

use coterie_store::LogState;
use coterie_store::log::{Demand, Options};

use super::support::*;

#[test]
fn what_was_saved_is_there_after_a_restart() {
    let disk = disk();
    live(async {
        let log = open(&disk).unwrap();
        let (one, two) = (log.partition("one"), log.partition("two"));
        append(&one, 0..5).await.unwrap();
        append(&two, 7..9).await.unwrap();
        one.save_vote(bytes("vote")).await.unwrap();
        one.save_committed(bytes("committed"));
        one.purge(1, bytes("id 1")).await.unwrap();
        one.truncate_after(Some(3)).await.unwrap();
        log.close().await;
    });
    live(async {
        let log = open(&disk).unwrap();
        let expected = LogState {
            vote: Some(bytes("vote")),
            committed: Some(bytes("committed")),
            purged: Some((1, bytes("id 1"))),
            first: Some(2),
            last: Some(3),
        };
        assert_eq!(log.partition("one").state(), expected);
        assert_eq!(log.partition("one").read(.., 1000).unwrap(), vec![(2, bytes("entry 2")), (3, bytes("entry 3"))]);
        assert_eq!(indexes(&log.partition("two")), [7, 8]);
        assert_eq!(log.partitions(), ["one", "two"]);
        assert_eq!(log.partition("three").state(), LogState::default());
        assert!(log.healthy());
    });
}

#[test]
fn entries_are_read_before_their_flush_and_acknowledged_after_it() {
    let disk = disk();
    live(async {
        let log = open(&disk).unwrap();
        let partition = log.partition("p");
        settle().await;
        let before = disk.syncs();
        let mut flushed = append_now(&partition, vec![(1, bytes("x"))]);
        assert_eq!(partition.read(1..=1, 0).unwrap(), vec![(1, bytes("x"))]);
        assert_eq!(partition.state().last, Some(1));
        assert!(flushed.try_recv().is_err(), "nothing was flushed yet");
        flushed.await.unwrap().unwrap();
        assert_eq!(disk.syncs(), before + 1);
    });
}

#[test]
fn all_that_is_queued_shares_one_flush_and_completes_in_order() {
    let disk = disk();
    live(async {
        let log = open(&disk).unwrap();
        let journal = Journal::default();
        settle().await;
        let before = disk.syncs();
        for index in 1..=10 {
            for key in ["a", "b"] {
                let (journal, line) = (journal.clone(), format!("{key}{index}"));
                let done = Box::new(move |result: std::io::Result<()>| {
                    result.unwrap();
                    journal.note(line);
                });
                log.partition(key).append(vec![(index, bytes("x"))], done);
            }
        }
        settle().await;
        assert_eq!(disk.syncs(), before + 1);
        let expected: Vec<_> = (1..=10).flat_map(|index| [format!("a{index}"), format!("b{index}")]).collect();
        assert_eq!(journal.read(), expected);
    });
}

#[test]
fn a_commit_position_alone_causes_no_flush_and_rides_with_the_next() {
    let disk = disk();
    live(async {
        let log = open(&disk).unwrap();
        let partition = log.partition("p");
        append(&partition, 1..=3).await.unwrap();
        settle().await;
        let before = disk.syncs();
        partition.save_committed(bytes("2"));
        partition.save_committed(bytes("3"));
        settle().await;
        assert_eq!(disk.syncs(), before);
        assert_eq!(partition.state().committed, Some(bytes("3")));
        log.partition("q").save_vote(bytes("v")).await.unwrap();
    });
    disk.crash();
    live(async {
        assert_eq!(open(&disk).unwrap().partition("p").state().committed, Some(bytes("3")));
    });
}

#[test]
fn gaps_overlaps_and_purged_indexes_are_refused_and_change_nothing() {
    let disk = disk();
    live(async {
        let log = open(&disk).unwrap();
        let partition = log.partition("p");
        append(&partition, 5..=6).await.unwrap();
        let state = partition.state();
        for bad in [vec![8], vec![6], vec![7, 9]] {
            assert_eq!(append(&partition, bad).await.unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        assert_eq!(partition.state(), state);
        partition.purge(9, bytes("id")).await.unwrap();
        assert_eq!(append(&partition, [9]).await.unwrap_err().kind(), ErrorKind::InvalidInput);
        append(&partition, [10]).await.unwrap();
        partition.purge(3, bytes("an older one")).await.unwrap();
        assert_eq!(partition.state().purged, Some((9, bytes("id"))));
        assert!(log.healthy());
    });
}

#[test]
fn a_truncated_entry_is_replaced_also_when_both_wait_for_one_flush() {
    let disk = disk();
    live(async {
        let log = open(&disk).unwrap();
        let partition = log.partition("p");
        let _first = append_now(&partition, vec![(1, bytes("a")), (2, bytes("old"))]);
        // Queued by the first poll; the writer has not run yet.
        let mut cut = std::pin::pin!(partition.truncate_after(Some(1)));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(Future::poll(cut.as_mut(), &mut context).is_pending());
        let second = append_now(&partition, vec![(2, bytes("new")), (3, bytes("c"))]);
        cut.await.unwrap();
        second.await.unwrap().unwrap();
        assert_eq!(partition.read(2.., 3).unwrap(), vec![(2, bytes("new"))]);
    });
    live(async {
        let log = open(&disk).unwrap();
        let entries = log.partition("p").read(.., usize::MAX).unwrap();
        assert_eq!(entries, vec![(1, bytes("a")), (2, bytes("new")), (3, bytes("c"))]);
        log.partition("p").truncate_after(None).await.unwrap();
        assert_eq!(log.partition("p").state().last, None);
        append(&log.partition("p"), [1]).await.unwrap();
    });
}

#[test]
fn a_read_is_bounded_in_bytes_and_gives_one_entry_at_least() {
    let disk = disk();
    live(async {
        let log = open(&disk).unwrap();
        let partition = log.partition("p");
        append(&partition, 0..10).await.unwrap();
        assert_eq!(partition.read(2.., 3 * "entry 0".len()).unwrap().len(), 3);
        assert_eq!(partition.read(2.., 0).unwrap().len(), 1);
        assert_eq!(partition.read(8..100, usize::MAX).unwrap().len(), 2);
        assert!(partition.read(20..30, usize::MAX).unwrap().is_empty());
        assert!(log.partition("unknown").read(.., usize::MAX).unwrap().is_empty());
    });
}

#[test]
fn a_removed_partition_is_forgotten_with_its_vote() {
    let disk = disk();
    live(async {
        let log = open(&disk).unwrap();
        let partition = log.partition("p");
        partition.save_vote(bytes("v")).await.unwrap();
        append(&partition, 1..4).await.unwrap();
        log.remove_partition("p").await.unwrap();
        assert!(log.partitions().is_empty());
        append(&partition, 1..2).await.unwrap();
    });
    live(async {
        let log = open(&disk).unwrap();
        assert_eq!(log.partition("p").state(), LogState { first: Some(1), last: Some(1), ..LogState::default() });
    });
}

#[test]
fn an_append_larger_than_a_segment_gets_one_of_its_size() {
    let disk = disk();
    let large = bytes(vec![7; 50_000]);
    live(async {
        let log = open(&disk).unwrap();
        let partition = log.partition("p");
        append(&partition, 1..=1).await.unwrap();
        append_now(&partition, vec![(2, large.clone())]).await.unwrap().unwrap();
        append(&partition, 3..=3).await.unwrap();
    });
    live(async {
        let log = open(&disk).unwrap();
        assert_eq!(log.partition("p").read(2..3, 0).unwrap(), vec![(2, large)]);
        assert_eq!(indexes(&log.partition("p")), [1, 2, 3]);
    });
}

#[test]
fn the_cache_stays_within_its_bound_and_everything_stays_readable() {
    let disk = disk();
    live(async {
        let options = Options { segment_bytes: 64 << 10, cache_bytes: 16 << 10, ..Options::default() };
        let log = coterie_store::Log::open(&env(&disk, 1), DIR.as_ref(), options).unwrap();
        for index in 0..200_u64 {
            for key in ["a", "b", "c"] {
                let content = bytes(vec![u8::try_from(index).unwrap(); 300]);
                append_now(&log.partition(key), vec![(index, content)]).await.unwrap().unwrap();
                assert!(log.cached_bytes() <= 16 << 10);
            }
        }
        assert!(log.cached_bytes() > 8 << 10, "it is used");
        for key in ["a", "b", "c"] {
            let entries = log.partition(key).read(.., usize::MAX).unwrap();
            let expected = (0..200).map(|index| (u64::from(index), bytes(vec![index; 300])));
            assert_eq!(entries, expected.collect::<Vec<_>>());
            log.partition(key).purge(150, bytes("id")).await.unwrap();
            log.partition(key).truncate_after(None).await.unwrap();
        }
        assert_eq!(log.cached_bytes(), 0);
    });
}

#[test]
fn an_io_error_is_final_and_told() {
    let disk = disk();
    live(async {
        let log = open(&disk).unwrap();
        let partition = log.partition("p");
        append(&partition, 1..=1).await.unwrap();
        settle().await;
        disk.fail(Some(ErrorKind::Other));
        let (one, two) = (append_now(&partition, vec![(2, bytes("x"))]), append_now(&partition, vec![(3, bytes("y"))]));
        assert!(one.await.unwrap().is_err());
        assert!(two.await.unwrap().is_err());
        disk.fail(None);
        assert!(!log.healthy());
        assert!(log.failed().await.contains("write and flush"));
        assert!(append(&partition, [4]).await.is_err());
        assert!(partition.save_vote(bytes("v")).await.is_err());
        assert!(partition.read(.., 10).is_err());
        assert!(log.admit(Demand::Growth, 1).is_err());
        log.close().await;
    });
}

#[test]
fn a_closed_log_has_written_what_was_queued_and_takes_nothing_more() {
    let disk = disk();
    live(async {
        let log = open(&disk).unwrap();
        let partition = log.partition("p");
        let queued = append_now(&partition, vec![(1, bytes("x"))]);
        log.close().await;
        queued.await.unwrap().unwrap();
        assert!(append(&partition, [2]).await.is_err());
        assert!(log.healthy(), "closing is no failure");
    });
}

#[test]
fn an_index_beyond_the_last_that_there_can_be_is_refused() {
    use coterie_store::limits::INDEX_MAX;
    live(async {
        let log = open(&disk()).unwrap();
        let partition = log.partition("p");
        for index in [INDEX_MAX + 1, u64::MAX] {
            let refused = append_now(&partition, vec![(index, bytes("x"))]).await.unwrap().unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidInput);
        }
        append(&partition, INDEX_MAX..=INDEX_MAX).await.unwrap();
        assert_eq!(indexes(&partition), [INDEX_MAX]);
    });
}
