//! From a primitive's name to the leader of its partition and back: one path for every request.
//!
//! A replica on this member answers by itself when it leads. Otherwise the encoded command goes to the leader's member,
//! which never forwards it further: when the leader has moved, the answer says so and this router tries again, with the
//! same request id, until the deadline. So a request is forwarded over one hop, and applied once however often it is sent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use coterie_core::command::{self, Answer, Command, DirectoryOp, Envelope, Outcome, PrimitiveAddress, Query, Reply};
use coterie_core::machine::Machine;
use coterie_core::{
    ErrorCode, EventId, MemberName, PartitionGroupName, PartitionId, Primitive, Rejection, RequestId, Revision, routing,
};
use coterie_env::Env;
use coterie_proto::peer;
use coterie_proto::peer::frame::Body;
use coterie_replication::ProposeError;

use crate::deadline::Deadline;
use crate::directory::Directory;
use crate::limits;
use crate::lineage::{self, Lineage};
use crate::partitions::Partitions;
use crate::peers::CallError;
use crate::peers::client::{Peers, to_wire};
use crate::watch::{Watch, Ways};

/// The answer of a read.
#[derive(Clone, Debug)]
pub struct Read {
    /// What was asked.
    pub answer: Answer,
    /// The revision that it is of.
    pub revision: Revision,
    /// How long the replica that answered had not heard of its leader; 0 for linearizable reads.
    pub stale_ms: u64,
}

/// Routes requests. Cheap to clone.
#[derive(Clone)]
pub struct Router(Arc<Inner>);

struct Inner {
    env: Env,
    own: MemberName,
    clients: [u128; limits::CLIENT_IDS],
    minted: AtomicUsize,
    declared: Declared,
    partitions: Partitions,
    peers: Peers,
    directory: Directory,
    /// Primitives that this sidecar recorded, and when; only those that its view of the directory may not show yet.
    recorded: Mutex<BTreeMap<PrimitiveAddress, Revision>>,
}

/// What the configuration says of partition groups.
#[derive(Clone, Debug, Default)]
pub struct Declared {
    /// Where primitives go that name none.
    pub default: Option<PartitionGroupName>,
    /// Those that the management group's leader makes by itself.
    pub names: BTreeSet<PartitionGroupName>,
}

/// What one try at one member gave.
enum Tried<T> {
    Done(T),
    /// Not there; perhaps at this one. Nothing was proposed.
    Elsewhere(Option<MemberName>),
    /// Its fate is not known; the same request id may be sent again.
    Unknown(String),
    Rejected(Rejection),
}

/// What is known of a request after the tries so far.
#[derive(Debug, Default)]
struct Fate {
    /// Why one of them may have been applied.
    unknown: Option<String>,
}

/// What comes of a try.
#[derive(Debug, PartialEq, Eq)]
enum Verdict<T> {
    /// This is the answer.
    Answer(Result<T, Rejection>),
    /// It is to be tried again, perhaps at this member.
    Again(Option<MemberName>),
}

impl Fate {
    /// Once a try may have been applied only the machine's own word settles it: a later try that is refused says nothing
    /// about the earlier one (D11).
    fn judge<T>(&mut self, tried: Tried<T>) -> Verdict<T> {
        match tried {
            Tried::Done(done) => Verdict::Answer(Ok(done)),
            Tried::Elsewhere(member) => Verdict::Again(member),
            Tried::Unknown(reason) => {
                self.unknown = Some(reason);
                Verdict::Again(None)
            }
            Tried::Rejected(rejection) if self.unknown.is_none() => Verdict::Answer(Err(rejection)),
            Tried::Rejected(_) => Verdict::Again(None),
        }
    }

    /// The answer when the deadline has passed.
    fn gave_up(self, partition: &PartitionId) -> Rejection {
        match self.unknown {
            Some(reason) => Rejection::new(
                ErrorCode::Unknown,
                format!(
                    "whether this was applied on partition {partition} is not known ({reason}); \
                     a retry with the same request id is applied once"
                ),
            ),
            None if partition.group.is_system() => Rejection::new(
                ErrorCode::NoQuorum,
                "the management group has no leader that a majority follows; nothing was applied",
            ),
            None => Rejection::new(
                ErrorCode::NoQuorum,
                format!("partition {partition} has no leader that a majority follows; nothing was applied"),
            ),
        }
    }
}

