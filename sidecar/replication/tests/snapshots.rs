//! Snapshots: restarts, purged logs, replicas that were away.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::*;
use coterie_core::EventId;
use coterie_core::command::{Command, GroupOp, Presence, Reply, View};
use coterie_core::{GroupName, Revision};
use coterie_replication::WatchItem;

/// Proposes groups until the leader must have taken a snapshot and dropped the log behind it.
async fn fill(cluster: &Cluster, round: usize) -> Revision {
    let mut last = Revision(0);
    for index in 0..600 {
        last = cluster.must(create(&format!("g-{round}-{index:03}"))).await.0;
    }
    last
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_starts_from_its_snapshot_and_the_log_after_it() {
    let mut cluster = Cluster::with_snapshots_every(1, 250).await.form().await;
    let last = fill(&cluster, 0).await;
    for _ in 0..2 {
        cluster.crash(1).await;
        cluster.start(1).await;
        cluster.leader().await;
        cluster.applied(1, last).await;
        assert_eq!(groups(&cluster.replica(1)).len(), 600);
        assert!(cluster.replica(1).is_formed());
    }
    // What came before the snapshot is not there to be told.
    let mut watcher = cluster.replica(1).watch(&(&GroupName::from("g-0-000")).into(), Some(EventId::default()));
    assert!(matches!(within(watcher.next()).await, Some(WatchItem::Resync(Some(_)))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_was_away_gets_a_snapshot_and_its_watchers_resync() {
    let mut cluster = Cluster::with_snapshots_every(3, 250).await.form().await;
    let (_, reply) = cluster.must(Command::OpenSession { member: member(9), incarnation: 1, ttl_ms: 5_000 }).await;
    let Reply::Session(session) = reply else { panic!("{reply:?}") };
    let join = || {
        let op = GroupOp::Join { session, metadata: [].into(), zone: String::new(), presence: Presence::Stream };
        Command::Group { name: "watched".into(), op }
    };
    let (joined, _) = cluster.must(join()).await;
    let leader = cluster.leader().await;
    let away = cluster.nodes().into_iter().find(|node| *node != leader).unwrap();
    cluster.applied(away, joined).await;
    let mut watcher = cluster.replica(away).watch(&(&GroupName::from("watched")).into(), None);
    let Some(WatchItem::Snapshot(View::Group(view))) = within(watcher.next()).await else { panic!("no snapshot") };
    assert_eq!(view.members.len(), 1);

    cluster.cut(away);
    cluster.must(join()).await;
    // The log is dropped between two attempts to reach the one that is away.
    let mut rounds = 0;
    let mut last = joined;
    while cluster.first_in_log(cluster.leader().await) <= Some(joined) {
        last = fill(&cluster, rounds).await;
        rounds += 1;
    }
    cluster.heal();
    cluster.applied(away, last).await;
    let expected = groups(&cluster.replica(cluster.leader().await)).len();
    assert_eq!(expected, 600 * rounds + 1);
    assert_eq!(groups(&cluster.replica(away)).len(), expected);
    let Some(WatchItem::Resync(Some(View::Group(view)))) = within(watcher.next()).await else { panic!("no resync") };
    assert_eq!(view.members.len(), 2);
    let (joined, _) = cluster.must(join()).await;
    let Some(WatchItem::Event(event)) = within(watcher.next()).await else { panic!("no event") };
    assert_eq!(event.id.revision, joined);

    // What it was given is durable, and it can lead.
    cluster.crash(away).await;
    cluster.start(away).await;
    cluster.applied(away, joined).await;
    assert_eq!(groups(&cluster.replica(away)).len(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_refuses_the_snapshot_of_a_newer_program_with_a_sentence() {
    let mut cluster = Cluster::with_snapshots_every(1, 250).await.form().await;
    fill(&cluster, 0).await;
    cluster.crash(1).await;
    let refusal = |refused: Result<(), coterie_replication::Error>| {
        let error = refused.unwrap_err();
        std::error::Error::source(&error).expect("it says why").to_string()
    };
    cluster.change_snapshot(1, |meta, _| meta[0] = 9);
    let refused = refusal(cluster.try_start(1).await);
    assert_eq!(refused, "snapshot has version 9; this program reads version 2");
    cluster.change_snapshot(1, |meta, data| (meta[0], data[0]) = (2, 99));
    let refused = refusal(cluster.try_start(1).await);
    assert!(refused.contains("version 99"), "{refused}");
}
