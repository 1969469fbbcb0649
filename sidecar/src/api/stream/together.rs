//! Operations of one message that go to one partition travel together: one request to its leader, one wait, one answer.
//!
//! ```text
//!   put a ─┐                    ┌─► partition 1: put a, put c ──► Step::Together
//!   get b ─┼─► what came in ────┼─► partition 1: get b
//!   put c ─┘   one message      └─► partition 2: …
//! ```
//! Nothing waits for company: a group leaves when the stream has no more to read at the moment. Each operation is
//! answered for itself.

use coterie_core::command::{Command, Envelope, Query};
use coterie_core::{PartitionId, Rejection};
use coterie_proto::v1;
use coterie_proto::v1::result::Response;
use coterie_replication::ReadKind;
use futures_util::future::BoxFuture;

use super::{Step, response};
use crate::api::call::Call;
use crate::api::ops::{Home, Ops, Passage, maps};
use crate::deadline::Deadline;
use crate::limits::{GROUP_BYTES_MAX, GROUP_OPERATIONS_MAX};

/// What an operation of a stream is known by.
pub(super) struct Ticket {
    pub(super) id: u64,
    /// What it counts in the window.
    pub(super) bytes: usize,
    pub(super) call: Call,
    pub(super) _passage: Passage,
}

/// An operation that is done.
pub(super) struct Done {
    pub(super) id: u64,
    pub(super) response: Response,
    pub(super) bytes: usize,
}

/// Groups that have not left.
#[derive(Default)]
pub(super) struct Together {
    writes: Vec<Group<Write>>,
    reads: Vec<Group<Read>>,
}

struct Group<T> {
    partition: PartitionId,
    timeout_ms: u64,
    /// Of reads only.
    kind: ReadKind,
    bytes: usize,
    members: Vec<(Ticket, T)>,
}

struct Write {
    command: Command,
    /// What it is counted as, and how it is answered.
    name: &'static str,
    answer: fn(u64, u64) -> Response,
}

struct Read {
    key: String,
    query: Query,
}

impl<T> Group<T> {
    /// Adds one to its group, which is made if there is none with room.
    fn add(groups: &mut Vec<Self>, partition: &PartitionId, kind: ReadKind, ticket: Ticket, what: T) {
        let timeout_ms = ticket.call.timeout_ms;
        let fits = |group: &&mut Self| {
            group.timeout_ms == timeout_ms
                && group.kind == kind
                && group.partition == *partition
                && group.members.len() < GROUP_OPERATIONS_MAX
                && group.bytes + ticket.bytes <= GROUP_BYTES_MAX
        };
        if let Some(group) = groups.iter_mut().find(fits) {
            group.bytes += ticket.bytes;
            group.members.push((ticket, what));
            return;
        }
        let (partition, bytes) = (partition.clone(), ticket.bytes);
        groups.push(Self { partition, timeout_ms, kind, bytes, members: vec![(ticket, what)] });
    }
}

impl Together {
    pub(super) fn put(&mut self, home: &Home, ticket: Ticket, asked: v1::PutRequest) -> Result<(), Rejection> {
        let answer = |revision, previous_revision| Response::Put(v1::PutResponse { revision, previous_revision });
        let write = Write { command: maps::put_command(home, asked)?, name: "put_entry", answer };
        Group::add(&mut self.writes, home.partition(), ReadKind::Linearizable, ticket, write);
        Ok(())
    }

    pub(super) fn delete(
        &mut self,
        home: &Home,
        ticket: Ticket,
        asked: v1::DeleteEntryRequest,
    ) -> Result<(), Rejection> {
        let answer =
            |revision, previous_revision| Response::Delete(v1::DeleteEntryResponse { revision, previous_revision });
        let write = Write { command: maps::delete_command(home, asked)?, name: "delete_entry", answer };
        Group::add(&mut self.writes, home.partition(), ReadKind::Linearizable, ticket, write);
        Ok(())
    }

    pub(super) fn get(&mut self, home: &Home, ticket: Ticket, asked: v1::GetEntryRequest) -> Result<(), Rejection> {
        let (query, kind) = maps::entry_query(home, &asked)?;
        Group::add(&mut self.reads, home.partition(), kind, ticket, Read { key: asked.key, query });
        Ok(())
    }

    /// How many operations leave next.
    pub(super) fn len(&self) -> usize {
        let writes: usize = self.writes.iter().map(|group| group.members.len()).sum();
        writes + self.reads.iter().map(|group| group.members.len()).sum::<usize>()
    }

    /// What leaves now.
    pub(super) fn leave(&mut self, ops: &Ops) -> Vec<BoxFuture<'static, Step>> {
        let mut leaving: Vec<BoxFuture<'static, Step>> = Vec::with_capacity(self.writes.len() + self.reads.len());
        leaving.extend(self.writes.drain(..).map(|group| Box::pin(write(ops.clone(), group)) as BoxFuture<_>));
        leaving.extend(self.reads.drain(..).map(|group| Box::pin(read(ops.clone(), group)) as BoxFuture<_>));
        leaving
    }
}

async fn write(ops: Ops, group: Group<Write>) -> Step {
    let deadline = Deadline::after_ms(ops.node().env(), group.timeout_ms);
    let router = ops.node().router();
    let mut requests = Vec::with_capacity(group.members.len());
    let mut open = Vec::with_capacity(group.members.len());
    for (ticket, Write { command, name, answer }) in group.members {
        let request = ticket.call.request.unwrap_or_else(|| router.mint());
        requests.push(Envelope { request: Some(request), command });
        open.push((ticket, name, answer));
    }
    let answers = router.write_all(&group.partition, requests, deadline).await;
    let done = open.into_iter().zip(answers).map(|((ticket, name, answer), written)| {
        let Ticket { id, bytes, call: _, _passage: _ } = ticket;
        let written = written.and_then(|(_, reply)| maps::written(&reply));
        ops.count(name, &written);
        Done { id, response: response(written, |(revision, previous)| answer(revision, previous)), bytes }
    });
    Step::Together(done.collect())
}

async fn read(ops: Ops, group: Group<Read>) -> Step {
    let deadline = Deadline::after_ms(ops.node().env(), group.timeout_ms);
    let mut queries = Vec::with_capacity(group.members.len());
    let mut open = Vec::with_capacity(group.members.len());
    for (ticket, Read { key, query }) in group.members {
        queries.push(query);
        open.push((ticket, key));
    }
    let answers = ops.node().router().read_all(&group.partition, queries, group.kind, deadline).await;
    let done = open.into_iter().zip(answers).map(|((ticket, key), answer)| {
        let Ticket { id, bytes, call: _, _passage: _ } = ticket;
        let entry = answer.and_then(|read| maps::entry_of(key, read));
        ops.count("get_entry", &entry);
        Done { id, response: response(entry, Response::Get), bytes }
    });
    Step::Together(done.collect())
}
