//! How long a snapshot of a partition that is as large as it may be keeps others waiting. Prints figures; takes minutes and
//! some gigabytes: `cargo run --release -p coterie-replication --example stall`. `STALL_KEYS` and `STALL_VALUE_BYTES` make
//! it smaller, `TMPDIR` says on which volume.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use coterie_core::command::{self, Command, Condition, Envelope, MapOp, Query};
use coterie_core::{MemberName, NodeId, PartitionId, RequestId};
use coterie_env::Env;
use coterie_replication::{Options, Partition, ReadKind, Target, Ticker, Timing, Transport, transport};
use coterie_store::log::{self, Log};
use coterie_store::snapshots::Snapshots;

/// Writes that are under way at once.
const WRITERS: u64 = 64;
const DEADLINE: Duration = Duration::from_secs(60);
/// How many of the longest waits are shown, and how far apart these are at least: one stall is many waits.
const SHOWN_MAX: usize = 5;
const APART: Duration = Duration::from_millis(500);

/// Nobody else.
struct Alone;

#[async_trait::async_trait]
impl Transport for Alone {
    async fn send(
        &self,
        to: &Target,
        _: &PartitionId,
        _: u32,
        _: Bytes,
        _: Duration,
    ) -> Result<Bytes, transport::Error> {
        Err(gone(to))
    }

    fn lane(&self, to: &Target, _: &PartitionId) -> Result<Box<dyn transport::Lane>, transport::Error> {
        Err(gone(to))
    }

    async fn transfer(&self, to: &Target, _: &PartitionId) -> Result<Box<dyn transport::Transfer>, transport::Error> {
        Err(gone(to))
    }
}

fn gone(to: &Target) -> transport::Error {
    transport::Error::Unreachable { member: to.member.clone(), reason: "there is nobody else".to_owned() }
}

async fn open(env: &Env, dir: &Path) -> Partition {
    let log = Log::open(env, dir, log::Options::default()).unwrap();
    let options = Options {
        id: PartitionId { group: "data".into(), index: 1 },
        node: NodeId(1),
        member: MemberName("one".to_owned()),
        generation: 0,
        log,
        snapshots: Arc::new(Snapshots::new(env, dir).unwrap()),
        transport: Arc::new(Alone),
        ticker: Ticker::start(env, Timing::NORMAL),
        snapshot_entries: 10_000,
        env: env.clone(),
    };
    Partition::open(options).await.unwrap()
}

fn body(env: &Env, number: u64, keys: u64, value_bytes: usize) -> Bytes {
    let op = MapOp::Put {
        key: format!("key-{:09}", number.wrapping_mul(1_000_003) % keys).into(),
        value: vec![u8::try_from(number % 251).unwrap(); value_bytes].into(),
        only: Condition::Always,
    };
    let command = Command::Map { name: "m".into(), op };
    // Ten thousand clients: the table of results is as full as it may be.
    let request = (u128::from(env.clock.wall_ms()) << 80) | u128::from(number);
    let request = Some(RequestId { client: u128::from(number % 10_000), request });
    command::encode(&Envelope { request, command }).into()
}

/// Latencies, apart by whether a snapshot was being made, and when each was over.
#[derive(Default)]
struct Figures([Vec<(Duration, Instant)>; 2]);

impl Figures {
    fn note(&mut self, is_making: bool, begun: Instant) {
        self.0[usize::from(is_making)].push((begun.elapsed(), Instant::now()));
    }

