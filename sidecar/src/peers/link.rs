//! The calling side of the link to one peer: one stream that carries all that is small and frequent, of all partitions.
//!
//! ```text
//!  call ──┐                                      ┌─▶ the waiting call, by id
//!  call ──┼─▶ queue ─▶ Frames ─▶ peer ─▶ Frames ─┤
//!  lane ──┘   (what is there goes at once)       └─▶ the lane's answers, in order
//! ```
//!
//! Whatever is queued while a message is being written goes with the next one, so heartbeats of many partitions and
//! requests of many callers share messages without anybody waiting for company. A link that breaks fails what was sent
//! on it (`Unanswered`: the peer may have acted) and what was not (`NeverSent`), and is made again for whatever comes
//! next; nothing is ever sent twice.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use coterie_proto::peer::frame::Body;
use coterie_proto::peer::peer_client::PeerClient;
use coterie_proto::peer::{self, Frame, Frames, Opening};
use futures_util::Stream;
use tokio::sync::{mpsc, oneshot};
use tonic::transport::Channel;

use super::queue::{Class, Queue, Reader};
use crate::limits;

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It never left this process.
    #[error("{0}")]
    NeverSent(String),
    /// It may have arrived, and the peer may have acted on it.
    #[error("{0}")]
    Unanswered(String),
}

/// The calling side of a link. Clones are the same link.
#[derive(Clone, Debug)]
pub(super) struct Link(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: Queue<Frame>,
    waiting: Mutex<BTreeMap<u64, Waiting>>,
    next_id: AtomicU64,
}

/// Who waits for an answer.
#[derive(Debug)]
struct Waiting {
    whom: Whom,
    /// A connection has taken it, so the peer may get it.
    taken: bool,
}

#[derive(Debug)]
enum Whom {
    Call(oneshot::Sender<Result<Body, CallError>>),
    /// As many answers may wait as the lane has messages on their way, which its owner bounds.
    Lane(mpsc::UnboundedSender<Result<Bytes, String>>),
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, BTreeMap<u64, Waiting>> {
        self.waiting.lock().expect("no panic while the lock is held")
    }

    fn push(&self, id: u64, body: Body) -> Result<(), CallError> {
        let bytes = body.encoded_len();
        let class = match body {
            Body::Raft(_) | Body::KeepAlive(_) => Class::Urgent,
            // A lane's messages keep their order, its beginning and end too.
            _ => Class::Bulk,
        };
        self.queue
            .push(class, Frame { id, body: Some(body) }, bytes)
            .map_err(|_| CallError::NeverSent("too much waits for this peer already".to_owned()))
    }

    /// Fails all that waits: the connection is gone, or was never there.
    fn fail(&self, why: &str) {
        drop(self.queue.drain());
        let waiting = std::mem::take(&mut *self.waiting());
        for Waiting { whom, taken } in waiting.into_values() {
            // Whoever does not listen any more need not know.
            match whom {
                Whom::Call(answer) if taken => drop(answer.send(Err(CallError::Unanswered(why.to_owned())))),
                Whom::Call(answer) => drop(answer.send(Err(CallError::NeverSent(why.to_owned())))),
                Whom::Lane(answers) => drop(answers.send(Err(why.to_owned()))),
            }
        }
    }

    /// Hands the peer's frames to those who wait for them.
    fn deliver(&self, frames: Vec<Frame>) {
        let mut waiting = self.waiting();
        for Frame { id, body } in frames {
            let Some(body) = body else { continue };
            match (waiting.get(&id).map(|waiting| &waiting.whom), body) {
                (Some(Whom::Lane(answers)), Body::RaftAnswer(peer::RaftAnswer { payload, error })) => {
                    let answer = if error.is_empty() { Ok(payload) } else { Err(error) };
                    drop(answers.send(answer));
                }
                (Some(Whom::Lane(answers)), Body::LaneClosed(peer::LaneClosed { error })) => {
                    drop(answers.send(Err(error)));
                    waiting.remove(&id);
                }
                (Some(Whom::Call(_)), body) => {
                    if let Some(Waiting { whom: Whom::Call(answer), .. }) = waiting.remove(&id) {
                        drop(answer.send(Ok(body)));
                    }
                }
                // Nobody waits for it any longer, or a lane's answer of another kind, which no peer sends.
                (Some(Whom::Lane(_)) | None, _) => {}
            }
        }
    }
}

impl Link {
    pub(super) fn new() -> Self {
        Self(Arc::new(Shared {
            queue: Queue::new(limits::LINK_QUEUE_MAX, limits::LINK_QUEUE_BYTES_MAX),
            waiting: Mutex::default(),
            next_id: AtomicU64::new(1),
        }))
    }

