//! One stream of operations to the sidecar, which all maps and locks of a client share.
//!
//! ```text
//!  callers ─ permit ─▶ queue ─▶ Outgoing: all that is queued, whenever the connection takes something ─▶ sidecar
//!     ▲                             │ what was taken counts as sent                                         │
//!     └──────── open: who waits for which id ◀──────── driver: reads, and connects again ◀───── answers ────┘
//! ```
//! Nothing lingers: a batch is what was queued when the connection could take it. What is sent and not answered when the
//! stream breaks is sent again by its caller, under the same request id, until its deadline (D11); what was not sent waits
//! for the next stream. Every stream has a number, its *generation*: what the sidecar holds for one is given back when it
//! ends, so whoever relies on that compares the number.
//!
//! Watches are not here. Each has an HTTP/2 stream of its own on the same connection, with flow control of its own: here, one
//! slow watcher would hold up everything, or need a queue without bound.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coterie_proto::v1;
use coterie_proto::v1::operation::Request;
use coterie_proto::v1::operations_client::OperationsClient;
use coterie_proto::v1::result::Response;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Channel;
use uuid::Uuid;

use crate::client::RequestId;
use crate::error::{Error, Kind, Refusal, Retry};
use crate::lanes::{Lanes, Minted};
use state::{Gone, Shared};

mod driver;
mod state;

/// Operations of one client that are under way, but for those that wait for a lock. With [`WAITS_MAX`] and [`URGENT_MAX`],
/// all that a sidecar takes of one stream (1,024).
const CALLS_MAX: usize = 704;
/// Bytes of the values under way, in KiB: all that a sidecar takes of one stream.
const VALUES_KIB_MAX: usize = 4 * 1024;
/// How many of one client may wait for locks at once; more are refused, since waiting for a place to wait could take for
/// ever.
const WAITS_MAX: usize = 256;
/// Renewals and releases that are under way. They never wait behind the rest.
const URGENT_MAX: usize = 64;
/// The first pause before an operation of unknown fate is sent again; doubled up to [`PAUSE_MAX`].
pub(crate) const PAUSE_MIN: Duration = Duration::from_millis(10);
/// The longest such pause.
pub(crate) const PAUSE_MAX: Duration = Duration::from_millis(250);

/// The stream of a client. Cheap to clone; the stream ends with the last one.
#[derive(Clone, Debug)]
pub(crate) struct Operations(Arc<Running>);

#[derive(Debug)]
struct Running {
    shared: Arc<Shared>,
    lanes: Lanes,
    timeout: Duration,
    calls: Arc<Semaphore>,
    values: Arc<Semaphore>,
    waits: Arc<Semaphore>,
    urgent: Arc<Semaphore>,
    runtime: Handle,
    _driver: AbortOnDropHandle<()>,
}

/// Which bound an operation counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// It brings a value of this many bytes, and is answered soon.
    Call(usize),
    /// It waits for a lock.
    Wait,
    /// It keeps a lock, or gives one back.
    Urgent,
}

/// A place among what is under way. Dropping all of its clones gives it back.
#[derive(Clone, Debug)]
pub(crate) struct Permit(#[expect(dead_code, reason = "held, not read")] Arc<Vec<OwnedSemaphorePermit>>);

/// One try of an operation.
pub(crate) struct Attempt {
    /// What is asked.
    pub(crate) request: Request,
    /// Under which id, if it is a write.
    pub(crate) identity: Option<RequestId>,
    /// Its place; kept until it is answered, also when nobody waits for the answer any more.
    pub(crate) permit: Permit,
    /// Given up when it was not sent by then. What the sidecar is told as its deadline is a little less.
    pub(crate) send_by: Instant,
    /// Given up when there was no answer by then.
    pub(crate) deadline: Instant,
    /// For what can be cancelled: takes an answer that nobody waited for any more.
    pub(crate) undo: Option<Undo>,
}

/// Undoes what an answer says was done, on the stream of this generation.
pub(crate) type Undo = Box<dyn FnOnce(Response, u64) + Send>;

/// What became of one try.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The sidecar's word, and the generation of the stream that brought it.
    Answered(Response, u64),
    /// It was sent, and the stream broke.
    Broken(String),
    /// It was not sent.
    NotSent,
    /// It was sent, and not answered in time.
    NoAnswer,
}

