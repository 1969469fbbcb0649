//! One stream that carries many operations: what applications that need speed use.
//!
//! ```text
//!   OperationBatch ─► backlog ─► under way (at most a window of them) ─► whatever is done ─► ResultBatch
//!                                     ▲ watches, which do not count, stay here until they end
//! ```
//! All of a stream runs in the one task that writes its answers: nothing is spawned per operation. What is done while the
//! task runs goes out together; see `holding` for what waits for more, and for how long. The stream is read no further
//! while its window is full, or while nobody reads its answers.
//!
//! A cancelled operation is answered `ended`. Reads and writes are not cancelled: they are answered soon. When the stream
//! ends, its watches end, what waits for a lock leaves the queue, and the locks that it holds are released.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use coterie_core::{PrimitiveKind, Rejection, Revision};
use coterie_proto::v1::operation::Request;
use coterie_proto::v1::result::Response;
use coterie_proto::{shared, v1};
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, FuturesUnordered, ReadyChunks, Stream, StreamExt as _};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Status, Streaming};

use super::call::{Call, invalid};
use super::error;
use super::map_feed::Said;
use super::ops::{Caller, Home, Ops, When};
use crate::limits::{EVENTS_AT_ONCE, RESULTS_BYTES, STREAM_HOMES_MAX, STREAM_WINDOW, STREAM_WINDOW_BYTES};
use crate::locks::Hold;

mod holding;
mod together;

use holding::Holding;
use together::{Done, Ticket, Together};

/// What a watch tells, as much at once as there is.
type Events = ReadyChunks<BoxStream<'static, Said>>;

/// What an operation that is under way has come to.
enum Step {
    /// It is done. `bytes` is what it counted in the window.
    Done { id: u64, response: Response, bytes: usize },
    /// Several are done.
    Together(Vec<Done>),
    /// It is done, and the stream holds a lock.
    Held { id: u64, hold: Hold },
    /// It is done; a lock that the stream may hold was released.
    Released { id: u64, response: Response },
    /// A watch goes on. Nothing was said yet when it begins.
    Watching { said: Option<Vec<Said>>, watching: Watching },
    /// A watch that had begun is over.
    Ended { id: u64 },
}

/// A watch of a stream.
struct Watching {
    id: u64,
    events: Events,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// Where a map or a lock lives, as it was asked for.
struct Known {
    kind: PrimitiveKind,
    name: String,
    partition_group: String,
    home: Arc<Home>,
}

/// Places that were looked up, as long as the directory stays the same.
#[derive(Default)]
struct Homes {
    known: VecDeque<Known>,
    of: Revision,
}

impl Homes {
    fn find(&mut self, ops: &Ops, kind: PrimitiveKind, name: &str, group: &str) -> Result<Arc<Home>, Rejection> {
        let asked = |known: &&Known| known.kind == kind && known.name == name && known.partition_group == group;
        if let Some(known) = self.known.iter().find(asked) {
            return Ok(Arc::clone(&known.home));
        }
        let home = Arc::new(ops.home(kind, name, group)?);
        if home.is_settled() {
            self.known.truncate(STREAM_HOMES_MAX - 1);
            let (name, partition_group) = (name.to_owned(), group.to_owned());
            self.known.push_front(Known { kind, name, partition_group, home: Arc::clone(&home) });
        }
        Ok(home)
    }

