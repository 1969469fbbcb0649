//! Calls to peers by name.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use coterie_core::{ErrorCode, MemberName, PartitionId, Rejection};
use coterie_env::Env;
use coterie_proto::peer;
use coterie_proto::peer::peer_client::PeerClient;
use coterie_replication::transport::{self, Target, Transport};
use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint, Uri};

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
            known.insert(member.clone(), Known { address: address.to_owned(), channel });
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
            Some(known) => Ok(PeerClient::new(known.channel.clone())
                .max_decoding_message_size(limits::PEER_MESSAGE_BYTES_MAX)
                .max_encoding_message_size(limits::PEER_MESSAGE_BYTES_MAX)),
            None => Err(Rejection::new(ErrorCode::NoQuorum, format!("no address of member {member} is known"))),
        }
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

    fn message(&self, to: &Target, partition: &PartitionId, kind: u32, payload: Bytes) -> peer::RaftMessage {
        peer::RaftMessage {
            partition: Some(to_wire(partition)),
            version: WIRE_VERSION,
            kind,
            payload,
            from_node: self.0.sender.node,
            to_node: to.node.0,
            from_run: self.0.sender.run,
            error: String::new(),
        }
    }
}

/// The version of the frames between peers.
pub const WIRE_VERSION: u32 = 1;

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
        let mut client = self.client(&to.member).map_err(|error| unreachable(&to.member, error.message))?;
        let mut request = tonic::Request::new(self.message(to, partition, kind, payload));
        request.set_timeout(timeout);
        let answer = tokio::time::timeout(timeout, client.raft(request)).await;
        answered(&to.member, answer)
    }

    async fn send_snapshot(
        &self,
        to: &Target,
        partition: &PartitionId,
        header: Bytes,
        data: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, transport::Error> {
        let mut client = self.client(&to.member).map_err(|error| unreachable(&to.member, error.message))?;
        let header = self.message(to, partition, 0, header);
        let mut chunks = vec![peer::SnapshotChunk { header: Some(header), data: Bytes::new(), done: false }];
        let mut rest = data;
        while !rest.is_empty() {
            let chunk = rest.split_to(rest.len().min(limits::SNAPSHOT_CHUNK_BYTES));
            chunks.push(peer::SnapshotChunk { header: None, data: chunk, done: false });
        }
        chunks.push(peer::SnapshotChunk { header: None, data: Bytes::new(), done: true });
        let answer = tokio::time::timeout(timeout, client.snapshot(tokio_stream::iter(chunks))).await;
        answered(&to.member, answer)
    }
}

type RaftAnswer = Result<Result<tonic::Response<peer::RaftMessage>, tonic::Status>, tokio::time::error::Elapsed>;

fn answered(from: &MemberName, answer: RaftAnswer) -> Result<Bytes, transport::Error> {
    let message = answer
        .map_err(|_| unreachable(from, "not answered in time".to_owned()))?
        .map_err(|status| unreachable(from, status.message().to_owned()))?
        .into_inner();
    if message.error.is_empty() {
        Ok(message.payload)
    } else {
        Err(transport::Error::Refused { member: from.clone(), reason: message.error })
    }
}

fn unreachable(member: &MemberName, reason: String) -> transport::Error {
    transport::Error::Unreachable { member: member.clone(), reason }
}
