//! As much HTTP/1.1 as the scenarios need: JSON requests on a kept connection, and streams of events.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;

/// An answer.
#[derive(Debug)]
pub(crate) struct Response {
    /// The status code.
    pub(crate) status: u16,
    /// The body; `null` when it is empty.
    pub(crate) body: Value,
}

impl Response {
    /// The body of a success.
    ///
    /// # Errors
    /// When the status is not 2xx: the status and the body.
    pub(crate) fn ok(self) -> Result<Value> {
        match self.status {
            200..=299 => Ok(self.body),
            status => bail!("HTTP {status}: {}", self.body),
        }
    }
}

/// One event of a stream.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// Its kind, for example `elected`.
    pub(crate) kind: String,
    /// Its data.
    pub(crate) data: Value,
}

/// A connection that is kept.
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Connects to a port of this machine. Every read and write may take `timeout` at most.
    ///
    /// # Errors
    /// When nothing listens.
    pub(crate) fn open(port: u16, timeout: Duration) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).with_context(|| format!("connect to port {port}"))?;
        stream.set_read_timeout(Some(timeout)).context("set the time-out")?;
        stream.set_write_timeout(Some(timeout)).context("set the time-out")?;
        stream.set_nodelay(true).context("set no delay")?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends one request and reads its answer.
    ///
    /// # Errors
    /// When the connection breaks or is silent too long, or when the answer is no HTTP.
    pub(crate) fn request(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<Response> {
        self.send(method, path, "application/json", body)?;
        let head = self.head()?;
        let mut bytes = Vec::new();
        match head.length {
            Some(length) => {
                bytes.resize(length, 0);
                self.stream.read_exact(&mut bytes).context("read the body")?;
            }
            None if head.chunked => {
                while let Some(chunk) = self.chunk()? {
                    bytes.extend(chunk)
                }
            }
            None => {}
        }
        let text = String::from_utf8_lossy(&bytes);
        let body = if text.trim().is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text).unwrap_or_else(|_| Value::String(text.into_owned()))
        };
        Ok(Response { status: head.status, body })
    }

    /// Asks for a stream of events.
    ///
    /// # Errors
    /// When the answer is no stream of events: the status and the beginning of the body.
    pub(crate) fn events(mut self, path: &str) -> Result<Events> {
        self.send("GET", path, "text/event-stream", None)?;
        let head = self.head()?;
        if head.status != 200 || !head.chunked {
            let length = head.length.unwrap_or(0).min(1000);
            let mut bytes = vec![0; length];
            self.stream.read_exact(&mut bytes).context("read the body")?;
            bail!("GET {path}: HTTP {}: {}", head.status, String::from_utf8_lossy(&bytes));
        }
        Ok(Events { connection: self, pending: String::new() })
    }

    fn send(&mut self, method: &str, path: &str, accept: &str, body: Option<&Value>) -> Result<()> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let length = body.len();
        let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
        let text = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n{kind}Content-Length: {length}\r\n\r\n{body}"
        );
        self.stream.get_mut().write_all(text.as_bytes()).with_context(|| format!("send {method} {path}"))
    }

    fn head(&mut self) -> Result<Head> {
        let first = self.line()?;
        let status = first
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .ok_or_else(|| anyhow!("no HTTP status: {first:?}"))?;
        let mut head = Head { status, length: None, chunked: false };
        loop {
            let line = self.line()?.to_ascii_lowercase();
            if line.is_empty() {
                return Ok(head);
            }
            match line.split_once(':').map(|(name, value)| (name, value.trim())) {
                Some(("content-length", value)) => head.length = Some(value.parse().context("read content-length")?),
                Some(("transfer-encoding", "chunked")) => head.chunked = true,
                _ => {}
            }
        }
    }

    /// The next chunk; none at the end of the body.
    fn chunk(&mut self) -> Result<Option<Vec<u8>>> {
        let line = self.line()?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).with_context(|| format!("read the size of a chunk: {line:?}"))?;
        let mut bytes = vec![0; size];
        self.stream.read_exact(&mut bytes).context("read a chunk")?;
        self.line()?;
        Ok((size > 0).then_some(bytes))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).context("read a line")? == 0 {
            bail!("the connection was closed");
        }
        line.truncate(line.trim_end_matches(['\r', '\n']).len());
        Ok(line)
    }
}

struct Head {
    status: u16,
    length: Option<usize>,
    chunked: bool,
}

/// A stream of events.
pub(crate) struct Events {
    connection: Connection,
    pending: String,
}

impl Events {
    /// The next event; comments are skipped.
    ///
    /// # Errors
    /// When the stream ends or is silent too long.
    pub(crate) fn next(&mut self) -> Result<Event> {
        loop {
            while let Some((block, rest)) = self.pending.split_once("\n\n").map(|(b, r)| (b.to_owned(), r.to_owned())) {
                self.pending = rest;
                if let Some(event) = parse(&block) {
                    return Ok(event);
                }
            }
            match self.connection.chunk()? {
                Some(bytes) => self.pending.push_str(&String::from_utf8_lossy(&bytes)),
                None => bail!("the stream of events ended"),
            }
        }
    }
}

/// One block of a stream of events; none when it has no data.
fn parse(block: &str) -> Option<Event> {
    let mut event = Event { kind: "message".to_owned(), data: Value::Null };
    let mut data = Vec::new();
    for line in block.lines() {
        match line.split_once(':').map(|(name, value)| (name, value.strip_prefix(' ').unwrap_or(value))) {
            Some(("event", value)) => value.clone_into(&mut event.kind),
            Some(("data", value)) => data.push(value),
            _ => {}
        }
    }
    if data.is_empty() {
        return None;
    }
    let text = data.join("\n");
    event.data = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Some(event)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::TcpListener;

    use super::*;

    #[test]
    fn block_of_a_stream_is_an_event_and_a_comment_is_none() {
        let event = parse("id: 7.0\nevent: elected\ndata: {\"term\":\"3\"}").unwrap();
        assert_eq!((event.kind.as_str(), event.data["term"].as_str()), ("elected", Some("3")));
        assert!(parse(": heartbeat").is_none());
    }

    #[test]
    fn chunked_stream_whose_events_are_torn_is_read_whole() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nevent\r\n17\r\n: joined\ndata: {}\n\n: hear\r\n6\r\ntbeat\n\r\n0\r\n\r\n";
            stream.write_all(text.as_bytes()).unwrap();
        });
        let mut events = Connection::open(port, Duration::from_secs(5)).unwrap().events("/").unwrap();
        assert_eq!(events.next().unwrap().kind, "joined");
        assert!(events.next().is_err());
        server.join().unwrap();
    }
}
