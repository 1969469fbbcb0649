//! Every operation, once. Both wires bring the same typed request here and carry the same typed reply back.
//!
//! A request is counted, admitted (bounds, the sidecar's state), checked field by field so that nobody waits for a quorum
//! to be told of a typing error, and then handed to the router or to the presences. Nothing is decided here that the
//! partition's state machine decides.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::HeaderMap;
use coterie_core::limits::WATCHES_MAX;
use coterie_core::machine::validate;
use coterie_core::{ErrorCode, PartitionId, Primitive, PrimitiveKind, Rejection, RequestId};
use coterie_proto::v1;
use coterie_replication::ReadKind;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::call::{Call, invalid};
use super::counters::Counters;
use crate::deadline::Deadline;
use crate::limits::{OPERATIONS_BYTES_MAX, OPERATIONS_MAX, REQUESTS_MAX, TRY_MS_MAX};
use crate::node::Node;
use crate::state::State;

mod groups;
mod locks;
pub(super) mod maps;

pub(super) use maps::value_of;

/// The operations. Cheap to clone.
#[derive(Clone)]
pub struct Ops(Arc<Inner>, Option<Arc<Admitted>>);

struct Inner {
    node: Node,
    counters: Counters,
    requests: Arc<Semaphore>,
    watches: Arc<Semaphore>,
    operations: Arc<UnderWay>,
}

/// What is under way over streams.
#[derive(Default)]
struct UnderWay {
    operations: AtomicUsize,
    bytes: AtomicUsize,
}

/// A place among the operations of streams. Dropping it gives it back.
pub(super) struct Passage {
    under_way: Arc<UnderWay>,
    bytes: usize,
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.under_way.operations.fetch_sub(1, Ordering::Relaxed);
        self.under_way.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A place among the requests that are served, and by when this one wants its answer.
pub struct Admitted {
    deadline: Deadline,
    _permit: OwnedSemaphorePermit,
}

/// What an operation needs of its caller.
pub(super) struct Caller {
    request: RequestId,
    /// Whether the caller named no request, so that this sidecar minted one.
    minted: bool,
    deadline: Deadline,
}

/// A map or a lock, and where it lives.
pub(super) struct Home {
    partition: PartitionId,
    of: Primitive,
    /// Whether the management group is known to have recorded it (S94).
    recorded: bool,
}

/// When an operation may be done.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// Once the cluster is known, also while draining: leaders must be able to release.
    Serving,
    /// Not while draining.
    Joining,
}

/// Whether a sidecar in this state takes such an operation.
fn admit(state: &State, when: When) -> Result<(), Rejection> {
    match state {
        State::Running => Ok(()),
        State::Draining if when == When::Serving => Ok(()),
        State::Draining => {
            Err(Rejection::new(ErrorCode::ShuttingDown, "the sidecar is draining and takes no new members"))
        }
        State::Refused(rejection) => Err(rejection.clone()),
        State::Starting | State::WaitingForMembers { missing: _ } | State::WaitingForManagementGroup { reason: _ } => {
            let reason = state.reason();
            let reason = if reason.is_empty() { "it is starting".to_owned() } else { reason };
            Err(Rejection::new(
                ErrorCode::WaitingForManagementGroup,
                format!("the sidecar waits for the management group: {reason}"),
            ))
        }
    }
}

impl Home {
    /// Where it lives.
    pub(super) fn partition(&self) -> &PartitionId {
        &self.partition
    }

    /// Whether it may be remembered: what it says stays true as long as the directory is the same.
    pub(super) fn is_settled(&self) -> bool {
        self.recorded
    }
}

impl Ops {
    /// The operations of a node.
    pub fn new(node: Node, counters: Counters) -> Self {
        let inner = Inner {
            node,
            counters,
            requests: Arc::new(Semaphore::new(REQUESTS_MAX)),
            watches: Arc::new(Semaphore::new(WATCHES_MAX)),
            operations: Arc::default(),
        };
        Self(Arc::new(inner), None)
    }

