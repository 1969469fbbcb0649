//! `coterie-sim SEED [--without-flush]`: runs the smoke simulation of one seed and prints its trace, so that a failure
//! can be replayed and two runs can be compared byte by byte.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use coterie_sim::smoke::{self, Flush};

fn main() -> ExitCode {
    match arguments().and_then(|(seed, flush)| smoke::run(seed, flush)) {
        Ok(report) => {
            print!("{}", report.trace);
            eprintln!("{} acknowledged, {} terms", report.acknowledged, report.leaders.len());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Result<(u64, Flush)> {
    let mut seed = None;
    let mut flush = Flush::Honest;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--without-flush" => flush = Flush::Removed,
            number if seed.is_none() => seed = Some(number.parse().with_context(|| format!("{number:?} is no seed"))?),
            other => bail!("{other:?} is one argument too many"),
        }
    }
    Ok((seed.context("usage: coterie-sim SEED [--without-flush]")?, flush))
}
