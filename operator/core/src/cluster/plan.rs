//! Step "plan" of the Cluster's controller: what there should be, as objects for server-side apply.

use std::collections::BTreeMap;

use coterie_crds::cluster::Retention;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount, ServicePort, ServiceSpec};
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::{Observed, Owner, Validated, configuration, pod, rollout};
use crate::{names, quantity};

/// What there should be. The order of the fields is the order in which they are applied: what a pod mounts is there before
/// the pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// The pods' identity in Kubernetes. It has no rights, and its token is not mounted.
    pub service_account: ServiceAccount,
    /// The sidecars' file.
    pub configuration: ConfigMap,
    /// The pods' names. They are published before the pods are ready, since the pods become ready through each other.
    pub service: Service,
    /// Who may reach port 7301; `None`: there should be none.
    pub network_policy: Option<NetworkPolicy>,
    /// How many pods may go at once.
    pub disruption_budget: PodDisruptionBudget,
    /// What must happen to the volumes before the StatefulSet can be applied.
    pub resize: Option<Resize>,
    /// The pods.
    pub stateful_set: Value,
    /// The pods to evict.
    pub evict: Vec<String>,
}

/// Volumes that should be larger. A StatefulSet cannot change its claim template: the claims are changed, then the
/// StatefulSet is deleted without its pods and made again, and takes them over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resize {
    /// The bound claims that ask for less, by name. One without a volume cannot be changed before it has one.
    pub claims: Vec<String>,
    /// What they should ask for.
    pub size: String,
    /// Whether the StatefulSet is to be made again.
    pub is_set_outdated: bool,
}

/// What there should be, given what there is.
pub fn plan(cluster: &Validated, observed: &Observed) -> Desired {
    let evict = rollout::next(cluster, observed);
    Desired {
        service_account: ServiceAccount {
            metadata: metadata(&cluster.owner(), names::service_account(&cluster.name)),
            automount_service_account_token: Some(false),
            ..ServiceAccount::default()
        },
        configuration: ConfigMap {
            metadata: metadata(&cluster.owner(), names::configuration(&cluster.name)),
            data: Some(BTreeMap::from([(names::CONFIGURATION_FILE.to_owned(), configuration::file(cluster))])),
            ..ConfigMap::default()
        },
        service: service(cluster),
        network_policy: cluster.network_policy.then(|| network_policy(cluster)),
        disruption_budget: disruption_budget(cluster, observed, &evict),
        resize: resize(cluster, observed),
        stateful_set: stateful_set(cluster, observed),
        evict,
    }
}

/// The pods to run. Votes cannot be moved away yet: asked for fewer pods than voters, the StatefulSet stays as it is.
pub fn pods(cluster: &Validated, observed: &Observed) -> u32 {
    if !cluster.asks_for_too_few() {
        return cluster.replicas;
    }
    let running = observed.stateful_set.as_ref().map_or(0, |set| set.replicas);
    running.max(cluster.voters)
}

