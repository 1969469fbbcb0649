//! The cluster as this sidecar sees it.

use coterie_core::command::{MemberKind, Protocol};
use coterie_core::{PartitionGroupName, PartitionId};
use coterie_proto::v1;

use crate::limits;
use crate::node::Node;

/// The status of a sidecar, from what it knows; asks nobody.
pub fn of(node: &Node) -> v1::StatusResponse {
    let state = node.state().borrow().clone();
    let view = node.directory().view().ok();
    let identity = node.identity();
    let cluster_id = view.as_ref().map(|view| view.cluster_id).or(identity.cluster_id);
    v1::StatusResponse {
        member: node.config().local.name.0.clone(),
        cluster: node.config().cluster.clone(),
        cluster_id: cluster_id.map(|id| format!("{id:032x}")).unwrap_or_default(),
        state: state.label().to_owned(),
        reason: state.reason(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        members: members(node),
        partition_groups: partition_groups(node),
        start_counter: identity.start_counter,
    }
}

fn members(node: &Node) -> Vec<v1::ClusterMember> {
    let own = &node.config().local.name;
    let met = node.greetings().met();
    let mut members = std::collections::BTreeMap::new();
    for (name, member) in &node.config().members {
        members.insert(
            name.clone(),
            v1::ClusterMember {
                name: name.0.clone(),
                r#type: kind(member.kind).to_owned(),
                address: member.address.as_ref().map(ToString::to_string).unwrap_or_default(),
                zone: member.zone.clone(),
                voter: member.kind == MemberKind::Persistent,
                ..Default::default()
            },
        );
    }
    if let Ok(view) = node.directory().view() {
        for (name, record) in &view.directory.members {
            members.insert(
                name.clone(),
                v1::ClusterMember {
                    name: name.0.clone(),
                    r#type: kind(record.kind).to_owned(),
                    address: record.address.clone(),
                    zone: record.zone.clone(),
                    voter: record.kind == MemberKind::Persistent,
                    version: record.version.clone(),
                    ..Default::default()
                },
            );
        }
    }
    for (name, member) in &mut members {
        member.reachable = name == own || node.greetings().reachable(name);
        if let Some(rejection) = met.get(name).and_then(|met| met.refused.as_ref()) {
            member.refused = rejection.message.clone();
        }
    }
    members.into_values().collect()
}

/// The word for a kind of member.
pub(crate) fn kind(kind: MemberKind) -> &'static str {
    match kind {
        MemberKind::Persistent => "persistent",
        MemberKind::Ephemeral => "ephemeral",
    }
}

fn partition_groups(node: &Node) -> Vec<v1::PartitionGroupStatus> {
    let mut groups = Vec::new();
    let system = PartitionId::system();
    let replicas = seats(node);
    if !replicas.is_empty() || node.directory().leader(&system).is_some() {
        groups.push(v1::PartitionGroupStatus {
            name: PartitionGroupName::SYSTEM.to_owned(),
            r#type: "raft".to_owned(),
            partitions: vec![partition(node, &system, replicas)],
            state: "running".to_owned(),
        });
    }
    let Ok(view) = node.directory().view() else { return groups };
    for (name, record) in &view.directory.partition_groups {
        let partitions: Vec<_> = (1..)
            .zip(&record.partitions)
            .map(|(index, record)| {
                let id = PartitionId { group: name.clone(), index };
                partition(node, &id, record.replicas.iter().map(|(member, _)| member.0.clone()).collect())
            })
            .collect();
        let forming = partitions.iter().any(|partition| partition.leader.is_empty());
        groups.push(v1::PartitionGroupStatus {
            name: name.0.clone(),
            r#type: protocol(record.protocol).to_owned(),
            partitions,
            state: if forming { "forming" } else { "running" }.to_owned(),
        });
    }
    groups
}

/// The word for a protocol.
pub(crate) fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Raft => "raft",
        Protocol::PrimaryBackup => "primary-backup",
    }
}

/// The members of the management group, as far as this one knows.
pub(crate) fn seats(node: &Node) -> Vec<String> {
    match (node.identity().formation, &node.config().management) {
        (Some(formation), _) => formation.seats.into_iter().map(|seat| seat.member).collect(),
        (None, Some(management)) => management.members.iter().map(|member| member.0.clone()).collect(),
        (None, None) => Vec::new(),
    }
}

fn partition(node: &Node, id: &PartitionId, replicas: Vec<String>) -> v1::PartitionStatus {
    let leading = node.directory().leader(id);
    let local = node.partitions().get(id);
    let (mut leader, mut term) = leading.map(|leading| (leading.member.0, leading.term)).unwrap_or_default();
    let (mut applied, mut has_quorum, mut read_only) = (0, !leader.is_empty(), None);
    if let Some(local) = &local {
        let now = local.leadership().borrow().clone();
        leader = now.leader.map(|leader| leader.0).unwrap_or_default();
        term = now.term;
        applied = local.applied().borrow().index;
        read_only = local.read_only();
        has_quorum = if now.leading { now.has_quorum } else { local.silent_ms() < limits::STALE_MS };
    }
    v1::PartitionStatus {
        partition: id.index,
        leader,
        term,
        replicas,
        applied,
        local: local.is_some(),
        has_quorum,
        read_only: read_only.unwrap_or_default(),
    }
}
