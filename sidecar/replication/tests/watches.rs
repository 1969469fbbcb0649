//! Watches: order, resuming, resyncing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::*;
use coterie_core::command::{
    Command, Condition, EventKind, GroupEvent, GroupOp, GroupView, MapEvent, MapOp, MapView, Presence, Reply, View,
};
use coterie_core::limits::{EVENTS_KEPT, WATCHER_QUEUE_BYTES_MAX, WATCHER_QUEUE_MAX};
use coterie_core::{EventId, GroupName, MapName, Primitive, SessionId};
use coterie_replication::{Told, WatchItem, Watcher};

async fn session(cluster: &Cluster) -> SessionId {
    let open = Command::OpenSession { member: member(9), incarnation: 1, ttl_ms: 5_000 };
    let (_, reply) = cluster.must(open).await;
    let Reply::Session(session) = reply else { panic!("{reply:?}") };
    session
}

fn join(session: SessionId, group: &str) -> Command {
    let op = GroupOp::Join { session, metadata: BTreeMap::new(), zone: String::new(), presence: Presence::Stream };
    Command::Group { name: group.into(), op }
}

async fn next(watcher: &mut Watcher) -> WatchItem {
    within(watcher.next()).await.expect("the replica runs")
}

async fn event(watcher: &mut Watcher) -> Arc<Told> {
    match next(watcher).await {
        WatchItem::Event(event) => event,
        other => panic!("expected an event, got {other:?}"),
    }
}

/// The group that a watch begins with.
async fn snapshot(watcher: &mut Watcher) -> GroupView {
    match next(watcher).await {
        WatchItem::Snapshot(View::Group(view)) => view,
        other => panic!("expected a snapshot, got {other:?}"),
    }
}

/// The group that a watch goes on with.
async fn resync(watcher: &mut Watcher) -> GroupView {
    match next(watcher).await {
        WatchItem::Resync(Some(View::Group(view))) => view,
        other => panic!("expected a resync, got {other:?}"),
    }
}

fn name(group: &str) -> Primitive {
    (&GroupName::from(group)).into()
}