    /// Gives a request its place before it is read, and starts its time.
    ///
    /// # Errors
    /// `overloaded`.
    pub fn begin(&self, timeout_ms: u64) -> Result<Arc<Admitted>, Rejection> {
        let permit = Arc::clone(&self.0.requests).try_acquire_owned().map_err(|_| {
            let message = format!("{REQUESTS_MAX} requests are being served, which is the limit; send it again later");
            Rejection::new(ErrorCode::Overloaded, message)
        })?;
        let deadline = Deadline::after_ms(self.node().env(), timeout_ms);
        Ok(Arc::new(Admitted { deadline, _permit: permit }))
    }

    /// The operations for a request that has its place already; `None`: each operation takes its own.
    pub fn of(&self, admitted: Option<Arc<Admitted>>) -> Self {
        Self(Arc::clone(&self.0), admitted)
    }

    /// The node.
    pub fn node(&self) -> &Node {
        &self.0.node
    }

    /// Counts a request that a wire refused before it became an operation.
    pub fn refused(&self, rejection: &Rejection) {
        self.0.counters.count::<()>("none", &Err(rejection.clone()));
    }

    /// The cluster as this sidecar sees it.
    pub fn status(&self) -> v1::StatusResponse {
        self.0.counters.count::<()>("status", &Ok(()));
        self.node().status()
    }

    /// Gives up in good order what this sidecar holds; comes back when that is done. It goes on when the caller leaves.
    pub async fn drain(&self) -> Result<(), Rejection> {
        let node = self.node().clone();
        let (done, waiting) = tokio::sync::oneshot::channel();
        let task = async move {
            node.drain().await;
            // Nobody may be waiting any more.
            let _ = done.send(());
        };
        self.node().env().spawn.spawn("api-drain", Box::pin(task));
        let result = waiting.await.map_err(|_| Rejection::new(ErrorCode::Internal, "the drain was given up"));
        self.0.counters.count("drain", &result);
        result
    }

    async fn run<T>(
        &self,
        op: &'static str,
        headers: &HeaderMap,
        when: When,
        serve: impl AsyncFnOnce(Caller) -> Result<T, Rejection>,
    ) -> Result<T, Rejection> {
        let served = async {
            let call = Call::from_headers(headers)?;
            let admitted = match &self.1 {
                Some(admitted) => Arc::clone(admitted),
                None => self.begin(call.timeout_ms)?,
            };
            self.check_state(when)?;
            serve(self.caller(call, admitted.deadline)).await
        };
        let result = served.await;
        self.0.counters.count(op, &result);
        result
    }

    /// A place for an operation of a stream that brings a value of this many bytes.
    ///
    /// # Errors
    /// `overloaded`.
    pub(super) fn pass(&self, bytes: usize) -> Result<Passage, Rejection> {
        // The place is made first, so that dropping it undoes both counts.
        let passage = Passage { under_way: Arc::clone(&self.0.operations), bytes };
        let operations = self.0.operations.operations.fetch_add(1, Ordering::Relaxed) + 1;
        let total = self.0.operations.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if operations <= OPERATIONS_MAX && total <= OPERATIONS_BYTES_MAX {
            return Ok(passage);
        }
        let message = format!(
            "{OPERATIONS_MAX} operations or {OPERATIONS_BYTES_MAX} bytes are under way, which is the limit; send it again \
             later"
        );
        Err(Rejection::new(ErrorCode::Overloaded, message))
    }

    /// Counts an operation of a stream.
    pub(super) fn count<T>(&self, op: &'static str, result: &Result<T, Rejection>) {
        self.0.counters.count(op, result);
    }

    /// Whether the sidecar takes such an operation now.
    pub(super) fn check_state(&self, when: When) -> Result<(), Rejection> {
        admit(&self.node().state().borrow(), when)
    }

    /// Where a map or a lock lives.
    pub(super) fn home(&self, kind: PrimitiveKind, name: &str, partition_group: &str) -> Result<Home, Rejection> {
        validate::name(kind.label(), name)?;
        validate::label("partition_group", partition_group)?;
        let of = Primitive { kind, name: name.into() };
        let asked = Some(partition_group).filter(|name| !name.is_empty());
        let router = self.node().router();
        let partition = router.locate(asked, &of)?;
        let recorded = router.is_recorded(&partition, &of)?;
        Ok(Home { partition, of, recorded })
    }

