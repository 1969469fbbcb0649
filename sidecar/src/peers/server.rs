//! What this sidecar answers to its peers.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coterie_core::command::{self, Answer, Query};
use coterie_core::machine::PendingRelease;
use coterie_core::{
    ErrorCode, EventId, GroupName, MemberName, NodeId, PartitionId, Primitive, Rejection, SessionId, Term,
};
use coterie_env::Listener;
use coterie_env::spawn::BoxFuture;
use coterie_mutants::{Mutant, is_on};
use coterie_proto::admin::admin_server::AdminServer;
use coterie_proto::peer::frame::Body;
use coterie_proto::peer::peer_server::{Peer, PeerServer};
use coterie_proto::peer::{self, Opening};
use coterie_replication::{Partition, ProposeError, ReadKind};
use futures_util::stream::{BoxStream, StreamExt as _};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::client::{WIRE_VERSION, from_wire};
use super::connection::{Caller, Connection};
use super::linked::{self, Answers};
use super::tls::{self, Roles, Tls};
use crate::limits;
use crate::node::Node;
use crate::sessions::Heard;
use crate::sessions::keeper::{Holder, Touched};
use crate::watch::{Frame, check_known};

/// Listens for peers and the operator until the process stops.
pub async fn serve(node: Node, listener: Box<dyn Listener>, tls: Option<Arc<Tls>>) -> io::Result<()> {
    let (connections, accepted) = mpsc::channel(limits::HANDSHAKES_MAX);
    let stop = node.stopping();
    let env = node.env().clone();
    let plaintext = node.config().security == coterie_core::config::Security::PlaintextAnywhere;
    env.spawn.spawn("accept", Box::pin(accept(node.clone(), listener, tls, plaintext, connections)));
    let peers = PeerServer::new(Service { node: node.clone() })
        .max_decoding_message_size(limits::PEER_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(limits::PEER_MESSAGE_BYTES_MAX);
    let admin = AdminServer::new(super::admin::Service::new(node));
    tonic::transport::Server::builder()
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .http2_keepalive_interval(Some(Duration::from_millis(limits::PEER_KEEP_ALIVE_MS)))
        .http2_keepalive_timeout(Some(Duration::from_millis(limits::PEER_KEEP_ALIVE_MS)))
        .add_service(peers)
        .add_service(admin)
        .serve_with_incoming_shutdown(ReceiverStream::new(accepted), stop.cancelled())
        .await
        .map_err(io::Error::other)
}

async fn accept(
    node: Node,
    mut listener: Box<dyn Listener>,
    tls: Option<Arc<Tls>>,
    plaintext: bool,
    connections: mpsc::Sender<io::Result<Connection>>,
) {
    let handshakes = Arc::new(Semaphore::new(limits::HANDSHAKES_MAX));
    let stop = node.stopping();
    loop {
        let permit = handshakes.clone().acquire_owned().await.expect("the semaphore is never closed");
        let (stream, from) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection from a peer was not accepted");
                    tokio::time::sleep(Duration::from_millis(limits::RETRY_PAUSE_MS_MAX)).await;
                    continue;
                }
            },
            () = stop.cancelled() => return,
        };
        let (tls, connections) = (tls.clone(), connections.clone());
        let handshake = async move {
            match tokio::time::timeout(
                Duration::from_millis(limits::PEER_CONNECT_MS_MAX),
                handshake(stream, from, tls.as_deref(), plaintext),
            )
            .await
            {
                // A full queue waits: the peer's connection does too. A closed one means that the process stops.
                Ok(Ok(connection)) => drop(connections.send(Ok(connection)).await),
                Ok(Err(error)) => tracing::debug!(%from, %error, "a peer's handshake failed"),
                Err(_) => tracing::debug!(%from, "a peer's handshake took too long"),
            }
            drop(permit);
        };
        node.env().spawn.spawn("handshake", Box::pin(handshake));
    }
}

