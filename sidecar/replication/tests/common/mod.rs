//! Replicas of one partition in one process, each on a disk of its own, with links that can be cut.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of this")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use coterie_core::command::{self, Answer, Command, Envelope, GroupOp, GroupView, Outcome, Query, Reply};
use coterie_core::{ErrorCode, GroupName, MemberName, NodeId, PartitionId, RequestId, Revision};
use coterie_env::mem::MemDisk;
use coterie_env::random::uuid_v7;
use coterie_env::{Disk, Env};
use coterie_replication::{
    Leadership, Options, Partition, ProposeError, Target, Ticker, Timing, Transport, storage_key, transport,
};
use coterie_store::log::{self, Log};
use coterie_store::snapshots::{Piece, Place, Snapshots};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tokio::sync::{mpsc, watch};

/// More than any wait of these tests takes on a machine that is busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Of the replicas' logs.
pub const SEGMENT_BYTES: u64 = 256 * 1024;
/// A client's deadline.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// Who is reachable, and which links are cut.
#[derive(Default)]
struct Net {
    replicas: BTreeMap<u64, Partition>,
    cut: BTreeSet<(u64, u64)>,
    transfers: Transfers,
}

type SharedNet = Arc<Mutex<Net>>;

/// One replica's way to the others.
struct Links {
    own: u64,
    net: SharedNet,
}

impl Links {
    /// The other end, if the link is whole in both directions; else waits as a lost packet makes one wait.
    async fn reach(&self, to: &Target, timeout: Duration) -> Result<Partition, transport::Error> {
        let replica = {
            let net = self.net.lock().unwrap();
            let cut = net.cut.contains(&(self.own, to.node.0)) || net.cut.contains(&(to.node.0, self.own));
            net.replicas.get(&to.node.0).filter(|_| !cut).cloned()
        };
        match replica {
            Some(replica) => Ok(replica),
            None => {
                tokio::time::sleep(timeout).await; // plays a message that is lost
                Err(transport::Error::Unreachable { member: to.member.clone(), reason: "no answer".to_owned() })
            }
        }
    }
}

fn refused(to: &Target) -> impl Fn(String) -> transport::Error {
    move |reason| transport::Error::Refused { member: to.member.clone(), reason }
}

#[async_trait::async_trait]
impl Transport for Links {
    async fn send(
        &self,
        to: &Target,
        _partition: &PartitionId,
        kind: u32,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, transport::Error> {
        let answer = self.reach(to, timeout).await?.handle(kind, payload).await.map_err(refused(to))?;
        self.reach(to, timeout).await?;
        Ok(answer)
    }

    fn lane(&self, to: &Target, _partition: &PartitionId) -> Result<Box<dyn transport::Lane>, transport::Error> {
        let links = Links { own: self.own, net: self.net.clone() };
        let (messages, mut sent) = mpsc::channel::<Bytes>(1_000);
        let (answered, answers) = mpsc::unbounded_channel();
        let lane = TestLane { links, to: to.clone(), messages, answers };
        let (links, to) = (Links { own: self.own, net: self.net.clone() }, to.clone());
        tokio::spawn(async move {
            let Some(first) = sent.recv().await else { return };
            // While the link is cut nothing arrives, and nothing is answered.
            let Ok(replica) = links.reach(&to, Duration::ZERO).await else { return };
            let (feed, fed) = mpsc::channel(1_000);
            let _ = feed.try_send(first);
            let mut answers = replica.handle_lane(fed).await;
            loop {
                tokio::select! {
                    answer = answers.next() => match answer {
                        Some(answer) => drop(answered.send(answer)),
                        None => return,
                    },
                    payload = sent.recv() => match payload {
                        Some(payload) if links.reach(&to, Duration::ZERO).await.is_ok() => {
                            let _ = feed.try_send(payload);
                        }
                        Some(_) | None => return,
                    },
                }
            }
        });
        Ok(Box::new(lane))
    }

    async fn transfer(
        &self,
        to: &Target,
        _partition: &PartitionId,
    ) -> Result<Box<dyn transport::Transfer>, transport::Error> {
        let replica = self.reach(to, Duration::ZERO).await?;
        let (messages, sent) = mpsc::channel::<Bytes>(1);
        let sent = futures_util::stream::unfold(sent, |mut sent| async { Some((sent.recv().await?, sent)) });
        let links = Links { own: self.own, net: self.net.clone() };
        let answers = replica.handle_snapshot(sent.boxed());
        let transfers = self.net.lock().unwrap().transfers.clone();
        let number = transfers.begin();
        Ok(Box::new(TestTransfer { links, to: to.clone(), messages, answers, transfers, number }))
    }
}

/// A lane between two replicas: whatever is sent while the link is cut ends it.
struct TestLane {
    links: Links,
    to: Target,
    messages: mpsc::Sender<Bytes>,
    answers: mpsc::UnboundedReceiver<Result<Bytes, String>>,
}

#[async_trait::async_trait]
impl transport::Lane for TestLane {
    fn send(&mut self, payload: Bytes) -> Result<(), transport::Error> {
        self.messages.try_send(payload).map_err(|error| refused(&self.to)(error.to_string()))
    }

