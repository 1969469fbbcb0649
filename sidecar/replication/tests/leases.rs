//! Leased reads: quick while nobody else can lead, and never a step behind whoever does.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{Cluster, DEADLINE, body, create, within};
use coterie_core::ErrorCode;
use coterie_core::command::{Answer, Query};
use coterie_replication::{Partition, ProposeError, Read, ReadKind, Timing};
use tokio::time::Instant;

async fn leased(replica: &Partition) -> Result<Read, ProposeError> {
    replica.read(&Query::Groups, ReadKind::Leased, DEADLINE).await
}

fn shows(read: &Read, group: &str) -> bool {
    let Answer::Groups(groups) = &read.answer else { panic!("asked for groups, got {:?}", read.answer) };
    groups.iter().any(|view| view.name.as_str() == group)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d12_a_leased_read_asks_nobody_and_ends_with_the_lease() {
    // What is left of a lease when a heartbeat was lost just before.
    let soon = Duration::from_millis(100);
    let cluster = Cluster::formed(3).await;
    cluster.must(create("a")).await;
    for _ in 0..10 {
        let leader = cluster.leader().await;
        let replica = cluster.replica(leader);
        let since = Instant::now();
        cluster.cut(leader);
        let read = leased(&replica).await;
        // A machine that stood still in between has let the lease pass.
        if since.elapsed() < soon
            && let Ok(read) = read
        {
            assert!(shows(&read, "a"));
            assert_eq!(read.stale_ms, 0);
            let mut leadership = replica.leadership();
            within(leadership.wait_for(|now| !now.has_quorum)).await.unwrap();
            match leased(&replica).await.unwrap_err() {
                ProposeError::Rejected(why) if why.code == ErrorCode::NoQuorum => return,
                // Another one had campaigned before the link was cut, and its request was on its way.
                ProposeError::NotLeader(_) => {}
                other => panic!("refused for another reason: {other:?}"),
            }
        }
        cluster.heal();
    }
    panic!("no leased read while the lease held; or this machine stands still too often");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d12_the_only_replica_needs_nobody_to_hold_its_lease() {
    let cluster = Cluster::formed(1).await;
    let replica = cluster.replica(cluster.leader().await);
    let began = Instant::now();
    while began.elapsed() < 3 * replica.timing().lease() {
        assert!(replica.leads_by_lease(), "after {:?}", began.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await; // plays time without answers
    }
    assert!(leased(&replica).await.is_ok());
}

/// Reads on `replica` until `over`, and checks that nothing read after `acknowledged` misses the group.
async fn read_on(replica: Partition, group: String, acknowledged: Arc<AtomicBool>, over: Arc<AtomicBool>) -> usize {
    let mut answered = 0;
    while !over.load(Ordering::SeqCst) {
        let after = acknowledged.load(Ordering::SeqCst);
        let read = replica.read(&Query::Groups, ReadKind::Leased, Duration::from_millis(50)).await;
        if let Ok(read) = read {
            assert!(!after || shows(&read, &group), "a leased read is behind what another leader has acknowledged");
            answered += 1;
        }
        tokio::task::yield_now().await;
    }
    answered
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d12_no_leased_read_is_behind_another_leader() {
    let cluster = Cluster::formed(3).await;
    for round in 0..3 {
        let old = cluster.leader().await;
        let group = format!("round-{round}");
        let (acknowledged, over) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let reader = read_on(cluster.replica(old), group.clone(), acknowledged.clone(), over.clone());
        let reader = tokio::spawn(reader);
        cluster.cut(old);
        let others: Vec<_> = cluster.nodes().into_iter().filter(|node| *node != old).collect();
        let written = async {
            loop {
                let new = cluster.leader_among(&others).await;
                if cluster.replica(new).propose(body(None, create(&group)), DEADLINE).await.is_ok() {
                    return;
                }
            }
        };
        within(written).await;
        acknowledged.store(true, Ordering::SeqCst);
        // Long enough for the lease that the old leader had to pass, were it still believed in.
        tokio::time::sleep(Timing::NORMAL.lease() * 2).await; // plays an application that goes on reading
        over.store(true, Ordering::SeqCst);
        assert!(within(reader).await.unwrap() > 0, "the old leader answered while its lease held");
        cluster.heal();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d12_a_restarted_voter_keeps_the_lease_that_it_has_forgotten() {
    let mut cluster = Cluster::formed(3).await;
    cluster.must(create("a")).await;
    let old = cluster.leader().await;
    let others: Vec<_> = cluster.nodes().into_iter().filter(|node| *node != old).collect();
    let [restarted, waiting] = others[..] else { panic!("three replicas") };
    // One waits for a vote, and the other, which alone has kept the leader, forgets that it did.
    cluster.cut_between(old, waiting);
    let mut leadership = cluster.replica(waiting).leadership();
    within(leadership.wait_for(|now| !now.has_quorum)).await.unwrap();
    cluster.crash(restarted).await;
    cluster.cut_between(old, restarted);
    let since = Instant::now();
    cluster.start(restarted).await;
    let new = cluster.leader_among(&others).await;
    assert!(since.elapsed() >= Timing::NORMAL.lease(), "elected after {:?}", since.elapsed());
    assert!(BTreeSet::from([restarted, waiting]).contains(&new));
}
