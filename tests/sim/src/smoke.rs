//! The smoke simulation.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use coterie_core::config::{Config, Overrides};
use coterie_env::mem::{Lie, MemDisk, SeededRandom};
use coterie_sidecar::Node;
use coterie_sidecar::node::Options;

use crate::history::{History, Listed};
use crate::{application, world};

const HOSTS: [&str; 3] = ["member-1", "member-2", "member-3"];
/// Simulated time after which a phase that is not done has failed.
const PHASE_MAX: Duration = Duration::from_secs(60);
/// Acknowledged creations that each phase waits for.
const ACKNOWLEDGED: usize = 30;

/// What a disk does when it is told to flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Flushes.
    Honest,
    /// Says so, once the cluster is formed, and does not: what a sidecar without its flush would come to.
    Removed,
}

/// What a run gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Everything that happened, one line each.
    pub trace: String,
    /// Acknowledged creations.
    pub acknowledged: usize,
    /// Leaders of the group that all join, by term.
    pub leaders: BTreeMap<u64, u64>,
}

/// One host: its disk outlives its processes.
struct Machine {
    disk: MemDisk,
    random: Arc<SeededRandom>,
    lives: AtomicU32,
}

/// Runs the simulation of this seed. An error is a broken promise, or no progress.
pub fn run(seed: u64, flush: Flush) -> Result<Report> {
    let history = History::default();
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .simulation_duration(PHASE_MAX * 8)
        .tick_duration(Duration::from_millis(1))
        .min_message_latency(Duration::from_millis(0))
        .max_message_latency(Duration::from_millis(3))
        .tcp_capacity(4096)
        .build();
    let machines: BTreeMap<&str, Arc<Machine>> = (1..)
        .zip(HOSTS)
        .map(|(number, host)| {
            let random = Arc::new(SeededRandom::new(seed.wrapping_mul(31).wrapping_add(number)));
            (host, Arc::new(Machine { disk: MemDisk::new(), random, lives: AtomicU32::new(0) }))
        })
        .collect();
    for (host, machine) in &machines {
        let (host, machine, history) = (*host, machine.clone(), history.clone());
        sim.host(host, move || live(host, machine.clone(), history.clone()));
    }

    let mut drive = Drive { sim, history: history.clone() };
    let enough = |more: usize| {
        let target = history.seen().acknowledged.len() + more;
        let history = history.clone();
        move || history.seen().acknowledged.len() >= target && !history.seen().leaders.is_empty()
    };
    drive.until("a leader, and acknowledged writes", enough(ACKNOWLEDGED))?;

    let (term, leader) = last_leader(&history)?;
    let host = history.seen().hosts.get(&leader).cloned().context("the leader's host")?;
    history.note(&host, "CRASH");
    drive.sim.crash(host.as_str());
    machines[host.as_str()].disk.crash();
    drive.until("a leader with a higher term", || last_leader(&history).is_ok_and(|(next, _)| next > term))?;
    drive.until("writes without the crashed host", enough(ACKNOWLEDGED))?;
    history.note(&host, "START");
    drive.sim.bounce(host.as_str());
    drive.until("writes with all hosts", enough(ACKNOWLEDGED))?;

    if flush == Flush::Removed {
        machines.values().for_each(|machine| machine.disk.fail_sync_silently(Lie::On));
        drive.until("writes that are not flushed", enough(ACKNOWLEDGED))?;
    }
    let (term, _) = last_leader(&history)?;
    for host in HOSTS {
        history.note(host, "CRASH");
        drive.sim.crash(host);
    }
    machines.values().for_each(|machine| machine.disk.crash());
    let before = history.seen().acknowledged.clone();
    HOSTS.iter().for_each(|host| drive.sim.bounce(*host));
    drive.until("a leader after all were down", || last_leader(&history).is_ok_and(|(next, _)| next > term))?;
    drive.until("writes after all were down", enough(ACKNOWLEDGED))?;
    let present = drive.groups()?;
    let lost: Vec<&String> = before.difference(&present).collect();
    if !lost.is_empty() {
        bail!("{} acknowledged groups are gone, the first is {}", lost.len(), lost[0]);
    }
    let seen = history.seen();
    if let Some(violation) = seen.violations.first() {
        bail!("{violation}");
    }
    Ok(Report { trace: seen.trace.clone(), acknowledged: seen.acknowledged.len(), leaders: seen.leaders.clone() })
}

/// One life of one host: the sidecar and its application, until the host crashes.
async fn live(host: &'static str, machine: Arc<Machine>, history: History) -> turmoil::Result {
    let life = machine.lives.fetch_add(1, Ordering::Relaxed);
    let members: String =
        HOSTS.iter().map(|host| format!("    {host}: {{type: persistent, address: \"{host}:7301\"}}\n")).collect();
    let file = format!(
        "cluster:\n  local-member: {{name: {host}}}\n  members:\n{members}profiles: [consensus]\n\
         api: {{port: {}}}\npeer: {{bind: \"0.0.0.0:7301\"}}\nhealth: {{port: 7302}}\nsecurity: {{plaintext: true}}\n",
        application::API_PORT
    );
    let config = Config::from_yaml(&file, &Overrides::default())?;
    let options = Options {
        env: world::env(&machine.disk, &machine.random),
        config,
        data_directory: PathBuf::from("/data"),
        api_socket: None,
    };
    let node = Node::start(options).await?;
    let mut state = node.state();
    tokio::spawn(application::join(host.to_owned(), history.clone()));
    tokio::spawn(application::list(history.clone()));
    tokio::spawn(application::write(host.to_owned(), life, history.clone()));
    loop {
        let now = state.borrow_and_update().clone();
        history.note(host, &format!("state {} {}", now.label(), now.reason()));
        tokio::select! {
            ended = node.wait() => return ended.map_err(Into::into),
            changed = state.changed() => changed?,
        }
    }
}

fn last_leader(history: &History) -> Result<(u64, u64)> {
    let seen = history.seen();
    seen.leaders.last_key_value().map(|(term, leader)| (*term, *leader)).context("no leader yet")
}

struct Drive<'a> {
    sim: turmoil::Sim<'a>,
    history: History,
}

impl Drive<'_> {
    /// Lets simulated time pass until this is so.
    fn until(&mut self, what: &str, reached: impl Fn() -> bool) -> Result<()> {
        let end = self.sim.elapsed() + PHASE_MAX;
        while !reached() {
            if self.sim.elapsed() > end {
                bail!("waited {PHASE_MAX:?} of simulated time for {what}\n{}", self.tail());
            }
            self.sim.step().map_err(|error| anyhow::anyhow!("{error}\n{}", self.tail()))?;
        }
        Ok(())
    }

    /// The groups that there are, by a linearizable read that began after this was called.
    fn groups(&mut self) -> Result<BTreeSet<String>> {
        self.history.seen().listed = Listed::Wanted;
        let history = self.history.clone();
        self.until("the list of groups", || matches!(history.seen().listed, Listed::Found(_)))?;
        match std::mem::take(&mut self.history.seen().listed) {
            Listed::Found(groups) => Ok(groups),
            Listed::Unwanted | Listed::Wanted => bail!("the list of groups was taken by somebody else"),
        }
    }

    fn tail(&self) -> String {
        let seen = self.history.seen();
        let lines: Vec<&str> = seen.trace.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}