    /// Sends one request and waits for its answer. Dropping the future forgets the call.
    pub(super) async fn call(&self, body: Body, timeout: Duration) -> Result<Body, CallError> {
        let (answer, answered) = oneshot::channel();
        let entry = self.enter(Whom::Call(answer));
        self.0.push(entry.id, body)?;
        match tokio::time::timeout(timeout, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(CallError::Unanswered("the link has ended".to_owned())),
            Err(_) if entry.give_up() => Err(CallError::Unanswered("not answered in time".to_owned())),
            Err(_) => Err(CallError::NeverSent("not connected in time".to_owned())),
        }
    }

    /// Opens a lane: messages that arrive in their order, and are answered in that order.
    pub(super) fn lane(&self, opened: peer::LaneOpened) -> Result<Lane, CallError> {
        let (sender, answers) = mpsc::unbounded_channel();
        let entry = self.enter(Whom::Lane(sender));
        self.0.push(entry.id, Body::LaneOpened(opened))?;
        Ok(Lane { entry, answers })
    }

    fn enter(&self, whom: Whom) -> Entry {
        let id = self.0.next_id.fetch_add(1, Ordering::Relaxed);
        self.0.waiting().insert(id, Waiting { whom, taken: false });
        Entry { shared: self.0.clone(), id }
    }

    /// Ends the link; its task stops.
    pub(super) fn close(&self) {
        self.0.queue.close();
    }

    /// Connects whenever there is something to send, until [`Link::close`].
    pub(super) async fn run(self, client: PeerClient<Channel>, opening: Opening) {
        while !self.0.queue.is_closed() {
            self.0.queue.ready().await;
            let why = self.connected(client.clone(), opening).await;
            // From here on nothing is taken for the connection that ended.
            self.0.queue.reader();
            self.0.fail(&why);
        }
        self.0.fail("this peer's address has changed");
    }

    /// Runs one connection to its end, and says why it ended.
    async fn connected(&self, mut client: PeerClient<Channel>, opening: Opening) -> String {
        let outbound = Outbound { shared: self.0.clone(), reader: self.0.queue.reader(), opening: Some(opening) };
        let connect = Duration::from_millis(limits::PEER_CONNECT_MS_MAX);
        let mut inbound = match tokio::time::timeout(connect, client.link(outbound)).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return status.message().to_owned(),
            Err(_) => return "not connected in time".to_owned(),
        };
        loop {
            match inbound.message().await {
                Ok(Some(frames)) => self.0.deliver(frames.frames),
                Ok(None) => return "the peer has ended the link".to_owned(),
                Err(status) => return status.message().to_owned(),
            }
        }
    }
}

/// A place among those who wait; dropping it gives it up.
#[derive(Debug)]
struct Entry {
    shared: Arc<Shared>,
    id: u64,
}

impl Entry {
    /// Gives the place up, and says whether the peer may have got what it stands for. From then on it is not sent.
    fn give_up(&self) -> bool {
        // Gone: it was failed or answered this very moment, after it was taken.
        self.shared.waiting().remove(&self.id).is_none_or(|waiting| waiting.taken)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.shared.waiting().remove(&self.id);
    }
}

/// One lane on a link. Dropping it closes it.
#[derive(Debug)]
pub(super) struct Lane {
    entry: Entry,
    answers: mpsc::UnboundedReceiver<Result<Bytes, String>>,
}

impl Lane {
    /// Queues the next message.
    pub(super) fn send(&self, payload: Bytes) -> Result<(), CallError> {
        self.entry.shared.push(self.entry.id, Body::Lane(payload))
    }

    /// The next answer; an error ends the lane. Cancelling loses nothing.
    pub(super) async fn answer(&mut self) -> Result<Bytes, String> {
        self.answers.recv().await.unwrap_or_else(|| Err("the lane is closed".to_owned()))
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // However full the queue is: the peer would keep its end. A queue that is closed has no peer any more.
        let frame = Frame { id: self.entry.id, body: Some(Body::LaneClosed(peer::LaneClosed::default())) };
        let _ = self.entry.shared.queue.push_always(Class::Bulk, frame, 0);
    }
}

/// What goes out on one connection.
struct Outbound {
    shared: Arc<Shared>,
    reader: Reader,
    opening: Option<Opening>,
}

