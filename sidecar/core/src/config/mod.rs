//! One sidecar's configuration: where it comes from, what is allowed, and what it means.
//!
//! | stage | where | gives |
//! |---|---|---|
//! | text to a tree with line numbers | `tree` | syntax errors |
//! | tree to [`Builder`], key by key | `file`, `keys` | unknown and duplicate keys, wrong types |
//! | [`Builder`] to [`Config`] | `rules` | everything that the specification forbids, all of it at once |
//! | [`Builder`] to text | `write` | the equivalent file (S114) |
//!
//! A file, the operator and local clusters all pass through the same [`Builder`] (D21, S82, S98), so a rule stands in one
//! place. Nothing here reads the environment: paths that depend on it are computed from what the caller gives.

pub mod builder;

mod address;
mod error;
mod file;
mod keys;
mod reader;
mod rules;
#[cfg(test)]
mod tests;
mod tree;
mod write;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

pub use address::{Address, check_name};
pub use builder::{Builder, Timing};
pub use error::{Error, Problem};
pub use keys::TABLES;

use crate::command::{MemberKind, Protocol};
use crate::ids::{MemberName, PartitionGroupName};

/// The partitions of a partition group that states no number, and of the group `raft` of the profile `consensus`. Few,
/// because each costs CPU on every replica: on two cores 16 of them leave a third of the throughput of one.
pub const PARTITIONS_DEFAULT: u32 = 3;
/// The partition group that the profile `consensus` makes (S124).
pub const CONSENSUS_GROUP: &str = "raft";
/// The application API's port of the first member by name; each next member's default is [`API_PORT_STEP`] higher.
pub const API_PORT_FIRST: u16 = 7300;
/// See [`API_PORT_FIRST`]: leaves room for a member's peer and health ports.
pub const API_PORT_STEP: u16 = 10;
/// The health port's default is this much above the application API's.
pub const HEALTH_PORT_OFFSET: u16 = 2;
/// How often an application is probed when the file does not say (D20).
pub const PROBE_INTERVAL_MS_DEFAULT: u64 = 500;
/// Bounds of the probe interval: a probe is a connection each time; beyond a minute it tells nothing.
pub const PROBE_INTERVAL_MS: std::ops::RangeInclusive<u64> = 50..=60_000;
/// Probes that must fail in a row before the application leaves its group, when the file does not say.
pub const PROBE_FAILURES_DEFAULT: u32 = 2;
/// Bounds of the number of failed probes.
pub const PROBE_FAILURES: std::ops::RangeInclusive<u64> = 1..=100;
/// The cluster's name when the file does not say.
pub const CLUSTER_NAME_DEFAULT: &str = "default";

/// A validated configuration with its defaults resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The cluster's name.
    pub cluster: String,
    /// This sidecar.
    pub local: Local,
    /// All declared members by name, also this one if it is declared.
    pub members: BTreeMap<MemberName, Member>,
    /// `None`: another member has it, or the sidecar waits for it (S96, D22).
    pub management: Option<ManagementGroup>,
    /// The partition groups that this file declares, by name. Never `system`.
    pub partition_groups: BTreeMap<PartitionGroupName, PartitionGroup>,
    /// Where primitives without a partition group go (D15). `None` with one group: that one.
    pub default_partition_group: Option<PartitionGroupName>,
    /// `None`: [`Config::default_data_directory`].
    pub data_directory: Option<PathBuf>,
    /// Where the application's API listens over TCP: always loopback.
    pub api: Listen,
    /// The application API's Unix socket. `None`: see [`Config::api_socket_in`].
    pub api_socket: Option<PathBuf>,
    /// Where health and metrics listen.
    pub health: Listen,
    /// Where peers connect. `None`: a member without an address, which nobody dials.
    pub peer: Option<Listen>,
    /// How this sidecar and its peers know each other.
    pub security: Security,
    /// Raft's timers; the same on all members that vote.
    pub timing: Timing,
    /// The time-out of this sidecar's sessions, in milliseconds.
    pub session_timeout_ms: u64,
    /// The application that this sidecar joins to a group by probing it (D20).
    pub application: Option<Application>,
}

/// This sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// Its name.
    pub name: MemberName,
    /// Persistent only if it is declared as such and the profile `client` is not given.
    pub kind: MemberKind,
    /// Where others reach it.
    pub address: Option<Address>,
    /// Its failure domain; empty if unknown.
    pub zone: String,
}

/// A declared member (S111).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Whether it may vote.
    pub kind: MemberKind,
    /// Where others reach it; always there for a persistent member.
    pub address: Option<Address>,
    /// Its failure domain; empty if unknown.
    pub zone: String,
}

/// The management group, as the file lists it. It is named `system`, has one partition, and is Raft in this version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagementGroup {
    /// Its members in the order of the list; the first one forms it.
    pub members: Vec<MemberName>,
}

/// A partition group, as the file declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionGroup {
    /// How it replicates.
    pub protocol: Protocol,
    /// From 1 to [`crate::limits::PARTITIONS_MAX`].
    pub partitions: u32,
    /// On which members, in the order of the list (S105).
    pub members: Vec<MemberName>,
}

/// Where to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// On 127.0.0.1 and, where the machine has it, on ::1.
    Loopback(u16),
    /// On every address of the machine.
    Wildcard(u16),
    /// On exactly this one.
    At(SocketAddr),
}

