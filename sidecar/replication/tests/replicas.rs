//! Three replicas: leaders, writes, reads, crashes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use common::*;
use coterie_core::command::{Answer, Command, GroupOp, Query, Reply};
use coterie_core::{ErrorCode, GroupName};
use coterie_replication::{ProposeError, ReadKind, WatchItem};
use futures_util::StreamExt as _;

fn code<T: std::fmt::Debug>(result: Result<T, ProposeError>) -> ErrorCode {
    match result.unwrap_err() {
        ProposeError::Rejected(rejection) => rejection.code,
        ProposeError::NotLeader(leader) => panic!("not the leader; {leader:?} is"),
    }
}

fn group(name: &str) -> Query {
    Query::Group(GroupName::from(name))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_elect_a_leader_and_all_apply_what_it_takes() {
    let cluster = Cluster::pristine(3).await;
    assert!(cluster.nodes().iter().all(|node| !cluster.replica(*node).is_formed()));
    let cluster = cluster.form().await;
    let (revision, reply) = cluster.must(create("a")).await;
    assert!(matches!(reply, Reply::Group(_)), "{reply:?}");
    for node in cluster.nodes() {
        cluster.applied(node, revision).await;
        assert_eq!(groups(&cluster.replica(node)), ["a"]);
        assert!(cluster.replica(node).is_formed());
        assert_eq!(cluster.replica(node).failed(), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forming_again_and_forming_everywhere_change_nothing() {
    let cluster = Cluster::formed(3).await.form().await;
    cluster.must(create("a")).await;
    let leader = cluster.leader().await;
    let cluster = cluster.form().await;
    assert_eq!(groups(&cluster.replica(leader)), ["a"]);
    let stranger = cluster.replica(leader).form(vec![target(77)]).await;
    assert!(stranger.unwrap_err().to_string().contains("not among the seats"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d12_a_follower_names_the_leader_and_proposes_nothing() {
    let cluster = Cluster::formed(3).await;
    let leader = cluster.leader().await;
    let follower = cluster.nodes().into_iter().find(|node| *node != leader).unwrap();
    let replica = cluster.replica(follower);
    let mut leadership = replica.leadership();
    within(leadership.wait_for(|now| now.leader == Some(member(leader)))).await.unwrap();
    let refused = replica.propose(body(None, create("a")), DEADLINE).await;
    assert_eq!(refused, Err(ProposeError::NotLeader(Some(member(leader)))));
    let refused = replica.read(&group("a"), ReadKind::Linearizable, DEADLINE).await;
    assert_eq!(refused, Err(ProposeError::NotLeader(Some(member(leader)))));
    assert!(groups(&cluster.replica(leader)).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s12_what_a_leader_decided_gets_into_the_log_of_its_own_term_only() {
    let cluster = Cluster::formed(3).await;
    loop {
        let leader = cluster.leader().await;
        let replica = cluster.replica(leader);
        let term = replica.leadership().borrow().term;
        let refused = replica.propose_in_term(term - 1, body(None, create("b")), DEADLINE).await;
        assert!(matches!(refused, Err(ProposeError::NotLeader(_))), "{refused:?}");
        let refused = replica.propose_in_term(term + 1_000, body(None, create("b")), DEADLINE).await;
        assert!(matches!(refused, Err(ProposeError::NotLeader(_))), "{refused:?}");
        match replica.propose_in_term(term, body(None, create("a")), DEADLINE).await {
            Ok((_, outcome)) => {
                outcome.unwrap();
                assert_eq!(groups(&replica), ["a"]);
                return;
            }
            // On a machine that stands still for a lease another one leads by now, or it leads in another term.
            Err(error) => {
                let now = replica.leadership().borrow().clone();
                assert!(!now.leading || now.term != term, "{error:?} in the term {term} of {now:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_replica_leads_itself_and_keeps_everything_over_a_crash() {
    let mut cluster = Cluster::formed(1).await;
    for index in 0..20 {
        cluster.must(create(&format!("g-{index:02}"))).await;
    }
    let before = groups(&cluster.replica(1));
    assert_eq!(before.len(), 20);
    assert_eq!(cluster.replica(1).silent_ms(), 0);
    let term = cluster.replica(1).leadership().borrow().term;
    cluster.crash(1).await;
    cluster.start(1).await;
    cluster.leader().await;
    assert_eq!(groups(&cluster.replica(1)), before);
    assert!(cluster.replica(1).leadership().borrow().term > term);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_replicas_crash_at_once_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::formed(3).await;
    for index in 0..20 {
        cluster.must(create(&format!("g-{index:02}"))).await;
    }
    for node in cluster.nodes() {
        cluster.crash(node).await;
    }
    for node in cluster.nodes() {
        cluster.start(node).await;
    }
    let leader = cluster.leader().await;
    assert_eq!(groups(&cluster.replica(leader)).len(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_crashes_and_the_next_one_has_everything_that_was_acknowledged() {
    let mut cluster = Cluster::formed(3).await;
    for round in 0..2 {
        for index in 0..10 {
            cluster.must(create(&format!("g-{round}-{index}"))).await;
        }
        let leader = cluster.leader().await;
        let term = cluster.replica(leader).leadership().borrow().term;
        cluster.crash(leader).await;
        let next = cluster.leader().await;
        assert_ne!(next, leader);
        assert!(cluster.replica(next).leadership().borrow().term > term);
        assert_eq!(groups(&cluster.replica(next)).len(), 10 * (round + 1));
        let (revision, _) = cluster.must(create(&format!("g-{round}-0"))).await;
        cluster.start(leader).await;
        cluster.applied(leader, revision).await;
        assert_eq!(groups(&cluster.replica(leader)), groups(&cluster.replica(next)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d11_a_retry_on_the_next_leader_gives_the_first_outcome_and_changes_nothing() {
    let mut cluster = Cluster::formed(3).await;
    let client = Client::new();
    let (_, opened) = cluster.must(Command::OpenSession { member: member(9), incarnation: 1, ttl_ms: 5_000 }).await;
    let Reply::Session(session) = opened else { panic!("{opened:?}") };
    let join = GroupOp::Join {
        session,
        metadata: [].into(),
        zone: String::new(),
        presence: coterie_core::command::Presence::Stream,
    };
    let body = client.body(Command::Group { name: "g".into(), op: join });
    let (first, outcome) = cluster.must_body(body.clone()).await;
    let Ok(Reply::Joined(joined)) = outcome else { panic!("{outcome:?}") };
    assert_eq!(joined.0.0, first.0);

    let leader = cluster.leader().await;
    cluster.crash(leader).await;
    let (second, outcome) = cluster.must_body(body).await;
    let Ok(Reply::Joined(again)) = outcome else { panic!("{outcome:?}") };
    assert!(second > first);
    assert_eq!(again.0, joined.0);
    let next = cluster.leader().await;
    assert_eq!(view(&cluster.replica(next), "g").unwrap().members.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s26_a_linearizable_read_shows_what_was_acknowledged_and_a_stale_one_says_how_old_it_may_be() {
    let cluster = Cluster::formed(3).await;
    let (revision, _) = cluster.must(create("a")).await;
    let leader = cluster.leader().await;
    let read = cluster.replica(leader).read(&group("a"), ReadKind::Linearizable, DEADLINE).await.unwrap();
    assert!(matches!(read.answer, Answer::Group(_)));
    assert!(read.revision >= revision);
    assert_eq!(read.stale_ms, 0);
    let follower = cluster.nodes().into_iter().find(|node| *node != leader).unwrap();
    cluster.applied(follower, revision).await;
    let read = cluster.replica(follower).read(&group("a"), ReadKind::Stale, DEADLINE).await.unwrap();
    assert!(read.stale_ms < 5_000, "{}", read.stale_ms);
    let unknown = cluster.replica(leader).read(&group("nobody"), ReadKind::Linearizable, DEADLINE).await;
    assert_eq!(code(unknown), ErrorCode::GroupUnknown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d12_a_leader_that_is_cut_off_answers_no_linearizable_read_and_takes_no_write() {
    let cluster = Cluster::formed(3).await;
    cluster.must(create("a")).await;
    let old = cluster.leader().await;
    let replica = cluster.replica(old);
    cluster.cut(old);
    // At once, before its lease has passed: it still believes that it leads.
    let since = Instant::now();
    let read = replica.read(&group("a"), ReadKind::Linearizable, Duration::from_secs(2)).await;
    assert_eq!(code(read), ErrorCode::NoQuorum);
    assert!(since.elapsed() < Duration::from_secs(2));

    let others: Vec<_> = cluster.nodes().into_iter().filter(|node| *node != old).collect();
    let new = cluster.leader_among(&others).await;
    cluster.replica(new).propose(body(None, create("b")), DEADLINE).await.unwrap().1.unwrap();
    let mut leadership = replica.leadership();
    within(leadership.wait_for(|now| !now.has_quorum)).await.unwrap();
    let read = replica.read(&group("b"), ReadKind::Linearizable, Duration::from_secs(2)).await;
    assert_eq!(code(read), ErrorCode::NoQuorum);
    assert_eq!(code(replica.propose(body(None, create("c")), DEADLINE).await), ErrorCode::NoQuorum);
    assert_eq!(code(replica.confirm_leadership(DEADLINE).await), ErrorCode::NoQuorum);
    let stale = replica.read(&Query::Groups, ReadKind::Stale, DEADLINE).await.unwrap();
    assert!(stale.stale_ms >= 400, "{}", stale.stale_ms);
    let Answer::Groups(stale) = stale.answer else { panic!() };
    assert_eq!(stale.len(), 1);

    cluster.heal();
    let (revision, _) = cluster.must(create("d")).await;
    cluster.applied(old, revision).await;
    assert_eq!(groups(&replica), ["a", "b", "d"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d11_a_write_that_was_proposed_and_not_committed_is_unknown_and_a_retry_settles_it() {
    let cluster = Cluster::formed(3).await;
    let old = cluster.leader().await;
    let client = Client::new();
    let body = client.body(create("a"));
    cluster.cut(old);
    let result = cluster.replica(old).propose(body.clone(), Duration::from_millis(200)).await;
    assert_eq!(code(result), ErrorCode::Unknown);
    cluster.heal();
    let (_, outcome) = cluster.must_body(body).await;
    assert!(matches!(outcome, Ok(Reply::Group(_))), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lead_moves_away_in_well_under_a_second() {
    let cluster = Cluster::formed(3).await;
    cluster.must(create("a")).await;
    let old = cluster.leader().await;
    let since = Instant::now();
    assert!(cluster.replica(old).transfer_away().await);
    let took = since.elapsed();
    let others: Vec<_> = cluster.nodes().into_iter().filter(|node| *node != old).collect();
    let new = cluster.leader_among(&others).await;
    assert!(took < Duration::from_millis(700), "took {took:?}");
    assert_eq!(groups(&cluster.replica(new)), ["a"]);
    // Who does not lead has nothing to give.
    assert!(cluster.replica(old).transfer_away().await);
    cluster.must(create("b")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_followers_keeps_the_lead() {
    let cluster = Cluster::formed(3).await;
    let leader = cluster.leader().await;
    cluster.cut(leader);
    let mut leadership = cluster.replica(leader).leadership();
    within(leadership.wait_for(|now| !now.has_quorum)).await.unwrap();
    assert!(!cluster.replica(leader).transfer_away().await);
    cluster.heal();
    cluster.must(create("a")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_cannot_be_decoded_is_refused_alike_everywhere_and_harms_nothing() {
    let cluster = Cluster::formed(3).await;
    let (revision, outcome) = cluster.must_body(Bytes::from_static(b"\xffrubbish")).await;
    assert_eq!(outcome.unwrap_err().code, ErrorCode::Internal);
    for node in cluster.nodes() {
        cluster.applied(node, revision).await;
        assert_eq!(cluster.replica(node).failed(), None);
    }
    cluster.must(create("a")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_may_be_on_its_way_is_refused_and_the_rest_is_applied() {
    let cluster = Cluster::formed(3).await;
    loop {
        let leader = cluster.leader().await;
        let replica = cluster.replica(leader);
        let before = replica.leadership().borrow().clone();
        let large = replica.propose(Bytes::from(vec![0xff; 9 * 1024 * 1024]), DEADLINE).await;
        let writes = (0..20).map(|_| replica.propose(Bytes::from(vec![0xff; 1024 * 1024]), PATIENCE));
        let results = futures_util::future::join_all(writes).await;
        let now = replica.leadership().borrow().clone();
        if !now.leading || now.term != before.term {
            // A machine that stands still for a lease: what was on its way went with its leader.
            continue;
        }
        assert_eq!(code(large), ErrorCode::TooLarge);
        let refused = results.iter().filter(|result| result.is_err()).count();
        assert_eq!(refused, 12);
        for result in results.into_iter().filter(Result::is_err) {
            assert_eq!(code(result), ErrorCode::Overloaded);
        }
        break;
    }
    cluster.must(create("a")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_replica_refuses_and_says_that_it_did_not_fail() {
    let mut cluster = Cluster::formed(1).await;
    cluster.leader().await;
    let replica = cluster.replica(1);
    cluster.stop(1).await;
    assert_eq!(code(replica.propose(body(None, create("a")), DEADLINE).await), ErrorCode::ShuttingDown);
    assert_eq!(code(replica.read(&Query::Groups, ReadKind::Linearizable, DEADLINE).await), ErrorCode::ShuttingDown);
    assert_eq!(replica.failed(), None);
    within(replica.leadership().wait_for(|now| !now.leading)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_whose_disk_fails_says_so_and_ends_its_watches_and_the_others_go_on() {
    let cluster = Cluster::formed(3).await;
    cluster.must(create("a")).await;
    let broken = cluster.leader().await;
    let replica = cluster.replica(broken);
    let mut watcher = replica.watch(&(&GroupName::from("a")).into(), None);
    cluster.fail_disk(broken);
    let code = code(replica.propose(body(None, create("b")), DEADLINE).await);
    assert!([ErrorCode::Unknown, ErrorCode::Internal].contains(&code), "{code:?}");
    assert!(matches!(within(watcher.next()).await, Some(WatchItem::Snapshot(_))));
    assert_eq!(within(watcher.next()).await, None);
    assert!(replica.failed().is_some());
    let others: Vec<_> = cluster.nodes().into_iter().filter(|node| *node != broken).collect();
    cluster.leader_among(&others).await;
    cluster.must(create("c")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_another_generation_or_version_are_refused_with_a_sentence() {
    let cluster = Cluster::formed(1).await;
    let replica = cluster.replica(1);
    let refused = replica.handle(2, Bytes::from_static(&[2, 5, 0])).await.unwrap_err();
    assert!(refused.contains("generation 5"), "{refused}");
    let refused = replica.handle(2, Bytes::from_static(&[9, 0, 0])).await.unwrap_err();
    assert!(refused.contains("version 9"), "{refused}");
    let refused = replica.handle(1, Bytes::from_static(&[9, 0, 0])).await.unwrap_err();
    assert!(refused.contains("version 9"), "{refused}");
    let mut answers = replica.handle_snapshot(futures_util::stream::iter([Bytes::from_static(&[9, 0, 0])]).boxed());
    let refused = answers.next().await.unwrap().unwrap_err();
    assert!(refused.contains("version 9"), "{refused}");
    let refused = replica.handle(99, Bytes::new()).await.unwrap_err();
    assert!(refused.contains("kind 99"), "{refused}");
    let mut answers = replica.handle_snapshot(futures_util::stream::iter([Bytes::new()]).boxed());
    let refused = answers.next().await.unwrap().unwrap_err();
    assert!(refused.contains("ends early"), "{refused}");
    assert!(answers.next().await.is_none());
}