    async fn answer(&mut self) -> Result<Bytes, transport::Error> {
        let answer = self.answers.recv().await;
        self.links.reach(&self.to, Duration::ZERO).await?;
        answer.unwrap_or_else(|| Err("the lane is closed".to_owned())).map_err(refused(&self.to))
    }
}

/// A snapshot between two replicas: whatever is sent while the link is cut ends it.
struct TestTransfer {
    links: Links,
    to: Target,
    messages: mpsc::Sender<Bytes>,
    answers: BoxStream<'static, Result<Bytes, String>>,
    transfers: Transfers,
    number: usize,
}

#[async_trait::async_trait]
impl transport::Transfer for TestTransfer {
    async fn send(&mut self, payload: Bytes) -> Result<(), transport::Error> {
        self.links.reach(&self.to, Duration::ZERO).await?;
        self.transfers.sent(self.number, payload.len()).await.map_err(refused(&self.to))?;
        self.messages.send(payload).await.map_err(|error| refused(&self.to)(error.to_string()))
    }

    async fn answer(&mut self) -> Result<Bytes, transport::Error> {
        let answer = self.answers.next().await;
        self.transfers.answered(self.number);
        self.links.reach(&self.to, Duration::ZERO).await?;
        answer.unwrap_or_else(|| Err("the transfer is over".to_owned())).map_err(refused(&self.to))
    }
}

/// All snapshots that were sent, and how far the present one may go.
#[derive(Clone)]
pub struct Transfers(Arc<(Mutex<Vec<Sent>>, watch::Sender<Gate>)>);

/// What went of one snapshot.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    /// With the offer.
    pub messages: usize,
    pub bytes: usize,
    pub answers: usize,
    /// The most messages that were sent and not answered.
    pub ahead: usize,
}

/// What happens to a message of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    Open,
    /// From this one on they wait.
    WaitsAt(usize),
    /// This one breaks the connection, once.
    BreaksAt(usize),
}

impl Default for Transfers {
    fn default() -> Self {
        Self(Arc::new((Mutex::default(), watch::Sender::new(Gate::Open))))
    }
}

impl Transfers {
    pub fn set(&self, gate: Gate) {
        self.0.1.send_replace(gate);
    }

    pub fn all(&self) -> Vec<Sent> {
        self.0.0.lock().unwrap().clone()
    }

    /// Waits until so many messages of the last snapshot were sent.
    pub async fn reached(&self, messages: usize) {
        within(async {
            while self.all().last().is_none_or(|sent| sent.messages < messages) {
                tokio::time::sleep(Duration::from_millis(5)).await; // waits for a condition
            }
        })
        .await;
    }

    fn begin(&self) -> usize {
        let mut all = self.0.0.lock().unwrap();
        all.push(Sent::default());
        all.len() - 1
    }

    async fn sent(&self, number: usize, bytes: usize) -> Result<(), String> {
        let messages = self.all()[number].messages;
        let mut gate = self.0.1.subscribe();
        let open = |gate: &Gate| !matches!(gate, Gate::WaitsAt(at) if messages >= *at);
        let gate = *gate.wait_for(open).await.unwrap();
        if gate == Gate::BreaksAt(messages) {
            self.set(Gate::Open);
            return Err("the connection broke".to_owned());
        }
        let sent = &mut self.0.0.lock().unwrap()[number];
        sent.messages += 1;
        sent.bytes += bytes;
        sent.ahead = sent.ahead.max(sent.messages.saturating_sub(sent.answers));
        Ok(())
    }