async fn handshake(
    stream: Box<dyn coterie_env::Stream>,
    from: SocketAddr,
    tls: Option<&Tls>,
    plaintext: bool,
) -> io::Result<Connection> {
    let Some(tls) = tls else {
        if !plaintext && !from.ip().to_canonical().is_loopback() {
            return Err(io::Error::other("plain text is for loopback addresses only: set `security`"));
        }
        return Ok(Connection::new(stream, Roles::ALL));
    };
    let acceptor = tokio_rustls::TlsAcceptor::from(tls.current()?.server);
    let stream = acceptor.accept(stream).await?;
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let roles = certificates.first().map(tls::roles).unwrap_or_default();
    Ok(Connection::new(Box::new(stream), roles))
}

/// What a caller's certificate says that it may do.
pub(crate) fn caller<T>(request: &Request<T>) -> Caller {
    request
        .extensions()
        .get::<Caller>()
        .cloned()
        .unwrap_or_else(|| Caller { roles: Roles::default(), open: Arc::default() })
}

fn members_only<T>(request: &Request<T>) -> Result<(), Status> {
    allowed(caller(request).roles.member, "a member's")
}

fn clients_too<T>(request: &Request<T>) -> Result<(), Status> {
    allowed(caller(request).roles.client, "a member's or a client sidecar's")
}

fn allowed(allowed: bool, whose: &str) -> Result<(), Status> {
    if allowed { Ok(()) } else { Err(Status::permission_denied(format!("this call takes {whose} certificate"))) }
}

#[derive(Clone)]
pub(super) struct Service {
    node: Node,
}

impl Service {
    fn local(&self, partition: Option<peer::Partition>) -> Result<(PartitionId, Partition), Box<Elsewhere>> {
        let id = from_wire(partition).map_err(|rejection| Box::new(Elsewhere::Failure(failure(&rejection))))?;
        if let Err(rejection) = self.node.serving() {
            return Err(Box::new(Elsewhere::Failure(failure(&rejection))));
        }
        match self.node.partitions().get(&id) {
            Some(local) => Ok((id, local)),
            None => {
                let leader = self.node.directory().leader(&id).map(|leading| leading.member);
                Err(Box::new(Elsewhere::NotLeader(not_leader(leader))))
            }
        }
    }

    pub(super) fn spawn(&self, name: &'static str, task: BoxFuture) {
        self.node.env().spawn.spawn(name, task);
    }

    pub(super) fn stopping(&self) -> CancellationToken {
        self.node.stopping()
    }

    /// Whether the other end of a link is a member whose directory is accepted.
    pub(super) fn is_admitted(&self, opening: &Opening) -> bool {
        self.node.greetings().admitted(opening.from_node, opening.from_run)
    }

    /// The replica that something of Raft's is for, if both ends are who they say they are.
    pub(super) fn addressed(
        &self,
        roles: Roles,
        opening: Option<&Opening>,
        partition: Option<peer::Partition>,
        to_node: u64,
    ) -> Result<Partition, String> {
        let opening = opening.ok_or_else(|| "a link begins with its opening".to_owned())?;
        if !roles.member {
            return Err("this takes a member's certificate".to_owned());
        }
        if opening.version != WIRE_VERSION {
            return Err(format!("version {} between sidecars is not known here, {WIRE_VERSION} is", opening.version));
        }
        let own = self.node.peers().sender();
        if to_node != own.node {
            return Err(format!("this is identity {:016x}, not {to_node:016x}", own.node));
        }
        if !self.is_admitted(opening) {
            return Err(format!(
                "run {:016x} of identity {:016x} must greet first",
                opening.from_run, opening.from_node
            ));
        }
        let id = from_wire(partition).map_err(|rejection| rejection.message)?;
        self.node.partitions().get(&id).ok_or_else(|| format!("no replica of partition {id} here"))
    }

