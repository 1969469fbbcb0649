//! What sessions that do nothing cost the leader of their partition:
//!
//! ```text
//! cargo run --release -p coterie-sidecar --example idle_sessions -- 10000 30
//! ```
//! A cluster of three, in this process, on the real disk. Each of so many sessions is kept alive three times within its
//! time-out (5 s), as sidecars do, each at a moment of its own; and for so many seconds the CPU time of the process is
//! taken, before the sessions are there and while they are. What is more, is theirs: the leader's check that it leads, the
//! lookup of each session and its deadline, and the timers. Then the same once more with the messages that bring
//! keep-alives, at both their ends: each sidecar holds a session on every partition that it uses, here 32 that one member
//! leads, and keeps all of them alive with one message. (The sessions' own time-out is longer here, so that none ends
//! meanwhile.)

#![allow(clippy::unwrap_used)] // a measurement: it stops at the first surprise

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::{Duration, Instant};

use common::crowd::{Crowd, kept_alive};
use coterie_core::limits::{SESSION_TTL_MS_DEFAULT, SESSION_TTL_MS_MAX};
use coterie_core::machine::Machine;
use coterie_proto::peer::session_alive::Result as Alive;
use coterie_sidecar::sessions::keeper::{Holder, Touched};
use futures_util::future::join_all;
use tokio::time::{MissedTickBehavior, interval};

/// Partitions that one member leads and every sidecar uses.
const PARTITIONS: usize = 32;
const PATIENCE: Duration = Duration::from_secs(1);
/// How finely the keep-alives are spread over time.
const TICK: Duration = Duration::from_millis(2);

/// CPU time of this process so far (proc(5), /proc/pid/stat: fields 14 and 15, in ticks of 10 ms).
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks = |index: usize| fields[index].parse::<u64>().unwrap();
    Duration::from_millis(10 * (ticks(11) + ticks(12)))
}

fn of_a_core(cpu: Duration, within: Duration) -> f64 {
    100.0 * cpu.as_secs_f64() / within.as_secs_f64()
}

#[tokio::main(flavor = "current_thread")] // as the sidecar on so few cores
async fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>().unwrap());
    let sessions = arguments.next().unwrap_or(10_000);
    let within = Duration::from_secs(arguments.next().unwrap_or(30) as u64);
    let folder = tempfile::tempdir().unwrap();
    let nodes = common::begin_three(folder.path()).await;

    let (begun, before) = (Instant::now(), cpu());
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while begun.elapsed() < within {
        ticks.tick().await;
    }
    let idle = of_a_core(cpu() - before, begun.elapsed());
    println!("without sessions: {idle:.2} % of a core");

    let crowd = Crowd::open(&nodes, sessions, SESSION_TTL_MS_MAX).await;
    let revision = crowd.partition.with_machine(Machine::revision);
    let keeper = crowd.node.keepers().get(&crowd.id).unwrap();
    let at_the_leader = async |holders: &[Holder]| {
        for holder in holders {
            let touched = keeper.touch(&crowd.partition, holder, PATIENCE).await;
            assert!(matches!(touched, Touched::Alive(_)), "a session has expired");
        }
    };
    measure("at the leader", idle, within, &crowd.holders, 1, at_the_leader).await;
    let leader = crowd.partition.leadership().borrow().leader.clone().unwrap();
    let other = nodes.iter().find(|node| node.config().local.name != leader).unwrap();
    let over_the_link = async |holders: &[Holder]| {
        // Here they are one session, named so many times: a sidecar has one on each partition, and all of these are on one.
        let named = vec![(&crowd.id, holders[0].session); holders.len()];
        let answers = kept_alive(other, &leader, &holders[0], &named).await;
        let all = answers.len() == holders.len() && answers.iter().all(|it| *it == Alive::Alive(true));
        assert!(all, "a lease has lapsed: the machine stands still too often");
    };
    measure("with their messages", idle, within, &crowd.holders, PARTITIONS, over_the_link).await;
    let written = crowd.partition.with_machine(Machine::revision).0 - revision.0;
    println!("{written} entries written, {} sessions live", crowd.live());
}

/// Keeps so many sessions alive by `keep`, evenly over time, `together` of them at a time, and prints what it costs.
async fn measure(
    what: &str,
    idle: f64,
    within: Duration,
    sessions: &[Holder],
    together: usize,
    keep: impl AsyncFn(&[Holder]),
) {
    let every = Duration::from_millis(SESSION_TTL_MS_DEFAULT / 3);
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (begun, before) = (Instant::now(), cpu());
    let mut kept = 0;
    let mut sidecars = sessions.chunks(together).cycle();
    while begun.elapsed() < within {
        ticks.tick().await;
        let due = (begun.elapsed().as_secs_f64() / every.as_secs_f64() * sessions.len() as f64) as usize;
        // All that are due at once, as they are of sidecars that know nothing of each other.
        let mut round = Vec::new();
        while kept + together <= due {
            let sidecar = sidecars.next().unwrap();
            kept += sidecar.len();
            round.push(keep(sidecar));
        }
        join_all(round).await;
    }
    let took = begun.elapsed();
    let busy = of_a_core(cpu() - before, took);
    println!(
        "with {} idle sessions, {what}: {busy:.2} % of a core, {:.2} % more; {:.0} keep-alives/s, {:.2} µs each",
        sessions.len(),
        busy - idle,
        kept as f64 / took.as_secs_f64(),
        (busy - idle) / 100.0 * took.as_secs_f64() * 1e6 / kept as f64,
    );
}
