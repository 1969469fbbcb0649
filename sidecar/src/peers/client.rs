//! Calls to peers by name.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use coterie_core::{ErrorCode, MemberName, PartitionId, Rejection};
use coterie_env::Env;
use coterie_proto::peer;
use coterie_proto::peer::frame::Body;
use coterie_proto::peer::peer_client::PeerClient;
use coterie_replication::transport::{self, Target, Transport};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint, Uri};

use super::link::{CallError, Lane, Link};
use super::tls::{self, Tls};
use crate::limits;

/// Who this process is, in front of every Raft message.
#[derive(Clone, Copy, Debug)]
pub struct Sender {
    /// Its data directory's identity; 0 without one.
    pub node: u64,
    /// Its run.
    pub run: u64,
}

/// Calls to peers. Cheap to clone.
#[derive(Clone)]
pub struct Peers(Arc<Inner>);

struct Inner {
    env: Env,
    tls: Option<Arc<Tls>>,
    plaintext: bool,
    sender: Sender,
    known: Mutex<BTreeMap<MemberName, Known>>,
}

struct Known {
    address: String,
    channel: Channel,
    link: Link,
}

impl Drop for Known {
    fn drop(&mut self) {
        self.link.close();
    }
}

impl Peers {
    /// Without `tls`, connections go to loopback addresses only, unless `plaintext`.
    pub fn new(env: &Env, tls: Option<Arc<Tls>>, plaintext: bool, sender: Sender) -> Self {
        Self(Arc::new(Inner { env: env.clone(), tls, plaintext, sender, known: Mutex::default() }))
    }

    /// Who this process says it is.
    pub fn sender(&self) -> Sender {
        self.0.sender
    }

    /// Learns or changes where a member can be dialled. An empty address means that it cannot.
    pub fn set_address(&self, member: &MemberName, address: &str) {
        let mut known = self.0.known.lock().expect("no panic while the lock is held");
        if address.is_empty() {
            known.remove(member);
        } else if known.get(member).is_none_or(|known| known.address != address) {
            let channel = self.channel(address);
            let link = Link::new();
            let Sender { node, run } = self.0.sender;
            let opening = peer::Opening { version: WIRE_VERSION, from_node: node, from_run: run };
            self.0.env.spawn.spawn("link", Box::pin(link.clone().run(service(channel.clone()), opening)));
            known.insert(member.clone(), Known { address: address.to_owned(), channel, link });
        }
    }

    /// Whom this process can call.
    pub fn members(&self) -> Vec<MemberName> {
        self.0.known.lock().expect("no panic while the lock is held").keys().cloned().collect()
    }

    /// A client for one peer.
    pub fn client(&self, member: &MemberName) -> Result<PeerClient<Channel>, Rejection> {
        let known = self.0.known.lock().expect("no panic while the lock is held");
        match known.get(member) {
            Some(known) => Ok(service(known.channel.clone())),
            None => Err(Rejection::new(ErrorCode::NoQuorum, no_address(member))),
        }
    }

    fn link(&self, member: &MemberName) -> Result<Link, CallError> {
        let known = self.0.known.lock().expect("no panic while the lock is held");
        known.get(member).map(|known| known.link.clone()).ok_or_else(|| CallError::NeverSent(no_address(member)))
    }

    /// Sends one request over the link to a peer and waits for its answer.
    pub async fn call(&self, member: &MemberName, request: Body, timeout: Duration) -> Result<Body, CallError> {
        self.link(member)?.call(request, timeout).await
    }

    fn channel(&self, address: &str) -> Channel {
        let peers = self.clone();
        let address = address.to_owned();
        Endpoint::from_static("http://peer.coterie.internal")
            .connect_timeout(Duration::from_millis(limits::PEER_CONNECT_MS_MAX))
            .http2_keep_alive_interval(Duration::from_millis(limits::PEER_KEEP_ALIVE_MS))
            .keep_alive_timeout(Duration::from_millis(limits::PEER_KEEP_ALIVE_MS))
            .keep_alive_while_idle(true)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
                let peers = peers.clone();
                let address = address.clone();
                async move { peers.connect(&address).await.map(TokioIo::new) }
            }))
    }

    async fn connect(&self, address: &str) -> io::Result<Box<dyn coterie_env::Stream>> {
        let Some(tls) = &self.0.tls else {
            if !self.0.plaintext
                && !address.parse::<coterie_core::config::Address>().is_ok_and(|address| address.is_loopback())
            {
                return Err(io::Error::other(format!(
                    "{address} is not a loopback address and there are no certificates: set `security`"
                )));
            }
            return self.0.env.network.connect(address).await;
        };
        let material = tls.current()?;
        let stream = self.0.env.network.connect(address).await?;
        let connector = tokio_rustls::TlsConnector::from(material.client);
        Ok(Box::new(connector.connect(tls::server_name(), stream).await?))
    }
}

