//! One function for each thing that is measured; what it does is the same for every system.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::task::JoinSet;

use crate::fanout::Fanout;
use crate::load::{CONNECTIONS_MAX, KEYS, MEMBERS, Part, Samples, Values, Window, Work};
use crate::machine::{self, Device};
use crate::results::Run;
use crate::system::{Cluster, Connection, LANES};

/// Between two tries of one lane after its leader is gone: the resolution of a failover's time.
const PROBE: Duration = Duration::from_millis(10);
/// How long a single try may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// A failover that takes longer is a failure.
const FAILOVER_MAX: Duration = Duration::from_secs(60);
/// Writes go on this long before and after a planned hand-over.
const AROUND: Duration = Duration::from_millis(500);
/// How long all watchers may take to be told of one put.
const TOLD_MAX: Duration = Duration::from_secs(10);

/// What all measurements share.
#[derive(Clone, Debug)]
pub struct Means {
    /// Before a measurement begins.
    pub warm_up: Duration,
    /// How long it is.
    pub length: Duration,
    /// What decides keys and values.
    pub seed: u64,
    /// Whose flushes are counted.
    pub device: Device,
}

/// Closed loops of `in_flight` operations, over connections from the member `first` on.
pub async fn throughput(
    cluster: &dyn Cluster,
    means: &Means,
    work: Work,
    in_flight: usize,
    first: usize,
) -> Result<Run> {
    let window = Window::after(means.warm_up, means.length);
    let part = Part { work, slots: 0..0, window, seed: means.seed, values: Values::new(means.seed) };
    let mut parts = JoinSet::new();
    for (place, part) in Part::divide(&part, in_flight, first) {
        let connection = cluster.connect(place).await?;
        parts.spawn(async move { connection.drive(part).await });
    }
    let spent = Spent::within(cluster, &means.device, window).await?;
    let mut samples = Samples::default();
    while let Some(part) = parts.join_next().await {
        samples.merge(part.context("a connection's loop ended")??);
    }
    run(samples, window, spent, 1)
}

/// Writes every key once, so that reads find something. Not measured.
pub async fn fill(cluster: &dyn Cluster, means: &Means) -> Result<()> {
    let at_least = KEYS as usize * 2;
    let mut written = 0;
    let mut means = Means { warm_up: Duration::ZERO, length: Duration::from_millis(500), ..means.clone() };
    while written < at_least {
        let run = throughput(cluster, &means, Work::Write, 256, 0).await?;
        written += (run.ops_per_s * means.length.as_secs_f64()) as usize;
        if run.ops_per_s == 0.0 {
            bail!("no key can be written: {}", run.failure.unwrap_or_default());
        }
        means.seed = means.seed.wrapping_add(1);
    }
    Ok(())
}

/// What a load cost the machine.
#[derive(Clone, Copy, Debug)]
struct Spent {
    flushes: u64,
    /// CPU time of all members together.
    cpu: Duration,
}

impl Spent {
    /// Waits for the window, and for its end.
    async fn within(cluster: &dyn Cluster, device: &Device, window: Window) -> Result<Self> {
        let processes = cluster.processes()?;
        let now = || {
            let cpu = processes.iter().map(|pid| machine::cpu(*pid)).sum::<Result<Duration>>()?;
            anyhow::Ok((device.flushes()?, cpu))
        };
        // waits for a condition
        tokio::time::sleep_until(window.begin().into()).await;
        let before = now()?;
        // waits for a condition
        tokio::time::sleep_until((window.begin() + window.length()).into()).await;
        let after = now()?;
        Ok(Self { flushes: after.0 - before.0, cpu: after.1.saturating_sub(before.1) })
    }
}

/// `each`: what one sample stands for, in operations.
fn run(mut samples: Samples, window: Window, spent: Spent, each: u64) -> Result<Run> {
    let count = samples.count() as u64 * each;
    let [p50_us, p99_us] = samples.percentiles_us([50.0, 99.0]);
    let per_op = |all: f64| if count == 0 { 0.0 } else { all / count as f64 };
    Ok(Run {
        ops_per_s: count as f64 / window.length().as_secs_f64(),
        p50_us,
        p99_us,
        flushes_per_op: per_op(spent.flushes as f64),
        cpu_us_per_op: per_op(spent.cpu.as_secs_f64() * 1e6),
        failed: samples.failed,
        failure: samples.failure,
        load: machine::describe(),
    })
}

/// `slots` writers of one watched key each, `watchers` watchers of all of them. A writer goes on when all watchers were told:
/// the rate is of events that were delivered, the latency is from the put to the last watcher.
pub async fn watch_fanout(cluster: &dyn Cluster, means: &Means, watchers: usize, slots: usize) -> Result<Run> {
    let fanout = Arc::new(Fanout::new(watchers, slots));
    let mut connections = Vec::new();
    for number in 0..CONNECTIONS_MAX.min(watchers) {
        connections.push(cluster.connect(number % MEMBERS).await?);
    }
    // What is watched is there before.
    for slot in 0..slots {
        if let Err(why) = connections[0].write_watched(&fanout, slot, 0).await {
            bail!("a watched key cannot be written: {why}");
        }
    }
    let count = connections.len();
    for (number, connection) in connections.iter().enumerate() {
        let mine = (number + 1) * watchers / count - number * watchers / count;
        connection.watch(mine, fanout.clone()).await?;
    }
    let window = Window::after(means.warm_up, means.length);
    let mut writers = JoinSet::new();
    for slot in 0..slots {
        writers.spawn(announce(connections[slot % count].clone(), fanout.clone(), slot, window));
    }
    let spent = Spent::within(cluster, &means.device, window).await?;
    let mut samples = Samples::default();
    while let Some(writer) = writers.join_next().await {
        samples.merge(writer.context("a writer ended")?);
    }
    run(samples, window, spent, watchers as u64)
}