    /// Answers one call on a link; `None` for what is not a call.
    pub(super) async fn answer(&self, roles: Roles, opening: Option<&Opening>, call: Body) -> Option<Body> {
        match call {
            Body::Raft(peer::Raft { partition, to_node, kind, payload }) => {
                if is_on(Mutant::HideDeadPartition)
                    && let Some(opening) = opening
                {
                    let all = self.node.partitions().all().into_iter();
                    all.for_each(|(_, partition)| partition.heard_of_process(NodeId(opening.from_node)));
                }
                let answer = match self.addressed(roles, opening, partition, to_node) {
                    Ok(partition) => partition.handle(kind, payload).await,
                    Err(error) => Err(error),
                };
                Some(Body::RaftAnswer(match answer {
                    Ok(payload) => peer::RaftAnswer { payload, error: String::new() },
                    Err(error) => peer::RaftAnswer { payload: Bytes::new(), error },
                }))
            }
            Body::Propose(request) if !roles.member && !request.bodies.iter().all(|body| may_propose(body)) => {
                let rejection = Rejection::new(ErrorCode::Forbidden, "only members may propose this");
                Some(Body::Proposed(not_proposed(request.bodies.len(), &rejection)))
            }
            Body::Propose(request) if request.bodies.len() > limits::GROUP_OPERATIONS_MAX => {
                let message = format!("bodies: at most {} at once", limits::GROUP_OPERATIONS_MAX);
                let rejection = Rejection::new(ErrorCode::InvalidArgument, message);
                Some(Body::Proposed(not_proposed(request.bodies.len(), &rejection)))
            }
            Body::Propose(request) => {
                let count = request.bodies.len();
                let response = Body::Proposed(self.propose_here(request).await);
                // It was done, and only the answer cannot be sent.
                let unsaid = || Rejection::new(ErrorCode::Unknown, too_large().message);
                Some(if is_too_large(&response) { Body::Proposed(not_proposed(count, &unsaid())) } else { response })
            }
            Body::Query(request) => {
                let response = Body::Queried(self.query_here(request).await);
                Some(if is_too_large(&response) { Body::Queried(not_queried(&too_large())) } else { response })
            }
            Body::KeepAlive(peer::KeepAliveRequest { member, incarnation, sessions }) => {
                if sessions.len() > limits::KEEP_ALIVES_MAX {
                    return Some(Body::KeptAlive(peer::KeepAliveResponse::default()));
                }
                let patience = (sessions.len() == 1).then_some(Duration::from_millis(limits::TRY_MS_MAX));
                let (session, heard) = (SessionId(0), Vec::new());
                let mut holder = Holder { session, member: MemberName(member), incarnation, heard };
                let mut answers = Vec::with_capacity(sessions.len());
                for peer::SessionRef { partition, session, heard } in sessions {
                    holder.session = SessionId(session);
                    holder.heard = heard.into_iter().take(limits::RELEASES_MAX).map(heard_of).collect();
                    answers.push(self.keep_alive_here(partition, &holder, patience).await);
                }
                Some(Body::KeptAlive(peer::KeepAliveResponse { sessions: answers }))
            }
            Body::LaneOpened(_)
            | Body::Lane(_)
            | Body::LaneClosed(_)
            | Body::RaftAnswer(_)
            | Body::Proposed(_)
            | Body::Queried(_)
            | Body::KeptAlive(_) => None,
        }
    }

    async fn propose_here(&self, request: peer::ProposeRequest) -> peer::ProposeResponse {
        use peer::proposed::Result as Answer;
        let answered = |result, revision| peer::Proposed { result: Some(result), revision };
        let answers = match self.local(request.partition) {
            Err(elsewhere) => {
                let answer = match *elsewhere {
                    Elsewhere::NotLeader(elsewhere) => Answer::NotLeader(elsewhere),
                    Elsewhere::Failure(failure) => Answer::Failure(failure),
                };
                vec![answered(answer, 0); request.bodies.len()]
            }
            Ok((_, local)) => {
                let timeout = Duration::from_millis(request.timeout_ms);
                let proposed = local.propose_all(request.bodies, timeout).await.into_iter();
                let answers = proposed.map(|proposed| match proposed {
                    Ok((revision, outcome)) => answered(Answer::Outcome(command::encode(&outcome).into()), revision.0),
                    Err(ProposeError::NotLeader(leader)) => answered(Answer::NotLeader(not_leader(leader)), 0),
                    Err(ProposeError::Rejected(rejection)) => answered(Answer::Failure(failure(&rejection)), 0),
                });
                answers.collect()
            }
        };
        peer::ProposeResponse { answers }
    }