    /// Prints them; `made` is when snapshots began and were there.
    fn print(&mut self, what: &str, made: &[(Instant, Instant)]) {
        for (times, when) in self.0.iter_mut().zip(["without a snapshot", "while one is made"]) {
            times.sort();
            let at = |per_mille: usize| {
                times.get(times.len() * per_mille / 1_000).map(|(time, _)| *time).unwrap_or_default()
            };
            let max = times.last().map(|(time, _)| *time).unwrap_or_default();
            println!(
                "{what}, {when}: {} times, p50 {:?}, p99 {:?}, p99.9 {:?}, max {max:?}",
                times.len(),
                at(500),
                at(990),
                at(999)
            );
            let mut shown: Vec<Instant> = Vec::new();
            for (time, over) in times.iter().rev() {
                if shown.iter().any(|shown| shown.max(over).duration_since(*shown.min(over)) < APART) {
                    continue;
                }
                if shown.len() == SHOWN_MAX {
                    break;
                }
                shown.push(*over);
                let since = made.iter().filter(|(_, done)| done <= over).map(|(_, done)| *over - *done).min();
                println!("    {time:?}, {since:?} after a snapshot was there");
            }
        }
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let keys = setting("STALL_KEYS", 1_000_000);
    let value_bytes = usize::try_from(setting("STALL_VALUE_BYTES", 780)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let env = coterie_env::real::real();
    let partition = open(&env, folder.path()).await;
    partition.form(vec![Target { node: NodeId(1), member: MemberName("one".to_owned()) }]).await.unwrap();
    partition.leadership().wait_for(|now| now.leading).await.unwrap();

    let begun = Instant::now();
    let loads = (0..128).map(|first| {
        let (env, partition) = (env.clone(), partition.clone());
        tokio::spawn(async move {
            for number in (first..keys + keys / 4).step_by(128) {
                partition.propose(body(&env, number, keys, value_bytes), DEADLINE).await.unwrap().1.unwrap();
            }
        })
    });
    for load in loads.collect::<Vec<_>>() {
        load.await.unwrap();
    }
    println!("loaded {} writes of {value_bytes} bytes in {:?}", keys + keys / 4, begun.elapsed());

    let mut copies = Vec::new();
    for _ in 0..20 {
        let begun = Instant::now();
        let image = partition.with_machine(coterie_core::machine::Machine::image);
        copies.push(begun.elapsed());
        tokio::task::spawn_blocking(move || drop(image)).await.unwrap();
    }
    copies.sort();
    println!("taking the copy under the lock: median {:?}, max {:?}", copies[10], copies[19]);

    // Steady writes until two snapshots were made, and a little longer, and what writers and readers saw meanwhile.
    let done = Arc::new(AtomicBool::new(false));
    let making = Arc::new(AtomicBool::new(false));
    let writers = (0..WRITERS).map(|writer| {
        let (env, partition, done, making) = (env.clone(), partition.clone(), done.clone(), making.clone());
        tokio::spawn(async move {
            let mut figures = Figures::default();
            let mut number = 1_000_000_000 + writer;
            while !done.load(Ordering::Relaxed) {
                let body = body(&env, number, keys, value_bytes);
                let begun = Instant::now();
                partition.propose(body, DEADLINE).await.unwrap().1.unwrap();
                figures.note(making.load(Ordering::Relaxed), begun);
                number += WRITERS;
            }
            figures
        })
    });
    let writers: Vec<_> = writers.collect();
    let reader = {
        let (partition, done, making) = (partition.clone(), done.clone(), making.clone());
        tokio::spawn(async move {
            let mut figures = Figures::default();
            while !done.load(Ordering::Relaxed) {
                let begun = Instant::now();
                partition.read(&Query::Revision, ReadKind::Stale, DEADLINE).await.unwrap();
                figures.note(making.load(Ordering::Relaxed), begun);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            figures
        })
    };
    let snap = folder.path().join("snap");
    let (mut made, begun) = (Vec::new(), Instant::now());
    let mut since = None;
    while made.len() < 2 && begun.elapsed() < Duration::from_secs(400) {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let is_making = env.disk.list(&snap).unwrap().iter().any(|path| path.extension().is_some_and(|it| it == "tmp"));
        making.store(is_making, Ordering::Relaxed);
        match (is_making, since) {
            (true, None) => since = Some(Instant::now()),
            (false, Some(from)) => {
                made.push((from, Instant::now()));
                since = None;
            }
            _ => {}
        }
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    done.store(true, Ordering::Relaxed);
    let bytes: u64 = env.disk.list(&snap).unwrap().iter().map(|path| env.disk.open(path).unwrap().len().unwrap()).sum();
    let took: Vec<_> = made.iter().map(|(from, done)| *done - *from).collect();
    println!("snapshots of {} MiB took {took:?}, beside steady writes", bytes >> 20);
    let mut writes = Figures::default();
    for writer in writers {
        let Figures([without, with]) = writer.await.unwrap();
        writes.0[0].extend(without);
        writes.0[1].extend(with);
    }
    writes.print("writes", &made);
    reader.await.unwrap().print("stale reads", &made);
    partition.shutdown().await;

    let begun = Instant::now();
    let again = open(&env, folder.path()).await;
    println!("opened again, with the snapshot and the log behind it, in {:?}", begun.elapsed());
    again.shutdown().await;
}