impl Router {
    /// A router of this member.
    pub fn new(
        env: &Env,
        own: MemberName,
        declared: Declared,
        partitions: Partitions,
        peers: Peers,
        directory: Directory,
    ) -> Self {
        let clients = std::array::from_fn(|_| coterie_env::random::uuid_v7(&*env.random, env.clock.wall_ms()));
        let minted = AtomicUsize::new(0);
        let recorded = Mutex::default();
        let env = env.clone();
        Self(Arc::new(Inner { env, own, clients, minted, declared, partitions, peers, directory, recorded }))
    }

    /// The partition that a primitive lives in (D15).
    pub fn locate(&self, partition_group: Option<&str>, of: &Primitive) -> Result<PartitionId, Rejection> {
        let view = self.0.directory.view()?;
        let asked = partition_group.filter(|name| !name.is_empty()).map(PartitionGroupName::from);
        let declared = &self.0.declared;
        let resolved = routing::resolve(&view.directory, declared.default.as_ref(), asked.as_ref());
        let name = resolved.map_err(|rejection| {
            let wanted = asked.as_ref().or(declared.default.as_ref()).or(declared.names.first());
            match wanted.filter(|wanted| declared.names.contains(wanted)) {
                Some(wanted) if !view.directory.partition_groups.contains_key(wanted) => Rejection::new(
                    ErrorCode::NoQuorum,
                    format!("partition group {wanted} is declared, but not formed yet; nothing was applied"),
                ),
                _ => rejection,
            }
        })?;
        let record = &view.directory.partition_groups[&name];
        let partitions = u32::try_from(record.partitions.len()).expect("bounded by PARTITIONS_MAX");
        Ok(PartitionId { index: routing::partition_of(of.kind.label(), &of.name, partitions), group: name })
    }

    /// The partition groups that hold primitives, and their numbers of partitions.
    pub fn partition_groups(&self) -> Result<Vec<(PartitionGroupName, u32)>, Rejection> {
        let view = self.0.directory.view()?;
        Ok(view
            .directory
            .partition_groups
            .iter()
            .map(|(name, record)| {
                (name.clone(), u32::try_from(record.partitions.len()).expect("bounded by PARTITIONS_MAX"))
            })
            .collect())
    }

    /// A request id of this sidecar's own.
    pub fn mint(&self) -> RequestId {
        let number = self.0.minted.fetch_add(1, Ordering::Relaxed);
        RequestId {
            client: self.0.clients[number % limits::CLIENT_IDS],
            request: coterie_env::random::uuid_v7(&*self.0.env.random, self.0.env.clock.wall_ms()),
        }
    }

    /// Records a primitive in the management group before its first use (S94). One that is known to be recorded costs
    /// nothing but a look.
    pub async fn record(&self, partition: &PartitionId, of: &Primitive, deadline: Deadline) -> Result<(), Rejection> {
        if self.is_recorded(partition, of)? {
            return Ok(());
        }
        let address = address(partition, of);
        let command = Command::Directory(DirectoryOp::RecordPrimitive(address.clone()));
        let (revision, _) = self.write(self.mint(), &PartitionId::system(), command, deadline).await?;
        let known = self.0.directory.view()?.revision;
        let mut recorded = self.recorded();
        recorded.retain(|_, revision| *revision > known);
        recorded.insert(address, revision);
        Ok(())
    }

    /// Whether a primitive is known to be recorded.
    pub fn is_recorded(&self, partition: &PartitionId, of: &Primitive) -> Result<bool, Rejection> {
        let address = address(partition, of);
        let view = self.0.directory.view()?;
        // The view may not have come to what this sidecar has recorded; once it has, only the view counts.
        let ahead = |revision: &Revision| *revision > view.revision;
        Ok(view.directory.primitives.contains_key(&address) || self.recorded().get(&address).is_some_and(ahead))
    }

