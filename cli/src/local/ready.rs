//! When a member is ready.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use coterie_client::{Client, ClientOptions, Status};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Error, LocalCluster};

/// How long a local member may take from its start until it is ready, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_millis(20);
const LOG_BYTES: usize = 4_000;

pub(super) async fn wait(cluster: &LocalCluster, place: usize, patience: Duration) -> Result<(), Error> {
    let seat = cluster.seat(place);
    let begun = Instant::now();
    loop {
        let why = match missing(&seat.endpoint(), seat.health_port, &cluster.expected_groups()).await {
            Ok(()) => return Ok(()),
            Err(why) => why,
        };
        if let Some(status) = cluster.exit_status(place) {
            return Err(Error::Ended { member: seat.name.clone(), status, log: tail(&cluster.logs(place)) });
        }
        if begun.elapsed() > patience {
            let log = tail(&cluster.logs(place));
            return Err(Error::NotReady { member: seat.name.clone(), waited: begun.elapsed(), why, log });
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// What a member still lacks.
async fn missing(endpoint: &str, health_port: u16, groups: &BTreeSet<String>) -> Result<(), String> {
    let answer = get(health_port, "/readyz").await.map_err(|error| format!("/readyz: {error}"))?;
    if answer != 200 {
        return Err(format!("/readyz answers {answer}"));
    }
    let options = ClientOptions { timeout: Duration::from_secs(2), ..ClientOptions::default() };
    let client = Client::connect_with(endpoint, options).map_err(|error| error.to_string())?;
    let status = client.status().await.map_err(|error| error.to_string())?;
    leaderless(&status, groups).map_or(Ok(()), Err)
}

/// What keeps the cluster from serving, as this member sees it.
fn leaderless(status: &Status, groups: &BTreeSet<String>) -> Option<String> {
    if status.state != "running" {
        return Some(format!("it is {}: {}", status.state, status.reason));
    }
    let known = |name: &String| status.partition_groups.iter().any(|group| group.name == *name);
    if let Some(unknown) = groups.iter().find(|name| !known(name)) {
        return Some(format!("it does not know the partition group {unknown} yet"));
    }
    status.partition_groups.iter().find_map(|group| {
        if group.partitions.is_empty() {
            return Some(format!("{} has no partitions", group.name));
        }
        let leaderless = group.partitions.iter().find(|partition| partition.leader.is_none());
        leaderless.map(|partition| format!("{}/{} has no leader", group.name, partition.index))
    })
}

/// The status of a GET on a loopback port.
async fn get(port: u16, path: &str) -> std::io::Result<u16> {
    let exchange = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let status = String::from_utf8_lossy(&answer).split(' ').nth(1).and_then(|word| word.parse().ok());
        status.ok_or_else(|| std::io::Error::other("no HTTP status"))
    };
    tokio::time::timeout(Duration::from_secs(2), exchange).await?
}

/// The end of a log.
fn tail(log: &str) -> String {
    let mut start = log.len().saturating_sub(LOG_BYTES);
    while !log.is_char_boundary(start) {
        start += 1;
    }
    log[start..].to_owned()
}