/// The reference that makes Kubernetes delete an object with its Cluster.
pub fn reference(owner: &Owner) -> OwnerReference {
    OwnerReference {
        api_version: format!("{}/{}", coterie_crds::GROUP, coterie_crds::VERSION),
        kind: "Cluster".to_owned(),
        name: owner.name.clone(),
        uid: owner.uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The metadata of an object of this Cluster.
pub fn metadata(owner: &Owner, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(owner.namespace.clone()),
        labels: Some(names::labels(&owner.name)),
        owner_references: Some(vec![reference(owner)]),
        ..ObjectMeta::default()
    }
}

fn selector(cluster: &Validated) -> LabelSelector {
    LabelSelector { match_labels: Some(names::selector(&cluster.name)), match_expressions: None }
}

fn service(cluster: &Validated) -> Service {
    let port = |name: &str, port: u16| ServicePort {
        name: Some(name.to_owned()),
        port: port.into(),
        ..ServicePort::default()
    };
    Service {
        metadata: metadata(&cluster.owner(), names::service(&cluster.name)),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            publish_not_ready_addresses: Some(true),
            selector: Some(names::selector(&cluster.name)),
            ports: Some(vec![port("peer", names::PEER_PORT), port("health", names::HEALTH_PORT)]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// One pod may go while every partition has all of its replicas, none otherwise. A pod that is not ready counts too: its
/// application may be down while its sidecar votes. Such pods may always go only
/// - if no sidecar runs in any of them: one that crashes again and again must not block the draining of its node;
/// - while the rollout replaces one of them: what mends it must not wait until it is mended.
fn disruption_budget(cluster: &Validated, observed: &Observed, evict: &[String]) -> PodDisruptionBudget {
    let allowed = if observed.view.is_healthy() { 1 } else { 0 };
    let unready: Vec<_> = observed.pods.iter().filter(|(_, pod)| !pod.is_ready).collect();
    let is_nothing_lost = !unready.is_empty() && unready.iter().all(|(_, pod)| !pod.is_sidecar_running);
    let is_mending = unready.iter().any(|(name, _)| evict.contains(name));
    let policy = if is_nothing_lost || is_mending { "AlwaysAllow" } else { "IfHealthyBudget" };
    PodDisruptionBudget {
        metadata: metadata(&cluster.owner(), cluster.name.clone()),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(allowed)),
            selector: Some(selector(cluster)),
            unhealthy_pod_eviction_policy: Some(policy.to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}

/// A NetworkPolicy selects whole pods, so the application's ports are named too: all but 7301 stay open.
fn network_policy(cluster: &Validated) -> NetworkPolicy {
    let ports = |from: u16, to: u16| NetworkPolicyPort {
        port: Some(IntOrString::Int(from.into())),
        end_port: (to != from).then_some(to.into()),
        protocol: None,
    };
    // The sidecar's ports are TCP, which is what a port without a protocol is. These are all that there are beside it.
    let all_of = |protocol: &str| NetworkPolicyPort { port: None, end_port: None, protocol: Some(protocol.to_owned()) };
    let (below, above) = (ports(1, names::PEER_PORT - 1), ports(names::PEER_PORT + 1, u16::MAX));
    let labelled = |pairs: &[(&str, &str)]| LabelSelector {
        match_labels: Some(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()),
        match_expressions: None,
    };
    let anywhere = LabelSelector::default;
    let own = NetworkPolicyPeer {
        namespace_selector: Some(anywhere()),
        pod_selector: Some(labelled(&[(names::CLUSTER_LABEL, &cluster.name)])),
        ip_block: None,
    };
    let operator = NetworkPolicyPeer {
        namespace_selector: Some(anywhere()),
        pod_selector: Some(labelled(&names::OPERATOR_LABELS)),
        ip_block: None,
    };
    let rule = |from: Option<Vec<NetworkPolicyPeer>>, ports: Vec<NetworkPolicyPort>| NetworkPolicyIngressRule {
        from,
        ports: Some(ports),
    };
    NetworkPolicy {
        metadata: metadata(&cluster.owner(), cluster.name.clone()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selector(cluster)),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(vec![
                rule(Some(vec![own, operator]), vec![ports(names::PEER_PORT, names::PEER_PORT)]),
                rule(None, vec![below, above, all_of("UDP"), all_of("SCTP")]),
            ]),
            egress: None,
        }),
    }
}

fn resize(cluster: &Validated, observed: &Observed) -> Option<Resize> {
    let wanted = quantity::thousandths(&cluster.storage.size)?;
    let is_smaller =
        |size: &Option<String>| size.as_deref().and_then(quantity::thousandths).is_some_and(|size| size < wanted);
    let set = observed.stateful_set.as_ref().filter(|set| !set.is_deleted)?;
    let is_set_outdated = is_smaller(&set.claim_size);
    let small = observed.claims.iter().filter(|(_, claim)| claim.is_bound && is_smaller(&claim.size));
    let claims: Vec<String> = small.map(|(name, _)| name.clone()).collect();
    (is_set_outdated || !claims.is_empty()).then(|| Resize {
        claims,
        size: cluster.storage.size.clone(),
        is_set_outdated,
    })
}

fn stateful_set(cluster: &Validated, observed: &Observed) -> Value {
    let when_deleted = match cluster.storage.retention {
        Retention::Retain => "Retain",
        Retention::Delete => "Delete",
    };
    // That of a StatefulSet that is there stays: another size is `resize`'s.
    let there = observed.stateful_set.as_ref().and_then(|set| set.claim_size.as_ref());
    let mut claim = json!({
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": there.unwrap_or(&cluster.storage.size)}},
    });
    if let Some(class) = &cluster.storage.storage_class_name {
        claim["storageClassName"] = class.clone().into();
    }
    json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata(&cluster.owner(), cluster.name.clone()),
        "spec": {
            "replicas": pods(cluster, observed),
            "serviceName": names::service(&cluster.name),
            "selector": {"matchLabels": names::selector(&cluster.name)},
            // Members wait for each other, so they start together.
            "podManagementPolicy": "Parallel",
            // The operator replaces pods itself, see `rollout`.
            "updateStrategy": {"type": "OnDelete"},
            "revisionHistoryLimit": 3,
            // A pod that is no longer wanted may have been a member: its volume is not deleted by a number.
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": when_deleted, "whenScaled": "Retain"},
            "template": pod::template(cluster),
            // It can never change, so it has nothing in it that might.
            "volumeClaimTemplates": [{
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": names::DATA_VOLUME, "labels": names::selector(&cluster.name)},
                "spec": claim,
            }],
        },
    })
}
