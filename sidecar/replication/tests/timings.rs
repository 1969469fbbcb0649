//! Whatever the timers: who leads is replaced when it is gone, and everything that was acknowledged is there.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{Cluster, create};
use coterie_replication::Timing;

/// Everyone's replicas but this one.
fn others(cluster: &Cluster, gone: u64) -> Vec<u64> {
    cluster.nodes().into_iter().filter(|node| *node != gone).collect()
}

async fn another_leads_and_writes_after_the_leader_is_cut_off(timing: Timing) {
    let cluster = Cluster::formed_with(3, timing).await;
    let (before, _) = cluster.must(create("before")).await;
    let old = cluster.leader().await;
    cluster.cut(old);
    let new = cluster.leader_among(&others(&cluster, old)).await;
    assert_ne!(new, old);
    // The one that is cut off stops to count itself a leader with a majority, so the write goes to who leads now.
    let (after, _) = cluster.must(create("after")).await;
    assert!(after > before);
    cluster.heal();
    cluster.must(create("healed")).await;
}

async fn another_leads_and_writes_after_the_leader_has_crashed(timing: Timing) {
    let mut cluster = Cluster::formed_with(3, timing).await;
    let (before, _) = cluster.must(create("before")).await;
    let old = cluster.leader().await;
    cluster.crash(old).await;
    let new = cluster.leader().await;
    assert_ne!(new, old);
    let (after, _) = cluster.must(create("after")).await;
    assert!(after > before);
    // It comes back under its timers and follows: with the other one gone there is no majority without it.
    cluster.start(old).await;
    cluster.crash(new).await;
    let (last, _) = cluster.must(create("last")).await;
    assert!(last > after);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_fast_timers_another_replica_leads_after_the_leader_is_cut_off() {
    another_leads_and_writes_after_the_leader_is_cut_off(Timing::FAST).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_fast_timers_another_replica_leads_after_the_leader_has_crashed() {
    another_leads_and_writes_after_the_leader_has_crashed(Timing::FAST).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_slow_timers_another_replica_leads_after_the_leader_has_crashed() {
    another_leads_and_writes_after_the_leader_has_crashed(Timing::SLOW).await;
}
