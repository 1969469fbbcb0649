//! Step "observe" of the Cluster's controller: what the shell read, as facts. The conversions are here, the reading is not.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1 as apps;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::members::View;
use crate::names;

/// What there is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// The StatefulSet, if it is the Cluster's own.
    pub stateful_set: Option<StatefulSet>,
    /// The pods of this Cluster, by name.
    pub pods: BTreeMap<String, Pod>,
    /// The claims of its data, by name.
    pub claims: BTreeMap<String, Claim>,
    /// Whether Kubernetes has a default storage class; `None` when that was not looked at.
    pub has_default_storage_class: Option<bool>,
    /// The identity in Kubernetes of the Cluster's own NetworkPolicy.
    pub network_policy: Option<String>,
    /// Until which second (since 1970) another authority is trusted beside the present one, if one is.
    pub handover: Option<i64>,
    /// What the members say.
    pub view: View,
}

/// The StatefulSet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatefulSet {
    /// Its identity in Kubernetes.
    pub uid: String,
    /// The pods that it is to run.
    pub replicas: u32,
    /// The revision of its template.
    pub update_revision: String,
    /// Whether its controller has seen its last change: before that `update_revision` is an old one.
    pub is_observed: bool,
    /// The size in its claim template.
    pub claim_size: Option<String>,
    /// Whether it is being deleted.
    pub is_deleted: bool,
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its address.
    pub ip: Option<String>,
    /// Its identity in Kubernetes.
    pub uid: String,
    /// Whether all of it is ready.
    pub is_ready: bool,
    /// Whether the sidecar's container is ready: the member has caught up.
    pub is_sidecar_ready: bool,
    /// Whether the sidecar's container runs, so that it can be asked.
    pub is_sidecar_running: bool,
    /// Whether it is being deleted.
    pub is_terminating: bool,
    /// The revision of the template that it was made from.
    pub revision: String,
    /// Why it is not ready, in the words of Kubernetes.
    pub trouble: Option<String>,
}

/// A claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// Its version when it was read.
    pub version: String,
    /// Whether it has a volume.
    pub is_bound: bool,
    /// The storage class that it asks for.
    pub storage_class: Option<String>,
    /// The size that it asks for.
    pub size: Option<String>,
    /// When it was made.
    pub made: Option<Time>,
}

impl From<&apps::StatefulSet> for StatefulSet {
    fn from(object: &apps::StatefulSet) -> Self {
        let spec = object.spec.as_ref();
        let status = object.status.as_ref();
        let observed = status.and_then(|status| status.observed_generation);
        let templates = spec.and_then(|spec| spec.volume_claim_templates.as_ref());
        let template = templates.and_then(|templates| templates.first());
        Self {
            uid: object.metadata.uid.clone().unwrap_or_default(),
            replicas: spec
                .and_then(|spec| spec.replicas)
                .and_then(|replicas| u32::try_from(replicas).ok())
                .unwrap_or(0),
            update_revision: status.and_then(|status| status.update_revision.clone()).unwrap_or_default(),
            is_observed: observed.is_some() && observed >= object.metadata.generation,
            claim_size: template.and_then(requested),
            is_deleted: object.metadata.deletion_timestamp.is_some(),
        }
    }
}

impl From<&core::PersistentVolumeClaim> for Claim {
    fn from(object: &core::PersistentVolumeClaim) -> Self {
        let phase = object.status.as_ref().and_then(|status| status.phase.as_deref());
        Self {
            version: object.metadata.resource_version.clone().unwrap_or_default(),
            is_bound: phase == Some("Bound"),
            storage_class: object.spec.as_ref().and_then(|spec| spec.storage_class_name.clone()),
            size: requested(object),
            made: object.metadata.creation_timestamp.clone(),
        }
    }
}

fn requested(claim: &core::PersistentVolumeClaim) -> Option<String> {
    let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    requests.get("storage").map(|size| size.0.clone())
}

impl From<&core::Pod> for Pod {
    fn from(object: &core::Pod) -> Self {
        let status = object.status.as_ref();
        let conditions = || status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
        let init = status.and_then(|status| status.init_container_statuses.as_ref());
        let usual = status.and_then(|status| status.container_statuses.as_ref());
        let sidecar = init.into_iter().chain(usual).flatten().find(|container| container.name == names::CONTAINER);
        let is_ready = conditions().any(|condition| condition.type_ == "Ready" && condition.status == "True");
        Self {
            ip: status.and_then(|status| status.pod_ip.clone()),
            uid: object.metadata.uid.clone().unwrap_or_default(),
            is_ready,
            is_sidecar_ready: sidecar.is_some_and(|sidecar| sidecar.ready),
            is_sidecar_running: sidecar
                .is_some_and(|sidecar| sidecar.state.as_ref().is_some_and(|state| state.running.is_some())),
            is_terminating: object.metadata.deletion_timestamp.is_some(),
            revision: object
                .metadata
                .labels
                .as_ref()
                .and_then(|labels| labels.get("controller-revision-hash"))
                .cloned()
                .unwrap_or_default(),
            trouble: if is_ready { None } else { trouble(object) },
        }
    }
}

/// Why a pod is not ready: it cannot be scheduled, or a container waits for something or has ended.
fn trouble(pod: &core::Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let unscheduled = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    if let Some(condition) = unscheduled {
        return condition.message.clone().or_else(|| condition.reason.clone());
    }
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    containers.into_iter().find_map(|container| {
        let state = container.state.as_ref()?;
        if let Some(waiting) = &state.waiting {
            let reason = waiting
                .reason
                .as_deref()
                .filter(|reason| !["PodInitializing", "ContainerCreating"].contains(reason))?;
            let message = waiting.message.as_deref().unwrap_or_default();
            return Some(format!("container {}: {reason} {message}", container.name).trim_end().to_owned());
        }
        let ended = state.terminated.as_ref().filter(|ended| ended.exit_code != 0)?;
        Some(format!("container {} ended with exit code {}", container.name, ended.exit_code))
    })
}
