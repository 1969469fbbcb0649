//! The members' admin service: gRPC over mutual TLS on port 7301, as `operator.coterie.internal`.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use coterie_operator_core::certificate::Validity;
use coterie_operator_core::cluster::Observed;
use coterie_operator_core::group::decide::Group;
use coterie_operator_core::group::status::Outcome;
use coterie_operator_core::members::{self, Answer, View};
use coterie_operator_core::names;
use coterie_proto::admin::admin_client::AdminClient;
use coterie_proto::admin::{self, DeletePartitionGroupRequest, PartitionGroupSpec, StatusRequest, StatusResponse};
use futures_util::future::join_all;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::certificates::{self, Authority, Pair};

/// How long a member may take to say how it is.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);
/// How long it may take to make or delete a partition group: a few rounds of the management group.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no caller.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The operator's certificate could not be made.
    #[error("make the operator's certificate")]
    Issue(#[from] certificates::Error),
    /// A certificate could not be read.
    #[error("read certificates")]
    Parse(#[from] rustls::pki_types::pem::Error),
    /// Certificates do not make a TLS configuration.
    #[error("configure TLS")]
    Tls(#[from] rustls::Error),
}

/// Calls members of one Cluster.
pub(crate) struct Caller {
    tls: TlsConnector,
}

impl Caller {
    /// A caller with a certificate from the Cluster's authority, that trusts these: it, and those before it as long as
    /// members may have their certificates.
    pub(crate) fn new(authority: &Authority, trusted: &str) -> Result<Self, Error> {
        let Pair { certificate, key } =
            authority.issue(names::OPERATOR_ROLE_NAME, Validity::leaf(Timestamp::now().as_second()))?;
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(trusted.as_bytes()) {
            roots.add(root?)?;
        }
        let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut config = builder.with_root_certificates(roots).with_client_auth_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { tls: TlsConnector::from(Arc::new(config)) })
    }

    /// Asks every member whose sidecar runs how it is, all at once.
    pub(crate) async fn poll(&self, observed: &Observed) -> View {
        let asked = addresses(observed).into_iter().map(|(pod, ip)| async move {
            let answer = self.status(ip).await;
            (pod, answer)
        });
        View::new(join_all(asked).await.into_iter().collect())
    }

    async fn status(&self, ip: IpAddr) -> Result<Answer, String> {
        let asked = async {
            let mut client = self.connect(ip).await?;
            let response = client.status(StatusRequest {}).await.map_err(|status| status.message().to_owned())?;
            Ok(answer(response.into_inner()))
        };
        let answered = tokio::time::timeout(STATUS_TIMEOUT, asked).await;
        answered.unwrap_or_else(|_| Err(format!("no answer within {} s", STATUS_TIMEOUT.as_secs())))
    }

    /// Has the group made, by the first member that can.
    pub(crate) async fn apply(&self, observed: &Observed, group: &Group) -> Outcome {
        let Group { name, partitions, replicas, members } = group;
        let spec = PartitionGroupSpec {
            name: name.clone(),
            r#type: "raft".to_owned(),
            partitions: *partitions,
            replicas: *replicas,
            members: members.clone(),
        };
        self.change(observed, &Change::Apply(spec)).await
    }

    /// Has the group deleted, by the first member that can.
    pub(crate) async fn delete(&self, observed: &Observed, name: &str, force: bool) -> Outcome {
        let request = DeletePartitionGroupRequest { name: name.to_owned(), force };
        self.change(observed, &Change::Delete(request)).await
    }

    async fn change(&self, observed: &Observed, change: &Change) -> Outcome {
        let leader = observed.view.management().and_then(|state| state.leader.clone());
        let mut members: Vec<(String, IpAddr)> = addresses(observed).into_iter().collect();
        members.sort_by_key(|(pod, _)| Some(pod) != leader.as_ref());
        let mut why = "no sidecar runs".to_owned();
        for (pod, ip) in members {
            let asked = async {
                let client = self.connect(ip).await.map_err(Outcome::Later)?;
                change.ask(client).await.map_err(|status| outcome(&status))
            };
            match tokio::time::timeout(CHANGE_TIMEOUT, asked).await {
                Ok(Ok(())) => return Outcome::Done,
                Ok(Err(Outcome::Refused(why))) => return Outcome::Refused(why),
                Ok(Err(Outcome::Later(later))) => why = format!("{pod}: {later}"),
                Ok(Err(Outcome::Done)) => return Outcome::Done,
                Err(_) => why = format!("{pod}: no answer within {} s", CHANGE_TIMEOUT.as_secs()),
            }
        }
        Outcome::Later(why)
    }

    async fn connect(&self, ip: IpAddr) -> Result<AdminClient<Channel>, String> {
        let tls = self.tls.clone();
        let connector = tower::service_fn(move |_| {
            let tls = tls.clone();
            async move {
                let stream = TcpStream::connect((ip, names::PEER_PORT)).await?;
                stream.set_nodelay(true)?;
                let name = ServerName::try_from(names::MEMBER_ROLE_NAME).map_err(std::io::Error::other)?;
                tls.connect(name, stream).await.map(TokioIo::new)
            }
        });
        // The connector makes TLS itself: the scheme only names the protocol inside of it.
        let endpoint = Endpoint::from_static("http://member.coterie.internal").connect_timeout(STATUS_TIMEOUT);
        let channel = endpoint.connect_with_connector(connector).await.map_err(|error| describe(&error))?;
        Ok(AdminClient::new(channel))
    }
}

/// What the members are asked to change.
enum Change {
    Apply(PartitionGroupSpec),
    Delete(DeletePartitionGroupRequest),
}

impl Change {
    async fn ask(&self, mut client: AdminClient<Channel>) -> Result<(), tonic::Status> {
        match self {
            Self::Apply(spec) => client.apply_partition_group(spec.clone()).await.map(drop),
            Self::Delete(request) => client.delete_partition_group(request.clone()).await.map(drop),
        }
    }
}

/// The innermost cause: the outer ones say only "transport error".
fn describe(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn addresses(observed: &Observed) -> BTreeMap<String, IpAddr> {
    let running = observed.pods.iter().filter(|(_, pod)| pod.is_sidecar_running);
    running.filter_map(|(name, pod)| Some((name.clone(), pod.ip.as_ref()?.parse().ok()?))).collect()
}

/// Whether another try can help.
fn outcome(status: &tonic::Status) -> Outcome {
    let why = status.message().to_owned();
    match status.code() {
        Code::Ok => Outcome::Done,
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Unauthenticated => Outcome::Refused(why),
        Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => Outcome::Later(why),
    }
}

fn answer(response: StatusResponse) -> Answer {
    let StatusResponse { member: _, cluster_id, state, reason, members, partition_groups } = response;
    Answer {
        cluster_id,
        state,
        reason,
        members: members.into_iter().map(member).collect(),
        groups: partition_groups.into_iter().map(group).collect(),
    }
}

fn member(member: admin::MemberStatus) -> members::Member {
    let admin::MemberStatus { name, r#type: _, address: _, zone, reachable: _, version, node_id, refused } = member;
    members::Member { name, zone, version, node_id, refused }
}

fn group(group: admin::PartitionGroupState) -> members::Group {
    let admin::PartitionGroupState { name, r#type, partitions, replicas, partition_states, state, primitives } = group;
    let states = partition_states.into_iter().map(partition).collect();
    members::Group { name, protocol: r#type, partitions, replicas, state, primitives, states }
}

fn partition(state: admin::PartitionState) -> (u32, members::Partition) {
    let admin::PartitionState { partition, leader, term, replicas, has_quorum, lagging } = state;
    let leader = Some(leader).filter(|leader| !leader.is_empty());
    (partition, members::Partition { leader, term, replicas, has_quorum, lagging })
}
