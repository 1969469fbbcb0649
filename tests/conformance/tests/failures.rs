//! What needs members to be killed or paused: a cluster for each test.

use std::time::{Duration, Instant};

use coterie_cli::local::LocalCluster;
use coterie_client::{Client, EventKind, JoinOptions, SessionState};
use coterie_conformance::harness::{SESSION_TIMEOUT_MS, cluster, start};
use coterie_conformance::wire::primitives::acquire;
use coterie_conformance::wire::{Change, Events, Held, If, Joining, Said, ids};
use coterie_conformance::{Failure, Grpc, Http, Wire, eventually, run};
use coterie_core::routing::partition_of;
use coterie_proto::v1;
use futures_util::future::join_all;

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

/// One of three is gone: nothing else changes, and it still counts as a voter.
async fn with_a_majority<W: Wire>(cluster: &LocalCluster, group: &str) {
    let wire: W = wire(cluster, 0);
    succeeds("two of three are a majority", async || wire.get(group).await).await;
    let status = wire.status().await.expect("status");
    assert_eq!(status.members.iter().filter(|member| member.voter).count(), 3);
    assert!(status.partition_groups.iter().flat_map(|it| &it.partitions).all(|it| it.replicas.len() == 3));
}

/// What was refused was not applied, and writes go on.
async fn with_a_majority_again<W: Wire>(cluster: &LocalCluster, made: &str) {
    let wire: W = wire(cluster, 0);
    succeeds("two of three are a majority again", async || wire.create(made, None).await).await;
    let failure = wire.get("not-made").await.expect_err("what was refused was not applied");
    assert_eq!(failure.code, "group_unknown", "{failure}");
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
        with_a_majority::<Grpc>(&cluster, group).await;
        with_a_majority::<Http>(&cluster, group).await;

        cluster.kill(2).expect("kill");
        without_a_majority::<Grpc>(&cluster, group).await;
        without_a_majority::<Http>(&cluster, group).await;
        for watch in &mut watches {
            connection(watch, v1::SessionState::Suspended).await;
        }

        start(&cluster, [2]).await;
        with_a_majority_again::<Grpc>(&cluster, "made-over-grpc").await;
        with_a_majority_again::<Http>(&cluster, "made-over-http").await;
        for watch in &mut watches {
            connection(watch, v1::SessionState::Live).await;
        }
    });
}

/// Creates groups until that fails: those that were acknowledged, each with a number that its configuration carries.
async fn write_until_the_end<W: Wire>(wire: W, prefix: String) -> Vec<(String, u64)> {
    let mut acknowledged = Vec::new();
    for number in 0_u64.. {
        let name = format!("{prefix}-{number}");
        let config = v1::GroupConfig { release_timeout_ms: Some(number), max_members: None };
        match wire.create(&name, Some(config)).await {
            Ok(_) => acknowledged.push((name, number)),
            Err(_) => break,
        }
    }
    acknowledged
}

/// All that was acknowledged is there.
async fn is_there<W: Wire>(wire: &W, acknowledged: &[(String, u64)]) {
    for (name, number) in acknowledged {
        let group = succeeds("get", async || wire.get(name).await).await;
        assert_eq!(group.config.and_then(|config| config.release_timeout_ms), Some(*number), "{name}");
    }
}

/// Waits for a leader in a term above `before`: the term.
async fn leads_later<W: Wire>(wire: &W, group: &str, before: u64) -> u64 {
    eventually("the next one leads", || async {
        let group = wire.get(group).await.map_err(|failure| failure.to_string())?;
        if group.term > before && group.leader != 0 {
            Ok(group.term)
        } else {
            Err(format!("{group:?}, before {before}"))
        }
    })
    .await
}

