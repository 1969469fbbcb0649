//! The file form, key by key, into the [`Builder`].

use std::net::{IpAddr, SocketAddr};

use super::builder::{Application, Builder, Group, Member, Probe, Profile, Security, Timing};
use super::error::Error;
use super::reader::{Field, Places, Reader, Table};
use super::write::{kind_label, protocol_label};
use super::{Overrides, keys, tree};
use crate::command::{MemberKind, Protocol};
use crate::ids::PartitionGroupName;
use crate::limits;

/// What a text says.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) builder: Builder,
    pub(super) problems: Vec<super::Problem>,
    pub(super) places: Places,
    pub(super) spoiled: Vec<String>,
}

/// Reads a text. Values that cannot be read are left out of the builder and named in `problems`.
pub(super) fn read(text: &str) -> Result<Read, Error> {
    let root = tree::parse(text)?;
    let mut reader = Reader::default();
    let root = reader.table(&Field { path: String::new(), node: &root }, "");
    let mut builder = Builder::new();
    cluster(&mut reader, &root, &mut builder);
    groups(&mut reader, &root, &mut builder);
    listeners(&mut reader, &root, &mut builder);
    if let Some(field) = root.get("security") {
        builder.security = security(&mut reader, &field);
    }
    if let Some(field) = root.get("application") {
        builder.application = application(&mut reader, &field);
    }
    reader.places.set_root(root.line);
    let Reader { places, problems, spoiled } = reader;
    Ok(Read { builder, problems, places, spoiled })
}

/// Puts the command line over the file.
pub(super) fn apply(mut builder: Builder, overrides: &Overrides, places: &mut Places) -> Builder {
    let Overrides { local_member, zone, data_directory, api_port, api_socket, health_address, health_port, peer_bind } =
        overrides.clone();
    if let Some(name) = local_member {
        places.set_by_option("cluster.local-member.name", "--local-member");
        if builder.local_member.as_ref() != Some(&name) {
            builder.local_zone = None;
        }
        builder.local_member = Some(name);
    }
    over(&mut builder.local_zone, zone, places, "cluster.local-member.zone", "--zone");
    over(&mut builder.data_directory, data_directory, places, "data-directory", "--data-directory");
    over(&mut builder.api_port, api_port, places, "api.port", "--api-port");
    over(&mut builder.api_socket, api_socket, places, "api.socket", "--api-socket");
    over(&mut builder.health_address, health_address, places, "health.address", "--health-address");
    over(&mut builder.health_port, health_port, places, "health.port", "--health-port");
    over(&mut builder.peer_bind, peer_bind, places, "peer.bind", "--peer-bind");
    builder
}

fn over<T>(slot: &mut Option<T>, value: Option<T>, places: &mut Places, path: &'static str, option: &'static str) {
    if value.is_some() {
        *slot = value;
        places.set_by_option(path, option);
    }
}

fn cluster(reader: &mut Reader, root: &Table<'_>, builder: &mut Builder) {
    let Some(field) = root.get("cluster") else {
        return;
    };
    let table = reader.table(&field, "cluster");
    builder.cluster = table.get("name").and_then(|field| reader.text(&field));
    if let Some(field) = table.get("local-member") {
        let local = reader.table(&field, "cluster.local-member");
        builder.local_member = local.get("name").and_then(|field| reader.text(&field));
        builder.local_zone = local.get("zone").and_then(|field| reader.text(&field));
    }
    if let Some(field) = table.get("members") {
        for (name, field) in reader.entries(&field, || "it is a table of members by name".to_owned()) {
            let member = member(reader, name, &field);
            builder.members.push(member);
        }
    }
}

fn member(reader: &mut Reader, name: &str, field: &Field<'_>) -> Member {
    let table = reader.table(field, "cluster.members.<name>");
    let kinds = [MemberKind::Persistent, MemberKind::Ephemeral].map(|kind| (kind_label(kind), kind));
    let kind = match table.get("type") {
        Some(field) => reader.word(&field, &kinds),
        None => {
            reader.missing(&table, "type", "use `persistent` or `ephemeral`");
            None
        }
    };
    Member {
        name: name.to_owned(),
        // A member whose type cannot be read counts as what most members are, so that this one mistake is named once.
        kind: kind.unwrap_or(MemberKind::Persistent),
        address: table.get("address").and_then(|field| reader.text(&field)),
        zone: table.get("zone").and_then(|field| reader.text(&field)),
    }
}

