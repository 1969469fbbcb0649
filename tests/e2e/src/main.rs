//! Scenarios on a real Kubernetes: `coterie-e2e list`, `coterie-e2e run [--all] [--keep] [NAME…]`.
//!
//! Each scenario has a namespace of its own (Pod Security level `restricted`), asserts what a user sees (kubectl, helm, the
//! sidecar's API), and waits for conditions. What they run on is chosen by [`environment`]. A failed scenario prints objects,
//! events and logs; the end is a table and the line `N passed, N failed`.

mod api;
mod context;
mod diagnose;
mod environment;
mod http;
mod inside;
mod install;
mod kube;
mod manifests;
mod poll;
mod process;
mod report;
mod scenarios;
mod world;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};

use context::Context;
use environment::Environment;
use install::Installation;
use report::{Outcome, Row};
use scenarios::{Needs, SCENARIOS, Scenario};

/// Scenarios on a real Kubernetes.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// Prints every scenario with its expected time.
    List,
    /// Runs the core set, every scenario, or those that are named.
    Run {
        /// Every scenario, not only the core set.
        #[arg(long)]
        all: bool,
        /// Leave the Kubernetes, and the namespaces of failed scenarios, as they are at the end.
        #[arg(long)]
        keep: bool,
        /// Names of scenarios.
        names: Vec<String>,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        What::List => {
            report::list();
            Ok(true)
        }
        What::Run { all, keep, names } => chosen(all, &names).and_then(|scenarios| run(&scenarios, keep)),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(reason) => {
            eprintln!("e2e: {reason:#}");
            ExitCode::FAILURE
        }
    }
}

fn chosen(all: bool, names: &[String]) -> Result<Vec<&'static Scenario>> {
    if names.is_empty() {
        return Ok(SCENARIOS.iter().filter(|scenario| all || scenario.core).collect());
    }
    let find = |name: &String| {
        SCENARIOS
            .iter()
            .find(|s| s.name == name)
            .with_context(|| format!("there is no scenario {name}; see `coterie-e2e list`"))
    };
    names.iter().map(find).collect()
}

/// Runs them in order; whether all passed.
fn run(scenarios: &[&'static Scenario], keep: bool) -> Result<bool> {
    let started = Instant::now();
    let environment = Environment::start(keep).context("find or start a Kubernetes")?;
    println!("Kubernetes: {} ({:.0} s)", environment.describe(), started.elapsed().as_secs_f64());
    let rows = prepare_and_run(&environment, scenarios, keep);
    let stopped = environment.stop().context("stop the Kubernetes");
    let rows = rows?;
    report::table(&rows, started.elapsed());
    stopped?;
    Ok(!rows.is_empty() && rows.iter().all(|row| !matches!(row.outcome, Outcome::Failed(_))))
}

fn prepare_and_run(environment: &Environment, scenarios: &[&'static Scenario], keep: bool) -> Result<Vec<Row>> {
    let started = Instant::now();
    let installation = Installation::prepare(environment)?;
    println!("image: {} ({:.0} s)", installation.image(), started.elapsed().as_secs_f64());
    Ok(scenarios.iter().map(|scenario| run_one(&installation, scenario, keep)).collect())
}

fn run_one(installation: &Installation<'_>, scenario: &'static Scenario, keep: bool) -> Row {
    println!("\n=== {}: {}", scenario.name, scenario.summary);
    let started = Instant::now();
    let environment = installation.environment();
    let lacks = match scenario.needs {
        Needs::Nodes if !environment.controls_nodes() => Some("nodes of a given Kubernetes cannot be killed"),
        Needs::Networks if !environment.has_networks() => {
            Some("the networks of pods can be entered in tests/kube only")
        }
        Needs::Operator | Needs::Nodes | Needs::Networks | Needs::NoOperator => None,
    };
    if let Some(why) = lacks {
        return Row { scenario, outcome: Outcome::Skipped(why), took: Duration::ZERO, notes: Vec::new() };
    }
    let (result, notes) = match Context::new(installation, scenario.name) {
        Ok(context) => {
            let result = ready(installation, scenario).and_then(|()| (scenario.run)(&context));
            if let Err(reason) = &result {
                println!("--- FAILED: {reason:#}");
                diagnose::print(&context.kube, installation);
            }
            let cleaned = if keep && result.is_err() { Ok(()) } else { context.clean_up().context("clean up") };
            (result.and(cleaned), context.notes())
        }
        Err(reason) => (Err(reason), Vec::new()),
    };
    let outcome = match result {
        Ok(()) => Outcome::Passed,
        Err(reason) => Outcome::Failed(format!("{reason:#}")),
    };
    println!("=== {}: {} ({:.0} s)", scenario.name, outcome.word(), started.elapsed().as_secs_f64());
    Row { scenario, outcome, took: started.elapsed(), notes }
}

/// Every scenario begins with three ready nodes and the operator as the chart in the repository installs it.
fn ready(installation: &Installation<'_>, scenario: &Scenario) -> Result<()> {
    let kube = installation.environment().kubectl();
    poll::until("every node to be ready", poll::seconds(60), || {
        let nodes = kube.list("nodes", "")?;
        let tired = nodes.iter().filter(|n| kube::condition(n, "Ready").is_none_or(|c| c["status"] != "True"));
        let tired: Vec<_> = tired.map(|n| n["metadata"]["name"].to_string()).collect();
        if nodes.is_empty() || !tired.is_empty() { bail!("not ready: {tired:?}") } else { Ok(()) }
    })?;
    if scenario.needs == Needs::NoOperator { Ok(()) } else { installation.ensure() }
}
