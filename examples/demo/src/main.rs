//! `make demo`: the main job on this machine. Three members, three workers, one leads, it is killed, the next leads with a
//! higher term; then the sidecar of that one is killed. Every step is printed with the time since the start; the program
//! fails if anything does not hold.

use std::fmt::Display;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use coterie_cli::local::LocalCluster;
use coterie_client::{Client, EventKind, GroupInfo, MemberId, MemberInfo, Term, View, Watch};

const GROUP: &str = "workers";
const WORKERS: usize = 3;
/// How long any one step may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// A crashed application loses its place through its sidecar, a crashed sidecar by its session's time-out of 5 s.
const SESSION_BOUND: Duration = Duration::from_secs(7);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let steps = Steps { begun: Instant::now() };
    steps.say("three members start, each a process with a data directory of its own");
    let cluster = LocalCluster::start(WORKERS).await?;
    steps.say("all are ready");
    for seat in cluster.seats() {
        steps.say(format!("  {}: application API on {}", seat.name, seat.endpoint()));
    }
    let result = show(&steps, &cluster).await;
    steps.say("everything is stopped and removed");
    cluster.stop_all().await?;
    result
}

async fn show(steps: &Steps, cluster: &LocalCluster) -> anyhow::Result<()> {
    let observer = Client::connect(&cluster.endpoint(0))?;
    observer.group(GROUP).create(None).await?;
    let mut view = observer.group(GROUP).view().await?;
    let mut workers = Workers::start(cluster)?;
    steps.say("three workers join the group `workers`, each through another member");
    let group = within(view.wait_for(|group| group.members.len() == WORKERS && group.leader.is_some())).await?;
    let first = leader(&group)?;
    steps.say(format!("{} leads in term {}", first.name, group.term));

    // The first kill: an application.
    let mut watch = observer.group(GROUP).watch();
    snapshot(&mut watch).await?;
    let killed = Instant::now();
    workers.kill(&first.name)?;
    steps.say(format!("kill -9 {}", first.name));
    let left = within(left(&mut watch, first.id)).await?;
    steps.say(format!("  its sidecar gave up its place after {} ms", left.duration_since(killed).as_millis()));
    let second = next_leader(steps, &mut view, group.term, killed).await?;

    // The second kill: a sidecar.
    let place = cluster.seats().iter().position(|seat| seat.name == second.sidecar).context("find its sidecar")?;
    let elsewhere = (place + 1) % WORKERS;
    let observer = Client::connect(&cluster.endpoint(elsewhere))?;
    let mut view = observer.group(GROUP).view().await?;
    let term = view.term();
    let killed = Instant::now();
    cluster.kill(place)?;
    steps.say(format!("kill -9 {}, the sidecar of {}", second.sidecar, second.name));
    let third = next_leader(steps, &mut view, term, killed).await?;
    ensure!(killed.elapsed() < SESSION_BOUND, "a failed sidecar's place is free within its session time-out plus 2 s");
    ensure!(third.sidecar != second.sidecar, "the next leader is at another member");
    steps.say("each leader had a higher term than the one before: a fencing token");
    Ok(())
}

/// Waits for the next leader and shows it.
async fn next_leader(steps: &Steps, view: &mut View, old: Term, killed: Instant) -> anyhow::Result<Leader> {
    let group = within(view.wait_for(|group| group.term > old && group.leader.is_some())).await?;
    let next = leader(&group)?;
    let after = killed.elapsed().as_millis();
    steps.say(format!("{} leads in term {} after {after} ms", next.name, group.term));
    ensure!(group.term > old, "terms rise");
    Ok(next)
}

/// The leading worker.
struct Leader {
    id: MemberId,
    name: String,
    sidecar: String,
}

fn leader(group: &Arc<GroupInfo>) -> anyhow::Result<Leader> {
    let MemberInfo { id, metadata, sidecar, .. } = group.leading().context("somebody leads")?;
    let name = metadata.get("name").context("a worker has a name")?;
    Ok(Leader { id: *id, name: name.clone(), sidecar: sidecar.clone() })
}

async fn snapshot(watch: &mut Watch) -> anyhow::Result<()> {
    within(async { watch.next().await.transpose() }).await?;
    Ok(())
}

/// Waits for a member's leave.
async fn left(watch: &mut Watch, id: MemberId) -> Result<Instant, coterie_client::Error> {
    while let Some(event) = watch.next().await {
        if matches!(event?.kind, EventKind::Left { member, .. } if member == id) {
            return Ok(Instant::now());
        }
    }
    Err(coterie_client::Error::Protocol { missing: "leave" })
}

async fn within<T>(step: impl Future<Output = Result<T, coterie_client::Error>>) -> anyhow::Result<T> {
    Ok(tokio::time::timeout(PATIENCE, step).await.context("a step took longer than it may")??)
}

/// The worker processes.
struct Workers(Vec<(String, Child)>);

impl Workers {
    fn start(cluster: &LocalCluster) -> anyhow::Result<Self> {
        let program = program()?;
        let mut workers = Self(Vec::new());
        for (seat, name) in cluster.seats().iter().zip(["worker-a", "worker-b", "worker-c"]) {
            let mut command = Command::new(&program);
            command.args(["--group", GROUP, "--name", name]).env("COTERIE_SOCKET", seat.socket());
            command.env_remove("COTERIE_ENDPOINT").stdout(Stdio::null());
            let child = command.spawn().with_context(|| format!("start {}", program.display()))?;
            workers.0.push((name.to_owned(), child));
        }
        Ok(workers)
    }

    fn kill(&mut self, name: &str) -> anyhow::Result<()> {
        let worker = self.0.iter_mut().find(|(known, _)| known == name).context("find the worker")?;
        worker.1.kill().with_context(|| format!("kill {name}"))
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for (_, child) in &mut self.0 {
            // One that has ended already needs no killing.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The worker, beside this program.
fn program() -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe().context("find this program")?.with_file_name("coterie-worker");
    ensure!(path.is_file(), "there is no {}; run `cargo build --bins`", path.display());
    Ok(path)
}

/// Prints steps with the time since the start.
struct Steps {
    begun: Instant,
}

impl Steps {
    fn say(&self, what: impl Display) {
        println!("{:>7} ms  {what}", self.begun.elapsed().as_millis());
    }
}