    /// Forgets a primitive that was deleted.
    pub async fn forget(&self, partition: &PartitionId, of: &Primitive, deadline: Deadline) -> Result<(), Rejection> {
        let address = address(partition, of);
        let command = Command::Directory(DirectoryOp::ForgetPrimitive(address));
        self.write(self.mint(), &PartitionId::system(), command, deadline).await.map(|_| ())
    }

    fn recorded(&self) -> std::sync::MutexGuard<'_, BTreeMap<PrimitiveAddress, Revision>> {
        self.0.recorded.lock().expect("no panic while the lock is held")
    }

    /// Changes a partition. The answer is committed, rejected with a code, or `unknown` (D11).
    pub async fn write(
        &self,
        request: RequestId,
        partition: &PartitionId,
        command: Command,
        deadline: Deadline,
    ) -> Result<(Revision, Reply), Rejection> {
        let body = Bytes::from(command::encode(&Envelope { request: Some(request), command }));
        let (revision, outcome) = self
            .route(partition, deadline, |member, budget| self.try_write(partition, member, body.clone(), budget))
            .await?;
        outcome.map(|reply| (revision, reply))
    }

    /// Reads a partition. Linearizable reads rest on a majority's word (ReadIndex), never on clocks; stale ones are
    /// answered by any replica and say how stale they may be.
    pub async fn read(
        &self,
        partition: &PartitionId,
        query: Query,
        stale: bool,
        deadline: Deadline,
    ) -> Result<Read, Rejection> {
        let encoded = Bytes::from(command::encode(&query));
        self.route(partition, deadline, |member, budget| {
            self.try_read(partition, member, query.clone(), encoded.clone(), stale, budget)
        })
        .await
    }

    /// Which life of a partition is the present one.
    ///
    /// # Errors
    /// `no_quorum` while that is not known: it was just deleted, or is not formed yet.
    pub fn lineage(&self, partition: &PartitionId) -> Result<Lineage, Rejection> {
        let directory = &self.0.directory;
        let generation = directory.generation(partition).ok_or_else(|| {
            let message = format!("partition {partition} is not formed, or was just deleted; nothing was applied");
            Rejection::new(ErrorCode::NoQuorum, message)
        })?;
        Ok(directory.lineage(partition, generation))
    }

    /// Where a watch goes on whose last event has this id. `None` if the partition never came to it: it is of another
    /// life, or what held it is lost. So nobody waits for events that are not to come.
    ///
    /// # Errors
    /// `invalid_argument` if it is no id; `no_quorum` if the replica here has not come to it, and no majority answers.
    pub async fn place(
        &self,
        partition: &PartitionId,
        text: &str,
        deadline: Deadline,
    ) -> Result<Option<EventId>, Rejection> {
        let (after, lineage) = lineage::parse("after", text)?;
        let present = self.lineage(partition)?;
        if lineage.is_some_and(|lineage| lineage != present) {
            return Ok(None);
        }
        let local = self.0.partitions.get(partition);
        let local = local.filter(|local| self.0.directory.generation(partition) == Some(local.generation()));
        if local.is_some_and(|local| local.with_machine(Machine::revision) >= after.revision) {
            return Ok(Some(after));
        }
        match self.read(partition, Query::Revision, false, deadline).await?.answer {
            Answer::Revision(revision) => Ok(Some(after).filter(|after| after.revision <= revision)),
            _ => Err(Rejection::new(ErrorCode::Internal, "a question was answered with something else")),
        }
    }

    /// Watches a primitive. See [`Watch`].
    pub async fn watch(
        &self,
        partition: &PartitionId,
        of: &Primitive,
        after: Option<EventId>,
    ) -> Result<Watch, Rejection> {
        let Inner { env, partitions, peers, directory, .. } = &*self.0;
        let (env, partitions) = (env.clone(), partitions.clone());
        let ways = Ways { env, partitions, peers: peers.clone(), directory: directory.clone() };
        Watch::open(ways, partition.clone(), of.clone(), after).await
    }

    /// Sends one request to wherever the partition's leader is, until it is answered or the deadline passes.
    async fn route<T, F, R>(&self, partition: &PartitionId, deadline: Deadline, try_at: F) -> Result<T, Rejection>
    where
        F: Fn(MemberName, Duration) -> R,
        R: Future<Output = Tried<T>>,
    {
        let mut pause_ms = limits::RETRY_PAUSE_MS;
        let mut hint = None;
        let mut fate = Fate::default();
        let mut round = 0;
        loop {
            let remaining = deadline.remaining(&self.0.env);
            if remaining.is_zero() {
                return Err(fate.gave_up(partition));
            }
            let target = hint.take().or_else(|| self.0.directory.candidate(partition, &self.0.own, round));
            round += 1;
            let tried = match target {
                Some(member) => {
                    let budget = if member == self.0.own {
                        remaining
                    } else {
                        remaining.min(Duration::from_millis(limits::TRY_MS_MAX))
                    };
                    try_at(member, budget).await
                }
                None => Tried::Elsewhere(None),
            };
            match fate.judge(tried) {
                Verdict::Answer(answer) => return answer,
                Verdict::Again(Some(member)) => {
                    self.0.directory.note_leader(partition, &member);
                    hint = Some(member);
                    if pause_ms == limits::RETRY_PAUSE_MS {
                        // The leader has moved once, and where to is known. Two that name each other are waited out.
                        pause_ms += 1;
                        continue;
                    }
                }
                Verdict::Again(None) => {}
            }
            tokio::time::sleep(Duration::from_millis(pause_ms).min(deadline.remaining(&self.0.env))).await;
            pause_ms = (pause_ms * 2).min(limits::RETRY_PAUSE_MS_MAX);
        }
    }

    async fn try_write(
        &self,
        partition: &PartitionId,
        member: MemberName,
        body: Bytes,
        budget: Duration,
    ) -> Tried<(Revision, Outcome)> {
        if member == self.0.own {
            let Some(local) = self.0.partitions.get(partition) else { return Tried::Elsewhere(None) };
            return match local.propose(body, budget).await {
                Ok(done) => Tried::Done(done),
                Err(error) => proposed(error),
            };
        }
        let request = peer::ProposeRequest {
            partition: Some(to_wire(partition)),
            body,
            timeout_ms: u64::try_from(budget.as_millis()).unwrap_or(u64::MAX),
        };
        let response = match self.0.peers.call(&member, Body::Propose(request), budget).await {
            Ok(Body::Proposed(response)) => response,
            Ok(_) => return Tried::Unknown(format!("{member} gave an answer of another kind")),
            Err(CallError::NeverSent(_)) => return Tried::Elsewhere(None),
            Err(CallError::Unanswered(why)) => return Tried::Unknown(format!("{member}: {why}")),
        };
        match response.result {
            Some(peer::propose_response::Result::Outcome(bytes)) => match command::decode::<Outcome>("outcome", &bytes)
            {
                Ok(outcome) => Tried::Done((Revision(response.revision), outcome)),
                Err(error) => Tried::Unknown(error.to_string()),
            },
            Some(peer::propose_response::Result::NotLeader(elsewhere)) => elsewhere_of(elsewhere),
            Some(peer::propose_response::Result::Failure(failure)) => failed(failure),
            None => Tried::Unknown(format!("{member} answered nothing")),
        }
    }

    async fn try_read(
        &self,
        partition: &PartitionId,
        member: MemberName,
        query: Query,
        encoded: Bytes,
        stale: bool,
        budget: Duration,
    ) -> Tried<Read> {
        let local = self.0.partitions.get(partition);
        if let Some(local) = local.filter(|_| stale || member == self.0.own) {
            return match local.read(&query, stale, budget).await {
                Ok(read) => Tried::Done(Read { answer: read.answer, revision: read.revision, stale_ms: read.stale_ms }),
                Err(error) => not_unknown(proposed(error)),
            };
        }
        let request = peer::QueryRequest {
            partition: Some(to_wire(partition)),
            query: encoded,
            stale,
            timeout_ms: u64::try_from(budget.as_millis()).unwrap_or(u64::MAX),
        };
        let Ok(Body::Queried(response)) = self.0.peers.call(&member, Body::Query(request), budget).await else {
            return Tried::Elsewhere(None);
        };
        match response.result {
            Some(peer::query_response::Result::Answer(bytes)) => match command::decode::<Answer>("answer", &bytes) {
                Ok(answer) => {
                    Tried::Done(Read { answer, revision: Revision(response.revision), stale_ms: response.stale_ms })
                }
                Err(error) => Tried::Rejected(Rejection::new(ErrorCode::Internal, error.to_string())),
            },
            Some(peer::query_response::Result::NotLeader(elsewhere)) => elsewhere_of(elsewhere),
            Some(peer::query_response::Result::Failure(failure)) => not_unknown(failed(failure)),
            None => Tried::Elsewhere(None),
        }
    }
}