    /// Records a map or a lock before its first use (S94).
    async fn record(&self, home: &Home, deadline: Deadline) -> Result<(), Rejection> {
        if home.recorded {
            return Ok(());
        }
        self.node().router().record(&home.partition, &home.of, deadline).await
    }

    /// The caller of an operation of a stream, whose time starts now.
    pub(super) fn caller_now(&self, call: Call) -> Caller {
        self.caller(call, Deadline::after_ms(self.node().env(), call.timeout_ms))
    }

    fn caller(&self, call: Call, deadline: Deadline) -> Caller {
        let minted = call.request.is_none();
        Caller { request: call.request.unwrap_or_else(|| self.node().router().mint()), minted, deadline }
    }

    /// An earlier deadline, which leaves time to try something else.
    fn half(&self, deadline: Deadline) -> Deadline {
        let env = self.node().env();
        let left_ms = u64::try_from(deadline.remaining(env).as_millis()).unwrap_or(u64::MAX);
        Deadline::after_ms(env, TRY_MS_MAX.min(left_ms / 2))
    }

    pub(super) fn watch_permit(&self) -> Result<OwnedSemaphorePermit, Rejection> {
        Arc::clone(&self.0.watches).try_acquire_owned().map_err(|_| {
            let message = format!("this sidecar serves {WATCHES_MAX} watches, which is the limit; end one of them");
            Rejection::new(ErrorCode::LimitReached, message)
        })
    }
}

fn answered_otherwise() -> Rejection {
    Rejection::new(ErrorCode::Internal, "the partition answered something else than what was asked")
}

fn read_kind(consistency: i32) -> Result<ReadKind, Rejection> {
    match v1::Consistency::try_from(consistency) {
        Ok(v1::Consistency::Unspecified | v1::Consistency::Linearizable) => Ok(ReadKind::Linearizable),
        Ok(v1::Consistency::Leased) => Ok(ReadKind::Leased),
        Ok(v1::Consistency::Stale) => Ok(ReadKind::Stale),
        Err(_) => Err(invalid("consistency", format_args!("is {consistency}; choose linearizable, leased or stale"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d22_a_sidecar_without_management_group_answers_so() {
        let unheard = State::WaitingForManagementGroup { reason: String::new() };
        for state in [State::Starting, unheard] {
            assert_eq!(admit(&state, When::Serving).unwrap_err().code, ErrorCode::WaitingForManagementGroup);
        }
        let rejected = State::WaitingForManagementGroup { reason: "the volume of one is full".to_owned() };
        let rejection = admit(&rejected, When::Serving).unwrap_err();
        assert!(rejection.message.ends_with("waits for the management group: the volume of one is full"));
        let waiting = State::WaitingForMembers { missing: vec!["member-2".to_owned()] };
        assert!(admit(&waiting, When::Serving).unwrap_err().message.contains("member-2"));
    }

    #[test]
    fn d14_a_refused_sidecar_answers_why() {
        let why = Rejection::new(ErrorCode::DirectoryCopied, "another process runs on a copy");
        assert_eq!(admit(&State::Refused(why.clone()), When::Serving), Err(why));
    }

    #[test]
    fn d16_a_draining_sidecar_takes_releases_but_no_new_members() {
        assert_eq!(admit(&State::Draining, When::Serving), Ok(()));
        assert_eq!(admit(&State::Draining, When::Joining).unwrap_err().code, ErrorCode::ShuttingDown);
        assert_eq!(admit(&State::Running, When::Joining), Ok(()));
    }

    #[test]
    fn d12_an_unknown_consistency_is_refused_by_name() {
        assert_eq!(read_kind(0), Ok(ReadKind::Linearizable));
        assert_eq!(read_kind(2), Ok(ReadKind::Stale));
        assert!(read_kind(9).unwrap_err().message.starts_with("consistency: "));
    }
}
