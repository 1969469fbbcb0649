//! `coterie-processes [--seed S] [--rounds N]`: three real sidecar processes, each on a small file system of its own, and the
//! clients of `tests/workloads` beside them, while processes are killed and stopped and volumes are full. Then everything is
//! put right, and what clients saw is checked.
//!
//! The file systems are of ext4 if this runs as root, else in memory; both are gone with this program, which runs in a mount
//! namespace of its own.

mod driver;
mod faults;
mod volume;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use clap::Parser;

/// Chaos of real processes.
#[derive(Parser)]
pub(crate) struct Arguments {
    /// Decides what fails and what clients ask for; any number. The present time if it is not given.
    #[arg(long)]
    seed: Option<u64>,
    /// How often each kind of fault happens.
    #[arg(long, default_value_t = 2)]
    rounds: usize,
    /// Where everything lies, also when it fails.
    #[arg(long, default_value = "target/chaos")]
    folder: PathBuf,
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(code) = volume::in_a_namespace_of_its_own()? {
        return Ok(code);
    }
    let seed = match arguments.seed {
        Some(seed) => seed,
        None => SystemTime::now().duration_since(UNIX_EPOCH).context("read the clock")?.as_secs(),
    };
    println!("seed {seed}, {0} rounds; replay: coterie-processes --seed {seed} --rounds {0}", arguments.rounds);
    let runtime = tokio::runtime::Runtime::new().context("start a runtime")?;
    runtime.block_on(driver::run(seed, arguments.rounds, &arguments.folder))?;
    Ok(ExitCode::SUCCESS)
}