/// A primitive's address (D15).
fn address(partition: &PartitionId, of: &Primitive) -> PrimitiveAddress {
    let (partition_group, kind, name) = (partition.group.clone(), of.kind.label().to_owned(), of.name.to_string());
    PrimitiveAddress { partition_group, kind, name }
}

fn proposed<T>(error: ProposeError) -> Tried<T> {
    match error {
        ProposeError::NotLeader(member) => Tried::Elsewhere(member),
        ProposeError::Rejected(rejection) => rejected(rejection),
    }
}

/// Failures that another try, elsewhere or later, may get around are not the caller's business before its deadline.
fn rejected<T>(rejection: Rejection) -> Tried<T> {
    match rejection.code {
        ErrorCode::Unknown => Tried::Unknown(rejection.message),
        ErrorCode::NoQuorum | ErrorCode::DeadlineExceeded | ErrorCode::ShuttingDown => Tried::Elsewhere(None),
        _ => Tried::Rejected(rejection),
    }
}

/// A read changes nothing, so its fate is never in doubt.
fn not_unknown<T>(tried: Tried<T>) -> Tried<T> {
    match tried {
        Tried::Unknown(_) => Tried::Elsewhere(None),
        tried => tried,
    }
}

fn failed<T>(failure: peer::Failure) -> Tried<T> {
    let code = ErrorCode::from_label(&failure.code).unwrap_or(ErrorCode::Internal);
    rejected(Rejection::new(code, failure.message))
}

