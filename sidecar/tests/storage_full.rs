//! A cluster of one whose volume runs full, over both wires.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use coterie_env::mem::MemDisk;
use coterie_env::{Disk as _, Env};
use coterie_proto::v1;
use coterie_proto::v1::groups_client::GroupsClient;
use coterie_sidecar::node::Node;
use coterie_sidecar::state::State;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::transport::Channel;

/// Starts a cluster of one on this disk and waits until it serves; its port for applications.
async fn start(disk: &MemDisk) -> (Node, u16) {
    let (node, port) = begin(disk).await;
    node.state().wait_for(|state| *state == State::Running).await.unwrap();
    while node.ready().is_err() {
        tokio::task::yield_now().await;
    }
    (node, port)
}

async fn begin(disk: &MemDisk) -> (Node, u16) {
    let env = Env { disk: Arc::new(disk.clone()), ..coterie_env::real() };
    common::begin(env, PathBuf::from("/data")).await
}

/// What all files hold, without the log's next segment, which a start drops.
fn held_bytes(disk: &MemDisk) -> u64 {
    let folders = ["/data", "/data/wal", "/data/snap"];
    let files = folders.iter().flat_map(|folder| disk.list(folder.as_ref()).unwrap_or_default());
    let kept = files.filter(|path| path.extension().is_none_or(|extension| extension != "tmp"));
    kept.map(|path| disk.read(&path).map_or(0, |bytes| bytes.len() as u64)).sum()
}

/// Status and body of a request over HTTP.
async fn http(port: u16, method: &str, group: &str) -> (u16, serde_json::Value) {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = format!(
        "{method} /v1/groups/{group} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: 2\r\n\r\n{{}}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap())
}

fn create(group: &str) -> v1::CreateGroupRequest {
    v1::CreateGroupRequest { group: group.to_owned(), ..v1::CreateGroupRequest::default() }
}

/// What the status of a member says of the room of its partitions.
fn read_only(node: &Node) -> Vec<String> {
    let groups = node.status().partition_groups;
    groups.into_iter().flat_map(|group| group.partitions).map(|partition| partition.read_only).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d12_a_full_volume_refuses_writes_with_a_code_answers_reads_and_recovers_by_itself() {
    let disk = MemDisk::new();
    let (node, port) = start(&disk).await;
    let channel = Channel::from_shared(format!("http://127.0.0.1:{port}")).unwrap().connect().await.unwrap();
    let mut grpc = GroupsClient::new(channel);
    grpc.create(create("before")).await.unwrap();
    assert!(read_only(&node).iter().all(String::is_empty));
    // The log's present segment has 16 MiB of room, which changes nothing.
    for free_bytes in [(32 << 20) - 1, 0] {
        disk.set_free_bytes(free_bytes);
        // The volume is looked at twice a second.
        let says = format!("{free_bytes} bytes left");
        while !http(port, "PUT", "before").await.1["detail"].as_str().is_some_and(|detail| detail.contains(&says)) {}
        let status = grpc.create(create("over-grpc")).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        assert_eq!(status.metadata().get("coterie-code").unwrap(), "storage_full");
        assert_eq!(status.metadata().get("coterie-retry").unwrap(), "later");
        assert!(status.message().starts_with("one, which leads "), "{}", status.message());
        let (status, problem) = http(port, "PUT", "over-http").await;
        assert_eq!((status, problem["code"].as_str()), (507, Some("storage_full")), "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(&says), "{problem}");

        let get = v1::GetGroupRequest { group: "before".to_owned(), ..v1::GetGroupRequest::default() };
        assert_eq!(grpc.get(get).await.unwrap().into_inner().consistency(), v1::Consistency::Linearizable);
        let (status, group) = http(port, "GET", "before").await;
        assert_eq!((status, group["consistency"].as_str()), (200, Some("linearizable")));
        assert_eq!((node.live(), node.ready()), (Ok(()), Ok(())));
        assert!(read_only(&node).iter().all(|reason| reason.contains(&says)), "{:?}", read_only(&node));
    }
    disk.set_free_bytes(u64::MAX);
    while grpc.create(create("over-grpc")).await.is_err() {}
    assert!(read_only(&node).iter().all(String::is_empty));
    assert_eq!(http(port, "PUT", "over-http").await.0, 200);
    tokio::time::timeout(Duration::from_secs(30), node.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_on_a_full_volume_comes_back_answers_reads_and_refuses_writes() {
    let disk = MemDisk::new();
    let (node, port) = start(&disk).await;
    assert_eq!(http(port, "PUT", "before").await.0, 200);
    tokio::time::timeout(Duration::from_secs(30), node.stop()).await.unwrap();
    // Ends whatever still holds the directory, as the end of the process does.
    disk.crash();
    for left_bytes in [10 << 20, 0] {
        disk.set_capacity(held_bytes(&disk) + left_bytes);
        let (node, port) = tokio::time::timeout(Duration::from_secs(30), start(&disk)).await.expect("it serves");
        let (status, group) = http(port, "GET", "before").await;
        assert_eq!((status, group["consistency"].as_str()), (200, Some("linearizable")), "{group}");
        let (status, problem) = http(port, "PUT", "over-http").await;
        assert_eq!((status, problem["code"].as_str()), (507, Some("storage_full")), "{problem}");
        assert_eq!((node.live(), node.ready()), (Ok(()), Ok(())));
        tokio::time::timeout(Duration::from_secs(30), node.stop()).await.unwrap();
        disk.crash();
    }
    disk.set_capacity(u64::MAX);
    let (node, port) = start(&disk).await;
    assert_eq!(http(port, "PUT", "over-http").await.0, 200);
    tokio::time::timeout(Duration::from_secs(30), node.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_not_recorded_says_what_the_management_group_said() {
    let disk = MemDisk::new();
    let (node, _) = start(&disk).await;
    tokio::time::timeout(Duration::from_secs(30), node.stop()).await.unwrap();
    disk.crash();
    // So much that the present segment has not even room for a registration.
    let env = Env { disk: Arc::new(disk.clone()), ..coterie_env::real() };
    let log = coterie_store::Log::open(&env, "/data".as_ref(), coterie_store::log::Options::default()).unwrap();
    let (flushed, is_flushed) = tokio::sync::oneshot::channel();
    let filler = vec![(1, vec![0; 13 << 20].into())];
    log.partition("filler").append(filler, Box::new(move |result| drop(flushed.send(result))));
    is_flushed.await.unwrap().unwrap();
    log.close().await;
    disk.crash();
    disk.set_capacity(held_bytes(&disk));

    let (node, _) = begin(&disk).await;
    let mut states = node.state();
    let says =
        |state: &State| state.label() == "waiting_for_management_group" && state.reason().contains("0 bytes left");
    tokio::time::timeout(Duration::from_secs(30), states.wait_for(says)).await.unwrap().unwrap();
    disk.set_capacity(u64::MAX);
    let runs = states.wait_for(|state| *state == State::Running);
    tokio::time::timeout(Duration::from_secs(30), runs).await.unwrap().unwrap();
    tokio::time::timeout(Duration::from_secs(30), node.stop()).await.unwrap();
}
