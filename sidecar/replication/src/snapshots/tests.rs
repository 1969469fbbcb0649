//! What waits for what, and for how long: on simulated time, with everything on one thread.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coterie_core::command::{Command, Condition, Envelope, MapOp};
use coterie_core::machine::Machine;
use coterie_core::{MemberName, NodeId, PartitionId, Revision};
use coterie_env::mem::MemDisk;
use coterie_env::spawn::BoxFuture;
use coterie_env::{Disk as _, Env, Spawn};
use futures_util::StreamExt as _;
use openraft::raft::SnapshotResponse;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::message::{Answer, encode_piece};
use super::receive::ReceiveError;
use super::send::{SendError, Sending};
use super::*;
use crate::replica::{Replica, SnapshotPolicy, State};
use crate::timing::{PARTIAL_KEPT, SNAPSHOT_PATIENCE};
use crate::transport::{self, Lane, Target, Transfer, Transport};
use crate::types::{StoredMembership, Vote};

struct TaskSpawn;

impl Spawn for TaskSpawn {
    fn spawn(&self, _name: &'static str, task: BoxFuture) {
        tokio::spawn(task);
    }

    fn dedicated(&self, _name: &'static str, task: BoxFuture) {
        tokio::spawn(task);
    }
}

struct World {
    env: Env,
    disk: MemDisk,
    file: SnapshotFile,
}

fn world() -> World {
    let disk = MemDisk::new();
    let env = Env { disk: Arc::new(disk.clone()), spawn: Arc::new(TaskSpawn), ..coterie_env::real::real() };
    env.disk.create_dir_all(Path::new("/data")).unwrap();
    let snapshots = Arc::new(Snapshots::new(&env, Path::new("/data")).unwrap());
    World { file: SnapshotFile::new(env.clone(), snapshots, "p"), env, disk }
}

/// A replica that has applied this many entries, each about a piece, in this term.
fn replica(world: &World, term: u64, entries: u64) -> Arc<Replica> {
    let mut machine = Machine::new(0);
    for number in 1..=entries {
        let op = MapOp::Put { key: number.to_string().into(), value: vec![7; 200_000].into(), only: Condition::Always };
        let command = Command::Map { name: "m".into(), op };
        machine.apply(Revision(number), 0, &Envelope { request: None, command }).outcome.unwrap();
    }
    let leader = openraft::impls::leader_id_adv::LeaderId { term, node_id: 1 };
    let last = Some(LogId::new(leader, entries));
    let state = State { machine, last, membership: StoredMembership::default() };
    Replica::new(world.env.clone(), state, SnapshotPolicy { entries: 1, bytes: 1 })
}

/// A snapshot of about so many pieces.
async fn made(world: &World, pieces: u64) -> (Offer, Stored) {
    world.file.make(replica(world, 1, pieces).image()).await.unwrap();
    let (meta, stored) = world.file.current().unwrap();
    (Offer::new(Vote::new_committed(1, 1), meta, &stored), stored)
}

/// A receiver that answers as a test says.
struct Scripted {
    /// Between an answer and the next.
    pause: Option<Duration>,
    /// Answers beside those to pieces, at the start.
    busy: u64,
}

struct ScriptedTransfer {
    pause: Option<Duration>,
    busy: u64,
    begun: bool,
    sent: u64,
    taken: u64,
    pieces: u64,
}

#[async_trait::async_trait]
impl Transport for Scripted {
    async fn send(
        &self,
        _: &Target,
        _: &PartitionId,
        _: u32,
        _: Bytes,
        _: Duration,
    ) -> Result<Bytes, transport::Error> {
        unreachable!("a snapshot only")
    }

    fn lane(&self, _: &Target, _: &PartitionId) -> Result<Box<dyn Lane>, transport::Error> {
        unreachable!("a snapshot only")
    }

    async fn transfer(&self, _: &Target, _: &PartitionId) -> Result<Box<dyn Transfer>, transport::Error> {
        let Self { pause, busy } = *self;
        Ok(Box::new(ScriptedTransfer { pause, busy, begun: false, sent: 0, taken: 0, pieces: 0 }))
    }
}

