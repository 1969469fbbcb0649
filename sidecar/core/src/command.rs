//! What goes into a partition's log, and what comes out of applying it.
//!
//! A command is encoded once, at the edge, by [`encode`]; the same bytes are forwarded, replicated, logged and
//! applied. Queries never enter the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::code::Rejection;
use crate::ids::{
    EventId, GroupName, LockName, MapName, MemberId, MemberName, NodeId, PartitionGroupName, Primitive, RequestId,
    Revision, SessionId, Term,
};

mod lock;
mod map;

pub use lock::{Holder, LeaveReason as LockLeaveReason, LockEvent, LockOp, LockView, Placed, Standing};
pub use map::{Condition, Entry, MapEvent, MapOp, MapView, Page};

/// A command with the identity of the request that it serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Deduplicates (D11). `None` only for commands that are idempotent by themselves.
    pub request: Option<RequestId>,
    /// What to do.
    pub command: Command,
}

/// A change of a partition's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// A sidecar opens its session on this partition.
    OpenSession {
        /// The sidecar.
        member: MemberName,
        /// Its run: a random number for each start of the process. A new run's session ends those of earlier runs.
        incarnation: u64,
        /// The time-out in milliseconds, 1,000 to 3,600,000.
        ttl_ms: u64,
    },
    /// A sidecar ends its session; what it holds is released.
    CloseSession(SessionId),
    /// The leader declares sessions expired. Unconditional: the leader decided before it proposed.
    ExpireSessions(Vec<SessionId>),
    /// A change of one group.
    Group {
        /// Which.
        name: GroupName,
        /// What.
        op: GroupOp,
    },
    /// A change of the directory. Only in the management group.
    Directory(DirectoryOp),
    /// A change of one map.
    Map {
        /// Which.
        name: MapName,
        /// What.
        op: MapOp,
    },
    /// A change of one lock.
    Lock {
        /// Which.
        name: LockName,
        /// What.
        op: LockOp,
    },
}

impl Command {
    /// Whether this keeps the cluster itself in order: who its members are, and which of their sessions live. It is taken
    /// also by a volume that is too full for what applications write. Members make as much of it as they start, stop and
    /// die; applications cannot make more of it.
    ///
    /// Opening a session is part of it: it ends those of the member's earlier runs, which would otherwise hold their locks
    /// and memberships until they expire.
    pub fn is_upkeep(&self) -> bool {
        match self {
            Self::OpenSession { member: _, incarnation: _, ttl_ms: _ }
            | Self::CloseSession(_)
            | Self::ExpireSessions(_) => true,
            Self::Directory(op) => match op {
                DirectoryOp::RegisterMember(_) | DirectoryOp::ForgetMember(_) => true,
                DirectoryOp::CreatePartitionGroup(_)
                | DirectoryOp::DeletePartitionGroup { name: _, force: _ }
                | DirectoryOp::RecordPrimitive(_)
                | DirectoryOp::ForgetPrimitive(_) => false,
            },
            Self::Group { name: _, op: _ } | Self::Map { name: _, op: _ } | Self::Lock { name: _, op: _ } => false,
        }
    }
}

