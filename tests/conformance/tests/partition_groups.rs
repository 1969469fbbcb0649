//! S78 to S114 where they need a cluster of their own shape. Each starts its cluster once and makes its checks over both
//! wires.

use std::collections::BTreeSet;
use std::time::Duration;

use coterie_cli::local::LocalCluster;
use coterie_conformance::harness::{cluster, names, prepared, start};
use coterie_conformance::wire::{If, Joining};
use coterie_conformance::{Grpc, Http, Wire, eventually, run};
use coterie_core::config::builder::{Builder, Group, Profile};
use coterie_proto::v1;

fn wire<W: Wire>(cluster: &LocalCluster, place: usize) -> W {
    W::connect(&cluster.endpoint(place))
}

/// Waits until a member is in this state; gives the reason.
async fn state<W: Wire>(cluster: &LocalCluster, place: usize, wanted: &str) -> String {
    let wire = wire::<W>(cluster, place).within(Duration::from_secs(1));
    eventually(&format!("the member is {wanted}"), || async {
        let status = wire.status().await.map_err(|failure| failure.to_string())?;
        if status.state == wanted { Ok(status.reason) } else { Err(format!("{}: {}", status.state, status.reason)) }
    })
    .await
}

/// What the status of each of three replicas, and of a client, says of the partitions of `data`.
async fn partitions_are_where_they_are_configured<W: Wire>(cluster: &LocalCluster, client: usize) {
    for place in 0..3 {
        let status = wire::<W>(cluster, place).status().await.expect("status");
        let data = status.partition_groups.iter().find(|group| group.name == "data").expect("data");
        assert_eq!((data.r#type.as_str(), data.partitions.len()), ("raft", 3));
        for partition in &data.partitions {
            // Each is a Raft of its own: it has a leader, a term and replicas.
            assert!(partition.local && partition.term > 0 && partition.has_quorum, "{partition:?}");
            let mut replicas = partition.replicas.clone();
            replicas.sort();
            assert_eq!(replicas, names());
        }
    }
    let status = wire::<W>(cluster, client).status().await.expect("status");
    assert!(status.partition_groups.iter().flat_map(|it| &it.partitions).all(|it| !it.local), "{status:?}");
}

#[test]
fn s78_s79_s84_s88_s89_s104_a_partition_group_is_a_set_of_partitions_on_the_members_that_configure_it() {
    run(async {
        let cluster = cluster().await;
        let client = cluster.add("client", "client-1", |_, builder| builder.profile(Profile::Client)).expect("add");
        start(&cluster, [client]).await;
        partitions_are_where_they_are_configured::<Grpc>(&cluster, client).await;
        partitions_are_where_they_are_configured::<Http>(&cluster, client).await;
    });
}

/// What every member says of the partition groups: name, type and the numbers of the partitions, once each has a leader.
async fn shape<W: Wire>(cluster: &LocalCluster, place: usize) -> Vec<(String, String, Vec<u32>)> {
    let wire = wire::<W>(cluster, place);
    eventually("every partition has a leader", || async {
        let groups = wire.status().await.map_err(|failure| failure.to_string())?.partition_groups;
        let partitions = || groups.iter().flat_map(|group| &group.partitions);
        if groups.len() < 3 || partitions().any(|partition| partition.leader.is_empty() || partition.applied == 0) {
            return Err(format!("{groups:?}"));
        }
        let shape = |group: v1::PartitionGroupStatus| {
            (group.name, group.r#type, group.partitions.iter().map(|it| it.partition).collect())
        };
        Ok(groups.into_iter().map(shape).collect())
    })
    .await
}

/// How far the replica of each partition of `data` has applied, at a place.
async fn applied<W: Wire>(cluster: &LocalCluster, place: usize) -> Result<Vec<u64>, String> {
    let status = wire::<W>(cluster, place).status().await.map_err(|failure| failure.to_string())?;
    let data = status.partition_groups.into_iter().find(|group| group.name == "data").ok_or("no data")?;
    Ok(data.partitions.iter().map(|partition| partition.applied).collect())
}

/// The one partition of `data` that a write goes to.
async fn partition_of_a_write<W: Wire>(cluster: &LocalCluster, write: impl AsyncFnOnce()) -> usize {
    let before = applied::<W>(cluster, 0).await.expect("status");
    write().await;
    eventually("the write is applied", || async {
        let now = applied::<W>(cluster, 0).await?;
        let moved: Vec<usize> = (0..now.len()).filter(|at| now[*at] != before[*at]).collect();
        match moved.as_slice() {
            [] => Err(format!("{now:?}")),
            [partition] => Ok(*partition),
            several => panic!("one name is in one partition, not in {several:?}"),
        }
    })
    .await
}

/// Names are spread over all partitions, and each is written to the same one through every member.
async fn names_are_spread<W: Wire>(cluster: &LocalCluster, prefix: &str) {
    let members: [W; 3] = [0, 1, 2].map(|place| wire(cluster, place));
    let mut used = BTreeSet::new();
    for number in 0..12 {
        let (name, by) = (format!("{prefix}-{number}"), number % 3);
        let first = partition_of_a_write::<W>(cluster, async || {
            members[by].in_partition_group("data").create(&name, None).await.expect("create");
        })
        .await;
        let config = v1::GroupConfig { release_timeout_ms: Some(9), max_members: Some(9) };
        let again = partition_of_a_write::<W>(cluster, async || {
            let other = members[(by + 1) % 3].in_partition_group("data");
            other.configure(&name, config, If::default()).await.expect("configure");
        })
        .await;
        assert_eq!(first, again, "{name} is in one partition");
        used.insert(first);
    }
    assert_eq!(used, BTreeSet::from([0, 1, 2, 3]), "the names are spread over all partitions");
}

#[test]
fn s84_s85_a_group_has_its_type_and_number_of_partitions_and_names_are_spread_over_them() {
    run(async {
        let cluster = prepared(|_, builder| {
            builder
                .management_group(Group::raft(names()))
                .partition_group("data", Group::raft(names()).partitions(4))
                .partition_group("one", Group::raft(names()).partitions(1))
        });
        start(&cluster, [0, 1, 2]).await;
        let raft = |name: &str, partitions: Vec<u32>| (name.to_owned(), "raft".to_owned(), partitions);
        let expected = [raft("system", vec![1]), raft("data", vec![1, 2, 3, 4]), raft("one", vec![1])];
        for place in 0..3 {
            assert_eq!(shape::<Grpc>(&cluster, place).await, expected);
            assert_eq!(shape::<Http>(&cluster, place).await, expected);
        }
        names_are_spread::<Grpc>(&cluster, "over-grpc").await;
        names_are_spread::<Http>(&cluster, "over-http").await;
    });
}

/// The configuration that the tests of records create with, and another one.
const KEPT: v1::GroupConfig = v1::GroupConfig { release_timeout_ms: Some(1_234), max_members: Some(7) };
const OTHER: v1::GroupConfig = v1::GroupConfig { release_timeout_ms: Some(1_234), max_members: Some(8) };

/// Every member knows the group with its options, makes no second one with others, and keeps apart what has the same name
/// in another partition group.
async fn is_known_everywhere<W: Wire>(cluster: &LocalCluster, group: &str) {
    for place in 0..3 {
        let wire = wire::<W>(cluster, place).in_partition_group("data");
        let found =
            eventually("the group is known", || async { wire.get(group).await.map_err(|failure| failure.to_string()) })
                .await;
        assert_eq!((found.partition_group.as_str(), found.config), ("data", Some(KEPT)));
        assert_eq!(
            wire.create(group, Some(KEPT)).await.expect("the same again").config_revision,
            found.config_revision
        );
        let failure = wire.create(group, Some(OTHER)).await.expect_err("it exists with other options");
        assert_eq!((failure.code.as_str(), failure.retry.as_str()), ("exists_differently", "never"), "{failure}");
        let elsewhere = wire.in_partition_group("more").create(group, Some(OTHER)).await.expect("another primitive");
        assert_eq!((elsewhere.partition_group.as_str(), elsewhere.config), ("more", Some(OTHER)));
        assert_eq!(wire.get(group).await.expect("get").config, Some(KEPT), "the one in data is as it was");
    }
}

/// What the management group recorded can be used without it; what it did not cannot be made, although the partitions
/// have their majority.
async fn only_what_is_recorded_can_be_used<W: Wire>(cluster: &LocalCluster, group: &str) {
    for place in [1, 2] {
        let wire = wire::<W>(cluster, place).in_partition_group("data");
        let made = eventually("two of three are a majority of data", || async {
            wire.create(group, Some(KEPT)).await.map_err(|failure| failure.to_string())
        })
        .await;
        assert_eq!(made.config, Some(KEPT));
        let failure = wire.within(Duration::from_secs(1)).create("not-recorded", None).await;
        let failure = failure.expect_err("nobody can record it");
        assert_eq!((failure.code.as_str(), failure.retry.as_str()), ("no_quorum", "later"), "{failure}");
        assert!(failure.message.contains("management group"), "it says who is missing: {failure}");
        let failure = wire.get("not-recorded").await.expect_err("it was not made");
        assert_eq!(failure.code, "group_unknown", "{failure}");
    }
}

#[test]
fn s94_d15_the_management_group_records_primitives_and_they_are_known_after_a_restart_of_all_members() {
    run(async {
        // The management group is on the first member alone, so that it can be taken away from partitions that go on.
        let cluster = prepared(|_, builder| {
            builder
                .management_group(Group::raft(["member-1"]))
                .partition_group("data", Group::raft(names()).partitions(2))
                .partition_group("more", Group::raft(names()).partitions(1))
        });
        start(&cluster, [0, 1, 2]).await;
        let (over_grpc, over_http) = ("made-over-grpc", "made-over-http");
        let data = |place| (wire::<Grpc>(&cluster, place), wire::<Http>(&cluster, place));
        data(1).0.in_partition_group("data").create(over_grpc, Some(KEPT)).await.expect("create");
        data(2).1.in_partition_group("data").create(over_http, Some(KEPT)).await.expect("create");
        // Each is looked at over the other wire.
        is_known_everywhere::<Http>(&cluster, over_grpc).await;
        is_known_everywhere::<Grpc>(&cluster, over_http).await;

        for place in 0..3 {
            cluster.kill(place).expect("kill");
        }
        start(&cluster, [0, 1, 2]).await;
        is_known_everywhere::<Http>(&cluster, over_grpc).await;
        is_known_everywhere::<Grpc>(&cluster, over_http).await;

        cluster.kill(0).expect("kill");
        only_what_is_recorded_can_be_used::<Http>(&cluster, over_grpc).await;
        only_what_is_recorded_can_be_used::<Grpc>(&cluster, over_http).await;
    });
}

/// A member of the group `group` is held at a client, and others see it; a watch at the client sees others.
async fn a_client_uses_groups<Near: Wire, Far: Wire>(cluster: &LocalCluster, client: usize, group: &str) {
    let (near, far): (Near, Far) = (wire(cluster, client), wire(cluster, 1));
    let mut held = near.hold(group, Joining::named("pod")).await.expect("join");
    assert_eq!(held.joined.member.as_ref().expect("a member").sidecar, "client-1");
    assert!(held.leads().await > 0);
    assert_eq!(far.get(group).await.expect("get").leader, held.id());
    let mut watch = near.watch(group, "").await.expect("watch");
    watch.snapshot().await;
    let other = far.join(group, Joining::default()).await.expect("join").member.expect("a member").id;
    assert_eq!(watch.joined().await.id, other);
    let status = wire::<Near>(cluster, 0).status().await.expect("status");
    let member = status.members.iter().find(|member| member.name == "client-1").expect("the others know it");
    assert!(!member.voter && member.r#type == "ephemeral", "{member:?}");
}

#[test]
fn s91_s127_d6_a_member_without_groups_discovers_them_and_uses_them_as_a_client() {
    run(async {
        let cluster = cluster().await;
        let client = cluster.add("client", "client-1", |_, builder| builder.profile(Profile::Client)).expect("add");
        start(&cluster, [client]).await;
        a_client_uses_groups::<Http, Grpc>(&cluster, client, "from-a-client-over-http").await;
        a_client_uses_groups::<Grpc, Http>(&cluster, client, "from-a-client-over-grpc").await;
    });
}

/// A group of the same name in each of two partition groups, `own` of the third member and `data` of the others.
async fn primitives_are_in_the_group_they_name<W: Wire>(cluster: &LocalCluster, group: &str) {
    eventually("all partition groups are known everywhere", || async {
        for place in 0..3 {
            let status = wire::<W>(cluster, place).status().await.map_err(|failure| failure.to_string())?;
            let leads = |name: &str| {
                let found = status.partition_groups.iter().find(|group| group.name == name);
                found.is_some_and(|group| group.partitions.iter().all(|partition| !partition.leader.is_empty()))
            };
            if !(leads("own") && leads("data")) {
                return Err(format!("{:?}", status.partition_groups));
            }
        }
        Ok(())
    })
    .await;
    let (first, third): (W, W) = (wire(cluster, 0), wire(cluster, 2));
    let failure = first.create(group, None).await.expect_err("there are two and no default");
    assert_eq!(failure.code, "partition_group_ambiguous", "{failure}");
    assert!(failure.message.contains("own") && failure.message.contains("data"), "{failure}");
    let own = first.in_partition_group("own").create(group, None).await.expect("create in own");
    let data = third.in_partition_group("data").create(group, None).await.expect("create in data");
    assert_eq!((own.partition_group.as_str(), data.partition_group.as_str()), ("own", "data"));
    let member = first.in_partition_group("own").join(group, Joining::default()).await.expect("join");
    let id = member.member.expect("a member").id;
    assert_eq!(third.in_partition_group("own").get(group).await.expect("get").leader, id);
    assert_eq!(third.in_partition_group("data").get(group).await.expect("get").members.len(), 0, "another group");
    let status = first.status().await.expect("status");
    let own = status.partition_groups.iter().find(|group| group.name == "own").expect("own");
    assert_eq!(own.partitions[0].replicas, vec!["member-3"]);
}

#[test]
fn s80_s81_s96_s100_s101_d15_groups_live_where_they_are_configured_and_primitives_in_the_one_they_name() {
    run(async {
        // Member 3 has a partition group of its own, and no management group.
        let cluster = prepared(|seat, builder| match seat.name.as_str() {
            "member-3" => builder.partition_group("own", Group::raft(["member-3"]).partitions(1)),
            _ => builder
                .management_group(Group::raft(["member-1", "member-2"]))
                .partition_group("data", Group::raft(["member-1", "member-2"]).partitions(2)),
        });
        start(&cluster, [0, 1, 2]).await;
        primitives_are_in_the_group_they_name::<Grpc>(&cluster, "over-grpc").await;
        primitives_are_in_the_group_they_name::<Http>(&cluster, "over-http").await;
    });
}

/// Neither where nothing is named nor in the management group.
async fn nothing_can_be_created<W: Wire>(cluster: &LocalCluster) {
    let wire: W = wire(cluster, 0);
    let failure = wire.create("g", None).await.expect_err("there is nowhere to put it");
    assert_eq!((failure.code.as_str(), failure.retry.as_str()), ("partition_group_unknown", "never"), "{failure}");
    let failure = wire.in_partition_group("system").create("g", None).await.expect_err("reserved");
    assert!(failure.message.contains("system"), "{failure}");
}

#[test]
fn s99_a_management_group_alone_stores_no_primitives() {
    run(async {
        let cluster = prepared(|_, builder| builder.management_group(Group::raft(names())));
        start(&cluster, [0, 1, 2]).await;
        nothing_can_be_created::<Grpc>(&cluster).await;
        nothing_can_be_created::<Http>(&cluster).await;
    });
}

/// The third member says what it waits for, and answers with that.
async fn is_without_a_management_group<W: Wire>(cluster: &LocalCluster) {
    let reason = state::<W>(cluster, 2, "waiting_for_management_group").await;
    assert!(reason.contains("management group"), "{reason}");
    let failure = wire::<W>(cluster, 2).create("g", None).await.expect_err("there is none yet");
    assert_eq!(failure.code, "waiting_for_management_group", "{failure}");
    assert_eq!(failure.retry, "later");
}

/// Creates a group as soon as that is possible.
async fn created<W: Wire>(cluster: &LocalCluster, place: usize, group: &str, what: &str) -> v1::Group {
    let wire: W = wire(cluster, place);
    eventually(what, || async { wire.create(group, None).await.map_err(|failure| failure.to_string()) }).await
}

#[test]
fn s92_s93_d13_d22_without_a_management_group_a_sidecar_starts_says_so_and_answers_with_a_code() {
    run(async {
        let cluster = prepared(|seat, builder| match seat.name.as_str() {
            "member-3" => builder.partition_group("data", Group::raft(["member-3"]).partitions(1)),
            _ => builder.management_group(Group::raft(["member-1", "member-2"])),
        });
        cluster.spawn(2).expect("start the one without");
        is_without_a_management_group::<Grpc>(&cluster).await;
        is_without_a_management_group::<Http>(&cluster).await;
        start(&cluster, [0, 1]).await;
        cluster.wait_member(2, Duration::from_secs(60)).await.unwrap_or_else(|error| panic!("{error}"));
        created::<Grpc>(&cluster, 2, "over-grpc", "it works by itself once one is found").await;
        created::<Http>(&cluster, 2, "over-http", "it works by itself once one is found").await;
    });
}

/// The first member of two says who is missing, and that it can do nothing.
async fn waits_for_the_third<W: Wire>(cluster: &LocalCluster) {
    let reason = state::<W>(cluster, 0, "waiting_for_members").await;
    assert!(reason.contains("member-3"), "it names who is missing: {reason}");
    let failure = wire::<W>(cluster, 0).create("g", None).await.expect_err("two of three form nothing");
    assert_eq!(failure.retry, "later", "{failure}");
}

/// A group can be made, and all three are of the same cluster.
async fn is_one_cluster<W: Wire>(cluster: &LocalCluster, group: &str) {
    wire::<W>(cluster, 0).create(group, None).await.expect("three do");
    let mut ids = Vec::new();
    for place in 0..3 {
        ids.push(wire::<W>(cluster, place).status().await.expect("status").cluster_id);
    }
    assert!(!ids[0].is_empty() && ids.iter().all(|id| *id == ids[0]), "one cluster: {ids:?}");
}

#[test]
fn s105_s106_no_member_bootstraps_before_every_listed_one_has_answered() {
    run(async {
        let cluster = prepared(|_, builder| {
            builder.management_group(Group::raft(names())).partition_group("data", Group::raft(names()).partitions(1))
        });
        cluster.spawn(0).expect("start");
        cluster.spawn(1).expect("start");
        waits_for_the_third::<Grpc>(&cluster).await;
        waits_for_the_third::<Http>(&cluster).await;
        cluster.spawn(2).expect("start");
        cluster.wait_ready(Duration::from_secs(60)).await.unwrap_or_else(|error| panic!("{error}"));
        is_one_cluster::<Grpc>(&cluster, "over-grpc").await;
        is_one_cluster::<Http>(&cluster, "over-http").await;
    });
}

/// The management group and one for primitives, which is used.
async fn has_the_groups_of_the_profile<W: Wire>(cluster: &LocalCluster, group: &str) {
    let status = wire::<W>(cluster, 0).status().await.expect("status");
    let groups: Vec<_> = status.partition_groups.iter().map(|group| group.name.as_str()).collect();
    assert_eq!(groups, vec!["system", "raft"]);
    let made = wire::<W>(cluster, 2).create(group, None).await.expect("create");
    assert_eq!(made.partition_group, "raft", "it is the only one");
}

#[test]
fn s97_s98_s109_s111_s124_the_profile_consensus_boots_a_cluster() {
    run(async {
        let cluster = prepared(|_, builder: Builder| builder.profile(Profile::Consensus));
        start(&cluster, [0, 1, 2]).await;
        has_the_groups_of_the_profile::<Grpc>(&cluster, "over-grpc").await;
        has_the_groups_of_the_profile::<Http>(&cluster, "over-http").await;
    });
}

/// The replica at a place has what was written while it was away.
async fn has_caught_up<W: Wire>(cluster: &LocalCluster, place: usize, made: &v1::Group) {
    let wire: W = wire(cluster, place);
    let stale = eventually("it has caught up", || async {
        wire.read(&made.name, v1::Consistency::Stale).await.map_err(|failure| failure.to_string())
    })
    .await;
    assert_eq!(stale.config_revision, made.config_revision);
}

/// Every partition has three replicas.
async fn counts_all_replicas<W: Wire>(cluster: &LocalCluster, place: usize) {
    let status = wire::<W>(cluster, place).status().await.expect("status");
    assert!(status.partition_groups.iter().flat_map(|it| &it.partitions).all(|it| it.replicas.len() == 3));
}

#[test]
fn s108_s112_a_crashed_replica_still_counts_and_catches_up() {
    run(async {
        let cluster = cluster().await;
        for victim in 0..3 {
            let other = (victim + 1) % 3;
            let (over_grpc, over_http) = (format!("while-{victim}-was-away"), format!("while-{victim}-was-off"));
            cluster.kill(victim).expect("kill");
            let first = created::<Grpc>(&cluster, other, &over_grpc, "two of three are a majority").await;
            let second = created::<Http>(&cluster, other, &over_http, "two of three are a majority").await;
            start(&cluster, [victim]).await;
            // Each is read over the other wire.
            has_caught_up::<Http>(&cluster, victim, &first).await;
            has_caught_up::<Grpc>(&cluster, victim, &second).await;
            counts_all_replicas::<Grpc>(&cluster, other).await;
            counts_all_replicas::<Http>(&cluster, other).await;
        }
    });
}
