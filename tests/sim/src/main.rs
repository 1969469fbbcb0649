//! `coterie-sim SEED [--smoke | --without-flush]`: runs the simulation of one seed and prints its trace, so that a failure
//! can be replayed and two runs can be compared byte by byte.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use coterie_sim::chaos;
use coterie_sim::smoke::{self, Flush};

/// What is run.
enum Simulation {
    Chaos,
    Smoke(Flush),
}

fn main() -> ExitCode {
    match arguments().and_then(|(seed, simulation)| run(seed, &simulation)) {
        Ok((trace, sum)) => {
            print!("{trace}");
            eprintln!("{sum}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The trace of a simulation, and a line that sums it up.
fn run(seed: u64, simulation: &Simulation) -> Result<(String, String)> {
    match simulation {
        Simulation::Chaos => {
            let chaos::Report { trace, answered, unknown, terms, faults } = chaos::run(seed)?;
            let faults: Vec<String> = faults.iter().map(|(kind, count)| format!("{kind:?} {count}")).collect();
            let faults = faults.join(", ");
            Ok((trace, format!("seed {seed}: {answered} answered, {unknown} unknown, {terms} terms; {faults}")))
        }
        Simulation::Smoke(flush) => {
            let report = smoke::run(seed, *flush)?;
            Ok((report.trace, format!("{} acknowledged, {} terms", report.acknowledged, report.leaders.len())))
        }
    }
}

fn arguments() -> Result<(u64, Simulation)> {
    let mut seed = None;
    let mut simulation = Simulation::Chaos;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--smoke" => simulation = Simulation::Smoke(Flush::Honest),
            "--without-flush" => simulation = Simulation::Smoke(Flush::Removed),
            number if seed.is_none() => seed = Some(number.parse().with_context(|| format!("{number:?} is no seed"))?),
            other => bail!("{other:?} is one argument too many"),
        }
    }
    Ok((seed.context("usage: coterie-sim SEED [--smoke | --without-flush]")?, simulation))
}
