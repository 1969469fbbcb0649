//! The connection to the sidecar.

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use coterie_proto::v1;
use coterie_proto::v1::maps_client::MapsClient;
use coterie_proto::v1::operations_client::OperationsClient;
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

use crate::error::{Error, Kind};
use crate::group::Group;
use crate::lock::Lock;
use crate::map::Map;
use crate::operations::Operations;
use crate::types::GroupInfo;

/// Where the sidecar of this pod listens when nothing else is said.
const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:7300";
/// A silent connection is given up after this and one more time-out; longer than the default session time-out, because
/// closing it ends the memberships that it holds.
const SILENCE: Duration = Duration::from_secs(10);
/// A listing of the largest group stays below this.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What one stream may send unread: a watcher that is slow leaves the rest of its events at the sidecar.
const STREAM_WINDOW_BYTES: u32 = 128 * 1024;
/// What the whole connection may send unread: more than all streams that a sidecar takes (10,000), so that none that is not
/// read keeps another from going on. This is the largest window that HTTP/2 has (RFC 9113, section 6.9.1).
const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;
const _: () = assert!(10_000 * (STREAM_WINDOW_BYTES as u64) < CONNECTION_WINDOW_BYTES as u64);

/// The identity of one write (D11): a retry with the same one is applied once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub Uuid);

impl RequestId {
    /// A new one, larger than all that this process minted before.
    pub fn mint() -> Self {
        Self(Uuid::now_v7())
    }
}

/// What belongs to one client, as opposed to a group's replicated configuration (S20).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// The client's identity for deduplication (D11). Default: a new one. Keep it to repeat a write after a restart.
    pub id: Uuid,
    /// Every call ends within this time; at most 60 s. Default 5 s.
    pub timeout: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self { id: Uuid::now_v7(), timeout: Duration::from_secs(5) }
    }
}

/// A connection to one sidecar. Cheap to clone; it connects at first use and again after it broke.
///
/// ```no_run
/// # async fn example() -> Result<(), coterie_client::Error> {
/// let client = coterie_client::Client::connect("unix:/run/coterie/coterie.sock")?;
/// for group in client.groups().await? {
///     println!("{}: term {}, {} members", group.name, group.term, group.members.len());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    endpoint: Arc<str>,
    options: Arc<ClientOptions>,
    /// Opened at first use.
    operations: Arc<OnceLock<Operations>>,
}

impl Client {
    /// A client of the sidecar at `http://host:port` or `unix:/path`, with default options. Must be called within a Tokio
    /// runtime; does not wait for the sidecar.
    pub fn connect(endpoint: &str) -> Result<Self, Error> {
        Self::connect_with(endpoint, ClientOptions::default())
    }

    /// A client with its own options.
    pub fn connect_with(endpoint: &str, options: ClientOptions) -> Result<Self, Error> {
        let invalid = |reason: String| Error::Endpoint { endpoint: endpoint.to_owned(), reason };
        let settings = |uri: &str| -> Result<Endpoint, Error> {
            Ok(Endpoint::from_shared(uri.to_owned())
                .map_err(|error| invalid(error.to_string()))?
                .connect_timeout(options.timeout)
                .tcp_nodelay(true)
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                .http2_keep_alive_interval(SILENCE)
                .keep_alive_timeout(SILENCE)
                .keep_alive_while_idle(true))
        };
        let channel = if let Some(path) = endpoint.strip_prefix("unix:") {
            let path = PathBuf::from(path.strip_prefix("//").unwrap_or(path));
            settings("http://localhost")?.connect_with_connector_lazy(tower::service_fn(move |_| {
                let path = path.clone();
                async move { tokio::net::UnixStream::connect(path).await.map(hyper_util::rt::TokioIo::new) }
            }))
        } else if endpoint.starts_with("http://") {
            settings(endpoint)?.connect_lazy()
        } else {
            return Err(invalid("it begins with neither http:// nor unix:".to_owned()));
        };
        Ok(Self { channel, endpoint: endpoint.into(), options: Arc::new(options), operations: Arc::default() })
    }

    /// A client of this pod's sidecar: `COTERIE_SOCKET` (a path) if set, else `COTERIE_ENDPOINT`, else
    /// `http://127.0.0.1:7300`.
    pub fn from_env() -> Result<Self, Error> {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        match (set("COTERIE_SOCKET"), set("COTERIE_ENDPOINT")) {
            (Some(path), _) => Self::connect(&format!("unix:{}", path.trim_start_matches("unix:"))),
            (None, Some(endpoint)) => Self::connect(&endpoint),
            (None, None) => Self::connect(DEFAULT_ENDPOINT),
        }
    }

    /// A handle of the group of this name, in the default partition group (D15). Asks nothing of the cluster: two handles
    /// of one name are the same replicated group (S1).
    pub fn group(&self, name: impl Into<String>) -> Group {
        Group::new(self.clone(), name.into())
    }

