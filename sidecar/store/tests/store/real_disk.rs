//! The same on the real disk, with the writer on its own thread.

use coterie_store::log::Options;
use coterie_store::{Directory, Log, Snapshots, directory};

use super::support::{append, bytes, indexes};

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

#[test]
fn a_directory_is_locked_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let env = coterie_env::real();
    let open = || Directory::open(&env, folder.path(), "default", "member-1");
    let held = open().unwrap();
    assert!(matches!(open().err(), Some(directory::Error::Locked { .. })));
    let snapshots = Snapshots::new(&env, folder.path()).unwrap();
    snapshots.save("system", b"meta", b"data").unwrap();
    let node = held.identity().node_id;
    drop(held);
    let again = open().unwrap().identity();
    assert_eq!((again.node_id, again.start_counter), (node, 2));
    assert!(snapshots.load("system").unwrap().is_some());
}
