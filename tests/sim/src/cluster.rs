//! Three simulated machines, each with a disk, a clock, a sidecar and its applications, and the one who drives them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use coterie_core::PartitionId;
use coterie_core::config::{Config, Overrides};
use coterie_env::mem::{Lie, MemDisk, SeededRandom};
use coterie_sidecar::Node;
use coterie_sidecar::node::{Options, Sizes};
use coterie_workloads::chance::Chance;
use tokio::sync::watch;

use crate::application::API_PORT;
use crate::history::{History, Seen};
use crate::process::Process;
use crate::volume::Volume;
use crate::world::{self, Pace, Skew};

/// The members of the cluster, each on a host of its name.
pub const HOSTS: [&str; 3] = ["member-1", "member-2", "member-3"];
/// Simulated time after which what is waited for will not come.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest that a message takes on a link that nothing is wrong with.
pub const LATENCY_MAX: Duration = Duration::from_millis(3);
/// How long a process that has ended stays away: somebody starts it again.
const AWAY: Duration = Duration::from_millis(500);
/// How much slower than the time a machine's clock may be, in millionths: sessions leave room for a hundredth.
const SLOW_PPM_MAX: u64 = 9_000;
/// How much faster or slower its wall clock may be.
const WALL_PPM_MAX: i64 = 20_000;
/// How far its wall clock may be off all the time.
const WALL_OFF_MS_MAX: i64 = 120_000;
/// How long a sidecar may take to stop in good order: then Kubernetes kills it.
const STOP_MAX: Duration = Duration::from_secs(30);
/// What an error says that comes from a write without room.
const NO_ROOM: &str = "the disk is full";
/// Between two looks whether a sidecar is ready.
const LOOK: Duration = Duration::from_millis(50);
/// Lines of the trace that an error shows.
const TAIL: usize = 40;

/// One machine: its disk and its clock outlive its processes.
pub struct Machine {
    /// Its name, and that of the member on it.
    pub host: &'static str,
    /// Its disk.
    pub disk: MemDisk,
    /// How far its wall clock is off.
    pub skew: Skew,
    /// What it does to its sidecar's process.
    pub process: Process,
    /// How large it lets things become on its disk.
    pub sizes: Sizes,
    random: Arc<SeededRandom>,
    lives: AtomicU32,
    /// How many of its lives are to end in good order, if they have not ended by then.
    stops: watch::Sender<u32>,
    /// Whether its sidecar is ready.
    is_ready: AtomicBool,
    /// Whether its process has ended by itself.
    has_ended: AtomicBool,
}

impl Machine {
    /// How often it was started.
    pub fn lives(&self) -> u32 {
        self.lives.load(Ordering::Relaxed)
    }

    /// Whether its sidecar is ready to serve.
    pub fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Relaxed)
    }
}

/// One life of a machine: what its applications have.
#[derive(Clone)]
pub struct Life {
    /// The machine's name.
    pub host: &'static str,
    /// Which of its lives.
    pub number: u32,
    /// Decides the simulation.
    pub seed: u64,
    /// The machine's wall clock.
    pub skew: Skew,
    /// The sidecar beside the applications.
    pub node: Node,
    /// What is told of what they see.
    pub history: History,
}

/// Starts the applications of one life, as tasks of their host.
pub type Applications = fn(Life);

/// What a disk does when it is told to flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Flushes.
    Honest,
    /// Says so, once the cluster is formed, and does not: what a sidecar without its flush would come to.
    Removed,
}

/// How a machine's disk fares in a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// All that was not flushed is gone.
    Everything,
    /// A part of it is, which this decides: writes are torn.
    Some(u64),
    /// Everything is, and the volume with it.
    Volume,
}

/// The cluster.
pub struct Cluster<'a> {
    /// Its network and time.
    pub sim: turmoil::Sim<'a>,
    /// What was seen.
    pub history: History,
    machines: BTreeMap<&'static str, Arc<Machine>>,
    /// What has ended by itself, and when it is started again.
    ended: Vec<(Duration, &'static str)>,
}