    /// Forgets what may have changed.
    fn refresh(&mut self, ops: &Ops) {
        let now = ops.node().directory().view().map_or(Revision(0), |view| view.revision);
        if now != self.of {
            self.known.clear();
            self.of = now;
        }
    }
}

/// A stream that is served: its answers.
pub struct Serving {
    ops: Ops,
    incoming: Option<Streaming<v1::OperationBatch>>,
    backlog: VecDeque<v1::Operation>,
    /// What has come in and has not left.
    together: Together,
    running: FuturesUnordered<BoxFuture<'static, Step>>,
    /// Operations that count in the window, and the bytes of their values.
    window: usize,
    window_bytes: usize,
    /// What can be cancelled.
    cancels: BTreeMap<u64, CancellationToken>,
    holds: Vec<Hold>,
    homes: Homes,
    /// With about how many bytes each takes.
    ready: VecDeque<(shared::Result, usize)>,
    ready_bytes: usize,
    hold: Holding,
    stopped: BoxFuture<'static, ()>,
    /// The process stops, or what came in cannot be read.
    over: Option<Result<(), Status>>,
}

impl Serving {
    /// Serves what comes in.
    pub fn new(ops: Ops, incoming: Streaming<v1::OperationBatch>) -> Self {
        let stopped = Box::pin(ops.node().stopping().cancelled_owned());
        Self {
            ops,
            incoming: Some(incoming),
            backlog: VecDeque::new(),
            together: Together::default(),
            running: FuturesUnordered::new(),
            window: 0,
            window_bytes: 0,
            cancels: BTreeMap::new(),
            holds: Vec::new(),
            homes: Homes::default(),
            ready: VecDeque::new(),
            ready_bytes: 0,
            hold: Holding::default(),
            stopped,
            over: None,
        }
    }

    fn has_room(&self) -> bool {
        self.window < STREAM_WINDOW && self.window_bytes < STREAM_WINDOW_BYTES
    }

