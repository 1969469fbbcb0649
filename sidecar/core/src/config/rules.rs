//! What the specification allows, and what a builder that it allows means.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::address::{Address, NAME_RULE, check_name};
use super::builder::{self, Builder, Group, Profile};
use super::error::Problem;
use super::{Application, Config, Listen, Local, ManagementGroup, Member, PartitionGroup, Probe, Security};
use crate::command::{MemberKind, Protocol};
use crate::ids::{GroupName, MemberName, PartitionGroupName};
use crate::limits;

/// Checks a builder whole and resolves its defaults.
pub(super) fn resolve(builder: &Builder) -> Result<Config, Vec<Problem>> {
    let mut rules = Rules { builder, problems: Vec::new() };
    let cluster = builder.cluster.clone().unwrap_or_else(|| super::CLUSTER_NAME_DEFAULT.to_owned());
    rules.name("cluster.name", "the cluster's name", &cluster);
    let members = rules.members();
    let local = rules.local(&members);
    let declared = rules.declared_groups(&members);
    let management = rules.management(&declared, &members, &local);
    let partition_groups = rules.partition_groups(&declared, &members);
    let default_partition_group = rules.default_partition_group(&partition_groups);
    let (api, health, peer) = rules.listeners(&members, &local);
    let application = builder.application.as_ref().and_then(|it| rules.application(it, &partition_groups));
    let config = Config {
        cluster,
        management,
        partition_groups,
        default_partition_group,
        data_directory: rules.path("data-directory", builder.data_directory.as_ref()),
        api,
        api_socket: rules.path("api.socket", builder.api_socket.as_ref()),
        health,
        peer,
        security: rules.security(&members, peer),
        timing: builder.timing.unwrap_or_default(),
        session_timeout_ms: rules.session_timeout_ms(),
        application,
        local,
        members,
    };
    if rules.problems.is_empty() { Ok(config) } else { Err(rules.problems) }
}

/// A group that the builder or a profile declares, and where.
struct Declared {
    key: String,
    name: String,
    group: Group,
    /// The profile that made it.
    by: Option<Profile>,
}

struct Rules<'a> {
    builder: &'a Builder,
    problems: Vec<Problem>,
}

