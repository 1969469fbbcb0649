//! The caller against a server that speaks TLS as a sidecar does.

use std::net::Ipv4Addr;

use coterie_operator_core::cluster::Owner;
use coterie_operator_core::cluster::observed::Pod;
use coterie_proto::admin::admin_server::{Admin, AdminServer};
use coterie_proto::admin::{DeletePartitionGroupResponse, PartitionGroupState, PartitionState};
use hyper_util::rt::TokioExecutor;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tonic::{Request, Response, Status};

use super::*;

/// A member that leads everything and refuses to delete what holds data.
struct Member;

#[tonic::async_trait]
impl Admin for Member {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let led = PartitionState {
            partition: 1,
            leader: "orders-0".to_owned(),
            term: 7,
            replicas: vec!["orders-0".to_owned()],
            has_quorum: true,
            lagging: Vec::new(),
        };
        let system = PartitionGroupState {
            name: "system".to_owned(),
            partitions: 1,
            partition_states: vec![led],
            ..PartitionGroupState::default()
        };
        Ok(Response::new(StatusResponse {
            cluster_id: "c1".to_owned(),
            partition_groups: vec![system],
            ..StatusResponse::default()
        }))
    }

    async fn apply_partition_group(
        &self,
        request: Request<PartitionGroupSpec>,
    ) -> Result<Response<PartitionGroupState>, Status> {
        let PartitionGroupSpec { r#type, partitions, .. } = request.into_inner();
        match (r#type.as_str(), partitions) {
            ("raft", 3) => Ok(Response::new(PartitionGroupState::default())),
            _ => Err(Status::invalid_argument("not like that")),
        }
    }

    async fn delete_partition_group(
        &self,
        request: Request<DeletePartitionGroupRequest>,
    ) -> Result<Response<DeletePartitionGroupResponse>, Status> {
        if request.into_inner().force {
            Ok(Response::new(DeletePartitionGroupResponse { existed: true }))
        } else {
            Err(Status::failed_precondition("it holds data"))
        }
    }
}

fn owner() -> Owner {
    Owner { name: "orders".to_owned(), namespace: "shop".to_owned(), uid: "u-1".to_owned() }
}

fn authority() -> Authority {
    let now = Timestamp::now().as_second();
    Authority::generate(&owner(), Validity::authority(now)).expect("an authority is made").0
}

fn caller(authority: &Authority) -> Caller {
    Caller::new(authority, &authority.certificates().concat()).expect("a caller")
}

/// Serves on an address of its own below 127/8, on the peers' port.
async fn serve(authority: &Authority, ip: Ipv4Addr) {
    let now = Timestamp::now().as_second();
    let Pair { certificate, key } =
        authority.issue(names::MEMBER_ROLE_NAME, Validity::leaf(now)).expect("it is issued");
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.certificates().concat().as_bytes()).expect("PEM"))
        .expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().expect("a verifier");
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM")];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
    let mut config = config.with_client_cert_verifier(verifier).with_single_cert(chain, key).expect("a certificate");
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((ip, names::PEER_PORT)).await.expect("the address is free");
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { return };
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let peer = stream.get_ref().1.peer_certificates().expect("it showed a certificate")[0].clone();
            let peer = ParsedCertificate::try_from(&peer).expect("a certificate");
            let role = ServerName::try_from(names::OPERATOR_ROLE_NAME).expect("a name");
            rustls::client::verify_server_name(&peer, &role).expect("it is the operator's");
            let service = TowerToHyperService::new(AdminServer::new(Member));
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new()).http2_only();
            tokio::spawn(async move { builder.serve_connection(TokioIo::new(stream), service).await.map_err(drop) });
        }
    });
}

fn observed(ip: Ipv4Addr) -> Observed {
    let pod = Pod { ip: Some(ip.to_string()), is_sidecar_running: true, ..Pod::default() };
    Observed { pods: BTreeMap::from([("orders-0".to_owned(), pod)]), ..Observed::default() }
}

#[tokio::test]
async fn the_operator_asks_members_over_mutual_tls() {
    let (authority, ip) = (authority(), Ipv4Addr::new(127, 73, 1, 1));
    serve(&authority, ip).await;
    let caller = caller(&authority);
    let view = caller.poll(&observed(ip)).await;
    assert_eq!(view.answer("orders-0").map(Result::is_ok), Some(true), "{view:?}");
    assert!(view.is_managed());
    assert_eq!(view.management().map(|state| state.term), Some(7));
    let group = |partitions| Group { name: "data".to_owned(), partitions, replicas: 3, members: Vec::new() };
    assert_eq!(caller.apply(&observed(ip), &group(3)).await, Outcome::Done);
    assert_eq!(caller.apply(&observed(ip), &group(4)).await, Outcome::Refused("not like that".to_owned()));
    assert_eq!(caller.delete(&observed(ip), "data", false).await, Outcome::Refused("it holds data".to_owned()));
    assert_eq!(caller.delete(&observed(ip), "data", true).await, Outcome::Done);
}

#[tokio::test]
async fn a_member_of_another_authority_is_not_believed() {
    let ip = Ipv4Addr::new(127, 73, 1, 2);
    serve(&authority(), ip).await;
    let view = caller(&authority()).poll(&observed(ip)).await;
    let answer = view.answer("orders-0").expect("it was asked");
    assert!(answer.as_ref().is_err_and(|error| error.contains("certificate")), "{answer:?}");
}

#[tokio::test]
async fn a_member_that_is_not_there_is_later_and_not_refused() {
    let caller = caller(&authority());
    let nobody = observed(Ipv4Addr::new(127, 73, 1, 3));
    assert!(!caller.poll(&nobody).await.has_answers());
    let group = Group { name: "data".to_owned(), partitions: 3, replicas: 3, members: Vec::new() };
    assert!(matches!(caller.apply(&nobody, &group).await, Outcome::Later(_)));
    assert!(matches!(caller.delete(&Observed::default(), "data", true).await, Outcome::Later(_)));
}
