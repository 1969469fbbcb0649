//! What the sidecar tells, as types of this crate.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use coterie_proto::v1;

use crate::error::Error;

/// Who leads a group, as a number that only rises, also when the group is deleted and made again (S25–S27, D4). Hand it
/// to an external resource as a fencing token (S28). 0: nobody has led yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u64);

/// A member of a group. Ids rise in the order of joining and are never used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u64);

/// A place among the changes of a partition. Those of one partition only rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// Fences what the holder of a lock does: larger than that of every holder before, also when the lock was free in between.
/// Hand it to whatever the lock protects, and let that refuse a smaller one than it has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl MemberId {
    /// 0 stands for nobody on the wire.
    pub(crate) fn some(id: u64) -> Option<Self> {
        (id != 0).then_some(Self(id))
    }
}

/// How fresh a read must be, or was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// Everything that was acknowledged before the read began is in it. Rests on no clock; needs a quorum.
    #[default]
    Linearizable,
    /// What the leader knows while a majority has confirmed it within its lease: as good as linearizable while clocks run at
    /// rates that differ by less than a tenth, and asks nobody.
    Leased,
    /// What the sidecar, or a replica near it, knows. Needs no quorum; see [`GroupInfo::stale_for`].
    Stale,
}

/// How an application's presence in a group is known (D20).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// A stream that holds the membership.
    Stream,
    /// A time to live that is renewed.
    Lease,
    /// The sidecar probes the application.
    Probe,
}

/// Whether what this client was told can be relied upon (S38).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// Up to date.
    Live,
    /// Not heard of in time; what is known may be stale (S18). It becomes live again or lost.
    Suspended,
    /// Ended: the membership is gone.
    Lost,
}

/// Why a member is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaveReason {
    /// It left.
    Left,
    /// Its sidecar's session expired, or its lease ran out.
    SessionExpired,
    /// Its sidecar closed the session, or started again.
    SessionClosed,
    /// The group was deleted.
    GroupDeleted,
    /// One that this version does not know.
    Other(String),
}

/// A group's replicated configuration (S20).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupConfig {
    /// How long a leader that was asked to release may take; up to one hour, in whole milliseconds. `None`: 5 s.
    pub release_timeout: Option<Duration>,
    /// The largest number of members, 1 to 10,000. `None`: 10,000.
    pub max_members: Option<u32>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberInfo {
    /// Its id.
    pub id: MemberId,
    /// Free for the application; at most 16 KiB.
    pub metadata: BTreeMap<String, String>,
    /// Its failure domain; empty if unknown.
    pub zone: String,
    /// How its presence is known; `None` for a way that this version does not know.
    pub presence: Option<Presence>,
    /// The cluster member (sidecar) that holds it.
    pub sidecar: String,
    /// The revision of its join.
    pub joined_revision: u64,
    /// When it joined, by the clock of the partition's leader at that time.
    pub joined: SystemTime,
}

/// A group at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupInfo {
    /// Its name.
    pub name: String,
    /// The partition group that holds it.
    pub partition_group: String,
    /// The present term; 0 before the first leader.
    pub term: Term,
    /// Who leads; `None` while nobody does.
    pub leader: Option<MemberId>,
    /// Whether the leader was asked to release.
    pub releasing: bool,
    /// In the order of joining.
    pub members: Vec<MemberInfo>,
    /// The configuration, with its defaults filled in.
    pub config: GroupConfig,
    /// The revision that last changed the configuration.
    pub config_revision: u64,
    /// Of the partition, when this was read.
    pub revision: u64,
    /// How fresh this is.
    pub consistency: Consistency,
    /// For stale answers: how long ago the replica last heard from its leader; else zero.
    pub stale_for: Duration,
}

impl GroupInfo {
    /// The member with this id.
    pub fn member(&self, id: MemberId) -> Option<&MemberInfo> {
        self.members.iter().find(|member| member.id == id)
    }

    /// Who leads.
    pub fn leading(&self) -> Option<&MemberInfo> {
        self.leader.and_then(|id| self.member(id))
    }
}

/// One change of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its place in the order; resumes a watch after it. Empty for [`EventKind::Connection`].
    pub id: String,
    /// The revision that made it; 0 for [`EventKind::Connection`].
    pub revision: u64,
    /// What changed.
    pub kind: EventKind,
}

/// What changed in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The group as the watch begins.
    Snapshot(Box<GroupInfo>),
    /// The group as it is now; changes before this may have been skipped (D17).
    Resync(Box<GroupInfo>),
    /// A member joined (S5).
    Joined(MemberInfo),
    /// A member's metadata changed.
    Updated(MemberInfo),
    /// A member is gone (S10, S12).
    Left {
        /// Who.
        member: MemberId,
        /// Why.
        reason: LeaveReason,
    },
    /// A term began; its leader comes next (S31).
    Term(Term),
    /// A leader was elected (S30).
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
    /// The leader was asked to release (D16).
    Releasing {
        /// Its term.
        term: Term,
        /// Who leads.
        leader: MemberId,
        /// How long it may take.
        timeout: Duration,
        /// Why: `requested`, `drain`.
        reason: String,
    },
    /// The configuration changed (S20).
    Config {
        /// The new one.
        config: GroupConfig,
        /// When.
        revision: u64,
    },
    /// The group was deleted; the watch ends.
    Deleted,
    /// Whether what follows is up to date (S18).
    Connection(SessionState),
}

