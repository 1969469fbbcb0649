//! Snapshots on their way to a replica that was away: in bounded pieces, resumed, refused, and never in the way.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::path::Path;
use std::time::Duration;

use common::*;
use coterie_core::Revision;
use coterie_core::command::{Answer, Command, Condition, MapOp, Query};
use coterie_core::machine::snapshot::{PIECE_BYTES, PIECE_BYTES_MAX};
use coterie_env::Disk;
use coterie_replication::{Partition, ReadKind};
use futures_util::future::join_all;
use tokio::sync::Mutex;

/// Each of these tests moves a lot, and says something of leaders that keep their lead: one after another.
static ALONE: Mutex<()> = Mutex::const_new(());
/// Bytes of one value.
const VALUE_BYTES: usize = 64 * 1024;
/// Pieces that may be on their way without an answer, and the offer.
const AHEAD: usize = 5;

fn put(key: &str, bytes: usize) -> Command {
    let op = MapOp::Put { key: key.into(), value: vec![7; bytes].into(), only: Condition::Always };
    Command::Map { name: "m".into(), op }
}

/// How many entries there are, as this replica has it.
fn entries(replica: &Partition) -> usize {
    replica.with_machine(|machine| {
        let view = machine.view(&(&coterie_core::MapName::from("m")).into());
        let Some(coterie_core::command::View::Map(view)) = view else { panic!("a map is always there") };
        view.entries.len()
    })
}

/// Three replicas, one of which was away and cannot do without a snapshot that has so many values.
struct Away {
    cluster: Cluster,
    leader: u64,
    away: u64,
    third: u64,
    last: Revision,
}

async fn away(values: usize) -> Away {
    let cluster = Cluster::with_snapshots_every(3, 50).await.form().await;
    let (joined, _) = cluster.must(create("g")).await;
    let leader = cluster.leader().await;
    let mut others = cluster.nodes().into_iter().filter(|node| *node != leader);
    let (away, third) = (others.next().unwrap(), others.next().unwrap());
    cluster.applied(away, joined).await;
    cluster.cut(away);
    let (mut last, mut number) = (joined, 0);
    // Until all of them are in the snapshots of those who may lead, and the log behind is gone.
    let is_behind = |node: u64| {
        let has_all = snapshot_bytes(&cluster, node).is_some_and(|bytes| bytes > values * VALUE_BYTES);
        has_all && cluster.first_in_log(node) > Some(joined)
    };
    while number < values || !is_behind(leader) || !is_behind(third) {
        let puts =
            (number..number + 16).map(|number| cluster.must(put(&format!("{:06}", number % values), VALUE_BYTES)));
        join_all(puts).await;
        number += 16;
        // What goes together is one entry; the log behind a snapshot goes by entries.
        for _ in 0..16 {
            (last, _) = cluster.must(put("alone", 1)).await;
        }
    }
    // On a busy machine the lead may have changed.
    let now = cluster.leader().await;
    let third = if now == third { leader } else { third };
    Away { cluster, leader: now, away, third, last }
}

/// What a replica's snapshot takes; `None` while there is none, or another one is made.
fn snapshot_bytes(cluster: &Cluster, node: u64) -> Option<usize> {
    snapshot_file(cluster, node).map(|file| file.len())
}

