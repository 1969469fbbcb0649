//! Names and numbers as types.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u64);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// The place of a command among all that a partition has applied, from 1 on. Only rises, and is the same on all replicas.
    Revision
);
number!(
    /// Who leads a group, as a number that only rises for the life of the group's name (D4). 0: nobody has led yet.
    Term
);
number!(
    /// A member of a group: the revision of its join, so ids follow the order of joining and are never used again.
    MemberId
);
number!(
    /// A session on one partition: the revision that opened it.
    SessionId
);
number!(
    /// The fencing token of a lock: larger than that of every holder before. The partition's generation in the high bits,
    /// the revision that asked for the lock below: so tokens rise in the order of asking, which is that of granting.
    Token
);
number!(
    /// A Raft identity: minted at random with a data directory and never used again (D14).
    NodeId
);

macro_rules! name {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub String);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }
        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// A member of the cluster: one sidecar.
    MemberName
);
name!(
    /// A partition group. The management group's is `system`.
    PartitionGroupName
);
name!(
    /// A group, as applications call it.
    GroupName
);
name!(
    /// A map, as applications call it.
    MapName
);
name!(
    /// A lock, as applications call it.
    LockName
);

/// The kinds of primitives (D15).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PrimitiveKind {
    /// Who is here, and who leads.
    Group,
    /// Keys and values.
    Map,
    /// One holder at a time.
    Lock,
}

impl PrimitiveKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Group, Self::Map, Self::Lock];

    /// The word of its addresses; a name is hashed with it. The same for ever.
    pub fn label(self) -> &'static str {
        match self {
            Self::Group => "group",
            Self::Map => "map",
            Self::Lock => "lock",
        }
    }
}

/// A primitive within its partition group. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Primitive {
    /// Its kind.
    pub kind: PrimitiveKind,
    /// Its name.
    pub name: Arc<str>,
}

impl Primitive {
    /// Reads what [`fmt::Display`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let (label, name) = text.split_once('/')?;
        let kind = PrimitiveKind::ALL.into_iter().find(|kind| kind.label() == label)?;
        Some(Self { kind, name: name.into() })
    }
}

impl fmt::Display for Primitive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.label(), self.name)
    }
}

impl From<&GroupName> for Primitive {
    fn from(name: &GroupName) -> Self {
        Self { kind: PrimitiveKind::Group, name: name.as_str().into() }
    }
}

impl From<&MapName> for Primitive {
    fn from(name: &MapName) -> Self {
        Self { kind: PrimitiveKind::Map, name: name.as_str().into() }
    }
}

impl From<&LockName> for Primitive {
    fn from(name: &LockName) -> Self {
        Self { kind: PrimitiveKind::Lock, name: name.as_str().into() }
    }
}

impl PartitionGroupName {
    /// The management group's name (D15).
    pub const SYSTEM: &'static str = "system";

    /// Whether this is the management group.
    pub fn is_system(&self) -> bool {
        self.0 == Self::SYSTEM
    }
}

/// One partition of a partition group. Partitions are counted from 1.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartitionId {
    /// The partition group.
    pub group: PartitionGroupName,
    /// From 1 to the group's number of partitions.
    pub index: u32,
}

impl PartitionId {
    /// The management group's only partition.
    pub fn system() -> Self {
        Self { group: PartitionGroupName::from(PartitionGroupName::SYSTEM), index: 1 }
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.group, self.index)
    }
}

/// Who asks for a write and which write it is (D11). A retry carries the same two and is applied once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId {
    /// The client instance's UUID.
    pub client: u128,
    /// A version 7 UUID, rising per client.
    pub request: u128,
}

impl RequestId {
    /// When the client made the request, by its clock: the first 48 bits of a version 7 UUID.
    pub fn issued_ms(&self) -> u64 {
        u64::try_from(self.request >> 80).unwrap_or(u64::MAX)
    }
}

/// A place in the order of one partition's events: the revision, and the number of the event among those of that revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EventId {
    /// The revision that made it.
    pub revision: Revision,
    /// From 0.
    pub ordinal: u32,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.revision, self.ordinal)
    }
}
