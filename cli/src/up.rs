//! `coterie up`: a local cluster in the foreground.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::local::{ApiPorts, Home, LocalCluster, Plan, STOP_GRACE};
use crate::output::line;
use crate::table::table;

/// Starts a cluster of real member processes on this machine, and stops it on Ctrl-C.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// How many members; the first of them vote, an odd number and at most five.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=32))]
    members: u16,
    /// The application API's port of the first member; each next one is ten higher. 0: free ones.
    #[arg(long, default_value_t = 7300)]
    api_port: u16,
    /// Where the data goes; it stays, and a cluster that was there goes on. Default: a temporary directory.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Keeps the temporary directory.
    #[arg(long)]
    keep: bool,
    /// The sidecar program. Default: the one beside this program, else the one in PATH.
    #[arg(long)]
    sidecar: Option<PathBuf>,
}

/// Runs until Ctrl-C, SIGTERM, or until a member ends by itself.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let begun = Instant::now();
    let cluster = LocalCluster::prepare(&plan(&args))?;
    let started = async {
        for place in 0..cluster.seats().len() {
            cluster.spawn(place)?;
        }
        cluster.wait_ready(crate::local::PATIENCE).await
    };
    tokio::select! {
        started = started => started?,
        _ = interrupt.recv() => return stop(&cluster).await,
        _ = terminate.recv() => return stop(&cluster).await,
    }
    print(&cluster, &args, begun)?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        place = ended(&cluster) => {
            let (name, log) = (cluster.seat(place).name.clone(), cluster.logs(place));
            stop(&cluster).await?;
            anyhow::bail!("{name} ended by itself; it said:\n{log}");
        }
    }
    stop(&cluster).await
}

fn plan(args: &Args) -> Plan {
    let home = match (&args.dir, args.keep) {
        (Some(path), _) => Home::At(path.clone()),
        (None, true) => Home::TemporaryKept,
        (None, false) => Home::Temporary,
    };
    let api_ports = if args.api_port == 0 { ApiPorts::Free } else { ApiPorts::From(args.api_port) };
    Plan { home, api_ports, sidecar: args.sidecar.clone(), ..Plan::new(args.members.into()) }
}

fn print(cluster: &LocalCluster, args: &Args, begun: Instant) -> std::io::Result<()> {
    let mut table = table(&["MEMBER", "API", "SOCKET", "PEERS", "HEALTH", "DATA"]);
    for seat in cluster.seats() {
        table.add_row(vec![
            seat.name.clone(),
            seat.endpoint(),
            seat.socket().display().to_string(),
            seat.peer_address(),
            format!("http://127.0.0.1:{}", seat.health_port),
            seat.data_directory().display().to_string(),
        ]);
    }
    line(table.trim_fmt())?;
    if args.keep || args.dir.is_some() {
        line(format_args!("data stays in {}", cluster.home().display()))?;
    }
    line(format_args!("try: curl -s {}/v1/status", cluster.endpoint(0)))?;
    line(format_args!("ready after {} ms", begun.elapsed().as_millis()))
}

/// The first member whose process ends.
async fn ended(cluster: &LocalCluster) -> usize {
    loop {
        let places = 0..cluster.seats().len();
        if let Some(place) = places.into_iter().find(|&place| cluster.exit_status(place).is_some()) {
            return place;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

async fn stop(cluster: &LocalCluster) -> anyhow::Result<()> {
    // Nobody may be there to read it any more; the members are stopped all the same.
    let _ = line("stopping");
    let begun = Instant::now();
    let ended = cluster.stop_all().await?;
    let forced = if begun.elapsed() > STOP_GRACE { " (killed what did not stop by itself)" } else { "" };
    let _ = line(format_args!("stopped {} members after {} ms{forced}", ended.len(), begun.elapsed().as_millis()));
    Ok(())
}