#[test]
fn s27_s112_s113_d4_d5_acknowledged_writes_survive_a_kill_of_all_members_and_terms_go_on_rising() {
    run(async {
        let cluster = cluster().await;
        let grpc: [Grpc; 3] = [0, 1, 2].map(|place| wire(&cluster, place));
        let http: [Http; 3] = [0, 1, 2].map(|place| wire(&cluster, place));
        let groups = ["terms-over-grpc", "terms-over-http"];
        grpc[0].join(groups[0], Joining::lease(60_000)).await.expect("join");
        http[0].join(groups[1], Joining::lease(60_000)).await.expect("join");
        let before = [http[1].get(groups[0]).await.expect("get").term, grpc[1].get(groups[1]).await.expect("get").term];
        // Writes are under way on all three, over both wires, when all three are killed.
        let places = |wire: &'static str| (0..3).map(move |place| format!("kept-{place}-over-{wire}"));
        let over_grpc = grpc.iter().cloned().zip(places("grpc")).map(|(wire, it)| write_until_the_end(wire, it));
        let over_http = http.iter().cloned().zip(places("http")).map(|(wire, it)| write_until_the_end(wire, it));
        let (over_grpc, over_http, ()) = tokio::join!(join_all(over_grpc), join_all(over_http), async {
            for wanted in ["over-grpc", "over-http"] {
                eventually("many writes are acknowledged", || async {
                    let groups = grpc[0].list().await.map_err(|failure| failure.to_string())?;
                    let written = groups.iter().filter(|group| group.name.contains(wanted)).count();
                    if written > 50 { Ok(()) } else { Err(format!("{written} {wanted}")) }
                })
                .await;
            }
            for place in 0..3 {
                cluster.kill(place).expect("kill");
            }
        });
        let (over_grpc, over_http) = (over_grpc.concat(), over_http.concat());
        assert!(over_grpc.len() > 40 && over_http.len() > 40, "{} and {}", over_grpc.len(), over_http.len());
        start(&cluster, [0, 1, 2]).await;
        // Each is read over the other wire.
        is_there(&http[1], &over_grpc).await;
        is_there(&grpc[1], &over_http).await;
        // The old member goes when its session does; the next one leads.
        succeeds("join", async || http[2].join(groups[0], Joining::lease(60_000)).await).await;
        succeeds("join", async || grpc[2].join(groups[1], Joining::lease(60_000)).await).await;
        let after =
            [leads_later(&grpc[0], groups[0], before[0]).await, leads_later(&http[0], groups[1], before[1]).await];
        println!(
            "{} and {} acknowledged writes are there, terms {after:?} after {before:?}",
            over_grpc.len(),
            over_http.len()
        );
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
            let mut watches = [
                wire.watch(&group, "").await.expect("watch"),
                self::wire::<Http>(&cluster, observer).watch(&group, "").await.expect("watch"),
            ];
            let terms = [watches[0].snapshot().await.term, watches[1].snapshot().await.term];
            let leaders = partition_leaders(&cluster, observer).await;
            let killed = Instant::now();
            cluster.kill(victim).expect("kill");
            for (watch, term) in watches.iter_mut().zip(terms) {
                assert_eq!(watch.left(first.id()).await, "session_expired");
                let (elected_in, leader) = watch.elected(term).await;
                assert_eq!(leader, second.id(), "the longest-standing candidate");
                assert!(elected_in > term);
            }
            let took = killed.elapsed();
            assert!(took < Duration::from_millis(SESSION_TIMEOUT_MS) + SLACK, "it took {took:?}");
            println!("killed member-{} of leaders {leaders:?}: next leader after {took:?}", victim + 1);
            // It comes back by itself, as the same member with a new session.
            start(&cluster, [victim]).await;
            let status = wire.status().await.expect("status");
            assert!(status.members.iter().all(|member| member.refused.is_empty()), "{status:?}");
        }
    });
}

/// The member of an application that releases when it is told, as the example worker does, and the one that is next.
struct Handover<W> {
    group: &'static str,
    wire: W,
    first: Held,
    next: Held,
    watch: Events<v1::GroupEvent>,
    term: u64,
}

impl<W: Wire> Handover<W> {
    /// The first at the sidecar that will be stopped, the next and the watch at the others.
    async fn prepare(cluster: &LocalCluster, group: &'static str) -> Self {
        let first = wire::<W>(cluster, 0).hold(group, Joining::default()).await.expect("join");
        let next = wire::<W>(cluster, 1).hold(group, Joining::default()).await.expect("join");
        let mut watch = wire::<W>(cluster, 2).watch(group, "").await.expect("watch");
        let term = watch.snapshot().await.term;
        Self { group, wire: wire(cluster, 0), first, next, watch, term }
    }

