//! [`PartitionGroup`]: a named set of partitions with one protocol, on the members of a Cluster.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::opaque;

/// A PartitionGroup: a named set of partitions with one protocol, on the members of a Cluster.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "coterie.dev",
    version = "v1alpha1",
    kind = "PartitionGroup",
    plural = "partitiongroups",
    namespaced,
    derive = "PartialEq",
    status = "PartitionGroupStatus",
    shortname = "cpg",
    category = "coterie",
    annotation("helm.sh/resource-policy", "keep"),
    doc = "A PartitionGroup: a named set of partitions with one protocol, on the members of a Cluster.",
    selectable = ".spec.clusterRef.name",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.clusterRef.name"),
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.ready", description = "Healthy partitions of all partitions"),
    printcolumn(name = "Leaders", type_ = "string", json_path = ".status.leaders", description = "The members that lead a partition"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.phase", description = "The state in one word"),
    printcolumn(name = "Terms", type_ = "string", json_path = ".status.partitions[*].term", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("(has(self.spec.name) ? self.spec.name : self.metadata.name) != 'system'")
        .message("the name `system` is the management group's: give the PartitionGroup another metadata.name or spec.name"),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.name) == has(oldSelf.name) && (!has(self.name) || self.name == oldSelf.name)")
        .message("spec.name is immutable: it is part of every primitive's address; make a new PartitionGroup with the other name"),
    validation = Rule::new("self.type != 'Raft' ? !has(self.raft) : true")
        .message("spec.raft is only for spec.type Raft; remove spec.raft"),
    validation = Rule::new("!has(self.raft) || !has(self.raft.members) || self.raft.members.size() >= self.replicas")
        .message("spec.raft.members must name at least spec.replicas members; name more members or lower spec.replicas"),
    validation = Rule::new("(has(self.raft) && has(self.raft.members)) == (has(oldSelf.raft) && has(oldSelf.raft.members)) && (!has(self.raft) || !has(self.raft.members) || self.raft.members == oldSelf.raft.members)")
        .message("spec.raft.members is immutable: replicas cannot be moved in this version; make a new PartitionGroup with the other members"),
)]
pub struct PartitionGroupSpec {
    /// The Cluster, in the same namespace, whose members keep the partitions. Immutable.
    #[x_kube(validation = Rule::new("self.name == oldSelf.name")
        .message("spec.clusterRef is immutable: partitions cannot move to another Cluster; make a new PartitionGroup there"))]
    pub cluster_ref: ClusterRef,

    /// The name by which applications address it. Without it metadata.name. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: Option<String>,

    /// The replication protocol. Immutable.
    #[serde(rename = "type")]
    #[x_kube(
        validation = Rule::new("self != 'PrimaryBackup'")
            .message("spec.type: PrimaryBackup is not in this version; use Raft"),
        validation = Rule::new("self == oldSelf")
            .message("spec.type is immutable: data cannot move from one protocol to another; make a new PartitionGroup with the other type"),
    )]
    pub type_: Protocol,

    /// Partitions, from 1 to 128. Each costs CPU on every replica. Immutable.
    #[serde(default = "defaults::partitions")]
    #[schemars(range(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("spec.partitions is immutable: names are hashed to partitions and would move; make a new PartitionGroup with the other number"))]
    pub partitions: i32,

    /// Replicas of each partition: 1 (no failure is survived), 3 (one is) or 5 (two are). At most the Cluster's
    /// managementVoters. Immutable in this version.
    #[serde(default = "defaults::replicas")]
    #[schemars(range(min = 1, max = 5))]
    #[x_kube(
        validation = Rule::new("self in [1, 3, 5]")
            .message("spec.replicas must be 1, 3 or 5: an even number survives no more failures than the odd number below it; use 1, 3 or 5"),
        validation = Rule::new("self == oldSelf")
            .message("spec.replicas is immutable: replicas cannot be added or moved in this version; make a new PartitionGroup with the other number"),
    )]
    pub replicas: i32,

    /// Options of the type Raft.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raft: Option<RaftOptions>,

    /// What deleting this object does to data. `Retain`: it is refused while the group holds a primitive. `Delete`:
    /// the data is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// Which Cluster.
#[derive(Clone, Debug, PartialEq, KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterRef {
    /// Its name.
    #[schemars(length(min = 1, max = 48))]
    pub name: String,
}

/// A replication protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub enum Protocol {
    /// A complete Raft per partition: partition tolerant, linearizable, on disk.
    Raft,
    /// A primary and backups in memory. Not in this version.
    PrimaryBackup,
}

/// Options of the type Raft.
#[derive(Clone, Debug, Default, PartialEq, KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RaftOptions {
    /// The voters (names of pods) among which replicas are placed. Without it all of them. Immutable in this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "member_names")]
    pub members: Option<Vec<String>>,
}

fn member_names(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "array",
        "description": "The voters (names of pods) among which replicas are placed. Without it all of them. Immutable in this version.",
        "minItems": 1,
        "maxItems": 5,
        "items": {"type": "string", "minLength": 1, "maxLength": 63},
        "x-kubernetes-list-type": "set",
    })
}

/// What deleting a PartitionGroup does to its data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub enum DeletionPolicy {
    /// Deleting is refused while the group holds a primitive.
    #[default]
    Retain,
    /// The data is deleted.
    Delete,
}

/// What the operator saw.
#[derive(Clone, Debug, Default, PartialEq, KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartitionGroupStatus {
    /// The generation of the spec that this status answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The state in one word: Pending, Forming, Running, Degraded, Unavailable, Conflict, Refused, Deleting or Invalid.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub phase: String,
    /// Healthy partitions of all partitions, for example `3/3`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ready: String,
    /// The members that lead a partition, for example `orders-0,orders-2`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub leaders: String,
    /// How many primitives it holds.
    #[serde(default)]
    pub primitives: i64,
    /// The partitions, by number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "partitions")]
    pub partitions: Vec<Partition>,
    /// Ready, Available, Degraded, NameConflict, DeletionBlocked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "opaque::conditions")]
    pub conditions: Vec<Condition>,
}

fn partitions(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let item = <Partition as JsonSchema>::json_schema(generator);
    schemars::json_schema!({
        "type": "array",
        "description": "The partitions, by number.",
        "items": item,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["partition"],
    })
}

/// One partition.
#[derive(Clone, Debug, Default, PartialEq, KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Partition {
    /// Its number, from 1.
    pub partition: i32,
    /// The member that leads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// The leader's term. It only rises.
    #[serde(default)]
    pub term: i64,
    /// The members that keep a replica.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replicas: Vec<String>,
    /// Whether it has a leader, a quorum and no replica that lags.
    #[serde(default)]
    pub ready: bool,
}

mod defaults {
    pub(super) fn partitions() -> i32 {
        3
    }
    pub(super) fn replicas() -> i32 {
        3
    }
}