#[async_trait::async_trait]
impl Transfer for ScriptedTransfer {
    async fn send(&mut self, payload: Bytes) -> Result<(), transport::Error> {
        if self.pieces == 0 {
            self.pieces = codec::decode_message::<Offer>(0, &payload).unwrap().label().pieces;
        } else {
            self.sent += 1;
            assert!(
                self.sent - self.taken <= crate::timing::SNAPSHOT_AHEAD,
                "sent {} of {} taken",
                self.sent,
                self.taken
            );
        }
        Ok(())
    }

    async fn answer(&mut self) -> Result<Bytes, transport::Error> {
        match self.pause {
            Some(pause) => tokio::time::sleep(pause).await, // plays a receiver that takes its time
            None => std::future::pending().await,
        }
        let answer = if self.busy > 0 {
            self.busy -= 1;
            Answer::Busy
        } else if !self.begun {
            self.begun = true;
            Answer::Begin(Place::default().into())
        } else if self.taken == self.pieces {
            Answer::Done(SnapshotResponse::new(Vote::new_committed(1, 1)))
        } else if self.taken < self.sent {
            self.taken += 1;
            Answer::Taken(self.taken)
        } else {
            Answer::Busy
        };
        Ok(codec::encode_message(0, &answer))
    }
}

async fn send(world: &World, transport: &Scripted, pieces: u64) -> Result<(), SendError> {
    let (offer, stored) = made(world, pieces).await;
    let to = Target { node: NodeId(2), member: MemberName("two".to_owned()) };
    let partition = PartitionId { group: "data".into(), index: 1 };
    let World { env, file, .. } = world;
    let sending = Sending { env, file, transport, to: &to, partition: &partition, generation: 0 };
    sending.run(&offer, stored).await.map(|_| ())
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_goes_on_slowly_is_waited_for_and_never_sent_more_than_a_few_pieces_ahead() {
    let (world, begun) = (world(), Instant::now());
    let pause = SNAPSHOT_PATIENCE - Duration::from_secs(1);
    send(&world, &Scripted { pause: Some(pause), busy: 5 }, 40).await.unwrap();
    assert!(begun.elapsed() > 40 * pause);
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_says_nothing_is_given_up() {
    let (world, begun) = (world(), Instant::now());
    let error = send(&world, &Scripted { pause: None, busy: 0 }, 2).await.unwrap_err();
    assert!(error.to_string().contains("two has not gone on with the snapshot for 10s"), "{error}");
    assert!(begun.elapsed() < SNAPSHOT_PATIENCE * 2);
}

/// Begins to receive a snapshot; what goes in, and what comes out.
fn receiving(world: &World) -> (mpsc::Sender<Bytes>, mpsc::Receiver<Result<Bytes, String>>, Receiving) {
    let (messages, mut sent) = mpsc::channel(1_000);
    let (sender, answers) = mpsc::channel(1_000);
    let sent = futures_util::stream::poll_fn(move |context| sent.poll_recv(context));
    (messages, answers, world.file.receiving(sent.boxed(), Answers { generation: 0, sender }))
}

fn files(world: &World) -> usize {
    world.disk.list(Path::new("/data/snap")).unwrap().len()
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_falls_silent_is_given_up_and_what_it_sent_is_kept_for_a_while() {
    let (theirs, ours) = (world(), world());
    let (offer, stored) = made(&theirs, 10).await;
    let pieces: Vec<_> = stored.pieces(Place::default()).map(Result::unwrap).collect();
    let begun = Instant::now();
    let (messages, mut answers, mut from) = receiving(&ours);
    for piece in &pieces[..4] {
        messages.send(encode_piece(piece)).await.unwrap();
    }
    let error = ours.file.receive(&mut from, &offer).await.err().unwrap();
    assert!(matches!(error, ReceiveError::Silent), "{error}");
    assert!(begun.elapsed() >= SNAPSHOT_PATIENCE && begun.elapsed() < SNAPSHOT_PATIENCE * 2);
    let mut count = 0;
    while answers.try_recv().is_ok() {
        count += 1;
    }
    assert_eq!(count, 5, "where to begin, and each piece");

    // The next one goes on from there, also where it breaks off once more, and when all of it is there.
    let forgets = ours.file.clone();
    let forgets = tokio::spawn(async move { forgets.forget_partial().await });
    for (from_piece, upto) in [(4, 7), (7, 10)] {
        let (messages, mut answers, mut from) = receiving(&ours);
        for piece in &pieces[from_piece..upto] {
            messages.send(encode_piece(piece)).await.unwrap();
        }
        drop(messages);
        let received = ours.file.receive(&mut from, &offer).await;
        let first = codec::decode_message::<Answer>(0, &answers.recv().await.unwrap().unwrap()).unwrap();
        let Answer::Begin(at) = first else { panic!("{first:?}") };
        assert_eq!(Place::from(at).pieces, from_piece as u64);
        match received {
            Err(error) => assert!(matches!(error, ReceiveError::Ended) && upto == 7, "{error}"),
            Ok(received) => {
                let (machine, _) = received.publish().await.unwrap();
                assert_eq!(machine.revision(), Revision(10));
            }
        }
    }
    forgets.await.unwrap();
    assert_eq!(ours.file.current().unwrap().1.label(), stored.label(), "the same bytes");
    assert_eq!(files(&ours), 1);
}

#[tokio::test(start_paused = true)]
async fn a_part_that_nobody_goes_on_with_is_removed_and_so_is_one_of_another_snapshot() {
    let (theirs, ours) = (world(), world());
    let (offer, stored) = made(&theirs, 10).await;
    let first = stored.pieces(Place::default()).next().unwrap().unwrap();
    let begin = async |offer: &Offer, piece: &Piece| {
        let (messages, mut answers, mut from) = receiving(&ours);
        messages.send(encode_piece(piece)).await.unwrap();
        drop(messages);
        assert!(matches!(ours.file.receive(&mut from, offer).await, Err(ReceiveError::Ended)));
        let answer = codec::decode_message::<Answer>(0, &answers.recv().await.unwrap().unwrap()).unwrap();
        let Answer::Begin(at) = answer else { panic!("{answer:?}") };
        Place::from(at).pieces
    };
    assert_eq!(begin(&offer, &first).await, 0);
    assert_eq!(files(&ours), 1);
    let (other, others) = made(&theirs, 11).await;
    assert_eq!(begin(&other, &others.pieces(Place::default()).next().unwrap().unwrap()).await, 0, "another one");

    let before = Instant::now();
    ours.file.forget_partial().await;
    assert!(before.elapsed() >= PARTIAL_KEPT);
    assert_eq!(files(&ours), 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_sends_last_is_listened_to_and_a_snapshot_that_raft_does_not_need_is_removed() {
    let (theirs, ours) = (world(), world());
    let (offer, stored) = made(&theirs, 5).await;
    let (_messages, _answers, mut first) = receiving(&ours);
    let (file, offered) = (ours.file.clone(), offer.clone());
    let stopped = tokio::spawn(async move { file.receive(&mut first, &offered).await.err() });
    tokio::task::yield_now().await;
    let (messages, _answers, mut second) = receiving(&ours);
    for piece in stored.pieces(Place::default()) {
        messages.send(encode_piece(&piece.unwrap())).await.unwrap();
    }
    let received = ours.file.receive(&mut second, &offer).await.unwrap();
    assert!(matches!(stopped.await.unwrap(), Some(ReceiveError::Superseded)));
    assert_eq!(files(&ours), 1);
    drop(received);
    // Its place is free once it is gone.
    drop(ours.file.0.slot.lock().await);
    assert_eq!(files(&ours), 0);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_does_not_fit_leaves_the_present_one_and_nothing_else() {
    let world = world();
    let (_, stored) = made(&world, 5).await;
    world.disk.set_capacity(stored.len() + 500_000);
    world.file.make(replica(&world, 1, 4).image()).await.expect("an older one is not needed");
    let replica = replica(&world, 2, 10);
    let error = world.file.make(replica.image()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(files(&world), 1);
    assert_eq!(world.file.current().unwrap().1.label(), stored.label());
    world.disk.set_capacity(u64::MAX);
    world.file.make(replica.image()).await.unwrap();
    assert_eq!(files(&world), 1);
}
