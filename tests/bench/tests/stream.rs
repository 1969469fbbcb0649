//! The client of the stream of operations, against a server that answers from memory.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coterie_bench::fanout::Fanout;
use coterie_bench::load::{Part, Values, Window, Work};
use coterie_bench::system::{Connection, coterie};
use coterie_proto::v1::operation::Request as Asked;
use coterie_proto::v1::operations_server::{Operations, OperationsServer};
use coterie_proto::v1::result::Response as Answered;
use coterie_proto::v1::{
    AcquireResponse, Consistency, Entries, Entry, Failure, GetEntryResponse, MapEvent, OperationBatch, PutResponse,
    ReleaseLockResponse, Result as Answer, ResultBatch, map_event,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::{Request, Response, Status, Streaming};

type Sender = mpsc::UnboundedSender<Result<ResultBatch, Status>>;

/// Takes everything at once; refuses every tenth put if told so.
#[derive(Default)]
struct Memory {
    refuses: bool,
    puts: Mutex<u64>,
    held: Mutex<BTreeMap<String, u64>>,
    watchers: Mutex<Vec<(String, u64, Sender)>>,
}

impl Memory {
    fn answer(&self, id: u64, asked: Asked, send: &Sender) -> Answered {
        match asked {
            Asked::Put(put) => {
                assert_eq!((put.value.len(), put.map.is_empty(), put.key.is_empty()), (256, false, false));
                let mut puts = self.puts.lock().unwrap();
                *puts += 1;
                if self.refuses && puts.is_multiple_of(10) {
                    let code = "unavailable".to_owned();
                    return Answered::Failure(Failure { code, ..Failure::default() });
                }
                let entry = Entry { key: put.key, value: put.value, revision: *puts };
                for (_, id, send) in self.watchers.lock().unwrap().iter().filter(|(map, ..)| *map == put.map) {
                    let kind = Some(map_event::Kind::Put(entry.clone()));
                    _ = send.send(Ok(of(*id, Answered::Event(MapEvent { kind, ..MapEvent::default() }))));
                }
                Answered::Put(PutResponse { revision: *puts, previous_revision: 0 })
            }
            Asked::Get(get) => {
                assert_ne!(get.consistency(), Consistency::Stale);
                Answered::Get(GetEntryResponse::default())
            }
            Asked::Watch(watch) => {
                self.watchers.lock().unwrap().push((watch.map, id, send.clone()));
                let kind = Some(map_event::Kind::Snapshot(Entries { entries: Vec::new(), last: true }));
                Answered::Event(MapEvent { kind, ..MapEvent::default() })
            }
            Asked::Acquire(acquire) => {
                let mut held = self.held.lock().unwrap();
                let token = id + 100;
                assert!(held.insert(acquire.lock, token).is_none(), "a lock is taken by its only client, twice");
                Answered::Acquire(AcquireResponse { token, ttl_ms: 0, revision: 1 })
            }
            Asked::ReleaseLock(release) => {
                assert_eq!(self.held.lock().unwrap().remove(&release.lock), Some(release.token));
                Answered::ReleaseLock(ReleaseLockResponse { revision: 1 })
            }
            other => panic!("the benchmark asks for {other:?}"),
        }
    }
}

fn of(id: u64, response: Answered) -> ResultBatch {
    ResultBatch { results: vec![Answer { id, response: Some(response) }] }
}

struct Server(Arc<Memory>);

#[tonic::async_trait]
impl Operations for Server {
    type StreamStream = UnboundedReceiverStream<Result<ResultBatch, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<OperationBatch>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let (send, receive) = mpsc::unbounded_channel();
        let (memory, mut batches) = (self.0.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(batch)) = batches.message().await {
                for operation in batch.operations {
                    let answer = memory.answer(operation.id, operation.request.unwrap(), &send);
                    _ = send.send(Ok(of(operation.id, answer)));
                }
            }
        });
        Ok(Response::new(UnboundedReceiverStream::new(receive)))
    }
}

async fn connected(memory: Memory) -> (Arc<Memory>, Arc<dyn Connection>) {
    let memory = Arc::new(memory);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = tonic::transport::Server::builder().add_service(OperationsServer::new(Server(memory.clone())));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (memory, coterie::connect(endpoint).await.unwrap())
}

fn part(work: Work) -> Part {
    let window = Window::after(Duration::from_millis(20), Duration::from_millis(200));
    Part { work, slots: 8..16, window, seed: 1, values: Values::new(1) }
}

#[tokio::test]
async fn every_slot_does_one_thing_after_another_until_the_window_is_over() {
    for work in [Work::Write, Work::Read, Work::LeasedRead, Work::Lock] {
        let (memory, connection) = connected(Memory::default()).await;
        let samples = connection.drive(part(work)).await.unwrap();
        assert!(samples.count() > 100, "{work:?}: {samples:?}");
        assert_eq!((samples.failed, samples.failure), (0, None), "{work:?}");
        assert!(memory.held.lock().unwrap().is_empty(), "every lock is given back");
    }
}

#[tokio::test]
async fn what_is_refused_counts_as_failed_and_not_as_done() {
    let (memory, connection) = connected(Memory { refuses: true, ..Memory::default() }).await;
    let samples = connection.drive(part(Work::Write)).await.unwrap();
    let puts = *memory.puts.lock().unwrap();
    assert_eq!((samples.failed, samples.failure.as_deref()), (puts / 10, Some("unavailable: ")));
    assert!(samples.count() as u64 <= puts - samples.failed);
}

#[tokio::test]
async fn a_put_of_a_watched_key_is_done_when_all_watchers_were_told() {
    let (_, connection) = connected(Memory::default()).await;
    let fanout = Arc::new(Fanout::new(3, 2));
    connection.watch(3, fanout.clone()).await.unwrap();
    fanout.begin(1, 5);
    connection.write_watched(&fanout, 1, 5).await.unwrap();
    fanout.seen_by_all(1).await;
    assert_eq!(fanout.delivered(), 3);
}