impl Operations {
    /// Of the client with this id, over this wire to `endpoint`. Must be called within a Tokio runtime.
    pub(crate) fn start(wire: OperationsClient<Channel>, endpoint: Arc<str>, client: Uuid, timeout: Duration) -> Self {
        let shared = Arc::new(Shared::new());
        let driver = tokio::spawn(driver::run(shared.clone(), wire, endpoint, timeout));
        Self(Arc::new(Running {
            shared,
            lanes: Lanes::new(client),
            timeout,
            calls: Arc::new(Semaphore::new(CALLS_MAX)),
            values: Arc::new(Semaphore::new(VALUES_KIB_MAX)),
            waits: Arc::new(Semaphore::new(WAITS_MAX)),
            urgent: Arc::new(Semaphore::new(URGENT_MAX)),
            runtime: Handle::current(),
            _driver: AbortOnDropHandle::new(driver),
        }))
    }

    /// The generation of the present stream, or of the next one.
    pub(crate) fn generation(&self) -> watch::Receiver<u64> {
        self.0.shared.generation()
    }

    /// How long a call may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.0.timeout
    }

    /// Runs something that nobody waits for.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.runtime.spawn(task);
    }

    /// A new request id, which counts as open until it is dropped.
    pub(crate) fn mint(&self) -> Minted {
        self.0.lanes.mint()
    }

    /// Asks something that changes nothing. Asked again while there is no answer, until the deadline.
    pub(crate) async fn read(&self, request: Request) -> Result<Response, Error> {
        self.call(request, Kind::Read, Class::Call(0), self.deadline()).await
    }

    /// Changes something, once. Sent again under the same id while its fate is not known, until the deadline.
    pub(crate) async fn write(
        &self,
        request: Request,
        own: Option<RequestId>,
        class: Class,
    ) -> Result<Response, Error> {
        match own {
            Some(own) => self.call(request, Kind::Write(own), class, self.deadline()).await,
            None => {
                let minted = self.mint();
                self.call(request, Kind::Write(minted.request), class, self.deadline()).await
            }
        }
    }

    /// When a call that begins now is given up.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.0.timeout
    }

    /// The same until a deadline of its own.
    pub(crate) async fn call(
        &self,
        request: Request,
        kind: Kind,
        class: Class,
        deadline: Instant,
    ) -> Result<Response, Error> {
        let permit = self.permit(class, deadline).await?;
        let identity = match kind {
            Kind::Read => None,
            Kind::Write(id) => Some(id),
        };
        let mut pause = PAUSE_MIN;
        let mut uncertain = None;
        let mut waits_for = None;
        loop {
            let (request, permit) = (request.clone(), permit.clone());
            let attempt = Attempt { request, identity, permit, send_by: deadline, deadline, undo: None };
            match self.once(attempt).await {
                Outcome::Answered(Response::Failure(failure), _) if failure.code == "unknown" => {
                    uncertain = Some(failure.message);
                }
                // What was tried before may have been applied, whatever this says of the present try.
                Outcome::Answered(Response::Failure(failure), _) if uncertain.is_some() && failure.retry == "later" => {
                }
                Outcome::Answered(Response::Failure(failure), _)
                    if uncertain.is_some() && failure.code == "expired" =>
                {
                    return Err(self.gave_up(kind, Some(failure.message)));
                }
                // It has just been started: nothing is wrong, and nothing was done.
                Outcome::Answered(Response::Failure(failure), _) if failure.code == "waiting_for_management_group" => {
                    waits_for = Some(failure);
                }
                Outcome::Answered(Response::Failure(failure), _) => return Err(refused(failure)),
                Outcome::Answered(response, _) => return Ok(response),
                Outcome::Broken(why) => uncertain = Some(why),
                Outcome::NotSent => return Err(self.gave_up(kind, uncertain)),
                Outcome::NoAnswer => {
                    return Err(self.gave_up(kind, Some(uncertain.unwrap_or_else(|| NOT_IN_TIME.to_owned()))));
                }
            }
            tokio::time::sleep_until(deadline.min(Instant::now() + pause)).await;
            pause = (pause * 2).min(PAUSE_MAX);
            if Instant::now() >= deadline {
                return Err(match waits_for.filter(|_| uncertain.is_none()) {
                    Some(failure) => refused(failure),
                    None => self.gave_up(kind, uncertain),
                });
            }
        }
    }

    /// A place among what is under way.
    pub(crate) async fn permit(&self, class: Class, deadline: Instant) -> Result<Permit, Error> {
        let Running { calls, values, waits, urgent, .. } = &*self.0;
        let take = async {
            Ok(Permit(Arc::new(match class {
                Class::Call(bytes) => {
                    let kib = bytes.div_ceil(1024).min(VALUES_KIB_MAX);
                    let kib = u32::try_from(kib).expect("below the number of permits");
                    let values = values.clone().acquire_many_owned(kib).await.map_err(closed)?;
                    vec![calls.clone().acquire_owned().await.map_err(closed)?, values]
                }
                Class::Wait => vec![waits.clone().try_acquire_owned().map_err(|_| too_many_wait())?],
                Class::Urgent => vec![urgent.clone().acquire_owned().await.map_err(closed)?],
            })))
        };
        match tokio::time::timeout_at(deadline, take).await {
            Ok(taken) => taken,
            Err(_) => Err(self.gave_up(Kind::Read, None)),
        }
    }

    /// One try. Dropping this takes it back if it was not sent, and cancels it if that can be done.
    pub(crate) async fn once(&self, attempt: Attempt) -> Outcome {
        let Attempt { request, identity, permit, send_by, deadline, undo } = attempt;
        let mut operation = v1::Operation { request: Some(request), ..v1::Operation::default() };
        if let Some(request) = identity {
            operation.client_id = Bytes::copy_from_slice(self.0.lanes.client_of(request).as_bytes());
            operation.request_id = Bytes::copy_from_slice(request.0.as_bytes());
        }
        let (id, answer) = self.0.shared.push(operation, send_by, permit);
        let mut asked = Asked { operations: self, id, answer: Some(answer), undo };
        asked.outcome(send_by, deadline).await
    }

    /// Why a call is given up.
    pub(crate) fn gave_up(&self, kind: Kind, uncertain: Option<String>) -> Error {
        match (kind, uncertain) {
            (Kind::Write(request), Some(message)) => Error::Unknown { request, message },
            (Kind::Read, Some(message)) => Error::DeadlineExceeded { message },
            (_, None) => self.0.shared.unreachable().unwrap_or_else(|| Error::DeadlineExceeded {
                message: "it was not sent: what this client asked before takes all there is".to_owned(),
            }),
        }
    }
}

