//! Maps, locks and the stream of operations of a cluster of one.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::Sidecar;
use coterie_core::PartitionId;
use coterie_core::command::{Command, DirectoryOp};
use coterie_proto::v1;
use coterie_proto::v1::locks_client::LocksClient;
use coterie_proto::v1::map_event::Kind;
use coterie_proto::v1::maps_client::MapsClient;
use coterie_proto::v1::operation::Request;
use coterie_proto::v1::operations_client::OperationsClient;
use coterie_proto::v1::result::Response;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

fn put(map: &str, key: &str, value: &'static str) -> v1::PutRequest {
    let (map, key) = (map.to_owned(), key.to_owned());
    v1::PutRequest { map, key, value: value.into(), ..v1::PutRequest::default() }
}

fn get(map: &str, key: &str) -> v1::GetEntryRequest {
    v1::GetEntryRequest { map: map.to_owned(), key: key.to_owned(), ..v1::GetEntryRequest::default() }
}

fn acquire(lock: &str, wait_ms: u64, ttl_ms: u64) -> v1::AcquireRequest {
    v1::AcquireRequest { lock: lock.to_owned(), partition_group: String::new(), wait_ms, ttl_ms }
}

fn release(lock: &str, token: u64) -> v1::ReleaseLockRequest {
    v1::ReleaseLockRequest { lock: lock.to_owned(), partition_group: String::new(), token }
}

fn code(status: &Status) -> String {
    status.metadata().get("coterie-code").unwrap().to_str().unwrap().to_owned()
}

/// A sidecar whose partitions are formed.
async fn start() -> Sidecar {
    let sidecar = Sidecar::start().await;
    let mut maps = maps(&sidecar).await;
    while let Err(status) = maps.put(put("ready", "k", "v")).await {
        assert!(["no_quorum", "partition_group_unknown"].contains(&code(&status).as_str()), "{status}");
    }
    sidecar
}

async fn maps(sidecar: &Sidecar) -> MapsClient<Channel> {
    MapsClient::new(sidecar.channel().await)
}

async fn locks(sidecar: &Sidecar) -> LocksClient<Channel> {
    LocksClient::new(sidecar.channel().await)
}

async fn lock(sidecar: &Sidecar, name: &str) -> v1::Lock {
    let request = v1::GetLockRequest { lock: name.to_owned(), ..v1::GetLockRequest::default() };
    locks(sidecar).await.get(request).await.unwrap().into_inner()
}

/// Asks again until a lock is as it should be.
async fn until_lock(sidecar: &Sidecar, name: &str, is: impl Fn(&v1::Lock) -> bool) -> v1::Lock {
    loop {
        let found = lock(sidecar, name).await;
        if is(&found) {
            return found;
        }
    }
}

/// A stream of operations, and the results that came and were not asked for yet.
struct Operations {
    sender: mpsc::Sender<v1::OperationBatch>,
    results: Streaming<v1::ResultBatch>,
    early: BTreeMap<u64, Vec<Response>>,
}

