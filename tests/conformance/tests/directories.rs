//! D14: a wiped, rolled-back or copied data directory is refused and named, and never votes.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use coterie_cli::local::{LocalCluster, standard_groups};
use coterie_conformance::harness::{cluster, names, start};
use coterie_conformance::wire::Joining;
use coterie_conformance::{Grpc, Wire, eventually, run};

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("run cp");
    assert!(status.success(), "copy {} to {}", from.display(), to.display());
}

fn wipe(path: &Path) {
    std::fs::remove_dir_all(path).expect("remove the data directory");
}

fn wire(cluster: &LocalCluster, place: usize) -> Grpc {
    Grpc::connect(&cluster.endpoint(place))
}

/// Waits until the member at `place` says that it is refused, or has ended because of it; gives the reason.
async fn refused(cluster: &LocalCluster, place: usize) -> String {
    let wire = wire(cluster, place).within(Duration::from_secs(1));
    eventually("the member is refused", || async {
        if let Some(status) = cluster.exit_status(place) {
            assert!(!status.success(), "a refused member does not end as if all were well");
            return Ok(cluster.logs(place));
        }
        match wire.status().await {
            Ok(status) if status.state == "refused" => Ok(status.reason),
            Ok(status) => Err(format!("{}: {}", status.state, status.reason)),
            Err(failure) => Err(failure.to_string()),
        }
    })
    .await
}

/// Waits until the member at `place` names `member` as refused.
async fn named(cluster: &LocalCluster, place: usize, member: &str) -> String {
    let wire = wire(cluster, place);
    eventually("the others name the refused member", || async {
        let status = wire.status().await.map_err(|failure| failure.to_string())?;
        let found = status.members.iter().find(|it| it.name == member && !it.refused.is_empty());
        found.map(|it| it.refused.clone()).ok_or(format!("{:?}", status.members))
    })
    .await
}

