//! Maps and locks while members are killed: a cluster for each test, over both wires.

use std::time::{Duration, Instant};

use coterie_cli::local::LocalCluster;
use coterie_conformance::harness::{SESSION_TIMEOUT_MS, cluster, start};
use coterie_conformance::wire::primitives::{MapChange, acquire, get, put, watch};
use coterie_conformance::{Events, Failure, Grpc, Http, Wire, eventually, run};
use coterie_core::routing::partition_of;
use coterie_proto::v1;

/// After a failure the rest goes on within the session time-out plus this.
const SLACK: Duration = Duration::from_secs(2);

fn wires<W: Wire>(cluster: &LocalCluster) -> [W; 3] {
    [0, 1, 2].map(|place| W::connect(&cluster.endpoint(place)))
}

/// Which place leads the partition of a primitive.
async fn leader_of(cluster: &LocalCluster, kind: &str, name: &str, not: Option<usize>) -> usize {
    let index = partition_of(kind, name, 3) as usize - 1;
    let asked = not.map_or(0, |place| (place + 1) % 3);
    eventually("the partition has a leader", || async {
        let status = Grpc::connect(&cluster.endpoint(asked)).status().await.map_err(|failure| failure.to_string())?;
        let data = status.partition_groups.iter().find(|group| group.name == "data").ok_or("no group")?;
        let leader = &data.partitions[index].leader;
        let place = (0..3).find(|place| *leader == format!("member-{}", place + 1) && Some(*place) != not);
        place.ok_or(format!("{leader:?}"))
    })
    .await
}

/// Puts one key after another, each until it is acknowledged: their revisions, in order.
async fn put_all<W: Wire>(wire: &W, map: &str, numbers: std::ops::Range<usize>) -> Vec<u64> {
    let mut revisions = Vec::new();
    for number in numbers {
        let (key, value) = (format!("k-{number}"), number.to_string());
        // One request id, so that it is there once.
        let wire = wire.identified(uuid::Uuid::now_v7(), uuid::Uuid::now_v7());
        let written = eventually("the write is acknowledged", || async {
            wire.put(put(map, &key, &value)).await.map_err(|failure| failure.to_string())
        });
        revisions.push(written.await.revision);
    }
    revisions
}

/// The revisions of the next so many changes; none was skipped or told twice.
async fn told(events: &mut Events<v1::MapEvent>, count: usize) -> (Vec<u64>, String) {
    let (mut revisions, mut last) = (Vec::new(), String::new());
    while revisions.len() < count {
        let event = events.changed().await.expect("the watch goes on");
        assert!(matches!(event.kind, Some(MapChange::Put(_))), "{event:?}");
        revisions.push(event.revision);
        last = event.id;
    }
    (revisions, last)
}

async fn a_watch_has_neither_gap_nor_repetition<W: Wire>(cluster: &LocalCluster, map: &str) {
    let wires = wires::<W>(cluster);
    put_all(&wires[0], map, 0..1).await;
    let leader = leader_of(cluster, "map", map, None).await;
    let (beside, third) = ((leader + 1) % 3, (leader + 2) % 3);
    let mut at_leader = wires[leader].watch_map(watch(map, "", "")).await.expect("watch");
    let mut elsewhere = wires[beside].watch_map(watch(map, "", "")).await.expect("watch");
    at_leader.view().await;
    elsewhere.view().await;
    let mut made = put_all(&wires[third], map, 1..40).await;
    let (seen, last) = told(&mut at_leader, made.len() / 2).await;
    assert_eq!(seen, made[..seen.len()]);
    cluster.kill(leader).expect("kill");
    made.extend(put_all(&wires[third], map, 40..80).await);
    // The one goes on by itself; the other is resumed, with the last id that its reader has seen, through another member.
    let (whole, _) = told(&mut elsewhere, made.len()).await;
    assert_eq!(whole, made);
    let mut resumed = eventually("the watch is resumed", || async {
        wires[third].watch_map(watch(map, "", &last)).await.map_err(|failure| failure.to_string())
    })
    .await;
    let (rest, _) = told(&mut resumed, made.len() - seen.len()).await;
    assert_eq!(rest, made[seen.len()..]);
    start(cluster, [leader]).await;
    // All that was acknowledged is there, through the one that was killed as well.
    for (number, revision) in made.iter().enumerate().map(|(index, revision)| (index + 1, revision)) {
        let entry = wires[leader].entry(get(map, &format!("k-{number}"))).await.expect("get").entry.expect("an entry");
        assert_eq!((entry.revision, &entry.value[..]), (*revision, number.to_string().as_bytes()));
    }
}

