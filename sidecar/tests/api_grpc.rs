//! The application API of a cluster of one, over gRPC.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::time::Duration;

use common::Sidecar;
use coterie_proto::v1;
use coterie_proto::v1::groups_client::GroupsClient;
use coterie_proto::v1::join_stream_response::Kind;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

fn join(group: &str) -> v1::JoinRequest {
    v1::JoinRequest { group: group.to_owned(), ..v1::JoinRequest::default() }
}

type Joined = tonic::Streaming<v1::JoinStreamResponse>;

/// Joins, and reads the first message. Partitions that are still being made are waited for.
async fn joined(client: &mut GroupsClient<Channel>, group: &str) -> (v1::JoinResponse, Joined) {
    loop {
        match client.join_stream(join(group)).await {
            Ok(stream) => {
                let mut stream = stream.into_inner();
                match stream.message().await.unwrap().unwrap().kind.unwrap() {
                    Kind::Joined(joined) => return (joined, stream),
                    other => panic!("the first message is {other:?}"),
                }
            }
            Err(status) => {
                let code = status.metadata().get("coterie-code").unwrap();
                assert!(code == "no_quorum" || code == "partition_group_unknown", "{status}");
            }
        }
    }
}

/// Reads until a message is found.
async fn until<T>(stream: &mut Joined, mut find: impl FnMut(Kind) -> Option<T>) -> T {
    loop {
        let kind = stream.message().await.unwrap().expect("the stream goes on").kind.unwrap();
        if let Some(found) = find(kind) {
            return found;
        }
    }
}

fn leads(kind: Kind) -> Option<v1::SelfState> {
    match kind {
        Kind::Self_(state) if state.leads => Some(state),
        _ => None,
    }
}

fn elected(kind: &Kind) -> Option<(u64, u64)> {
    match kind {
        Kind::Event(v1::GroupEvent { kind: Some(v1::group_event::Kind::Elected(elected)), .. }) => {
            Some((elected.term, elected.leader))
        }
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d20_a_leader_whose_connection_is_closed_is_followed_by_the_next() {
    let sidecar = Sidecar::start().await;
    let (mut first, mut second) = (sidecar.groups().await, sidecar.groups().await);
    let (one, mut leader) = joined(&mut first, "workers").await;
    assert!(one.member.as_ref().unwrap().leader);
    let state = until(&mut leader, leads).await;
    assert!(state.valid_ms > 0 && state.valid_ms <= 5_000);
    let (two, mut next) = joined(&mut second, "workers").await;
    let (one, two) = (one.member.unwrap().id, two.member.unwrap().id);
    let closed = std::time::Instant::now();
    drop((leader, first));
    let mut seen = None;
    let state = until(&mut next, |kind| {
        seen = elected(&kind).or(seen);
        leads(kind)
    })
    .await;
    // S31: told that it leads after the event that elected it.
    assert_eq!(seen, Some((state.term, two)));
    drop((next, second));
    assert!(one < two && closed.elapsed() < Duration::from_secs(2), "far below the session's time-out");
    sidecar.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d16_a_drain_tells_the_leader_first_and_waits_for_its_release() {
    let sidecar = Sidecar::start().await;
    let mut client = sidecar.groups().await;
    let (_, mut stream) = joined(&mut client, "workers").await;
    let term = until(&mut stream, leads).await.term;
    let node = sidecar.node.clone();
    let drained = tokio::spawn(async move { node.drain().await });
    until(&mut stream, |kind| match kind {
        Kind::Self_(state) if state.releasing => Some(()),
        _ => None,
    })
    .await;
    assert!(!drained.is_finished());
    let release = v1::ReleaseRequest { group: "workers".to_owned(), term, ..v1::ReleaseRequest::default() };
    client.release(release).await.unwrap();
    let mut led_again = false;
    while let Some(message) = stream.message().await.unwrap() {
        led_again |= message.kind.and_then(leads).is_some_and(|state| state.term > term);
    }
    assert!(!led_again, "a draining sidecar does not vouch for a new term");
    drained.await.unwrap();
    let refused = client.join(join("workers")).await.unwrap_err();
    assert_eq!(refused.metadata().get("coterie-code").unwrap(), "shutting_down");
    sidecar.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_carry_code_and_advice_also_those_of_the_library() {
    let sidecar = Sidecar::start().await;
    let mut client = sidecar.groups().await;
    let code = |status: &tonic::Status| status.metadata().get("coterie-code").unwrap().to_str().unwrap().to_owned();
    let unnamed = client.create(v1::CreateGroupRequest::default()).await.unwrap_err();
    assert_eq!((unnamed.code(), code(&unnamed).as_str()), (tonic::Code::InvalidArgument, "invalid_argument"));
    assert!(unnamed.message().starts_with("group: "), "{unnamed}");
    let mut large = join("workers");
    large.zone = "z".repeat(2 * 1024 * 1024);
    let large = client.join(large).await.unwrap_err();
    assert_eq!((large.code(), code(&large).as_str()), (tonic::Code::OutOfRange, "too_large"));
    let mut anonymous = tonic::Request::new(join("workers"));
    anonymous.metadata_mut().insert("coterie-client-id", "2f1b1a2e-8f0a-4d3c-9a63-52a5d7a0c1aa".parse().unwrap());
    let anonymous = client.join(anonymous).await.unwrap_err();
    assert!(anonymous.message().starts_with("coterie-request-id: "), "{anonymous}");
    sidecar.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_reflection_are_served_beside_the_api() {
    let sidecar = Sidecar::start().await;
    let channel = sidecar.channel().await;
    let mut health = HealthClient::new(channel.clone());
    let watch = HealthCheckRequest { service: "coterie.v1.Groups".to_owned() };
    let mut statuses = health.watch(watch).await.unwrap().into_inner();
    while statuses.message().await.unwrap().unwrap().status != 1 {}
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let requests = tokio_stream::iter([request]);
    let mut answers = ServerReflectionClient::new(channel).server_reflection_info(requests).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) = answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("no list of services");
    };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    assert!(names.contains(&"coterie.v1.Groups") && names.contains(&"coterie.v1.ClusterInfo"), "{names:?}");
    assert!(!names.iter().any(|name| name.contains("peer") || name.contains("admin")), "{names:?}");
    sidecar.node.stop().await;
}
