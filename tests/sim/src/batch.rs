//! Many seeds, each in a process of its own, some at a time; what they came to together, and whether that was chaos at all.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use coterie_mutants::{Mutant, Point};
use coterie_sim::faults::Kind;
use coterie_sim::summary::Summary;
use coterie_sim::{expected, histories};

/// What the median run has at least, or the batch shows little.
const ACKNOWLEDGED_MIN: u64 = 200;
/// The same of locks that were granted, of terms that groups were led in, and of events that watchers were told.
const GRANTS_MIN: u64 = 5;
const TERMS_MIN: u64 = 2;
const EVENTS_MIN: u64 = 500;
/// The same of changes of leaders.
const CHANGES_MIN: u64 = 2;
/// The same of faults.
const FAULTS_MIN: u64 = 5;
/// Seeds that failed before what they found was mended: every batch runs them too.
const FAILED_ONCE: [u64; 6] = [2, 3, 49, 64, 120, 1036];
/// How long a seed may take; most need a second or two.
const SEED_MAX: Duration = Duration::from_secs(120);
/// Between two looks whether one has ended.
const LOOK: Duration = Duration::from_millis(20);
/// Lines of what a failing seed said, at most: the first say what was broken.
const SAID_MAX: usize = 12;

/// Characters of that in a table.
const SAID_CHARS_MAX: usize = 140;

/// Which seeds, and how many at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The first.
    pub from: u64,
    /// How many.
    pub seeds: u64,
    /// How many at a time.
    pub jobs: usize,
}

/// Runs a batch and the seeds that failed once, and prints what they came to. An error is a seed that failed, or a batch that shows little.
pub fn run(batch: Batch) -> Result<()> {
    let program = std::env::current_exe().context("find this program")?;
    let began = Instant::now();
    let end = batch.from.checked_add(batch.seeds).context("--from and --seeds")?;
    let seeds: Vec<u64> = FAILED_ONCE.into_iter().chain(batch.from..end).collect();
    println!("seeds {FAILED_ONCE:?}, which failed once, and {} to {}", batch.from, end.saturating_sub(1));
    let ran = in_parallel(batch.jobs, &seeds, |seed| {
        let ran = one(Command::new(&program).arg(seed.to_string()));
        if let Err(error) = &ran {
            println!("seed {seed} FAILED: {error:#}\nreplay: {}\n", replay(*seed));
        }
        ran
    });
    let (passed, failed): (Vec<_>, Vec<_>) = seeds.iter().zip(ran).partition(|(_, ran)| ran.is_ok());
    let passed: Vec<Summary> = passed.into_iter().filter_map(|(_, ran)| ran.ok()).collect();
    println!("{} seeds in {} s\n{}", seeds.len(), began.elapsed().as_secs(), told(&passed));
    let mut wrong = lacks(&passed);
    if !failed.is_empty() {
        let failed: Vec<String> = failed.iter().map(|(seed, _)| seed.to_string()).collect();
        wrong.insert(0, format!("seeds that failed: {}", failed.join(" ")));
    }
    if wrong.is_empty() { Ok(()) } else { bail!("{}", wrong.join("\n")) }
}

/// Writes the histories of a batch to this folder, also of seeds that fail: of those [`run`] judges. An error is a seed that
/// wrote none.
pub fn histories(batch: Batch, folder: &Path) -> Result<()> {
    let program = std::env::current_exe().context("find this program")?;
    let seeds: Vec<u64> = (batch.from..).take(usize::try_from(batch.seeds)?).collect();
    in_parallel(batch.jobs, &seeds, |seed| {
        if let Err(error) = one(Command::new(&program).arg(seed.to_string()).arg("--histories").arg(folder)) {
            println!("seed {seed} FAILED, its histories are checked all the same: {error:#}");
        }
    });
    let missing = seeds.iter().filter(|seed| !histories::manifest(folder, **seed).exists());
    let missing: Vec<String> = missing.map(ToString::to_string).collect();
    if missing.is_empty() { Ok(()) } else { bail!("seeds without histories: {}", missing.join(" ")) }
}

/// Runs each seeded bug with one seed of the batch after the other until the check that is made for it finds it, in a seed
/// that passes without it; prints with which. An error is a bug that none finds, or a seed that fails otherwise.
pub fn mutants(batch: Batch) -> Result<()> {
    println!("{:<24}{:>5}  {:>6}  what was found", "seeded bug", "seed", "tries");
    let found = in_parallel(batch.jobs, &Mutant::ALL, |mutant| {
        let found =
            (batch.from..batch.from + batch.seeds).find_map(|seed| finds(*mutant, seed).map(|said| (seed, said)));
        let name = format!("{mutant:?}");
        match &found {
            Some((seed, Ok(said))) => println!("{name:<24}{seed:>5}  {:>6}  {said}", seed - batch.from + 1),
            Some((seed, Err(wrong))) => println!("{name:<24}{seed:>5}  {:>6}  WRONG {wrong}", seed - batch.from + 1),
            None => println!("{name:<24}    -  {:>6}  NOTHING", batch.seeds),
        }
        matches!(found, Some((_, Ok(_))))
    });
    let hidden = Mutant::ALL.iter().zip(found).filter(|(_, found)| !found);
    let hidden: Vec<String> = hidden.map(|(mutant, _)| format!("{mutant:?}")).collect();
    if hidden.is_empty() { Ok(()) } else { bail!("not found: {}", hidden.join(", ")) }
}

