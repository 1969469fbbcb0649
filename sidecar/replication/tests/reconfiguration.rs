//! Replicas that come, go, are swapped, and whose leaders crash in between.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use common::*;
use coterie_core::{ErrorCode, MemberName, NodeId, Revision};
use coterie_replication::{Membership, Partition, ProposeError, Target};
use futures_util::future::join_all;

/// For steps that are to fail.
const SHORT: Duration = Duration::from_millis(300);

fn set(nodes: &[u64]) -> BTreeSet<NodeId> {
    nodes.iter().copied().map(NodeId).collect()
}

fn learners(membership: &Membership) -> Vec<u64> {
    membership.learners().map(|node| node.0).collect()
}

fn rejection<T: std::fmt::Debug>(result: Result<T, ProposeError>) -> (ErrorCode, String) {
    match result.unwrap_err() {
        ProposeError::Rejected(rejection) => (rejection.code, rejection.message),
        ProposeError::NotLeader(leader) => panic!("not the leader; {leader:?} is"),
    }
}

/// What is asked again: on a busy machine the leader changes, or seems to have lost its majority, at any time.
fn again(error: ProposeError) {
    if let ProposeError::Rejected(rejection) = error {
        let again = [ErrorCode::Unknown, ErrorCode::NoQuorum, ErrorCode::DeadlineExceeded];
        assert!(again.contains(&rejection.code), "{rejection:?}");
    }
}

/// Reconfigures as the driver does: on whoever leads, until it is done.
async fn reconfigure(cluster: &Cluster, voters: &[Target]) -> Membership {
    within(async {
        loop {
            let leader = cluster.leader().await;
            match cluster.replica(leader).reconfigure(voters, DEADLINE).await {
                Ok(reached) => return reached,
                Err(error) => again(error),
            }
        }
    })
    .await
}

/// Goes on step by step, on whoever leads, until a membership is committed. Returns who leads then.
async fn step_until(cluster: &Cluster, voters: &[Target], reached: impl Fn(&Membership) -> bool) -> u64 {
    within(async {
        loop {
            let leader = cluster.leader().await;
            let replica = cluster.replica(leader);
            let now = replica.membership();
            if now.is_committed && reached(&now) {
                return leader;
            }
            match replica.reconfigure_step(voters, DEADLINE).await {
                Ok(_) => {}
                Err(error) => again(error),
            }
        }
    })
    .await
}

/// What the one of `among` that leads says when it cannot go on in time.
async fn late(cluster: &Cluster, among: &[u64], voters: &[Target]) -> String {
    within(async {
        loop {
            let leader = cluster.leader_among(among).await;
            match cluster.replica(leader).reconfigure(voters, SHORT).await {
                Err(ProposeError::Rejected(rejection)) if rejection.code == ErrorCode::DeadlineExceeded => {
                    return rejection.message;
                }
                // On a busy machine the leader changes.
                Err(ProposeError::NotLeader(_)) => {}
                Err(ProposeError::Rejected(rejection)) if rejection.code == ErrorCode::NoQuorum => {}
                other => panic!("{other:?}"),
            }
        }
    })
    .await
}

fn assert_reached(membership: &Membership, nodes: &[u64]) {
    assert_eq!(membership.voters, [set(nodes)]);
    assert!(learners(membership).is_empty(), "{membership:?}");
    assert!(membership.is_committed);
}

/// Writes that many groups, whose names begin with `name`.
async fn fill(cluster: &Cluster, name: &str, count: usize) -> Revision {
    let mut last = Revision(0);
    for index in 0..count {
        last = cluster.must(create(&format!("{name}-{index:03}"))).await.0;
    }
    last
}

/// A step of the only voter.
async fn step(replica: &Partition, voters: &[Target]) -> Membership {
    within(replica.reconfigure_step(voters, DEADLINE)).await.unwrap().expect("there is something to do");
    replica.membership()
}

