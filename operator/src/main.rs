//! `coterie-operator`: turns Clusters and PartitionGroups into what runs.
//!
//! This is the shell: it reads, calls the pure functions of `coterie-operator-core`, and writes what they return. Each
//! controller has one file per step: observe, (validate and plan are in the core), apply, report.
//!
//! One replica is meant to run; there is no election between several in this version (the chart's Deployment replaces its
//! pod by `Recreate`). Everything is applied by server-side apply and asked of members idempotently, so two of them at once
//! waste work but break nothing.

#![forbid(unsafe_code)]

mod admin;
mod certificates;
mod cluster;
mod context;
#[cfg(test)]
mod fake;
mod group;
mod health;
mod run;
mod write;

use std::path::Path;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

/// The operator of Coterie.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the controllers until it is told to stop.
    Run(run::Options),
    /// Prints the custom resource definitions as YAML.
    Crds {
        /// Writes them to their places in the repository instead, which is the working directory.
        #[arg(long)]
        write: bool,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Run(options) => {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            runtime.context("start the runtime")?.block_on(run::run(options))
        }
        Command::Crds { write: true } => write_crds(),
        Command::Crds { write: false } => print_crds(),
    }
}

fn print_crds() -> anyhow::Result<()> {
    for definition in coterie_crds::definitions() {
        println!("---\n{}", coterie_crds::to_yaml(&definition.crd).context("write a definition as YAML")?);
    }
    Ok(())
}

fn write_crds() -> anyhow::Result<()> {
    for definition in coterie_crds::definitions() {
        let yaml = coterie_crds::to_yaml(&definition.crd).context("write a definition as YAML")?;
        for folder in coterie_crds::FOLDERS {
            let path = Path::new(folder).join(definition.file);
            std::fs::write(&path, &yaml).with_context(|| format!("write {}", path.display()))?;
        }
    }
    Ok(())
}