impl Operations {
    async fn open(sidecar: &Sidecar) -> Self {
        let (sender, receiver) = mpsc::channel(64);
        let mut client = OperationsClient::new(sidecar.channel().await);
        let results = client.stream(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        Self { sender, results, early: BTreeMap::new() }
    }

    async fn send(&self, operations: impl IntoIterator<Item = (u64, Request)>) {
        let operation = |(id, request)| v1::Operation { id, request: Some(request), ..v1::Operation::default() };
        let operations = operations.into_iter().map(operation).collect();
        self.sender.send(v1::OperationBatch { operations }).await.unwrap();
    }

    /// The next result of an operation.
    async fn next(&mut self, id: u64) -> Response {
        loop {
            if let Some(early) = self.early.get_mut(&id).filter(|early| !early.is_empty()) {
                return early.remove(0);
            }
            for result in self.results.message().await.unwrap().expect("the stream goes on").results {
                self.early.entry(result.id).or_default().push(result.response.unwrap());
            }
        }
    }

    async fn call(&mut self, id: u64, request: Request) -> Response {
        self.send([(id, request)]).await;
        self.next(id).await
    }

    async fn event(&mut self, id: u64) -> Kind {
        match self.next(id).await {
            Response::Event(event) => event.kind.unwrap(),
            other => panic!("{other:?} is not an event"),
        }
    }
}

fn acquired(response: Response) -> u64 {
    match response {
        Response::Acquire(acquired) => acquired.token,
        other => panic!("{other:?} is not a lock"),
    }
}

fn failed(response: Response) -> String {
    match response {
        Response::Failure(failure) => failure.code,
        other => panic!("{other:?} is not a failure"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_is_read_as_it_was_put_and_a_condition_that_fails_is_refused() {
    let sidecar = start().await;
    let mut maps = maps(&sidecar).await;
    let first = maps.put(put("m", "k", "one")).await.unwrap().into_inner();
    assert_eq!(first.previous_revision, 0);
    let found = maps.get(get("m", "k")).await.unwrap().into_inner();
    let entry = found.entry.unwrap();
    assert_eq!((entry.key.as_str(), &entry.value[..], entry.revision), ("k", &b"one"[..], first.revision));
    assert_eq!(maps.get(get("m", "other")).await.unwrap().into_inner().entry, None);
    assert_eq!(maps.get(get("no-such-map", "k")).await.unwrap().into_inner().entry, None);

    let second = v1::PutRequest { if_revision: first.revision, ..put("m", "k", "two") };
    let written = maps.put(second.clone()).await.unwrap().into_inner();
    assert_eq!(written.previous_revision, first.revision);
    assert_eq!(code(&maps.put(second).await.unwrap_err()), "revision_mismatch");
    let absent = v1::PutRequest { if_absent: true, ..put("m", "k", "three") };
    assert_eq!(code(&maps.put(absent.clone()).await.unwrap_err()), "revision_mismatch");
    let both = v1::PutRequest { if_revision: 1, ..absent };
    assert!(maps.put(both).await.unwrap_err().message().starts_with("if_absent: excludes if_revision"));
    assert!(maps.put(put("m", "", "v")).await.unwrap_err().message().starts_with("key: is empty"));
    assert!(maps.put(put("a/b", "k", "v")).await.unwrap_err().message().starts_with("map: contains"));

    let recorded = sidecar.node.directory().view().unwrap();
    assert!(recorded.directory.primitives.keys().any(|at| at.kind == "map" && at.name == "m"), "s94");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s34_a_watch_of_a_map_shows_what_there_is_and_then_every_change_of_its_prefix() {
    let sidecar = start().await;
    let mut maps = maps(&sidecar).await;
    for key in ["a/1", "b/1", "a/2"] {
        maps.put(put("m", key, "v")).await.unwrap();
    }
    let watch = v1::WatchMapRequest { map: "m".to_owned(), prefix: "a/".to_owned(), ..v1::WatchMapRequest::default() };
    let mut events = maps.watch(watch.clone()).await.unwrap().into_inner();
    let first = events.message().await.unwrap().unwrap();
    let Some(Kind::Snapshot(view)) = first.kind else { panic!("{first:?}") };
    assert_eq!(view.entries.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), ["a/1", "a/2"]);
    assert!(view.last);
    maps.put(put("m", "b/2", "v")).await.unwrap();
    let third = maps.put(put("m", "a/3", "v")).await.unwrap().into_inner();
    let delete = v1::DeleteEntryRequest { map: "m".to_owned(), key: "a/1".to_owned(), ..Default::default() };
    maps.delete(delete).await.unwrap();
    maps.drop(v1::DropMapRequest { map: "m".to_owned(), ..Default::default() }).await.unwrap();
    let told = events.message().await.unwrap().unwrap();
    assert_eq!(told.revision, third.revision);
    let resumed = v1::WatchMapRequest { after: told.id, ..watch };
    let mut again = maps.watch(resumed).await.unwrap().into_inner();
    for events in [&mut events, &mut again] {
        let mut kinds = Vec::new();
        while let Some(event) = events.message().await.unwrap() {
            kinds.push(event.kind.unwrap());
        }
        assert_eq!(kinds, [Kind::Deleted("a/1".to_owned()), Kind::Dropped(v1::Deleted {})]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s34_d17_a_watch_of_a_map_that_names_an_event_of_another_life_begins_with_a_resync() {
    let sidecar = start().await;
    let mut maps = maps(&sidecar).await;
    maps.put(put("m", "a", "v")).await.unwrap();
    for after in ["900000000.0.0badcafe", "1.0.0badcafe", "900000000.0"] {
        let watch = v1::WatchMapRequest { map: "m".to_owned(), after: after.to_owned(), ..Default::default() };
        let mut events = maps.watch(watch).await.unwrap().into_inner();
        let first = events.message().await.unwrap().unwrap();
        let Some(Kind::Resync(view)) = &first.kind else { panic!("{after}: {first:?}") };
        assert_eq!(view.entries.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), ["a"]);
        let revision = maps.put(put("m", "a", "w")).await.unwrap().into_inner().revision;
        assert_eq!(events.message().await.unwrap().unwrap().revision, revision);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s18_s34_d17_a_watch_goes_on_with_a_partition_group_that_was_made_again_by_a_resync() {
    let sidecar = start().await;
    let mut maps = maps(&sidecar).await;
    for number in 0..50 {
        maps.put(put("m", &format!("before-{number}"), "v")).await.unwrap();
    }
    let watch = v1::WatchMapRequest { map: "m".to_owned(), ..Default::default() };
    let mut events = maps.watch(watch.clone()).await.unwrap().into_inner();
    let before = events.message().await.unwrap().unwrap();
    assert!(matches!(before.kind, Some(Kind::Snapshot(_))), "{before:?}");

    let group =
        sidecar.node.directory().view().unwrap().directory.partition_groups.keys().find(|it| !it.is_system()).cloned();
    let deadline = coterie_sidecar::Deadline::after_ms(sidecar.node.env(), 10_000);
    let delete = DirectoryOp::DeletePartitionGroup { name: group.unwrap(), force: true };
    let router = sidecar.node.router();
    router.write(router.mint(), &PartitionId::system(), Command::Directory(delete), deadline).await.unwrap();
    // It is declared, so it is made again.
    let mut put_again = maps.put(put("m", "after", "v")).await;
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while put_again.is_err() && std::time::Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(20)).await; // waits for a condition
        put_again = maps.put(put("m", "after", "v")).await;
    }
    put_again.unwrap();
    let mut keys: Vec<String> = Vec::new();
    while keys != ["after"] {
        let event = tokio::time::timeout(Duration::from_secs(10), events.message()).await.expect("it is told");
        match event.unwrap().unwrap().kind.unwrap() {
            Kind::Resync(view) => keys = view.entries.into_iter().map(|entry| entry.key).collect(),
            Kind::Put(entry) => keys.push(entry.key),
            Kind::Connection(_) => {}
            other => panic!("{other:?}"),
        }
    }
    let mut resumed = maps.watch(v1::WatchMapRequest { after: before.id, ..watch }).await.unwrap().into_inner();
    let first = resumed.message().await.unwrap().unwrap();
    assert!(matches!(&first.kind, Some(Kind::Resync(view)) if view.entries.len() == 1), "{first:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_map_is_listed_and_shown_in_parts() {
    let sidecar = start().await;
    let mut maps = maps(&sidecar).await;
    for key in ["a", "b", "c", "d"] {
        let value = vec![7; 400 * 1024].into();
        maps.put(v1::PutRequest { map: "m".to_owned(), key: key.to_owned(), value, ..Default::default() })
            .await
            .unwrap();
    }
    let list = |after: &str| v1::ListEntriesRequest {
        map: "m".to_owned(),
        after: after.to_owned(),
        limit: 3,
        ..v1::ListEntriesRequest::default()
    };
    let page = maps.list(list("")).await.unwrap().into_inner();
    assert_eq!((page.entries.len(), page.more), (2, true));
    let page = maps.list(list("b")).await.unwrap().into_inner();
    assert_eq!((page.entries.len(), page.more), (2, false));
    let watch = v1::WatchMapRequest { map: "m".to_owned(), ..v1::WatchMapRequest::default() };
    let mut events = maps.watch(watch).await.unwrap().into_inner();
    let mut shown = Vec::new();
    loop {
        let event = events.message().await.unwrap().unwrap();
        let Some(Kind::Snapshot(part)) = event.kind else { panic!("a part comes first") };
        assert_eq!(event.id.is_empty(), !part.last);
        shown.extend(part.entries.into_iter().map(|entry| entry.key));
        if part.last {
            break;
        }
    }
    assert_eq!(shown, ["a", "b", "c", "d"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_goes_to_who_asked_next_with_a_larger_token() {
    let sidecar = start().await;
    let mut first = locks(&sidecar).await;
    let holder = first.acquire(acquire("l", 0, 60_000)).await.unwrap().into_inner();
    assert_eq!(code(&first.acquire(acquire("l", 0, 0)).await.unwrap_err()), "lock_held");
    let mut second = first.clone();
    let waiting = tokio::spawn(async move { second.acquire(acquire("l", 30_000, 0)).await });
    let seen = until_lock(&sidecar, "l", |lock| lock.waiting == 1).await;
    assert_eq!((seen.token, seen.sidecar.as_str()), (holder.token, "one"));
    first.release(release("l", holder.token)).await.unwrap();
    let next = waiting.await.unwrap().unwrap().into_inner();
    assert!(next.token > holder.token);
    assert_eq!(code(&first.release(release("l", holder.token)).await.unwrap_err()), "token_unknown");
    let renew = |token| v1::RenewLockRequest { lock: "l".to_owned(), token, ..v1::RenewLockRequest::default() };
    assert!(first.renew(renew(next.token)).await.unwrap().into_inner().ttl_ms > 0);
    assert_eq!(code(&first.renew(renew(holder.token)).await.unwrap_err()), "token_unknown");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_too_long_or_goes_away_leaves_the_queue_and_a_lease_that_runs_out_releases() {
    let sidecar = start().await;
    let mut client = locks(&sidecar).await;
    let holder = client.acquire(acquire("l", 0, 1_000)).await.unwrap().into_inner();
    assert_eq!(code(&client.acquire(acquire("l", 50, 0)).await.unwrap_err()), "lock_held");
    let mut other = client.clone();
    let gone = tokio::spawn(async move { other.acquire(acquire("l", 30_000, 0)).await });
    until_lock(&sidecar, "l", |lock| lock.waiting == 1).await;
    gone.abort();
    until_lock(&sidecar, "l", |lock| lock.waiting == 0).await;
    // Nobody renews.
    let next = client.acquire(acquire("l", 30_000, 60_000)).await.unwrap().into_inner();
    assert!(next.token > holder.token);
    let seen = until_lock(&sidecar, "l", |lock| lock.waiting == 0).await;
    assert_eq!(seen.token, next.token);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d11_an_acquire_that_is_sent_again_gives_the_same_token() {
    let sidecar = start().await;
    let mut client = locks(&sidecar).await;
    let request = || {
        let mut request = tonic::Request::new(acquire("l", 0, 60_000));
        request.metadata_mut().insert("coterie-client-id", "2f1b1a2e-8f0a-4d3c-9a63-52a5d7a0c1aa".parse().unwrap());
        request
    };
    let id: tonic::metadata::MetadataValue<_> = uuid::Uuid::now_v7().to_string().parse().unwrap();
    let mut tokens = Vec::new();
    for _ in 0..2 {
        let mut request = request();
        request.metadata_mut().insert("coterie-request-id", id.clone());
        tokens.push(client.acquire(request).await.unwrap().into_inner().token);
    }
    assert_eq!(tokens[0], tokens[1]);
    assert_eq!(sidecar.node.locks().count(), 1);
    client.release(release("l", tokens[0])).await.unwrap();
    assert_eq!((lock(&sidecar, "l").await.token, sidecar.node.locks().count()), (0, 0));
    let mut request = request();
    request.metadata_mut().insert("coterie-request-id", id);
    assert_eq!(code(&client.acquire(request).await.unwrap_err()), "token_unknown");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_answers_more_operations_than_its_window_each_under_its_id() {
    const OPERATIONS: u64 = 3_000;
    let sidecar = start().await;
    let mut stream = Operations::open(&sidecar).await;
    let key = |id: u64| format!("k-{}", id % 100);
    stream.send((0..OPERATIONS).map(|id| (id, Request::Put(put("m", &key(id), "v"))))).await;
    let mut revisions = Vec::new();
    for id in 0..OPERATIONS {
        let Response::Put(written) = stream.next(id).await else { panic!("{id} is not answered") };
        revisions.push(written.revision);
    }
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len() as u64, OPERATIONS);
    stream.send((0..OPERATIONS).map(|id| (id, Request::Get(get("m", &key(id)))))).await;
    for id in 0..OPERATIONS {
        let Response::Get(found) = stream.next(id).await else { panic!("{id} is not answered") };
        assert_eq!(found.entry.unwrap().key, key(id));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_says_what_is_wrong_with_one_operation_and_goes_on() {
    let sidecar = start().await;
    let mut stream = Operations::open(&sidecar).await;
    assert_eq!(failed(stream.call(1, Request::Put(put("m", "", "v"))).await), "invalid_argument");
    let operations = vec![
        v1::Operation { id: 2, ..v1::Operation::default() },
        v1::Operation {
            id: 3,
            client_id: vec![1; 3].into(),
            request: Some(Request::Get(get("m", "k"))),
            ..v1::Operation::default()
        },
    ];
    stream.sender.send(v1::OperationBatch { operations }).await.unwrap();
    for id in [2, 3] {
        assert_eq!(failed(stream.next(id).await), "invalid_argument");
    }
    assert!(matches!(stream.call(4, Request::Put(put("m", "k", "v"))).await, Response::Put(_)));
    let list = v1::ListEntriesRequest { map: "m".to_owned(), ..v1::ListEntriesRequest::default() };
    let Response::List(page) = stream.call(5, Request::List(list)).await else { panic!("no list") };
    assert_eq!(page.entries.len(), 1);
    let group = v1::GetGroupRequest { group: "nobody".to_owned(), ..v1::GetGroupRequest::default() };
    assert_eq!(failed(stream.call(6, Request::GetGroup(group)).await), "group_unknown");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_over_a_stream_lasts_until_it_is_cancelled() {
    let sidecar = start().await;
    let mut stream = Operations::open(&sidecar).await;
    let watch = Request::Watch(v1::WatchMapRequest { map: "m".to_owned(), ..v1::WatchMapRequest::default() });
    stream.send([(7, watch.clone())]).await;
    assert!(matches!(stream.event(7).await, Kind::Snapshot(view) if view.last && view.entries.is_empty()));
    assert_eq!(failed(stream.call(7, watch).await), "invalid_argument");
    for number in 0..20 {
        let key = format!("k-{number:02}");
        stream.send([(number, Request::Put(put("m", &key, "v")))].into_iter().filter(|(id, _)| *id != 7)).await;
        if number != 7 {
            assert!(matches!(stream.event(7).await, Kind::Put(entry) if entry.key == key));
        }
    }
    stream.send([(7, Request::Cancel(v1::Cancel {}))]).await;
    assert!(matches!(stream.next(7).await, Response::Ended(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_a_stream_holds_goes_on_when_the_stream_ends() {
    let sidecar = start().await;
    let (mut first, mut second) = (Operations::open(&sidecar).await, Operations::open(&sidecar).await);
    let held = acquired(first.call(1, Request::Acquire(acquire("l", 0, 0))).await);
    second.send([(1, Request::Acquire(acquire("l", 4_000, 0)))]).await;
    second.send([(2, Request::Acquire(acquire("l", 4_000, 0)))]).await;
    until_lock(&sidecar, "l", |lock| lock.waiting == 2).await;
    second.send([(2, Request::Cancel(v1::Cancel {}))]).await;
    assert!(matches!(second.next(2).await, Response::Ended(_)));
    until_lock(&sidecar, "l", |lock| lock.waiting == 1).await;
    drop(first);
    let next = acquired(second.next(1).await);
    assert!(next > held);
    assert!(matches!(second.call(3, Request::ReleaseLock(release("l", next))).await, Response::ReleaseLock(_)));
    assert_eq!(lock(&sidecar, "l").await.token, 0);
    assert_eq!(failed(second.call(4, Request::ReleaseLock(release("l", next))).await), "token_unknown");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_told_how_long_it_surely_holds_a_lock_and_waits_for_one_beyond_the_time_of_a_request() {
    let sidecar = start().await;
    let (mut first, mut second) = (Operations::open(&sidecar).await, Operations::open(&sidecar).await);
    let Response::Acquire(held) = first.call(1, Request::Acquire(acquire("l", 0, 0))).await else { panic!("no lock") };
    assert!((1..=5_000).contains(&held.ttl_ms), "no longer than the session: {}", held.ttl_ms);
    let renew = |token| v1::RenewLockRequest { lock: "l".to_owned(), token, ..v1::RenewLockRequest::default() };
    let Response::RenewLock(renewed) = first.call(2, Request::RenewLock(renew(held.token))).await else { panic!() };
    assert!((1..=5_000).contains(&renewed.ttl_ms), "{}", renewed.ttl_ms);

    let asked = Some(Request::Acquire(acquire("l", 30_000, 0)));
    let operations = vec![v1::Operation { id: 1, timeout_ms: 200, request: asked, ..v1::Operation::default() }];
    second.sender.send(v1::OperationBatch { operations }).await.unwrap();
    let begun = std::time::Instant::now();
    until_lock(&sidecar, "l", |lock| lock.waiting == 1 && begun.elapsed() > Duration::from_millis(400)).await;
    first.call(3, Request::ReleaseLock(release("l", held.token))).await;
    assert!(acquired(second.next(1).await) > held.token);
    assert_eq!(failed(first.call(4, Request::RenewLock(renew(held.token))).await), "token_unknown");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_that_stops_waits_for_what_a_holder_was_told_and_tells_it_no_later_time() {
    let sidecar = start().await;
    let mut client = locks(&sidecar).await;
    let asked = std::time::Instant::now();
    let held = client.acquire(acquire("l", 0, 2_000)).await.unwrap().into_inner();
    let node = sidecar.node.clone();
    let stopping = tokio::spawn(async move { node.stop().await });
    let renew = v1::RenewLockRequest { lock: "l".to_owned(), token: held.token, ..v1::RenewLockRequest::default() };
    while sidecar.node.ready().is_ok() {
        tokio::task::yield_now().await;
    }
    let mut told = u64::MAX;
    // What is told grows no more once the drain is over, which nothing shows from outside.
    while told > 500 {
        let Ok(renewed) = client.renew(renew.clone()).await else { break };
        told = renewed.into_inner().ttl_ms;
    }
    stopping.await.unwrap();
    let least = Duration::from_millis(held.ttl_ms);
    assert!(asked.elapsed() >= least, "stopped after {:?} of {least:?}", asked.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_that_stops_does_not_wait_for_who_gives_its_lock_back() {
    let sidecar = start().await;
    let mut client = locks(&sidecar).await;
    let held = client.acquire(acquire("l", 0, 60_000)).await.unwrap().into_inner();
    assert!(held.ttl_ms > 3_000, "{}", held.ttl_ms);
    let told = std::time::Instant::now();
    let node = sidecar.node.clone();
    let stopping = tokio::spawn(async move { node.stop().await });
    while sidecar.node.ready().is_ok() {
        tokio::task::yield_now().await;
    }
    client.release(release("l", held.token)).await.unwrap();
    stopping.await.unwrap();
    assert!(told.elapsed() < Duration::from_millis(held.ttl_ms), "{:?}", told.elapsed());
}

/// One request over HTTP/1.1: the head and the body of its answer.
async fn http(sidecar: &Sidecar, method: &str, path: &str, body: &[u8]) -> (String, Vec<u8>) {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", sidecar.port)).await.unwrap();
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let cut = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    (String::from_utf8(answer[..cut].to_vec()).unwrap().to_ascii_lowercase(), answer[cut + 4..].to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_is_the_body_of_its_request_and_of_its_answer_over_http() {
    let sidecar = start().await;
    let value = [0, 159, 146, 150];
    let entry = "/v1/maps/m/entries/a%2Fb%20c";
    let (head, body) = http(&sidecar, "PUT", &format!("{entry}?if-absent=true"), &value).await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let written: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let revision = written["revision"].as_str().unwrap();
    let (head, body) = http(&sidecar, "GET", entry, b"").await;
    assert_eq!(body, value);
    assert!(head.contains(&format!("coterie-revision: {revision}")), "{head}");
    assert!(head.contains("content-type: application/octet-stream"), "{head}");

    let (head, body) = http(&sidecar, "PUT", &format!("{entry}?if-revision=999"), b"x").await;
    assert!(head.starts_with("http/1.1 409") && head.contains("coterie-code: revision_mismatch"), "{head}");
    assert!(String::from_utf8(body).unwrap().contains("a/b c"));
    let (_, body) = http(&sidecar, "GET", "/v1/maps/m/entries?prefix=a", b"").await;
    let page: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(page["entries"][0], serde_json::json!({"key": "a/b c", "value": "AJ+Slg==", "revision": revision}));
    let (head, _) = http(&sidecar, "DELETE", entry, b"").await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let (head, _) = http(&sidecar, "GET", entry, b"").await;
    assert!(head.starts_with("http/1.1 404") && head.contains("coterie-code: entry_unknown"), "{head}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_is_acquired_renewed_and_released_over_http() {
    let sidecar = start().await;
    let call = async |path: &str, body: &str| {
        let (head, body) = http(&sidecar, "POST", &format!("/v1/locks/l/{path}"), body.as_bytes()).await;
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        (head[9..12].to_owned(), body)
    };
    let (status, acquired) = call("acquire", r#"{"ttl_ms": "60000"}"#).await;
    assert_eq!(status, "200", "{acquired}");
    let token = format!(r#"{{"token": {}}}"#, acquired["token"]);
    let (status, refused) = call("acquire", "{}").await;
    assert_eq!((status.as_str(), refused["code"].as_str()), ("409", Some("lock_held")));
    let (status, renewed) = call("renew", &token).await;
    assert_eq!(status, "200", "{renewed}");
    let (_, body) = http(&sidecar, "GET", "/v1/locks/l", b"").await;
    let seen: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&seen["token"], &seen["sidecar"]), (&acquired["token"], &"one".into()));
    assert_eq!(call("release", &token).await.0, "200");
    assert_eq!(call("release", &token).await.1["code"], "token_unknown");
    assert!(call("release", "{}").await.1["detail"].as_str().unwrap().starts_with("token: is missing"));
}
