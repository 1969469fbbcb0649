//! Appends to one follower, many on their way at once.
//!
//! The follower flushes one batch while the next ones arrive; without this, a partition would append as often in a second
//! as a message and a flush take. A lane keeps them in order, so the follower meets no gap.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::stream::{Fuse, Stream, StreamExt as _, unfold};
use openraft::errors::RPCError;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use tokio::time::Instant;

use crate::codec;
use crate::network::Listener;
use crate::network::unreachable;
use crate::timing::{PIPELINE_BYTES_MAX, PIPELINE_MAX};
use crate::transport::{Error, Lane};
use crate::types::TypeConfig;

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
        Self { lane, requests, generation, timeout, on_their_way, bytes: 0, exhausted: false, listener }
    }

    /// One answer for each request, in order; ends with the first error.
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
            if self.exhausted && oldest.is_none() {
                return None;
            }
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
                request = self.requests.next(), if has_room && !self.exhausted => match request {
                    Some(request) => {
                        if let Err(error) = self.send(&request) {
                            return Some(Err(unreachable(error)));
                        }
                    }
                    None => self.exhausted = true,
                },
                () = tokio::time::sleep_until(oldest.unwrap_or_else(Instant::now)), if oldest.is_some() => {
                    return Some(Err(unreachable("an append was not answered in time")));
                }
            }
        }
    }

    fn send(&mut self, request: &AppendEntriesRequest<TypeConfig>) -> Result<(), Error> {
        let payload = codec::encode_append(self.generation, request);
        self.on_their_way.push_back((Instant::now() + self.timeout, payload.len()));
        self.bytes += payload.len();
        self.lane.send(payload)
    }
}
