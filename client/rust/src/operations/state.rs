//! What is queued and what is open, and the stream that sends it.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use coterie_proto::v1;
use coterie_proto::v1::operation::Request;
use coterie_proto::v1::result::Response;
use futures_util::Stream;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use super::Permit;
use crate::error::Error;

/// Operations of one batch.
const BATCH_MAX: usize = 1_024;
/// Bytes after which a batch takes no more: with one more value it stays well below what a sidecar reads (4 MiB).
const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// The stream broke; why.
#[derive(Clone, Debug)]
pub(super) struct Gone(pub(super) String);

/// Who waits for an answer: it, and the generation of the stream that brought it.
pub(super) type Answer = oneshot::Receiver<Result<(Response, u64), Gone>>;

/// What callers, the driver and the stream share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    generation: watch::Sender<u64>,
    /// Something is queued.
    queued: Notify,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// In the order of asking. Bounded by the permits of what is open, and one cancellation for each.
    queue: BTreeMap<u64, Queued>,
    open: BTreeMap<u64, Open>,
    /// Of the stream that sends.
    waker: Option<Waker>,
    /// Why there is no stream.
    unreachable: Option<Error>,
}

#[derive(Debug)]
struct Queued {
    operation: v1::Operation,
    answer_by: Instant,
}

#[derive(Debug)]
struct Open {
    answer: oneshot::Sender<Result<(Response, u64), Gone>>,
    sent: bool,
    _permit: Permit,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), generation: watch::Sender::new(1), queued: Notify::new() }
    }

    pub(super) fn generation(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Queues an operation: its id and its answer.
    pub(super) fn push(&self, operation: v1::Operation, answer_by: Instant, permit: Permit) -> (u64, Answer) {
        let (sender, answer) = oneshot::channel();
        let mut state = self.lock();
        let id = state.enqueue(None, operation, answer_by);
        state.open.insert(id, Open { answer: sender, sent: false, _permit: permit });
        self.wake(state);
        (id, answer)
    }

    /// Whether an operation was handed to a stream.
    pub(super) fn is_sent(&self, id: u64) -> bool {
        self.lock().open.get(&id).is_none_or(|open| open.sent)
    }

    /// Nobody waits for this answer any more. Takes the operation back if it was not sent; else, if `cancel`, cancels it.
    /// Whether it was sent.
    pub(super) fn abandon(&self, id: u64, cancel: bool) -> bool {
        let mut state = self.lock();
        match state.open.get(&id) {
            Some(open) if !open.sent => {
                state.open.remove(&id);
                state.queue.remove(&id);
                return false;
            }
            Some(_) if cancel => {
                let request = Some(Request::Cancel(v1::Cancel {}));
                let operation = v1::Operation { request, ..v1::Operation::default() };
                state.enqueue(Some(id), operation, Instant::now());
                self.wake(state);
            }
            Some(_) | None => {}
        }
        true
    }

    /// Why there is no stream; `None` if there is one.
    pub(super) fn unreachable(&self) -> Option<Error> {
        self.lock().unreachable.clone()
    }

    /// Waits until something is queued.
    pub(super) async fn wanted(&self) {
        while self.lock().queue.is_empty() {
            self.queued.notified().await;
        }
    }

    /// What a new stream sends.
    pub(super) fn outgoing(self: &Arc<Self>) -> Outgoing {
        Outgoing { shared: self.clone(), generation: *self.generation.borrow() }
    }

    /// The present stream is open.
    pub(super) fn opened(&self) {
        self.lock().unreachable = None;
    }

    /// The present stream brought these.
    pub(super) fn answered(&self, results: Vec<v1::Result>) {
        let generation = *self.generation.borrow();
        let mut state = self.lock();
        for v1::Result { id, response } in results {
            let Some(response) = response else { continue };
            if let Some(open) = state.open.remove(&id) {
                // Whoever waited may have gone.
                let _ = open.answer.send(Ok((response, generation)));
            }
        }
    }

    /// The present stream is no more: what it held is about to be given back.
    pub(super) fn broke(&self, why: &str, unreachable: Option<Error>) {
        // First of all, so that nobody relies on it any more when this side closes the stream.
        self.generation.send_modify(|generation| *generation += 1);
        let mut state = self.lock();
        state.unreachable = unreachable;
        // What was cancelled is over.
        state.queue.retain(|_, queued| !matches!(queued.operation.request, Some(Request::Cancel(_))));
        let sent: Vec<u64> = state.open.iter().filter(|(_, open)| open.sent).map(|(id, _)| *id).collect();
        for id in sent {
            if let Some(open) = state.open.remove(&id) {
                let _ = open.answer.send(Err(Gone(why.to_owned())));
            }
        }
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let waker = state.waker.take();
        drop(state);
        self.queued.notify_one();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while the lock is held")
    }
}

impl State {
    /// Puts an operation last, under its place in the queue, or about the operation `of`.
    fn enqueue(&mut self, of: Option<u64>, mut operation: v1::Operation, answer_by: Instant) -> u64 {
        self.next += 1;
        let place = self.next;
        operation.id = of.unwrap_or(place);
        self.queue.insert(place, Queued { operation, answer_by });
        place
    }