impl Stream for Outbound {
    type Item = Frames;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Frames>> {
        if let Some(opening) = self.opening.take() {
            return Poll::Ready(Some(Frames { opening: Some(opening), frames: Vec::new() }));
        }
        loop {
            let queue = &self.shared.queue;
            let taken = queue.poll_take(self.reader, context, limits::LINK_BATCH_MAX, limits::LINK_BATCH_BYTES_MAX);
            let Some(mut frames) = std::task::ready!(taken) else { return Poll::Ready(None) };
            let mut waiting = self.shared.waiting();
            frames.retain(|frame| match waiting.get_mut(&frame.id) {
                Some(waiting) => {
                    waiting.taken = true;
                    true
                }
                // Whoever asked has gone, and so it need not be sent at all; but the peer must know of a lane's end.
                None => matches!(frame.body, Some(Body::LaneClosed(_))),
            });
            drop(waiting);
            if !frames.is_empty() {
                return Poll::Ready(Some(Frames { opening: None, frames }));
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    const SOON: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(30);

    fn raft() -> Body {
        Body::Raft(peer::Raft::default())
    }

    /// A connection of this link that has sent its opening.
    async fn connect(link: &Link) -> Outbound {
        let shared = link.0.clone();
        let mut outbound = Outbound { reader: shared.queue.reader(), shared, opening: Some(Opening::default()) };
        assert!(outbound.next().await.unwrap().opening.is_some());
        outbound
    }

    async fn sent(outbound: &mut Outbound) -> Vec<Frame> {
        outbound.next().await.unwrap().frames
    }

    #[tokio::test]
    async fn d11_a_call_that_no_connection_took_was_never_sent_and_never_will_be() {
        let link = Link::new();
        assert!(matches!(link.call(raft(), SOON).await, Err(CallError::NeverSent(_))));
        let mut outbound = connect(&link).await;
        let next = link.call(raft(), LONG);
        let (frames, _) = tokio::join!(sent(&mut outbound), tokio::time::timeout(SOON, next));
        assert_eq!(frames.iter().map(|frame| frame.id).collect::<Vec<_>>(), [2], "the first call is not sent late");
    }

    #[tokio::test]
    async fn d11_a_call_that_was_taken_may_have_arrived_whether_it_times_out_or_the_link_breaks() {
        let link = Link::new();
        let mut outbound = connect(&link).await;
        let (_, timed_out) = tokio::join!(sent(&mut outbound), link.call(raft(), SOON));
        assert!(matches!(timed_out, Err(CallError::Unanswered(_))));
        let (_, broken) = tokio::join!(
            async {
                sent(&mut outbound).await;
                link.0.fail("the connection ended");
            },
            link.call(raft(), LONG)
        );
        assert_eq!(broken, Err(CallError::Unanswered("the connection ended".to_owned())));
    }

    #[tokio::test]
    async fn each_call_gets_the_answer_that_has_its_id() {
        let link = Link::new();
        let mut outbound = connect(&link).await;
        let answer = |payload: &'static [u8]| {
            Body::RaftAnswer(peer::RaftAnswer { payload: Bytes::from_static(payload), error: String::new() })
        };
        let peer = async {
            let mut frames = sent(&mut outbound).await;
            while frames.len() < 2 {
                frames.extend(sent(&mut outbound).await);
            }
            let answers = [(frames[1].id, answer(b"second")), (frames[0].id, answer(b"first"))];
            link.0.deliver(answers.map(|(id, body)| Frame { id, body: Some(body) }).into());
        };
        let (first, second, ()) = tokio::join!(link.call(raft(), LONG), link.call(raft(), LONG), peer);
        assert_eq!((first, second), (Ok(answer(b"first")), Ok(answer(b"second"))));
    }

    #[tokio::test]
    async fn a_lane_gets_its_answers_in_order_and_its_end_reaches_the_peer() {
        let link = Link::new();
        let mut outbound = connect(&link).await;
        let mut lane = link.lane(peer::LaneOpened::default()).unwrap();
        lane.send(Bytes::from_static(b"one")).unwrap();
        let frames = sent(&mut outbound).await;
        assert!(matches!(
            frames.iter().map(|frame| frame.body.as_ref().unwrap()).collect::<Vec<_>>()[..],
            [Body::LaneOpened(_), Body::Lane(_)]
        ));
        let id = frames[0].id;
        let answer = |number: u8| {
            let payload = Bytes::from(vec![number]);
            Frame { id, body: Some(Body::RaftAnswer(peer::RaftAnswer { payload, error: String::new() })) }
        };
        link.0.deliver(vec![answer(1), answer(2)]);
        assert_eq!((lane.answer().await.unwrap()[0], lane.answer().await.unwrap()[0]), (1, 2));
        link.0.fail("the connection ended");
        assert_eq!(lane.answer().await, Err("the connection ended".to_owned()));
        drop(lane);
        let frames = sent(&mut outbound).await;
        assert!(matches!(frames[..], [Frame { body: Some(Body::LaneClosed(_)), .. }]));
    }
}
