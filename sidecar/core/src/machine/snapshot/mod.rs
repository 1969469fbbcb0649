//! The machine as a sequence of pieces, and back.
//!
//! ```text
//!   Machine ──image()──▶ Image ──pieces()──▶ piece, piece, piece … ──▶ Restorer ──finish()──▶ Machine
//!     goes on            shares its chunks     bounded, in order        piece by piece
//! ```
//! Nowhere is there one buffer with all of it. An [`Image`] copies lists of chunks ([`crate::chunks`]) and a few small
//! tables: some milliseconds at the limits of a partition. What can be derived (indexes, counts) is left out, and made
//! again.
//!
//! A piece is a run of parts, cut where the next one would make it longer than [`PIECE_BYTES`]; the first begins with the
//! version of this form. The parts, in this order:
//!
//! | part | then, for each |
//! |---|---|
//! | head | |
//! | sessions | |
//! | groups | members |
//! | clients | results |
//! | the directory's members, partition groups, primitives | |
//! | maps | entries |
//! | locks | places |
//! | end: how many parts there were | |
//!
//! Replicas at the same revision give the same pieces: everything is in the order of its keys, and neither the order of
//! changes nor the chunks show.

use std::borrow::Cow;
use std::sync::Arc;

use coterie_mutants::{Mutant, is_on};
use serde::{Deserialize, Serialize};

use super::dedup::{Client, Kept};
use super::group::{Group, Member};
use super::lock::{Lock, Place};
use super::map::Map;
use super::sessions::Session;
use super::{Directory, Machine, Role};
use crate::chunks::Chunks;
use crate::command::{Entry, MemberRecord, PartitionGroupRecord, PrimitiveAddress};
use crate::ids::{GroupName, LockName, MapName, Revision, SessionId, Term};

mod restore;

pub use restore::Restorer;

/// The version of this form that this program writes, and the only one that it reads.
const SNAPSHOT_VERSION: u8 = 6;

const WHAT: &str = "machine snapshot";

/// Bytes of a piece, unless one part alone is larger: large enough to be fast, small enough that nothing waits for long
/// behind one.
pub const PIECE_BYTES: usize = 256 * 1024;

/// The largest piece. The largest part is an entry of a map with the largest key and value, or a partition group with the
/// most partitions.
pub const PIECE_BYTES_MAX: usize = 4 * 1024 * 1024;

const _: () = assert!(crate::limits::KEY_BYTES_MAX + crate::limits::VALUE_BYTES_MAX + PIECE_BYTES < PIECE_BYTES_MAX);