    async fn query_here(&self, request: peer::QueryRequest) -> peer::QueryResponse {
        use peer::query_response::Result as Answer;
        let answer = |result, revision, stale_ms| peer::QueryResponse { result: Some(result), revision, stale_ms };
        let invalid = |message: String| {
            let rejection = Rejection::new(ErrorCode::InvalidArgument, message);
            answer(Answer::Failure(failure(&rejection)), 0, 0)
        };
        let queries = request.queries.iter().map(|query| command::decode::<Query>("query", query));
        let queries = match queries.collect::<Result<Vec<_>, _>>() {
            Ok(queries) => queries,
            Err(error) => return invalid(error.to_string()),
        };
        let kind = match request.kind() {
            peer::ReadKind::Linearizable => ReadKind::Linearizable,
            peer::ReadKind::Leased => ReadKind::Leased,
            peer::ReadKind::Stale => ReadKind::Stale,
            peer::ReadKind::Unspecified => return invalid("kind: is not known to this version".to_owned()),
        };
        match self.local(request.partition) {
            Err(elsewhere) => match *elsewhere {
                Elsewhere::NotLeader(elsewhere) => answer(Answer::NotLeader(elsewhere), 0, 0),
                Elsewhere::Failure(failure) => answer(Answer::Failure(failure), 0, 0),
            },
            Ok((_, local)) => match local.read_all(&queries, kind, Duration::from_millis(request.timeout_ms)).await {
                Ok(read) => {
                    let answers = read.answer.iter().map(queried).collect();
                    answer(Answer::Answers(peer::Answers { answers }), read.revision.0, read.stale_ms)
                }
                Err(ProposeError::NotLeader(leader)) => answer(Answer::NotLeader(not_leader(leader)), 0, 0),
                Err(ProposeError::Rejected(rejection)) => answer(Answer::Failure(failure(&rejection)), 0, 0),
            },
        }
    }

    /// Answers one keep-alive, after asking a majority for so long at most where no lease says who leads.
    async fn keep_alive_here(
        &self,
        partition: Option<peer::Partition>,
        holder: &Holder,
        patience: Option<Duration>,
    ) -> peer::SessionAlive {
        use peer::session_alive::Result as Answer;
        let mut releases = Vec::new();
        let result = match self.local(partition) {
            Err(elsewhere) => match *elsewhere {
                Elsewhere::NotLeader(elsewhere) => Answer::NotLeader(elsewhere),
                Elsewhere::Failure(failure) => Answer::Failure(failure),
            },
            Ok((name, local)) => {
                let touched = match self.node.keepers().get(&name) {
                    Some(keeper) => {
                        let leader = || Touched::Elsewhere(local.leadership().borrow().leader.clone());
                        match patience {
                            Some(patience) => keeper.touch(&local, holder, patience).await,
                            None => keeper.touch_by_lease(&local, holder).unwrap_or_else(leader),
                        }
                    }
                    None => Touched::Elsewhere(None),
                };
                match touched {
                    Touched::Alive(pending) => {
                        releases = pending.into_iter().map(release_to_wire).collect();
                        Answer::Alive(true)
                    }
                    Touched::Lost => Answer::Lost(true),
                    Touched::Elsewhere(leader) => Answer::NotLeader(not_leader(leader)),
                }
            }
        };
        peer::SessionAlive { result: Some(result), releases }
    }
}

fn heard_of(peer::Release { group, term, ms }: peer::Release) -> Heard {
    Heard { group: GroupName::from(&*group), term: Term(term), left_ms: ms }
}

fn release_to_wire(PendingRelease { group, term, timeout_ms, session: _ }: PendingRelease) -> peer::Release {
    peer::Release { group: group.to_string(), term: term.0, ms: timeout_ms }
}

