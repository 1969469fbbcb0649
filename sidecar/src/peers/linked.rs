//! The answering side of a link: see `link`.
//!
//! ```text
//!  Frames ─┬─ call ─▶ one of many futures of this link's task ─┐
//!          └─ lane ─▶ a queue ─▶ the replica's own task ───────┴─▶ queue ─▶ Frames
//! ```
//!
//! Calls are answered in whatever order they are done; a lane's messages in their own. The link is always read, since
//! heartbeats and keep-alives come on it too: requests of applications beyond what a link may have under way are refused
//! at once, and while too many answers wait to be sent no more requests are brought to an end.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use coterie_env::spawn::BoxFuture;
use coterie_mutants::{Point, rarely};
use coterie_proto::peer::frame::Body;
use coterie_proto::peer::{Frame, Frames, LaneClosed, LaneOpened, Opening, RaftAnswer};
use futures_util::stream::{BoxStream, FuturesUnordered};
use futures_util::{Stream, StreamExt as _};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::queue::{Class, Queue, Reader};
use super::server::Service;
use super::tls::Roles;
use crate::limits;

/// What answers: this sidecar's service.
pub(super) trait Answering: Clone + Send + Sync + 'static {
    /// Answers one call; `None` for what is not a call.
    fn answer(&self, roles: Roles, opening: Option<&Opening>, call: Body) -> impl Future<Output = Option<Body>> + Send;

    /// The replica that a lane is for, if both ends are who they say they are.
    fn replica(&self, roles: Roles, opening: Option<&Opening>, opened: &LaneOpened) -> Result<Replica, String>;

    /// Whether the other end of a link is a member whose directory is accepted.
    fn is_admitted(&self, opening: &Opening) -> bool;

    /// Runs a task.
    fn spawn(&self, name: &'static str, task: BoxFuture);

    /// The end of the process.
    fn stopping(&self) -> CancellationToken;
}

/// Takes the messages of a lane, and gives its answers, in their order.
pub(super) type Replica = Box<dyn FnOnce(mpsc::Receiver<Bytes>) -> Replying + Send>;

type Replying = futures_util::future::BoxFuture<'static, BoxStream<'static, Result<Bytes, String>>>;

impl Answering for Service {
    async fn answer(&self, roles: Roles, opening: Option<&Opening>, call: Body) -> Option<Body> {
        self.answer(roles, opening, call).await
    }

    fn replica(&self, roles: Roles, opening: Option<&Opening>, opened: &LaneOpened) -> Result<Replica, String> {
        let partition = self.addressed(roles, opening, opened.partition.clone(), opened.to_node)?;
        Ok(Box::new(move |messages| Box::pin(async move { partition.handle_lane(messages).await })))
    }

    fn is_admitted(&self, opening: &Opening) -> bool {
        self.is_admitted(opening)
    }

    fn spawn(&self, name: &'static str, task: BoxFuture) {
        self.spawn(name, task);
    }

    fn stopping(&self) -> CancellationToken {
        self.stopping()
    }
}

/// The answers of one link, as they go out.
pub(super) struct Answers {
    queue: Arc<Queue<Frame>>,
    reader: Reader,
}

impl Stream for Answers {
    type Item = Result<Frames, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let taken = self.queue.poll_take(self.reader, context, limits::LINK_BATCH_MAX, limits::LINK_BATCH_BYTES_MAX);
        taken.map(|frames| frames.map(|frames| Ok(Frames { opening: None, frames })))
    }
}