/// A change of one group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupOp {
    /// Makes the group if there is none; with another configuration than the present one: `exists_differently`.
    Create {
        /// `None`: the defaults, or whatever it has.
        config: Option<GroupConfig>,
    },
    /// Replaces the configuration (S20).
    Configure {
        /// The new one.
        config: GroupConfig,
        /// Only if the configuration was last changed at this revision.
        if_config_revision: Option<Revision>,
        /// Only if the term is not newer than this one (S39); else `stale_term`.
        if_term: Option<Term>,
    },
    /// Removes the group. Its members leave, its terms are never used again (D4).
    Delete,
    /// A new member joins; makes the group if there is none.
    Join {
        /// Whose session carries the membership.
        session: SessionId,
        /// Free for the application.
        metadata: BTreeMap<String, String>,
        /// Failure domain; empty if unknown.
        zone: String,
        /// How the application's presence is known.
        presence: Presence,
    },
    /// A member leaves.
    Leave(MemberId),
    /// Replaces a member's metadata.
    SetMetadata {
        /// Whose.
        member: MemberId,
        /// The new ones.
        metadata: BTreeMap<String, String>,
        /// See [`GroupOp::Configure`].
        if_term: Option<Term>,
    },
    /// Asks the leader to release (D16). It then goes to the end of the queue (D3). No effect while it is already asked.
    StepDown {
        /// Only if this term is the present one; else `stale_term`.
        if_term: Option<Term>,
        /// For the event: `requested`, `drain`.
        reason: String,
    },
    /// The leader of this term has stopped acting; the next is elected. No effect if the term is not the present one.
    Release(Term),
    /// The partition's leader saw the release time-out of this term pass. Same effect as [`GroupOp::Release`].
    ReleaseTimedOut(Term),
}

/// How an application's presence in a group is known (D20).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Presence {
    /// A stream that holds the membership.
    Stream,
    /// A time to live that is renewed.
    Lease,
    /// The sidecar probes the application.
    Probe,
}

/// A group's replicated configuration (S20).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupConfig {
    /// How long a leader that was asked to release may take. Default 5,000.
    pub release_timeout_ms: u64,
    /// Default [`crate::limits::GROUP_MEMBERS_MAX`].
    pub max_members: u32,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self { release_timeout_ms: 5_000, max_members: crate::limits::GROUP_MEMBERS_MAX }
    }
}

/// A change of the directory: who is in the cluster, and which partition groups and primitives it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DirectoryOp {
    /// A sidecar says who it is, at its start and when it changes. Refused (`directory_rolled_back`, `directory_copied`,
    /// `directory_replaced`) when its data directory is not the one that is recorded (D14).
    RegisterMember(MemberRecord),
    /// An ephemeral member left, or was not heard of for long.
    ForgetMember(MemberName),
    /// Makes a partition group. Idempotent; `exists_differently` if one of this name differs.
    CreatePartitionGroup(PartitionGroupRecord),
    /// Removes a partition group. `not_empty` while it holds primitives, unless `force`.
    DeletePartitionGroup {
        /// Which.
        name: PartitionGroupName,
        /// Delete its data.
        force: bool,
    },
    /// Records a primitive at its first use (D15, S94). Idempotent.
    RecordPrimitive(PrimitiveAddress),
    /// Forgets a primitive that was deleted.
    ForgetPrimitive(PrimitiveAddress),
}

/// Where a primitive is (D15).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PrimitiveAddress {
    /// The partition group.
    pub partition_group: PartitionGroupName,
    /// The word of a [`crate::PrimitiveKind`].
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// A sidecar, as the management group knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// Its name.
    pub name: MemberName,
    /// Whether it may vote.
    pub kind: MemberKind,
    /// `host:port` of its peer port; empty if it cannot be dialled.
    pub address: String,
    /// Its failure domain; empty if unknown.
    pub zone: String,
    /// Its data directory's identity; 0 for ephemeral members.
    pub node: NodeId,
    /// How many times a process was started on that directory.
    pub start_counter: u64,
    /// The run of the process.
    pub run: u64,
    /// The newest machine version that it knows.
    pub machine_version: u32,
    /// The program's version.
    pub version: String,
}

/// Whether a member may vote (D6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum MemberKind {
    /// Stable identity and volume.
    Persistent,
    /// Comes and goes.
    Ephemeral,
}

/// A partition group, as the management group knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionGroupRecord {
    /// Its name.
    pub name: PartitionGroupName,
    /// Its protocol.
    pub protocol: Protocol,
    /// One per partition, in the order of their index (from 1).
    pub partitions: Vec<PartitionRecord>,
    /// How many partition groups were deleted before this one was made: set by the machine, so that a partition made
    /// again under its name starts its terms above all that its predecessor used (D4).
    pub generation: u64,
}

