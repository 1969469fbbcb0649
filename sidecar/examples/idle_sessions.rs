//! What sessions that do nothing cost the leader of their partition:
//!
//! ```text
//! cargo run --release -p coterie-sidecar --example idle_sessions -- 10000 30
//! ```
//! A cluster of three, in this process, on the real disk. Each of so many sessions is kept alive three times within its
//! time-out (5 s), as sidecars do, each at a moment of its own; and for so many seconds the CPU time of the process is
//! taken, before the sessions are there and while they are. What is more, is theirs: the leader's check that it leads, the
//! lookup of each session and its deadline, and the timers. What is not in it: the messages that bring keep-alives.

#![allow(clippy::unwrap_used)] // a measurement: it stops at the first surprise

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::{Duration, Instant};

use common::crowd::Crowd;
use coterie_core::limits::SESSION_TTL_MS_DEFAULT;
use coterie_core::machine::Machine;
use coterie_sidecar::sessions::keeper::Touched;
use futures_util::future::join_all;
use tokio::time::{MissedTickBehavior, interval};

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

#[tokio::main(worker_threads = 2)]
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

    let crowd = Crowd::open(&nodes, sessions, SESSION_TTL_MS_DEFAULT).await;
    let revision = crowd.partition.with_machine(Machine::revision);
    let keeper = crowd.node.keepers().get(&crowd.id).unwrap();
    let every = Duration::from_millis(SESSION_TTL_MS_DEFAULT / 3);
    let (begun, before) = (Instant::now(), cpu());
    let (mut next, mut kept) = (0, 0_u64);
    ticks.reset();
    while begun.elapsed() < within {
        ticks.tick().await;
        let due = (begun.elapsed().as_secs_f64() / every.as_secs_f64() * sessions as f64) as usize;
        let holders = (next..due).map(|number| &crowd.holders[number % sessions]);
        let touched = join_all(holders.map(|it| keeper.touch(&crowd.partition, it, Duration::from_secs(1)))).await;
        assert!(touched.iter().all(|touched| *touched == Touched::Alive), "a session has expired");
        kept += touched.len() as u64;
        next = due;
    }
    let took = begun.elapsed();
    let used = cpu() - before;
    let busy = of_a_core(used, took);
    let written = crowd.partition.with_machine(Machine::revision).0 - revision.0;
    println!(
        "with {sessions} idle sessions: {busy:.2} % of a core, {:.2} % more; {:.0} keep-alives/s, {:.2} µs each; \
         {written} entries written, {} sessions live",
        busy - idle,
        kept as f64 / took.as_secs_f64(),
        (busy - idle) / 100.0 * took.as_secs_f64() * 1e6 / kept as f64,
        crowd.live(),
    );
}