/// What a client sidecar may propose: nothing that only a partition's leader, or a member, decides.
fn may_propose(body: &[u8]) -> bool {
    use coterie_core::command::{Command, DirectoryOp, Envelope, GroupOp, MemberKind};
    let Ok(Envelope { request: _, command }) = command::decode::<Envelope>("command", body) else { return false };
    match command {
        Command::ExpireSessions(_) => false,
        Command::Group { name: _, op } => !matches!(op, GroupOp::ReleaseTimedOut(_)),
        Command::Directory(op) => match op {
            DirectoryOp::RegisterMember(record) => record.kind == MemberKind::Ephemeral,
            DirectoryOp::ForgetMember(_) | DirectoryOp::RecordPrimitive(_) | DirectoryOp::ForgetPrimitive(_) => true,
            DirectoryOp::CreatePartitionGroup(_) | DirectoryOp::DeletePartitionGroup { .. } => false,
        },
        Command::OpenSession { .. } | Command::CloseSession(_) | Command::Map { .. } | Command::Lock { .. } => true,
    }
}

/// An answer to a request that is not even begun: its link has as many under way as it may.
pub(super) fn too_busy(call: &Body) -> Option<Body> {
    let rejection = Rejection::new(
        ErrorCode::Overloaded,
        format!("{} requests from one sidecar are under way here already; retry later", limits::LINK_CALLS_MAX),
    );
    match call {
        Body::Propose(request) => Some(Body::Proposed(not_proposed(request.bodies.len(), &rejection))),
        Body::Query(_) => Some(Body::Queried(not_queried(&rejection))),
        _ => None,
    }
}

fn not_proposed(count: usize, rejection: &Rejection) -> peer::ProposeResponse {
    let result = Some(peer::proposed::Result::Failure(failure(rejection)));
    peer::ProposeResponse { answers: vec![peer::Proposed { result, revision: 0 }; count] }
}

fn queried(answer: &Result<Answer, Rejection>) -> peer::Queried {
    let result = match answer {
        Ok(answer) => peer::queried::Result::Answer(command::encode(answer).into()),
        Err(rejection) => peer::queried::Result::Failure(failure(rejection)),
    };
    peer::Queried { result: Some(result) }
}

fn not_queried(rejection: &Rejection) -> peer::QueryResponse {
    let result = Some(peer::query_response::Result::Failure(failure(rejection)));
    peer::QueryResponse { result, revision: 0, stale_ms: 0 }
}

/// A message that is larger than a link takes would end the link.
fn is_too_large(answer: &Body) -> bool {
    answer.encoded_len() > limits::PEER_MESSAGE_BYTES_MAX / 2
}

fn too_large() -> Rejection {
    Rejection::new(ErrorCode::TooLarge, "the answer is larger than what one sidecar can send to another")
}

enum Elsewhere {
    NotLeader(peer::NotLeader),
    Failure(peer::Failure),
}

fn not_leader(leader: Option<MemberName>) -> peer::NotLeader {
    peer::NotLeader { leader: leader.map(|leader| leader.0).unwrap_or_default() }
}

fn failure(rejection: &Rejection) -> peer::Failure {
    peer::Failure { code: rejection.code.label().to_owned(), message: rejection.message.clone() }
}

fn refused(error: String) -> peer::RaftAnswer {
    peer::RaftAnswer { payload: Bytes::new(), error }
}

#[tonic::async_trait]
impl Peer for Service {
    async fn hello(&self, request: Request<peer::HelloRequest>) -> Result<Response<peer::HelloResponse>, Status> {
        clients_too(&request)?;
        let caller = caller(&request);
        let mut hello = request.into_inner();
        if let Some(from) = hello.from.as_mut().filter(|_| !caller.roles.member) {
            // A client sidecar never votes, whatever it says of itself.
            from.voter = false;
            from.node_id = 0;
        }
        Ok(Response::new(self.node.greetings().greeted(hello, Some(caller.open))))
    }

    async fn propose_formation(
        &self,
        request: Request<peer::Formation>,
    ) -> Result<Response<peer::FormationResponse>, Status> {
        members_only(&request)?;
        let refused = match self.node.take_formation(request.into_inner()) {
            Ok(()) => String::new(),
            Err(rejection) => rejection.message,
        };
        Ok(Response::new(peer::FormationResponse { refused }))
    }

    type LinkStream = Answers;

    async fn link(&self, request: Request<Streaming<peer::Frames>>) -> Result<Response<Answers>, Status> {
        clients_too(&request)?;
        let roles = caller(&request).roles;
        Ok(Response::new(linked::serve(self, roles, request.into_inner())))
    }

