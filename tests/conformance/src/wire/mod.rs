//! The application's API as tests use it: the same calls over gRPC and over HTTP, with the protobuf messages as the common
//! form.

mod grpc;
mod http;
mod json;
pub mod primitives;
mod sse;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use coterie_proto::v1;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::harness::PATIENCE;
pub use grpc::Grpc;
pub use http::Http;
pub use primitives::Primitives;

/// A refusal, as the caller gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The stable word; empty if the answer has none.
    pub code: String,
    /// The sentence.
    pub message: String,
    /// `now`, `later` or `never`.
    pub retry: String,
    /// The wire's own status, as text.
    pub status: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, retry {}): {}", self.code, self.status, self.retry, self.message)
    }
}

/// An answer or a refusal.
pub type Answer<T> = Result<T, Failure>;

/// What a stream of presence says after its `joined`.
pub type Said = v1::join_stream_response::Kind;

/// How to join.
#[derive(Clone, Debug, Default)]
pub struct Joining {
    /// Metadata.
    pub metadata: BTreeMap<String, String>,
    /// Zone; empty for the sidecar's.
    pub zone: String,
    /// For leases; 0 for the default.
    pub ttl_ms: u64,
}

impl Joining {
    /// With one entry of metadata.
    pub fn named(name: &str) -> Self {
        Self { metadata: BTreeMap::from([("name".to_owned(), name.to_owned())]), ..Self::default() }
    }

    /// With a lease of this length.
    pub fn lease(ttl_ms: u64) -> Self {
        Self { ttl_ms, ..Self::default() }
    }
}

/// A membership that lasts as long as its stream.
#[derive(Debug)]
pub struct Held {
    /// What `joined` said.
    pub joined: v1::JoinResponse,
    /// What comes after it. Dropping it closes the stream.
    pub said: Events<Said>,
}

impl Held {
    /// The member's id.
    pub fn id(&self) -> u64 {
        self.joined.member.as_ref().expect("joined says which member").id
    }

    /// Waits until the stream says that this member leads, and gives the term.
    pub async fn leads(&mut self) -> u64 {
        let id = self.id();
        self.said
            .find("the member leads", |said| match said {
                Said::Self_(state) if state.member == id && state.leads && !state.releasing => Some(state.term),
                _ => None,
            })
            .await
    }
}

/// Whether a write is conditional. 0: not.
#[derive(Clone, Copy, Debug, Default)]
pub struct If {
    /// On the configuration's revision.
    pub config_revision: u64,
    /// On the term.
    pub term: u64,
}

/// One way to call the application's API. Cheap to clone.
#[allow(async_fn_in_trait)]
pub trait Wire: Primitives + Clone + 'static {
    /// A client of the sidecar at `http://127.0.0.1:port`, which leaves its identity to the sidecar.
    fn connect(endpoint: &str) -> Self;
    /// The same client with an identity and the id of its next write (D11).
    fn identified(&self, client: Uuid, request: Uuid) -> Self;
    /// The same client with a deadline for its calls.
    fn within(&self, deadline: Duration) -> Self;
    /// The same client in another partition group (D15).
    fn in_partition_group(&self, name: &str) -> Self;

    /// Create.
    async fn create(&self, group: &str, config: Option<v1::GroupConfig>) -> Answer<v1::Group>;
    /// Get, linearizable.
    async fn get(&self, group: &str) -> Answer<v1::Group> {
        self.read(group, v1::Consistency::Linearizable).await
    }
    /// Get.
    async fn read(&self, group: &str, consistency: v1::Consistency) -> Answer<v1::Group>;
    /// List.
    async fn list(&self) -> Answer<Vec<v1::Group>>;
    /// Configure.
    async fn configure(&self, group: &str, config: v1::GroupConfig, only_if: If) -> Answer<v1::Group>;
    /// Delete.
    async fn delete(&self, group: &str) -> Answer<()>;
    /// Join with a lease.
    async fn join(&self, group: &str, joining: Joining) -> Answer<v1::JoinResponse>;
    /// Join with a stream.
    async fn hold(&self, group: &str, joining: Joining) -> Answer<Held>;
    /// Renew a lease.
    async fn renew(&self, group: &str, member: u64) -> Answer<v1::RenewResponse>;
    /// Leave.
    async fn leave(&self, group: &str, member: u64) -> Answer<()>;
    /// Replace metadata.
    async fn set_metadata(
        &self,
        group: &str,
        member: u64,
        metadata: BTreeMap<String, String>,
        if_term: u64,
    ) -> Answer<v1::Member>;
    /// Step down.
    async fn step_down(&self, group: &str, if_term: u64) -> Answer<v1::Group>;
    /// Release.
    async fn release(&self, group: &str, term: u64) -> Answer<v1::Group>;
    /// Watch, after an id or from now.
    async fn watch(&self, group: &str, after: &str) -> Answer<Events<v1::GroupEvent>>;
    /// Self.
    async fn itself(&self, group: &str) -> Answer<v1::SelfResponse>;
    /// Status.
    async fn status(&self) -> Answer<v1::StatusResponse>;
}