/// A protocol of replication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// Durable and linearizable.
    Raft,
    /// In memory and fast.
    PrimaryBackup,
}

/// One partition: its replicas, in the order of preference for forming it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionRecord {
    /// Member and the identity that it had when it was placed.
    pub replicas: Vec<(MemberName, NodeId)>,
}

/// What a command answers.
pub type Outcome = Result<Reply, Rejection>;

/// The answer of a command that was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Nothing more to say.
    Done,
    /// The session that was opened.
    Session(SessionId),
    /// The member that joined and the group with it.
    Joined(Box<(MemberId, GroupView)>),
    /// The group after the change.
    Group(Box<GroupView>),
    /// The partition group, as recorded.
    PartitionGroup(Box<PartitionGroupRecord>),
    /// An entry of a map was written or removed.
    Written {
        /// When.
        revision: Revision,
        /// When the entry had been changed before; 0: there was none.
        previous: Revision,
    },
    /// A place in a lock's queue.
    Placed(Placed),
}

/// A question to a partition; answered from applied state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// One group; `group_unknown` if there is none.
    Group(GroupName),
    /// All groups, by name; without their members when there are many.
    Groups,
    /// The directory. Only in the management group.
    Directory,
    /// One entry of a map.
    Entry {
        /// Which map. One that there is not has no entries.
        map: MapName,
        /// Which entry.
        key: Arc<str>,
    },
    /// Entries of a map, in the order of their keys.
    Entries {
        /// Which map. One that there is not has no entries.
        map: MapName,
        /// Only keys that begin so.
        prefix: String,
        /// Only keys after this one; empty: from the first.
        after: String,
        /// How many at most, 1 to [`crate::limits::PAGE_ENTRIES_MAX`].
        limit: u32,
    },
    /// A lock. One that nobody asked for is free.
    Lock(LockName),
    /// Nothing but up to where the partition has come.
    Revision,
}

/// The answer of a query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// One group.
    Group(Box<GroupView>),
    /// All groups.
    Groups(Vec<GroupView>),
    /// The directory.
    Directory(Box<crate::machine::Directory>),
    /// An entry; `None` if there is none.
    Entry(Option<Entry>),
    /// Entries.
    Entries(Page),
    /// A lock.
    Lock(Box<LockView>),
    /// Of the last command that was applied.
    Revision(Revision),
}

/// A primitive as it is at one revision: what a watch begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum View {
    /// A group.
    Group(GroupView),
    /// A map.
    Map(MapView),
    /// A lock.
    Lock(LockView),
}

impl View {
    /// Of the partition, when this was read.
    pub fn revision(&self) -> Revision {
        match self {
            Self::Group(view) => view.revision,
            Self::Map(view) => view.revision,
            Self::Lock(view) => view.revision,
        }
    }

    /// Everything up to here is in the view; a watch goes on after it.
    pub fn place(&self) -> EventId {
        let at = EventId { revision: self.revision(), ordinal: u32::MAX };
        match self {
            Self::Group(view) => view.last_event.max(at),
            Self::Map(_) | Self::Lock(_) => at,
        }
    }
}

/// A group as it is at one revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupView {
    /// Its name.
    pub name: GroupName,
    /// The term; 0 before the first leader.
    pub term: Term,
    /// Who leads; `None` while nobody does.
    pub leader: Option<MemberId>,
    /// Whether the leader was asked to release.
    pub releasing: bool,
    /// In the order of joining.
    pub members: Vec<MemberView>,
    /// The configuration.
    pub config: GroupConfig,
    /// When the configuration was last changed.
    pub config_revision: Revision,
    /// Of the partition, when this was read.
    pub revision: Revision,
    /// The group's last event; a watch resumes after it.
    pub last_event: EventId,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberView {
    /// Its id.
    pub id: MemberId,
    /// The session that carries it.
    pub session: SessionId,
    /// The sidecar that holds the session.
    pub sidecar: MemberName,
    /// Free for the application.
    pub metadata: BTreeMap<String, String>,
    /// Failure domain; empty if unknown.
    pub zone: String,
    /// How its presence is known.
    pub presence: Presence,
    /// When it joined, by the leader's clock, in Unix milliseconds.
    pub joined_ms: u64,
}