    type SnapshotStream = BoxStream<'static, Result<peer::RaftAnswer, Status>>;

    async fn snapshot(
        &self,
        request: Request<Streaming<peer::SnapshotMessage>>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        members_only(&request)?;
        let roles = caller(&request).roles;
        let mut messages = request.into_inner();
        let first =
            messages.message().await?.ok_or_else(|| Status::invalid_argument("a snapshot begins with whose it is"))?;
        let peer::SnapshotMessage { opening, partition, to_node, payload: _ } = first;
        let partition = match self.addressed(roles, opening.as_ref(), partition, to_node) {
            Ok(partition) => partition,
            Err(error) => return Ok(Response::new(futures_util::stream::iter([Ok(refused(error))]).boxed())),
        };
        // Read as fast as it is written to the disk. One that breaks off ends.
        let messages = futures_util::stream::unfold(messages, |mut messages| async {
            let message = messages.message().await.ok().flatten()?;
            Some((message.payload, messages))
        });
        let service = self.clone();
        let answers = partition.handle_snapshot(messages.boxed()).map(move |answer| {
            // Asked again for every answer: a directory may be refused at any moment.
            let admitted = opening.is_some_and(|opening| service.is_admitted(&opening));
            Ok(match answer {
                Ok(payload) if admitted => peer::RaftAnswer { payload, error: String::new() },
                Ok(_) => refused("the sender is not admitted".to_owned()),
                Err(error) => refused(error),
            })
        });
        Ok(Response::new(answers.boxed()))
    }

    type WatchStream = BoxStream<'static, Result<peer::WatchFrame, Status>>;

    async fn watch(&self, request: Request<peer::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        clients_too(&request)?;
        let request = request.into_inner();
        let (_, local) = self
            .local(request.partition)
            .map_err(|_| Status::unavailable("no replica of this partition answers here"))?;
        if request.generation.is_some_and(|generation| generation != local.generation()) {
            return Err(Status::unavailable("the replica of this partition is of another generation"));
        }
        let of = Primitive::parse(&request.key);
        let of = of.ok_or_else(|| Status::invalid_argument("the key is not a primitive's kind and name"))?;
        let after = if request.after.is_empty() {
            let known = local.with_machine(|machine| check_known(machine, &of));
            known.map_err(|rejection| Status::not_found(rejection.message))?;
            None
        } else {
            let after = command::decode::<EventId>("place in the order of events", &request.after);
            Some(after.map_err(|error| Status::invalid_argument(error.to_string()))?)
        };
        let watcher = local.watch(&of, after);
        let stop = self.node.stopping();
        let frames = futures_util::stream::unfold((watcher, local, stop), |(mut watcher, local, stop)| async move {
            let tick = tokio::time::sleep(Duration::from_millis(limits::STALENESS_TICK_MS));
            let frames = tokio::select! {
                item = watcher.next() => Frame::of(item?),
                () = tick => vec![Frame::Silent(local.silent_ms())],
                () = stop.cancelled() => return None,
            };
            Some((futures_util::stream::iter(frames), (watcher, local, stop)))
        });
        let frames = frames.flatten().map(|frame| Ok(peer::WatchFrame { frame: command::encode(&frame).into() }));
        Ok(Response::new(Box::pin(frames)))
    }

    async fn directory(
        &self,
        request: Request<peer::DirectoryRequest>,
    ) -> Result<Response<peer::DirectoryResponse>, Status> {
        clients_too(&request)?;
        let leading = self.node.directory().leaders().into_iter().map(|(partition, leading)| peer::Leading {
            partition: Some(super::client::to_wire(&partition)),
            leader: leading.member.0,
            term: leading.term,
        });
        let view = self.node.directory().view().map_err(|rejection| Status::unavailable(rejection.message))?;
        Ok(Response::new(peer::DirectoryResponse {
            directory: command::encode(&view.directory).into(),
            leading: leading.collect(),
            cluster_id: view.cluster_id.to_be_bytes().to_vec().into(),
            revision: view.revision.0,
        }))
    }
}