    /// A handle of the map of this name, in the default partition group (D15). Asks nothing of the cluster: the first put
    /// makes the map.
    pub fn map(&self, name: impl Into<String>) -> Map {
        Map::new(self.clone(), name.into())
    }

    /// A handle of the lock of this name, in the default partition group (D15). Asks nothing of the cluster.
    pub fn lock(&self, name: impl Into<String>) -> Lock {
        Lock::new(self.clone(), name.into())
    }

    /// All groups of the default partition group, by name.
    pub async fn groups(&self) -> Result<Vec<GroupInfo>, Error> {
        self.groups_in("").await
    }

    /// All groups of a partition group, by name.
    pub async fn groups_in(&self, partition_group: &str) -> Result<Vec<GroupInfo>, Error> {
        let message = v1::ListGroupsRequest { partition_group: partition_group.to_owned() };
        let mut wire = self.wire();
        let answer = self.read(|request| async move { wire.list(request).await }, message).await?;
        Ok(answer.groups.into_iter().map(Into::into).collect())
    }

    /// The cluster as this sidecar sees it.
    pub async fn status(&self) -> Result<Status, Error> {
        let mut wire = v1::cluster_info_client::ClusterInfoClient::new(self.channel.clone());
        let answer = self.read(|request| async move { wire.status(request).await }, v1::StatusRequest {}).await?;
        Ok(answer.into())
    }

    /// The identity and deadline of this client.
    pub fn options(&self) -> &ClientOptions {
        &self.options
    }

    /// Where this client looks for its sidecar.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(crate) fn wire(&self) -> v1::groups_client::GroupsClient<Channel> {
        v1::groups_client::GroupsClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub(crate) fn maps(&self) -> MapsClient<Channel> {
        MapsClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// The stream that maps and locks share.
    pub(crate) fn operations(&self) -> &Operations {
        self.operations.get_or_init(|| {
            let wire = OperationsClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
            Operations::start(wire, self.endpoint.clone(), self.options.id, self.options.timeout)
        })
    }

    pub(crate) fn error(&self, status: &tonic::Status, kind: Kind) -> Error {
        Error::from_status(status, kind, &self.endpoint)
    }

    /// A request with the identity of a write, if it is one; without a deadline (for streams).
    pub(crate) fn open_request<T>(&self, message: T, request: Option<RequestId>) -> tonic::Request<T> {
        let mut wrapped = tonic::Request::new(message);
        let mut put = |key: &'static str, value: Uuid| {
            let value = value.to_string().parse().expect("a UUID is ASCII");
            wrapped.metadata_mut().insert(key, value);
        };
        // A read has no identity: nothing is remembered of it.
        if let Some(RequestId(id)) = request {
            put("coterie-client-id", self.options.id);
            put("coterie-request-id", id);
        }
        wrapped
    }

    /// Sends a read.
    pub(crate) async fn read<Q, A, F>(&self, call: impl FnOnce(tonic::Request<Q>) -> F, message: Q) -> Result<A, Error>
    where
        F: Future<Output = Result<tonic::Response<A>, tonic::Status>>,
    {
        self.send(call, self.open_request(message, None), Kind::Read).await
    }

    /// Sends a write under the given identity.
    pub(crate) async fn write<Q, A, F>(
        &self,
        call: impl FnOnce(tonic::Request<Q>) -> F,
        message: Q,
        request: RequestId,
    ) -> Result<A, Error>
    where
        F: Future<Output = Result<tonic::Response<A>, tonic::Status>>,
    {
        self.send(call, self.open_request(message, Some(request)), Kind::Write(request)).await
    }

    /// Waits until a stream is open.
    pub(crate) async fn open<A>(
        &self,
        opening: impl Future<Output = Result<tonic::Response<tonic::Streaming<A>>, tonic::Status>>,
    ) -> Result<tonic::Streaming<A>, Error> {
        match tokio::time::timeout(self.options.timeout, opening).await {
            Ok(Ok(stream)) => Ok(stream.into_inner()),
            Ok(Err(status)) => Err(self.error(&status, Kind::Read)),
            Err(_) => Err(Error::not_in_time(Kind::Read)),
        }
    }

    async fn send<Q, A, F>(
        &self,
        call: impl FnOnce(tonic::Request<Q>) -> F,
        mut request: tonic::Request<Q>,
        kind: Kind,
    ) -> Result<A, Error>
    where
        F: Future<Output = Result<tonic::Response<A>, tonic::Status>>,
    {
        // The sidecar is given a little less, so that its answer (which says more than "no answer") can still arrive.
        let within = self.options.timeout.saturating_sub(self.options.timeout / 10).as_millis().max(1);
        let within = within.to_string().parse().expect("digits are ASCII");
        request.metadata_mut().insert("coterie-timeout-ms", within);
        match tokio::time::timeout(self.options.timeout, call(request)).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(self.error(&status, kind)),
            Err(_) => Err(Error::not_in_time(kind)),
        }
    }
}