/// What a seed says of a seeded bug; an error if that is not what the bug is found by, or the seed fails without it too.
/// `None` if it says nothing.
fn finds(mutant: Mutant, seed: u64) -> Option<Result<String, String>> {
    let run = |more: &[&str]| {
        let program = std::env::current_exe().context("find this program")?;
        one(Command::new(program).arg(seed.to_string()).args(more))
    };
    let first_line =
        |said: &str| said.lines().next().unwrap_or_default().chars().take(SAID_CHARS_MAX).collect::<String>();
    let said = run(&["--mutant", &format!("{mutant:?}")]).err()?.to_string();
    if !expected::is_found_by(mutant, &said) {
        return Some(Err(first_line(&said)));
    }
    Some(match run(&[]) {
        Ok(_) => Ok(first_line(&said)),
        Err(error) => Err(format!("also without the bug: {}", first_line(&error.to_string()))),
    })
}

/// What `run` gives for each of these, some at a time, in their order.
fn in_parallel<T: Sync, R: Send>(jobs: usize, of: &[T], run: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let (next, ran) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(one) = of.get(at) else { return };
                    let result = run(one);
                    ran.lock().unwrap_or_else(PoisonError::into_inner).insert(at, result);
                }
            });
        }
    });
    ran.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()
}

/// The command that runs a seed again.
fn replay(seed: u64) -> String {
    format!("cd tests/sim && cargo run --release -- {seed}")
}

/// One run, to its end or to the end of patience.
fn one(command: &mut Command) -> Result<Summary> {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().context("start it")?;
    let mut pipe = child.stderr.take().context("what it says")?;
    // Read as it is written: a child that says much would wait for its reader.
    let said = std::thread::spawn(move || {
        let mut said = Vec::new();
        pipe.read_to_end(&mut said).map(|_| String::from_utf8_lossy(&said).into_owned())
    });
    let ended = wait(&mut child)?;
    let said = said.join().expect("reading does not panic").context("read what it says")?;
    let summary = said.lines().last().and_then(|line| line.parse().ok());
    match (ended, summary) {
        (Some(status), Some(summary)) if status.success() => Ok(summary),
        (None, _) => bail!("it did not end in {SEED_MAX:?}"),
        (Some(status), _) => {
            let said: Vec<&str> = said.lines().take(SAID_MAX).collect();
            bail!("{status}: {}", said.join("\n"))
        }
    }
}

/// How it ended; `None` if it had to be ended.
fn wait(child: &mut Child) -> Result<Option<std::process::ExitStatus>> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().context("wait for it")? {
            return Ok(Some(status));
        }
        if began.elapsed() > SEED_MAX {
            child.kill().context("end it")?;
            child.wait().context("wait for its end")?;
            return Ok(None);
        }
        std::thread::sleep(LOOK);
    }
}

fn faults(run: &Summary) -> u64 {
    run.faults.values().sum()
}

fn median(runs: &[Summary], of: impl Fn(&Summary) -> u64) -> u64 {
    let mut numbers: Vec<u64> = runs.iter().map(of).collect();
    numbers.sort_unstable();
    numbers.get(numbers.len() / 2).copied().unwrap_or_default()
}

/// How often there was something of each of these, in all runs.
fn counted<T: Copy + Ord>(
    runs: &[Summary],
    of: &[T],
    counts: impl Fn(&Summary) -> &BTreeMap<T, u64>,
) -> BTreeMap<T, u64> {
    let mut counted: BTreeMap<T, u64> = of.iter().map(|it| (*it, 0)).collect();
    for (it, count) in runs.iter().flat_map(counts) {
        *counted.entry(*it).or_default() += count;
    }
    counted
}

/// The same, by their names.
fn named<T: Copy + Ord + std::fmt::Debug>(counted: BTreeMap<T, u64>) -> impl Iterator<Item = (String, u64)> {
    counted.into_iter().map(|(it, count)| (format!("{it:?}"), count))
}

fn by_kind(runs: &[Summary]) -> impl Iterator<Item = (String, u64)> {
    named(counted(runs, &Kind::ALL, |run| &run.faults))
}

fn by_point(runs: &[Summary]) -> impl Iterator<Item = (String, u64)> {
    named(counted(runs, &Point::ALL, |run| &run.points))
}

