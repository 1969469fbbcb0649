//! The one typed builder that files, the operator and local clusters go through (D21, S82, S98).
//!
//! ```
//! use coterie_core::config::builder::{Builder, Group, Member};
//!
//! let builder = Builder::new()
//!     .local_member("member-1")
//!     .member(Member::persistent("member-1", "localhost:5001"))
//!     .member(Member::persistent("member-2", "localhost:5002"))
//!     .member(Member::persistent("member-3", "localhost:5003"))
//!     .management_group(Group::raft(["member-1", "member-2", "member-3"]))
//!     .partition_group("data", Group::raft(["member-1", "member-2", "member-3"]).partitions(3));
//! let config = builder.build()?;
//! assert_eq!(config.partition_groups.len(), 1);
//! // The equivalent file (S114).
//! let again = coterie_core::config::Config::from_yaml(&builder.to_yaml(), &Default::default())?;
//! assert_eq!(again, config);
//! # Ok::<(), coterie_core::config::Error>(())
//! ```

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::error::Error;
use super::{Config, rules, write};
use crate::command::{MemberKind, Protocol};

/// What is said about a sidecar, before it is checked. Nothing is refused until [`Builder::build`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Builder {
    pub(super) cluster: Option<String>,
    pub(super) local_member: Option<String>,
    pub(super) local_zone: Option<String>,
    pub(super) members: Vec<Member>,
    pub(super) management: Option<Group>,
    pub(super) partition_groups: Vec<(String, Group)>,
    pub(super) profiles: Vec<Profile>,
    pub(super) default_partition_group: Option<String>,
    pub(super) data_directory: Option<String>,
    pub(super) api_port: Option<u16>,
    pub(super) api_address: Option<IpAddr>,
    pub(super) api_socket: Option<String>,
    pub(super) health_address: Option<IpAddr>,
    pub(super) health_port: Option<u16>,
    pub(super) peer_bind: Option<SocketAddr>,
    pub(super) security: Security,
    pub(super) timing: Option<Timing>,
    pub(super) session_timeout_ms: Option<u64>,
    pub(super) application: Option<Application>,
}

/// A declared member (S111).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub(super) name: String,
    pub(super) kind: MemberKind,
    pub(super) address: Option<String>,
    pub(super) zone: Option<String>,
}

impl Member {
    /// A member with a stable identity and volume, at `host:port`.
    pub fn persistent(name: impl Into<String>, address: impl Into<String>) -> Self {
        Self { name: name.into(), kind: MemberKind::Persistent, address: Some(address.into()), zone: None }
    }

    /// A member that comes and goes. Nobody dials it unless it is given an address.
    pub fn ephemeral(name: impl Into<String>) -> Self {
        Self { name: name.into(), kind: MemberKind::Ephemeral, address: None, zone: None }
    }

    /// Where others reach it, as `host:port`.
    pub fn address(self, address: impl Into<String>) -> Self {
        Self { address: Some(address.into()), ..self }
    }

    /// Its failure domain.
    pub fn zone(self, zone: impl Into<String>) -> Self {
        Self { zone: Some(zone.into()), ..self }
    }
}

/// A partition group without its name: the type fixes the protocol (S84).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub(super) protocol: Protocol,
    pub(super) partitions: Option<u32>,
    pub(super) members: Vec<String>,
}

impl Group {
    /// A Raft group that is replicated on these members (S105).
    pub fn raft(members: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { protocol: Protocol::Raft, partitions: None, members: members.into_iter().map(Into::into).collect() }
    }

    /// A primary-backup group. Not in this version: [`Builder::build`] refuses it and says so.
    pub fn primary_backup() -> Self {
        Self { protocol: Protocol::PrimaryBackup, partitions: None, members: Vec::new() }
    }

    /// The number of partitions, 1 to [`crate::limits::PARTITIONS_MAX`] (S85). Default: 1 for the management group, which
    /// takes no other, else [`super::PARTITIONS_DEFAULT`].
    pub fn partitions(self, partitions: u32) -> Self {
        Self { partitions: Some(partitions), ..self }
    }
}

/// A named configurator (S123).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Profile {
    /// A Raft management group, and a Raft partition group `raft` with [`super::PARTITIONS_DEFAULT`] partitions, both on all
    /// declared persistent members, by name (S124).
    Consensus,
    /// Primary-backup groups (S125, S126). Not in this version: [`Builder::build`] refuses it and says so.
    DataGrid,
    /// Makes the local member ephemeral, and no groups (S127).
    Client,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Consensus, Self::DataGrid, Self::Client];

    /// Its word in a file.
    pub fn label(self) -> &'static str {
        match self {
            Self::Consensus => "consensus",
            Self::DataGrid => "data-grid",
            Self::Client => "client",
        }
    }
}

/// How fast a cluster notices that a leader is gone, and how much it bears before it believes so: Raft's timers. The same
/// on all members that vote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timing {
    /// For members with a core of their own, or most of one.
    #[default]
    Normal,
    /// For members whose cores and disks are never busy.
    Fast,
    /// For members that are throttled to a fifth of a core or less.
    Slow,
}

impl Timing {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Normal, Self::Fast, Self::Slow];

    /// Its word in a file.
    pub fn label(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Fast => "fast",
            Self::Slow => "slow",
        }
    }
}

/// How sidecars know each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Security {
    /// No certificates: plain connections to and from loopback addresses only.
    #[default]
    PlaintextOnLoopback,
    /// No certificates, and plain connections may leave the machine.
    PlaintextAnywhere,
    /// Mutual TLS. Paths of PEM files.
    Certificates {
        /// The authority that signed everybody's certificate.
        ca: String,
        /// This sidecar's certificate.
        certificate: String,
        /// Its private key.
        key: String,
    },
}

