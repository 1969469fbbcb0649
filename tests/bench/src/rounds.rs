//! The order of everything.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::load::{MEMBERS, Work};
use crate::machine::{self, Device};
use crate::measure::{self, Means};
use crate::memory::Curve;
use crate::options::{Only, Options};
use crate::progress::Progress;
use crate::results::{Figure, Op, Results, Row, Run, What};
use crate::system::{self, Cluster, Setup, System};
use crate::table::thousands;

/// Watchers in `watch_fanout`.
const WATCHERS: usize = 64;
/// Writers for them: enough to keep the log busy, and few enough that watchers are what is measured.
const WATCHED_WRITERS: usize = 16;
/// Clients in `lock_cycle`, each with a lock of its own.
const LOCKERS: usize = 16;

/// A load of a round.
#[derive(Clone, Copy)]
struct Step {
    op: Op,
    in_flight: usize,
    /// Whose connection is used first.
    first: usize,
}

/// The programs that are run.
#[derive(Clone, Debug, Default)]
pub struct Programs {
    /// etcd.
    pub etcd: PathBuf,
    /// A release build of coterie-sidecar.
    pub coterie: PathBuf,
}

/// All rounds.
pub struct Rounds<'a> {
    options: &'a Options,
    programs: Programs,
    means: Means,
    progress: Progress,
    results: Results,
    curves: Vec<Curve>,
}

impl<'a> Rounds<'a> {
    /// Nothing is started yet.
    pub fn new(options: &'a Options, programs: Programs) -> Result<Self> {
        let device = Device::under(&options.directory)?;
        let means = Means { warm_up: options.warm_up(), length: options.length(), seed: options.seed, device };
        let steps = |system| steps(options, system).len() + 1 + usize::from(options.wants(Only::Idle));
        let per_round: usize = options.systems(0).into_iter().map(steps).sum();
        let stops = [Only::Failover, Only::Handover].into_iter().filter(|only| options.wants(*only)).count();
        let all = per_round * options.rounds as usize + stops * options.systems(0).len();
        let curves = if options.wants(Only::Memory) { options.systems(0).len() } else { 0 };
        let progress = Progress::new(all * options.peer_tls().len() + curves);
        Ok(Self { options, programs, means, progress, results: Results::default(), curves: Vec::new() })
    }

    /// What was measured so far.
    pub fn results(&self) -> &Results {
        &self.results
    }

    /// Memory over time.
    pub fn curves(&self) -> &[Curve] {
        &self.curves
    }

    /// Whose flushes are counted.
    pub fn device(&self) -> Result<String> {
        self.means.device.name()
    }

    /// Everything; what was measured before an error stays.
    pub async fn run(&mut self) -> Result<()> {
        for peer_tls in self.options.peer_tls() {
            let mut last = Vec::new();
            for round in 0..self.options.rounds {
                last = self.options.systems(round);
                for system in last.clone() {
                    self.round(system, *peer_tls, round).await.with_context(|| format!("round {}", round + 1))?;
                }
            }
            for system in last {
                self.stops(system, *peer_tls).await?;
            }
        }
        if self.options.wants(Only::Memory) {
            for system in self.options.systems(0) {
                self.curve(system).await?;
            }
        }
        Ok(())
    }

    async fn curve(&mut self, system: System) -> Result<()> {
        let setup = self.setup(system, false)?;
        let cluster = system::start(system, &setup).await.with_context(|| format!("start {}", system.label()))?;
        self.progress.begin(format!("{}, no TLS, memory", system.label()));
        let curve = Curve::draw(system, &*cluster, &self.means, self.options.memory_load()).await?;
        let (largest, last, growth) = curve.figures();
        self.progress.end(&format!(
            "{} writes; {largest:.1} MiB at most, {last:.1} MiB at the end, {growth:+.1} MiB while idle",
            thousands(curve.writes)
        ));
        self.curves.push(curve);
        drop(cluster);
        std::fs::remove_dir_all(&setup.directory).context("remove the members' data")
    }

    fn setup(&self, system: System, peer_tls: bool) -> Result<Setup> {
        let directory = self.options.directory.join("data").join(system.label());
        if directory.exists() {
            std::fs::remove_dir_all(&directory).with_context(|| format!("remove {}", directory.display()))?;
        }
        std::fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        let directory = directory.canonicalize().context("find the directory of the members")?;
        let program = match system {
            System::Etcd => self.programs.etcd.clone(),
            System::Coterie => self.programs.coterie.clone(),
        };
        Ok(Setup { directory, peer_tls, timing: self.options.timing.into(), program })
    }

