//! What the machine does, as sentences. Every entry that a test applies is also seen by a [`witness::Witness`], which
//! knows only the events and checks what must hold whatever happens: S31, S32, S33, D3, D4; a map is what its events say;
//! a lock has one holder at a time, and its tokens rise.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use super::snapshot::Restorer;
use super::*;
use crate::command::{
    Condition, DirectoryOp, Error, GroupConfig, GroupOp, LeaveReason, LockEvent, LockLeaveReason, LockOp, LockView,
    MapEvent, MapOp, Presence, Standing,
};
use crate::ids::{MemberId, RequestId, Token};
use witness::Witness;

mod dedup;
mod directory;
mod elections;
mod foreign;
mod groups;
mod limits;
mod locks;
mod maps;
mod properties;
mod sessions;
mod snapshots;
mod witness;

/// A machine with a log: counts revisions and time.
struct Partition {
    machine: Machine,
    witness: Witness,
    revision: u64,
    now_ms: u64,
}

impl Partition {
    fn new() -> Self {
        Self::with(Machine::new(0))
    }

    fn management() -> Self {
        Self::with(Machine::management())
    }

    fn with(machine: Machine) -> Self {
        let revision = machine.revision().0;
        Self { machine, witness: Witness::default(), revision, now_ms: 1_000 }
    }

    fn apply(&mut self, envelope: &Envelope) -> Applied {
        self.revision += 1;
        let applied = self.machine.apply(Revision(self.revision), self.now_ms, envelope);
        self.witness.see(&applied.events);
        self.witness.compare(&self.machine);
        applied
    }

    fn send(&mut self, command: Command) -> Applied {
        self.apply(&Envelope { request: None, command })
    }

    fn ok(&mut self, command: Command) -> Reply {
        self.send(command).outcome.unwrap()
    }

    fn refused(&mut self, command: Command) -> Rejection {
        let applied = self.send(command);
        assert_eq!(applied.events, [], "what is refused changes nothing");
        applied.outcome.unwrap_err()
    }

    fn events(&mut self, command: Command) -> Vec<GroupEvent> {
        let applied = self.send(command);
        applied.outcome.unwrap();
        applied.events.into_iter().map(|event| group_event(&event).clone()).collect()
    }

    fn session(&mut self, member: &str) -> SessionId {
        session_of(&self.ok(open(member, 1)))
    }

    fn join(&mut self, group: &str, session: SessionId) -> MemberId {
        joined(&self.ok(join(group, session))).0
    }

    fn view(&self, name: &str) -> GroupView {
        self.machine.group(&name.into()).unwrap()
    }

    fn leader(&self, name: &str) -> (Term, Option<MemberId>) {
        let view = self.view(name);
        (view.term, view.leader)
    }
}

/// The machine's snapshot.
fn pieces(machine: &Machine) -> Vec<Vec<u8>> {
    machine.image().pieces().collect()
}

fn restore(pieces: &[Vec<u8>]) -> Result<Machine, Error> {
    let mut restorer = Restorer::new();
    pieces.iter().try_for_each(|piece| restorer.take(piece))?;
    restorer.finish()
}

fn open(member: &str, incarnation: u64) -> Command {
    Command::OpenSession { member: member.into(), incarnation, ttl_ms: 5_000 }
}

fn op(name: &str, op: GroupOp) -> Command {
    Command::Group { name: name.into(), op }
}

fn join(group: &str, session: SessionId) -> Command {
    join_with(group, session, BTreeMap::new(), "")
}

fn join_with(group: &str, session: SessionId, metadata: BTreeMap<String, String>, zone: &str) -> Command {
    op(group, GroupOp::Join { session, metadata, zone: zone.to_owned(), presence: Presence::Stream })
}

fn create(group: &str) -> Command {
    op(group, GroupOp::Create { config: None })
}

fn leave(group: &str, member: MemberId) -> Command {
    op(group, GroupOp::Leave(member))
}

fn step_down(group: &str) -> Command {
    op(group, GroupOp::StepDown { if_term: None, reason: "requested".to_owned() })
}

fn configure(group: &str, config: GroupConfig) -> Command {
    op(group, GroupOp::Configure { config, if_config_revision: None, if_term: None })
}

fn directory(op: DirectoryOp) -> Command {
    Command::Directory(op)
}

fn group_event(event: &Event) -> &GroupEvent {
    match &event.kind {
        EventKind::Group(event) => event,
        other => panic!("{other:?} is not of a group"),
    }
}

fn map(name: &str, op: MapOp) -> Command {
    Command::Map { name: name.into(), op }
}

fn put_if(name: &str, key: &str, value: &'static str, only: Condition) -> Command {
    map(name, MapOp::Put { key: key.into(), value: value.into(), only })
}

fn put(name: &str, key: &str, value: &'static str) -> Command {
    put_if(name, key, value, Condition::Always)
}

fn delete(name: &str, key: &str, only: Condition) -> Command {
    map(name, MapOp::Delete { key: key.into(), only })
}

fn lock(name: &str, op: LockOp) -> Command {
    Command::Lock { name: name.into(), op }
}

fn acquire(name: &str, session: SessionId) -> Command {
    lock(name, LockOp::Acquire { session, wait: true })
}

fn placed(reply: &Reply) -> (Token, Standing) {
    match reply {
        Reply::Placed(placed) => (placed.token, placed.standing),
        other => panic!("{other:?} is not a place"),
    }
}

fn session_of(reply: &Reply) -> SessionId {
    match reply {
        Reply::Session(id) => *id,
        other => panic!("{other:?} is not a session"),
    }
}

fn joined(reply: &Reply) -> (MemberId, &GroupView) {
    match reply {
        Reply::Joined(joined) => (joined.0, &joined.1),
        other => panic!("{other:?} is not a join"),
    }
}

fn group_of(reply: &Reply) -> &GroupView {
    match reply {
        Reply::Group(view) => view,
        other => panic!("{other:?} is not a group"),
    }
}

fn metadata(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// A request that the client issued at `issued_ms`; `number` tells requests of one millisecond apart.
fn request(client: u128, issued_ms: u64, number: u64) -> RequestId {
    RequestId { client, request: (u128::from(issued_ms) << 80) | u128::from(number) }
}
