//! A handle of one lock.

use std::time::Duration;

use coterie_proto::v1;
use coterie_proto::v1::operation::Request;
use coterie_proto::v1::result::Response;
use tokio::time::Instant;

use crate::client::{Client, RequestId};
use crate::clock::Deadline;
use crate::error::{Error, Kind};
use crate::handle::Handle;
use crate::operations::{Attempt, Class, Outcome, PAUSE_MAX, PAUSE_MIN, refused};
use crate::types::{Consistency, Revision, Token};
pub use guard::{LockGuard, LossReason};
use place::{Address, Hold, Place};

mod guard;
mod place;

/// The longest that a sidecar lets one request wait; who waits longer asks again, at the end of the queue.
const WAIT_MAX: Duration = Duration::from_secs(3_600);

/// A handle of one lock: one holder at a time, in the order of asking, each with a fencing [`Token`] that only rises. Cheap
/// to clone; holds nothing by itself.
///
/// ```no_run
/// # async fn example(client: coterie_client::Client) -> Result<(), coterie_client::Error> {
/// let lock = client.lock("nightly");
/// let guard = lock.acquire().await?;
/// println!("working under token {}", guard.token());
/// tokio::select! {
///     reason = guard.lost() => println!("stop at once: {reason}"),
///     () = async { /* the work: hand the token to whatever is written to */ } => guard.release().await?,
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Lock {
    of: Handle,
    lease: Option<Duration>,
}

/// A lock at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockInfo {
    /// Of the holder; `None`: it is free.
    pub token: Option<Token>,
    /// The cluster member (sidecar) that the holder is beside; empty if it is free.
    pub sidecar: String,
    /// How many wait for it.
    pub waiting: u32,
    /// Of the partition, when this was read.
    pub revision: Revision,
    /// For stale answers: how long ago the replica last heard from its leader; else zero.
    pub stale_for: Duration,
}

impl Lock {
    pub(crate) fn new(client: Client, name: String) -> Self {
        Self { of: Handle::new(client, name), lease: None }
    }

    /// The same name in another partition group (D15).
    #[must_use]
    pub fn in_partition_group(&self, partition_group: &str) -> Self {
        Self { of: self.of.in_partition_group(partition_group), lease: self.lease }
    }

    /// A handle whose first write carries this request id: repeats an [`Lock::acquire`] that was answered
    /// [`Error::Unknown`], so that it is applied once (D11). Use it for that one write only.
    #[must_use]
    pub fn with_request(&self, request: RequestId) -> Self {
        Self { of: self.of.with_request(request), lease: self.lease }
    }

    /// A handle that holds the lock by a lease of this time to live, 1 s to 1 h, which is renewed as long as the guard lives,
    /// instead of by the stream to the sidecar.
    ///
    /// | held by | when this process ends | when the connection to the sidecar breaks |
    /// |---|---|---|
    /// | the stream | released at once | lost |
    /// | a lease | released when the lease has run out | not surely held until it was renewed over a new one |
    #[must_use]
    pub fn with_lease(&self, ttl: Duration) -> Self {
        Self { of: self.of.clone(), lease: Some(ttl) }
    }

    /// The lock's name.
    pub fn name(&self) -> &str {
        &self.of.name
    }

    /// The client that this handle was made by.
    pub fn client(&self) -> &Client {
        &self.of.client
    }

    /// Waits for the lock, however long it takes, in the order of asking. Dropping the future gives up the place in the
    /// queue. After a broken connection it asks again, at the end of the queue, and fails if the sidecar cannot be reached
    /// for [`crate::ClientOptions::timeout`].
    pub async fn acquire(&self) -> Result<LockGuard, Error> {
        loop {
            if let Some(guard) = self.ask(Wait::Until(None)).await? {
                return Ok(guard);
            }
        }
    }

    /// Waits for the lock at most this long; `None` if it was not granted by then, and the place in the queue is given up.
    pub async fn acquire_within(&self, wait: Duration) -> Result<Option<LockGuard>, Error> {
        match wait.is_zero() {
            true => self.try_acquire().await,
            false => self.ask(Wait::Until(Some(Instant::now() + wait))).await,
        }
    }

    /// Takes the lock if it is free; `None` if it is not.
    pub async fn try_acquire(&self) -> Result<Option<LockGuard>, Error> {
        self.ask(Wait::Not).await
    }

    /// Who holds the lock, and how many wait.
    pub async fn get(&self, consistency: Consistency) -> Result<LockInfo, Error> {
        let Address { lock, partition_group } = self.address();
        let consistency = v1::Consistency::from(consistency).into();
        let request = Request::GetLock(v1::GetLockRequest { lock, partition_group, consistency });
        match self.of.client.operations().read(request).await? {
            Response::GetLock(lock) => Ok(lock.into()),
            _ => Err(Error::Protocol { missing: "lock" }),
        }
    }