    /// Starts what has come in, and reads on, as long as there is room.
    fn take_in(&mut self, cx: &mut Context<'_>) -> Result<(), Status> {
        while self.has_room() {
            if let Some(operation) = self.backlog.pop_front() {
                self.start(operation);
                continue;
            }
            let Some(incoming) = &mut self.incoming else { return Ok(()) };
            match incoming.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(batch))) => {
                    self.homes.refresh(&self.ops);
                    self.backlog.extend(batch.operations);
                }
                Poll::Ready(Some(Err(status))) => return Err(status),
                Poll::Ready(None) => self.incoming = None,
                Poll::Pending => return Ok(()),
            }
        }
        Ok(())
    }

    fn start(&mut self, operation: v1::Operation) {
        let id = operation.id;
        let bytes = match &operation.request {
            Some(Request::Put(put)) => put.value.len(),
            _ => 0,
        };
        self.window += 1;
        self.window_bytes += bytes;
        if let Err(rejection) = self.try_start(operation, bytes) {
            self.ops.count::<()>("stream", &Err(rejection.clone()));
            self.answer(id, failure(&rejection), bytes);
        }
    }

    fn try_start(&mut self, operation: v1::Operation, bytes: usize) -> Result<(), Rejection> {
        let v1::Operation { id, timeout_ms, client_id, request_id, request } = operation;
        let request = request.ok_or_else(|| invalid("request", "is missing, or not known to this version"))?;
        if let Request::Cancel(v1::Cancel {}) = request {
            if let Some(cancel) = self.cancels.get(&id) {
                cancel.cancel();
            }
            self.window -= 1;
            return Ok(());
        }
        let when = if matches!(request, Request::Acquire(_)) { When::Joining } else { When::Serving };
        self.ops.check_state(when)?;
        let passage = self.ops.pass(bytes)?;
        let call = Call::from_fields(&client_id, &request_id, timeout_ms)?;
        let ops = self.ops.clone();
        let of = match &request {
            Request::Put(v1::PutRequest { map, partition_group, .. })
            | Request::Get(v1::GetEntryRequest { map, partition_group, .. })
            | Request::Delete(v1::DeleteEntryRequest { map, partition_group, .. }) => Some((map, partition_group)),
            _ => None,
        };
        let home = match of {
            Some((map, partition_group)) => Some(self.homes.find(&ops, PrimitiveKind::Map, map, partition_group)?),
            None => None,
        };
        let request = match (home, request) {
            (Some(home), Request::Put(asked)) if home.is_settled() => {
                return self.together.put(&home, Ticket { id, bytes, call, _passage: passage }, asked);
            }
            (Some(home), Request::Get(asked)) => {
                return self.together.get(&home, Ticket { id, bytes, call, _passage: passage }, asked);
            }
            (Some(home), Request::Delete(asked)) => {
                return self.together.delete(&home, Ticket { id, bytes, call, _passage: passage }, asked);
            }
            (_, request) => request,
        };
        let caller = self.ops.caller_now(call);
        match request {
            // The first of a map; it has to be recorded.
            Request::Put(asked) => {
                let home = self.homes.find(&ops, PrimitiveKind::Map, &asked.map, &asked.partition_group)?;
                self.run(id, bytes, "put_entry", Response::Put, async move {
                    let _passage = passage;
                    (ops.put_now(&caller, &home, asked).await, ops)
                });
            }
            Request::Get(_) | Request::Delete(_) => unreachable!("they go together"),
            Request::List(asked) => {
                let home = self.homes.find(&ops, PrimitiveKind::Map, &asked.map, &asked.partition_group)?;
                self.run(id, bytes, "list_entries", Response::List, async move {
                    let _passage = passage;
                    (ops.list_now(&caller, &home, asked).await, ops)
                });
            }
            Request::GetLock(asked) => {
                let home = self.homes.find(&ops, PrimitiveKind::Lock, &asked.lock, &asked.partition_group)?;
                self.run(id, bytes, "get_lock", Response::GetLock, async move {
                    let _passage = passage;
                    (ops.get_lock_now(&caller, &home, &asked).await, ops)
                });
            }
            Request::GetGroup(asked) => self.run(id, bytes, "get", Response::GetGroup, async move {
                let _passage = passage;
                (ops.get_group_now(&caller, &asked).await, ops)
            }),
            Request::RenewLock(asked) => {
                let home = self.homes.find(&ops, PrimitiveKind::Lock, &asked.lock, &asked.partition_group)?;
                let renewed = ops.renew_now(&home, &asked);
                ops.count("renew_lock", &renewed);
                self.answer(id, response(renewed, Response::RenewLock), bytes);
            }
            Request::ReleaseLock(asked) => {
                let home = self.homes.find(&ops, PrimitiveKind::Lock, &asked.lock, &asked.partition_group)?;
                self.running.push(Box::pin(async move {
                    let _passage = passage;
                    let released = ops.release_now(&caller, &home, &asked).await;
                    ops.count("release_lock", &released);
                    Step::Released { id, response: response(released, Response::ReleaseLock) }
                }));
            }
            Request::Acquire(asked) => {
                let home = self.homes.find(&ops, PrimitiveKind::Lock, &asked.lock, &asked.partition_group)?;
                let cancel = self.cancellable(id)?;
                self.running.push(Box::pin(async move {
                    let _passage = passage;
                    tokio::select! {
                        step = acquire(ops, caller, home, id, asked) => step,
                        () = cancel.cancelled_owned() => {
                            Step::Done { id, response: Response::Ended(v1::Ended {}), bytes }
                        }
                    }
                }));
            }
            Request::Watch(asked) => {
                let home = self.homes.find(&ops, PrimitiveKind::Map, &asked.map, &asked.partition_group)?;
                let permit = ops.watch_permit()?;
                let cancel = self.cancellable(id)?;
                self.running.push(Box::pin(async move {
                    let _passage = passage;
                    let mut cancelled = Box::pin(cancel.cancelled_owned());
                    let opened = tokio::select! {
                        opened = ops.watch_now(&caller, &home, asked, permit) => opened,
                        () = &mut cancelled => {
                            return Step::Done { id, response: Response::Ended(v1::Ended {}), bytes };
                        }
                    };
                    ops.count("watch_map", &opened);
                    match opened {
                        Ok(events) => {
                            let events = events.ready_chunks(EVENTS_AT_ONCE);
                            Step::Watching { said: None, watching: Watching { id, events, cancelled } }
                        }
                        Err(rejection) => Step::Done { id, response: failure(&rejection), bytes },
                    }
                }));
            }
            Request::Cancel(_) => unreachable!("handled before"),
        }
        Ok(())
    }

    /// Runs an operation that is answered once.
    fn run<T: 'static>(
        &mut self,
        id: u64,
        bytes: usize,
        name: &'static str,
        of: fn(T) -> Response,
        serve: impl Future<Output = (Result<T, Rejection>, Ops)> + Send + 'static,
    ) {
        self.running.push(Box::pin(async move {
            let (result, ops) = serve.await;
            ops.count(name, &result);
            Step::Done { id, response: response(result, of), bytes }
        }));
    }

    fn cancellable(&mut self, id: u64) -> Result<CancellationToken, Rejection> {
        if self.cancels.contains_key(&id) {
            return Err(invalid("id", format_args!("{id} is that of an operation which is open; choose another")));
        }
        let cancel = CancellationToken::new();
        self.cancels.insert(id, cancel.clone());
        Ok(cancel)
    }

    fn take_step(&mut self, step: Step) {
        match step {
            Step::Done { id, response, bytes } => self.done(id, response, bytes),
            Step::Together(done) => {
                self.hold.come(done.len());
                for Done { id, response, bytes } in done {
                    self.answer(id, response, bytes);
                }
            }
            Step::Held { id, hold } => {
                let (token, revision) = (hold.token().0, hold.revision().0);
                let ttl_ms = self.ops.node().locks().vouched_ms(&hold);
                self.holds.push(hold);
                self.done(id, Response::Acquire(v1::AcquireResponse { token, ttl_ms, revision }), 0);
            }
            Step::Released { id, response } => {
                self.holds.retain(Hold::lasts);
                self.done(id, response, 0);
            }
            Step::Watching { said, watching } => {
                let id = watching.id;
                match said {
                    Some(said) => said.into_iter().for_each(|said| {
                        let event = said.encoded();
                        let bytes = FRAME + event.len();
                        self.make_ready(shared::Result::Event { id, event }, bytes);
                    }),
                    // It has begun: from now on it does not count.
                    None => self.window -= 1,
                }
                self.running.push(Box::pin(next_event(watching)));
            }
            Step::Ended { id } => {
                self.cancels.remove(&id);
                self.say(id, Response::Ended(v1::Ended {}));
            }
        }
    }

    /// What was started is done.
    fn done(&mut self, id: u64, response: Response, bytes: usize) {
        if !self.cancels.is_empty() {
            self.cancels.remove(&id);
        }
        self.answer(id, response, bytes);
    }

    fn answer(&mut self, id: u64, response: Response, bytes: usize) {
        self.window -= 1;
        self.window_bytes -= bytes;
        self.say(id, response);
    }

    fn say(&mut self, id: u64, response: Response) {
        let bytes = weight(&response);
        self.make_ready(shared::Result::Plain(v1::Result { id, response: Some(response) }), bytes);
    }

    fn make_ready(&mut self, result: shared::Result, bytes: usize) {
        self.ready_bytes += bytes;
        self.ready.push_back((result, bytes));
    }

    /// What is ready, if anything is, and fits a message.
    fn batch(&mut self) -> Option<shared::ResultBatch> {
        let (mut results, mut taken) = (Vec::with_capacity(self.ready.len()), 0);
        while taken < RESULTS_BYTES
            && let Some((result, bytes)) = self.ready.pop_front()
        {
            taken += bytes;
            results.push(result);
        }
        self.ready_bytes -= taken;
        (!results.is_empty()).then_some(shared::ResultBatch { results })
    }
}

