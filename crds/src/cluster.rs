//! [`Cluster`]: the sidecars that know each other.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::opaque::{self, Amounts, PodTemplate};

/// The smallest volume of a member: sixteen segments of its log. It keeps seven of them while it has little to hold (four
/// before it copies what is live, two for a segment's worth of that, one that is prepared), and takes no writes with less
/// than two free; the rest is for snapshots and for what the file system itself takes. (`tests/tidy` compares it with the
/// store's limits.)
pub const STORAGE_SIZE_MIN: &str = "256Mi";

/// A Cluster: the sidecars that know each other, the management group that they form, and the pods that they are in.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "coterie.dev",
    version = "v1alpha1",
    kind = "Cluster",
    plural = "clusters",
    namespaced,
    derive = "PartialEq",
    status = "ClusterStatus",
    shortname = "cot",
    category = "coterie",
    annotation("helm.sh/resource-policy", "keep"),
    doc = "A Cluster of Coterie sidecars: who takes part, what they keep, and the application's pods that they run beside.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.ready", description = "Ready pods of wanted pods"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.phase", description = "The state in one word"),
    printcolumn(name = "Leader", type_ = "string", json_path = ".status.leader", description = "Leader of the management group"),
    printcolumn(name = "Term", type_ = "integer", json_path = ".status.term", description = "Its term"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", priority = 1),
    printcolumn(name = "Cluster ID", type_ = "string", json_path = ".status.clusterId", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 48 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name becomes part of host names: it must begin with a letter, have only lower-case letters, digits and `-`, and at most 48 of them; choose such a name"),
    validation = Rule::new("has(self.status) || self.spec.managementVoters <= self.spec.replicas")
        .message("spec.managementVoters must not be more than spec.replicas: raise spec.replicas (3 by default), or set spec.managementVoters to 1 or 3"),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.managementVoters == oldSelf.managementVoters")
        .message("spec.managementVoters is immutable: votes cannot be moved between members in this version; make a new Cluster with the other number"),
    validation = Rule::new("self.profiles == oldSelf.profiles")
        .message("spec.profiles is immutable: the default partition group of the names would change, and the same group name would lead twice, once in the old one and once in the new one; make a new Cluster with the other profiles"),
)]
pub struct ClusterSpec {
    /// Pods of the Cluster, from 1 to 1000. The first `managementVoters` vote and keep data; the rest are clients.
    /// Fewer than `managementVoters` is not followed, but answered with the condition ScaleDownBlocked.
    #[serde(default = "defaults::replicas")]
    #[schemars(range(min = 1, max = 1000))]
    pub replicas: i32,

    /// What the Cluster has from the start. `Consensus`: a Raft partition group named `raft` on all voters. An empty
    /// list: only the management group; PartitionGroups add the rest. Immutable.
    #[serde(default = "defaults::profiles")]
    #[schemars(length(max = 4))]
    #[x_kube(
        validation = Rule::new("!self.exists(p, p == 'DataGrid')")
            .message("spec.profiles: DataGrid (primary-backup) is not in this version; use Consensus"),
        validation = Rule::new("!self.exists(p, p == 'Client')")
            .message("spec.profiles: Client is for the sidecars of other workloads (see examples/manifests/deployment-client-sidecar.yaml), a Cluster needs members that vote; use Consensus"),
        validation = Rule::new("self.all(p, self.exists_one(q, q == p))")
            .message("spec.profiles names a profile twice; name each profile once"),
    )]
    pub profiles: Vec<Profile>,

    /// How many members vote in the management group: 1 (no failure is survived), 3 (one is) or 5 (two are).
    /// Immutable in this version.
    #[serde(default = "defaults::management_voters")]
    #[schemars(range(min = 1, max = 5))]
    #[x_kube(validation = Rule::new("self in [1, 3, 5]")
        .message("spec.managementVoters must be 1, 3 or 5: an even number survives no more failures than the odd number below it; use 1, 3 or 5"))]
    pub management_voters: i32,

    /// The application's pods, which the sidecar is added to. Without it the sidecars run alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<PodTemplate>,

    /// The volume of each member.
    #[serde(default)]
    pub storage: Storage,

    /// The sidecar's container.
    #[serde(default)]
    pub sidecar: Sidecar,

    /// What goes beyond the mutual TLS between members, which is always on.
    #[serde(default)]
    pub security: Security,

    /// While true the operator changes nothing and only reports. Certificates are renewed all the same.
    #[serde(default)]
    pub paused: bool,
}

/// What a Cluster has from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub enum Profile {
    /// A Raft partition group named `raft` on all voters.
    Consensus,
    /// A primary-backup partition group. Not in this version.
    DataGrid,
    /// Members that keep nothing. Not for a Cluster.
    Client,
}

/// The volume of each member.
#[derive(Clone, Debug, PartialEq, KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)")
        .message("spec.storage.storageClassName is immutable: a volume cannot change its class; make a new Cluster with the other class"),
    validation = Rule::new("quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0")
        .message("spec.storage.size must not shrink: Kubernetes cannot make a volume smaller; keep the size or raise it"),
)]
pub struct Storage {
    /// Size of each member's volume, at least 256Mi. It can be raised if the storage class can expand volumes.
    #[serde(default = "defaults::storage_size")]
    #[schemars(length(max = 24))]
    #[x_kube(validation = Rule::new(format!("isQuantity(self) && quantity(self).compareTo(quantity('{STORAGE_SIZE_MIN}')) >= 0"))
        .message(format!("spec.storage.size must be a quantity of at least {STORAGE_SIZE_MIN}, for example 1Gi").as_str()))]
    pub size: String,
    /// The storage class. Without it the default class of the Kubernetes cluster is used. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
    /// What happens to the volumes when the Cluster is deleted. A Cluster made again under its name adopts retained ones.
    #[serde(default)]
    pub retention: Retention,
}

