//! Pieces become a machine again.

use std::sync::Arc;

use super::super::dedup::{Client, Dedup};
use super::super::group::Group;
use super::super::lock::Lock;
use super::super::map::Map;
use super::super::sessions::Thing;
use super::{Head, Machine, Part, SNAPSHOT_VERSION, WHAT};
use crate::command::Error;
use crate::ids::{LockName, MapName};

/// Takes the pieces of a snapshot one after the other, and gives the machine.
#[derive(Default)]
pub struct Restorer {
    /// From the head on.
    machine: Option<Machine>,
    /// What the next parts belong to.
    open: Open,
    parts: u64,
    ended: bool,
}

/// What parts of its own follow.
#[derive(Default)]
enum Open {
    #[default]
    Nothing,
    Group(Group),
    Client(u128, Client),
    Map(MapName, Map),
    Lock(LockName, Lock),
}

impl Restorer {
    /// One that has no piece yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece. After an error nothing more can be made of it.
    ///
    /// # Errors
    /// `Empty`; `Version`, of the first piece; `Decode` if the piece is not whole, not the next, or contradicts those
    /// before.
    pub fn take(&mut self, piece: &[u8]) -> Result<(), Error> {
        let mut rest = piece;
        if self.parts == 0 {
            let (version, parts) = piece.split_first().ok_or(Error::Empty { what: WHAT })?;
            if *version != SNAPSHOT_VERSION {
                return Err(Error::Version { what: WHAT, version: *version, known: SNAPSHOT_VERSION });
            }
            rest = parts;
        }
        if rest.is_empty() {
            return Err(Error::Empty { what: WHAT });
        }
        while !rest.is_empty() {
            let (part, left) =
                postcard::take_from_bytes(rest).map_err(|source| Error::Decode { what: WHAT, source })?;
            self.part(part).ok_or_else(contradiction)?;
            self.parts += 1;
            rest = left;
        }
        Ok(())
    }

    /// The machine.
    ///
    /// # Errors
    /// `Decode` if the last piece has not come.
    pub fn finish(self) -> Result<Machine, Error> {
        self.machine.filter(|_| self.ended).ok_or_else(contradiction)
    }

    /// `None` if the part cannot be here.
    fn part(&mut self, part: Part<'_>) -> Option<()> {
        if self.ended {
            return None;
        }
        if let Part::Head(head) = part {
            return self.machine.replace(begin(head)).is_none().then_some(());
        }
        let machine = self.machine.as_mut()?;
        let of_what_is_open = matches!(part, Part::Member(_) | Part::Result(..) | Part::Entry(..) | Part::Place(_));
        if !of_what_is_open {
            close(std::mem::take(&mut self.open), machine)?;
        }
        match (part, &mut self.open) {
            (Part::Session(id, session), _) => machine.sessions.restore(id, session.into_owned())?,
            (Part::Group(group), open) => *open = Open::Group(group.into_owned()),
            (Part::Member(member), Open::Group(group)) => {
                let (id, member) = (member.view.id, member.into_owned());
                machine.sessions.get(member.view.session).ok()?;
                machine.sessions.hold(member.view.session, Thing::Member(group.name.clone(), id));
                group.members.push(id, member).then_some(())?;
            }
            (Part::Client(id, client), open) => *open = Open::Client(id, client.into_owned()),
            (Part::Result(request, kept), Open::Client(_, client)) => client.restore(request, kept.into_owned())?,
            (Part::ClusterMember(member), _) => {
                let member = member.into_owned();
                machine.directory.members.insert(member.name.clone(), member).is_none().then_some(())?;
            }
            (Part::PartitionGroup(group), _) => {
                let group = group.into_owned();
                machine.directory.partition_groups.insert(group.name.clone(), group).is_none().then_some(())?;
            }
            (Part::Primitive(address, at), _) => {
                machine.directory.primitives.push(address.into_owned(), at).then_some(())?;
            }
            (Part::Map(name, map), open) => *open = Open::Map(name.into_owned(), map.into_owned()),
            (Part::Entry(key, entry), Open::Map(_, map)) => map.restore(key.into_owned(), entry.into_owned())?,
            (Part::Lock(name), open) => *open = Open::Lock(name.into_owned(), Lock::default()),
            (Part::Place(place), Open::Lock(name, lock)) => {
                machine.sessions.get(place.session).ok()?;
                machine.sessions.hold(place.session, Thing::Place(name.clone(), place.token));
                lock.restore(place.into_owned())?;
            }
            (Part::End(parts), _) if parts == self.parts => self.ended = true,
            (
                Part::Head(_) | Part::Member(_) | Part::Result(..) | Part::Entry(..) | Part::Place(_) | Part::End(_),
                _,
            ) => {
                return None;
            }
        }
        Some(())
    }
}

/// A machine that has nothing but its head.
fn begin(head: Head) -> Machine {
    let Head { role, revision, now_ms, term_floor, horizon_ms, deleted_partition_groups } = head;
    let mut machine = Machine::empty(role, term_floor);
    machine.revision = revision;
    machine.now_ms = now_ms;
    machine.dedup = Dedup::since(horizon_ms);
    machine.directory.deleted_partition_groups = deleted_partition_groups;
    machine
}

/// All parts of this have come. `None` if it is not the next of its kind, its leader is no member, or nobody holds it.
fn close(open: Open, machine: &mut Machine) -> Option<()> {
    match open {
        Open::Nothing => Some(()),
        Open::Group(group) => {
            if group.leader.is_some_and(|leader| !group.members.contains_key(&leader)) {
                return None;
            }
            if let Some(release) = group.pending_release() {
                machine.releasing.insert(group.name.clone(), release);
            }
            machine.groups.push(group.name.clone(), Arc::new(group)).then_some(())
        }
        Open::Client(id, client) => machine.dedup.restore(id, client),
        Open::Map(name, map) => machine.maps.restore(name, map),
        Open::Lock(_, lock) if lock.queue.is_empty() => None,
        Open::Lock(name, lock) => machine.locks.push(name, Arc::new(lock)).then_some(()),
    }
}

fn contradiction() -> Error {
    Error::Decode { what: WHAT, source: postcard::Error::DeserializeBadEncoding }
}
