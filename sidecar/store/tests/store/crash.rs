//! Crashes at any point of any calls: what is there afterwards is what some prefix of the calls made, and the prefix
//! holds everything that was acknowledged.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use coterie_env::mem::{Lie, MemDisk};
use coterie_store::{Log, PartitionLog};
use proptest::prelude::*;

use super::model::{Call, Model};
use super::support::*;

const KEYS: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug)]
enum Step {
    Call(&'static str, Call),
    /// Lets the writer make some progress.
    Yield(usize),
}

/// One life of the process, and how it ends.
#[derive(Clone, Debug)]
struct Life {
    steps: Vec<Step>,
    power: u64,
    /// Changing calls of the next start before the power goes again.
    power_at_start: u64,
    torn: Option<u64>,
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        8 => (1_u64..4, prop_oneof![8 => 0_usize..900, 1 => 4000_usize..9000])
            .prop_map(|(count, len)| Call::Append { count, len }),
        2 => Just(Call::Vote),
        2 => Just(Call::Committed),
        2 => prop_oneof![4 => 0_u64..4, 1 => 4_u64..40].prop_map(Call::Truncate),
        3 => prop_oneof![0_u64..6, 10_u64..40].prop_map(Call::Purge),
        1 => Just(Call::Remove),
    ]
}

fn life() -> impl Strategy<Value = Life> {
    let step = prop_oneof![
        // Uneven, so that one partition falls idle.
        6 => (prop_oneof![6 => Just(0_usize), 3 => Just(1), 1 => Just(2)], call())
            .prop_map(|(key, call)| Step::Call(KEYS[key], call)),
        4 => (1_usize..8).prop_map(Step::Yield),
    ];
    let steps = proptest::collection::vec(step, 1..120);
    let power = prop_oneof![1 => Just(u64::MAX), 4 => 0_u64..250];
    (steps, power, prop_oneof![1 => Just(u64::MAX), 1 => 0_u64..6], proptest::option::of(any::<u64>()))
        .prop_map(|(steps, power, power_at_start, torn)| Life { steps, power, power_at_start, torn })
}

type Pending = Pin<Box<dyn Future<Output = io::Result<()>>>>;

/// The calls of a life: what each must leave, and how many have been acknowledged.
struct History {
    /// The first is what was there at the start.
    after: Vec<Model>,
    acknowledged: Arc<AtomicUsize>,
    pending: Vec<(usize, Pending)>,
}

impl History {
    fn new(start: Model) -> Self {
        History { after: vec![start], acknowledged: Arc::default(), pending: Vec::new() }
    }

    /// Makes a call without waiting for it.
    fn make(&mut self, log: &Log, key: &str, call: &Call) {
        let number = self.after.len();
        let mut model = self.after[number - 1].clone();
        let content = bytes(format!("{key} {number}"));
        let partition = log.partition(key);
        let part = model.part(key);
        let pending: Pending = match call {
            Call::Append { count, len } => {
                let mut content = content.to_vec();
                content.resize(content.len().max(*len), b'.');
                let next = part.next();
                let entries: Vec<_> = (next..next + count).map(|index| (index, bytes(&content))).collect();
                part.entries.extend(entries.clone());
                self.append(&partition, number, entries);
                self.after.push(model);
                return;
            }
            Call::Vote => {
                part.vote = Some(content.clone());
                Box::pin(async move { partition.save_vote(content).await })
            }
            Call::Committed => {
                part.committed = Some(content.clone());
                partition.save_committed(content);
                self.after.push(model);
                return;
            }
            Call::Truncate(newest) => {
                let keep = part.next().saturating_sub(1 + newest);
                part.entries.retain(|index, _| *index <= keep);
                Box::pin(async move { partition.truncate_after(Some(keep)).await })
            }
            Call::Purge(ahead) => {
                let first = part.entries.keys().next().copied();
                let index = first.unwrap_or(part.next()) + ahead;
                part.purged = Some((index, content.clone()));
                part.entries.retain(|entry, _| *entry > index);
                Box::pin(async move { partition.purge(index, content).await })
            }
            Call::Remove => {
                model.0.remove(key);
                let (log, key) = (log.clone(), key.to_owned());
                Box::pin(async move { log.remove_partition(&key).await })
            }
        };
        self.after.push(model);
        self.pending.push((number, pending));
        // The first poll queues the call.
        self.poll();
    }

