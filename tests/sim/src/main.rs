//! `coterie-sim SEED [--smoke] [--without-flush] [--mutant NAME]`: runs the simulation of one seed and prints its trace, so that a failure
//! can be replayed and two runs can be compared byte by byte. `coterie-sim --seeds COUNT [--from SEED] [--jobs COUNT]`: runs
//! many, and prints what they came to. `coterie-sim --mutants COUNT`: looks for each seeded bug with so many seeds at most.
//! `--histories FOLDER`, of chaos with one seed or many: writes what was done with registers, for another checker.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use coterie_mutants::Mutant;
use coterie_sim::cluster::Flush;
use coterie_sim::summary::Summary;
use coterie_sim::{chaos, histories, smoke};

mod batch;

use batch::Batch;

const USAGE: &str = "usage: coterie-sim SEED [--smoke | --histories FOLDER] [--without-flush] [--mutant NAME]
       coterie-sim --seeds COUNT [--from SEED] [--jobs COUNT] [--histories FOLDER]
       coterie-sim --mutants COUNT [--from SEED] [--jobs COUNT]";

/// What is run.
enum Asked {
    One(u64, Simulation, Flush),
    Many(Batch),
    Histories(Batch, PathBuf),
    Mutants(Batch),
}

enum Simulation {
    /// With the folder for its histories, if they are wanted.
    Chaos(Option<PathBuf>),
    Smoke,
}

fn main() -> ExitCode {
    let ran = arguments().and_then(|asked| match asked {
        Asked::One(seed, simulation, flush) => one(seed, simulation, flush),
        Asked::Many(batch) => batch::run(batch),
        Asked::Histories(batch, folder) => batch::histories(batch, &folder),
        Asked::Mutants(batch) => batch::mutants(batch),
    });
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the trace of a simulation, and a line that sums it up.
fn one(seed: u64, simulation: Simulation, flush: Flush) -> Result<()> {
    let (trace, sum) = match simulation {
        Simulation::Chaos(folder) => {
            let ran = chaos::run(seed, flush);
            if let Some(folder) = folder {
                let operations = ran.as_ref().map_or_else(|failure| &failure.operations, |report| &report.operations);
                histories::write(&folder, seed, operations).context("write histories")?;
            }
            let report = ran.map_err(|chaos::Failure { trace, why, .. }| {
                print!("{trace}");
                why
            })?;
            let sum = Summary::of(seed, &report).to_string();
            (report.trace, sum)
        }
        Simulation::Smoke => {
            let report = smoke::run(seed, flush)?;
            (report.trace, format!("{} acknowledged, {} terms", report.acknowledged, report.leaders.len()))
        }
    };
    print!("{trace}");
    eprintln!("{sum}");
    Ok(())
}

fn arguments() -> Result<Asked> {
    let (mut seed, mut is_smoke, mut flush, mut folder) = (None, false, Flush::Honest, None);
    let (mut seeds, mut from, mut jobs) = (None, 1, std::thread::available_parallelism().map_or(1, usize::from));
    let (mut mutant, mut mutants) = (None, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut word = || arguments.next().with_context(|| format!("{argument} needs another word"));
        let number = |word: String| -> Result<u64> { word.parse().with_context(|| format!("{word:?} is no number")) };
        match argument.as_str() {
            "--smoke" => is_smoke = true,
            "--mutant" => mutant = Some(named(&word()?)?),
            "--histories" => folder = Some(PathBuf::from(word()?)),
            "--without-flush" => flush = Flush::Removed,
            "--mutants" => mutants = Some(number(word()?)?),
            "--seeds" => seeds = Some(number(word()?)?),
            "--from" => from = number(word()?)?,
            "--jobs" => jobs = usize::try_from(number(word()?)?).context("--jobs")?.max(1),
            number if seed.is_none() => seed = Some(number.parse().with_context(|| format!("{number:?} is no seed"))?),
            other => bail!("{other:?} is one argument too many"),
        }
    }
    if let Some(mutant) = mutant {
        if seed.is_none() {
            bail!("--mutant goes with one seed");
        }
        coterie_mutants::switch_on(mutant);
    }
    match (seed, seeds, mutants, folder) {
        (Some(seed), None, None, None) if is_smoke => Ok(Asked::One(seed, Simulation::Smoke, flush)),
        (Some(seed), None, None, folder) if !is_smoke => Ok(Asked::One(seed, Simulation::Chaos(folder), flush)),
        (None, Some(seeds), None, None) => Ok(Asked::Many(Batch { from, seeds, jobs })),
        (None, Some(seeds), None, Some(folder)) => Ok(Asked::Histories(Batch { from, seeds, jobs }, folder)),
        (None, None, Some(seeds), None) => Ok(Asked::Mutants(Batch { from, seeds, jobs })),
        _ => bail!(USAGE),
    }
}

fn named(name: &str) -> Result<Mutant> {
    let known = Mutant::ALL.into_iter().find(|mutant| format!("{mutant:?}") == name);
    known.with_context(|| format!("{name:?} is none of {:?}", Mutant::ALL))
}