/// The cluster as one sidecar sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The sidecar that answered.
    pub member: String,
    /// The cluster's name.
    pub cluster: String,
    /// The cluster's identity; empty until it is formed or found. A cluster whose volumes are all gone gets a new one (D4).
    pub cluster_id: String,
    /// `starting`, `waiting_for_members`, `waiting_for_management_group`, `refused`, `running` or `draining`.
    pub state: String,
    /// Why, in a sentence, when not running.
    pub reason: String,
    /// The sidecar's version.
    pub version: String,
    /// How many times a process was started on this sidecar's data directory.
    pub start_counter: u64,
    /// The members of the cluster.
    pub members: Vec<StatusMember>,
    /// The partition groups, the management group first.
    pub partition_groups: Vec<StatusPartitionGroup>,
}

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusMember {
    /// Its name.
    pub name: String,
    /// `persistent` or `ephemeral`.
    pub kind: String,
    /// `host:port` of its peer port; empty if it cannot be dialled.
    pub address: String,
    /// Its failure domain; empty if unknown.
    pub zone: String,
    /// Whether it votes in the management group.
    pub voter: bool,
    /// Whether the answering sidecar reaches it.
    pub reachable: bool,
    /// Its version.
    pub version: String,
    /// Why its data directory is refused; empty when it is not (D14).
    pub refused: String,
}

/// A partition group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusPartitionGroup {
    /// Its name.
    pub name: String,
    /// Its protocol: `raft`.
    pub kind: String,
    /// `forming`, `running` or `deleting`.
    pub state: String,
    /// Its partitions, by number.
    pub partitions: Vec<StatusPartition>,
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusPartition {
    /// From 1.
    pub index: u32,
    /// The cluster member that leads it; `None` if unknown.
    pub leader: Option<String>,
    /// The Raft term.
    pub term: u64,
    /// The cluster members that hold it.
    pub replicas: Vec<String>,
    /// The index in its log up to which the answering sidecar's replica has applied it; 0 if it holds none.
    pub applied: u64,
    /// Whether the answering sidecar holds a replica.
    pub local: bool,
    /// Whether a majority follows its leader, as far as the answering sidecar knows.
    pub has_quorum: bool,
    /// Why the answering sidecar's replica refuses writes for want of room, or would if it led; empty while it takes them.
    pub read_only: String,
}

impl From<v1::StatusResponse> for Status {
    fn from(status: v1::StatusResponse) -> Self {
        let v1::StatusResponse {
            member,
            cluster,
            cluster_id,
            state,
            reason,
            version,
            members,
            partition_groups,
            start_counter,
        } = status;
        Self {
            member,
            cluster,
            cluster_id,
            state,
            reason,
            version,
            start_counter,
            members: members.into_iter().map(Into::into).collect(),
            partition_groups: partition_groups.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<v1::ClusterMember> for StatusMember {
    fn from(member: v1::ClusterMember) -> Self {
        let v1::ClusterMember { name, r#type, address, zone, voter, reachable, version, refused } = member;
        Self { name, kind: r#type, address, zone, voter, reachable, version, refused }
    }
}

impl From<v1::PartitionGroupStatus> for StatusPartitionGroup {
    fn from(group: v1::PartitionGroupStatus) -> Self {
        let v1::PartitionGroupStatus { name, r#type, partitions, state } = group;
        Self { name, kind: r#type, state, partitions: partitions.into_iter().map(Into::into).collect() }
    }
}

impl From<v1::PartitionStatus> for StatusPartition {
    fn from(partition: v1::PartitionStatus) -> Self {
        let v1::PartitionStatus { partition: index, leader, term, replicas, applied, local, has_quorum, read_only } =
            partition;
        let leader = (!leader.is_empty()).then_some(leader);
        Self { index, leader, term, replicas, applied, local, has_quorum, read_only }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_endpoint_of_another_kind_is_refused_with_what_would_be_right() {
        let error = Client::connect("localhost:7300").expect_err("no scheme");
        assert_eq!(error.code(), "endpoint_invalid");
        assert!(error.to_string().contains("http://127.0.0.1:7300"), "{error}");
    }

    #[tokio::test]
    async fn a_sidecar_that_is_not_there_is_unreachable_and_nothing_was_applied() {
        let client = Client::connect("unix:/nonexistent/coterie.sock").expect("well formed");
        let error = client.group("workers").create(None).await.expect_err("nobody listens");
        assert_eq!(error.code(), "unreachable", "{error}");
    }

    #[test]
    fn d11_request_ids_rise() {
        let ids: Vec<_> = (0..1_000).map(|_| RequestId::mint()).collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