fn put(key: u64, bytes: usize) -> Command {
    let op = MapOp::Put { key: format!("{key:05}").into(), value: vec![7; bytes].into(), only: Condition::Always };
    Command::Map { name: "m".into(), op }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s34_a_watch_starts_with_the_group_and_goes_on_with_every_event_once_and_in_order() {
    let cluster = Cluster::formed(1).await;
    let session = session(&cluster).await;
    cluster.must(join(session, "g")).await;
    let replica = cluster.replica(1);
    let mut watcher = replica.watch(&name("g"), None);
    let view = snapshot(&mut watcher).await;
    assert_eq!(view.members.len(), 1);
    assert_eq!(view.last_event, common::view(&replica, "g").unwrap().last_event);

    let mut last = view.last_event;
    for index in 0..50 {
        cluster.must(join(session, if index % 2 == 0 { "g" } else { "another" })).await;
    }
    for _ in 0..25 {
        let event = event(&mut watcher).await;
        assert!(event.id > last);
        assert_eq!(event.of, name("g"));
        assert!(matches!(event.kind, EventKind::Group(GroupEvent::Joined(_))));
        last = event.id;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_resumes_after_any_event_without_gap_and_without_duplicate_on_any_replica() {
    let cluster = Cluster::formed(3).await;
    let session = session(&cluster).await;
    let mut revision = Default::default();
    for _ in 0..20 {
        revision = cluster.must(join(session, "g")).await.0;
    }
    let mut all = Vec::new();
    for node in cluster.nodes() {
        cluster.applied(node, revision).await;
        let mut watcher = cluster.replica(node).watch(&name("g"), Some(EventId::default()));
        let mut events = Vec::new();
        while events.last().is_none_or(|event: &Arc<Told>| event.id.revision < revision) {
            events.push(event(&mut watcher).await);
        }
        all.push(events);
    }
    // Joined, Term, Elected for the first, Joined for each other.
    assert_eq!(all[0].len(), 22);
    assert!(all.iter().all(|events| *events == all[0]));
    for (index, from) in all[0].iter().enumerate() {
        let mut watcher = cluster.replica(2).watch(&name("g"), Some(from.id));
        for expected in &all[0][index + 1..] {
            assert_eq!(event(&mut watcher).await, *expected);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_this_replica_has_not_applied_yet_is_waited_for_and_not_told_twice() {
    let cluster = Cluster::formed(1).await;
    let session = session(&cluster).await;
    let (revision, _) = cluster.must(join(session, "g")).await;
    // As if another replica had told the first event of the next revision.
    let after = EventId { revision: coterie_core::Revision(revision.0 + 1), ordinal: 0 };
    let mut watcher = cluster.replica(1).watch(&name("g"), Some(after));
    cluster.must(join(session, "g")).await;
    let (third, _) = cluster.must(join(session, "g")).await;
    assert_eq!(event(&mut watcher).await.id.revision, third);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_survive_a_restart_as_long_as_the_log_holds_them() {
    let mut cluster = Cluster::formed(1).await;
    let session = session(&cluster).await;
    let (first, _) = cluster.must(join(session, "g")).await;
    let (second, _) = cluster.must(join(session, "g")).await;
    cluster.crash(1).await;
    cluster.start(1).await;
    cluster.applied(1, second).await;
    let after = EventId { revision: first, ordinal: u32::MAX };
    let mut watcher = cluster.replica(1).watch(&name("g"), Some(after));
    assert_eq!(event(&mut watcher).await.id.revision, second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_is_too_old_is_told_to_resync_and_goes_on_from_there() {
    let cluster = Cluster::formed(1).await;
    let session = session(&cluster).await;
    let (first, _) = cluster.must(join(session, "g")).await;
    cluster.must(join(session, "quiet")).await;
    let replica = cluster.replica(1);
    let quiet = view(&replica, "quiet").unwrap().last_event;
    for _ in 0..EVENTS_KEPT / 512 {
        let writes = (0..512).map(|_| replica.propose(body(None, join(session, "g")), PATIENCE));
        for result in futures_util::future::join_all(writes).await {
            result.unwrap().1.unwrap();
        }
    }
    let mut watcher = replica.watch(&name("g"), Some(EventId { revision: first, ordinal: 0 }));
    let view = resync(&mut watcher).await;
    assert_eq!(view.members.len(), EVENTS_KEPT + 1);
    let (revision, _) = cluster.must(join(session, "g")).await;
    assert_eq!(event(&mut watcher).await.id.revision, revision);
    // Nothing happened in the quiet group since: nothing was missed, however long ago that is.
    let mut watcher = replica.watch(&name("quiet"), Some(quiet));
    let (revision, _) = cluster.must(join(session, "quiet")).await;
    assert_eq!(event(&mut watcher).await.id.revision, revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_watcher_is_told_to_resync_and_a_fast_one_beside_it_gets_everything() {
    let cluster = Cluster::formed(1).await;
    let session = session(&cluster).await;
    cluster.must(join(session, "g")).await;
    let replica = cluster.replica(1);
    let mut slow = replica.watch(&name("g"), None);
    let mut fast = replica.watch(&name("g"), None);
    snapshot(&mut fast).await;
    for _ in 0..WATCHER_QUEUE_MAX + 2 {
        let (revision, _) = replica.propose(body(None, join(session, "g")), PATIENCE).await.unwrap();
        assert_eq!(event(&mut fast).await.id.revision, revision);
    }
    let view = resync(&mut slow).await;
    assert_eq!(view.members.len(), WATCHER_QUEUE_MAX + 3);
    let (revision, _) = cluster.must(join(session, "g")).await;
    assert_eq!(event(&mut slow).await.id.revision, revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_of_no_group_says_so_and_sees_it_when_it_is_made() {
    let mut cluster = Cluster::formed(1).await;
    let session = session(&cluster).await;
    let mut watcher = cluster.replica(1).watch(&name("g"), None);
    assert_eq!(next(&mut watcher).await, WatchItem::Resync(None));
    cluster.must(join(session, "g")).await;
    assert!(matches!(event(&mut watcher).await.kind, EventKind::Group(GroupEvent::Joined(_))));
    assert!(matches!(event(&mut watcher).await.kind, EventKind::Group(GroupEvent::Term(_))));
    assert!(matches!(event(&mut watcher).await.kind, EventKind::Group(GroupEvent::Elected { .. })));
    cluster.stop(1).await;
    assert_eq!(within(watcher.next()).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d17_a_watch_of_a_map_starts_with_its_entries_and_goes_on_with_every_change_on_any_replica() {
    let cluster = Cluster::formed(3).await;
    let (first, _) = cluster.must(put(1, 10)).await;
    let map = (&MapName::from("m")).into();
    for node in cluster.nodes() {
        cluster.applied(node, first).await;
    }
    let mut watchers: Vec<_> =
        cluster.nodes().into_iter().map(|node| cluster.replica(node).watch(&map, None)).collect();
    for watcher in &mut watchers {
        let WatchItem::Snapshot(View::Map(MapView { entries, revision, .. })) = next(watcher).await else { panic!() };
        assert_eq!((entries.len(), revision), (1, first));
    }
    let mut expected = Vec::new();
    for key in 2..20 {
        expected.push(cluster.must(put(key, 10)).await.0);
    }
    for watcher in &mut watchers {
        for revision in &expected {
            let event = event(watcher).await;
            assert_eq!(event.id.revision, *revision);
            assert!(matches!(event.kind, EventKind::Map(MapEvent::Put { .. })));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_large_values_wait_for_is_told_to_resync_before_they_fill_the_memory() {
    let cluster = Cluster::formed(1).await;
    cluster.must(put(0, 1)).await;
    let mut slow = cluster.replica(1).watch(&(&MapName::from("m")).into(), None);
    next(&mut slow).await;
    let bytes = 256 * 1024;
    let number = (WATCHER_QUEUE_BYTES_MAX / bytes + 1) as u64;
    for key in 1..=number {
        cluster.must(put(key, bytes)).await;
    }
    let WatchItem::Resync(Some(View::Map(view))) = next(&mut slow).await else { panic!("no resync") };
    assert_eq!(view.entries.len() as u64, number + 1);
    let (revision, _) = cluster.must(put(0, 1)).await;
    assert_eq!(event(&mut slow).await.id.revision, revision);
}
