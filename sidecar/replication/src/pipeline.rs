//! Appends to one follower, many on their way at once.
//!
//! The follower flushes one batch while the next ones arrive; without this, a partition would append as often in a second
//! as a message and a flush take. A lane keeps them in order, so the follower meets no gap.
//!
//! After each batch openraft says once more, without entries, how far the log is committed. Nobody who writes waits for
//! that, and under load the next batch is there before it matters and says the same; so it is held for
//! [`COMMIT_HELD_MAX`]. Watchers on the follower see the last change of a burst that much later.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::stream::{Fuse, Stream, StreamExt as _, unfold};
use openraft::errors::RPCError;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use tokio::time::Instant;

use crate::codec;
use crate::network::Listener;
use crate::network::unreachable;
use crate::timing::{COMMIT_HELD_MAX, PIPELINE_BYTES_MAX, PIPELINE_MAX};
use crate::transport::{Error, Lane};
use crate::types::{LogId, TypeConfig};

/// What one append gave.
pub(crate) type AppendAnswer = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;

/// The appends of one session of replication.
pub(crate) struct Pipeline<S: Stream> {
    lane: Box<dyn Lane>,
    requests: Fuse<S>,
    generation: u64,
    timeout: Duration,
    /// By when each message that is on its way has to be answered, and its bytes.
    on_their_way: VecDeque<(Instant, usize)>,
    bytes: usize,
    /// Says no more than how far the log is committed, and until when it may wait for company.
    held: Option<(Instant, AppendEntriesRequest<TypeConfig>)>,
    /// Up to where the log was sent.
    last_sent: Option<LogId>,
    exhausted: bool,
    listener: Listener,
}

impl<S> Pipeline<S>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
{
    pub(crate) fn new(
        lane: Box<dyn Lane>,
        requests: S,
        generation: u64,
        timeout: Duration,
        listener: Listener,
    ) -> Self {
        let (requests, on_their_way) = (requests.fuse(), VecDeque::new());
        Self {
            lane,
            requests,
            generation,
            timeout,
            on_their_way,
            bytes: 0,
            held: None,
            last_sent: None,
            exhausted: false,
            listener,
        }
    }

    /// The answers, in order; one of a request stands for those without entries that it took the place of. Ends with the
    /// first error.
    pub(crate) fn into_stream(self) -> impl Stream<Item = AppendAnswer> + Send + 'static {
        unfold(Some(self), |pipeline| async {
            let mut pipeline = pipeline?;
            match pipeline.next().await? {
                answer @ Ok(Ok(_)) => Some((answer, Some(pipeline))),
                last => Some((last, None)),
            }
        })
    }

    async fn next(&mut self) -> Option<AppendAnswer> {
        loop {
            let has_room = self.on_their_way.len() < PIPELINE_MAX && self.bytes < PIPELINE_BYTES_MAX;
            let oldest = self.on_their_way.front().map(|(deadline, _)| *deadline);
            let held = self.held.as_ref().map(|(until, _)| *until);
            if self.exhausted && oldest.is_none() && held.is_none() {
                return None;
            }
            let wake = oldest.into_iter().chain(held).min();
            tokio::select! {
                biased;
                answer = self.lane.answer(), if oldest.is_some() => {
                    if let Some((_, bytes)) = self.on_their_way.pop_front() {
                        self.bytes -= bytes;
                    }
                    return Some(match answer {
                        Ok(answer) => codec::decode_message(self.generation, &answer)
                            .map(|answered| self.listener.heard(answered))
                            .map_err(unreachable),
                        Err(error) => Err(unreachable(error)),
                    });
                }
                request = self.requests.next(), if has_room && !self.exhausted => {
                    let sent = match request {
                        Some(request) if request.entries.is_empty() => self.hold(request),
                        Some(request) => {
                            // It says as much, and its answer is the answer of both.
                            self.held = None;
                            self.send(&request)
                        }
                        None => {
                            self.exhausted = true;
                            self.send_held()
                        }
                    };
                    if let Err(error) = sent {
                        return Some(Err(unreachable(error)));
                    }
                }
                () = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {
                    let now = Instant::now();
                    if oldest.is_some_and(|deadline| deadline <= now) {
                        return Some(Err(unreachable("an append was not answered in time")));
                    }
                    if held.is_some_and(|until| until <= now) && let Err(error) = self.send_held() {
                        return Some(Err(unreachable(error)));
                    }
                }
            }
        }
    }

    /// Holds a request without entries: one that continues what was sent, not one that asks where the follower is.
    fn hold(&mut self, request: AppendEntriesRequest<TypeConfig>) -> Result<(), Error> {
        if self.last_sent.is_none() || self.last_sent != request.prev_log_id {
            self.held = None;
            return self.send(&request);
        }
        let until = self.held.take().map_or_else(|| Instant::now() + COMMIT_HELD_MAX, |(until, _)| until);
        self.held = Some((until, request));
        Ok(())
    }

    fn send_held(&mut self) -> Result<(), Error> {
        self.held.take().map_or(Ok(()), |(_, request)| self.send(&request))
    }

    fn send(&mut self, request: &AppendEntriesRequest<TypeConfig>) -> Result<(), Error> {
        let payload = codec::encode_append(self.generation, request);
        self.last_sent = request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id);
        self.on_their_way.push_back((Instant::now() + self.timeout, payload.len()));
        self.bytes += payload.len();
        self.lane.send(payload)
    }
}