impl From<Consistency> for v1::Consistency {
    fn from(consistency: Consistency) -> Self {
        match consistency {
            Consistency::Linearizable => Self::Linearizable,
            Consistency::Leased => Self::Leased,
            Consistency::Stale => Self::Stale,
        }
    }
}

impl From<GroupConfig> for v1::GroupConfig {
    fn from(GroupConfig { release_timeout, max_members }: GroupConfig) -> Self {
        Self {
            release_timeout_ms: release_timeout.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            max_members,
        }
    }
}

impl From<v1::GroupConfig> for GroupConfig {
    fn from(v1::GroupConfig { release_timeout_ms, max_members }: v1::GroupConfig) -> Self {
        Self { release_timeout: release_timeout_ms.map(Duration::from_millis), max_members }
    }
}

impl From<v1::SessionState> for SessionState {
    fn from(state: v1::SessionState) -> Self {
        match state {
            v1::SessionState::Live => Self::Live,
            v1::SessionState::Suspended => Self::Suspended,
            v1::SessionState::Lost => Self::Lost,
            // Whoever says nothing about freshness does not vouch for it.
            v1::SessionState::Unspecified => Self::Suspended,
        }
    }
}

impl From<v1::Member> for MemberInfo {
    fn from(member: v1::Member) -> Self {
        let presence = match member.presence() {
            v1::Presence::Stream => Some(Presence::Stream),
            v1::Presence::Lease => Some(Presence::Lease),
            v1::Presence::Probe => Some(Presence::Probe),
            v1::Presence::Unspecified => None,
        };
        let v1::Member { id, metadata, zone, presence: _, sidecar, joined_revision, joined_ms, leader: _ } = member;
        Self {
            id: MemberId(id),
            metadata: metadata.into_iter().collect(),
            zone,
            presence,
            sidecar,
            joined_revision,
            joined: SystemTime::UNIX_EPOCH + Duration::from_millis(joined_ms),
        }
    }
}

impl From<v1::Group> for GroupInfo {
    fn from(group: v1::Group) -> Self {
        let consistency = match group.consistency() {
            v1::Consistency::Stale => Consistency::Stale,
            v1::Consistency::Leased => Consistency::Leased,
            v1::Consistency::Linearizable | v1::Consistency::Unspecified => Consistency::Linearizable,
        };
        let v1::Group {
            name,
            partition_group,
            term,
            leader,
            members,
            config,
            config_revision,
            revision,
            releasing,
            consistency: _,
            stale_ms,
        } = group;
        Self {
            name,
            partition_group,
            term: Term(term),
            leader: MemberId::some(leader),
            releasing,
            members: members.into_iter().map(Into::into).collect(),
            config: config.unwrap_or_default().into(),
            config_revision,
            revision,
            consistency,
            stale_for: Duration::from_millis(stale_ms),
        }
    }
}

fn reason(word: String) -> LeaveReason {
    match word.as_str() {
        "left" => LeaveReason::Left,
        "session_expired" => LeaveReason::SessionExpired,
        "session_closed" => LeaveReason::SessionClosed,
        "group_deleted" => LeaveReason::GroupDeleted,
        _ => LeaveReason::Other(word),
    }
}

impl TryFrom<v1::GroupEvent> for Event {
    type Error = Error;

    fn try_from(v1::GroupEvent { id, revision, kind }: v1::GroupEvent) -> Result<Self, Error> {
        use v1::group_event::Kind;
        let kind = match kind.ok_or(Error::Protocol { missing: "event" })? {
            Kind::Snapshot(group) => EventKind::Snapshot(Box::new(group.into())),
            Kind::Resync(group) => EventKind::Resync(Box::new(group.into())),
            Kind::Joined(member) => EventKind::Joined(member.into()),
            Kind::Updated(member) => EventKind::Updated(member.into()),
            Kind::Left(left) => EventKind::Left { member: MemberId(left.member), reason: reason(left.reason) },
            Kind::Term(term) => EventKind::Term(Term(term)),
            Kind::Elected(v1::Elected { term, leader }) => {
                EventKind::Elected { term: Term(term), leader: MemberId(leader) }
            }
            Kind::Vacated(v1::Vacated { term, leader }) => {
                EventKind::Vacated { term: Term(term), leader: MemberId(leader) }
            }
            Kind::Releasing(v1::Releasing { term, leader, timeout_ms, reason }) => EventKind::Releasing {
                term: Term(term),
                leader: MemberId(leader),
                timeout: Duration::from_millis(timeout_ms),
                reason,
            },
            Kind::Config(v1::ConfigChanged { config, config_revision }) => {
                EventKind::Config { config: config.unwrap_or_default().into(), revision: config_revision }
            }
            Kind::Deleted(v1::Deleted {}) => EventKind::Deleted,
            Kind::Connection(connection) => EventKind::Connection(connection.state().into()),
        };
        Ok(Self { id, revision, kind })
    }
}