async fn announce(connection: Arc<dyn Connection>, fanout: Arc<Fanout>, slot: usize, window: Window) -> Samples {
    let mut samples = Samples::default();
    for round in 1.. {
        let begun = Instant::now();
        if window.is_over(begun) {
            break;
        }
        fanout.begin(slot, round);
        if let Err(why) = connection.write_watched(&fanout, slot, round).await {
            samples.fail(why);
        } else if tokio::time::timeout(TOLD_MAX, fanout.seen_by_all(slot)).await.is_err() {
            samples.fail("some watcher was not told of a put");
        } else {
            samples.done(&window, begun, Instant::now());
        }
    }
    samples
}

/// From SIGKILL of the leader until every lane has been written, in milliseconds.
pub async fn failover(cluster: &dyn Cluster) -> Result<f64> {
    let leader = cluster.leader().await?;
    let connection = cluster.connect((leader + 1) % MEMBERS).await?;
    let begun = Instant::now();
    cluster.kill(leader).await?;
    let mut lanes = JoinSet::new();
    for lane in 0..LANES {
        lanes.spawn(written_again(connection.clone(), lane));
    }
    let all = async {
        while let Some(lane) = lanes.join_next().await {
            lane.context("a lane ended")?;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(FAILOVER_MAX, all).await.context("some key could not be written again")??;
    let took = begun.elapsed();
    cluster.restart(leader).await?;
    Ok(took.as_secs_f64() * 1_000.0)
}

/// Tries again and again, without waiting for the tries before: one that an old leader took may never be answered.
async fn written_again(connection: Arc<dyn Connection>, lane: usize) {
    let mut tries = JoinSet::new();
    let mut tick = tokio::time::interval(PROBE);
    loop {
        tokio::select! {
            _ = tick.tick() => {
                let connection = connection.clone();
                tries.spawn(async move { connection.write_lane(lane, PROBE_TIMEOUT).await });
            }
            Some(done) = tries.join_next() => if matches!(done, Ok(Ok(()))) { return },
        }
    }
}

/// What a planned hand-over cost.
#[derive(Clone, Copy, Debug)]
pub struct Handover {
    /// The longest that any write took, in milliseconds.
    pub longest_ms: f64,
    /// Writes that failed, and were tried again.
    pub failed: u64,
}

/// Writes to every lane over the two other members, one after another in each, while the leader is stopped with SIGTERM.
pub async fn handover(cluster: &dyn Cluster) -> Result<Handover> {
    let leader = cluster.leader().await?;
    let others = [cluster.connect((leader + 1) % MEMBERS).await?, cluster.connect((leader + 2) % MEMBERS).await?];
    let over = Arc::new(AtomicBool::new(false));
    let counts = Arc::new(AtomicBool::new(false));
    let mut lanes = JoinSet::new();
    for lane in 0..LANES {
        lanes.spawn(written_on(others[lane % 2].clone(), lane, counts.clone(), over.clone()));
    }
    // plays the load before
    tokio::time::sleep(AROUND).await;
    counts.store(true, Ordering::SeqCst);
    cluster.stop(leader).await?;
    // plays the load after
    tokio::time::sleep(AROUND).await;
    over.store(true, Ordering::SeqCst);
    let mut all = Handover { longest_ms: 0.0, failed: 0 };
    while let Some(lane) = lanes.join_next().await {
        let lane = lane.context("a lane ended")?;
        all = Handover { longest_ms: all.longest_ms.max(lane.longest_ms), failed: all.failed + lane.failed };
    }
    cluster.restart(leader).await?;
    Ok(all)
}

async fn written_on(
    connection: Arc<dyn Connection>,
    lane: usize,
    counts: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
) -> Handover {
    let mut seen = Handover { longest_ms: 0.0, failed: 0 };
    let mut begun = Instant::now();
    while !over.load(Ordering::SeqCst) {
        match connection.write_lane(lane, FAILOVER_MAX).await {
            Ok(()) if counts.load(Ordering::SeqCst) => {
                seen.longest_ms = seen.longest_ms.max(begun.elapsed().as_secs_f64() * 1_000.0);
                begun = Instant::now();
            }
            Ok(()) => begun = Instant::now(),
            Err(_) => {
                seen.failed += 1;
                // plays a client that does not retry at once
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
    seen
}

/// The largest resident memory of the members, in MiB.
pub fn rss_mib(cluster: &dyn Cluster) -> Result<f64> {
    let sizes: Result<Vec<f64>> = cluster.processes()?.into_iter().map(machine::rss_mib).collect();
    Ok(sizes?.into_iter().fold(0.0, f64::max))
}

/// The largest share of a core that a member uses in `length` without any load, in percent.
pub async fn cpu_percent(cluster: &dyn Cluster, length: Duration) -> Result<f64> {
    let processes = cluster.processes()?;
    let used = || processes.iter().map(|pid| machine::cpu(*pid)).collect::<Result<Vec<Duration>>>();
    let (begun, before) = (Instant::now(), used()?);
    // plays nobody
    tokio::time::sleep(length).await;
    let (took, after) = (begun.elapsed(), used()?);
    let shares = before.iter().zip(after).map(|(before, after)| (after - *before).as_secs_f64() / took.as_secs_f64());
    Ok(shares.fold(0.0, f64::max) * 100.0)
}
