//! One connection to a Coterie member, and the streams of operations on it.
//!
//! [`Stream::drive`] is a closed loop without a task per slot: what arrives together is answered together. Everything else
//! goes through [`Stream::call`], which sends whatever is queued in one batch.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use async_trait::async_trait;
use coterie_proto::v1::operation::Request;
use coterie_proto::v1::operations_client::OperationsClient;
use coterie_proto::v1::result::Response;
use coterie_proto::v1::{
    AcquireRequest, Consistency, GetEntryRequest, MapEvent, Operation, OperationBatch, PutRequest, ReleaseLockRequest,
    ResultBatch, WatchMapRequest, map_event,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::fanout::Fanout;
use crate::load::{Chance, KEYS, Part, Samples, TIMEOUT, Work};
use crate::system::{Connection, LANES};

/// The map of the watched keys.
const WATCHED: &str = "watched";
/// Messages that wait for the connection; more would only wait longer.
const MESSAGES: usize = 4;
/// Operations in one message at most.
const BATCH: usize = 1024;
const RETRY: Duration = Duration::from_millis(5);

pub(super) struct Stream {
    channel: Channel,
    open: Arc<Mutex<HashMap<u64, Waiting>>>,
    next: AtomicU64,
    send: mpsc::UnboundedSender<Operation>,
    tasks: [JoinHandle<()>; 2],
}

enum Waiting {
    Answer(oneshot::Sender<Result<(), String>>),
    /// A watcher, and who waits until it watches.
    Events(Arc<Fanout>, Option<oneshot::Sender<Result<(), String>>>),
}

type Open = Mutex<HashMap<u64, Waiting>>;

impl Stream {
    pub(super) async fn open(channel: Channel) -> Result<Self> {
        let (batches, mut answers) = stream(&channel).await?;
        let (send, mut queue) = mpsc::unbounded_channel();
        let open: Arc<Open> = Arc::default();
        let answered = open.clone();
        let sender = tokio::spawn(async move {
            let mut operations = Vec::new();
            while queue.recv_many(&mut operations, BATCH).await > 0 {
                if batches.send(OperationBatch { operations: std::mem::take(&mut operations) }).await.is_err() {
                    return;
                }
            }
        });
        let receiver = tokio::spawn(async move {
            while let Ok(Some(batch)) = answers.message().await {
                for result in batch.results {
                    answer(&answered, result.id, result.response);
                }
            }
            // Whoever waits is told by the drop of what it waits for.
            locked(&answered).clear();
        });
        Ok(Self { channel, open, next: AtomicU64::new(1), send, tasks: [sender, receiver] })
    }

    async fn call(&self, request: Request, timeout: Duration) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        self.send(request, timeout, Waiting::Answer(answer));
        match tokio::time::timeout(timeout, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err("the stream ended".to_owned()),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }

    fn send(&self, request: Request, timeout: Duration, waiting: Waiting) {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        locked(&self.open).insert(id, waiting);
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let operation = Operation { id, timeout_ms, request: Some(request), ..Operation::default() };
        if self.send.send(operation).is_err() {
            locked(&self.open).remove(&id);
        }
    }
}

fn answer(open: &Open, id: u64, response: Option<Response>) {
    let mut open = locked(open);
    let said = match &response {
        Some(Response::Failure(failure)) => Err(format!("{}: {}", failure.code, failure.message)),
        Some(Response::Ended(_)) => Err("the watch ended".to_owned()),
        Some(_) => Ok(()),
        None => Err("an answer without content".to_owned()),
    };
    if let Some(Response::Event(event)) = response {
        let Some(Waiting::Events(fanout, waiting)) = open.get_mut(&id) else { return };
        let complete = see(fanout, event);
        if let Some(waiting) = waiting.take_if(|_| complete) {
            // Nobody waits any more: nothing to say.
            let _ = waiting.send(said);
        }
        return;
    }
    match open.remove(&id) {
        Some(Waiting::Answer(waiting) | Waiting::Events(_, Some(waiting))) => _ = waiting.send(said),
        Some(Waiting::Events(_, None)) | None => {}
    }
}

/// Counts a put. Whether what was there before is told completely: then what comes is new.
fn see(fanout: &Fanout, event: MapEvent) -> bool {
    match event.kind {
        Some(map_event::Kind::Put(entry)) => fanout.told(&entry.value),
        // Not counted: after a resync the events before it have been skipped.
        Some(map_event::Kind::Snapshot(entries) | map_event::Kind::Resync(entries)) => return entries.last,
        Some(map_event::Kind::Deleted(_) | map_event::Kind::Dropped(_) | map_event::Kind::Connection(_)) | None => {}
    }
    false
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

#[async_trait]
impl Connection for Stream {
    async fn drive(&self, part: Part) -> Result<Samples> {
        Loop::run(&self.channel, part).await
    }

    async fn write_lane(&self, lane: usize, timeout: Duration) -> Result<(), String> {
        self.call(put(map(lane), "lane".to_owned(), Fanout::value(lane, 0)), timeout).await
    }

    async fn write_watched(&self, _: &Fanout, slot: usize, round: u64) -> Result<(), String> {
        self.call(put(WATCHED.to_owned(), slot.to_string(), Fanout::value(slot, round)), TIMEOUT).await
    }

    async fn watch(&self, watchers: usize, fanout: Arc<Fanout>) -> Result<()> {
        for _ in 0..watchers {
            let (begun, begins) = oneshot::channel();
            let watch = WatchMapRequest { map: WATCHED.to_owned(), ..WatchMapRequest::default() };
            self.send(Request::Watch(watch), TIMEOUT, Waiting::Events(fanout.clone(), Some(begun)));
            let begins = tokio::time::timeout(TIMEOUT, begins).await.context("no watch began in time")?;
            begins.context("the stream ended")?.map_err(|why| anyhow!("a watch was refused: {why}"))?;
        }
        Ok(())
    }
}

async fn stream(channel: &Channel) -> Result<(mpsc::Sender<OperationBatch>, Streaming<ResultBatch>)> {
    let (send, receive) = mpsc::channel(MESSAGES);
    let mut client = OperationsClient::new(channel.clone());
    let answers = client.stream(ReceiverStream::new(receive)).await.context("open a stream of operations")?;
    Ok((send, answers.into_inner()))
}

/// A closed loop over all slots of one part.
struct Loop {
    part: Part,
    slots: Vec<Slot>,
    samples: Samples,
}

struct Slot {
    chance: Chance,
    begun: Instant,
    /// Of the lock that it holds.
    token: Option<u64>,
}

impl Loop {
    async fn run(channel: &Channel, part: Part) -> Result<Samples> {
        let (send, mut answers) = stream(channel).await?;
        let now = Instant::now();
        let slot = |slot| Slot { chance: part.chance(slot), begun: now, token: None };
        let slots: Vec<Slot> = part.slots.clone().map(slot).collect();
        let mut this = Self { part, slots, samples: Samples::default() };
        let mut operations: Vec<Operation> = (0..this.slots.len()).map(|slot| this.next(slot)).collect();
        let mut open = operations.len();
        while open > 0 {
            if !operations.is_empty() {
                send.send(OperationBatch { operations }).await.context("the stream of operations ended")?;
            }
            let Ok(message) = tokio::time::timeout(TIMEOUT, answers.message()).await else {
                (0..open).for_each(|_| this.samples.fail("no answer in time"));
                break;
            };
            let batch = message.context("read the stream of operations")?.context("the stream of operations ended")?;
            let failed = this.samples.failed;
            open -= batch.results.len();
            operations =
                batch.results.into_iter().filter_map(|result| this.answered(result.id, result.response)).collect();
            open += operations.len();
            if this.samples.failed > failed {
                // plays a client that does not retry at once
                tokio::time::sleep(RETRY).await;
            }
        }
        Ok(this.samples)
    }

    /// What a slot does next, if the window is not over.
    fn answered(&mut self, id: u64, response: Option<Response>) -> Option<Operation> {
        let now = Instant::now();
        let slot = usize::try_from(id).ok().filter(|slot| *slot < self.slots.len())?;
        match (self.part.work, response) {
            (Work::Write, Some(Response::Put(_))) | (Work::Read | Work::LeasedRead, Some(Response::Get(_))) => {
                self.samples.done(&self.part.window, self.slots[slot].begun, now);
            }
            (Work::Lock, Some(Response::Acquire(acquired))) => self.slots[slot].token = Some(acquired.token),
            (Work::Lock, Some(Response::ReleaseLock(_))) => {
                self.slots[slot].token = None;
                self.samples.done(&self.part.window, self.slots[slot].begun, now);
            }
            (_, Some(Response::Failure(failure))) => {
                self.slots[slot].token = None;
                self.samples.fail(format!("{}: {}", failure.code, failure.message));
            }
            (_, other) => self.samples.fail(format!("an answer to another question: {other:?}")),
        }
        // A lock that is held is given back even so.
        let goes_on = self.slots[slot].token.is_some() || !self.part.window.is_over(now);
        goes_on.then(|| self.next(slot))
    }

    fn next(&mut self, index: usize) -> Operation {
        let number = self.part.slots.start + index;
        let slot = &mut self.slots[index];
        if slot.token.is_none() {
            slot.begun = Instant::now();
        }
        let request = match (self.part.work, slot.token) {
            (Work::Write, _) => {
                let (map, key) = key(&mut slot.chance);
                put(map, key, self.part.values.choose(&mut slot.chance))
            }
            (Work::Read, _) => get(&mut slot.chance, Consistency::Linearizable),
            (Work::LeasedRead, _) => get(&mut slot.chance, Consistency::Leased),
            (Work::Lock, None) => {
                Request::Acquire(AcquireRequest { lock: format!("lock-{number}"), ..AcquireRequest::default() })
            }
            (Work::Lock, Some(token)) => Request::ReleaseLock(ReleaseLockRequest {
                lock: format!("lock-{number}"),
                token,
                ..ReleaseLockRequest::default()
            }),
        };
        Operation { id: index as u64, request: Some(request), ..Operation::default() }
    }
}

/// A key of the load. The maps, and so the keys, lie in all partitions.
fn key(chance: &mut Chance) -> (String, String) {
    let number = chance.below(KEYS);
    (map(number as usize), format!("key-{number:05}"))
}

fn map(lane: usize) -> String {
    format!("map-{}", lane % LANES)
}

fn put(map: String, key: String, value: bytes::Bytes) -> Request {
    Request::Put(PutRequest { map, key, value, ..PutRequest::default() })
}

fn get(chance: &mut Chance, consistency: Consistency) -> Request {
    let (map, key) = key(chance);
    Request::Get(GetEntryRequest { map, key, consistency: consistency.into(), ..GetEntryRequest::default() })
}

fn locked(open: &Open) -> MutexGuard<'_, HashMap<u64, Waiting>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}