fn elsewhere_of<T>(elsewhere: peer::NotLeader) -> Tried<T> {
    Tried::Elsewhere(Some(elsewhere.leader).filter(|leader| !leader.is_empty()).map(MemberName))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d11_a_refusal_of_a_later_try_does_not_settle_an_earlier_one_that_may_have_been_applied() {
        let partition = PartitionId { group: "data".into(), index: 1 };
        let refusal = || Tried::<u32>::Rejected(Rejection::new(ErrorCode::StorageFull, "the volume is full"));
        let mut fate = Fate::default();
        assert_eq!(fate.judge(Tried::<u32>::Unknown("no answer".to_owned())), Verdict::Again(None));
        assert_eq!(fate.judge(refusal()), Verdict::Again(None));
        assert_eq!(fate.judge(Tried::Done(7)), Verdict::Answer(Ok(7)), "the machine's own word settles it");
        assert_eq!(fate.gave_up(&partition).code, ErrorCode::Unknown);
    }

    #[test]
    fn a_refusal_is_the_answer_while_nothing_can_have_been_applied() {
        let partition = PartitionId { group: "data".into(), index: 1 };
        let mut fate = Fate::default();
        let elsewhere = Tried::<u32>::Elsewhere(Some(MemberName("b".to_owned())));
        assert_eq!(fate.judge(elsewhere), Verdict::Again(Some(MemberName("b".to_owned()))));
        let refusal = Rejection::new(ErrorCode::StorageFull, "the volume is full");
        assert_eq!(fate.judge(Tried::<u32>::Rejected(refusal.clone())), Verdict::Answer(Err(refusal)));
        assert_eq!(fate.gave_up(&partition).code, ErrorCode::NoQuorum);
    }
}
