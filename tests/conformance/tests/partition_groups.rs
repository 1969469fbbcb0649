//! S78 to S114 where they need a cluster of their own shape.

use std::time::Duration;

use coterie_cli::local::LocalCluster;
use coterie_conformance::harness::{cluster, names, prepared, start};
use coterie_conformance::wire::Joining;
use coterie_conformance::{Grpc, Http, Wire, eventually, run};
use coterie_core::config::builder::{Builder, Group, Profile};

fn wire(cluster: &LocalCluster, place: usize) -> Grpc {
    Grpc::connect(&cluster.endpoint(place))
}

/// Waits until a member is in this state; gives the reason.
async fn state(cluster: &LocalCluster, place: usize, wanted: &str) -> String {
    let wire = wire(cluster, place).within(Duration::from_secs(1));
    eventually(&format!("the member is {wanted}"), || async {
        let status = wire.status().await.map_err(|failure| failure.to_string())?;
        if status.state == wanted { Ok(status.reason) } else { Err(format!("{}: {}", status.state, status.reason)) }
    })
    .await
}

#[test]
fn s78_s79_s84_s88_s89_s104_a_partition_group_is_a_set_of_partitions_on_the_members_that_configure_it() {
    run(async {
        let cluster = cluster().await;
        let client = cluster.add("client", "client-1", |_, builder| builder.profile(Profile::Client)).expect("add");
        start(&cluster, [client]).await;
        for place in 0..3 {
            let status = wire(&cluster, place).status().await.expect("status");
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
        let status = wire(&cluster, client).status().await.expect("status");
        assert!(status.partition_groups.iter().flat_map(|it| &it.partitions).all(|it| !it.local), "{status:?}");
    });
}

#[test]
fn s91_s127_d6_a_member_without_groups_discovers_them_and_uses_them_as_a_client() {
    run(async {
        let cluster = cluster().await;
        let client = cluster.add("client", "client-1", |_, builder| builder.profile(Profile::Client)).expect("add");
        start(&cluster, [client]).await;
        let (near, far): (Http, Grpc) = (Http::connect(&cluster.endpoint(client)), wire(&cluster, 1));
        let group = "from-a-client";
        let mut held = near.hold(group, Joining::named("pod")).await.expect("join");
        assert_eq!(held.joined.member.as_ref().expect("a member").sidecar, "client-1");
        assert!(held.leads().await > 0);
        assert_eq!(far.get(group).await.expect("get").leader, held.id());
        let mut watch = near.watch(group, "").await.expect("watch");
        watch.snapshot().await;
        let other = far.join(group, Joining::default()).await.expect("join").member.expect("a member").id;
        assert_eq!(watch.joined().await.id, other);
        let status = wire(&cluster, 0).status().await.expect("status");
        let member = status.members.iter().find(|member| member.name == "client-1").expect("the others know it");
        assert!(!member.voter && member.r#type == "ephemeral", "{member:?}");
    });
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
        eventually("all partition groups are known everywhere", || async {
            for place in 0..3 {
                let status = wire(&cluster, place).status().await.map_err(|failure| failure.to_string())?;
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
        let (first, third) = (wire(&cluster, 0), wire(&cluster, 2));
        let failure = first.create("g", None).await.expect_err("there are two and no default");
        assert_eq!(failure.code, "partition_group_ambiguous", "{failure}");
        assert!(failure.message.contains("own") && failure.message.contains("data"), "{failure}");
        let own = first.in_partition_group("own").create("g", None).await.expect("create in own");
        let data = third.in_partition_group("data").create("g", None).await.expect("create in data");
        assert_eq!((own.partition_group.as_str(), data.partition_group.as_str()), ("own", "data"));
        let member = first.in_partition_group("own").join("g", Joining::default()).await.expect("join");
        let id = member.member.expect("a member").id;
        assert_eq!(third.in_partition_group("own").get("g").await.expect("get").leader, id);
        assert_eq!(third.in_partition_group("data").get("g").await.expect("get").members.len(), 0, "another group");
        let status = first.status().await.expect("status");
        let own = status.partition_groups.iter().find(|group| group.name == "own").expect("own");
        assert_eq!(own.partitions[0].replicas, vec!["member-3"]);
    });
}

#[test]
fn s99_a_management_group_alone_stores_no_primitives() {
    run(async {
        let cluster = prepared(|_, builder| builder.management_group(Group::raft(names())));
        start(&cluster, [0, 1, 2]).await;
        let failure = wire(&cluster, 0).create("g", None).await.expect_err("there is nowhere to put it");
        assert_eq!((failure.code.as_str(), failure.retry.as_str()), ("partition_group_unknown", "never"), "{failure}");
        let failure = wire(&cluster, 0).in_partition_group("system").create("g", None).await.expect_err("reserved");
        assert!(failure.message.contains("system"), "{failure}");
    });
}

#[test]
fn s92_s93_d13_d22_without_a_management_group_a_sidecar_starts_says_so_and_answers_with_a_code() {
    run(async {
        let cluster = prepared(|seat, builder| match seat.name.as_str() {
            "member-3" => builder.partition_group("data", Group::raft(["member-3"]).partitions(1)),
            _ => builder.management_group(Group::raft(["member-1", "member-2"])),
        });
        cluster.spawn(2).expect("start the one without");
        let reason = state(&cluster, 2, "waiting_for_management_group").await;
        assert!(reason.contains("management group"), "{reason}");
        let wire = wire(&cluster, 2);
        let failure = wire.create("g", None).await.expect_err("there is none yet");
        assert_eq!(failure.code, "waiting_for_management_group", "{failure}");
        assert_eq!(failure.retry, "later");
        start(&cluster, [0, 1]).await;
        cluster.wait_member(2, Duration::from_secs(60)).await.unwrap_or_else(|error| panic!("{error}"));
        eventually("it works by itself once one is found", || async {
            wire.create("g", None).await.map_err(|failure| failure.to_string())
        })
        .await;
    });
}

#[test]
fn s105_s106_no_member_bootstraps_before_every_listed_one_has_answered() {
    run(async {
        let cluster = prepared(|_, builder| {
            builder.management_group(Group::raft(names())).partition_group("data", Group::raft(names()).partitions(1))
        });
        cluster.spawn(0).expect("start");
        cluster.spawn(1).expect("start");
        let reason = state(&cluster, 0, "waiting_for_members").await;
        assert!(reason.contains("member-3"), "it names who is missing: {reason}");
        let failure = wire(&cluster, 0).create("g", None).await.expect_err("two of three form nothing");
        assert_eq!(failure.retry, "later", "{failure}");
        cluster.spawn(2).expect("start");
        cluster.wait_ready(Duration::from_secs(60)).await.unwrap_or_else(|error| panic!("{error}"));
        wire(&cluster, 0).create("g", None).await.expect("three do");
        let ids: Vec<String> = {
            let mut ids = Vec::new();
            for place in 0..3 {
                ids.push(wire(&cluster, place).status().await.expect("status").cluster_id);
            }
            ids
        };
        assert!(!ids[0].is_empty() && ids.iter().all(|id| *id == ids[0]), "one cluster: {ids:?}");
    });
}

#[test]
fn s97_s98_s109_s111_s124_the_profile_consensus_boots_a_cluster() {
    run(async {
        let cluster = prepared(|_, builder: Builder| builder.profile(Profile::Consensus));
        start(&cluster, [0, 1, 2]).await;
        let status = wire(&cluster, 0).status().await.expect("status");
        let groups: Vec<_> = status.partition_groups.iter().map(|group| group.name.as_str()).collect();
        assert_eq!(groups, vec!["system", "raft"]);
        let made = wire(&cluster, 2).create("g", None).await.expect("create");
        assert_eq!(made.partition_group, "raft", "it is the only one");
    });
}

#[test]
fn s108_s112_a_crashed_replica_still_counts_and_catches_up() {
    run(async {
        let cluster = cluster().await;
        for victim in 0..3 {
            let other = wire(&cluster, (victim + 1) % 3);
            cluster.kill(victim).expect("kill");
            let name = format!("while-{victim}-was-away");
            let made = eventually("two of three are a majority", || async {
                other.create(&name, None).await.map_err(|failure| failure.to_string())
            })
            .await;
            start(&cluster, [victim]).await;
            let back = wire(&cluster, victim);
            let stale = eventually("it has caught up", || async {
                back.read(&name, coterie_proto::v1::Consistency::Stale).await.map_err(|failure| failure.to_string())
            })
            .await;
            assert_eq!(stale.config_revision, made.config_revision);
            let status = other.status().await.expect("status");
            assert!(status.partition_groups.iter().flat_map(|it| &it.partitions).all(|it| it.replicas.len() == 3));
        }
    });
}