impl Rules<'_> {
    fn invalid(&mut self, key: impl Into<String>, what: impl Into<String>, right: impl Into<String>) {
        self.problems.push(Problem::invalid(key, what, right));
    }

    fn name(&mut self, key: &str, subject: &str, name: &str) {
        if let Err(wrong) = check_name(name) {
            self.invalid(key, format!("{subject} `{name}` {wrong}"), NAME_RULE);
        }
    }

    fn path(&mut self, key: &str, path: Option<&String>) -> Option<PathBuf> {
        if path.is_some_and(String::is_empty) {
            self.invalid(key, "is an empty path", "give a path, or leave the key out for the default");
        }
        path.map(PathBuf::from)
    }

    fn zone(&mut self, key: &str, zone: &str) {
        if zone.len() > limits::NAME_BYTES_MAX || zone.chars().any(char::is_control) {
            self.invalid(key, "is not a zone", "a zone has at most 253 bytes and no control characters");
        }
    }

    fn has(&self, profile: Profile) -> bool {
        self.builder.profiles.contains(&profile)
    }

    fn members(&mut self) -> BTreeMap<MemberName, Member> {
        let mut members = BTreeMap::new();
        let mut addresses: BTreeMap<Address, &str> = BTreeMap::new();
        if self.builder.members.len() > limits::CLUSTER_MEMBERS_MAX {
            let right = format!("a cluster has at most {} members", limits::CLUSTER_MEMBERS_MAX);
            self.invalid("cluster.members", format!("lists {} members", self.builder.members.len()), right);
        }
        for builder::Member { name, kind, address, zone } in &self.builder.members {
            let key = format!("cluster.members.{name}");
            self.name(&key, "the member's name", name);
            self.zone(&format!("{key}.zone"), zone.as_deref().unwrap_or_default());
            let is_local = self.builder.local_member.as_ref() == Some(name);
            let kind = if is_local && self.has(Profile::Client) { MemberKind::Ephemeral } else { *kind };
            let address = self.address(&key, address.as_deref(), kind);
            if let Some(other) = address.as_ref().and_then(|address| addresses.insert(address.clone(), name)) {
                let what = format!("the members `{other}` and `{name}` have the same address");
                self.invalid(format!("{key}.address"), what, "give each member an address of its own");
            }
            let member = Member { kind, address, zone: zone.clone().unwrap_or_default() };
            if members.insert(MemberName(name.clone()), member).is_some() {
                self.invalid(
                    key,
                    format!("the member `{name}` is declared twice"),
                    "give each member a name of its own",
                );
            }
        }
        members
    }

    fn address(&mut self, key: &str, address: Option<&str>, kind: MemberKind) -> Option<Address> {
        let key = format!("{key}.address");
        match address.map(str::parse) {
            Some(Ok(address)) => Some(address),
            Some(Err(wrong)) => {
                self.invalid(key, wrong, "an address is `host:port`, such as `localhost:5001` or `[::1]:5001`");
                None
            }
            None => {
                if kind == MemberKind::Persistent {
                    self.invalid(key, "is missing", "a persistent member has an address, `host:port`");
                }
                None
            }
        }
    }

    fn local(&mut self, members: &BTreeMap<MemberName, Member>) -> Local {
        let Some(name) = &self.builder.local_member else {
            let right = "name the member that this sidecar is, in the file or with `--local-member`";
            self.invalid("cluster.local-member.name", "is missing", right);
            return Local {
                name: MemberName::default(),
                kind: MemberKind::Ephemeral,
                address: None,
                zone: String::new(),
            };
        };
        let declared = members.get(&MemberName(name.clone()));
        if declared.is_none() {
            self.name("cluster.local-member.name", "the local member's name", name);
        }
        self.zone("cluster.local-member.zone", self.builder.local_zone.as_deref().unwrap_or_default());
        let (kind, address, zone) = match declared {
            Some(Member { kind, address, zone }) => (*kind, address.clone(), zone.clone()),
            None => (MemberKind::Ephemeral, None, String::new()),
        };
        let zone = self.builder.local_zone.clone().unwrap_or(zone);
        Local { name: MemberName(name.clone()), kind, address, zone }
    }

    /// The groups that are declared, then those of the profiles, in their order (S128). The management group is among them.
    fn declared_groups(&mut self, members: &BTreeMap<MemberName, Member>) -> Vec<Declared> {
        let mut groups = Vec::new();
        if let Some(group) = self.builder.management.clone() {
            let name = PartitionGroupName::SYSTEM.to_owned();
            groups.push(Declared { key: "management-group".to_owned(), name, group, by: None });
        }
        for (name, group) in &self.builder.partition_groups {
            let key = format!("partition-groups.{name}");
            groups.push(Declared { key, name: name.clone(), group: group.clone(), by: None });
        }
        let mut before = BTreeSet::new();
        for (i, profile) in self.builder.profiles.iter().enumerate() {
            let key = format!("profiles[{i}]");
            if !before.insert(*profile) {
                let what = format!("the profile `{}` is given twice", profile.label());
                self.invalid(key, what, "give each profile once");
                continue;
            }
            match profile {
                Profile::Consensus | Profile::Client if self.has(Profile::Consensus) && self.has(Profile::Client) => {
                    if before.contains(&Profile::Consensus) && before.contains(&Profile::Client) {
                        let what = "the profiles `client` and `consensus` contradict each other";
                        self.invalid(key, what, "a client replicates nothing: give one of the two");
                    }
                }
                Profile::Consensus => self.consensus(&key, members, &mut groups),
                Profile::DataGrid => {
                    let right = "use the profile `consensus`, whose groups are Raft groups";
                    self.problems.push(Problem::not_in_this_version(key, "the profile `data-grid`", right));
                }
                // What it does to the local member is done where members are resolved.
                Profile::Client => {}
            }
        }
        groups
    }

    /// S124.
    fn consensus(&mut self, key: &str, members: &BTreeMap<MemberName, Member>, groups: &mut Vec<Declared>) {
        let voters: Vec<&str> = members
            .iter()
            .filter(|(_, member)| member.kind == MemberKind::Persistent)
            .map(|(name, _)| name.as_str())
            .collect();
        if voters.is_empty() {
            let what = "the profile `consensus` finds no persistent member to replicate on";
            self.invalid(key, what, "declare members of type `persistent` under `cluster.members`");
        }
        let group = Group::raft(voters);
        for (name, group) in [(PartitionGroupName::SYSTEM, group.clone()), (super::CONSENSUS_GROUP, group)] {
            groups.push(Declared { key: key.to_owned(), name: name.to_owned(), group, by: Some(Profile::Consensus) });
        }
    }

    fn management(
        &mut self,
        declared: &[Declared],
        members: &BTreeMap<MemberName, Member>,
        local: &Local,
    ) -> Option<ManagementGroup> {
        let mut management = None;
        for it in declared.iter().filter(|it| it.name == PartitionGroupName::SYSTEM) {
            match (&management, it.by) {
                (_, None) if it.key != "management-group" => {
                    let what = "the name `system` is reserved for the management group";
                    self.invalid(&it.key, what, "give this partition group another name");
                }
                (Some(_), Some(by)) => {
                    let what = format!("there is a group `system` already, and the profile `{}` makes one", by.label());
                    self.invalid("management-group", what, "leave out one of the two");
                }
                _ => {
                    let partitions = it.group.partitions.unwrap_or(1);
                    if partitions != 1 {
                        let what = format!("the management group has {partitions} partitions");
                        self.invalid(format!("{}.partitions", it.key), what, "the management group has 1 partition");
                    }
                    management = Some(ManagementGroup { members: self.replicas(it, members) });
                }
            }
        }
        let grid_would_make_one = self.has(Profile::DataGrid);
        let contradiction = self.has(Profile::Client) && self.has(Profile::Consensus);
        let alone = members.keys().chain([&local.name]).collect::<BTreeSet<_>>().len() <= 1;
        let has_groups = !self.builder.partition_groups.is_empty();
        if management.is_none() && has_groups && alone && !grid_would_make_one && !contradiction {
            let what =
                "is missing: partition groups need one, and this cluster of one has no other member to find it on";
            self.invalid("management-group", what, "add a `management-group`, or the profile `consensus`");
        }
        management
    }

    fn partition_groups(
        &mut self,
        declared: &[Declared],
        members: &BTreeMap<MemberName, Member>,
    ) -> BTreeMap<PartitionGroupName, PartitionGroup> {
        let mut groups: BTreeMap<PartitionGroupName, PartitionGroup> = BTreeMap::new();
        for it in declared.iter().filter(|it| it.name != PartitionGroupName::SYSTEM) {
            let name = PartitionGroupName(it.name.clone());
            if groups.contains_key(&name) {
                let what = match it.by {
                    Some(by) => format!(
                        "there is a partition group `{name}` already, and the profile `{}` makes one",
                        by.label()
                    ),
                    None => format!("the partition group `{name}` is declared twice"),
                };
                self.invalid(format!("partition-groups.{name}"), what, "give each group a name of its own");
                continue;
            }
            self.name(&it.key, "the partition group's name", &it.name);
            let partitions = it.group.partitions.unwrap_or(super::PARTITIONS_DEFAULT);
            if !(1..=limits::PARTITIONS_MAX).contains(&partitions) {
                let right = format!("a partition group has 1 to {} partitions", limits::PARTITIONS_MAX);
                self.invalid(format!("{}.partitions", it.key), format!("{partitions} partitions are asked for"), right);
            }
            let members = self.replicas(it, members);
            groups.insert(name, PartitionGroup { protocol: it.group.protocol, partitions, members });
        }
        if groups.len() > limits::PARTITION_GROUPS_MAX {
            let right = format!("a cluster has at most {} partition groups", limits::PARTITION_GROUPS_MAX);
            self.invalid("partition-groups", format!("{} partition groups are declared", groups.len()), right);
        }
        groups
    }

    /// The members of a Raft group, each of which must be declared and persistent (S105, S107, D18).
    fn replicas(&mut self, declared: &Declared, members: &BTreeMap<MemberName, Member>) -> Vec<MemberName> {
        let Declared { key, name: group_name, group: Group { protocol, partitions: _, members: listed }, by } =
            declared;
        if *protocol == Protocol::PrimaryBackup {
            let right = "use `raft`, with a list of `members`";
            self.problems.push(Problem::not_in_this_version(format!("{key}.type"), "the type `primary-backup`", right));
            return Vec::new();
        }
        if listed.is_empty() && by.is_none() {
            let what = format!("is missing: the Raft group `{group_name}` lists no members");
            let right = "list the persistent members that replicate it; a member never forms a group from what it merely discovers";
            self.invalid(format!("{key}.members"), what, right);
        }
        let mut seen = BTreeSet::new();
        for (i, name) in listed.iter().enumerate() {
            let key = format!("{key}.members[{i}]");
            if !seen.insert(name) {
                self.invalid(&key, format!("the member `{name}` is listed twice"), "list each member once");
            } else {
                self.replica(key, group_name, name, members.get(&MemberName(name.clone())), members);
            }
        }
        listed.iter().cloned().map(MemberName).collect()
    }

    fn replica(
        &mut self,
        key: String,
        group: &str,
        name: &str,
        member: Option<&Member>,
        members: &BTreeMap<MemberName, Member>,
    ) {
        let is_client = self.has(Profile::Client) && self.builder.local_member.as_deref() == Some(name);
        match member {
            None => {
                let known: Vec<&str> = members.keys().map(MemberName::as_str).collect();
                let right = match super::keys::nearest(name, &known) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => "declare it under `cluster.members`".to_owned(),
                };
                self.invalid(
                    key,
                    format!("the Raft group `{group}` lists `{name}`, which is not a declared member"),
                    right,
                );
            }
            Some(_) if is_client => {
                let what = format!(
                    "the Raft group `{group}` lists the local member `{name}`, which the profile `client` makes ephemeral"
                );
                self.invalid(key, what, "leave out the profile `client`, or this member of the list");
            }
            Some(Member { kind: MemberKind::Ephemeral, .. }) => {
                let what = format!("the Raft group `{group}` lists the ephemeral member `{name}`");
                self.invalid(key, what, "only members of type `persistent` replicate Raft groups");
            }
            Some(Member { kind: MemberKind::Persistent, .. }) => {}
        }
    }

    fn default_partition_group(
        &mut self,
        groups: &BTreeMap<PartitionGroupName, PartitionGroup>,
    ) -> Option<PartitionGroupName> {
        let name = PartitionGroupName(self.builder.default_partition_group.clone()?);
        self.partition_group_named("default-partition-group", &name, groups);
        Some(name)
    }

    /// A name that refers to a partition group. A member that declares none takes those that exist elsewhere (S91), so only
    /// then the name cannot be checked here.
    fn partition_group_named(
        &mut self,
        key: &str,
        name: &PartitionGroupName,
        groups: &BTreeMap<PartitionGroupName, PartitionGroup>,
    ) {
        if name.is_system() {
            let what = "the name `system` is reserved for the management group, which holds no primitives";
            self.invalid(key, what, "name a partition group");
        } else if !groups.is_empty() && !groups.contains_key(name) && !self.has(Profile::DataGrid) {
            let known: Vec<&str> = groups.keys().map(PartitionGroupName::as_str).collect();
            let right = super::keys::instead_of(name.as_str(), &known);
            self.invalid(key, format!("there is no partition group `{name}`"), right);
        } else {
            self.name(key, "the partition group's name", name.as_str());
        }
    }

    fn listeners(&mut self, members: &BTreeMap<MemberName, Member>, local: &Local) -> (Listen, Listen, Option<Listen>) {
        let builder = self.builder;
        // A member that is not declared comes after all that are.
        let position = members.keys().position(|name| *name == local.name).unwrap_or(members.len());
        let step = u16::try_from(position).unwrap_or(u16::MAX).saturating_mul(super::API_PORT_STEP);
        let api_port = builder.api_port.unwrap_or(super::API_PORT_FIRST.saturating_add(step));
        let health_port = builder.health_port.unwrap_or(api_port.saturating_add(super::HEALTH_PORT_OFFSET));
        let listen = |address: Option<_>, port| match address {
            Some(ip) => Listen::At(SocketAddr::new(ip, port)),
            None => Listen::Loopback(port),
        };
        let api = listen(builder.api_address, api_port);
        let health = listen(builder.health_address, health_port);
        if !api.is_loopback() {
            let what = "the application's API would listen beyond this machine, where nobody proves who they are";
            self.invalid("api.address", what, "use `loopback`, or one loopback address");
        }
        let peer = builder.peer_bind.map(Listen::At).or_else(|| local.address.as_ref().map(peer_listen));
        let ports = [("api.port", Some(api)), ("health.port", Some(health)), ("peer.bind", peer)];
        for (i, (key, listen)) in ports.iter().enumerate() {
            let Some(listen) = *listen else { continue };
            let port = listen.port();
            if port == 0 {
                self.invalid(*key, "the port is 0", "use a port from 1 to 65535");
            } else if let Some((other, _)) =
                ports.iter().take(i).find(|(_, other)| other.map(Listen::port) == Some(port))
            {
                self.invalid(*key, format!("port {port} is taken by `{other}` already"), "use another port");
            } else if let Some(other) = neighbour_at(listen, members, local) {
                self.invalid(
                    *key,
                    format!("port {port} is taken by the address of `{other}` already"),
                    "use another port",
                );
            }
        }
        (api, health, peer)
    }

    fn security(&mut self, members: &BTreeMap<MemberName, Member>, peer: Option<Listen>) -> Security {
        match &self.builder.security {
            builder::Security::PlaintextAnywhere => Security::PlaintextAnywhere,
            builder::Security::PlaintextOnLoopback => {
                let right = "give `ca`, `certificate` and `key`, or `plaintext: true` if everybody on that network may be trusted";
                for (name, member) in members {
                    if let Some(address) = member.address.as_ref().filter(|address| !address.is_loopback()) {
                        let what =
                            format!("there are no certificates, and the address {address} of `{name}` is not loopback");
                        self.invalid("security", what, right);
                    }
                }
                if let Some(bind) = self.builder.peer_bind.filter(|_| peer.is_some_and(|peer| !peer.is_loopback())) {
                    let what =
                        format!("there are no certificates, and the address {bind} of `peer.bind` is not loopback");
                    self.invalid("security", what, right);
                }
                Security::PlaintextOnLoopback
            }
            builder::Security::Certificates { ca, certificate, key } => {
                let mut path =
                    |name: &str, path| self.path(&format!("security.{name}"), Some(path)).unwrap_or_default();
                Security::Certificates {
                    ca: path("ca", ca),
                    certificate: path("certificate", certificate),
                    key: path("key", key),
                }
            }
        }
    }

    fn session_timeout_ms(&mut self) -> u64 {
        let range = limits::SESSION_TTL_MS_MIN..=limits::SESSION_TTL_MS_MAX;
        let timeout = self.builder.session_timeout_ms.unwrap_or(limits::SESSION_TTL_MS_DEFAULT);
        self.in_range("session-timeout-ms", timeout, range);
        timeout
    }

    fn in_range(&mut self, key: &str, number: u64, range: std::ops::RangeInclusive<u64>) {
        if !range.contains(&number) {
            let right = format!("it is a whole number from {} to {}", range.start(), range.end());
            self.invalid(key, format!("has the number {number}"), right);
        }
    }

    fn application(
        &mut self,
        application: &builder::Application,
        groups: &BTreeMap<PartitionGroupName, PartitionGroup>,
    ) -> Option<Application> {
        let builder::Application { group, partition_group, probe, interval_ms, failures, metadata } = application;
        self.name("application.group", "the group's name", group);
        let partition_group = partition_group.clone().map(PartitionGroupName);
        if let Some(name) = &partition_group {
            self.partition_group_named("application.partition-group", name, groups);
        }
        let interval_ms = interval_ms.unwrap_or(super::PROBE_INTERVAL_MS_DEFAULT);
        self.in_range("application.interval-ms", interval_ms, super::PROBE_INTERVAL_MS);
        let failures = failures.unwrap_or(super::PROBE_FAILURES_DEFAULT);
        self.in_range("application.failures", u64::from(failures), super::PROBE_FAILURES);
        let bytes: usize = metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
        if bytes > limits::METADATA_BYTES_MAX {
            let right = format!("keys and values together have at most {} bytes", limits::METADATA_BYTES_MAX);
            self.invalid("application.metadata", format!("has {bytes} bytes"), right);
        }
        Some(Application {
            group: GroupName(group.clone()),
            partition_group,
            probe: self.probe(probe)?,
            interval_ms,
            failures,
            metadata: metadata.clone(),
        })
    }

    fn probe(&mut self, probe: &builder::Probe) -> Option<Probe> {
        let parsed = match probe {
            builder::Probe::Http(url) => {
                http(url).map_err(|wrong| ("http", wrong, "use an address such as `http://127.0.0.1:8080/healthz`"))
            }
            builder::Probe::Tcp(address) => address
                .parse()
                .map(Probe::Tcp)
                .map_err(|wrong| ("tcp", wrong, "use `host:port`, such as `127.0.0.1:8080`")),
            builder::Probe::Socket(path) if path.is_empty() => {
                Err(("socket", "is an empty path".to_owned(), "give the path of the application's Unix socket"))
            }
            builder::Probe::Socket(path) => Ok(Probe::Socket(PathBuf::from(path))),
        };
        parsed.map_err(|(key, wrong, right)| self.invalid(format!("application.probe.{key}"), wrong, right)).ok()
    }
}

