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
use coterie_proto::peer::frame::Body;
use coterie_proto::peer::{self, Frame, Frames, LaneClosed, Opening, RaftAnswer};
use coterie_replication::Partition;
use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt as _};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tonic::{Status, Streaming};

use super::queue::{Class, Queue, Reader};
use super::server::Service;
use super::tls::Roles;
use crate::limits;

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
pub(super) fn serve(service: &Service, roles: Roles, requests: Streaming<Frames>) -> Answers {
    let queue = Arc::new(Queue::new(limits::LINK_QUEUE_MAX, limits::LINK_QUEUE_BYTES_MAX));
    let answers = Answers { reader: queue.reader(), queue: queue.clone() };
    let linked = Linked { service: service.clone(), roles, opening: None, queue, lanes: BTreeMap::new() };
    service.spawn("linked", Box::pin(linked.run(requests)));
    answers
}

struct Linked {
    service: Service,
    roles: Roles,
    opening: Option<Opening>,
    queue: Arc<Queue<Frame>>,
    lanes: BTreeMap<u64, mpsc::Sender<Bytes>>,
}

impl Linked {
    async fn run(mut self, mut requests: Streaming<Frames>) {
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
                message = requests.message() => {
                    let Ok(Some(Frames { opening, frames })) = message else { break };
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
                }
            }
        }
        self.queue.close();
    }

    fn call(&self, id: u64, body: Body) -> impl Future<Output = Frame> + Send + use<> {
        let (service, roles, opening) = (self.service.clone(), self.roles, self.opening);
        async move { Frame { id, body: service.answer(roles, opening.as_ref(), body).await } }
    }

    fn open_lane(&mut self, id: u64, opened: &peer::LaneOpened) {
        let partition =
            self.service.addressed(self.roles, self.opening.as_ref(), opened.partition.clone(), opened.to_node);
        match partition {
            Ok(partition) => {
                let (sender, messages) = mpsc::channel(limits::LANE_QUEUE_MAX);
                self.lanes.insert(id, sender);
                let check = self.service.clone();
                let lane = lane(check, self.opening, partition, id, messages, self.queue.clone());
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
    service: Service,
    opening: Option<Opening>,
    partition: Partition,
    id: u64,
    messages: mpsc::Receiver<Bytes>,
    queue: Arc<Queue<Frame>>,
) {
    let mut answers = std::pin::pin!(partition.handle_lane(messages).await);
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