/// Of an operation that was sent and not answered.
const NOT_IN_TIME: &str = "no answer before this client's deadline";

/// An operation that is asked. Dropping it takes it back, or cancels it, if it is not answered.
struct Asked<'a> {
    operations: &'a Operations,
    id: u64,
    answer: Option<state::Answer>,
    undo: Option<Undo>,
}

impl Asked<'_> {
    async fn outcome(&mut self, send_by: Instant, deadline: Instant) -> Outcome {
        let answer = self.answer.as_mut().expect("it is answered once");
        let answered = match tokio::time::timeout_at(send_by, &mut *answer).await {
            Ok(answered) => answered,
            Err(_) if !self.operations.0.shared.is_sent(self.id) => return Outcome::NotSent,
            Err(_) => match tokio::time::timeout_at(deadline, answer).await {
                Ok(answered) => answered,
                Err(_) => return Outcome::NoAnswer,
            },
        };
        self.answer = None;
        match answered {
            Ok(Ok((response, generation))) => Outcome::Answered(response, generation),
            Ok(Err(Gone(why))) => Outcome::Broken(why),
            Err(_) => Outcome::Broken("this client has ended".to_owned()),
        }
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let Some(answer) = self.answer.take() else { return };
        let cancel = self.undo.is_some();
        let was_sent = self.operations.0.shared.abandon(self.id, cancel);
        let Some(undo) = self.undo.take().filter(|_| was_sent) else { return };
        // It may have been done before it was cancelled.
        self.operations.spawn(async move {
            if let Ok(Ok((response, generation))) = answer.await {
                undo(response, generation);
            }
        });
    }
}

/// A refusal, as an error.
pub(crate) fn refused(failure: v1::Failure) -> Error {
    let v1::Failure { code, message, retry } = failure;
    Error::Refused(Refusal { code, message, retry: Retry::from_word(&retry) })
}

fn too_many_wait() -> Error {
    let message = format!("{WAITS_MAX} of this client wait for locks already, which is the limit");
    Error::Refused(Refusal { code: "limit_reached".to_owned(), message, retry: Retry::Later })
}

fn closed(_: tokio::sync::AcquireError) -> Error {
    Error::Disconnected { message: "this client has ended".to_owned() }
}
