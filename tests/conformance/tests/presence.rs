//! The three forms of presence (D20) with real application processes.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use coterie_cli::local::{LocalCluster, standard_groups};
use coterie_conformance::harness::{names, prepared, start};
use coterie_conformance::{Grpc, Http, Wire, eventually, name, run, shared};
use coterie_core::config::builder::{Application, Probe};
use coterie_proto::v1;
use tokio::net::TcpListener;

/// The example worker, as a process that is killed at the end.
struct Worker(Child);

impl Worker {
    fn start(cluster: &LocalCluster, place: usize, group: &str) -> Self {
        let program = cluster.sidecar().with_file_name("coterie-worker");
        assert!(program.is_file(), "there is no {}; run `cargo build --bins`", program.display());
        let mut command = Command::new(program);
        command.args(["--group", group, "--name", "w"]).env("COTERIE_SOCKET", cluster.seat(place).socket());
        Self(command.stdout(Stdio::null()).spawn().expect("start the worker"))
    }

    fn kill(&mut self) {
        self.0.kill().expect("kill the worker");
        self.0.wait().expect("wait for the worker");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn s8_d20_a_killed_application_with_a_stream_loses_its_place_within_milliseconds() {
    run(async {
        let cluster = shared().await;
        let group = name("killed");
        let wire = Grpc::connect(&cluster.endpoint(1));
        wire.create(&group, None).await.expect("create");
        let mut watch = wire.watch(&group, "").await.expect("watch");
        watch.snapshot().await;
        let mut took = Vec::new();
        for _ in 0..5 {
            let mut worker = Worker::start(cluster, 0, &group);
            let id = watch.joined().await.id;
            let killed = Instant::now();
            worker.kill();
            watch.left(id).await;
            took.push(killed.elapsed());
        }
        took.sort();
        println!("a killed application lost its place after {took:?}");
        assert!(took[0] < Duration::from_millis(100), "{took:?}");
        // The rest may meet whatever else this machine does.
        assert!(took[4] < Duration::from_secs(1), "{took:?}");
    });
}

#[test]
fn s36_d16_a_worker_that_is_terminated_releases_and_leaves() {
    run(async {
        let cluster = shared().await;
        let group = name("terminated");
        let wire = Http::connect(&cluster.endpoint(1));
        wire.create(&group, None).await.expect("create");
        let mut watch = wire.watch(&group, "").await.expect("watch");
        let mut worker = Worker::start(cluster, 0, &group);
        let id = watch.joined().await.id;
        watch.elected(0).await;
        let terminated = Command::new("kill").arg(worker.0.id().to_string()).status().expect("run kill");
        assert!(terminated.success());
        assert_eq!(watch.left(id).await, "left");
        assert!(worker.0.wait().expect("wait").success());
    });
}

#[test]
fn d20_an_application_that_is_probed_is_a_member_while_the_probe_succeeds() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("it is bound");
        let application = Application::new("probed", Probe::Tcp(address.to_string()))
            .interval_ms(100)
            .metadata([("name".to_owned(), "legacy".to_owned())].into());
        let cluster = prepared(move |seat, builder| {
            let builder = standard_groups(&names(), builder);
            if seat.name == "member-1" { builder.application(application.clone()) } else { builder }
        });
        start(&cluster, [0, 1, 2]).await;
        let wire = Grpc::connect(&cluster.endpoint(1));
        let member = eventually("the probed application is a member", || async {
            let group = wire.get("probed").await.map_err(|failure| failure.to_string())?;
            group.members.first().cloned().ok_or("no member".to_owned())
        })
        .await;
        assert_eq!((member.presence(), member.sidecar.as_str()), (v1::Presence::Probe, "member-1"));
        assert_eq!(member.metadata["name"], "legacy");
        // The zero-code way: the application asks whether it leads.
        let beside = Http::connect(&cluster.endpoint(0));
        let itself = eventually("it leads", || async {
            let itself = beside.itself("probed").await.map_err(|failure| failure.to_string())?;
            if itself.leads { Ok(itself) } else { Err(format!("{itself:?}")) }
        })
        .await;
        assert!(itself.term > 0 && itself.members[0].member == member.id);

        let mut watch = wire.watch("probed", "").await.expect("watch");
        watch.snapshot().await;
        drop(listener);
        watch.left(member.id).await;
        let listener = TcpListener::bind(address).await.expect("bind again");
        let again = watch.joined().await;
        assert!(again.id > member.id, "it comes back as a new member");
        drop(listener);
    });
}