#[test]
fn s112_d17_a_watch_of_a_map_has_neither_gap_nor_repetition_across_a_kill_of_the_leader() {
    run(async {
        let cluster = cluster().await;
        a_watch_has_neither_gap_nor_repetition::<Grpc>(&cluster, "over-grpc").await;
        a_watch_has_neither_gap_nor_repetition::<Http>(&cluster, "over-http").await;
    });
}

/// The holder's sidecar is killed, wherever it leads or not: the next one is granted the lock in time, and not before its
/// holder's word has run out.
async fn the_next_one_is_granted_it<W: Wire>(cluster: &LocalCluster, victim: usize, lock: &str, before: u64) -> u64 {
    let wires = wires::<W>(cluster);
    let (beside, third) = ((victim + 1) % 3, (victim + 2) % 3);
    let asked = wires[victim].acquire(acquire(lock, 0, 60_000)).await;
    let held = asked.unwrap_or_else(|failure: Failure| panic!("acquire {lock}: {failure}"));
    assert!(held.token > before);
    let next = wires[beside].within(Duration::from_secs(20));
    let waiting = next.acquire(acquire(lock, 20_000, 60_000));
    let killing = async {
        eventually("it waits", || async {
            let seen = wires[third].lock(lock).await.map_err(|failure| failure.to_string())?;
            if seen.waiting == 1 { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await;
        let asked = Instant::now();
        let vouched = wires[victim].renew_lock(lock, held.token).await.expect("renew").ttl_ms;
        let killed = Instant::now();
        cluster.kill(victim).expect("kill");
        (asked, killed, vouched)
    };
    let (granted, (asked, killed, vouched)) = tokio::join!(waiting, killing);
    let granted = granted.expect("the next one is granted it");
    let (since_asked, since_killed) = (asked.elapsed(), killed.elapsed());
    println!("{lock}: vouched for {vouched} ms; the next one held it {since_killed:?} after the kill");
    assert!(granted.token > held.token);
    assert!(since_asked >= Duration::from_millis(vouched), "not before the deadline: {since_asked:?}");
    assert!(since_killed < Duration::from_millis(SESSION_TIMEOUT_MS) + SLACK, "in time: {since_killed:?}");
    assert_eq!(wires[third].lock(lock).await.expect("get").token, granted.token);
    start(cluster, [victim]).await;
    let failure = wires[victim].renew_lock(lock, held.token).await.expect_err("it is lost");
    assert_eq!(failure.code, "token_unknown", "{failure}");
    wires[victim].release_lock(lock, granted.token).await.expect("release");
    granted.token
}

async fn locks_survive_kills<W: Wire>(cluster: &LocalCluster, lock: &str) {
    let mut token = 0;
    // One of the three leads the partition.
    for victim in 0..3 {
        token = the_next_one_is_granted_it::<W>(cluster, victim, lock, token).await;
    }
    // A holder whose leader is killed beside it keeps the lock, and its token.
    let leader = leader_of(cluster, "lock", lock, None).await;
    let (wires, beside) = (wires::<W>(cluster), (leader + 1) % 3);
    let held = wires[beside].acquire(acquire(lock, 0, 60_000)).await.expect("acquire");
    assert!(held.token > token);
    cluster.kill(leader).expect("kill");
    leader_of(cluster, "lock", lock, Some(leader)).await;
    let seen = eventually("the new leader knows it", || async {
        wires[beside].lock(lock).await.map_err(|failure| failure.to_string())
    })
    .await;
    assert_eq!(seen.token, held.token);
    assert!(wires[beside].renew_lock(lock, held.token).await.is_ok());
    eventually("the others are told that it is held", || async {
        match wires[(leader + 2) % 3].acquire(acquire(lock, 0, 60_000)).await {
            Ok(granted) => panic!("{granted:?}, while {held:?} is held"),
            Err(failure) if failure.code == "lock_held" => Ok(()),
            Err(failure) => Err(failure.to_string()),
        }
    })
    .await;
    wires[beside].release_lock(lock, held.token).await.expect("release");
    let next = wires[(leader + 2) % 3].acquire(acquire(lock, 0, 60_000)).await.expect("acquire");
    assert!(next.token > held.token);
    start(cluster, [leader]).await;
}

#[test]
fn s112_a_lock_of_a_killed_sidecar_goes_to_the_next_one_in_time_and_tokens_rise_across_leaders() {
    run(async {
        let cluster = cluster().await;
        locks_survive_kills::<Grpc>(&cluster, "over-grpc").await;
        locks_survive_kills::<Http>(&cluster, "over-http").await;
    });
}