    fn answered(&self, number: usize) {
        self.0.0.lock().unwrap()[number].answers += 1;
    }
}

/// One machine: its disk outlives its process.
struct Machine {
    member: MemberName,
    disk: MemDisk,
    log: Option<Log>,
    running: Option<Partition>,
}

impl Machine {
    fn new(member: MemberName) -> Self {
        Self { member, disk: MemDisk::new(), log: None, running: None }
    }
}

/// Replicas 1 to n of one partition, and those that were added.
pub struct Cluster {
    id: PartitionId,
    generation: u64,
    machines: BTreeMap<u64, Machine>,
    net: SharedNet,
    timing: Timing,
    snapshot_entries: u64,
    client: Client,
}

/// One client with rising request ids.
pub struct Client {
    env: Env,
    id: u128,
}

impl Client {
    pub fn new() -> Self {
        let env = coterie_env::real::real();
        let id = uuid_v7(&*env.random, env.clock.wall_ms());
        Self { env, id }
    }

    pub fn request(&self) -> RequestId {
        RequestId { client: self.id, request: uuid_v7(&*self.env.random, self.env.clock.wall_ms()) }
    }

    pub fn body(&self, command: Command) -> Bytes {
        body(Some(self.request()), command)
    }
}

pub fn body(request: Option<RequestId>, command: Command) -> Bytes {
    command::encode(&Envelope { request, command }).into()
}

/// Makes a group.
pub fn create(group: &str) -> Command {
    Command::Group { name: GroupName::from(group), op: GroupOp::Create { config: None } }
}

pub fn member(node: u64) -> MemberName {
    MemberName(format!("member-{node}"))
}

pub fn target(node: u64) -> Target {
    Target { node: NodeId(node), member: member(node) }
}

impl Cluster {
    /// Replicas that have never heard of each other.
    pub async fn pristine(replicas: u64) -> Self {
        Self::with_snapshots_every(replicas, 1_000_000).await
    }

    pub async fn with_snapshots_every(replicas: u64, snapshot_entries: u64) -> Self {
        Self::with(replicas, snapshot_entries, Timing::NORMAL).await
    }

    /// Replicas that form a partition, with these timers.
    pub async fn formed_with(replicas: u64, timing: Timing) -> Self {
        Self::with(replicas, 1_000_000, timing).await.form().await
    }

    async fn with(replicas: u64, snapshot_entries: u64, timing: Timing) -> Self {
        show_logs();
        let id = PartitionId { group: "data".into(), index: 1 };
        let machines = (1..=replicas).map(|node| (node, Machine::new(member(node)))).collect();
        let net = SharedNet::default();
        let mut cluster = Self { id, generation: 0, machines, net, timing, snapshot_entries, client: Client::new() };
        for node in cluster.nodes() {
            cluster.start(node).await;
        }
        cluster
    }

    /// Replicas that form a partition.
    pub async fn formed(replicas: u64) -> Self {
        Self::pristine(replicas).await.form().await
    }

    pub async fn form(self) -> Self {
        for node in self.nodes() {
            self.replica(node).form(self.nodes().into_iter().map(target).collect()).await.unwrap();
        }
        self
    }

    pub fn nodes(&self) -> Vec<u64> {
        self.machines.keys().copied().collect()
    }

    pub fn replica(&self, node: u64) -> Partition {
        self.machines[&node].running.clone().expect("the replica runs")
    }

    /// Starts a process on the machine's disk.
    pub async fn start(&mut self, node: u64) {
        self.try_start(node).await.unwrap();
    }

    /// As [`Cluster::start`], on a disk that may hold something that is refused.
    pub async fn try_start(&mut self, node: u64) -> Result<(), coterie_replication::Error> {
        let machine = self.machines.get_mut(&node).unwrap();
        let env = Env { disk: Arc::new(machine.disk.clone()), ..coterie_env::real::real() };
        let dir = Path::new("/data");
        env.disk.create_dir_all(dir).unwrap();
        let options = log::Options { segment_bytes: SEGMENT_BYTES, ..log::Options::default() };
        let log = Log::open(&env, dir, options).unwrap();
        machine.log = Some(log.clone());
        let options = Options {
            id: self.id.clone(),
            node: NodeId(node),
            member: machine.member.clone(),
            generation: self.generation,
            log,
            snapshots: Arc::new(Snapshots::new(&env, dir).unwrap()),
            transport: Arc::new(Links { own: node, net: self.net.clone() }),
            ticker: Ticker::start(&env, self.timing),
            snapshot_entries: self.snapshot_entries,
            env,
        };
        let partition = Partition::open(options).await?;
        self.net.lock().unwrap().replicas.insert(node, partition.clone());
        machine.running = Some(partition);
        Ok(())
    }

