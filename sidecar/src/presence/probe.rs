//! The zero-code presence: an application that knows nothing of Coterie is a member while its probe succeeds.

use std::io;
use std::time::Duration;

use coterie_core::config::{Application, Probe};
use coterie_core::limits::DEADLINE_MS_DEFAULT;
use coterie_env::{Env, Stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Join, Kind, Membership, Presences};
use crate::deadline::Deadline;

/// What one probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It answers as it should.
    Healthy,
    /// Its end is closed: nothing listens there.
    Closed(String),
    /// It is silent, or answers something else: it may still act.
    Unwell(String),
}

/// What follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Be a member, or stay one.
    Join,
    /// Nothing yet.
    Keep,
    /// It is gone: give up the place at once.
    LeaveNow,
    /// It may still act: give up the place when what it was told has run out.
    LeaveLater,
}

/// Counts failures in a row.
#[derive(Debug)]
pub(super) struct Tracker {
    failures_max: u32,
    failures: u32,
}

impl Tracker {
    pub(super) fn new(failures_max: u32) -> Self {
        Self { failures_max, failures: 0 }
    }

    pub(super) fn observe(&mut self, found: &Found) -> Verdict {
        if *found == Found::Healthy {
            self.failures = 0;
            return Verdict::Join;
        }
        self.failures = self.failures.saturating_add(1);
        match found {
            Found::Closed(_) if self.failures >= self.failures_max => Verdict::LeaveNow,
            Found::Unwell(_) if self.failures >= self.failures_max => Verdict::LeaveLater,
            Found::Healthy | Found::Closed(_) | Found::Unwell(_) => Verdict::Keep,
        }
    }
}

impl Presences {
    /// Starts probing the configured application. It joins when it is healthy, leaves when it is not, and joins again,
    /// at the end of the queue (D3), when it is healthy again or its session was lost. Call once.
    pub fn start_probe(&self, application: &Application) {
        let this = self.clone();
        let application = application.clone();
        self.spawn("presence-probe", async move {
            let probing = this.0.probing.clone();
            tokio::select! {
                () = this.probe(application) => {}
                () = probing.cancelled() => {}
            }
        });
    }

    async fn probe(&self, application: Application) {
        let interval = Duration::from_millis(application.interval_ms);
        let mut tracker = Tracker::new(application.failures);
        let mut membership: Option<Membership> = None;
        loop {
            let found = look(&self.0.env, &application.probe, interval).await;
            membership = membership.filter(|membership| membership.ended().borrow().is_none());
            match tracker.observe(&found) {
                Verdict::Join if membership.is_none() => membership = self.join_probed(&application).await,
                Verdict::Join | Verdict::Keep => {}
                Verdict::LeaveNow => {
                    if membership.take().is_some() {
                        tracing::info!(group = %application.group, ?found, "the application is gone: its member leaves");
                    }
                }
                Verdict::LeaveLater => {
                    if let Some(membership) = membership.take() {
                        tracing::info!(group = %application.group, ?found, "the application is unwell: its member leaves");
                        membership.give_up_when_told_has_run_out().await;
                    }
                }
            }
            tokio::time::sleep(interval).await;
        }
    }

    async fn join_probed(&self, application: &Application) -> Option<Membership> {
        let partition_group = application.partition_group.as_ref().map(|name| name.as_str());
        let partition = match self.0.router.locate(partition_group, &(&application.group).into()) {
            Ok(partition) => partition,
            Err(rejection) => {
                tracing::debug!(group = %application.group, %rejection, "join for the probed application");
                return None;
            }
        };
        let join = Join {
            partition,
            group: application.group.clone(),
            metadata: application.metadata.clone(),
            zone: String::new(),
            kind: Kind::Probe,
            request: self.0.router.mint(),
            minted: true,
            deadline: Deadline::after_ms(&self.0.env, DEADLINE_MS_DEFAULT),
        };
        match self.join(join).await {
            Ok(membership) => Some(membership),
            Err(rejection) => {
                tracing::warn!(group = %application.group, %rejection, "join for the probed application");
                None
            }
        }
    }
}

/// One probe. It may take as long as the interval.
async fn look(env: &Env, probe: &Probe, limit: Duration) -> Found {
    let looked = async {
        match probe {
            Probe::Http { address, path } => {
                let stream = env.network.connect(&address.to_string()).await?;
                get(stream, &address.to_string(), path).await
            }
            Probe::Tcp(address) => env.network.connect(&address.to_string()).await.map(|_| Found::Healthy),
            Probe::Socket(path) => tokio::net::UnixStream::connect(path).await.map(|_| Found::Healthy),
        }
    };
    match tokio::time::timeout(limit, looked).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) if is_closed(&error) => Found::Closed(error.to_string()),
        Ok(Err(error)) => Found::Unwell(error.to_string()),
        Err(_) => Found::Unwell("no answer in time".to_owned()),
    }
}

/// Whether nothing listens there. A socket that was never made counts too.
fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
}

/// A plain GET; only the status counts.
async fn get(mut stream: Box<dyn Stream>, host: &str, path: &str) -> io::Result<Found> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: coterie-probe\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut line = Vec::new();
    let mut buffer = [0_u8; STATUS_LINE_BYTES_MAX];
    while !line.contains(&b'\n') && line.len() < STATUS_LINE_BYTES_MAX {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            break;
        }
        line.extend_from_slice(&buffer[..read]);
    }
    Ok(judge(&line))
}

/// Bytes that are read of a probe's answer: the status stands in the first few.
const STATUS_LINE_BYTES_MAX: usize = 256;

/// Judges an answer by its first line: 2xx and 3xx are healthy.
pub(super) fn judge(answer: &[u8]) -> Found {
    let text = String::from_utf8_lossy(answer);
    let line = text.lines().next().unwrap_or_default();
    let mut words = line.split(' ');
    let protocol = words.next().unwrap_or_default();
    let status: Option<u16> = words.next().and_then(|status| status.parse().ok());
    match status {
        Some(200..=399) if protocol.starts_with("HTTP/") => Found::Healthy,
        Some(_) | None => Found::Unwell(format!("answered `{line}`")),
    }
}