impl Drop for Answers {
    /// The connection is gone.
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// Serves one link in a task of its own.
pub(super) fn serve<S: Answering>(
    service: &S,
    roles: Roles,
    requests: impl Stream<Item = Result<Frames, Status>> + Send + Unpin + 'static,
) -> Answers {
    let queue = Arc::new(Queue::new(limits::LINK_QUEUE_MAX, limits::LINK_QUEUE_BYTES_MAX));
    let answers = Answers { reader: queue.reader(), queue: queue.clone() };
    let linked = Linked { service: service.clone(), roles, opening: None, queue, lanes: BTreeMap::new() };
    service.spawn("linked", Box::pin(linked.run(requests)));
    answers
}

struct Linked<S> {
    service: S,
    roles: Roles,
    opening: Option<Opening>,
    queue: Arc<Queue<Frame>>,
    lanes: BTreeMap<u64, mpsc::Sender<Bytes>>,
}

impl<S: Answering> Linked<S> {
    async fn run(mut self, mut requests: impl Stream<Item = Result<Frames, Status>> + Unpin) {
        let stop = self.service.stopping();
        // Of members and partitions: few, small, and never kept waiting by what applications ask.
        let mut urgent = FuturesUnordered::new();
        // Of applications.
        let mut calls = FuturesUnordered::new();
        loop {
            let has_room = self.queue.has_room();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(answer) = urgent.next(), if !urgent.is_empty() => {
                    if !answered(&self.queue, answer) {
                        break;
                    }
                }
                Some(answer) = calls.next(), if has_room && !calls.is_empty() => {
                    if !answered(&self.queue, answer) {
                        break;
                    }
                }
                () = self.queue.room(), if !has_room => {}
                message = requests.next() => {
                    let Some(Ok(Frames { opening, frames })) = message else { break };
                    if frames.len() > limits::LINK_BATCH_MAX {
                        break;
                    }
                    if opening.is_some() {
                        self.opening = opening;
                    }
                    for Frame { id, body } in frames {
                        match body {
                            Some(Body::LaneOpened(opened)) => self.open_lane(id, &opened),
                            Some(Body::Lane(payload)) => self.on_lane(id, payload),
                            Some(Body::LaneClosed(_)) => drop(self.lanes.remove(&id)),
                            Some(body @ (Body::Raft(_) | Body::KeepAlive(_))) => urgent.push(self.call(id, body)),
                            Some(body) if calls.len() < limits::LINK_CALLS_MAX => calls.push(self.call(id, body)),
                            Some(body) => {
                                let busy = Frame { id, body: super::server::too_busy(&body) };
                                answered(&self.queue, busy);
                            }
                            None => {}
                        }
                    }
                    if rarely(Point::LinkEnds) {
                        break;
                    }
                }
            }
        }
        self.queue.close();
    }

    fn call(&self, id: u64, body: Body) -> impl Future<Output = Frame> + Send + use<S> {
        let (service, roles, opening) = (self.service.clone(), self.roles, self.opening);
        async move { Frame { id, body: service.answer(roles, opening.as_ref(), body).await } }
    }

    fn open_lane(&mut self, id: u64, opened: &LaneOpened) {
        match self.service.replica(self.roles, self.opening.as_ref(), opened) {
            Ok(replica) => {
                let (sender, messages) = mpsc::channel(limits::LANE_QUEUE_MAX);
                self.lanes.insert(id, sender);
                let check = self.service.clone();
                let lane = lane(check, self.opening, replica, id, messages, self.queue.clone());
                self.service.spawn("lane", Box::pin(lane));
            }
            Err(error) => self.close_lane(id, error),
        }
    }

    fn on_lane(&mut self, id: u64, payload: Bytes) {
        // A lane that was closed here, of which the peer has not heard yet, takes no more.
        let Some(lane) = self.lanes.get(&id) else { return };
        match lane.try_send(payload) {
            Ok(()) => {}
            // It ended by itself, and said why.
            Err(TrySendError::Closed(_)) => drop(self.lanes.remove(&id)),
            Err(TrySendError::Full(_)) => {
                self.lanes.remove(&id);
                self.close_lane(id, "more messages than a lane holds are on their way".to_owned());
            }
        }
    }

    fn close_lane(&self, id: u64, error: String) {
        answered(&self.queue, Frame { id, body: Some(Body::LaneClosed(LaneClosed { error })) });
    }
}

/// Feeds one lane to its replica and queues the answers, until either ends it.
async fn lane(
    service: impl Answering,
    opening: Option<Opening>,
    replica: Replica,
    id: u64,
    messages: mpsc::Receiver<Bytes>,
    queue: Arc<Queue<Frame>>,
) {
    let mut answers = replica(messages).await;
    while let Some(answer) = answers.next().await {
        // Asked again for every answer: a directory may be refused at any moment.
        let admitted = opening.is_some_and(|opening| service.is_admitted(&opening));
        let (body, is_last) = match answer {
            Ok(payload) if admitted => (Body::RaftAnswer(RaftAnswer { payload, error: String::new() }), false),
            Ok(_) => (Body::LaneClosed(LaneClosed { error: "the sender is not admitted".to_owned() }), true),
            Err(error) => (Body::LaneClosed(LaneClosed { error }), true),
        };
        if !answered(&queue, Frame { id, body: Some(body) }) || is_last {
            return;
        }
    }
}

