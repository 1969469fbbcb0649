//! From a primitive's name to the leader of its partition and back: one path for every request.
//!
//! A replica on this member answers by itself when it leads. Otherwise the encoded command goes to the leader's member,
//! which never forwards it further: when the leader has moved, the answer says so and this router tries again, with the
//! same request id, until the deadline. So a request is forwarded over one hop, and applied once however often it is sent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use coterie_core::command::{self, Answer, Command, DirectoryOp, Envelope, PrimitiveAddress, Query, Reply};
use coterie_core::machine::Machine;
use coterie_core::{
    ErrorCode, EventId, MemberName, PartitionGroupName, PartitionId, Primitive, Rejection, RequestId, Revision, routing,
};
use coterie_env::Env;
use coterie_replication::{Read, ReadKind};

use crate::deadline::Deadline;
use crate::directory::Directory;
use crate::lineage::{self, Lineage};
use crate::partitions::Partitions;
use crate::peers::client::Peers;
use crate::watch::{Watch, Ways};

mod ids;
mod route;

use ids::Ids;

/// Routes requests. Cheap to clone.
#[derive(Clone)]
pub struct Router(Arc<Inner>);

struct Inner {
    env: Env,
    own: MemberName,
    ids: Ids,
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
        let ids = Ids::new(&*env.random, env.clock.wall_ms());
        let recorded = Mutex::default();
        let env = env.clone();
        Self(Arc::new(Inner { env, own, ids, declared, partitions, peers, directory, recorded }))
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
        self.0.ids.mint(&*self.0.env.random, self.0.env.clock.wall_ms())
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
        let requests = vec![Envelope { request: Some(request), command }];
        let mut answers = Box::pin(self.write_all(partition, requests, deadline)).await;
        answers.pop().expect("as many answers as requests")
    }

    /// Changes a partition by requests that travel together; each is answered as by [`Router::write`], in their order.
    pub async fn write_all(
        &self,
        partition: &PartitionId,
        requests: Vec<Envelope>,
        deadline: Deadline,
    ) -> Vec<Result<(Revision, Reply), Rejection>> {
        let bodies: Vec<Bytes> = requests.iter().map(|request| command::encode(request).into()).collect();
        let answers = self
            .route_all(partition, deadline, bodies.len(), |member, budget, open| {
                self.try_writes(partition, member, open.iter().map(|index| bodies[*index].clone()).collect(), budget)
            })
            .await;
        answers.into_iter().map(|answer| answer.and_then(|(revision, outcome)| Ok((revision, outcome?)))).collect()
    }

    /// Reads a partition.
    pub async fn read(
        &self,
        partition: &PartitionId,
        query: Query,
        kind: ReadKind,
        deadline: Deadline,
    ) -> Result<Read, Rejection> {
        let mut answers = Box::pin(self.read_all(partition, vec![query], kind, deadline)).await;
        answers.pop().expect("as many answers as questions")
    }

    /// Reads a partition by questions that travel together; each is answered for itself, in their order.
    pub async fn read_all(
        &self,
        partition: &PartitionId,
        queries: Vec<Query>,
        kind: ReadKind,
        deadline: Deadline,
    ) -> Vec<Result<Read, Rejection>> {
        self.route_all(partition, deadline, queries.len(), |member, budget, open| {
            self.try_reads(partition, member, open.iter().map(|index| queries[*index].clone()).collect(), kind, budget)
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
        if self.seen(partition, Machine::revision).is_some_and(|revision| revision >= after.revision) {
            return Ok(Some(after));
        }
        match self.read(partition, Query::Revision, ReadKind::Linearizable, deadline).await?.answer {
            Answer::Revision(revision) => Ok(Some(after).filter(|after| after.revision <= revision)),
            _ => Err(Rejection::new(ErrorCode::Internal, "a question was answered with something else")),
        }
    }

    /// What the replica here has come to; `None` if there is none of the partition's present life.
    pub fn seen<T>(&self, partition: &PartitionId, look: impl FnOnce(&Machine) -> T) -> Option<T> {
        let local = self.0.partitions.get(partition);
        let local = local.filter(|local| self.0.directory.generation(partition) == Some(local.generation()));
        local.map(|local| local.with_machine(look))
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
}

/// A primitive's address (D15).
fn address(partition: &PartitionId, of: &Primitive) -> PrimitiveAddress {
    let (partition_group, kind, name) = (partition.group.clone(), of.kind.label().to_owned(), of.name.to_string());
    PrimitiveAddress { partition_group, kind, name }
}