/// What happens to volumes when the Cluster is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub enum Retention {
    /// They stay.
    #[default]
    Retain,
    /// They are deleted, with everything on them.
    Delete,
}

/// How fast the loss of a leader is noticed: normal (another one leads after 0.8 s at most), fast (0.2 s; for cores and
/// disks that nothing else keeps busy) or slow (1.6 s; for containers with a small CPU limit). Without it normal. Immutable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Timing {
    /// For sidecars that get most of a core when they need it.
    #[default]
    Normal,
    /// For sidecars whose cores and disks are never busy.
    Fast,
    /// For sidecars that are throttled to a fifth of a core or less.
    Slow,
}

/// The sidecar's container, and what its process is told.
#[derive(Clone, Debug, PartialEq, KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.timing) ? self.timing : 'normal') == (has(oldSelf.timing) ? oldSelf.timing : 'normal')")
        .message("spec.sidecar.timing is immutable: members count on each other's timers, so all of them would have to be stopped before one is started with others; make a new Cluster with the other timing"),
)]
pub struct Sidecar {
    /// The image. Without it the operator's default is used, which has the operator's own version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// When the image is pulled: Always, IfNotPresent or Never. Without it Kubernetes decides by the tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self in ['Always', 'IfNotPresent', 'Never']")
        .message("spec.sidecar.imagePullPolicy must be Always, IfNotPresent or Never; use one of them"))]
    pub image_pull_policy: Option<String>,
    /// Requests and limits of the container.
    #[serde(default)]
    pub resources: Resources,
    /// How much the sidecar logs: a level (error, warn, info, debug, trace) or a filter such as `info,openraft=debug`.
    #[serde(default = "defaults::log_level")]
    #[schemars(length(min = 1, max = 256))]
    pub log_level: String,
    /// How fast the loss of a leader is noticed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timing: Option<Timing>,
}

/// Requests and limits.
#[derive(Clone, Debug, PartialEq, KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// What the scheduler sets aside.
    #[serde(default = "defaults::requests")]
    pub requests: Amounts,
    /// What the container is held to.
    #[serde(default = "defaults::limits")]
    pub limits: Amounts,
}

/// What goes beyond the mutual TLS between members, which is always on.
#[derive(Clone, Debug, Default, PartialEq, KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Security {
    /// Whether a NetworkPolicy admits only this Cluster's pods, its client sidecars and the operator to the peers' port (7301).
    /// The pods' other ports stay as they are.
    #[serde(default)]
    pub network_policy: bool,
}

/// What the operator saw.
#[derive(Clone, Debug, Default, PartialEq, KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// The generation of the spec that this status answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The state in one word: Pending, Forming, Running, Degraded, Unavailable, Paused or Invalid.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub phase: String,
    /// Ready pods of wanted pods, for example `3/3`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ready: String,
    /// The pods that exist. Read by the scale subresource.
    #[serde(default)]
    pub replicas: i32,
    /// The pods' label selector. Read by the scale subresource.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub selector: String,
    /// The identity that the members' volumes carry: a Cluster made again on retained volumes keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// The leader of the management group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// Its term.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<i64>,
    /// The members, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "members")]
    pub members: Vec<Member>,
    /// Ready, Available, Progressing, Degraded, ScaleDownBlocked, ReconciliationPaused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "opaque::conditions")]
    pub conditions: Vec<Condition>,
}

fn members(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let item = <Member as JsonSchema>::json_schema(generator);
    schemars::json_schema!({
        "type": "array",
        "description": "The members, by name.",
        "items": item,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
    })
}

/// One member.
#[derive(Clone, Debug, Default, PartialEq, KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// The pod's name.
    pub name: String,
    /// `Voter` or `Client`.
    pub role: String,
    /// The pod's address; while it has none, the last known one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The zone of the pod's node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// The identity of its volume, as a decimal number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<String>,
    /// The sidecar's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What the sidecar says of itself, or why it could not be asked.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub state: String,
    /// Whether the pod is ready.
    #[serde(default)]
    pub ready: bool,
}

mod defaults {
    use serde_json::json;

    use super::{Profile, Resources, Sidecar, Storage};
    use crate::opaque::Amounts;

    pub(super) fn replicas() -> i32 {
        3
    }
    pub(super) fn profiles() -> Vec<Profile> {
        vec![Profile::Consensus]
    }
    pub(super) fn management_voters() -> i32 {
        3
    }
    pub(super) fn storage_size() -> String {
        "1Gi".to_owned()
    }
    pub(super) fn log_level() -> String {
        "info".to_owned()
    }
    fn amounts(pairs: &[(&str, &str)]) -> Amounts {
        Amounts(pairs.iter().map(|(name, amount)| ((*name).to_owned(), json!(amount))).collect())
    }
    pub(super) fn requests() -> Amounts {
        amounts(&[("cpu", "50m"), ("memory", "64Mi")])
    }
    /// No limit of CPU: a throttled sidecar misses the deadlines of its leader's signs of life.
    pub(super) fn limits() -> Amounts {
        amounts(&[("memory", "512Mi")])
    }

    impl Default for Resources {
        fn default() -> Self {
            Self { requests: requests(), limits: limits() }
        }
    }

    impl Default for Sidecar {
        fn default() -> Self {
            Self {
                image: None,
                image_pull_policy: None,
                resources: Resources::default(),
                log_level: log_level(),
                timing: None,
            }
        }
    }

    impl Default for Storage {
        fn default() -> Self {
            Self { size: storage_size(), storage_class_name: None, retention: super::Retention::default() }
        }
    }
}