impl Cluster<'_> {
    /// Starts the cluster that a seed decides, with these applications on every host; `simulated` is how long it may live.
    pub fn start(seed: u64, simulated: Duration, applications: Applications) -> Self {
        let history = History::default();
        let mut sim = turmoil::Builder::new()
            .rng_seed(seed)
            .simulation_duration(simulated)
            .tick_duration(Duration::from_millis(1))
            .min_message_latency(Duration::from_millis(0))
            .max_message_latency(LATENCY_MAX)
            .tcp_capacity(4096)
            .build();
        let sizes = sizes(seed);
        let machine = |(number, host): (u64, &'static str)| {
            let random = Arc::new(SeededRandom::new(seed.wrapping_mul(31).wrapping_add(number)));
            let (disk, skew) = (MemDisk::new(), Skew::new(pace(seed, host)));
            let (lives, stops) = (AtomicU32::new(0), watch::Sender::new(0));
            let (is_ready, has_ended, process) =
                (AtomicBool::default(), AtomicBool::default(), Process::new(seed, host));
            (host, Arc::new(Machine { host, disk, skew, process, sizes, random, lives, stops, is_ready, has_ended }))
        };
        let machines: BTreeMap<_, _> = (1..).zip(HOSTS).map(machine).collect();
        for (host, machine) in &machines {
            let (machine, history) = (machine.clone(), history.clone());
            sim.host(*host, move || live(seed, machine.clone(), history.clone(), applications));
        }
        Self { sim, history, machines, ended: Vec::new() }
    }

    /// A machine.
    pub fn machine(&self, host: &str) -> &Machine {
        &self.machines[host]
    }

    /// All of them.
    pub fn machines(&self) -> impl Iterator<Item = &Machine> {
        self.machines.values().map(|machine| &**machine)
    }

    /// From now on no disk flushes, and all say that they did.
    pub fn remove_flush(&self) {
        self.machines().for_each(|machine| machine.disk.fail_sync_silently(Lie::On));
    }

    /// Ends everything on this host at once, and what it has not flushed is lost.
    pub fn crash(&mut self, host: &str, loss: Loss) {
        self.history.note(host, "CRASH");
        self.sim.crash(host);
        self.machines[host].is_ready.store(false, Ordering::Relaxed);
        self.machines[host].process.gate().open();
        match loss {
            Loss::Everything => self.machines[host].disk.crash(),
            Loss::Some(seed) => self.machines[host].disk.crash_torn(seed),
            Loss::Volume => self.machines[host].disk.lose(),
        }
    }

    /// Has the sidecar of a host stop in good order, as `SIGTERM` does. When it has, it is started again.
    pub fn stop(&self, host: &str) {
        let machine = &self.machines[host];
        machine.stops.send_replace(machine.lives());
    }

    /// Starts a host that crashed.
    pub fn restart(&mut self, host: &str) {
        self.history.note(host, "START");
        self.sim.bounce(host);
    }

    /// Lets so much simulated time pass.
    pub fn pass(&mut self, time: Duration) -> Result<()> {
        let end = self.sim.elapsed() + time;
        while self.sim.elapsed() < end {
            self.step()?;
        }
        Ok(())
    }

    /// Lets simulated time pass until this is so, or for so long.
    pub fn pass_until(&mut self, most: Duration, reached: impl Fn(&Seen) -> bool) -> Result<()> {
        let end = self.sim.elapsed() + most;
        while self.sim.elapsed() < end && !reached(&self.history.seen()) {
            self.step()?;
        }
        Ok(())
    }

    /// Lets simulated time pass until this is so.
    pub fn until(&mut self, what: &str, reached: impl Fn() -> bool) -> Result<()> {
        let end = self.sim.elapsed() + PATIENCE;
        while !reached() {
            if self.sim.elapsed() > end {
                bail!("waited {PATIENCE:?} of simulated time for {what}\n{}", self.tail());
            }
            self.step()?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<()> {
        self.history.at(u64::try_from(self.sim.elapsed().as_millis()).unwrap_or(u64::MAX));
        self.sim.step().map_err(|error| anyhow::anyhow!("{error}\n{}", self.tail()))?;
        for host in HOSTS {
            if self.machines[host].has_ended.swap(false, Ordering::Relaxed) {
                // Harder than the end of a process, which loses nothing that it has written; and its applications end too.
                self.crash(host, Loss::Everything);
                self.ended.push((self.sim.elapsed() + AWAY, host));
            }
        }
        while let Some(at) = self.ended.iter().position(|(due, _)| *due <= self.sim.elapsed()) {
            let (_, host) = self.ended.remove(at);
            if !self.sim.is_host_running(host) {
                self.restart(host);
            }
        }
        Ok(())
    }

    fn tail(&self) -> String {
        let seen = self.history.clients.seen();
        let lines: Vec<&str> = seen.trace.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }
}

/// How large things become on the disks of a simulation: in one of three as on those of users, else so little that the log
/// goes on to other segments, and is shortened behind snapshots, within seconds.
fn sizes(seed: u64) -> Sizes {
    let chance = Chance::of(seed, "sizes");
    let (segment_bytes, snapshot_entries) = (4_096 << (2 * chance.below(3)), chance.one_of(&[10, 30, 80]));
    if chance.below(3) == 0 { Sizes::default() } else { Sizes { segment_bytes, snapshot_entries } }
}

/// How the clocks of a machine run: in every second simulation as the time does, on all machines.
fn pace(seed: u64, host: &str) -> Pace {
    if Chance::of(seed, "clocks").below(2) == 0 {
        return Pace::default();
    }
    let chance = Chance::of(seed, &format!("clocks of {host}"));
    let around_0 = |most: i64| chance.ms(0, 2 * most.unsigned_abs()).as_millis() as i64 - most;
    Pace {
        slow_ppm: chance.below(SLOW_PPM_MAX),
        wall_ppm: around_0(WALL_PPM_MAX),
        wall_off_ms: around_0(WALL_OFF_MS_MAX),
    }
}

/// How fast the loss of a leader is noticed, and for how long one may lead without an answer, in the simulation of a seed.
fn timing(seed: u64) -> &'static str {
    Chance::of(seed, "timing").one_of(&["normal", "fast", "slow"])
}

