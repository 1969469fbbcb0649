//! Volumes that run full.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::time::Duration;

use common::*;
use coterie_core::command::{Command, GroupOp, Query, Reply};
use coterie_core::{ErrorCode, GroupName};
use coterie_replication::{ProposeError, ReadKind};

fn refusal<T: std::fmt::Debug>(result: Result<T, ProposeError>) -> (ErrorCode, String) {
    match result.unwrap_err() {
        ProposeError::Rejected(rejection) => (rejection.code, rejection.message),
        ProposeError::NotLeader(leader) => panic!("not the leader; {leader:?} is"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_volumes_take_no_writes_but_elections_reads_and_what_ends_sessions_and_recover() {
    let mut cluster = Cluster::formed(3).await;
    cluster.must(create("a")).await;
    let client = Client::new();
    for node in cluster.nodes() {
        cluster.set_free_bytes(node, 2 * SEGMENT_BYTES).await;
    }
    let leader = cluster.leader().await;
    let (code, message) = refusal(cluster.replica(leader).propose(client.body(create("b")), DEADLINE).await);
    assert_eq!(code, ErrorCode::StorageFull);
    assert!(message.contains(&member(leader).0) && message.contains("bytes left"), "{message}");

    // A new leader writes an entry of its own, and a majority takes it, also when there is nothing left at all.
    for node in cluster.nodes() {
        cluster.set_free_bytes(node, 0).await;
    }
    cluster.crash(leader).await;
    let leader = cluster.leader().await;
    let replica = cluster.replica(leader);
    let group = Query::Group(GroupName::from("a"));
    within(async { while replica.read(&group, ReadKind::Linearizable, DEADLINE).await.is_err() {} }).await;
    assert_eq!(refusal(replica.propose(client.body(create("b")), DEADLINE).await).0, ErrorCode::StorageFull);
    within(replica.propose_from_reserve(client.body(create("from-the-reserve")), DEADLINE)).await.unwrap().1.unwrap();

    for node in cluster.nodes() {
        cluster.set_free_bytes(node, u64::MAX).await;
    }
    cluster.must(create("b")).await;
    assert_eq!(groups(&cluster.replica(cluster.leader().await)), ["a", "b", "from-the-reserve"]);
    assert!(cluster.nodes().into_iter().all(|node| cluster.failure(node).is_none()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_with_a_full_volume_stops_nobody_and_catches_up_when_there_is_room() {
    let cluster = Cluster::formed(3).await;
    cluster.must(create("a")).await;
    let leader = cluster.leader().await;
    let follower = cluster.nodes().into_iter().find(|node| *node != leader).unwrap();
    cluster.set_free_bytes(follower, 0).await;
    // More than is prepared. The machine refuses such a name, which is replicated and logged all the same.
    let too_long = create(&"x".repeat(usize::try_from(SEGMENT_BYTES / 4).unwrap()));
    let client = Client::new();
    for _ in 0..10 {
        cluster.must_body(client.body(too_long.clone())).await.1.unwrap_err();
    }
    let (last, _) = cluster.must(create("b")).await;
    assert!(cluster.replica(follower).applied().borrow().revision < last, "it takes no more than it has room for");
    assert_eq!(cluster.failure(follower), None);
    cluster.set_free_bytes(follower, u64::MAX).await;
    cluster.applied(follower, last).await;
    assert_eq!(groups(&cluster.replica(follower)), ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_has_no_room_waits_for_it() {
    let cluster = Cluster::with_snapshots_every(1, 10).await.form().await;
    cluster.set_free_bytes(1, 16 << 20).await;
    for number in 0..50 {
        cluster.must(create(&format!("g-{number}"))).await;
    }
    assert!(!cluster.has_snapshot(1));
    assert_eq!(cluster.failure(1), None);
    cluster.set_free_bytes(1, u64::MAX).await;
    within(async {
        while !cluster.has_snapshot(1) {
            tokio::time::sleep(Duration::from_millis(20)).await; // waits for a condition
        }
    })
    .await;
    cluster.must(create("b")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_majority_of_full_followers_is_said_at_once_and_what_ends_sessions_still_commits() {
    let cluster = Cluster::formed(3).await;
    cluster.must(create("a")).await;
    let leader = cluster.leader().await;
    let followers: Vec<u64> = cluster.nodes().into_iter().filter(|node| *node != leader).collect();
    let replica = cluster.replica(leader);
    let client = Client::new();
    for follower in &followers {
        cluster.set_free_bytes(*follower, 0).await;
    }
    let large = create(&"x".repeat(usize::try_from(SEGMENT_BYTES / 4).unwrap()));
    let refused = within(async {
        loop {
            match replica.propose(client.body(large.clone()), DEADLINE).await {
                // The followers say it with their next heartbeat.
                Ok(_) => {}
                refused @ Err(_) => return refusal(refused),
            }
        }
    })
    .await;
    assert_eq!(refused.0, ErrorCode::StorageFull, "{}", refused.1);
    assert!(followers.iter().all(|follower| refused.1.contains(&member(*follower).0)), "{}", refused.1);
    assert!(refused.1.contains("0 bytes left"), "{}", refused.1);
    let open = Command::OpenSession { member: "m".into(), incarnation: 1, ttl_ms: 10_000 };
    let (_, opened) = within(replica.propose(client.body(open), DEADLINE)).await.unwrap();
    let Reply::Session(session) = opened.unwrap() else { panic!("a session was asked for") };
    let expire = body(None, Command::ExpireSessions(vec![session]));
    within(replica.propose(expire, DEADLINE)).await.unwrap().1.unwrap();
    // What gives something back is taken too, and only while there is something.
    let delete = |name: &str| Command::Group { name: GroupName::from(name), op: GroupOp::Delete };
    within(replica.propose(client.body(delete("a")), DEADLINE)).await.unwrap().1.unwrap();
    assert_eq!(refusal(replica.propose(client.body(delete("a")), DEADLINE).await).0, ErrorCode::StorageFull);
    // Those that do not lead have nothing to refuse.
    let asked = cluster.replica(followers[0]).propose(client.body(create("c")), DEADLINE).await;
    assert_eq!(asked.unwrap_err(), ProposeError::NotLeader(Some(member(leader))));

    // One of them is a majority with the leader.
    cluster.set_free_bytes(followers[0], u64::MAX).await;
    within(async { while replica.propose(client.body(create("b")), DEADLINE).await.is_err() {} }).await;
    assert!(cluster.nodes().into_iter().all(|node| cluster.failure(node).is_none()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_proposed_and_not_committed_is_bounded_however_long_it_lasts() {
    let cluster = Cluster::formed(3).await;
    cluster.must(create("a")).await;
    let leader = cluster.leader().await;
    let replica = cluster.replica(leader);
    for follower in cluster.nodes().into_iter().filter(|node| *node != leader) {
        cluster.set_free_bytes(follower, 0).await;
    }
    // From the reserve, until the followers have none: their heartbeats go on.
    let client = Client::new();
    let large = create(&"x".repeat(1 << 20));
    let hopeless = Duration::from_millis(100);
    let mut proposed = 0;
    let code = loop {
        let (code, message) = refusal(replica.propose_from_reserve(client.body(large.clone()), hopeless).await);
        match code {
            ErrorCode::Unknown => proposed += 1,
            code => break (code, message),
        }
        assert!(proposed <= 8, "8 MiB are on their way, and more is taken");
    };
    assert_eq!(code.0, ErrorCode::Overloaded, "{}", code.1);
    for node in cluster.nodes() {
        cluster.set_free_bytes(node, u64::MAX).await;
    }
    cluster.must(create("b")).await;
    assert!(cluster.nodes().into_iter().all(|node| cluster.failure(node).is_none()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_leader_gives_the_lead_to_a_replica_that_has_room_and_keeps_it_when_none_has() {
    let cluster = Cluster::formed(3).await;
    cluster.must(create("a")).await;
    let full = cluster.leader().await;
    let others: Vec<u64> = cluster.nodes().into_iter().filter(|node| *node != full).collect();
    let client = Client::new();
    for node in cluster.nodes() {
        cluster.set_free_bytes(node, 0).await;
    }
    let term = cluster.replica(full).leadership().borrow().term;
    refusal(cluster.replica(full).propose(client.body(create("b")), DEADLINE).await);
    cluster.set_free_bytes(others[0], u64::MAX).await; // several heartbeats
    assert_eq!(cluster.replica(full).leadership().borrow().term, term, "nobody had room");

    cluster.set_free_bytes(others[1], u64::MAX).await;
    within(async {
        loop {
            let leader = cluster.leader().await;
            match cluster.replica(leader).propose(client.body(create("b")), DEADLINE).await {
                Ok((_, outcome)) => break outcome.unwrap(),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await, // waits for a condition
            }
        }
    })
    .await;
    assert_ne!(cluster.leader().await, full);
    assert_eq!(cluster.replica(cluster.leader().await).leadership().borrow().term, term + 1, "it went once");
}