    async fn round(&mut self, system: System, peer_tls: bool, round: u32) -> Result<()> {
        let tls = if peer_tls { "mTLS" } else { "no TLS" };
        let title = move |what: &str| format!("{} round {}, {tls}, {what}", system.label(), round + 1);
        let steps = steps(self.options, system);
        if steps.is_empty() && !self.options.wants(Only::Idle) {
            return Ok(());
        }
        let setup = self.setup(system, peer_tls)?;
        self.progress.begin(title("start"));
        let begun = Instant::now();
        let cluster = system::start(system, &setup).await.with_context(|| format!("start {}", system.label()))?;
        let took = begun.elapsed();
        self.note(system, peer_tls, What::ColdStart, took.as_secs_f64() * 1_000.0);
        self.progress.end(&format!("{} ms; {}", took.as_millis(), machine::describe()));
        if self.options.wants(Only::Idle) {
            self.progress.begin(title("idle"));
            let outcome = self.idle(&*cluster, system, peer_tls).await?;
            self.progress.end(&outcome);
        }
        if steps.iter().any(|step| matches!(step.op, Op::ReadLinearizable | Op::ReadLeased)) {
            measure::fill(&*cluster, &self.means).await?;
        }
        for step in &steps {
            let from = if step.in_flight == 1 { format!(" at member {}", step.first + 1) } else { String::new() };
            self.progress.begin(title(&format!("{} {}{from}", step.op.label(), step.in_flight)));
            let run = self.load(&*cluster, *step, round).await?;
            self.progress.end(&outcome(&run));
            self.results.add(Row { peer_tls, op: step.op, in_flight: step.in_flight }, system, run);
        }
        if !steps.is_empty() {
            self.note(system, peer_tls, What::LoadedRss, measure::rss_mib(&*cluster)?);
        }
        drop(cluster);
        std::fs::remove_dir_all(&setup.directory).context("remove the members' data")
    }

    async fn idle(&mut self, cluster: &dyn Cluster, system: System, peer_tls: bool) -> Result<String> {
        // What the start has left behind is not idleness.
        measure::cpu_percent(cluster, self.options.idle()).await?;
        let cpu = measure::cpu_percent(cluster, self.options.idle()).await?;
        let rss = measure::rss_mib(cluster)?;
        self.note(system, peer_tls, What::IdleCpu, cpu);
        self.note(system, peer_tls, What::IdleRss, rss);
        Ok(format!("{rss:.1} MiB, {cpu:.1} % of a core"))
    }

    async fn load(&self, cluster: &dyn Cluster, step: Step, round: u32) -> Result<Run> {
        let means = Means { seed: self.means.seed.wrapping_add(u64::from(round) << 32), ..self.means.clone() };
        let work = match step.op {
            Op::WatchFanout => return measure::watch_fanout(cluster, &means, step.in_flight, WATCHED_WRITERS).await,
            Op::Write => Work::Write,
            Op::ReadLinearizable => Work::Read,
            Op::ReadLeased => Work::LeasedRead,
            Op::LockCycle => Work::Lock,
        };
        measure::throughput(cluster, &means, work, step.in_flight, step.first).await
    }

    async fn stops(&mut self, system: System, peer_tls: bool) -> Result<()> {
        let wanted = [Only::Failover, Only::Handover].map(|only| self.options.wants(only));
        if wanted == [false, false] {
            return Ok(());
        }
        let setup = self.setup(system, peer_tls)?;
        let cluster = system::start(system, &setup).await.with_context(|| format!("start {}", system.label()))?;
        let tls = if peer_tls { "mTLS" } else { "no TLS" };
        for (wanted, what) in wanted.into_iter().zip([What::Failover, What::Handover]) {
            if !wanted {
                continue;
            }
            self.progress.begin(format!(
                "{}, {tls}, {} {} times",
                system.label(),
                what.label(),
                self.options.failovers
            ));
            let mut all = Vec::new();
            for _ in 0..self.options.failovers {
                let ms = self.stop(&*cluster, system, peer_tls, what).await?;
                all.push(format!("{ms:.0}"));
            }
            self.progress.end(&format!("ms: {}", all.join(" ")));
        }
        drop(cluster);
        std::fs::remove_dir_all(&setup.directory).context("remove the members' data")
    }

    async fn stop(&mut self, cluster: &dyn Cluster, system: System, peer_tls: bool, what: What) -> Result<f64> {
        // plays a member that has been up for a while
        tokio::time::sleep(Duration::from_secs(1)).await;
        let ms = if what == What::Failover {
            measure::failover(cluster).await?
        } else {
            let handover = measure::handover(cluster).await?;
            self.note(system, peer_tls, What::HandoverFailed, handover.failed as f64);
            handover.longest_ms
        };
        self.note(system, peer_tls, what, ms);
        Ok(ms)
    }

    fn note(&mut self, system: System, peer_tls: bool, what: What, sample: f64) {
        self.results.note(Figure { peer_tls, what }, system, sample);
    }
}

/// The loads of a round.
fn steps(options: &Options, system: System) -> Vec<Step> {
    let many = |op, in_flight| Step { op, in_flight, first: 0 };
    // Where one operation is in flight, it matters which member takes it.
    let one = |op| (0..MEMBERS).map(move |first| Step { op, in_flight: 1, first });
    let mut steps: Vec<Step> = one(Op::Write).collect();
    steps.extend([16, 64, 256].map(|in_flight| many(Op::Write, in_flight)));
    steps.extend(one(Op::ReadLinearizable));
    steps.push(many(Op::ReadLinearizable, 64));
    if system == System::Coterie {
        steps.push(many(Op::ReadLeased, 64));
    }
    steps.extend([many(Op::WatchFanout, WATCHERS), many(Op::LockCycle, LOCKERS)]);
    steps.retain(|step| options.wants_load(step.op, step.in_flight));
    steps
}

fn outcome(run: &Run) -> String {
    let failed = run.failure.as_ref().map_or(String::new(), |why| format!("; {} FAILED: {why}", run.failed));
    format!(
        "{}/s, p50 {:.3} ms, p99 {:.3} ms, {:.3} flushes and {:.0} us of CPU each, {}{failed}",
        thousands(run.ops_per_s),
        run.p50_us / 1_000.0,
        run.p99_us / 1_000.0,
        run.flushes_per_op,
        run.cpu_us_per_op,
        run.load
    )
}