    /// Asks until there is an answer that says whether the lock is held now.
    async fn ask(&self, wait: Wait) -> Result<Option<LockGuard>, Error> {
        let operations = self.of.client.operations();
        let class = if wait == Wait::Not { Class::Call(0) } else { Class::Wait };
        let permit = operations.permit(class, operations.deadline()).await?;
        // It does not count as open while it waits: were it refused for its age, it would be asked afresh.
        let mut request = self.of.request.unwrap_or_else(|| operations.mint().request);
        let mut pause = PAUSE_MIN;
        // Since when there has been no answer that helps.
        let mut failing: Option<Instant> = None;
        let mut uncertain = None;
        loop {
            let (begun, asked_at) = (Instant::now(), Deadline::now());
            let left = wait.left(begun);
            let send_by = begun + operations.timeout();
            let deadline = send_by + left;
            let (asked, identity) = (self.request_to_acquire(left), Some(request));
            let (permit, undo) = (permit.clone(), Some(Place::undo(&self.of.client, self.address(), self.hold())));
            let attempt = Attempt { request: asked, identity, permit, send_by, deadline, undo };
            let mut afresh = true;
            let error = match operations.once(attempt).await {
                Outcome::Answered(Response::Acquire(granted), generation) => {
                    let place =
                        Place::new(&self.of.client, self.address(), Token(granted.token), self.hold(), generation);
                    let until = asked_at.after(Duration::from_millis(granted.ttl_ms));
                    match LockGuard::begin(place, until, operations.timeout()).await {
                        Ok(guard) => return Ok(Some(guard)),
                        Err(error) => error,
                    }
                }
                Outcome::Answered(Response::Failure(failure), _) => match failure.code.as_str() {
                    "lock_held" => return Ok(None),
                    "unknown" => {
                        afresh = false;
                        uncertain = Some(failure.message.clone());
                        operations.gave_up(Kind::Write(request), Some(failure.message))
                    }
                    // The place that the id stands for is gone, or that is not known any more; none is left behind.
                    "token_unknown" | "session_unknown" | "expired" => refused(failure),
                    "waiting_for_management_group" => {
                        afresh = false;
                        refused(failure)
                    }
                    _ => return Err(refused(failure)),
                },
                Outcome::Answered(_, _) => return Err(Error::Protocol { missing: "token" }),
                Outcome::Broken(why) => {
                    // A lease may have been granted and not told; a place that hangs on the stream ended with it.
                    afresh = self.lease.is_none();
                    uncertain = self.lease.map(|_| why.clone());
                    operations.gave_up(Kind::Read, Some(why))
                }
                Outcome::NotSent => return Err(operations.gave_up(Kind::Write(request), uncertain)),
                Outcome::NoAnswer => {
                    return Err(operations.gave_up(Kind::Write(request), Some("no answer in time".to_owned())));
                }
            };
            if afresh {
                request = operations.mint().request;
                uncertain = None;
            }
            let now = Instant::now();
            let since = match failing {
                // It had been waiting in the queue.
                _ if now - begun > operations.timeout() => now,
                Some(since) => since,
                None => begun,
            };
            failing = Some(since);
            if now - since > operations.timeout() || wait.is_over(now) {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    fn request_to_acquire(&self, wait: Duration) -> Request {
        let Address { lock, partition_group } = self.address();
        let ttl_ms = self.lease.map_or(0, milliseconds);
        Request::Acquire(v1::AcquireRequest { lock, partition_group, wait_ms: milliseconds(wait), ttl_ms })
    }

    fn hold(&self) -> Hold {
        if self.lease.is_some() { Hold::Lease } else { Hold::Stream }
    }

    fn address(&self) -> Address {
        let (lock, partition_group) = self.of.address();
        Address { lock, partition_group }
    }
}

/// How long to wait for a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// Only if it is free.
    Not,
    /// Until then, or for ever.
    Until(Option<Instant>),
}

impl Wait {
    fn left(self, now: Instant) -> Duration {
        match self {
            Self::Not => Duration::ZERO,
            Self::Until(None) => WAIT_MAX,
            // Whoever waits is never taken for one that does not.
            Self::Until(Some(until)) => (until - now).clamp(Duration::from_millis(1), WAIT_MAX),
        }
    }

    fn is_over(self, now: Instant) -> bool {
        matches!(self, Self::Until(Some(until)) if until <= now)
    }
}

/// Rounded up: less than a millisecond is not nothing.
fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX)
}

impl From<v1::Lock> for LockInfo {
    fn from(lock: v1::Lock) -> Self {
        let v1::Lock { name: _, partition_group: _, token, sidecar, waiting, revision, stale_ms } = lock;
        Self {
            token: (token != 0).then_some(Token(token)),
            sidecar,
            waiting,
            revision: Revision(revision),
            stale_for: Duration::from_millis(stale_ms),
        }
    }
}