/// Another member on this machine that listens there as well. (One with this member's very address is refused for that.)
fn neighbour_at<'a>(
    listen: Listen,
    members: &'a BTreeMap<MemberName, Member>,
    local: &Local,
) -> Option<&'a MemberName> {
    let is_other = |name: &MemberName, member: &Member| *name != local.name && member.address != local.address;
    let is_there = |member: &Member| {
        member.address.as_ref().is_some_and(|it| it.is_loopback() && listen.overlaps(peer_listen(it)))
    };
    members.iter().find(|(name, member)| is_other(name, member) && is_there(member)).map(|(name, _)| name)
}

/// The port of a member's own address: on loopback if that is where the address is, else everywhere, because the host may
/// be a name of the network that this machine does not have.
fn peer_listen(address: &Address) -> Listen {
    match address.host.parse::<IpAddr>() {
        Ok(ip) if ip.is_loopback() => Listen::At(SocketAddr::new(ip, address.port)),
        _ if address.is_loopback() => Listen::Loopback(address.port),
        _ => Listen::Wildcard(address.port),
    }
}

fn http(url: &str) -> Result<Probe, String> {
    let rest = url.strip_prefix("http://").ok_or_else(|| format!("`{url}` is not a plain HTTP address"))?;
    let (authority, path) = rest.find(['/', '?']).map_or((rest, ""), |at| rest.split_at(at));
    let port_is_given = authority.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    let address = if port_is_given { authority.parse() } else { format!("{authority}:80").parse() }?;
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    if path.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'#') {
        return Err(format!("`{url}` has a character that a path must not have"));
    }
    Ok(Probe::Http { address, path })
}
