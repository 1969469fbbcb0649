//! Two GETs over HTTP/1.1, by hand: all that a probe and a test need.

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A request line longer than this is not one of ours.
const LINE_BYTES_MAX: u64 = 1024;
const PATIENCE: Duration = Duration::from_secs(2);

/// What `GET /leader` shows.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    leads: AtomicBool,
    term: AtomicU64,
}

impl Shown {
    pub(crate) fn set(&self, leads: bool, term: u64) {
        self.term.store(term, Ordering::Release);
        self.leads.store(leads, Ordering::Release);
    }

    fn json(&self) -> String {
        let (leads, term) = (self.leads.load(Ordering::Acquire), self.term.load(Ordering::Acquire));
        format!(r#"{{"leads":{leads},"term":"{term}"}}"#)
    }
}

/// Serves until the process ends.
pub(crate) async fn serve(port: u16, shown: Arc<Shown>) -> anyhow::Result<()> {
    let listener = match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => listener,
        // A machine without IPv6.
        Err(_) => TcpListener::bind(("0.0.0.0", port)).await.with_context(|| format!("listen on port {port}"))?,
    };
    tokio::spawn(async move {
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                // Whoever asks and goes away without waiting does not matter.
                tokio::spawn(tokio::time::timeout(PATIENCE, answer(stream, shown.clone())));
            }
        }
    });
    Ok(())
}

async fn answer(stream: TcpStream, shown: Arc<Shown>) -> std::io::Result<()> {
    let mut reader = BufReader::new(tokio::io::AsyncReadExt::take(stream, LINE_BYTES_MAX));
    let mut line = String::new();
    reader.read_line(&mut line).await?;
    let (status, body) = match line.split(' ').nth(1) {
        Some("/healthz") => ("200 OK", "{}".to_owned()),
        Some("/leader") => ("200 OK", shown.json()),
        _ => ("404 Not Found", r#"{"paths":["/healthz","/leader"]}"#.to_owned()),
    };
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n", body.len());
    let mut stream = reader.into_inner().into_inner();
    stream.write_all(format!("{head}connection: close\r\n\r\n{body}").as_bytes()).await?;
    stream.shutdown().await
}
