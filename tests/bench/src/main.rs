//! Runs the benchmark; see the library.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser as _;

use coterie_bench::memory::Curve;
use coterie_bench::options::{Options, Which};
use coterie_bench::rounds::{Programs, Rounds};
use coterie_bench::system::etcd::program;
use coterie_bench::{machine, memory, plot, table};

fn main() -> ExitCode {
    let options = Options::parse().resolved();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let done = runtime.context("start the runtime").and_then(|runtime| {
        runtime.block_on(async {
            tokio::select! {
                done = run(&options) => done,
                _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
            }
        })
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("coterie-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<()> {
    std::fs::create_dir_all(&options.directory).with_context(|| format!("make {}", options.directory.display()))?;
    let mut programs = Programs::default();
    if options.system != Which::Coterie {
        programs.etcd = program::find(options.etcd.as_deref())?;
    }
    if options.system != Which::Etcd {
        programs.coterie = sidecar(options.sidecar.as_deref())?;
    }
    let begun = machine::describe();
    let mut rounds = Rounds::new(options, programs)?;
    let failed = rounds.run().await;
    // What was measured before a failure is worth having.
    let machine = format!(
        "{}, flushes of {}; etcd {}; at the beginning: {begun}; at the end: {}",
        kernel(),
        rounds.device()?,
        program::VERSION,
        machine::describe(),
    );
    write(options, &rounds, &machine)?;
    failed
}

fn write(options: &Options, rounds: &Rounds<'_>, machine: &str) -> Result<()> {
    let results = rounds.results();
    let mut files = Vec::new();
    if !rounds.curves().is_empty() {
        let curves: Vec<_> = rounds.curves().iter().map(Curve::to_json).collect();
        files.push(("memory.json", serde_json::to_string(&curves).context("write JSON")?));
        files.push(("memory.svg", memory::render(rounds.curves(), machine)));
    }
    let table = format!("{machine}\n{}", table::render(results));
    println!("{table}");
    let json = serde_json::to_string_pretty(&results.to_json()).context("write JSON")?;
    if !results.rows().is_empty() || files.is_empty() {
        let plot = plot::render(results, machine);
        files.extend([("results.json", json), ("table.md", table), ("results.svg", plot)]);
    }
    for (name, text) in files {
        let path = options.directory.join(name);
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        eprintln!("wrote {}", path.display());
    }
    Ok(())
}

fn sidecar(named: Option<&Path>) -> Result<PathBuf> {
    let beside = std::env::current_exe().context("find this program")?.with_file_name("coterie-sidecar");
    let path = named.map_or(beside, Path::to_owned);
    anyhow::ensure!(path.is_file(), "there is no {}: cargo build --release --package coterie-sidecar", path.display());
    Ok(path)
}

fn kernel() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {}", release.trim())
}
