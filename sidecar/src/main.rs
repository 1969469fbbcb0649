//! `coterie-sidecar`: runs a sidecar, hands over before it stops, checks a configuration.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand};
use coterie_core::config::{Config, Overrides};
use coterie_sidecar::Node;
use coterie_sidecar::node::Options;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::signal::unix::{SignalKind, signal};

/// Coordination for applications in Kubernetes: the sidecar.
#[derive(Parser)]
#[command(name = "coterie-sidecar", version)]
struct Cli {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Subcommand)]
enum Sub {
    /// Run until SIGTERM or SIGINT.
    Run(Run),
    /// Say whether a configuration is right; print every problem with its line and key.
    Check(Source),
    /// Hand over what a running sidecar leads, and end its memberships; returns when that is done.
    Drain {
        /// The running sidecar's Unix socket.
        #[arg(long, env = "COTERIE_SOCKET", default_value = "/run/coterie/coterie.sock")]
        socket: PathBuf,
    },
}

#[derive(Args)]
struct Source {
    /// The configuration file.
    #[arg(long, env = "COTERIE_CONFIG")]
    config: PathBuf,
    /// Which member this is; over the file's `cluster.local-member.name`.
    #[arg(long, env = "COTERIE_LOCAL_MEMBER")]
    local_member: Option<String>,
    /// This member's failure domain; over the file's.
    #[arg(long, env = "COTERIE_ZONE")]
    zone: Option<String>,
    /// Where durable bytes go; over the file's `data-directory`.
    #[arg(long, env = "COTERIE_DATA_DIRECTORY")]
    data_directory: Option<String>,
    /// The application API's port; over the file's `api.port`.
    // Not from the environment: a Service `coterie-api` would put `tcp://…` there.
    #[arg(long)]
    api_port: Option<u16>,
    /// The application API's Unix socket; over the file's `api.socket`.
    #[arg(long, env = "COTERIE_API_SOCKET")]
    api_socket: Option<String>,
    /// Where health and metrics listen; over the file's `health.address`.
    #[arg(long, env = "COTERIE_HEALTH_ADDRESS")]
    health_address: Option<IpAddr>,
    /// The port of health and metrics; over the file's `health.port`.
    #[arg(long)]
    health_port: Option<u16>,
    /// Where peers connect to; over the file's `peer.bind`.
    #[arg(long, env = "COTERIE_PEER_BIND")]
    peer_bind: Option<SocketAddr>,
}

#[derive(Args)]
struct Run {
    #[command(flatten)]
    source: Source,
    /// What is logged, as `tracing` directives. openraft tells of every peer that it cannot reach; so does this program.
    #[arg(long, env = "COTERIE_LOG", default_value = "info,openraft=error")]
    log: String,
    /// `text` or `json`.
    #[arg(long, env = "COTERIE_LOG_FORMAT", default_value = "text", value_parser = ["text", "json"])]
    log_format: String,
    /// Where data directories are made when neither the file nor the command line names one.
    #[arg(long, env = "COTERIE_HOME")]
    home: Option<PathBuf>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Beside an application on two cores a second thread costs more in waking each other than it gives: a fifth of the
    // CPU time of a read, where it was measured.
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let runtime = match cores {
        1 | 2 => tokio::runtime::Builder::new_current_thread().enable_all().build(),
        _ => tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build(),
    };
    let done = runtime.context("start the runtime").and_then(|runtime| {
        runtime.block_on(async {
            match cli.command {
                Sub::Run(run) => self::run(run).await,
                Sub::Check(source) => check(&source),
                Sub::Drain { socket } => drain(&socket).await,
            }
        })
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("coterie-sidecar: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Source {
    fn read(&self) -> anyhow::Result<Config> {
        let path = self.config.display();
        let text = std::fs::read_to_string(&self.config).with_context(|| format!("read {path}"))?;
        let overrides = Overrides {
            local_member: self.local_member.clone(),
            zone: self.zone.clone(),
            data_directory: self.data_directory.clone(),
            api_port: self.api_port,
            api_socket: self.api_socket.clone(),
            health_address: self.health_address,
            health_port: self.health_port,
            peer_bind: self.peer_bind,
        };
        Config::from_yaml(&text, &overrides).map_err(|error| anyhow::anyhow!("{path}: {error}"))
    }
}

fn check(source: &Source) -> anyhow::Result<()> {
    let config = source.read()?;
    println!("{} is right: member {} of the cluster {}", source.config.display(), config.local.name, config.cluster);
    Ok(())
}

async fn run(run: Run) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&run.log).context("parse --log")?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if run.log_format == "json" {
        subscriber.json().init();
    } else {
        subscriber.init();
    }
    let config = run.source.read()?;
    let data_directory = match &config.data_directory {
        Some(directory) => directory.clone(),
        None => config.default_data_directory(&home(run.home)?),
    };
    let api_socket = config.api_socket_in(&data_directory);
    if let Some(folder) = api_socket.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let member = config.local.name.clone();
    let options = Options { env: coterie_env::real(), config, data_directory, api_socket: Some(api_socket) };
    let node = Node::start(options).await?;
    tracing::info!(%member, version = env!("CARGO_PKG_VERSION"), "started");
    tokio::select! {
        ended = node.wait() => ended?,
        _ = terminate.recv() => node.stop().await,
        _ = interrupt.recv() => node.stop().await,
    }
    tracing::info!(%member, "stopped");
    Ok(())
}

fn home(given: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    if let Some(home) = given {
        return Ok(home);
    }
    let Some(home) = std::env::var_os("HOME") else {
        bail!("there is no place for data: set --data-directory, or COTERIE_HOME, or HOME");
    };
    Ok(Path::new(&home).join(".local/share/coterie"))
}

/// One request over the Unix socket, without a client library: a preStop hook should be small.
async fn drain(socket: &Path) -> anyhow::Result<()> {
    let path = socket.display();
    let mut stream =
        tokio::net::UnixStream::connect(socket).await.with_context(|| format!("connect to the sidecar at {path}"))?;
    let request = "POST /v1/sidecar/drain HTTP/1.1\r\nHost: coterie\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.context("ask the sidecar to hand over")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.context("wait for the sidecar to hand over")?;
    let status = answer.lines().next().unwrap_or("nothing");
    if status.split_whitespace().nth(1).is_some_and(|code| code.starts_with('2')) {
        return Ok(());
    }
    bail!("the sidecar did not hand over: it answered {status}")
}