impl Listen {
    /// The port.
    pub fn port(self) -> u16 {
        match self {
            Self::Loopback(port) | Self::Wildcard(port) => port,
            Self::At(address) => address.port(),
        }
    }

    /// What to bind, in this order. One that fails because the machine lacks the address family, or because an earlier
    /// one covers it already, may be left out as long as another one is bound.
    pub fn sockets(self) -> Vec<SocketAddr> {
        let at = |ip: IpAddr, port| SocketAddr::new(ip, port);
        match self {
            Self::Loopback(port) => vec![at(Ipv4Addr::LOCALHOST.into(), port), at(Ipv6Addr::LOCALHOST.into(), port)],
            Self::Wildcard(port) => {
                vec![at(Ipv6Addr::UNSPECIFIED.into(), port), at(Ipv4Addr::UNSPECIFIED.into(), port)]
            }
            Self::At(address) => vec![address],
        }
    }

    /// Whether both cannot be bound on one machine.
    pub fn overlaps(self, other: Self) -> bool {
        let takes = |a: IpAddr, b: IpAddr| a == b || a.is_unspecified();
        let pairs = self.sockets().into_iter().flat_map(|a| other.sockets().into_iter().map(move |b| (a, b)));
        self.port() == other.port() && pairs.into_iter().any(|(a, b)| takes(a.ip(), b.ip()) || takes(b.ip(), a.ip()))
    }

    /// Whether only programs of this machine can connect.
    pub fn is_loopback(self) -> bool {
        match self {
            Self::Loopback(_) => true,
            Self::Wildcard(_) => false,
            Self::At(address) => address.ip().is_loopback(),
        }
    }
}

/// How sidecars know each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Security {
    /// No certificates: plain connections, from and to loopback addresses only.
    #[default]
    PlaintextOnLoopback,
    /// No certificates, and told by name that plain connections may leave the machine.
    PlaintextAnywhere,
    /// Mutual TLS. Paths of PEM files.
    Certificates {
        /// The authority that signed everybody's certificate.
        ca: PathBuf,
        /// This sidecar's certificate.
        certificate: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
}

/// An application that the sidecar joins to a group while its probe succeeds (D20).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application {
    /// The group.
    pub group: crate::ids::GroupName,
    /// Where the group is; `None`: the cluster's default.
    pub partition_group: Option<PartitionGroupName>,
    /// How to know that the application is there.
    pub probe: Probe,
    /// How often, in milliseconds.
    pub interval_ms: u64,
    /// After how many failures in a row it is gone.
    pub failures: u32,
    /// The metadata of its membership.
    pub metadata: BTreeMap<String, String>,
}

/// How to know that an application is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A GET over plain HTTP that answers 2xx or 3xx.
    Http {
        /// Where.
        address: Address,
        /// With its leading slash, and with the query if there is one.
        path: String,
    },
    /// A TCP connection that is accepted.
    Tcp(Address),
    /// A connection to a Unix socket that is accepted.
    Socket(PathBuf),
}

/// What the command line says against the file. What is `None` stays as the file has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--local-member`: who this sidecar is. The file's own zone for its local member then counts no more.
    pub local_member: Option<String>,
    /// `--zone`: this sidecar's failure domain.
    pub zone: Option<String>,
    /// `--data-directory`.
    pub data_directory: Option<String>,
    /// `--api-port`.
    pub api_port: Option<u16>,
    /// `--api-socket`.
    pub api_socket: Option<String>,
    /// `--health-address`.
    pub health_address: Option<IpAddr>,
    /// `--health-port`.
    pub health_port: Option<u16>,
    /// `--peer-bind`.
    pub peer_bind: Option<SocketAddr>,
}

impl Config {
    /// Reads the file form (section 14 of the specification) and validates it whole.
    ///
    /// # Errors
    /// Every problem that the text has, with its line and key. A text that is not YAML has exactly one.
    pub fn from_yaml(text: &str, overrides: &Overrides) -> Result<Self, Error> {
        let file::Read { builder, problems, mut places, spoiled } = file::read(text)?;
        let builder = file::apply(builder, overrides, &mut places);
        let found = match rules::resolve(&builder) {
            Ok(config) if problems.is_empty() => return Ok(config),
            Ok(_) => Vec::new(),
            Err(found) => found,
        };
        Err(Error::new(places.locate(problems, found, &spoiled)))
    }

    /// Where the data goes when neither file nor command line say: below `home`, by cluster and member. `home` is
    /// `$COTERIE_HOME`, or `~/.local/share/coterie`.
    pub fn default_data_directory(&self, home: &Path) -> PathBuf {
        home.join(&self.cluster).join(self.local.name.as_str())
    }

    /// The application API's Unix socket, given the data directory that is used.
    pub fn api_socket_in(&self, data_directory: &Path) -> PathBuf {
        self.api_socket.clone().unwrap_or_else(|| data_directory.join("coterie.sock"))
    }

    /// The partition group of primitives that name none, as far as this file can tell (D15).
    pub fn sole_or_default_partition_group(&self) -> Option<&PartitionGroupName> {
        self.default_partition_group.as_ref().or_else(|| {
            let mut names = self.partition_groups.keys();
            names.next().filter(|_| names.next().is_none())
        })
    }
}