/// What the runs that passed came to.
fn told(runs: &[Summary]) -> String {
    let line = |what: &str, of: fn(&Summary) -> u64| {
        let (least, sum) = (runs.iter().map(of).min().unwrap_or_default(), runs.iter().map(of).sum::<u64>());
        format!("  {what:<24} median {:>5}, least {least:>5}, all {sum}", median(runs, of))
    };
    let listed = |counts: &mut dyn Iterator<Item = (String, u64)>| {
        counts.map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
    };
    [
        format!("of {} that passed:", runs.len()),
        line("changes acknowledged", |run| run.totals.acknowledged),
        line("operations unknown", |run| run.totals.unknown),
        line("locks granted", |run| run.totals.grants),
        line("terms of groups", |run| run.totals.terms),
        line("events told", |run| run.totals.events),
        line("between two leaders, ms", |run| run.totals.closest_ms),
        line("changes of leaders", |run| run.changes),
        line("snapshots made", |run| run.made),
        line("snapshots installed", |run| run.installed),
        line("writes without room", |run| run.refused_writes),
        line("faults", faults),
        format!("  {}", listed(&mut by_kind(runs))),
        format!("  rare branches: {}", listed(&mut by_point(runs))),
    ]
    .join("\n")
}

/// Why these runs show little.
fn lacks(runs: &[Summary]) -> Vec<String> {
    let mut lacks = Vec::new();
    let medians = [
        ("changes acknowledged", median(runs, |run| run.totals.acknowledged), ACKNOWLEDGED_MIN),
        ("locks granted", median(runs, |run| run.totals.grants), GRANTS_MIN),
        ("terms of groups", median(runs, |run| run.totals.terms), TERMS_MIN),
        ("events told", median(runs, |run| run.totals.events), EVENTS_MIN),
        ("changes of leaders", median(runs, |run| run.changes), CHANGES_MIN),
        ("faults", median(runs, faults), FAULTS_MIN),
    ];
    for (what, median, least) in medians {
        if median < least {
            lacks.push(format!("{what}: the median is {median}, less than {least}"));
        }
    }
    let snapshots = [
        ("a snapshot that is made", runs.iter().map(|run| run.made).sum()),
        ("a snapshot that is installed", runs.iter().map(|run| run.installed).sum::<u64>()),
    ];
    let happened = snapshots.map(|(what, count)| (what.to_owned(), count)).into_iter();
    let happened = happened.chain(by_kind(runs)).chain(by_point(runs));
    lacks.extend(happened.filter(|(_, count)| *count == 0).map(|(what, _)| format!("{what}: never happened")));
    lacks
}

#[cfg(test)]
mod tests {
    use coterie_workloads::totals::Totals;

    use super::*;

    /// Enough of everything.
    fn ample() -> Summary {
        let faults = Kind::ALL.into_iter().map(|kind| (kind, 1)).collect();
        Summary {
            totals: Totals {
                acknowledged: ACKNOWLEDGED_MIN,
                grants: GRANTS_MIN,
                terms: TERMS_MIN,
                events: EVENTS_MIN,
                ..Totals::default()
            },
            changes: CHANGES_MIN,
            made: 1,
            installed: 1,
            faults,
            points: Point::ALL.into_iter().map(|point| (point, 1)).collect(),
            ..Summary::default()
        }
    }

    #[test]
    fn a_batch_that_shows_little_says_what_it_lacks() {
        assert!(lacks(&[ample(), ample(), ample()]).is_empty());
        let totals = Totals { acknowledged: ACKNOWLEDGED_MIN - 1, events: 0, ..ample().totals };
        let idle = Summary { totals, changes: 1, ..ample() };
        assert!(lacks(&[ample(), idle.clone(), ample()]).is_empty(), "one of three");
        let said = lacks(&[ample(), idle.clone(), idle]);
        assert_eq!(said.len(), 3, "{said:?}");
        let mut dry = ample();
        dry.faults.remove(&Kind::TightDisk);
        assert_eq!(lacks(&[dry.clone(), dry.clone()]), ["TightDisk: never happened"]);
        assert!(lacks(&[dry, ample()]).is_empty());
        let whole = Summary { installed: 0, ..ample() };
        assert_eq!(lacks(&[whole]), ["a snapshot that is installed: never happened"]);
        assert!(!lacks(&[]).is_empty(), "nothing passed");
    }

    #[test]
    fn a_run_that_fails_says_nothing_or_never_ends_is_no_run() {
        let said = |script: &str| one(Command::new("sh").args(["-c", script]));
        assert_eq!(said(&format!("echo 'ready' >&2; echo '{}' >&2", ample())).ok(), Some(ample()));
        assert!(said(&format!("echo '{}' >&2; exit 1", ample())).is_err());
        assert!(said("true").is_err());
        let error = said("echo 'k is not linearizable' >&2; exit 1").expect_err("it failed").to_string();
        assert!(error.contains("k is not linearizable"), "{error}");
    }
}
