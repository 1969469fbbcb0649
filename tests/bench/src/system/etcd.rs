//! etcd: three processes with their default settings, driven through its own gRPC API.

mod connection;
mod process;
pub mod program;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use async_trait::async_trait;
use tonic::transport::Channel;

use super::{Cluster, Connection, PATIENCE, Setup, argument};
use crate::authority::Authority;
use crate::load::MEMBERS;
use crate::ports;
use process::Process;

#[allow(missing_docs, unused_qualifications, unreachable_pub, clippy::all)]
mod wire {
    tonic::include_proto!("etcdserverpb");
}

const INTERVAL: Duration = Duration::from_millis(20);

/// Three members.
pub struct Members {
    program: std::path::PathBuf,
    seats: Vec<Seat>,
    processes: Mutex<Vec<Option<Process>>>,
}

struct Seat {
    endpoint: String,
    arguments: Vec<String>,
    log: std::path::PathBuf,
}

impl Members {
    /// Starts them with fresh directories; every one of them takes writes when this returns.
    pub async fn start(setup: &Setup) -> Result<Self> {
        let seats = seats(setup)?;
        let members =
            Self { program: setup.program.clone(), processes: Mutex::new((0..MEMBERS).map(|_| None).collect()), seats };
        for place in 0..MEMBERS {
            members.spawn(place)?;
        }
        members.wait_ready().await?;
        Ok(members)
    }

    fn spawn(&self, place: usize) -> Result<()> {
        let seat = &self.seats[place];
        self.locked()[place] = Some(Process::spawn(&self.program, &seat.arguments, &seat.log)?);
        Ok(())
    }

    async fn wait_ready(&self) -> Result<()> {
        let begun = Instant::now();
        for (place, seat) in self.seats.iter().enumerate() {
            while let Err(why) = self.serves(seat).await {
                if begun.elapsed() > PATIENCE {
                    let log = std::fs::read_to_string(&seat.log).unwrap_or_default();
                    let last: Vec<&str> = log.lines().rev().take(5).collect();
                    bail!("etcd member {place} does not serve: {why:#}; its log ends with {last:#?}");
                }
                // waits for a condition
                tokio::time::sleep(INTERVAL).await;
            }
        }
        Ok(())
    }

    /// Whether a member answers a linearizable read and knows a leader.
    async fn serves(&self, seat: &Seat) -> Result<()> {
        let channel = channel(&seat.endpoint, Duration::from_secs(2)).await?;
        let key = wire::RangeRequest { key: "ready".into(), ..Default::default() };
        wire::kv_client::KvClient::new(channel).range(key).await?;
        Ok(())
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Vec<Option<Process>>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, place: usize) -> Result<Process> {
        self.locked()[place].take().context("this member does not run")
    }
}

fn seats(setup: &Setup) -> Result<Vec<Seat>> {
    let scheme = if setup.peer_tls { "https" } else { "http" };
    let authority = Authority::create()?;
    let mut places = Vec::new();
    for place in 0..MEMBERS {
        let url = |scheme: &str| anyhow::Ok(format!("{scheme}://127.0.0.1:{}", ports::free()?));
        places.push((format!("etcd-{place}"), url("http")?, url(scheme)?));
    }
    let cluster: Vec<String> = places.iter().map(|(name, _, peer)| format!("{name}={peer}")).collect();
    let mut seats = Vec::new();
    for (name, client, peer) in places {
        let directory = setup.directory.join(&name);
        std::fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        let mut arguments: Vec<String> = [
            ("--name", name.clone()),
            ("--data-dir", argument(&directory.join("data"))),
            ("--listen-client-urls", client.clone()),
            ("--advertise-client-urls", client.clone()),
            ("--listen-peer-urls", peer.clone()),
            ("--initial-advertise-peer-urls", peer),
            ("--initial-cluster", cluster.join(",")),
            ("--initial-cluster-state", "new".to_owned()),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect();
        if setup.peer_tls {
            let files = authority.issue(&directory)?;
            for (option, file) in
                [("trusted-ca-file", files.ca), ("cert-file", files.certificate), ("key-file", files.key)]
            {
                arguments.extend([format!("--peer-{option}"), argument(&file)]);
            }
            arguments.push("--peer-client-cert-auth".to_owned());
        }
        seats.push(Seat { endpoint: client, arguments, log: directory.join("etcd.log") });
    }
    Ok(seats)
}

async fn channel(endpoint: &str, timeout: Duration) -> Result<Channel> {
    let endpoint = Channel::from_shared(endpoint.to_owned()).context("read an endpoint")?;
    Ok(endpoint.tcp_nodelay(true).timeout(timeout).connect_timeout(timeout).connect().await?)
}

#[async_trait]
impl Cluster for Members {
    fn processes(&self) -> Result<Vec<u32>> {
        self.locked().iter().map(|process| process.as_ref().map(Process::id).context("a member does not run")).collect()
    }

    async fn leader(&self) -> Result<usize> {
        for (place, seat) in self.seats.iter().enumerate() {
            let channel = channel(&seat.endpoint, PATIENCE).await?;
            let mut client = wire::maintenance_client::MaintenanceClient::new(channel);
            let status = client.status(wire::StatusRequest {}).await?.into_inner();
            if status.header.is_some_and(|header| header.member_id == status.leader) {
                return Ok(place);
            }
        }
        bail!("no member of etcd leads")
    }

    async fn kill(&self, place: usize) -> Result<()> {
        self.take(place)?.kill().await
    }

    async fn stop(&self, place: usize) -> Result<()> {
        self.take(place)?.stop().await
    }

    async fn restart(&self, place: usize) -> Result<()> {
        self.spawn(place)?;
        self.wait_ready().await
    }

    async fn connect(&self, place: usize) -> Result<Arc<dyn Connection>> {
        let channel = channel(&self.seats[place].endpoint, crate::load::TIMEOUT).await?;
        Ok(Arc::new(connection::Unary::new(channel)))
    }
}
