//! `coterie`: a local cluster from start to end, as a user runs it.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use coterie_conformance::{eventually, run};

/// The program, beside the sidecar.
fn program() -> PathBuf {
    let test = std::env::current_exe().expect("this program has a path");
    let path = test.ancestors().nth(2).expect("it is in deps").join("coterie");
    assert!(path.is_file(), "there is no {}; run `cargo build --bins`", path.display());
    path
}

/// `coterie up`, killed at the end.
struct Up {
    child: Child,
    output: BufReader<ChildStdout>,
    endpoint: String,
    home: PathBuf,
}

impl Up {
    /// Starts it and waits until it says that it is ready.
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(program());
        command.args(["up", "--api-port", "0"]).args(arguments).stdout(Stdio::piped());
        let mut child = command.spawn().expect("start coterie");
        let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
        let (mut said, mut line) = (String::new(), String::new());
        while !line.starts_with("ready") {
            line.clear();
            assert!(output.read_line(&mut line).expect("read") > 0, "it ended instead of becoming ready:\n{said}");
            said.push_str(&line);
        }
        let row: Vec<&str> = said.lines().nth(1).expect("a row for each member").split_whitespace().collect();
        assert_eq!(row[0], "member-1", "{said}");
        let home = Path::new(row[2]).ancestors().nth(2).expect("the socket is in the member's directory").to_owned();
        Self { child, output, endpoint: row[1].to_owned(), home }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(program()).args(arguments).args(["--endpoint", &self.endpoint]).output().expect("run coterie")
    }

    fn text(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status().expect("run kill");
        assert!(status.success());
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until nothing is left of a cluster: no process that runs on its files, and no files.
async fn nothing_is_left(home: &Path) {
    let home = home.to_string_lossy().into_owned();
    eventually("nothing is left", || async {
        let list = Command::new("ps").args(["-eo", "args"]).output().map_err(|error| error.to_string())?;
        let list = String::from_utf8_lossy(&list.stdout).into_owned();
        let left: Vec<&str> = list.lines().filter(|line| line.contains(&home) && line.contains("sidecar")).collect();
        if !left.is_empty() {
            return Err(format!("{left:?}"));
        }
        if Path::new(&home).exists() { Err(format!("{home} is still there")) } else { Ok(()) }
    })
    .await;
}

#[test]
fn a_local_cluster_starts_shows_itself_and_stops_without_a_trace() {
    run(async {
        let mut up = Up::start(&["--members", "3"]);
        let status = up.text(&["status"]);
        for word in ["member-1", "member-3", "system/1", "data/3", "running"] {
            assert!(status.contains(word), "{word} is not in:\n{status}");
        }
        let status: serde_json::Value = serde_json::from_str(&up.text(&["status", "-o", "json"])).expect("JSON");
        assert_eq!(status["members"].as_array().map(Vec::len), Some(3));
        assert!(status["partition_groups"][0]["partitions"][0]["term"].is_string(), "64 bits are strings: {status}");

        let client = coterie_client::Client::connect(&up.endpoint).expect("connect");
        let member = client.group("workers").join(Default::default()).await.expect("join");
        let shown = up.text(&["group", "workers"]);
        assert!(shown.contains(&format!("leader {}", member.id())) && shown.contains("member-1"), "{shown}");
        member.leave().await.expect("leave");
        let unknown = up.run(&["group", "nobody"]);
        let said = String::from_utf8_lossy(&unknown.stderr);
        assert!(!unknown.status.success() && said.contains("group_unknown") && said.contains("nobody"), "{said}");

        up.signal("-TERM");
        assert!(up.child.wait().expect("wait").success(), "it ends well");
        let rest: Vec<String> = up.output.by_ref().lines().map_while(Result::ok).collect();
        assert!(rest.iter().any(|line| line.starts_with("stopped 3 members")), "{rest:?}");
        nothing_is_left(&up.home).await;
    });
}

#[test]
fn watching_a_group_prints_a_line_for_each_change() {
    run(async {
        let up = Up::start(&["--members", "1"]);
        let group = coterie_client::Client::connect(&up.endpoint).expect("connect").group("watched");
        group.create(None).await.expect("create");
        let mut command = tokio::process::Command::new(program());
        command.args(["group", "watched", "--watch", "--endpoint", &up.endpoint]).stdout(Stdio::piped());
        let mut watch = command.kill_on_drop(true).spawn().expect("start coterie");
        let output = tokio::io::BufReader::new(watch.stdout.take().expect("it is piped"));
        let mut lines = tokio::io::AsyncBufReadExt::lines(output);
        let mut next = async || lines.next_line().await.expect("text").expect("a line");
        assert!(next().await.contains("snapshot"));
        let member = group.join(Default::default()).await.expect("join");
        let id = member.id().to_string();
        for word in ["joined", "term", "elected"] {
            let line = next().await;
            assert!(line.contains(word) && (word == "term" || line.contains(&id)), "{word}: {line}");
        }
        drop(member);
        assert!(next().await.contains("left"));
    });
}

#[test]
fn a_launcher_that_is_killed_leaves_no_process_and_no_file() {
    run(async {
        let mut up = Up::start(&["--members", "3"]);
        up.signal("-KILL");
        up.child.wait().expect("wait");
        nothing_is_left(&up.home).await;
    });
}

#[test]
fn a_cluster_in_a_directory_goes_on_when_it_is_started_again() {
    run(async {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().to_string_lossy().into_owned();
        for turn in 0..2 {
            let mut up = Up::start(&["--members", "3", "--dir", &path]);
            let group = coterie_client::Client::connect(&up.endpoint).expect("connect").group("kept");
            if turn == 0 {
                group.create(None).await.expect("create");
            } else {
                group.term().await.expect("it is still there");
            }
            up.signal("-INT");
            assert!(up.child.wait().expect("wait").success());
        }
    });
}