/// How many entries of a swap that brings a replica are committed: learner, joint, uniform.
fn entries_of_swap(now: &Membership, comes: u64) -> usize {
    match (now.is_joint(), now.is_voter(NodeId(comes)), learners(now).contains(&comes)) {
        (false, true, _) => 3,
        (true, _, _) => 2,
        (false, false, true) => 1,
        (false, false, false) => 0,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_never_formed_learns_the_log_and_then_votes() {
    let mut cluster = Cluster::formed(1).await;
    let written = fill(&cluster, "g", 50).await;
    for node in [2, 3] {
        cluster.add(node, member(node)).await;
        assert!(!cluster.replica(node).is_formed());
    }
    let voters = cluster.targets(&[1, 2, 3]);
    let leader = cluster.replica(1);

    let one = step(&leader, &voters).await;
    assert_eq!((one.voters.as_slice(), learners(&one)), ([set(&[1])].as_slice(), vec![2]));
    let two = step(&leader, &voters).await;
    assert_eq!((two.voters.as_slice(), learners(&two)), ([set(&[1])].as_slice(), vec![2, 3]));
    assert!(two.replicas[&NodeId(2)].held >= Some(written.0), "the first had caught up: {two:?}");
    let joint = step(&leader, &voters).await;
    assert!(joint.is_joint() && joint.voters == [set(&[1]), set(&[1, 2, 3])], "{joint:?}");
    assert_reached(&step(&leader, &voters).await, &[1, 2, 3]);
    assert_eq!(leader.reconfigure_step(&voters, DEADLINE).await, Ok(None));

    let (last, _) = cluster.must(create("after")).await;
    for node in [2, 3] {
        cluster.applied(node, last).await;
        let replica = cluster.replica(node);
        assert!(replica.is_formed());
        assert_eq!(groups(&replica), groups(&leader));
        let known = replica.membership();
        assert_reached(&known, &[1, 2, 3]);
        assert_eq!(known.replicas[&NodeId(1)].held, None, "the leader alone knows");
    }
    cluster.crash(1).await;
    assert_eq!(groups(&cluster.replica(cluster.leader().await)).len(), 51);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_never_formed_gets_a_snapshot_where_the_log_is_gone() {
    let mut cluster = Cluster::with_snapshots_every(1, 250).await.form().await;
    let mut written = 0;
    while cluster.first_in_log(1) == Some(Revision(0)) {
        fill(&cluster, &format!("g-{written}"), 100).await;
        written += 100;
    }
    for node in [2, 3] {
        cluster.add(node, member(node)).await;
    }
    assert_reached(&reconfigure(&cluster, &cluster.targets(&[1, 2, 3])).await, &[1, 2, 3]);
    let (last, _) = cluster.must(create("after")).await;
    for node in [2, 3] {
        cluster.applied(node, last).await;
        assert!(cluster.has_snapshot(node));
        assert_eq!(groups(&cluster.replica(node)).len(), written + 1);
    }
    // What it was given is durable, and a majority without the first has it all.
    cluster.crash(2).await;
    cluster.start(2).await;
    cluster.crash(1).await;
    assert_eq!(groups(&cluster.replica(cluster.leader().await)).len(), written + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_is_swapped_while_writes_go_on_and_none_is_lost() {
    let mut cluster = Cluster::formed(3).await;
    cluster.must(create("first")).await;
    let leader = cluster.leader().await;
    let goes = cluster.nodes().into_iter().find(|node| *node != leader).unwrap();
    cluster.add(4, member(4)).await;
    let stay: Vec<u64> = cluster.nodes().into_iter().filter(|node| *node != goes).collect();
    let (done, is_done) = tokio::sync::watch::channel(false);
    let write = |writer: usize| {
        let (cluster, is_done) = (&cluster, is_done.clone());
        async move {
            let mut written = Vec::new();
            while !*is_done.borrow() || written.len() < 20 {
                let name = format!("w-{writer}-{:04}", written.len());
                cluster.must(create(&name)).await;
                written.push(name);
            }
            written
        }
    };
    let swap = async {
        let reached = reconfigure(&cluster, &cluster.targets(&stay)).await;
        done.send_replace(true);
        reached
    };
    let (reached, written) = futures_util::future::join(swap, join_all((0..4).map(write))).await;
    assert_reached(&reached, &stay);
    let (last, _) = cluster.must(create("last")).await;
    cluster.applied(4, last).await;
    let held: BTreeSet<String> = groups(&cluster.replica(4)).into_iter().collect();
    assert!(written.iter().flatten().all(|name| held.contains(name)));
    // The one that went is not waited for, and gets nothing any longer.
    assert!(cluster.replica(goes).applied().borrow().revision < last);
    assert!(cluster.nodes().into_iter().all(|node| cluster.failure(node).is_none()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d14_a_lost_volume_is_replaced_by_swapping_identities_and_never_by_a_fourth_voter() {
    let mut cluster = Cluster::formed(3).await;
    fill(&cluster, "g", 20).await;
    let leader = cluster.leader().await;
    let lost = cluster.nodes().into_iter().find(|node| *node != leader).unwrap();
    let stay: Vec<u64> = cluster.nodes().into_iter().filter(|node| *node != lost).collect();
    cluster.lose(lost).await;
    cluster.add(9, member(lost)).await;
    let voters = cluster.targets(&[stay[0], stay[1], 9]);
    let seen = Mutex::new(BTreeMap::new());
    step_until(&cluster, &voters, |now| {
        assert!(now.voters.iter().all(|side| side.len() == 3), "{now:?}");
        let entries = entries_of_swap(now, 9);
        let index = *seen.lock().unwrap().entry(entries).or_insert(now.index);
        assert_eq!(index, now.index, "one entry for each step: {now:?}");
        entries == 3
    })
    .await;
    // Where the leader changes on a busy machine, a step may be committed without being seen.
    let indices: Vec<_> = seen.into_inner().unwrap().into_values().collect();
    assert!(indices.is_sorted_by(|one, next| one < next), "learner, joint, uniform: {indices:?}");
    let reached = reconfigure(&cluster, &voters).await;
    assert_reached(&reached, &[stay[0], stay[1], 9]);
    // The old identity has no seat any longer: two of three go on, with the new one.
    cluster.crash(stay[0]).await;
    let (last, _) = cluster.must(create("after")).await;
    cluster.applied(9, last).await;
    assert_eq!(groups(&cluster.replica(9)).len(), 21);
}

/// How a leader ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// After so many entries of the change were committed.
    After(usize),
    /// And with one more in its own log only.
    Amid(usize),
}

/// Replaces replica `goes` of three by a fourth, with a leader that ends on the way. Entries: learner, joint, uniform.
async fn swap_with_a_crash(leader_goes: bool, end: End) {
    let mut cluster = Cluster::formed(3).await;
    fill(&cluster, "g", 5).await;
    let leader = cluster.leader().await;
    let other = cluster.nodes().into_iter().find(|node| *node != leader).unwrap();
    let goes = if leader_goes { leader } else { other };
    cluster.add(4, member(4)).await;
    let stay: Vec<u64> = cluster.nodes().into_iter().filter(|node| *node != goes).collect();
    let voters = cluster.targets(&stay);
    let (End::After(entries) | End::Amid(entries)) = end;
    let leader = step_until(&cluster, &voters, |now| entries_of_swap(now, 4) >= entries).await;
    let replica = cluster.replica(leader);
    // A leader that hands over at this point does so when it is asked; one that is cut off cannot.
    let term = replica.leadership().borrow().term;
    if matches!(end, End::Amid(_)) {
        cluster.cut(leader);
        let stuck = replica.reconfigure_step(&voters, SHORT).await;
        assert!(stuck.is_err(), "{end:?} {stuck:?}");
    }
    cluster.crash(leader).await;
    cluster.heal();
    let reached = reconfigure(&cluster, &voters).await;
    assert_reached(&reached, &stay);
    let next = cluster.leader().await;
    assert!(cluster.replica(next).leadership().borrow().term > term);
    let (last, _) = cluster.must(create("after")).await;
    cluster.start(leader).await;
    for node in stay {
        cluster.applied(node, last).await;
        assert_eq!(groups(&cluster.replica(node)).len(), 6, "{end:?}");
        assert_eq!(cluster.failure(node), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_leader_finishes_whatever_step_the_one_before_crashed_at() {
    let ends = (0..3).flat_map(|entries| [End::After(entries), End::Amid(entries)]).chain([End::After(3)]);
    join_all(ends.map(|end| swap_with_a_crash(false, end))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_leader_finishes_also_when_the_one_that_crashed_was_to_go() {
    // It would have handed over after the joint entry.
    let ends =
        (0..2).flat_map(|entries| [End::After(entries), End::Amid(entries)]).chain([End::After(2), End::Amid(2)]);
    join_all(ends.map(|end| swap_with_a_crash(true, end))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_becomes_three_five_three_and_one_again() {
    let mut cluster = Cluster::formed(1).await;
    for node in 2..=5 {
        cluster.add(node, member(node)).await;
    }
    let mut written = 0;
    // Those that went come back with the directories that they had.
    for nodes in [&[1, 2, 3][..], &[1, 2, 3, 4, 5], &[3, 4, 5], &[5], &[1, 5], &[1, 2, 3, 4, 5]] {
        assert_reached(&reconfigure(&cluster, &cluster.targets(nodes)).await, nodes);
        let (last, _) = cluster.must(create(&format!("g-{written}"))).await;
        written += 1;
        assert!(nodes.contains(&cluster.leader().await));
        for node in nodes {
            cluster.applied(*node, last).await;
            assert_eq!(groups(&cluster.replica(*node)).len(), written);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_to_go_gives_the_lead_away_inside_of_the_joint_configuration() {
    let mut cluster = Cluster::formed(3).await;
    cluster.must(create("a")).await;
    let old = cluster.leader().await;
    cluster.add(4, member(4)).await;
    let stay: Vec<u64> = cluster.nodes().into_iter().filter(|node| *node != old).collect();
    let voters = cluster.targets(&stay);
    let replica = cluster.replica(old);
    while step_until(&cluster, &voters, Membership::is_joint).await != old {
        // On a busy machine it may have gone already.
        cluster.replica(cluster.leader().await).transfer_away().await;
    }
    let term = replica.leadership().borrow().term;
    let since = Instant::now();
    let handed_over = replica.reconfigure(&voters, DEADLINE).await;
    let took = since.elapsed();
    let Err(ProposeError::NotLeader(Some(next))) = handed_over else { panic!("{handed_over:?}") };
    assert!(stay.iter().any(|node| member(*node) == next), "{next}");
    let leader = cluster.leader_among(&stay).await;
    assert_eq!(member(leader), next);
    assert!(took < Duration::from_millis(700), "took {took:?}");
    assert!(cluster.replica(leader).membership().is_joint());
    assert_eq!(cluster.replica(leader).leadership().borrow().term, term + 1);
    assert_reached(&reconfigure(&cluster, &voters).await, &stay);
    cluster.must(create("b")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_voter_is_replaced_by_another_one() {
    let mut cluster = Cluster::formed(1).await;
    fill(&cluster, "g", 10).await;
    cluster.add(2, member(2)).await;
    assert_reached(&reconfigure(&cluster, &cluster.targets(&[2])).await, &[2]);
    assert_eq!(cluster.leader().await, 2);
    cluster.lose(1).await;
    cluster.must(create("after")).await;
    assert_eq!(groups(&cluster.replica(2)).len(), 11);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_voters_may_be_declared_at_any_step() {
    let join = join_all((0..=3).map(|entries| async move {
        let mut cluster = Cluster::formed(3).await;
        cluster.must(create("a")).await;
        let leader = cluster.leader().await;
        let goes = cluster.nodes().into_iter().find(|node| *node != leader).unwrap();
        let stay: Vec<u64> = cluster.nodes().into_iter().filter(|node| *node != goes).collect();
        cluster.add(4, member(4)).await;
        cluster.add(5, member(5)).await;
        let first = cluster.targets(&[stay[0], stay[1], 4]);
        step_until(&cluster, &first, |now| entries_of_swap(now, 4) >= entries).await;
        assert_reached(&reconfigure(&cluster, &cluster.targets(&[stay[0], stay[1], 5])).await, &[stay[0], stay[1], 5]);
        // And back to where it was.
        assert_reached(&reconfigure(&cluster, &cluster.targets(&[1, 2, 3])).await, &[1, 2, 3]);
        cluster.must(create("b")).await;
    }));
    join.await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_is_refused_and_changes_nothing() {
    let mut cluster = Cluster::formed(3).await;
    cluster.must(create("a")).await;
    cluster.add(4, member(4)).await;
    let leader = cluster.leader().await;
    let replica = cluster.replica(leader);
    let before = replica.membership();
    let named = |node: u64, name: &str| Target { node: NodeId(node), member: MemberName(name.to_owned()) };
    let with = |other: Target| cluster.targets(&[1, 2, 3]).into_iter().chain([other]).collect::<Vec<_>>();
    let refused: [(Vec<Target>, &str); 4] = [
        (vec![], "no voters are declared"),
        (with(named(9, "member-3")), "member-3 is declared twice, as node 3 and as node 9"),
        (with(named(3, "member-9")), "node 3 is declared twice, as member-3 and as member-9"),
        (vec![target(1), target(2), named(3, "member-9")], "node 3 is declared as member-9, and it is member-3"),
    ];
    for (voters, sentence) in refused {
        let (code, message) = rejection(replica.reconfigure(&voters, DEADLINE).await);
        assert_eq!(code, ErrorCode::InvalidArgument, "{message}");
        assert!(message.contains(sentence), "{message}");
    }
    assert_eq!(replica.membership().index, before.index);

    let follower = cluster.nodes().into_iter().find(|node| *node != leader).unwrap();
    let elsewhere = cluster.replica(follower).reconfigure(&cluster.targets(&[1, 2, 4]), DEADLINE).await;
    assert_eq!(elsewhere.unwrap_err(), ProposeError::NotLeader(Some(member(leader))));

    cluster.cut(leader);
    let voters = cluster.targets(&[1, 2, 4]);
    let (code, message) = rejection(replica.reconfigure(&voters, DEADLINE).await);
    assert_eq!(code, ErrorCode::NoQuorum, "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_that_does_not_answer_is_named_stops_no_write_and_is_dropped_when_another_is_declared() {
    let mut cluster = Cluster::formed(3).await;
    cluster.must(create("a")).await;
    for node in [4, 5] {
        cluster.add(node, member(node)).await;
    }
    cluster.cut(4);
    let message = late(&cluster, &[1, 2, 3], &cluster.targets(&[1, 2, 4])).await;
    let sentence = "member-4 (node 4) holds nothing of ";
    assert!(message.contains(sentence) && message.contains("answered no heartbeat"), "{message}");
    cluster.must(create("b")).await;
    assert_eq!(learners(&cluster.replica(cluster.leader().await).membership()), [4]);
    assert_reached(&reconfigure(&cluster, &cluster.targets(&[1, 2, 5])).await, &[1, 2, 5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn voters_of_whom_no_majority_answers_are_waited_for_before_writes_depend_on_them() {
    let cluster = Cluster::formed(3).await;
    cluster.must(create("a")).await;
    let leader = cluster.leader().await;
    let others: Vec<u64> = cluster.nodes().into_iter().filter(|node| *node != leader).collect();
    cluster.cut(others[0]);
    // Its last answers count until the lease has passed.
    within(async {
        let replica = cluster.replica(leader);
        while replica.membership().replicas[&NodeId(others[0])].silent_ms.is_some_and(|silent| silent < 500) {
            tokio::time::sleep(Duration::from_millis(20)).await; // waits for a condition
        }
    })
    .await;
    let message = late(&cluster, &[leader, others[1]], &cluster.targets(&[leader, others[0]])).await;
    assert!(message.contains(&member(others[0]).0), "{message}");
    assert!(!cluster.replica(cluster.leader().await).membership().is_joint());
    cluster.must(create("b")).await;
    cluster.heal();
    let mut voters = [leader, others[0]];
    voters.sort_unstable();
    assert_reached(&reconfigure(&cluster, &cluster.targets(&voters)).await, &voters);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_call_at_a_time_changes_the_membership() {
    let mut cluster = Cluster::formed(1).await;
    cluster.leader().await;
    cluster.add(2, member(2)).await;
    cluster.cut(2);
    let replica = cluster.replica(1);
    let voters = cluster.targets(&[1, 2]);
    let (first, second) =
        futures_util::future::join(replica.reconfigure(&voters, SHORT), replica.reconfigure(&voters, SHORT)).await;
    assert_eq!(rejection(first).0, ErrorCode::DeadlineExceeded);
    assert_eq!(rejection(second).0, ErrorCode::Overloaded);
    cluster.heal();
    assert_reached(&reconfigure(&cluster, &voters).await, &[1, 2]);
}