/// What is written. Its order is the form.
#[derive(Serialize, Deserialize)]
enum Part<'a> {
    Head(Head),
    Session(SessionId, Cow<'a, Session>),
    /// Members of the group before.
    Group(Cow<'a, Group>),
    Member(Cow<'a, Member>),
    /// Results of the client before.
    Client(u128, Cow<'a, Client>),
    Result(u128, Cow<'a, Kept>),
    ClusterMember(Cow<'a, MemberRecord>),
    PartitionGroup(Cow<'a, PartitionGroupRecord>),
    Primitive(Cow<'a, PrimitiveAddress>, Revision),
    /// Entries of the map before.
    Map(Cow<'a, MapName>, Cow<'a, Map>),
    Entry(Cow<'a, Arc<str>>, Cow<'a, Entry>),
    /// Places of the lock before.
    Lock(Cow<'a, LockName>),
    Place(Cow<'a, Place>),
    /// How many came before it.
    End(u64),
}

/// What there is once.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Head {
    role: Role,
    revision: Revision,
    now_ms: u64,
    term_floor: Term,
    horizon_ms: u64,
    deleted_partition_groups: u64,
}

/// The state at one revision, while the machine goes on. It shares what it holds with the machine, which copies a chunk
/// before it changes one that is shared.
#[derive(Clone)]
pub struct Image {
    head: Head,
    sessions: Chunks<SessionId, Session>,
    groups: Chunks<GroupName, Arc<Group>>,
    clients: Chunks<u128, Arc<Client>>,
    directory: Directory,
    maps: Chunks<MapName, Map>,
    locks: Chunks<LockName, Arc<Lock>>,
}

impl Machine {
    /// The state as it is now, to make a snapshot of. Takes some milliseconds at most, however much there is.
    pub fn image(&self) -> Image {
        let Self { role, revision, now_ms, sessions, groups, releasing: _, maps, locks, term_floor, dedup, directory } =
            self;
        Image {
            head: Head {
                role: *role,
                revision: *revision,
                now_ms: *now_ms,
                term_floor: *term_floor,
                horizon_ms: dedup.horizon_ms(),
                deleted_partition_groups: directory.deleted_partition_groups,
            },
            sessions: sessions.live().clone(),
            groups: groups.clone(),
            clients: dedup.clients().clone(),
            directory: directory.clone(),
            maps: maps.named().clone(),
            locks: locks.clone(),
        }
    }
}

impl Image {
    /// The state in pieces, each made when it is asked for: the same on every replica at the same revision.
    pub fn pieces(&self) -> Pieces<'_> {
        Pieces { parts: Box::new(self.parts()), made: 0, piece: vec![SNAPSHOT_VERSION], ended: false }
    }

    /// All but the end.
    fn parts(&self) -> impl Iterator<Item = Part<'_>> + Send {
        use Cow::Borrowed as Ref;
        let Directory { members, partition_groups, primitives, deleted_partition_groups: _ } = &self.directory;
        let head = std::iter::once(Part::Head(self.head));
        let sessions = self.sessions.iter().map(|(id, session)| Part::Session(*id, Ref(session)));
        let groups = self.groups.values().flat_map(|group| {
            let members = group.members.values().map(|member| Part::Member(Ref(member)));
            std::iter::once(Part::Group(Ref(group))).chain(members)
        });
        let clients = self.clients.iter().flat_map(|(id, client)| {
            let results = client.results().map(|(request, kept)| Part::Result(*request, Ref(kept)));
            std::iter::once(Part::Client(*id, Ref(client))).chain(results)
        });
        let directory = members.values().map(|member| Part::ClusterMember(Ref(member)));
        let directory = directory.chain(partition_groups.values().map(|group| Part::PartitionGroup(Ref(group))));
        let directory = directory.chain(primitives.iter().map(|(address, at)| Part::Primitive(Ref(address), *at)));
        let maps = self.maps.iter().flat_map(|(name, map)| {
            let cut = usize::from(is_on(Mutant::CutSnapshotShort));
            let entries = map.entries().iter().take(map.entries().len() - cut);
            let entries = entries.map(|(key, entry)| Part::Entry(Ref(key), Ref(entry)));
            std::iter::once(Part::Map(Ref(name), Ref(map))).chain(entries)
        });
        let locks = self.locks.iter().flat_map(|(name, lock)| {
            let places = lock.queue.iter().map(|place| Part::Place(Ref(place)));
            std::iter::once(Part::Lock(Ref(name))).chain(places)
        });
        head.chain(sessions).chain(groups).chain(clients).chain(directory).chain(maps).chain(locks)
    }
}

/// The pieces of an [`Image`].
pub struct Pieces<'a> {
    parts: Box<dyn Iterator<Item = Part<'a>> + Send + 'a>,
    /// How many parts were made.
    made: u64,
    /// What is made of the next piece.
    piece: Vec<u8>,
    ended: bool,
}

impl Iterator for Pieces<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        while !self.ended {
            let part = self.parts.next().unwrap_or(Part::End(self.made));
            self.ended = matches!(part, Part::End(_));
            self.made += 1;
            let before = self.piece.len();
            let piece = std::mem::take(&mut self.piece);
            let mut piece = postcard::to_extend(&part, piece).expect("the state has no unencodable parts");
            if piece.len() > PIECE_BYTES && before > 0 {
                self.piece = piece.split_off(before);
                return Some(piece);
            }
            self.piece = piece;
        }
        let last = std::mem::take(&mut self.piece);
        (!last.is_empty()).then_some(last)
    }
}
