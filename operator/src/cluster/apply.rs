//! Step "apply" of the Cluster's controller: writes what should be there, what a pod needs before the pod.

use coterie_operator_core::cluster::plan::{Desired, Resize};
use coterie_operator_core::cluster::status::Applied;
use coterie_operator_core::cluster::{Observed, Validated, observed};
use coterie_operator_core::names;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, EvictParams, Patch, PatchParams, Preconditions};
use serde_json::json;

use crate::certificates::{self, Certificates};
use crate::context::Context;
use crate::write::{self, Failure, failure, is_status, write};

/// What could not be done for now. What the API server refuses for good is reported as [`Applied`] instead.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Certificates.
    #[error("make certificates")]
    Certificates(#[source] certificates::Error),
    /// An object.
    #[error(transparent)]
    Write(write::Error),
}

/// What was done.
pub(super) struct Done {
    /// What came of it.
    pub(super) applied: Applied,
    /// The StatefulSet as it is since, if it was applied.
    pub(super) stateful_set: Option<observed::StatefulSet>,
}

impl From<Applied> for Done {
    fn from(applied: Applied) -> Self {
        Self { applied, stateful_set: None }
    }
}

/// Applies everything, or renews the certificates alone if the Cluster is paused.
pub(crate) async fn apply(
    context: &Context,
    cluster: &Validated,
    observed: &Observed,
    desired: &Desired,
    certificates: Certificates,
) -> Result<Done, Error> {
    let owner = cluster.owner();
    let certified = if cluster.paused {
        certificates::renew(context, &owner, certificates).await
    } else {
        certificates::ensure(context, &owner, certificates).await
    };
    match certified {
        Ok(()) if cluster.paused => return Ok(Applied::Paused.into()),
        Ok(()) => {}
        Err(certificates::Error::Stopped(applied)) => return Ok(applied.into()),
        Err(error) => return Err(Error::Certificates(error)),
    }
    match objects(context, cluster, observed, desired).await {
        Ok(done) => Ok(done),
        Err(Failure::Stopped(applied)) => Ok(applied.into()),
        Err(Failure::Failed(error)) => Err(Error::Write(error)),
    }
}

async fn objects(
    context: &Context,
    cluster: &Validated,
    observed: &Observed,
    desired: &Desired,
) -> Result<Done, Failure> {
    // Destructured without `..`: a new object cannot be forgotten here.
    let Desired {
        service_account,
        configuration,
        service,
        network_policy,
        disruption_budget,
        resize,
        stateful_set,
        evict,
    } = desired;
    let owner = &cluster.owner();
    write::<ServiceAccount>(context, owner, &names::service_account(&cluster.name), service_account).await?;
    write::<ConfigMap>(context, owner, &names::configuration(&cluster.name), configuration).await?;
    write::<Service>(context, owner, &names::service(&cluster.name), service).await?;
    match network_policy {
        Some(policy) => drop(write::<NetworkPolicy>(context, owner, &cluster.name, policy).await?),
        None => {
            if let Some(uid) = &observed.network_policy {
                delete_network_policy(context, cluster, uid).await?;
            }
        }
    }
    write::<PodDisruptionBudget>(context, owner, &cluster.name, disruption_budget).await?;
    let resized = match resize {
        Some(resize) => self::resize(context, cluster, observed, resize).await?,
        None => Resized::Done,
    };
    let applied = match resized {
        Resized::Done => Applied::All,
        Resized::Refused(why) => Applied::ResizeRefused(why),
        // Made again when it is gone.
        Resized::SetDeleted => return Ok(Applied::All.into()),
    };
    if observed.stateful_set.as_ref().is_some_and(|set| set.is_deleted) {
        return Ok(applied.into());
    }
    let written = write::<StatefulSet>(context, owner, &cluster.name, stateful_set).await?;
    // All of them, whatever comes of one: without a quorum the replaced ones may wait for the others.
    let mut evicted = Ok(());
    for pod in evict {
        evicted = evicted.and(self::evict(context, cluster, observed, pod).await);
    }
    evicted.map(|()| Done { applied, stateful_set: Some((&written).into()) })
}

/// What came of making volumes larger.
enum Resized {
    /// There was nothing to do, or it is done.
    Done,
    /// Their class cannot expand: everything else goes on.
    Refused(String),
    /// The StatefulSet is being deleted without its pods.
    SetDeleted,
}

/// Deletes it if it still is the one that was seen.
async fn delete_network_policy(context: &Context, cluster: &Validated, uid: &str) -> Result<(), Failure> {
    let params = DeleteParams::default().preconditions(this(uid));
    match context.api::<NetworkPolicy>(&cluster.namespace).delete(&cluster.name, &params).await {
        Err(error) if !is_status(&error, &[404]) => Err(failure(format!("NetworkPolicy {}", cluster.name), error)),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// The object of this identity, and no other that has come to its name.
fn this(uid: &str) -> Preconditions {
    Preconditions { uid: Some(uid.to_owned()), resource_version: None }
}

/// The claims first: if their class cannot expand, the StatefulSet stays as it is.
async fn resize(
    context: &Context,
    cluster: &Validated,
    observed: &Observed,
    resize: &Resize,
) -> Result<Resized, Failure> {
    let Resize { claims, size, is_set_outdated } = resize;
    let api = context.api::<PersistentVolumeClaim>(&cluster.namespace);
    for claim in claims {
        let version = observed.claims.get(claim).map(|claim| &claim.version);
        let patch = Patch::Merge(
            json!({"metadata": {"resourceVersion": version}, "spec": {"resources": {"requests": {"storage": size}}}}),
        );
        let patched = api.patch(claim, &PatchParams::default(), &patch).await;
        match patched.map_err(|error| failure(format!("PersistentVolumeClaim {claim}"), error)) {
            Ok(_) => {}
            Err(Failure::Stopped(Applied::Refused(why))) => return Ok(Resized::Refused(why)),
            Err(failure) => return Err(failure),
        }
    }
    if !is_set_outdated {
        return Ok(Resized::Done);
    }
    let uid = observed.stateful_set.as_ref().map(|set| set.uid.as_str()).unwrap_or_default();
    let params = DeleteParams::orphan().preconditions(this(uid));
    let deleted = context.api::<StatefulSet>(&cluster.namespace).delete(&cluster.name, &params).await;
    deleted.map_err(|error| failure(format!("StatefulSet {}", cluster.name), error))?;
    tracing::info!(cluster = cluster.name, namespace = cluster.namespace, size, "volumes are made larger");
    Ok(Resized::SetDeleted)
}

/// An eviction and not a deletion: the PodDisruptionBudget decides, together with whoever else drains nodes now.
async fn evict(context: &Context, cluster: &Validated, observed: &Observed, pod: &str) -> Result<(), Failure> {
    let uid = observed.pods.get(pod).map(|pod| pod.uid.as_str()).unwrap_or_default();
    let delete_options = Some(DeleteParams::default().preconditions(this(uid)));
    let params = EvictParams { delete_options, ..EvictParams::default() };
    match context.api::<Pod>(&cluster.namespace).evict(pod, &params).await {
        Ok(_) => {
            tracing::info!(
                cluster = cluster.name,
                namespace = cluster.namespace,
                pod,
                "replace pod of an earlier template"
            );
            Ok(())
        }
        // Gone already, another pod by now, or not now.
        Err(error) if is_status(&error, &[404, 409, 429]) => Ok(()),
        Err(error) => Err(failure(format!("eviction of {pod}"), error)),
    }
}
