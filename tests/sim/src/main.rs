//! `coterie-sim SEED [--smoke] [--without-flush]`: runs the simulation of one seed and prints its trace, so that a failure
//! can be replayed and two runs can be compared byte by byte.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use coterie_sim::cluster::Flush;
use coterie_sim::{chaos, smoke};

/// What is run.
#[derive(Clone, Copy)]
enum Simulation {
    Chaos,
    Smoke,
}

fn main() -> ExitCode {
    match arguments().and_then(|(seed, simulation, flush)| run(seed, simulation, flush)) {
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
fn run(seed: u64, simulation: Simulation, flush: Flush) -> Result<(String, String)> {
    match simulation {
        Simulation::Chaos => {
            let chaos::Report { trace, answered, unknown, changes, faults, .. } = chaos::run(seed, flush)?;
            let faults: Vec<String> = faults.iter().map(|(kind, count)| format!("{kind:?} {count}")).collect();
            let faults = faults.join(", ");
            Ok((trace, format!("seed {seed}: {answered} answered, {unknown} unknown, {changes} changes of leader; {faults}")))
        }
        Simulation::Smoke => {
            let report = smoke::run(seed, flush)?;
            Ok((report.trace, format!("{} acknowledged, {} terms", report.acknowledged, report.leaders.len())))
        }
    }
}

fn arguments() -> Result<(u64, Simulation, Flush)> {
    let (mut seed, mut simulation, mut flush) = (None, Simulation::Chaos, Flush::Honest);
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--smoke" => simulation = Simulation::Smoke,
            "--without-flush" => flush = Flush::Removed,
            number if seed.is_none() => seed = Some(number.parse().with_context(|| format!("{number:?} is no seed"))?),
            other => bail!("{other:?} is one argument too many"),
        }
    }
    Ok((seed.context("usage: coterie-sim SEED [--smoke] [--without-flush]")?, simulation, flush))
}