fn groups(reader: &mut Reader, root: &Table<'_>, builder: &mut Builder) {
    if let Some(field) = root.get("profiles") {
        let words = Profile::ALL.map(|profile| (profile.label(), profile));
        let listed = reader.list(&field, "profiles");
        let texts = listed.iter().filter(|(text, _)| text.is_some());
        builder.profiles = texts.filter_map(|(_, field)| reader.word(field, &words)).collect();
        if builder.profiles.len() < listed.len() {
            // The one that is not known may have made these, and the others are not numbered as in the file.
            reader.spoiled.extend(["profiles", "management-group", "default-partition-group"].map(str::to_owned));
        }
    }
    if let Some(field) = root.get("management-group") {
        let table = reader.table(&field, "management-group");
        builder.management = Some(group(reader, &table));
        if let Some(field) = table.get("name")
            && let Some(name) = reader.text(&field)
            && name != PartitionGroupName::SYSTEM
        {
            let what = format!("`{name}` is not the management group's name");
            reader.refuse(&field, what, "the management group is always named `system`, which is reserved for it");
        }
    }
    if let Some(field) = root.get("partition-groups") {
        for (name, field) in reader.entries(&field, || "it is a table of partition groups by name".to_owned()) {
            let table = reader.table(&field, "partition-groups.<name>");
            let group = group(reader, &table);
            builder.partition_groups.push((name.to_owned(), group));
        }
    }
    builder.default_partition_group = root.get("default-partition-group").and_then(|field| reader.text(&field));
}

fn group(reader: &mut Reader, table: &Table<'_>) -> Group {
    let protocols = [Protocol::Raft, Protocol::PrimaryBackup].map(|protocol| (protocol_label(protocol), protocol));
    let protocol = match table.get("type") {
        Some(field) => reader.word(&field, &protocols),
        None => {
            reader.missing(table, "type", "the type fixes the replication protocol: use `raft`");
            None
        }
    };
    let partitions =
        table.get("partitions").and_then(|field| reader.number(&field, 1..=u64::from(limits::PARTITIONS_MAX)));
    let members = table.get("members").map(|field| reader.list(&field, "member names")).unwrap_or_default();
    Group {
        // What is wrong with a type is said already; the rest of the group is checked as the protocol that there is.
        protocol: protocol.unwrap_or(Protocol::Raft),
        partitions: partitions.and_then(|partitions| u32::try_from(partitions).ok()),
        members: members.into_iter().map(|(name, _)| name.unwrap_or_default()).collect(),
    }
}

fn listeners(reader: &mut Reader, root: &Table<'_>, builder: &mut Builder) {
    builder.data_directory = root.get("data-directory").and_then(|field| reader.text(&field));
    let timings = Timing::ALL.map(|timing| (timing.label(), timing));
    builder.timing = root.get("timing").and_then(|field| reader.word(&field, &timings));
    let ttl = limits::SESSION_TTL_MS_MIN..=limits::SESSION_TTL_MS_MAX;
    builder.session_timeout_ms = root.get("session-timeout-ms").and_then(|field| reader.number(&field, ttl));
    if let Some(field) = root.get("api") {
        let api = reader.table(&field, "api");
        builder.api_port = api.get("port").and_then(|field| reader.port(&field));
        builder.api_socket = api.get("socket").and_then(|field| reader.text(&field));
        builder.api_address = api.get("address").and_then(|field| ip_or_loopback(reader, &field));
    }
    if let Some(field) = root.get("health") {
        let health = reader.table(&field, "health");
        builder.health_address = health.get("address").and_then(|field| ip_or_loopback(reader, &field));
        builder.health_port = health.get("port").and_then(|field| reader.port(&field));
    }
    if let Some(field) = root.get("peer") {
        let peer = reader.table(&field, "peer");
        builder.peer_bind = peer.get("bind").and_then(|field| bind(reader, &field));
    }
}

