//! The builder as a file (S114).

use super::builder::{Application, Builder, Group, Member, Probe, Security, Timing};
use super::tree::{Entry, Node, Value};
use crate::command::{MemberKind, Protocol};
use crate::ids::PartitionGroupName;

pub(super) fn to_yaml(builder: &Builder) -> String {
    let Builder {
        cluster,
        local_member,
        local_zone,
        members,
        management,
        partition_groups,
        profiles,
        default_partition_group,
        data_directory,
        api_port,
        api_address,
        api_socket,
        health_address,
        health_port,
        peer_bind,
        security,
        timing,
        session_timeout_ms,
        application,
    } = builder;
    let local = Table::new().text("name", local_member.as_ref()).text("zone", local_zone.as_ref());
    let cluster = Table::new()
        .text("name", cluster.as_ref())
        .table("local-member", local)
        .table("members", members.iter().fold(Table::new(), |table, it| table.put(&it.name, member(it))));
    let groups = partition_groups.iter().fold(Table::new(), |table, (name, it)| table.put(name, group(it, None)));
    let profiles: Vec<Value> = profiles.iter().map(|profile| text(profile.label())).collect();
    let api = Table::new()
        .number("port", api_port.map(u64::from))
        .text("socket", api_socket.as_ref())
        .text("address", api_address.as_ref());
    let health = Table::new().text("address", health_address.as_ref()).number("port", health_port.map(u64::from));
    let root = Table::new()
        .table("cluster", cluster)
        .value("management-group", management.as_ref().map(|it| group(it, Some(PartitionGroupName::SYSTEM))))
        .table("partition-groups", groups)
        .value("profiles", (!profiles.is_empty()).then(|| list(profiles)))
        .text("default-partition-group", default_partition_group.as_ref())
        .text("data-directory", data_directory.as_ref())
        .table("api", api)
        .table("health", health)
        .table("peer", Table::new().text("bind", peer_bind.as_ref()))
        .table("security", security_table(security))
        .text("timing", timing.map(Timing::label))
        .number("session-timeout-ms", *session_timeout_ms)
        .value("application", application.as_ref().map(application_value));
    let options = serde_saphyr::ser_options! { compact_list_indent: false };
    serde_saphyr::to_string_with_options(&root.into_value(), options)
        .expect("a tree of texts, numbers, lists and tables is always YAML")
}

fn member(member: &Member) -> Value {
    let Member { name: _, kind, address, zone } = member;
    Table::new()
        .put("type", text(kind_label(*kind)))
        .text("address", address.as_ref())
        .text("zone", zone.as_ref())
        .into_value()
}

fn group(group: &Group, name: Option<&str>) -> Value {
    let Group { protocol, partitions, members } = group;
    let members: Vec<Value> = members.iter().map(|member| text(member)).collect();
    Table::new()
        .put("type", text(protocol_label(*protocol)))
        .text("name", name)
        .number("partitions", partitions.map(u64::from))
        .value("members", (!members.is_empty()).then(|| list(members)))
        .into_value()
}

fn security_table(security: &Security) -> Table {
    match security {
        Security::PlaintextOnLoopback => Table::new(),
        Security::PlaintextAnywhere => Table::new().put("plaintext", Value::Flag(true)),
        Security::Certificates { ca, certificate, key } => {
            Table::new().put("ca", text(ca)).put("certificate", text(certificate)).put("key", text(key))
        }
    }
}

fn application_value(application: &Application) -> Value {
    let Application { group, partition_group, probe, interval_ms, failures, metadata } = application;
    let probe = match probe {
        Probe::Http(url) => Table::new().put("http", text(url)),
        Probe::Tcp(address) => Table::new().put("tcp", text(address)),
        Probe::Socket(path) => Table::new().put("socket", text(path)),
    };
    Table::new()
        .put("group", text(group))
        .text("partition-group", partition_group.as_ref())
        .put("probe", probe.into_value())
        .number("interval-ms", *interval_ms)
        .number("failures", failures.map(u64::from))
        .table("metadata", metadata.iter().fold(Table::new(), |table, (key, value)| table.put(key, text(value))))
        .into_value()
}

/// A member type's word in a file.
pub(super) fn kind_label(kind: MemberKind) -> &'static str {
    match kind {
        MemberKind::Persistent => "persistent",
        MemberKind::Ephemeral => "ephemeral",
    }
}

/// A group type's word in a file.
pub(super) fn protocol_label(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Raft => "raft",
        Protocol::PrimaryBackup => "primary-backup",
    }
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn list(values: Vec<Value>) -> Value {
    Value::List(values.into_iter().map(|value| Node { line: 0, value }).collect())
}

/// A table under construction; what is absent or empty is left out.
struct Table(Vec<Entry>);

impl Table {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn put(mut self, key: &str, value: Value) -> Self {
        self.0.push(Entry { line: 0, key: key.to_owned(), node: Node { line: 0, value } });
        self
    }

    fn value(self, key: &str, value: Option<Value>) -> Self {
        match value {
            Some(value) => self.put(key, value),
            None => self,
        }
    }

    fn text(self, key: &str, value: Option<impl ToString>) -> Self {
        self.value(key, value.map(|value| Value::Text(value.to_string())))
    }

    fn number(self, key: &str, value: Option<u64>) -> Self {
        self.value(key, value.map(Value::Number))
    }

    fn table(self, key: &str, table: Self) -> Self {
        if table.0.is_empty() { self } else { self.put(key, table.into_value()) }
    }

    fn into_value(self) -> Value {
        Value::Table(self.0)
    }
}