impl Stream for Serving {
    type Item = Result<shared::ResultBatch, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if this.over.is_none() {
                this.over = match this.stopped.as_mut().poll(cx) {
                    Poll::Ready(()) => Some(Ok(())),
                    Poll::Pending => this.take_in(cx).err().map(Err),
                };
            }
            if let Some(over) = this.over.clone() {
                // What was done is said before.
                let last = this.batch().map(Ok);
                return Poll::Ready(last.or_else(|| over.err().map(Err)));
            }
            this.hold.leave(this.together.len());
            this.running.extend(this.together.leave(&this.ops));
            let mut progress = false;
            while this.ready_bytes < RESULTS_BYTES {
                match this.running.poll_next_unpin(cx) {
                    Poll::Ready(Some(step)) => {
                        progress = true;
                        this.take_step(step);
                    }
                    Poll::Ready(None) | Poll::Pending => break,
                }
            }
            // Room that was made lets more come in, and what is done at once goes out with the rest.
            if progress && this.ready_bytes < RESULTS_BYTES && (this.ready.is_empty() || !this.backlog.is_empty()) {
                continue;
            }
            if this.ready_bytes < RESULTS_BYTES && this.hold.waits(cx, this.ready.len()) {
                if progress {
                    continue;
                }
                return Poll::Pending;
            }
            if let Some(batch) = this.batch() {
                this.hold.sent();
                return Poll::Ready(Some(Ok(batch)));
            }
            let over = this.incoming.is_none() && this.backlog.is_empty() && this.running.is_empty();
            debug_assert!(this.ready.is_empty(), "what is ready has gone out");
            return if over { Poll::Ready(None) } else { Poll::Pending };
        }
    }
}