/// `loopback` is what holds when nothing is said.
fn ip_or_loopback(reader: &mut Reader, field: &Field<'_>) -> Option<IpAddr> {
    let text = reader.text(field)?;
    if text == "loopback" {
        return None;
    }
    let ip = text.parse().ok();
    if ip.is_none() {
        reader.refuse(
            field,
            format!("`{text}` is not an IP address"),
            "use `loopback` or an IP address such as \"0.0.0.0\"",
        );
    }
    ip
}

fn bind(reader: &mut Reader, field: &Field<'_>) -> Option<SocketAddr> {
    let text = reader.text(field)?;
    let address = text.parse().ok().filter(|address: &SocketAddr| address.port() != 0);
    if address.is_none() {
        let right = "use an IP address and a port, such as \"0.0.0.0:7301\"";
        reader.refuse(field, format!("`{text}` is not an address to listen on"), right);
    }
    address
}

fn security(reader: &mut Reader, field: &Field<'_>) -> Security {
    let table = reader.table(field, "security");
    let files = ["ca", "certificate", "key"].map(|key| table.get(key).and_then(|field| reader.text(&field)));
    let given = ["ca", "certificate", "key"].map(|key| table.get(key).is_some());
    let plaintext = table.get("plaintext").and_then(|field| Some((reader.flag(&field)?, field)));
    if given.contains(&true) {
        for (key, given) in ["ca", "certificate", "key"].iter().zip(given) {
            if !given {
                reader.missing(&table, key, "certificates need `ca`, `certificate` and `key`, all three");
            }
        }
        if let Some((true, field)) = &plaintext {
            reader.refuse(field, "contradicts the certificates", "leave out `plaintext`, or the certificates");
        }
        let [ca, certificate, key] = files.map(Option::unwrap_or_default);
        return Security::Certificates { ca, certificate, key };
    }
    match plaintext {
        Some((true, _)) => Security::PlaintextAnywhere,
        Some((false, _)) | None => Security::PlaintextOnLoopback,
    }
}

fn application(reader: &mut Reader, field: &Field<'_>) -> Option<Application> {
    let table = reader.table(field, "application");
    let group = table.get("group").and_then(|field| reader.text(&field));
    if table.get("group").is_none() {
        reader.missing(&table, "group", "name the group that the application joins");
    }
    let probe = match table.get("probe") {
        Some(field) => probe(reader, &field),
        None => {
            reader.missing(&table, "probe", "say how to know that the application is there: `http`, `tcp` or `socket`");
            None
        }
    };
    let number = |reader: &mut Reader, key: &str, range| table.get(key).and_then(|field| reader.number(&field, range));
    let interval_ms = number(reader, "interval-ms", super::PROBE_INTERVAL_MS);
    let failures = number(reader, "failures", super::PROBE_FAILURES);
    let mut metadata = std::collections::BTreeMap::new();
    if let Some(field) = table.get("metadata") {
        for (key, field) in reader.entries(&field, || "it is a table of texts".to_owned()) {
            if let Some(text) = reader.text(&field) {
                metadata.insert(key.to_owned(), text);
            }
        }
    }
    let partition_group = table.get("partition-group").and_then(|field| reader.text(&field));
    Some(Application {
        partition_group,
        interval_ms,
        failures: failures.and_then(|failures| u32::try_from(failures).ok()),
        metadata,
        ..Application::new(group?, probe?)
    })
}

fn probe(reader: &mut Reader, field: &Field<'_>) -> Option<Probe> {
    let before = reader.problems.len();
    let table = reader.table(field, "application.probe");
    let known = keys::of("application.probe");
    let given: Vec<(&str, Field<'_>)> = known.iter().filter_map(|key| Some((*key, table.get(key)?))).collect();
    match given.as_slice() {
        [(key, field)] => {
            let text = reader.text(field)?;
            Some(match *key {
                "http" => Probe::Http(text),
                "tcp" => Probe::Tcp(text),
                _ => Probe::Socket(text),
            })
        }
        [] if reader.problems.len() > before => None,
        [] => {
            reader.refuse(field, "is empty", format!("use {}", keys::choice(known)));
            None
        }
        [..] => {
            let keys: Vec<&str> = given.iter().map(|(key, _)| *key).collect();
            reader.refuse(field, format!("has {}", keys::choice(&keys).replace(" or ", " and ")), "use one of them");
            None
        }
    }
}