/// The configuration of a member.
fn config(host: &str, timing: &str) -> Result<Config> {
    let members: String =
        HOSTS.iter().map(|host| format!("    {host}: {{type: persistent, address: \"{host}:7301\"}}\n")).collect();
    let file = format!(
        "cluster:\n  local-member: {{name: {host}}}\n  members:\n{members}profiles: [consensus]\n\
         api: {{port: {API_PORT}}}\npeer: {{bind: \"0.0.0.0:7301\"}}\nhealth: {{port: 7302}}\nsecurity: {{plaintext: true}}\ntiming: {timing}\n",
    );
    Ok(Config::from_yaml(&file, &Overrides::default())?)
}

/// The partitions that are configured, whoever holds them.
pub fn partitions() -> Result<Vec<PartitionId>> {
    let groups = config(HOSTS[0], "normal")?.partition_groups.into_iter();
    let of_groups = groups.flat_map(|(group, settings)| {
        (1..=settings.partitions).map(move |index| PartitionId { group: group.clone(), index })
    });
    Ok([PartitionId::system()].into_iter().chain(of_groups).collect())
}

/// One life of one host: the sidecar and its applications, until the host crashes. A sidecar may end by itself only after
/// it was told to stop, or because its disk had no room for something: then the host waits for its end.
async fn live(seed: u64, machine: Arc<Machine>, history: History, applications: Applications) -> turmoil::Result {
    let refused = || history.seen().refused_writes.get(machine.host).copied();
    let before = refused();
    match machine.process.task(serve(seed, &machine, &history, applications)).await {
        Ok(()) => history.note(machine.host, "STOPPED"),
        Err(error) if refused() > before && error.contains(NO_ROOM) => {
            history.note(machine.host, &format!("ENDS {error}"))
        }
        Err(error) => return Err(error.into()),
    }
    machine.has_ended.store(true, Ordering::Relaxed);
    std::future::pending().await
}

async fn serve(seed: u64, machine: &Machine, history: &History, applications: Applications) -> Result<(), String> {
    let (host, number) = (machine.host, machine.lives.fetch_add(1, Ordering::Relaxed));
    let volume = Volume { host, disk: machine.disk.clone(), history: history.clone() };
    history.note(host, &format!("STARTS {:?} timing={}", machine.sizes, timing(seed)));
    let options = Options {
        env: world::env(volume, &machine.random, &machine.skew, &machine.process),
        config: config(host, timing(seed)).map_err(in_full)?,
        data_directory: PathBuf::from("/data"),
        api_socket: None,
    };
    let node = Node::start_with(options, machine.sizes).await.map_err(in_full)?;
    let (mut state, mut stops) = (node.state(), machine.stops.subscribe());
    applications(Life { host, number, seed, skew: machine.skew.clone(), node: node.clone(), history: history.clone() });
    state.mark_changed();
    loop {
        machine.is_ready.store(node.ready().is_ok(), Ordering::Relaxed);
        tokio::select! {
            ended = node.wait() => return ended.map_err(in_full),
            changed = state.changed() => {
                changed.map_err(in_full)?;
                let now = state.borrow_and_update().clone();
                history.note(host, &format!("state {} {}", now.label(), now.reason()));
            }
            // What it gives locks the number, which others write.
            () = async { drop(stops.wait_for(|lives| *lives > number).await) } => {
                let stopped = tokio::time::timeout(STOP_MAX, node.stop()).await;
                return stopped.map_err(|_| format!("it did not stop in {STOP_MAX:?}"));
            }
            // Whether it is ready is looked at now and then.
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// An error with what it comes from: turmoil shows its own sentence only.
fn in_full(error: impl Into<anyhow::Error>) -> String {
    format!("{:#}", error.into())
}