fn service(channel: Channel) -> PeerClient<Channel> {
    PeerClient::new(channel)
        .max_decoding_message_size(limits::PEER_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(limits::PEER_MESSAGE_BYTES_MAX)
}

fn no_address(member: &MemberName) -> String {
    format!("no address of member {member} is known")
}

/// The version of the frames between peers.
pub const WIRE_VERSION: u32 = 4;

/// A partition, for the wire.
pub fn to_wire(partition: &PartitionId) -> peer::Partition {
    peer::Partition { group: partition.group.0.clone(), index: partition.index }
}

/// A partition, from the wire.
pub fn from_wire(partition: Option<peer::Partition>) -> Result<PartitionId, Rejection> {
    let peer::Partition { group, index } = partition
        .ok_or_else(|| Rejection::new(ErrorCode::InvalidArgument, "`partition` is missing: name the partition"))?;
    Ok(PartitionId { group: coterie_core::PartitionGroupName(group), index })
}

#[async_trait::async_trait]
impl Transport for Peers {
    async fn send(
        &self,
        to: &Target,
        partition: &PartitionId,
        kind: u32,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, transport::Error> {
        let request = peer::Raft { partition: Some(to_wire(partition)), to_node: to.node.0, kind, payload };
        let answer = self.call(&to.member, Body::Raft(request), timeout).await;
        match answer.map_err(|error| unreachable(&to.member, error.to_string()))? {
            Body::RaftAnswer(peer::RaftAnswer { payload, error }) if error.is_empty() => Ok(payload),
            Body::RaftAnswer(peer::RaftAnswer { payload: _, error }) => Err(refused(&to.member, error)),
            _ => Err(refused(&to.member, "an answer of another kind".to_owned())),
        }
    }

    fn lane(&self, to: &Target, partition: &PartitionId) -> Result<Box<dyn transport::Lane>, transport::Error> {
        let opened = peer::LaneOpened { partition: Some(to_wire(partition)), to_node: to.node.0 };
        let lane = self.link(&to.member).and_then(|link| link.lane(opened));
        let lane = lane.map_err(|error| unreachable(&to.member, error.to_string()))?;
        Ok(Box::new(LaneTo { member: to.member.clone(), lane }))
    }

    async fn transfer(
        &self,
        to: &Target,
        partition: &PartitionId,
    ) -> Result<Box<dyn transport::Transfer>, transport::Error> {
        let address = {
            let known = self.0.known.lock().expect("no panic while the lock is held");
            known.get(&to.member).map(|known| known.address.clone())
        };
        let address = address.ok_or_else(|| unreachable(&to.member, no_address(&to.member)))?;
        let (messages, queued) = mpsc::channel(limits::SNAPSHOT_QUEUE_MAX);
        let Sender { node, run } = self.0.sender;
        let first = peer::SnapshotMessage {
            opening: Some(peer::Opening { version: WIRE_VERSION, from_node: node, from_run: run }),
            partition: Some(to_wire(partition)),
            to_node: to.node.0,
            payload: Bytes::new(),
        };
        messages.try_send(first).expect("the queue has room for the first message");
        // On a connection of its own, heartbeats do not wait behind it.
        let mut client = service(self.channel(&address));
        let opened = client.snapshot(ReceiverStream::new(queued)).await;
        let answers = opened.map_err(|status| unreachable(&to.member, status.message().to_owned()))?.into_inner();
        Ok(Box::new(TransferTo { member: to.member.clone(), messages, answers, _client: client }))
    }
}

/// A snapshot on its way to one peer.
struct TransferTo {
    member: MemberName,
    messages: mpsc::Sender<peer::SnapshotMessage>,
    answers: Streaming<peer::RaftAnswer>,
    /// Keeps the connection.
    _client: PeerClient<Channel>,
}

#[async_trait::async_trait]
impl transport::Transfer for TransferTo {
    async fn send(&mut self, payload: Bytes) -> Result<(), transport::Error> {
        let message = peer::SnapshotMessage { payload, ..peer::SnapshotMessage::default() };
        let gone = |_| unreachable(&self.member, "the connection for the snapshot is gone".to_owned());
        self.messages.send(message).await.map_err(gone)
    }

    async fn answer(&mut self) -> Result<Bytes, transport::Error> {
        match self.answers.message().await {
            Ok(Some(peer::RaftAnswer { payload, error })) if error.is_empty() => Ok(payload),
            Ok(Some(peer::RaftAnswer { payload: _, error })) => Err(refused(&self.member, error)),
            Ok(None) => Err(unreachable(&self.member, "the snapshot ended without its last answer".to_owned())),
            Err(status) => Err(unreachable(&self.member, status.message().to_owned())),
        }
    }
}

/// A lane to one peer.
struct LaneTo {
    member: MemberName,
    lane: Lane,
}

#[async_trait::async_trait]
impl transport::Lane for LaneTo {
    fn send(&mut self, payload: Bytes) -> Result<(), transport::Error> {
        self.lane.send(payload).map_err(|error| unreachable(&self.member, error.to_string()))
    }

    async fn answer(&mut self) -> Result<Bytes, transport::Error> {
        self.lane.answer().await.map_err(|error| unreachable(&self.member, error))
    }
}

fn refused(member: &MemberName, reason: String) -> transport::Error {
    transport::Error::Refused { member: member.clone(), reason }
}

fn unreachable(member: &MemberName, reason: String) -> transport::Error {
    transport::Error::Unreachable { member: member.clone(), reason }
}