/// What a stream gives. Dropping it closes the stream.
#[derive(Debug)]
pub struct Events<T> {
    items: mpsc::UnboundedReceiver<Answer<T>>,
    _task: AbortOnDropHandle<()>,
}

impl<T: fmt::Debug> Events<T> {
    /// A stream that `pump` fills.
    pub(crate) fn start<F>(pump: impl FnOnce(mpsc::UnboundedSender<Answer<T>>) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (sender, items) = mpsc::unbounded_channel();
        Self { items, _task: AbortOnDropHandle::new(tokio::spawn(pump(sender))) }
    }

    /// The next item; `None` at the end.
    ///
    /// # Panics
    /// When nothing comes in time, or an error does.
    pub async fn next(&mut self) -> Option<T> {
        match tokio::time::timeout(PATIENCE, self.items.recv()).await {
            Ok(Some(Ok(item))) => Some(item),
            Ok(Some(Err(failure))) => panic!("the stream failed: {failure}"),
            Ok(None) => None,
            Err(_) => panic!("nothing came within {PATIENCE:?}"),
        }
    }

    /// Waits for the first item that `wanted` takes, and skips those before it.
    ///
    /// # Panics
    /// When it does not come, or the stream ends or fails before; the message lists what came.
    pub async fn find<R>(&mut self, what: &str, mut wanted: impl FnMut(&T) -> Option<R>) -> R {
        let mut seen = Vec::new();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            match tokio::time::timeout_at(deadline, self.items.recv()).await {
                Ok(Some(Ok(item))) => match wanted(&item) {
                    Some(found) => return found,
                    None => seen.push(item),
                },
                Ok(Some(Err(failure))) => panic!("waited until {what}; the stream failed: {failure}; seen: {seen:#?}"),
                Ok(None) => panic!("waited until {what}; the stream ended; seen: {seen:#?}"),
                Err(_) => panic!("waited {PATIENCE:?} until {what}; seen: {seen:#?}"),
            }
        }
    }

    /// Waits for the end of the stream, and gives its error if it has one.
    ///
    /// # Panics
    /// When it does not end in time.
    pub async fn end(&mut self) -> Option<Failure> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            match tokio::time::timeout_at(deadline, self.items.recv()).await {
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(failure))) => return Some(failure),
                Ok(None) => return None,
                Err(_) => panic!("the stream did not end within {PATIENCE:?}"),
            }
        }
    }
}

/// One change, taken out of its envelope.
pub type Change = v1::group_event::Kind;

impl Events<v1::GroupEvent> {
    /// Waits for the first change that `wanted` takes.
    pub async fn change<R>(&mut self, what: &str, mut wanted: impl FnMut(&Change) -> Option<R>) -> R {
        self.find(what, |event| event.kind.as_ref().and_then(&mut wanted)).await
    }

    /// Waits for an election in a term above `above`: term and leader.
    pub async fn elected(&mut self, above: u64) -> (u64, u64) {
        self.change("a leader is elected", |change| match change {
            Change::Elected(elected) if elected.term > above => Some((elected.term, elected.leader)),
            _ => None,
        })
        .await
    }

    /// Waits for the leave of a member: why.
    pub async fn left(&mut self, id: u64) -> String {
        self.change("the member leaves", |change| match change {
            Change::Left(left) if left.member == id => Some(left.reason.clone()),
            _ => None,
        })
        .await
    }

    /// Waits until a member is not in the group, for a watch that was just opened.
    pub async fn left_or_absent(mut self, id: u64) {
        self.change("the member is absent", |change| match change {
            Change::Snapshot(group) => (!ids(group).contains(&id)).then_some(()),
            Change::Left(left) => (left.member == id).then_some(()),
            _ => None,
        })
        .await;
    }

    /// Waits for the next join: the member.
    pub async fn joined(&mut self) -> v1::Member {
        self.change("a member joins", |change| match change {
            Change::Joined(member) => Some(member.clone()),
            _ => None,
        })
        .await
    }

    /// Takes the first event, which must be a snapshot.
    ///
    /// # Panics
    /// When it is something else.
    pub async fn snapshot(&mut self) -> v1::Group {
        match self.next().await.and_then(|event| event.kind) {
            Some(Change::Snapshot(group)) => group,
            other => panic!("a watch begins with a snapshot, not with {other:?}"),
        }
    }
}

/// The ids of a group's members, in order.
pub fn ids(group: &v1::Group) -> Vec<u64> {
    group.members.iter().map(|member| member.id).collect()
}