    /// Does as it is told, until the next one leads.
    async fn happens(mut self) {
        let id = self.first.id();
        let told =
            |said: &Said| matches!(said, Said::Self_(state) if state.member == id && state.releasing).then_some(());
        self.first.said.find("the leader is told", told).await;
        // The sidecar may have gone on by itself once the release is committed.
        let _ = self.wire.release(self.group, self.term).await;
        assert_eq!(self.watch.elected(self.term).await.1, self.next.id());
    }
}

#[test]
fn s36_d16_a_sidecar_that_is_stopped_hands_over_before_it_goes() {
    run(async {
        let cluster = cluster().await;
        let over_grpc = Handover::<Grpc>::prepare(&cluster, "stopped-over-grpc").await;
        let over_http = Handover::<Http>::prepare(&cluster, "stopped-over-http").await;
        let stopped = Instant::now();
        let (status, (), ()) = tokio::join!(cluster.stop(0), over_grpc.happens(), over_http.happens());
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

/// A lock and a leadership that a sidecar vouched for when it was killed and started again at once. Connections that ended
/// with it tell whoever has one; these were asked for by calls, which leave none.
async fn what_was_vouched_for_is_granted_to_nobody_else<W: Wire>(cluster: &LocalCluster, victim: usize, name: &str) {
    let (before, other): (W, W) = (wire(cluster, victim), wire(cluster, (victim + 1) % 3));
    let joined = before.join(name, Joining::lease(60_000)).await.expect("join");
    let (first, term) = (joined.member.expect("a member").id, joined.group.expect("a group").term);
    let next = other.join(name, Joining::lease(60_000)).await.expect("join").member.expect("a member").id;
    let mut watch = other.watch(name, "").await.expect("watch");
    assert_eq!(watch.snapshot().await.leader, first);
    let asked = Instant::now();
    let held = before.acquire(acquire(name, 0, 60_000)).await.expect("acquire");
    let vouched = before.itself(name).await.expect("self").members.into_iter().find(|state| state.leads);
    let vouched = vouched.expect("it leads");

    cluster.kill(victim).expect("kill");
    start(cluster, [victim]).await;
    let back: W = wire(cluster, victim);
    // On a slow machine it may be back when that has passed; else this opens its new session beside the former one.
    match back.acquire(acquire(name, 0, 1_000)).await {
        Err(refused) => assert_eq!(refused.code, "lock_held", "{refused}"),
        Ok(late) => assert!(asked.elapsed() >= Duration::from_millis(held.ttl_ms), "{late:?} {held:?}"),
    }
    println!("{name}: back after {:?}; {} and {} ms were vouched for", asked.elapsed(), held.ttl_ms, vouched.valid_ms);

    let (granted, (elected_in, leader)) = tokio::join!(
        async {
            let granted =
                other.within(Duration::from_secs(30)).acquire(acquire(name, 30_000, 60_000)).await.expect("acquire");
            assert!(asked.elapsed() >= Duration::from_millis(held.ttl_ms), "after {:?}: {held:?}", asked.elapsed());
            granted
        },
        async {
            let elected = watch.elected(term).await;
            assert!(
                asked.elapsed() >= Duration::from_millis(vouched.valid_ms),
                "after {:?}: {vouched:?}",
                asked.elapsed()
            );
            elected
        },
    );
    assert!(granted.token > held.token && elected_in > term);
    assert_eq!(leader, next);
}

#[test]
fn s22_s37_what_a_killed_sidecar_vouched_for_is_granted_to_nobody_else_though_it_is_back_at_once() {
    run(async {
        let cluster = cluster().await;
        what_was_vouched_for_is_granted_to_nobody_else::<Grpc>(&cluster, 0, "vouched-over-grpc").await;
        what_was_vouched_for_is_granted_to_nobody_else::<Http>(&cluster, 1, "vouched-over-http").await;
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

/// What a watch says that goes on after this event.
async fn goes_on<W: Wire>(cluster: &LocalCluster, group: &str, after: &str, member: u64) {
    for place in 0..3 {
        let mut watch = wire::<W>(cluster, place).watch(group, after).await.expect("watch");
        let begun = Instant::now();
        let known = watch.change("the group as it is now", |change| match change {
            Change::Resync(group) => Some(ids(group)),
            _ => None,
        });
        assert_eq!(known.await, [member]);
        assert!(begun.elapsed() < SLACK, "{:?}", begun.elapsed());
    }
}

#[test]
fn s18_s34_d17_a_watch_goes_on_with_a_cluster_that_was_made_again_by_a_resync() {
    run(async {
        let cluster = cluster().await;
        let before = wire::<Grpc>(&cluster, 0);
        before.create("reborn", None).await.expect("create");
        let mut events = before.watch("reborn", "").await.expect("watch");
        let mut last = String::new();
        for _ in 0..50 {
            before.join("reborn", Joining::lease(60_000)).await.expect("join");
            last = events.find("a join", |it| matches!(it.kind, Some(Change::Joined(_))).then(|| it.id.clone())).await;
        }
        let mut sdk = Client::connect(&cluster.endpoint(0)).expect("connect").group("reborn").watch();
        assert!(matches!(sdk.next().await, Some(Ok(event)) if matches!(event.kind, EventKind::Snapshot(_))));
        cluster.stop_all().await.expect("stop");
        // Members that leave in good order are told of before.
        let suspended = EventKind::Connection(SessionState::Suspended);
        while sdk.next().await.expect("it goes on").expect("without an error").kind != suspended {}
        for place in 0..3 {
            std::fs::remove_dir_all(cluster.data_dir(place)).expect("remove the data directory");
        }
        start(&cluster, [0, 1, 2]).await;
        let joined = wire::<Grpc>(&cluster, 1).join("reborn", Joining::lease(60_000)).await.expect("join");
        let member = joined.member.expect("a member").id;
        goes_on::<Grpc>(&cluster, "reborn", &last, member).await;
        goes_on::<Http>(&cluster, "reborn", &last, member).await;
        // The SDK was back before the group was, or after; either way it says so, and does not wait for what is gone.
        loop {
            match sdk.next().await.expect("it says what became of the group").expect("without an error").kind {
                EventKind::Connection(_) => {}
                EventKind::Resync(info) => {
                    assert_eq!(info.members.iter().map(|it| it.id.0).collect::<Vec<_>>(), [member]);
                    break;
                }
                EventKind::Deleted => break,
                other => panic!("{other:?}"),
            }
        }
    });
}

/// A write with a request id of its own, which is sent again.
struct Repeated {
    group: String,
    client: uuid::Uuid,
    request: uuid::Uuid,
}

impl Repeated {
    fn of(group: String) -> Self {
        Self { group, client: uuid::Uuid::now_v7(), request: uuid::Uuid::now_v7() }
    }

    /// A client that sends it as the same request at whichever place.
    fn at<W: Wire>(&self, cluster: &LocalCluster, place: usize) -> W {
        wire::<W>(cluster, place).identified(self.client, self.request)
    }

    /// A join whose sidecar is gone is repeated at another, and gives one member.
    async fn joins_once<W: Wire>(&self, cluster: &LocalCluster, again: usize, third: usize) -> u64 {
        let elsewhere: W = self.at(cluster, again);
        let joined = succeeds("repeat", async || elsewhere.join(&self.group, Joining::lease(60_000)).await).await;
        let id = joined.member.expect("a member").id;
        let third: W = wire(cluster, third);
        eventually("applied once", || async {
            let members = ids(&third.get(&self.group).await.map_err(|failure| failure.to_string())?);
            if members == [id] { Ok(()) } else { Err(format!("{members:?}, not {id}")) }
        })
        .await;
        id
    }

    /// The same configuration, which belongs to this request.
    async fn configure<W: Wire>(&self, wire: &W) -> Result<v1::Group, Failure> {
        let config = v1::GroupConfig { release_timeout_ms: Some(777), max_members: Some(77) };
        wire.configure(&self.group, config, If::default()).await
    }

    /// A configuration whose fate was unknown is repeated everywhere: one result, which is what the group has.
    async fn configures_once<W: Wire>(&self, cluster: &LocalCluster, before: u64) {
        let mut results = Vec::new();
        for place in 0..3 {
            let asked: W = self.at(cluster, place);
            results.push(succeeds("repeat", async || self.configure(&asked).await).await.config_revision);
        }
        let group = wire::<W>(cluster, 0).get(&self.group).await.expect("get");
        assert_eq!(group.config.and_then(|config| config.release_timeout_ms), Some(777));
        assert_eq!(results, vec![group.config_revision; 3], "it was applied once");
        assert!(group.config_revision > before);
    }
}

#[test]
fn s112_d11_a_write_whose_fate_is_unknown_is_repeated_and_applied_once() {
    run(async {
        let cluster = cluster().await;
        for victim in 0..3 {
            let (again, third) = ((victim + 1) % 3, (victim + 2) % 3);
            let over_grpc = Repeated::of(format!("unknown-{victim}-over-grpc"));
            let over_http = Repeated::of(format!("unknown-{victim}-over-http"));
            let grpc = over_grpc.at::<Grpc>(&cluster, victim).within(Duration::from_secs(2));
            let http = over_http.at::<Http>(&cluster, victim).within(Duration::from_secs(2));
            for group in [&over_grpc.group, &over_http.group] {
                wire::<Grpc>(&cluster, victim).create(group, None).await.expect("create");
            }
            let (first, second, ()) = tokio::join!(
                grpc.join(&over_grpc.group, Joining::lease(60_000)),
                http.join(&over_http.group, Joining::lease(60_000)),
                async {
                    cluster.kill(victim).expect("kill");
                }
            );
            // A first answer may have come just before the end; that member went with its sidecar, or is the same.
            let ids = (
                over_grpc.joins_once::<Grpc>(&cluster, again, third).await,
                over_http.joins_once::<Http>(&cluster, again, third).await,
            );
            println!(
                "first: {:?} and {:?}, then members {ids:?}",
                first.map(|it| it.member),
                second.map(|it| it.member)
            );
            start(&cluster, [victim]).await;
        }
    });
}

/// A write at the leader whose two followers are paused: proposed, and never committed within its time.
///
/// A leader that has noticed that it is alone proposes nothing, and a pause may come after the write. A machine that is
/// too slow for the one or too fast for the other gets another attempt, with a group of its own.
async fn what_cannot_be_committed_is_unknown<W: Wire>(cluster: &LocalCluster, prefix: &str) {
    for attempt in 0..5 {
        let write = Repeated::of(format!("{prefix}-{attempt}"));
        let anywhere: W = wire(cluster, 0);
        let made = succeeds("create", async || anywhere.create(&write.group, None).await).await;
        let index = partition_of("group", &write.group, 3) as usize - 1;
        let leader = eventually("the partition has a leader", || async {
            let leaders = partition_leaders(cluster, 0).await;
            let named = |place: &usize| leaders[index] == format!("member-{}", place + 1);
            (0..3).find(named).ok_or(format!("{leaders:?}"))
        })
        .await;
        let asked = write.at::<W>(cluster, leader).within(Duration::from_secs(1));
        // The connection is open, and the leader has just heard from a majority.
        succeeds("read at the leader", async || asked.get(&write.group).await).await;
        let others = [(leader + 1) % 3, (leader + 2) % 3];
        for other in others {
            cluster.pause(other).expect("pause");
        }
        let answer = write.configure(&asked).await;
        for other in others {
            cluster.resume(other).expect("resume");
        }
        // Whatever it was told, the caller may send it again.
        write.configures_once::<W>(cluster, made.config_revision).await;
        match answer {
            Err(failure) if failure.code == "unknown" => {
                assert_eq!(failure.retry, "later", "{failure}");
                assert!(failure.message.contains("same request id"), "it says how: {failure}");
                return;
            }
            Err(failure) => assert_eq!(failure.code, "no_quorum", "{failure}"),
            Ok(_) => {}
        }
    }
    panic!("in no attempt was the write proposed and not committed");
}

#[test]
fn s112_d11_a_write_that_is_proposed_and_not_committed_in_time_is_unknown_and_applied_once() {
    run(async {
        let cluster = cluster().await;
        what_cannot_be_committed_is_unknown::<Grpc>(&cluster, "stuck-over-grpc").await;
        what_cannot_be_committed_is_unknown::<Http>(&cluster, "stuck-over-http").await;
    });
}