/// Something that changed, for watchers of `of`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its place in the order.
    pub id: EventId,
    /// The primitive that changed.
    pub of: Primitive,
    /// What changed.
    pub kind: EventKind,
}

impl Event {
    /// About how many bytes of memory it keeps.
    pub fn weight(&self) -> usize {
        let content = match &self.kind {
            EventKind::Map(MapEvent::Put { key, entry }) => key.len() + entry.value.len(),
            EventKind::Map(MapEvent::Deleted { key }) => key.len(),
            EventKind::Group(GroupEvent::Joined(member) | GroupEvent::Updated(member)) => {
                member.metadata.iter().map(|(key, value)| key.len() + value.len()).sum()
            }
            EventKind::Group(_) | EventKind::Map(MapEvent::Dropped) | EventKind::Lock(_) => 0,
        };
        content + size_of::<Self>()
    }
}

/// What changed in a primitive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventKind {
    /// In a group.
    Group(GroupEvent),
    /// In a map.
    Map(MapEvent),
    /// In a lock.
    Lock(LockEvent),
}

/// What changed in a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupEvent {
    /// A member joined.
    Joined(MemberView),
    /// A member is gone.
    Left {
        /// Who.
        member: MemberId,
        /// Why.
        reason: LeaveReason,
    },
    /// A member's metadata changed.
    Updated(MemberView),
    /// A term began; its leader comes next (S31).
    Term(Term),
    /// A leader was elected.
    Elected {
        /// Its term.
        term: Term,
        /// Who.
        leader: MemberId,
    },
    /// The leader of this term leads no more.
    Vacated {
        /// Its term.
        term: Term,
        /// Who led.
        leader: MemberId,
    },
    /// The leader was asked to release.
    Releasing {
        /// Its term.
        term: Term,
        /// Who leads.
        leader: MemberId,
        /// How long it may take.
        timeout_ms: u64,
        /// Why.
        reason: String,
    },
    /// The configuration changed.
    Config {
        /// The new one.
        config: GroupConfig,
        /// When.
        config_revision: Revision,
    },
    /// The group was deleted.
    Deleted,
}

/// Why a member is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaveReason {
    /// It left.
    Left,
    /// Its session expired.
    SessionExpired,
    /// Its sidecar closed the session, or opened a new one after a restart.
    SessionClosed,
    /// The group was deleted.
    GroupDeleted,
}

/// Why bytes are not what was expected.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Written by a newer program.
    #[error("{what} has version {version}; this program knows up to {known}")]
    Version {
        /// What was read.
        what: &'static str,
        /// Its version.
        version: u8,
        /// The newest known.
        known: u8,
    },
    /// Not what it says it is.
    #[error("decode {what}")]
    Decode {
        /// What was read.
        what: &'static str,
        /// Why.
        #[source]
        source: postcard::Error,
    },
    /// No bytes at all.
    #[error("{what} is empty")]
    Empty {
        /// What was read.
        what: &'static str,
    },
}

/// The version that this program writes in front of every encoded value of this module.
pub const WIRE_VERSION: u8 = 1;

/// Encodes a value of this module, its version in front.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![WIRE_VERSION]).expect("values of this module have no unencodable parts")
}

/// Decodes what [`encode`] made, and refuses trailing bytes.
pub fn decode<T: for<'a> Deserialize<'a>>(what: &'static str, bytes: &[u8]) -> Result<T, Error> {
    let (version, rest) = bytes.split_first().ok_or(Error::Empty { what })?;
    if *version != WIRE_VERSION {
        return Err(Error::Version { what, version: *version, known: WIRE_VERSION });
    }
    let (value, rest) = postcard::take_from_bytes(rest).map_err(|source| Error::Decode { what, source })?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(Error::Decode { what, source: postcard::Error::DeserializeBadEncoding })
    }
}