fn snapshot_file(cluster: &Cluster, node: u64) -> Option<Vec<u8>> {
    let files = cluster.disk(node).list(Path::new("/data/snap")).unwrap();
    let [file] = &files[..] else { return None };
    let is_whole = file.extension().is_some_and(|extension| extension == "snap");
    is_whole.then(|| cluster.disk(node).read(file).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_snapshot_goes_in_bounded_pieces_while_the_leader_takes_writes() {
    let _alone = ALONE.lock().await;
    let Away { cluster, leader, away, last, .. } = away(500).await;
    let term = cluster.replica(leader).leadership().borrow().term;
    let transfers = cluster.transfers();
    transfers.set(Gate::WaitsAt(20));
    cluster.heal();
    transfers.reached(20).await;
    // Far more than it takes for a snapshot to be due.
    for number in 0..200 {
        cluster.must(put(&format!("while-{number}"), 100)).await;
    }
    transfers.set(Gate::Open);
    let (written, _) = cluster.must(put("after", 100)).await;
    cluster.applied(away, written).await;
    assert!(written > last);
    assert_eq!(entries(&cluster.replica(away)), entries(&cluster.replica(leader)));
    assert_eq!(cluster.replica(leader).leadership().borrow().term, term, "nobody has lost the leader");

    let sent = transfers.all();
    let [sent] = &sent[..] else { panic!("the log behind it was kept while it was sent: {sent:?}") };
    assert!(sent.bytes > 30 << 20, "{sent:?}");
    assert!(sent.messages > sent.bytes / (PIECE_BYTES + VALUE_BYTES), "{sent:?}");
    assert!(sent.bytes / sent.messages < PIECE_BYTES_MAX, "{sent:?}");
    assert!(sent.ahead <= AHEAD, "{sent:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_is_sent_a_snapshot_answers_heartbeats_all_the_time() {
    let _alone = ALONE.lock().await;
    let Away { mut cluster, leader, away, third, last } = away(100).await;
    let transfers = cluster.transfers();
    transfers.set(Gate::WaitsAt(5));
    cluster.heal();
    transfers.reached(5).await;
    cluster.stop(third).await;
    // Without the follower that waits for the rest of its snapshot nobody would confirm that the leader leads.
    let term = cluster.replica(leader).leadership().borrow().term;
    let query = Query::Revision;
    for _ in 0..20 {
        cluster.replica(leader).read(&query, ReadKind::Linearizable, DEADLINE).await.unwrap();
    }
    transfers.set(Gate::Open);
    let replica = cluster.replica(away);
    while replica.applied().borrow().revision < last {
        cluster.replica(leader).read(&query, ReadKind::Linearizable, DEADLINE).await.unwrap();
    }
    let (written, _) = cluster.must(put("after", 1)).await;
    cluster.applied(away, written).await;
    assert_eq!(cluster.replica(leader).leadership().borrow().term, term);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_whose_connection_breaks_goes_on_from_where_it_was() {
    let _alone = ALONE.lock().await;
    for _ in 0..8 {
        let Away { mut cluster, leader, away, last, .. } = away(150).await;
        let before = snapshot_file(&cluster, leader);
        let whole = before.as_ref().map_or(0, Vec::len);
        let transfers = cluster.transfers();
        transfers.set(Gate::BreaksAt(20));
        cluster.heal();
        cluster.applied(away, last).await;
        if before.is_none() || snapshot_file(&cluster, leader) != before || cluster.leader().await != leader {
            // A newer snapshot has taken its place, and begins at its beginning.
            continue;
        }
        let sent = transfers.all();
        assert_eq!(sent.len(), 2, "{sent:?}");
        // On the way a piece has four bytes less than in the file.
        let again = sent.iter().map(|sent| sent.bytes).sum::<usize>().saturating_sub(whole);
        let most = AHEAD * (PIECE_BYTES + VALUE_BYTES) + 2 * 1024;
        assert!(again <= most, "{again} bytes of {whole} were sent twice, at most {most} may be: {sent:?}");
        assert!(sent[0].bytes > 10 * PIECE_BYTES, "{sent:?}");
        // What it was given is durable.
        cluster.crash(away).await;
        cluster.start(away).await;
        cluster.applied(away, last).await;
        return;
    }
    panic!("the leader took a newer snapshot each time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_crashes_midway_begins_again_and_nothing_half_is_left() {
    let _alone = ALONE.lock().await;
    let Away { mut cluster, away, last, .. } = away(100).await;
    let transfers = cluster.transfers();
    transfers.set(Gate::WaitsAt(10));
    cluster.heal();
    transfers.reached(10).await;
    assert!(cluster.snapshot_files(away).iter().any(|file| file.ends_with(".tmp")));
    cluster.crash(away).await;
    transfers.set(Gate::Open);
    cluster.start(away).await;
    cluster.applied(away, last).await;
    assert_eq!(entries(&cluster.replica(away)), 100 + 1);
    // The replica may be taking a snapshot of its own just now.
    let nothing_half = async {
        loop {
            let files = cluster.snapshot_files(away);
            if files.len() == 1 && files[0].ends_with(".snap") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await; // waits for a condition
        }
    };
    within(nothing_half).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_is_too_small_refuses_a_snapshot_before_and_while_it_comes_and_takes_it_later() {
    let _alone = ALONE.lock().await;
    let Away { cluster, leader, away, last, .. } = away(100).await;
    let transfers = cluster.transfers();
    let held = |disk: &coterie_env::mem::MemDisk| -> u64 {
        let folders = ["/data/snap", "/data/wal"].map(|folder| disk.list(Path::new(folder)).unwrap());
        folders.iter().flatten().map(|path| disk.open(path).unwrap().len().unwrap()).sum()
    };
    // No room from the start: it is told so before any piece is sent.
    cluster.disk(away).set_free_bytes(1 << 20);
    cluster.heal();
    within(async {
        while transfers.all().len() < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await; // waits for a condition
        }
    })
    .await;
    assert!(transfers.all().iter().all(|sent| sent.messages <= 1), "{:?}", transfers.all());

    // It runs full in the middle.
    transfers.set(Gate::WaitsAt(10));
    cluster.disk(away).set_free_bytes(u64::MAX);
    transfers.reached(10).await;
    cluster.disk(away).set_capacity(held(cluster.disk(away)) + 1024);
    transfers.set(Gate::Open);
    let refused = transfers.all().len() + 3;
    within(async {
        while transfers.all().len() < refused {
            tokio::time::sleep(Duration::from_millis(10)).await; // waits for a condition
        }
    })
    .await;
    assert_eq!(cluster.failure(away), None);
    assert_eq!(cluster.failure(leader), None);
    assert_eq!(entries(&cluster.replica(away)), 0, "what is half there is not shown");

    cluster.disk(away).set_capacity(u64::MAX);
    cluster.applied(away, last).await;
    assert_eq!(entries(&cluster.replica(away)), entries(&cluster.replica(leader)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_snapshot_is_not_sent_and_another_leader_sends_its_own() {
    let _alone = ALONE.lock().await;
    let Away { cluster, leader, away, third, last } = away(100).await;
    let transfers = cluster.transfers();
    transfers.set(Gate::WaitsAt(5));
    cluster.heal();
    transfers.reached(5).await;
    // Nothing takes its place while it is being sent, but for what was begun before.
    within(async {
        while snapshot_bytes(&cluster, leader).is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await; // waits for a condition
        }
    })
    .await;
    let file = &cluster.disk(leader).list(Path::new("/data/snap")).unwrap()[0];
    cluster.disk(leader).corrupt(file, 4 << 20).unwrap();
    transfers.set(Gate::BreaksAt(5));
    within(async {
        while cluster.failure(leader).is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await; // waits for a condition
        }
    })
    .await;
    let failure = cluster.failure(leader).unwrap();
    assert!(failure.contains("is damaged") && failure.contains("does not match"), "{failure}");
    cluster.leader_among(&[third]).await;
    cluster.applied(away, last).await;
    let Answer::Revision(_) =
        cluster.replica(third).read(&Query::Revision, ReadKind::Linearizable, DEADLINE).await.unwrap().answer
    else {
        panic!("asked for the revision");
    };
}