    /// Changes what a stopped machine's disk holds as the snapshot's meta data and its first piece.
    pub fn change_snapshot(&self, node: u64, change: impl FnOnce(&mut Vec<u8>, &mut Vec<u8>)) {
        let env = Env { disk: Arc::new(self.machines[&node].disk.clone()), ..coterie_env::real::real() };
        let snapshots = Snapshots::new(&env, Path::new("/data")).unwrap();
        let key = storage_key(&self.id, self.generation);
        let stored = snapshots.open(&key).unwrap().expect("there is a snapshot");
        let mut meta = stored.label().meta.clone();
        let mut pieces: Vec<_> = stored.pieces(Place::default()).map(|piece| piece.unwrap().bytes.to_vec()).collect();
        change(&mut meta, &mut pieces[0]);
        let mut draft = snapshots.begin(&key, &meta).unwrap();
        for (number, piece) in (0..).zip(pieces) {
            draft.push(&Piece::new(number, piece)).unwrap();
        }
        draft.finish().unwrap().publish().unwrap();
    }

    /// A machine with an empty disk that has never heard of the partition.
    pub async fn add(&mut self, node: u64, member: MemberName) {
        assert!(self.machines.insert(node, Machine::new(member)).is_none(), "an identity is used once");
        self.start(node).await;
    }

    /// Ends a machine for ever, with its disk.
    pub async fn lose(&mut self, node: u64) {
        self.crash(node).await;
        self.machines.remove(&node);
    }

    /// A replica as others name it.
    pub fn target(&self, node: u64) -> Target {
        Target { node: NodeId(node), member: self.machines[&node].member.clone() }
    }

    pub fn targets(&self, nodes: &[u64]) -> Vec<Target> {
        nodes.iter().map(|node| self.target(*node)).collect()
    }

    /// Ends a process as a power failure does.
    pub async fn crash(&mut self, node: u64) {
        let machine = self.machines.get_mut(&node).unwrap();
        self.net.lock().unwrap().replicas.remove(&node);
        machine.disk.crash();
        machine.running.take().expect("the replica runs").shutdown().await;
        machine.disk.crash();
    }

    /// Ends a process in good order.
    pub async fn stop(&mut self, node: u64) {
        let running = self.machines.get_mut(&node).unwrap().running.take().expect("the replica runs");
        running.shutdown().await;
        self.net.lock().unwrap().replicas.remove(&node);
    }

    /// How much of this machine's volume is free from now on; returns once its log has looked.
    pub async fn set_free_bytes(&self, node: u64, bytes: u64) {
        let disk = &self.machines[&node].disk;
        disk.set_free_bytes(bytes);
        let before = disk.free_bytes_asked();
        within(async {
            // What was asked just before may not be noted yet.
            while disk.free_bytes_asked() < before + 2 {
                tokio::time::sleep(Duration::from_millis(20)).await; // waits for a condition
            }
        })
        .await;
    }

    pub fn transfers(&self) -> Transfers {
        self.net.lock().unwrap().transfers.clone()
    }

    pub fn disk(&self, node: u64) -> &MemDisk {
        &self.machines[&node].disk
    }

    /// The names of the files in this machine's folder of snapshots.
    pub fn snapshot_files(&self, node: u64) -> Vec<String> {
        let files = self.machines[&node].disk.list(Path::new("/data/snap")).unwrap();
        files.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
    }

    /// Whether this machine's disk holds a snapshot.
    pub fn has_snapshot(&self, node: u64) -> bool {
        let files = self.machines[&node].disk.list(Path::new("/data/snap")).unwrap();
        files.iter().any(|path| path.extension().is_some_and(|extension| extension == "snap"))
    }

