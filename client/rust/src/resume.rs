//! A stream of changes that goes on across broken connections.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tonic::Streaming;

use crate::error::{Error, Retry};
use crate::types::SessionState;

/// Events that wait for a slow reader; beyond that the sidecar keeps them, and in the end says resync.
const QUEUE: usize = 64;
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Where changes come from.
pub(crate) trait Source: Send + 'static {
    /// As the sidecar sends them.
    type Wire: Send + 'static;
    /// As this crate gives them.
    type Event: Send + 'static;

    /// Asks for all changes after the event of this id; empty: from now.
    fn open(&self, after: String) -> impl Future<Output = Result<Streaming<Self::Wire>, Error>> + Send;
    /// Another stretch begins.
    fn begin(&mut self) {}
    /// Takes one change.
    fn read(&mut self, wire: Self::Wire) -> Result<Self::Event, Error>;
    /// What the stream that is read may say of its end.
    fn broken(&self, status: &tonic::Status) -> Error;
    /// What a change means for going on.
    fn meaning(event: &Self::Event) -> Meaning<'_>;
    /// How the connection is, as an event.
    fn connection(state: SessionState) -> Self::Event;
}

/// What an event means for going on.
pub(crate) enum Meaning<'a> {
    /// How fresh the rest is.
    Connection(SessionState),
    /// A change, after which a watch goes on if its id is not empty.
    Change(&'a str),
    /// The last one.
    End,
}

/// What is read of a source.
pub(crate) type Received<E> = mpsc::Receiver<Result<E, Error>>;

/// Reads a source, after the event of this id, until nobody listens, it is over, or it fails in a way that waiting cannot
/// cure. Must be called within a Tokio runtime.
pub(crate) fn start<S: Source + Sync>(source: S, after: String) -> (Received<S::Event>, AbortOnDropHandle<()>) {
    let (sender, events) = mpsc::channel(QUEUE);
    let pump = Pump { source, last: after, session: SessionState::Live, sender };
    (events, AbortOnDropHandle::new(tokio::spawn(pump.run())))
}

/// Why a stretch ended.
enum Ended {
    /// Nobody listens, or what was watched is gone.
    Done,
    /// The connection broke; it may be opened again.
    Broken,
}

struct Pump<S: Source> {
    source: S,
    last: String,
    session: SessionState,
    sender: mpsc::Sender<Result<S::Event, Error>>,
}

impl<S: Source> Pump<S> {
    async fn run(mut self) {
        let mut backoff = BACKOFF_MIN;
        loop {
            let before = self.last.clone();
            match self.stretch().await {
                Ok(Ended::Done) => return,
                Err(error) if error.retry() == Retry::Never => {
                    // A closed channel means that nobody wants to know.
                    let _ = self.sender.send(Err(error)).await;
                    return;
                }
                Ok(Ended::Broken) | Err(_) => {}
            }
            if self.last != before {
                backoff = BACKOFF_MIN;
            }
            if !self.connection(SessionState::Suspended).await {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(backoff) => backoff = (backoff * 2).min(BACKOFF_MAX),
                () = self.sender.closed() => return,
            }
        }
    }

    /// One connection: from opening it until it breaks.
    async fn stretch(&mut self) -> Result<Ended, Error> {
        let mut stream = self.source.open(self.last.clone()).await?;
        self.source.begin();
        loop {
            let event = tokio::select! {
                () = self.sender.closed() => return Ok(Ended::Done),
                event = stream.message() => match event {
                    Ok(Some(event)) => self.source.read(event)?,
                    Ok(None) => return Ok(Ended::Broken),
                    Err(status) => return Err(self.source.broken(&status)),
                },
            };
            if !self.deliver(event).await {
                return Ok(Ended::Done);
            }
        }
    }

    /// Hands one event over; false when the watch is over.
    async fn deliver(&mut self, event: S::Event) -> bool {
        let ends = match S::meaning(&event) {
            Meaning::Connection(state) => return self.connection(state).await,
            Meaning::Change(id) => {
                if !id.is_empty() {
                    id.clone_into(&mut self.last);
                }
                false
            }
            Meaning::End => true,
        };
        self.connection(SessionState::Live).await && self.sender.send(Ok(event)).await.is_ok() && !ends
    }

    /// Says how the connection is, if that is news; false when nobody listens.
    async fn connection(&mut self, state: SessionState) -> bool {
        if self.session == state {
            return true;
        }
        self.session = state;
        self.sender.send(Ok(S::connection(state))).await.is_ok()
    }
}
