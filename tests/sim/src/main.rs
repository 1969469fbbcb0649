//! `coterie-sim SEED [--smoke] [--without-flush] [--mutant NAME]`: runs the simulation of one seed and prints its trace, so that a failure
//! can be replayed and two runs can be compared byte by byte. `coterie-sim --seeds COUNT [--from SEED] [--jobs COUNT]`: runs
//! many, and prints what they came to. `coterie-sim --mutants COUNT`: looks for each seeded bug with so many seeds at most.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use coterie_mutants::Mutant;
use coterie_sim::cluster::Flush;
use coterie_sim::summary::Summary;
use coterie_sim::{chaos, smoke};

mod batch;

use batch::Batch;

const USAGE: &str = "usage: coterie-sim SEED [--smoke] [--without-flush] [--mutant NAME]
       coterie-sim --seeds COUNT [--from SEED] [--jobs COUNT]
       coterie-sim --mutants COUNT [--from SEED] [--jobs COUNT]";

/// What is run.
#[derive(Clone, Copy)]
enum Asked {
    One(u64, Simulation, Flush),
    Many(Batch),
    Mutants(Batch),
}

#[derive(Clone, Copy)]
enum Simulation {
    Chaos,
    Smoke,
}

fn main() -> ExitCode {
    let ran = arguments().and_then(|asked| match asked {
        Asked::One(seed, simulation, flush) => one(seed, simulation, flush),
        Asked::Many(batch) => batch::run(batch),
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
        Simulation::Chaos => {
            let report = chaos::run(seed, flush).map_err(|chaos::Failure { trace, why }| {
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
    let (mut seed, mut simulation, mut flush) = (None, Simulation::Chaos, Flush::Honest);
    let (mut seeds, mut from, mut jobs) = (None, 1, std::thread::available_parallelism().map_or(1, usize::from));
    let (mut mutant, mut mutants) = (None, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut word = || arguments.next().with_context(|| format!("{argument} needs another word"));
        let number = |word: String| -> Result<u64> { word.parse().with_context(|| format!("{word:?} is no number")) };
        match argument.as_str() {
            "--smoke" => simulation = Simulation::Smoke,
            "--mutant" => mutant = Some(named(&word()?)?),
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
        coterie_mutants::switch_on(mutant);
    }
    match (seed, seeds, mutants) {
        (Some(seed), None, None) => Ok(Asked::One(seed, simulation, flush)),
        (None, Some(seeds), None) => Ok(Asked::Many(Batch { from, seeds, jobs })),
        (None, None, Some(seeds)) => Ok(Asked::Mutants(Batch { from, seeds, jobs })),
        _ => bail!(USAGE),
    }
}

fn named(name: &str) -> Result<Mutant> {
    let known = Mutant::ALL.into_iter().find(|mutant| format!("{mutant:?}") == name);
    known.with_context(|| format!("{name:?} is none of {:?}", Mutant::ALL))
}