/// Queues an answer: what is answered was bounded when it was taken. False when the peer has gone.
fn answered(queue: &Queue<Frame>, frame: Frame) -> bool {
    let bytes = frame.body.as_ref().map_or(0, Body::encoded_len);
    let class = match frame.body {
        // A lane's answers keep their order, its end too.
        Some(Body::RaftAnswer(_) | Body::LaneClosed(_) | Body::KeptAlive(_)) => Class::Urgent,
        _ => Class::Bulk,
    };
    queue.push_always(class, frame, bytes).is_ok()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::Duration;

    use coterie_proto::peer;
    use tokio::sync::Semaphore;
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;

    /// How long anything may take that must come.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// Answers as it is told.
    #[derive(Clone)]
    struct Fake {
        /// Calls of applications that write are answered as this has permits.
        gate: Arc<Semaphore>,
        /// Bytes of the answers to reads.
        bytes: usize,
        reads: Arc<AtomicUsize>,
        keep_alives: Arc<AtomicUsize>,
        admitted: Arc<AtomicBool>,
        stopping: CancellationToken,
    }

    impl Answering for Fake {
        async fn answer(&self, _: Roles, _: Option<&Opening>, call: Body) -> Option<Body> {
            match call {
                Body::Propose(request) => {
                    self.gate.acquire().await.expect("it is never closed").forget();
                    let answers = vec![peer::Proposed { revision: request.timeout_ms, result: None }];
                    Some(Body::Proposed(peer::ProposeResponse { answers }))
                }
                Body::Query(_) => {
                    self.reads.fetch_add(1, Ordering::Relaxed);
                    let result = Some(peer::queried::Result::Answer(vec![0; self.bytes].into()));
                    let answers = peer::Answers { answers: vec![peer::Queried { result }] };
                    let result = Some(peer::query_response::Result::Answers(answers));
                    Some(Body::Queried(peer::QueryResponse { result, revision: 0, stale_ms: 0 }))
                }
                Body::KeepAlive(_) => {
                    self.keep_alives.fetch_add(1, Ordering::Relaxed);
                    Some(Body::KeptAlive(peer::KeepAliveResponse::default()))
                }
                other => panic!("{other:?} is not a call of these tests"),
            }
        }

        /// Node 1 gives every message back; node 2 takes none; there is no other.
        fn replica(&self, _: Roles, opening: Option<&Opening>, opened: &LaneOpened) -> Result<Replica, String> {
            opening.ok_or("a link begins with its opening")?;
            match opened.to_node {
                1 => Ok(Box::new(|messages| {
                    Box::pin(async move { ReceiverStream::new(messages).map(Ok::<_, String>).boxed() })
                })),
                2 => Ok(Box::new(|messages| {
                    Box::pin(async move {
                        let never = async move {
                            let _messages = messages;
                            std::future::pending().await
                        };
                        futures_util::stream::once(never).boxed()
                    })
                })),
                node => Err(format!("no replica {node}")),
            }
        }

        fn is_admitted(&self, _: &Opening) -> bool {
            self.admitted.load(Ordering::Relaxed)
        }

        fn spawn(&self, _: &'static str, task: BoxFuture) {
            tokio::spawn(task);
        }

        fn stopping(&self) -> CancellationToken {
            self.stopping.clone()
        }
    }

    /// A link: this side asks.
    struct Link {
        fake: Fake,
        requests: mpsc::Sender<Result<Frames, Status>>,
        answers: Answers,
    }

    impl Link {
        fn open() -> Self {
            Self::with_answers_of(0)
        }

        fn with_answers_of(bytes: usize) -> Self {
            let fake = Fake {
                gate: Arc::new(Semaphore::new(0)),
                bytes,
                reads: Arc::default(),
                keep_alives: Arc::default(),
                admitted: Arc::new(AtomicBool::new(true)),
                stopping: CancellationToken::new(),
            };
            let (requests, receiver) = mpsc::channel(1);
            let answers = serve(&fake, Roles::ALL, ReceiverStream::new(receiver));
            Self { fake, requests, answers }
        }

        async fn send(&self, frames: impl IntoIterator<Item = (u64, Body)>) {
            let frame = |(id, body)| Frame { id, body: Some(body) };
            let frames: Vec<Frame> = frames.into_iter().map(frame).collect();
            for batch in frames.chunks(limits::LINK_BATCH_MAX) {
                let frames = Frames { opening: Some(Opening::default()), frames: batch.to_vec() };
                self.requests.send(Ok(frames)).await.expect("the link is read");
            }
        }

        /// The next answers, at least one.
        async fn answers(&mut self) -> Vec<(u64, Body)> {
            let next = tokio::time::timeout(PATIENCE, self.answers.next()).await.expect("it answers");
            let frames = next.expect("the link goes on").expect("without an error").frames;
            frames.into_iter().map(|frame| (frame.id, frame.body.expect("an answer"))).collect()
        }

        /// So many answers.
        async fn take(&mut self, count: usize) -> Vec<(u64, Body)> {
            let mut taken = Vec::new();
            while taken.len() < count {
                taken.extend(self.answers().await);
            }
            assert_eq!(taken.len(), count);
            taken
        }
    }

    /// Waits until something has happened that only this link's tasks can bring about.
    async fn until(what: impl Fn() -> bool) {
        let waiting = async {
            while !what() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("it happens");
    }

    fn write(number: u64) -> Body {
        let bodies = vec![Bytes::new()];
        Body::Propose(peer::ProposeRequest { bodies, timeout_ms: number, ..peer::ProposeRequest::default() })
    }

    fn read() -> Body {
        Body::Query(peer::QueryRequest::default())
    }

    fn keep_alive() -> Body {
        Body::KeepAlive(peer::KeepAliveRequest::default())
    }

    fn lane_to(to_node: u64) -> Body {
        Body::LaneOpened(LaneOpened { to_node, ..LaneOpened::default() })
    }

    fn message(number: u64) -> Body {
        Body::Lane(Bytes::from(number.to_string()))
    }

    /// What a lane answered, as numbers.
    fn numbers(answers: &[(u64, Body)], lane: u64) -> Vec<u64> {
        let of_lane = answers.iter().filter(|(id, _)| *id == lane).map(|(_, body)| match body {
            Body::RaftAnswer(RaftAnswer { payload, error: _ }) => {
                std::str::from_utf8(payload).unwrap().parse().unwrap()
            }
            other => panic!("{other:?} is not of a lane"),
        });
        of_lane.collect()
    }

    #[tokio::test]
    async fn calls_beyond_what_a_link_may_have_under_way_are_refused_at_once_with_a_code() {
        let mut link = Link::open();
        let most = limits::LINK_CALLS_MAX as u64;
        link.send((0..most + 3).map(|id| (id, write(id)))).await;
        link.send([(most + 3, read())]).await;
        let refused = link.take(4).await;
        assert_eq!(refused.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [most, most + 1, most + 2, most + 3]);
        for (_, body) in refused {
            let failure = match body {
                Body::Proposed(peer::ProposeResponse { mut answers }) => match answers.pop().and_then(|it| it.result) {
                    Some(peer::proposed::Result::Failure(failure)) => failure,
                    other => panic!("{other:?} is not a refusal"),
                },
                Body::Queried(peer::QueryResponse {
                    result: Some(peer::query_response::Result::Failure(failure)),
                    ..
                }) => failure,
                other => panic!("{other:?} is not a refusal"),
            };
            assert_eq!(failure.code, "overloaded");
        }
        // What members say to each other goes on meanwhile.
        link.send([(most + 4, keep_alive())]).await;
        assert!(matches!(link.take(1).await[..], [(id, Body::KeptAlive(_))] if id == most + 4));
        // The others are answered, each under its id.
        link.fake.gate.add_permits(limits::LINK_CALLS_MAX);
        let mut answered = Vec::new();
        for (id, body) in link.take(limits::LINK_CALLS_MAX).await {
            assert!(matches!(body, Body::Proposed(proposed) if proposed.answers[0].revision == id));
            answered.push(id);
        }
        answered.sort_unstable();
        assert_eq!(answered, (0..most).collect::<Vec<_>>());
        link.fake.gate.add_permits(1);
        link.send([(most + 5, write(0))]).await;
        assert_eq!(link.take(1).await[0].0, most + 5, "there is room again");
    }

    #[tokio::test]
    async fn a_lane_is_answered_in_its_order_beside_other_lanes_and_calls() {
        let mut link = Link::open();
        link.send([(1, lane_to(1)), (2, lane_to(1))]).await;
        for number in 0..300 {
            let frames = [(1, message(number)), (2, message(1_000 + number)), (10_000 + number, write(0))];
            link.send(frames).await;
            // As many are on their way as a lane holds.
            if number % 50 == 49 {
                let answers = link.take(100).await;
                assert_eq!(numbers(&answers, 1), (number - 49..=number).collect::<Vec<_>>());
                assert_eq!(numbers(&answers, 2), (number + 951..=number + 1_000).collect::<Vec<_>>());
            }
        }
    }

    #[tokio::test]
    async fn a_lane_that_is_full_is_closed_with_the_reason_and_the_others_go_on() {
        let mut link = Link::open();
        link.send([(1, lane_to(2)), (2, lane_to(1))]).await;
        let most = limits::LANE_QUEUE_MAX as u64;
        link.send((0..most).map(|number| (1, message(number)))).await;
        link.send([(2, message(7))]).await;
        assert_eq!(numbers(&link.take(1).await, 2), [7], "as many as a lane holds are no matter");
        link.send([(1, message(most)), (1, message(most + 1)), (2, message(8))]).await;
        let mut answers = link.take(2).await;
        answers.sort_by_key(|(id, _)| *id);
        let [(1, Body::LaneClosed(closed)), (2, Body::RaftAnswer(_))] = &answers[..] else { panic!("{answers:?}") };
        assert_eq!(closed.error, "more messages than a lane holds are on their way");
    }

    #[tokio::test]
    async fn a_lane_to_nobody_or_of_one_that_is_not_admitted_is_closed_with_the_reason() {
        let mut link = Link::open();
        link.send([(1, lane_to(9)), (1, message(1))]).await;
        let [(1, Body::LaneClosed(closed))] = &link.take(1).await[..] else { panic!("it is not closed") };
        assert_eq!(closed.error, "no replica 9");
        link.send([(2, lane_to(1)), (2, message(1))]).await;
        assert_eq!(numbers(&link.take(1).await, 2), [1]);
        link.fake.admitted.store(false, Ordering::Relaxed);
        link.send([(2, message(2))]).await;
        let [(2, Body::LaneClosed(closed))] = &link.take(1).await[..] else { panic!("it is not closed") };
        assert_eq!(closed.error, "the sender is not admitted");
    }

    #[tokio::test]
    async fn what_is_urgent_goes_out_before_what_was_answered_earlier() {
        const READS: usize = 100;
        let mut link = Link::with_answers_of(1_000);
        link.send((0..READS as u64).map(|id| (id, read()))).await;
        until(|| link.fake.reads.load(Ordering::Relaxed) == READS).await;
        link.send([(1_000, lane_to(1)), (1_000, message(5)), (1_001, keep_alive())]).await;
        until(|| link.fake.keep_alives.load(Ordering::Relaxed) == 1).await;
        // The lane's task has its turn, too.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let mut order: Vec<u64> = link.take(READS + 2).await.into_iter().map(|(id, _)| id).collect();
        let urgent: Vec<u64> = order.drain(..2).collect();
        assert!(urgent.contains(&1_000) && urgent.contains(&1_001), "{urgent:?}");
    }

    #[tokio::test]
    async fn while_too_many_answers_wait_no_more_reads_are_done_and_what_is_urgent_is() {
        const MIB: usize = 1024 * 1024;
        let most = limits::LINK_QUEUE_BYTES_MAX / MIB;
        let mut link = Link::with_answers_of(MIB);
        link.send((0..2 * most as u64).map(|id| (id, read()))).await;
        link.send([(1_000, keep_alive())]).await;
        until(|| link.fake.keep_alives.load(Ordering::Relaxed) == 1).await;
        let done = link.fake.reads.load(Ordering::Relaxed);
        assert!((1..=most + 1).contains(&done), "{done} of {} reads are done", 2 * most);
        let answers = link.take(2 * most + 1).await;
        assert_eq!(answers[0].0, 1_000);
        assert!(answers[1..].iter().all(|(_, body)| matches!(body, Body::Queried(_))), "all are done in the end");
    }

    #[tokio::test]
    async fn a_message_of_more_frames_than_a_link_takes_ends_it() {
        let mut link = Link::open();
        let frame = |id| Frame { id, body: Some(keep_alive()) };
        let frames = (0..=limits::LINK_BATCH_MAX as u64).map(frame).collect();
        link.requests.send(Ok(Frames { opening: None, frames })).await.expect("the link is read");
        let ended = tokio::time::timeout(PATIENCE, link.answers.next()).await.expect("it ends");
        assert!(ended.is_none() && link.fake.keep_alives.load(Ordering::Relaxed) == 0);
    }

    #[tokio::test]
    async fn a_link_ends_with_its_connection_and_with_the_process() {
        let link = Link::open();
        link.send([(1, keep_alive())]).await;
        drop(link.answers);
        let frames = Frames { opening: None, frames: vec![Frame { id: 2, body: Some(keep_alive()) }] };
        // It may have ended already.
        let _ = link.requests.send(Ok(frames)).await;
        tokio::time::timeout(PATIENCE, link.requests.closed()).await.expect("it is read no more");
        let mut link = Link::open();
        link.fake.stopping.cancel();
        tokio::time::timeout(PATIENCE, link.requests.closed()).await.expect("it is read no more");
        assert!(link.answers.next().await.is_none());
    }
}
