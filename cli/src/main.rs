//! `coterie`: local clusters, status and groups.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use coterie_cli::{group, status, up};
use coterie_client::Client;

/// Coordination for applications: who is here, who leads.
#[derive(Parser, Debug)]
#[command(name = "coterie", version)]
struct Cli {
    /// The sidecar: http://127.0.0.1:7300 or unix:/run/coterie/coterie.sock. Default: COTERIE_SOCKET, COTERIE_ENDPOINT,
    /// else http://127.0.0.1:7300.
    #[arg(long, global = true)]
    endpoint: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Up(up::Args),
    Group(group::Args),
    Status(status::Args),
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("coterie: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whoever read the output has seen enough.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |error: &std::io::Error| error.kind() == std::io::ErrorKind::BrokenPipe;
    error.downcast_ref::<std::io::Error>().is_some_and(broken)
}

async fn run(Cli { endpoint, command }: Cli) -> anyhow::Result<()> {
    let client = || match &endpoint {
        Some(endpoint) => Client::connect(endpoint),
        None => Client::from_env(),
    };
    match command {
        Command::Up(args) => up::run(args).await,
        Command::Group(args) => group::run(&client()?, args).await,
        Command::Status(args) => status::run(&client()?, args).await,
    }
}