/// An application that the sidecar joins to a group while a probe succeeds (D20).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application {
    pub(super) group: String,
    pub(super) partition_group: Option<String>,
    pub(super) probe: Probe,
    pub(super) interval_ms: Option<u64>,
    pub(super) failures: Option<u32>,
    pub(super) metadata: BTreeMap<String, String>,
}

impl Application {
    /// Joins it to `group` while `probe` succeeds.
    pub fn new(group: impl Into<String>, probe: Probe) -> Self {
        Self {
            group: group.into(),
            partition_group: None,
            probe,
            interval_ms: None,
            failures: None,
            metadata: BTreeMap::new(),
        }
    }

    /// Where the group is; else in the cluster's default partition group.
    pub fn partition_group(self, name: impl Into<String>) -> Self {
        Self { partition_group: Some(name.into()), ..self }
    }

    /// How often to probe, in milliseconds, within [`super::PROBE_INTERVAL_MS`].
    pub fn interval_ms(self, interval_ms: u64) -> Self {
        Self { interval_ms: Some(interval_ms), ..self }
    }

    /// After how many failures in a row the application is gone, within [`super::PROBE_FAILURES`].
    pub fn failures(self, failures: u32) -> Self {
        Self { failures: Some(failures), ..self }
    }

    /// The metadata of its membership, at most [`crate::limits::METADATA_BYTES_MAX`] bytes.
    pub fn metadata(self, metadata: BTreeMap<String, String>) -> Self {
        Self { metadata, ..self }
    }
}

/// How to know that an application is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A GET of this `http://` URL answers 2xx or 3xx.
    Http(String),
    /// This `host:port` accepts a connection.
    Tcp(String),
    /// The Unix socket at this path accepts a connection.
    Socket(String),
}

impl Builder {
    /// Nothing said yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The cluster's name. Default: [`super::CLUSTER_NAME_DEFAULT`].
    pub fn cluster(self, name: impl Into<String>) -> Self {
        Self { cluster: Some(name.into()), ..self }
    }

    /// Which member this sidecar is (S111). One that is not declared is ephemeral and has no address.
    pub fn local_member(self, name: impl Into<String>) -> Self {
        Self { local_member: Some(name.into()), ..self }
    }

    /// This sidecar's failure domain, rather than the one of its declaration.
    pub fn local_zone(self, zone: impl Into<String>) -> Self {
        Self { local_zone: Some(zone.into()), ..self }
    }

    /// Declares one more member.
    pub fn member(mut self, member: Member) -> Self {
        self.members.push(member);
        self
    }

    /// The management group (S98). It is always named `system`.
    pub fn management_group(self, group: Group) -> Self {
        Self { management: Some(group), ..self }
    }

    /// Declares one more partition group (S87).
    pub fn partition_group(mut self, name: impl Into<String>, group: Group) -> Self {
        self.partition_groups.push((name.into(), group));
        self
    }

    /// Applies one more profile, after those before it (S128).
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profiles.push(profile);
        self
    }

    /// Where primitives without a partition group go (D15).
    pub fn default_partition_group(self, name: impl Into<String>) -> Self {
        Self { default_partition_group: Some(name.into()), ..self }
    }

    /// Where this sidecar's data is.
    pub fn data_directory(self, path: impl Into<String>) -> Self {
        Self { data_directory: Some(path.into()), ..self }
    }

    /// The application API's TCP port.
    pub fn api_port(self, port: u16) -> Self {
        Self { api_port: Some(port), ..self }
    }

    /// One loopback address for the application's API, rather than both of them.
    pub fn api_address(self, address: IpAddr) -> Self {
        Self { api_address: Some(address), ..self }
    }

    /// The path of the application API's Unix socket.
    pub fn api_socket(self, path: impl Into<String>) -> Self {
        Self { api_socket: Some(path.into()), ..self }
    }

    /// The address for health and metrics, rather than loopback.
    pub fn health_address(self, address: IpAddr) -> Self {
        Self { health_address: Some(address), ..self }
    }

    /// The port for health and metrics.
    pub fn health_port(self, port: u16) -> Self {
        Self { health_port: Some(port), ..self }
    }

    /// Where to listen for peers, rather than on the port of the member's own address.
    pub fn peer_bind(self, address: SocketAddr) -> Self {
        Self { peer_bind: Some(address), ..self }
    }

    /// How sidecars know each other.
    pub fn security(self, security: Security) -> Self {
        Self { security, ..self }
    }

    /// Raft's timers, the same on all members. Default: [`Timing::Normal`].
    pub fn timing(self, timing: Timing) -> Self {
        Self { timing: Some(timing), ..self }
    }

    /// The time-out of this sidecar's sessions, in milliseconds.
    pub fn session_timeout_ms(self, session_timeout_ms: u64) -> Self {
        Self { session_timeout_ms: Some(session_timeout_ms), ..self }
    }

    /// The application that this sidecar speaks for.
    pub fn application(self, application: Application) -> Self {
        Self { application: Some(application), ..self }
    }

    /// Checks everything and resolves the defaults.
    ///
    /// # Errors
    /// Every problem, by the path of its key in the file form, without a line.
    pub fn build(&self) -> Result<Config, Error> {
        rules::resolve(self).map_err(Error::new)
    }

    /// The same in the file form (S114), whether or not it is valid. A group or member that was declared twice is there
    /// twice, so the file is refused as the builder is.
    pub fn to_yaml(&self) -> String {
        write::to_yaml(self)
    }
}