    /// All that is queued, or as much as one batch takes.
    fn take_batch(&mut self) -> Vec<v1::Operation> {
        let (mut operations, mut bytes) = (Vec::new(), 0);
        let now = Instant::now();
        while operations.len() < BATCH_MAX && bytes < BATCH_BYTES_MAX {
            let Some((place, Queued { mut operation, answer_by })) = self.queue.pop_first() else { break };
            // The sidecar is given a little less, so that its answer (which says more than "no answer") can still arrive.
            let left = answer_by.saturating_duration_since(now);
            operation.timeout_ms = u64::try_from((left - left / 10).as_millis()).unwrap_or(u64::MAX).max(1);
            if let Some(open) = self.open.get_mut(&place) {
                open.sent = true;
            }
            bytes += weight(&operation);
            operations.push(operation);
        }
        operations
    }
}

/// About how many bytes an operation takes on the wire.
fn weight(operation: &v1::Operation) -> usize {
    const REST: usize = 128;
    match &operation.request {
        Some(Request::Put(put)) => put.key.len() + put.value.len() + REST,
        _ => REST,
    }
}

/// The operations of one stream: whatever is queued, as soon as the connection takes something.
#[derive(Debug)]
pub(super) struct Outgoing {
    shared: Arc<Shared>,
    generation: u64,
}

impl Stream for Outgoing {
    type Item = v1::OperationBatch;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = self.shared.lock();
        if *self.shared.generation.borrow() != self.generation {
            return Poll::Ready(None);
        }
        let operations = state.take_batch();
        if operations.is_empty() {
            state.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Some(v1::OperationBatch { operations }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::StreamExt as _;

    use super::*;

    fn permit() -> Permit {
        Permit(Arc::new(Vec::new()))
    }

    fn push(shared: &Shared, request: Request) -> (u64, Answer) {
        let operation = v1::Operation { request: Some(request), ..v1::Operation::default() };
        shared.push(operation, Instant::now() + Duration::from_secs(5), permit())
    }

    fn get() -> Request {
        Request::Get(v1::GetEntryRequest::default())
    }

    fn put(bytes: usize) -> Request {
        Request::Put(v1::PutRequest { value: vec![0; bytes].into(), ..v1::PutRequest::default() })
    }

    async fn ids(outgoing: &mut Outgoing) -> Vec<u64> {
        outgoing.next().await.expect("the stream goes on").operations.iter().map(|operation| operation.id).collect()
    }

    #[tokio::test]
    async fn what_is_queued_goes_out_in_one_batch_in_the_order_of_asking() {
        let shared = Arc::new(Shared::new());
        let mut outgoing = shared.outgoing();
        let asked: Vec<_> = (0..100).map(|_| push(&shared, get())).collect();
        assert_eq!(ids(&mut outgoing).await, asked.iter().map(|(id, _)| *id).collect::<Vec<_>>());
        assert!(futures_util::poll!(outgoing.next()).is_pending(), "and then nothing");
        let (id, _answer) = push(&shared, get());
        assert_eq!(ids(&mut outgoing).await, [id]);
    }

    #[tokio::test]
    async fn a_batch_takes_no_more_than_a_sidecar_reads() {
        let shared = Arc::new(Shared::new());
        let mut outgoing = shared.outgoing();
        let _asked: Vec<_> = (0..8).map(|_| push(&shared, put(1024 * 1024))).collect();
        for _ in 0..8 {
            assert_eq!(ids(&mut outgoing).await.len(), 1);
        }
    }

    #[tokio::test]
    async fn what_was_sent_is_told_that_the_stream_broke_and_what_was_not_goes_with_the_next() {
        let shared = Arc::new(Shared::new());
        let mut first = shared.outgoing();
        let (_, sent) = push(&shared, get());
        ids(&mut first).await;
        let (queued_id, mut queued) = push(&shared, get());
        let mut generation = shared.generation();
        shared.broke("it ended", None);
        assert!(generation.has_changed().expect("the sender is there"));
        assert_eq!(sent.await.expect("an answer").expect_err("it broke").0, "it ended");
        assert!(queued.try_recv().is_err(), "it waits");
        assert!(first.next().await.is_none(), "the old stream takes nothing more");
        assert_eq!(ids(&mut shared.outgoing()).await, [queued_id]);
        let response = Response::Ended(v1::Ended {});
        shared.answered(vec![v1::Result { id: queued_id, response: Some(response) }]);
        let (_, of) = queued.await.expect("an answer").expect("the stream's word");
        assert_eq!(of, *generation.borrow_and_update());
    }

    #[tokio::test]
    async fn what_is_abandoned_is_taken_back_or_cancelled_under_its_id() {
        let shared = Arc::new(Shared::new());
        let mut outgoing = shared.outgoing();
        let (id, _) = push(&shared, get());
        assert!(!shared.abandon(id, true), "it was not sent");
        let (waits, answer) = push(&shared, Request::Acquire(v1::AcquireRequest::default()));
        assert_eq!(ids(&mut outgoing).await, [waits]);
        assert!(shared.abandon(waits, true));
        let cancel = outgoing.next().await.expect("the stream goes on").operations.remove(0);
        assert_eq!((cancel.id, cancel.request), (waits, Some(Request::Cancel(v1::Cancel {}))));
        shared.answered(vec![v1::Result { id: waits, response: Some(Response::Ended(v1::Ended {})) }]);
        assert!(answer.await.is_ok());
        let state = shared.lock();
        assert!(state.open.is_empty() && state.queue.is_empty());
    }
}
