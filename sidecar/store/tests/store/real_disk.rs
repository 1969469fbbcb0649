//! The same on the real disk, with the writer on its own thread.

use coterie_store::log::Options;
use coterie_store::snapshots::{Piece, Place};
use coterie_store::{Directory, Log, Snapshots, directory};

use super::support::{append, append_now, bytes, indexes};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_share_the_log_and_all_of_it_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let env = coterie_env::real();
    let options = Options { segment_bytes: 64 << 10, cache_bytes: 32 << 10, ..Options::default() };
    let log = Log::open(&env, folder.path(), options.clone()).unwrap();
    let writers = ["a", "b", "c", "d"].map(|key| {
        let partition = log.partition(key);
        tokio::spawn(async move {
            for index in 1..=300 {
                append(&partition, [index]).await.unwrap();
                if index == 200 {
                    partition.purge(100, bytes("id")).await.unwrap();
                }
            }
            partition.save_vote(bytes(key)).await.unwrap();
        })
    });
    for writer in writers {
        writer.await.unwrap();
    }
    log.close().await;
    let log = Log::open(&env, folder.path(), options).unwrap();
    for key in ["a", "b", "c", "d"] {
        let partition = log.partition(key);
        assert_eq!(indexes(&partition), (101..=300).collect::<Vec<_>>());
        assert_eq!(partition.state().vote, Some(bytes(key)));
    }
    log.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_while_its_segment_goes_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 32 << 10, cache_bytes: 0, ..Options::default() };
    let log = Log::open(&coterie_env::real(), folder.path(), options).unwrap();
    let partition = log.partition("p");
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let readers = [(); 2].map(|()| {
        let (partition, stopped) = (partition.clone(), stopped.clone());
        std::thread::spawn(move || {
            let mut entries = 0;
            while !*stopped.borrow() {
                entries += partition.read(.., usize::MAX).unwrap().len();
            }
            entries
        })
    });
    for index in (1..=2_000).step_by(10) {
        append_now(&partition, (index..index + 10).map(|index| (index, bytes([7; 900]))).collect())
            .await
            .unwrap()
            .unwrap();
        if index > 100 {
            partition.purge(index - 100, bytes("id")).await.unwrap();
        }
    }
    stop.send_replace(true);
    for reader in readers {
        assert!(reader.join().unwrap() > 0);
    }
    assert!(log.healthy());
    log.close().await;
}

#[test]
fn a_directory_is_locked_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let env = coterie_env::real();
    let open = || Directory::open(&env, folder.path(), "default", "member-1");
    let held = open().unwrap();
    assert!(matches!(open().err(), Some(directory::Error::Locked { .. })));
    let snapshots = Snapshots::new(&env, folder.path()).unwrap();
    let mut draft = snapshots.begin("system", b"meta").unwrap();
    draft.push(&Piece::new(0, b"data".to_vec())).unwrap();
    draft.finish().unwrap().publish().unwrap();
    let node = held.identity().node_id;
    drop(held);
    let again = open().unwrap().identity();
    assert_eq!((again.node_id, again.start_counter), (node, 2));
    let stored = snapshots.open("system").unwrap().unwrap();
    let pieces: Vec<_> = stored.pieces(Place::default()).map(|piece| piece.unwrap().bytes).collect();
    assert_eq!(pieces, [b"data".as_slice()]);
}