/// With member 3 refused, members 1 and 2 are a majority; with member 2 gone as well there is none.
async fn never_votes(cluster: &LocalCluster) {
    let wire = wire(cluster, 0);
    eventually("two good members are a majority", || async {
        wire.create("before", None).await.map_err(|failure| failure.to_string())
    })
    .await;
    cluster.kill(1).expect("kill");
    let failure = eventually("one good member is none", || async {
        match wire.within(Duration::from_secs(1)).create("after", None).await {
            Err(failure) if failure.code == "no_quorum" => Ok(failure),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(failure.retry, "later");
    start(cluster, [1]).await;
    eventually("two good members are a majority again", || async {
        wire.create("after", None).await.map_err(|failure| failure.to_string())
    })
    .await;
}

fn all(reason: &str, words: &[&str]) {
    for word in words {
        assert!(reason.contains(word), "{word:?} is not in {reason:?}");
    }
}

#[test]
fn d14_a_wiped_directory_is_refused_and_never_votes() {
    run(async {
        let cluster = cluster().await;
        wire(&cluster, 0).create("kept", None).await.expect("create");
        cluster.stop(2).await.expect("stop");
        wipe(&cluster.data_dir(2));
        cluster.spawn(2).expect("start");
        all(&refused(&cluster, 2).await, &["member-3", "emptied"]);
        all(&named(&cluster, 0, "member-3").await, &["member-3", "emptied"]);
        never_votes(&cluster).await;
    });
}

#[test]
fn d14_a_rolled_back_directory_is_refused_and_never_votes() {
    run(async {
        let cluster = cluster().await;
        let (data, earlier) = (cluster.data_dir(2), cluster.home().join("earlier"));
        cluster.stop(2).await.expect("stop");
        copy(&data, &earlier);
        start(&cluster, [2]).await;
        wire(&cluster, 2).create("later", None).await.expect("create");
        cluster.stop(2).await.expect("stop");
        wipe(&data);
        copy(&earlier, &data);
        cluster.spawn(2).expect("start");
        all(&refused(&cluster, 2).await, &["member-3", "rolled back"]);
        all(&named(&cluster, 0, "member-3").await, &["member-3", "rolled back"]);
        never_votes(&cluster).await;
    });
}

/// The start counter does not tell such a directory from one that was crashed; a leader that was told more does.
#[test]
fn d14_a_directory_rolled_back_to_an_earlier_point_of_one_start_is_refused_and_never_votes() {
    run(async {
        let cluster = cluster().await;
        let (data, earlier) = (cluster.data_dir(2), cluster.home().join("earlier"));
        cluster.pause(2).expect("pause");
        copy(&data, &earlier);
        cluster.resume(2).expect("resume");
        let wire = wire(&cluster, 2);
        for number in 0..20 {
            let name = format!("later-{number}");
            eventually("a write", || async { wire.create(&name, None).await.map_err(|failure| failure.to_string()) })
                .await;
        }
        cluster.kill(2).expect("kill");
        wipe(&data);
        copy(&earlier, &data);
        cluster.spawn(2).expect("start");
        all(&refused(&cluster, 2).await, &["member-3", "rolled back"]);
        never_votes(&cluster).await;
    });
}

#[test]
fn d14_a_copy_of_a_running_members_directory_is_refused_and_the_original_goes_on() {
    run(async {
        let cluster = cluster().await;
        let copied = cluster
            .add("copy", "member-3", |seat, builder| {
                let bind = seat.peer_address().parse().expect("an address");
                standard_groups(&names(), builder).peer_bind(bind)
            })
            .expect("a second process of the same name");
        cluster.stop(2).await.expect("stop");
        copy(&cluster.data_dir(2), &cluster.data_dir(copied));
        start(&cluster, [2]).await;
        cluster.spawn(copied).expect("start the copy");
        all(&refused(&cluster, copied).await, &["member-3", "cop"]);
        let status = wire(&cluster, 2).status().await.expect("the original goes on");
        assert_eq!(status.state, "running", "{}", status.reason);
        wire(&cluster, 2).join("g", Joining::default()).await.expect("and serves");
    });
}

#[test]
fn d14_another_members_directory_is_refused_by_name() {
    run(async {
        let cluster = cluster().await;
        cluster.stop(1).await.expect("stop");
        wipe(&cluster.data_dir(1));
        cluster.stop(0).await.expect("stop");
        copy(&cluster.data_dir(0), &cluster.data_dir(1));
        start(&cluster, [0]).await;
        cluster.spawn(1).expect("start");
        all(&refused(&cluster, 1).await, &["member-1", "member-2"]);
        wire(&cluster, 0).create("g", None).await.expect("the others go on");
    });
}

#[test]
fn d14_a_directory_is_locked_against_a_second_process() {
    run(async {
        let cluster = cluster().await;
        let second = cluster
            .add("second", "member-3", |_, builder| {
                let data = cluster.data_dir(2).to_string_lossy().into_owned();
                standard_groups(&names(), builder).data_directory(data)
            })
            .expect("a second process");
        cluster.spawn(second).expect("start");
        let reason = refused(&cluster, second).await;
        all(&reason, &["in use by another process"]);
        assert!(cluster.exit_status(second).is_some(), "it does not stay");
        assert_eq!(wire(&cluster, 2).status().await.expect("the first goes on").state, "running");
    });
}

/// All members stop, one directory is changed, all start again: nobody has a running majority to ask.
async fn at_bootstrap(change: impl AsyncFnOnce(&LocalCluster)) -> LocalCluster {
    let cluster = cluster().await;
    wire(&cluster, 0).create("kept", None).await.expect("create");
    change(&cluster).await;
    for place in 0..3 {
        cluster.spawn(place).expect("start");
    }
    cluster
}

#[test]
fn s106_d14_a_wiped_first_member_is_refused_at_bootstrap_and_forms_nothing_anew() {
    run(async {
        let cluster = at_bootstrap(async |cluster: &LocalCluster| {
            cluster.stop_all().await.expect("stop");
            wipe(&cluster.data_dir(0));
        })
        .await;
        all(&refused(&cluster, 0).await, &["member-1", "emptied"]);
        for place in [1, 2] {
            cluster.wait_member(place, Duration::from_secs(60)).await.unwrap_or_else(|error| panic!("{error}"));
            all(&named(&cluster, place, "member-1").await, &["member-1"]);
        }
        wire(&cluster, 1).get("kept").await.expect("the old cluster goes on");
    });
}

#[test]
fn d14_a_rolled_back_directory_is_refused_at_bootstrap() {
    run(async {
        let cluster = at_bootstrap(async |cluster: &LocalCluster| {
            let (data, earlier) = (cluster.data_dir(2), cluster.home().join("earlier"));
            cluster.stop(2).await.expect("stop");
            copy(&data, &earlier);
            start(cluster, [2]).await;
            cluster.stop_all().await.expect("stop");
            wipe(&data);
            copy(&earlier, &data);
        })
        .await;
        all(&refused(&cluster, 2).await, &["member-3", "rolled back"]);
        for place in [0, 1] {
            cluster.wait_member(place, Duration::from_secs(60)).await.unwrap_or_else(|error| panic!("{error}"));
        }
        wire(&cluster, 0).get("kept").await.expect("the others go on");
    });
}

#[test]
fn d14_a_copied_directory_is_refused_at_bootstrap() {
    run(async {
        let cluster = at_bootstrap(async |cluster: &LocalCluster| {
            cluster.stop_all().await.expect("stop");
            wipe(&cluster.data_dir(1));
            copy(&cluster.data_dir(0), &cluster.data_dir(1));
        })
        .await;
        all(&refused(&cluster, 1).await, &["member-1", "member-2"]);
        for place in [0, 2] {
            cluster.wait_member(place, Duration::from_secs(60)).await.unwrap_or_else(|error| panic!("{error}"));
        }
        wire(&cluster, 0).get("kept").await.expect("the others go on");
    });
}

#[test]
fn d4_d14_directories_of_two_clusters_are_not_mixed_and_each_is_named() {
    run(async {
        let (one, two) = (cluster().await, cluster().await);
        one.stop_all().await.expect("stop");
        two.stop_all().await.expect("stop");
        wipe(&one.data_dir(2));
        copy(&two.data_dir(2), &one.data_dir(2));
        for place in 0..3 {
            one.spawn(place).expect("start");
        }
        all(&refused(&one, 2).await, &["member-3"]);
        for place in [0, 1] {
            one.wait_member(place, Duration::from_secs(60)).await.unwrap_or_else(|error| panic!("{error}"));
        }
    });
}