    fn append(&self, partition: &PartitionLog, number: usize, entries: Vec<(u64, bytes::Bytes)>) {
        let acknowledged = self.acknowledged.clone();
        let done = move |result: io::Result<()>| {
            if result.is_ok() {
                acknowledged.fetch_max(number, Ordering::Relaxed);
            }
        };
        partition.append(entries, Box::new(done));
    }

    fn poll(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        let acknowledged = &self.acknowledged;
        self.pending.retain_mut(|(number, pending)| match pending.as_mut().poll(&mut context) {
            Poll::Ready(result) => {
                if result.is_ok() {
                    acknowledged.fetch_max(*number, Ordering::Relaxed);
                }
                false
            }
            Poll::Pending => true,
        });
    }

    /// Which of the states the log is in now; an error if it is none, or one before what was acknowledged.
    fn locate(&self, log: &Log) -> Result<Model, String> {
        let acknowledged = self.acknowledged.load(Ordering::Relaxed);
        // Calls may change nothing, so the latest that fits counts.
        match self.after.iter().rposition(|model| model.is_in(log)) {
            Some(number) if number >= acknowledged => Ok(self.after[number].clone()),
            Some(number) => Err(format!("acknowledged {acknowledged} calls, found the state after {number}")),
            None => Err(format!("acknowledged {acknowledged} calls, found no state of {}", self.after.len())),
        }
    }
}

/// Runs lives on one disk, each ended by a crash, and checks what each leaves.
fn check(disk: &MemDisk, lives: &[Life], lie: Lie) -> Result<(), String> {
    let mut history = History::new(Model::default());
    for life in lives {
        disk.power_off_after(life.power_at_start);
        let started = live(async { open(disk).map(drop) });
        if started.is_err() {
            // The power went during the start; what it did must not matter.
            crash(disk, life.torn);
        } else {
            disk.power_off_after(u64::MAX);
        }
        history = live(async {
            let log = open(disk).map_err(|error| error.to_string())?;
            let start = history.locate(&log)?;
            disk.fail_sync_silently(lie);
            disk.power_off_after(life.power);
            Ok::<_, String>(run(&log, start, &life.steps).await)
        })?;
        crash(disk, life.torn);
    }
    live(async {
        let log = open(disk).map_err(|error| error.to_string())?;
        history.locate(&log).map(drop)
    })
}

async fn run(log: &Log, start: Model, steps: &[Step]) -> History {
    let mut history = History::new(start);
    for step in steps {
        match step {
            Step::Call(key, call) if log.healthy() => history.make(log, key, call),
            Step::Call(..) => break,
            Step::Yield(times) => {
                for _ in 0..*times {
                    tokio::task::yield_now().await;
                }
                history.poll();
            }
        }
    }
    history.poll();
    history
}

fn crash(disk: &MemDisk, torn: Option<u64>) {
    match torn {
        Some(seed) => disk.crash_torn(seed),
        None => disk.crash(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_acknowledged_survives_any_crash(lives in proptest::collection::vec(life(), 1..4)) {
        check(&disk(), &lives, Lie::Off).map_err(TestCaseError::fail)?;
    }
}

#[test]
fn the_check_notices_when_the_flush_is_missing() {
    let append = Step::Call("a", Call::Append { count: 1, len: 10 });
    let life = |torn| Life {
        steps: vec![append.clone(), Step::Yield(20), append.clone(), Step::Yield(20)],
        power: u64::MAX,
        power_at_start: u64::MAX,
        torn,
    };
    check(&disk(), &[life(None), life(None)], Lie::Off).unwrap();
    let error = check(&disk(), &[life(None)], Lie::On).unwrap_err();
    assert_eq!(error, "acknowledged 2 calls, found the state after 0");
    let is_noticed = |seed| check(&disk(), &[life(Some(seed))], Lie::On).is_err();
    assert!((0..20).filter(|seed| is_noticed(*seed)).count() > 5);
}