    /// Why a replica that runs works no more.
    pub fn failure(&self, node: u64) -> Option<String> {
        self.machines[&node].running.as_ref().and_then(Partition::failed)
    }

    /// Every write of this machine fails from now on.
    pub fn fail_disk(&self, node: u64) {
        self.machines[&node].disk.fail(Some(std::io::ErrorKind::Other));
    }

    /// The first revision that a running replica's log still holds.
    pub fn first_in_log(&self, node: u64) -> Option<Revision> {
        let log = self.machines[&node].log.as_ref().expect("the replica runs");
        log.partition(&storage_key(&self.id, self.generation)).state().first.map(Revision)
    }

    /// Cuts all links of a replica.
    pub fn cut(&self, node: u64) {
        let mut net = self.net.lock().unwrap();
        net.cut.extend(self.nodes().into_iter().map(|other| (node, other)));
    }

    /// Cuts the link of two replicas.
    pub fn cut_between(&self, one: u64, other: u64) {
        self.net.lock().unwrap().cut.insert((one, other));
    }

    pub fn heal(&self) {
        self.net.lock().unwrap().cut.clear();
    }

    fn running(&self) -> impl Iterator<Item = (u64, &Partition)> {
        self.machines.iter().filter_map(|(node, machine)| Some((*node, machine.running.as_ref()?)))
    }

    /// Waits until one of these replicas leads, with its barrier applied and a majority behind it.
    pub async fn leader_among(&self, nodes: &[u64]) -> u64 {
        let watches: Vec<_> = nodes.iter().map(|node| (*node, self.replica(*node).leadership())).collect();
        let waits = watches.into_iter().map(|(node, mut leadership)| {
            Box::pin(async move {
                let leads = |now: &Leadership| now.leading && now.has_quorum;
                if leadership.wait_for(leads).await.is_err() {
                    // It failed or was stopped.
                    std::future::pending::<()>().await;
                }
                node
            })
        });
        let (leader, _, _) = within(futures_util::future::select_all(waits)).await;
        leader
    }

    pub async fn leader(&self) -> u64 {
        let running: Vec<_> = self.running().map(|(node, _)| node).collect();
        self.leader_among(&running).await
    }

    /// Proposes as a router does: on whoever leads, again after a change of leader, always with the same request id.
    pub async fn must(&self, command: Command) -> (Revision, Reply) {
        let (revision, outcome) = self.must_body(self.client.body(command)).await;
        (revision, outcome.expect("the command is accepted"))
    }

    /// As [`Cluster::must`], with bytes that may be refused.
    pub async fn must_body(&self, body: Bytes) -> (Revision, Outcome) {
        within(async {
            loop {
                let leader = self.leader().await;
                match self.replica(leader).propose(body.clone(), DEADLINE).await {
                    Ok(answer) => return answer,
                    Err(ProposeError::NotLeader(_)) => {}
                    Err(ProposeError::Rejected(rejection)) => {
                        let again = [ErrorCode::Unknown, ErrorCode::NoQuorum, ErrorCode::DeadlineExceeded];
                        assert!(again.contains(&rejection.code), "{rejection:?}");
                    }
                }
            }
        })
        .await
    }

    /// Waits until a replica has applied a revision.
    pub async fn applied(&self, node: u64, revision: Revision) {
        let mut applied = self.replica(node).applied();
        within(applied.wait_for(|applied| applied.revision >= revision)).await.expect("the replica runs");
    }
}

/// The names of the groups that a replica has applied.
pub fn groups(replica: &Partition) -> Vec<String> {
    let answer = replica.with_machine(|machine| machine.query(&Query::Groups)).unwrap();
    let Answer::Groups(groups) = answer else { panic!("asked for groups, got {answer:?}") };
    groups.into_iter().map(|group| group.name.0).collect()
}

pub fn view(replica: &Partition, group: &str) -> Option<GroupView> {
    replica.with_machine(|machine| machine.group(&GroupName::from(group)))
}

/// Fails the test when something takes too long.
pub async fn within<F: Future>(work: F) -> F::Output {
    tokio::time::timeout(PATIENCE, work).await.expect("takes too long")
}

/// `COTERIE_LOG=openraft=debug,coterie_replication=debug` shows what happens.
fn show_logs() {
    if let Ok(filter) = std::env::var("COTERIE_LOG") {
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).try_init();
    }
}
