//! What needs members to be killed or paused: a cluster for each test.

use std::time::{Duration, Instant};

use coterie_cli::local::LocalCluster;
use coterie_client::{Client, EventKind, JoinOptions, SessionState};
use coterie_conformance::harness::{SESSION_TIMEOUT_MS, cluster, start};
use coterie_conformance::wire::{Change, Events, Joining};
use coterie_conformance::{Failure, Grpc, Http, Wire, eventually, run};
use coterie_proto::v1;

/// After a failure the rest has a new leader within the session time-out plus this.
const SLACK: Duration = Duration::from_secs(2);

fn wire<W: Wire>(cluster: &LocalCluster, place: usize) -> W {
    W::connect(&cluster.endpoint(place))
}

/// Repeats a call until it succeeds.
async fn succeeds<T>(what: &str, mut call: impl AsyncFnMut() -> Result<T, Failure>) -> T {
    let begun = Instant::now();
    loop {
        match call().await {
            Ok(answer) => return answer,
            Err(failure) => assert!(begun.elapsed() < Duration::from_secs(20), "{what}: {failure}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await; // waits for a condition
    }
}

/// Repeats a call until it is refused with this code.
async fn refused<T>(code: &str, mut call: impl AsyncFnMut() -> Result<T, Failure>) -> Failure {
    let begun = Instant::now();
    loop {
        let last = match call().await {
            Err(failure) if failure.code == code => return failure,
            Err(failure) => failure.to_string(),
            Ok(_) => "it succeeded".to_owned(),
        };
        assert!(begun.elapsed() < Duration::from_secs(20), "waited for {code}; last: {last}");
        tokio::time::sleep(Duration::from_millis(20)).await; // waits for a condition
    }
}

/// Which place leads the partition that holds a group: all partitions are tried, by what the status says.
async fn partition_leaders(cluster: &LocalCluster, place: usize) -> Vec<String> {
    let status = wire::<Grpc>(cluster, place).status().await.expect("status");
    let data = status.partition_groups.iter().find(|group| group.name == "data").expect("the group data");
    data.partitions.iter().map(|partition| partition.leader.clone()).collect()
}

async fn connection(watch: &mut Events<v1::GroupEvent>, wanted: v1::SessionState) {
    let what = format!("the watch says {wanted:?}");
    watch
        .change(&what, |change| match change {
            Change::Connection(connection) if connection.state() == wanted => Some(()),
            _ => None,
        })
        .await;
}

/// What both wires show of a member that is cut off from the majority.
async fn without_a_majority<W: Wire>(cluster: &LocalCluster, group: &str) {
    let wire: W = wire(cluster, 0);
    let quick = wire.within(Duration::from_secs(1));
    let begun = Instant::now();
    let failure = refused("no_quorum", async || quick.create("not-made", None).await).await;
    assert_eq!(failure.retry, "later", "{failure}");
    let begun_one = Instant::now();
    let failure = quick.get(group).await.expect_err("no linearizable read");
    assert!(begun_one.elapsed() < Duration::from_secs(3), "within its deadline");
    assert_eq!((failure.code.as_str(), failure.retry.as_str()), ("no_quorum", "later"), "{failure}");
    let stale = wire.read(group, v1::Consistency::Stale).await.expect("stale reads go on");
    assert_eq!((stale.consistency(), stale.name.as_str()), (v1::Consistency::Stale, group));
    assert!(stale.stale_ms > 0, "it says how old it may be: {stale:?}");
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[test]
fn s18_s38_s103_s108_d12_without_a_majority_calls_fail_with_a_code_and_watches_say_so() {
    run(async {
        let cluster = cluster().await;
        let (grpc, http): (Grpc, Http) = (wire(&cluster, 0), wire(&cluster, 0));
        let group = "majority";
        grpc.create(group, None).await.expect("create");
        let mut watches = [grpc.watch(group, "").await.expect("watch"), http.watch(group, "").await.expect("watch")];
        cluster.kill(1).expect("kill");
        // One of three is gone: nothing else changes, and it still counts as a voter.
        succeeds("two of three are a majority", async || grpc.get(group).await).await;
        let status = grpc.status().await.expect("status");
        assert_eq!(status.members.iter().filter(|member| member.voter).count(), 3);
        assert!(status.partition_groups.iter().flat_map(|it| &it.partitions).all(|it| it.replicas.len() == 3));

        cluster.kill(2).expect("kill");
        without_a_majority::<Grpc>(&cluster, group).await;
        without_a_majority::<Http>(&cluster, group).await;
        for watch in &mut watches {
            connection(watch, v1::SessionState::Suspended).await;
        }

        start(&cluster, [2]).await;
        succeeds("two of three are a majority again", async || grpc.create("made", None).await).await;
        for watch in &mut watches {
            connection(watch, v1::SessionState::Live).await;
        }
        let failure = grpc.get("not-made").await.expect_err("what was refused was not applied");
        assert_eq!(failure.code, "group_unknown", "{failure}");
    });
}

#[test]
fn s27_s112_s113_d4_d5_acknowledged_writes_survive_a_kill_of_all_members_and_terms_go_on_rising() {
    run(async {
        let cluster = cluster().await;
        let wires: [Grpc; 3] = [0, 1, 2].map(|place| wire(&cluster, place));
        wires[0].join("terms", Joining::lease(60_000)).await.expect("join");
        let before = wires[1].get("terms").await.expect("get").term;
        // Writes are under way on all three when all three are killed.
        let mut writers = tokio::task::JoinSet::new();
        for (place, wire) in wires.clone().into_iter().enumerate() {
            writers.spawn(async move {
                let mut acknowledged = Vec::new();
                for number in 0_u64.. {
                    let name = format!("kept-{place}-{number}");
                    let config = v1::GroupConfig { release_timeout_ms: Some(number), max_members: None };
                    match wire.create(&name, Some(config)).await {
                        Ok(_) => acknowledged.push((name, number)),
                        Err(_) => break,
                    }
                }
                acknowledged
            });
        }
        eventually("many writes are acknowledged", || async {
            let groups = wires[0].list().await.map_err(|failure| failure.to_string())?;
            if groups.len() > 50 { Ok(()) } else { Err(groups.len().to_string()) }
        })
        .await;
        for place in 0..3 {
            cluster.kill(place).expect("kill");
        }
        let acknowledged = writers.join_all().await.concat();
        assert!(acknowledged.len() > 50);
        start(&cluster, [0, 1, 2]).await;
        for (name, number) in &acknowledged {
            let group = succeeds("get", async || wires[1].get(name).await).await;
            assert_eq!(group.config.and_then(|config| config.release_timeout_ms), Some(*number), "{name}");
        }
        // The old member goes when its session does; the next one leads.
        succeeds("join", async || wires[2].join("terms", Joining::lease(60_000)).await).await;
        let after = eventually("the next one leads", || async {
            let group = wires[0].get("terms").await.map_err(|failure| failure.to_string())?;
            if group.term > before && group.leader != 0 {
                Ok(group)
            } else {
                Err(format!("{group:?}, before {before}"))
            }
        })
        .await;
        println!("{} acknowledged writes are there, term {} after {before}", acknowledged.len(), after.term);
    });
}

#[test]
fn s8_s11_s12_d3_members_of_a_killed_sidecar_leave_and_the_next_one_leads_in_time() {
    run(async {
        let cluster = cluster().await;
        // The sidecar that is killed also leads the partition of the group, whichever that is: all three are tried.
        for victim in 0..3 {
            let (observer, third) = ((victim + 1) % 3, (victim + 2) % 3);
            let wire: Grpc = wire(&cluster, observer);
            let group = format!("killed-{victim}");
            let first = self::wire::<Grpc>(&cluster, victim).hold(&group, Joining::default()).await.expect("join");
            let second = self::wire::<Http>(&cluster, third).hold(&group, Joining::default()).await.expect("join");
            let mut watch = wire.watch(&group, "").await.expect("watch");
            let term = watch.snapshot().await.term;
            let leaders = partition_leaders(&cluster, observer).await;
            let killed = Instant::now();
            cluster.kill(victim).expect("kill");
            assert_eq!(watch.left(first.id()).await, "session_expired");
            let (elected_in, leader) = watch.elected(term).await;
            let took = killed.elapsed();
            assert_eq!(leader, second.id(), "the longest-standing candidate");
            assert!(elected_in > term);
            assert!(took < Duration::from_millis(SESSION_TIMEOUT_MS) + SLACK, "it took {took:?}");
            println!("killed member-{} of leaders {leaders:?}: next leader after {took:?}", victim + 1);
            // It comes back by itself, as the same member with a new session.
            start(&cluster, [victim]).await;
            let status = wire.status().await.expect("status");
            assert!(status.members.iter().all(|member| member.refused.is_empty()), "{status:?}");
        }
    });
}

#[test]
fn s36_d16_a_sidecar_that_is_stopped_hands_over_before_it_goes() {
    run(async {
        let cluster = cluster().await;
        let group = "stopped";
        let first = wire::<Grpc>(&cluster, 0).hold(group, Joining::default()).await.expect("join");
        let second = wire::<Grpc>(&cluster, 1).hold(group, Joining::default()).await.expect("join");
        let mut watch = wire::<Grpc>(&cluster, 2).watch(group, "").await.expect("watch");
        let term = watch.snapshot().await.term;
        // The application does as it is told, as the example worker does.
        let releasing = {
            let wire: Grpc = wire(&cluster, 0);
            let mut said = first.said;
            let id = first.joined.member.as_ref().expect("a member").id;
            async move {
                said.find("the leader is told", |said| {
                    matches!(said, coterie_conformance::wire::Said::Self_(state) if state.member == id && state.releasing)
                        .then_some(())
                })
                .await;
                // The sidecar may have gone on by itself once the release is committed.
                let _ = wire.release(group, term).await;
            }
        };
        let stopped = Instant::now();
        let (status, ()) = tokio::join!(cluster.stop(0), releasing);
        let (_, leader) = watch.elected(term).await;
        assert_eq!(leader, second.id());
        let took = stopped.elapsed();
        assert!(took < Duration::from_millis(SESSION_TIMEOUT_MS) + SLACK, "not by its session's time-out: {took:?}");
        assert!(status.expect("stop").is_some_and(|status| status.success()), "it ends by itself, and well");
    });
}

#[test]
fn s37_s38_a_paused_sidecar_costs_the_leadership_and_the_guard_says_no_before_another_leads() {
    run(async {
        let cluster = cluster().await;
        let group = "paused";
        let paused = Client::connect(&cluster.endpoint(0)).expect("connect").group(group);
        let member = paused.join(JoinOptions::default()).await.expect("join");
        let other = Client::connect(&cluster.endpoint(1)).expect("connect").group(group);
        let next = other.join(JoinOptions::default()).await.expect("join");
        member.leadership().wait_for(|now| now.leads).await.expect("it leads");
        let mut session = member.session();
        let mut watch = other.watch();
        cluster.pause(0).expect("pause");
        session.wait_for(|state| *state == SessionState::Suspended).await.expect("it is told that it may be cut off");
        loop {
            let event = watch.next().await.expect("the watch goes on").expect("without an error");
            match event.kind {
                EventKind::Left { member: left, reason } if left == member.id() => {
                    assert_eq!(reason, coterie_client::LeaveReason::SessionExpired);
                    assert_eq!(member.guard(), None, "its guard says no before anyone else is granted");
                }
                EventKind::Elected { leader, .. } if leader == next.id() => {
                    assert_eq!(member.guard(), None);
                    break;
                }
                // On a slow machine the watch may begin after all that.
                EventKind::Snapshot(info) | EventKind::Resync(info) if info.leader == Some(next.id()) => {
                    assert_eq!(member.guard(), None);
                    break;
                }
                _ => {}
            }
        }
        assert_eq!(*session.borrow(), SessionState::Suspended, "it cannot know yet");
        cluster.resume(0).expect("resume");
        tokio::time::timeout(Duration::from_secs(20), session.wait_for(|state| *state == SessionState::Lost))
            .await
            .expect("it is told in time")
            .expect("before the membership closes");
        assert_eq!(member.guard(), None);
        paused.join(JoinOptions::default()).await.expect("it may join again");
    });
}

#[test]
fn s18_d17_a_watch_of_the_sdk_goes_on_across_a_restart_of_its_sidecar_and_misses_nothing() {
    run(async {
        let cluster = cluster().await;
        let group = Client::connect(&cluster.endpoint(0)).expect("connect").group("resumed");
        group.create(None).await.expect("create");
        let mut watch = group.watch();
        assert!(matches!(watch.next().await, Some(Ok(event)) if matches!(event.kind, EventKind::Snapshot(_))));
        cluster.kill(0).expect("kill");
        let event = watch.next().await.expect("it goes on").expect("without an error");
        assert_eq!(event.kind, EventKind::Connection(SessionState::Suspended));
        let other = Client::connect(&cluster.endpoint(1)).expect("connect").group("resumed");
        let member = other.join(JoinOptions::default()).await.expect("join meanwhile");
        start(&cluster, [0]).await;
        let mut live = false;
        loop {
            let event = watch.next().await.expect("it goes on").expect("without an error");
            match event.kind {
                EventKind::Connection(state) => live = state == SessionState::Live,
                EventKind::Joined(joined) => {
                    assert!(live && joined.id == member.id());
                    break;
                }
                // Told that it may have missed something, and what is true.
                EventKind::Resync(info) => {
                    assert!(live && info.members[0].id == member.id());
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
    });
}

#[test]
fn s112_d11_a_write_whose_fate_is_unknown_is_repeated_and_applied_once() {
    run(async {
        let cluster = cluster().await;
        let wires: [Grpc; 3] = [0, 1, 2].map(|place| wire(&cluster, place));
        for victim in 0..3 {
            let group = format!("unknown-{victim}");
            wires[victim].create(&group, None).await.expect("create");
            let (client, request) = (uuid::Uuid::now_v7(), uuid::Uuid::now_v7());
            let asked = wires[victim].identified(client, request).within(Duration::from_secs(2));
            let (first, ()) = tokio::join!(asked.join(&group, Joining::lease(60_000)), async {
                cluster.kill(victim).expect("kill");
            });
            let elsewhere = wires[(victim + 1) % 3].identified(client, request);
            let again = succeeds("repeat", async || elsewhere.join(&group, Joining::lease(60_000)).await).await;
            let id = again.member.expect("a member").id;
            // Its first answer may have come just before the end; that member went with its sidecar, or is the same.
            println!("first: {:?}, then member {id}", first.map(|joined| joined.member.map(|member| member.id)));
            let third = &wires[(victim + 2) % 3];
            eventually("applied once", || async {
                let group = third.get(&group).await.map_err(|failure| failure.to_string())?;
                let members = coterie_conformance::wire::ids(&group);
                if members == [id] { Ok(()) } else { Err(format!("{members:?}, not {id}")) }
            })
            .await;
            start(&cluster, [victim]).await;
        }
    });
}