/// Acquires a lock, which the stream holds unless the request names a lease.
async fn acquire(ops: Ops, caller: Caller, home: Arc<Home>, id: u64, asked: v1::AcquireRequest) -> Step {
    if asked.ttl_ms > 0 {
        let acquired = ops.lease_now(&caller, &home, asked).await;
        ops.count("acquire", &acquired);
        return Step::Done { id, response: response(acquired, Response::Acquire), bytes: 0 };
    }
    let acquired = ops.acquire_now(&caller, &home, asked.wait_ms).await;
    ops.count("acquire", &acquired);
    match acquired {
        Ok(hold) => Step::Held { id, hold },
        Err(rejection) => Step::Done { id, response: failure(&rejection), bytes: 0 },
    }
}

async fn next_event(mut watching: Watching) -> Step {
    let said = tokio::select! {
        said = watching.events.next() => said,
        () = &mut watching.cancelled => None,
    };
    match said {
        Some(said) => Step::Watching { said: Some(said), watching },
        None => Step::Ended { id: watching.id },
    }
}

fn response<T>(result: Result<T, Rejection>, of: impl FnOnce(T) -> Response) -> Response {
    match result {
        Ok(answer) => of(answer),
        Err(rejection) => failure(&rejection),
    }
}

fn failure(rejection: &Rejection) -> Response {
    let (code, retry) = (rejection.code.label().to_owned(), error::advice(rejection.code).to_owned());
    Response::Failure(v1::Failure { code, message: rejection.message.clone(), retry })
}

/// What an answer takes on the wire beside its content, about.
const FRAME: usize = 64;

/// About how many bytes an answer takes on the wire. Events are encoded, and know it.
fn weight(response: &Response) -> usize {
    let entry = |entry: &v1::Entry| entry.key.len() + entry.value.len() + FRAME;
    let entries = |entries: &[v1::Entry]| entries.iter().map(entry).sum::<usize>();
    FRAME
        + match response {
            Response::Get(get) => get.entry.as_ref().map_or(0, entry),
            Response::List(list) => entries(&list.entries),
            // As large as a group may be, which is below the limit of a batch for all but the largest.
            Response::GetGroup(group) => RESULTS_BYTES.min(group.members.len() * 1_024),
            Response::Failure(failure) => failure.message.len(),
            Response::Put(_)
            | Response::Delete(_)
            | Response::Acquire(_)
            | Response::RenewLock(_)
            | Response::ReleaseLock(_)
            | Response::GetLock(_)
            | Response::Event(_)
            | Response::Ended(_) => 0,
        }
}
