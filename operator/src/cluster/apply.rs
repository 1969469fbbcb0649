//! Step "apply" of the Cluster's controller: writes what should be there, what a pod needs before the pod.

use std::fmt::Debug;

use coterie_operator_core::cluster::plan::{Desired, Resize};
use coterie_operator_core::cluster::status::Applied;
use coterie_operator_core::cluster::{Observed, Validated};
use coterie_operator_core::names;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Resource;
use kube::api::{DeleteParams, EvictParams, Patch, PatchParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::certificates::{self, Authority};
use crate::context::Context;

/// What could not be written for now. What the API server refuses for good is [`Applied::Refused`] instead.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Certificates.
    #[error("make certificates")]
    Certificates(#[from] certificates::Error),
    /// An object.
    #[error("write {what}")]
    Write {
        what: String,
        #[source]
        source: kube::Error,
    },
}

/// How a write ended that did not succeed.
enum Failure {
    /// The API server will say the same again.
    Refused(String),
    /// Another try may succeed.
    Failed(Error),
}

/// Applies everything, unless the Cluster is paused.
pub(crate) async fn apply(
    context: &Context,
    cluster: &Validated,
    observed: &Observed,
    desired: &Desired,
    authority: Option<Authority>,
) -> Result<Applied, Error> {
    if cluster.paused {
        return Ok(Applied::Paused);
    }
    certificates::ensure(context, cluster, authority).await?;
    match objects(context, cluster, observed, desired).await {
        Ok(applied) => Ok(applied),
        Err(Failure::Refused(why)) => Ok(Applied::Refused(why)),
        Err(Failure::Failed(error)) => Err(error),
    }
}

async fn objects(
    context: &Context,
    cluster: &Validated,
    observed: &Observed,
    desired: &Desired,
) -> Result<Applied, Failure> {
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
    let namespace = &cluster.namespace;
    write::<ServiceAccount>(context, namespace, &names::service_account(&cluster.name), service_account).await?;
    write::<ConfigMap>(context, namespace, &names::configuration(&cluster.name), configuration).await?;
    write::<Service>(context, namespace, &names::service(&cluster.name), service).await?;
    match network_policy {
        Some(policy) => write::<NetworkPolicy>(context, namespace, &cluster.name, policy).await?,
        None if observed.has_network_policy => delete_network_policy(context, cluster).await?,
        None => {}
    }
    write::<PodDisruptionBudget>(context, namespace, &cluster.name, disruption_budget).await?;
    let resized = match resize {
        Some(resize) => self::resize(context, cluster, resize).await?,
        None => Resized::Done,
    };
    let applied = match resized {
        Resized::Done => Applied::All,
        Resized::Refused(why) => Applied::ResizeRefused(why),
        // Made again when it is gone.
        Resized::SetDeleted => return Ok(Applied::All),
    };
    if observed.stateful_set.as_ref().is_some_and(|set| set.is_deleted) {
        return Ok(applied);
    }
    write::<StatefulSet>(context, namespace, &cluster.name, stateful_set).await?;
    // All of them, whatever comes of one: without a quorum the replaced ones may wait for the others.
    let mut evicted = Ok(());
    for pod in evict {
        evicted = evicted.and(self::evict(context, cluster, pod).await);
    }
    evicted.map(|()| applied)
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

async fn write<K>(
    context: &Context,
    namespace: &str,
    name: &str,
    object: &(impl Serialize + Debug),
) -> Result<(), Failure>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let params = PatchParams::apply(names::MANAGER).force();
    let written = context.api::<K>(namespace).patch(name, &params, &Patch::Apply(object)).await;
    written.map(drop).map_err(|error| failure(format!("{} {name}", K::kind(&())), error))
}

async fn delete_network_policy(context: &Context, cluster: &Validated) -> Result<(), Failure> {
    match context.api::<NetworkPolicy>(&cluster.namespace).delete(&cluster.name, &DeleteParams::default()).await {
        Err(error) if !is_status(&error, &[404]) => Err(failure("NetworkPolicy".to_owned(), error)),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// The claims first: if their class cannot expand, the StatefulSet stays as it is.
async fn resize(context: &Context, cluster: &Validated, resize: &Resize) -> Result<Resized, Failure> {
    let Resize { claims, size, is_set_outdated } = resize;
    let api = context.api::<PersistentVolumeClaim>(&cluster.namespace);
    for claim in claims {
        let patch = Patch::Merge(json!({"spec": {"resources": {"requests": {"storage": size}}}}));
        let patched = api.patch(claim, &PatchParams::default(), &patch).await;
        match patched.map_err(|error| failure(format!("PersistentVolumeClaim {claim}"), error)) {
            Ok(_) => {}
            Err(Failure::Refused(why)) => return Ok(Resized::Refused(why)),
            Err(failed @ Failure::Failed(_)) => return Err(failed),
        }
    }
    if !is_set_outdated {
        return Ok(Resized::Done);
    }
    let deleted = context.api::<StatefulSet>(&cluster.namespace).delete(&cluster.name, &DeleteParams::orphan()).await;
    deleted.map_err(|error| failure(format!("StatefulSet {}", cluster.name), error))?;
    tracing::info!(cluster = cluster.name, namespace = cluster.namespace, size, "volumes are made larger");
    Ok(Resized::SetDeleted)
}

/// An eviction and not a deletion: the PodDisruptionBudget decides, together with whoever else drains nodes now.
async fn evict(context: &Context, cluster: &Validated, pod: &str) -> Result<(), Failure> {
    match context.api::<Pod>(&cluster.namespace).evict(pod, &EvictParams::default()).await {
        Ok(_) => {
            tracing::info!(
                cluster = cluster.name,
                namespace = cluster.namespace,
                pod,
                "replace pod of an earlier template"
            );
            Ok(())
        }
        // Gone already, or not now.
        Err(error) if is_status(&error, &[404, 409, 429]) => Ok(()),
        Err(error) => Err(failure(format!("eviction of {pod}"), error)),
    }
}

fn is_status(error: &kube::Error, codes: &[u16]) -> bool {
    matches!(error, kube::Error::Api(status) if codes.contains(&status.code))
}

fn failure(what: String, error: kube::Error) -> Failure {
    match &error {
        // Not valid, or not allowed (a quota, a policy): only a person can mend it. The API server says 500 for a field that it
        // does not know in a server-side apply.
        kube::Error::Api(status)
            if [400, 403, 422].contains(&status.code)
                || status.message.starts_with("failed to create typed patch object") =>
        {
            Failure::Refused(format!("{what}: {}", status.message))
        }
        _ => Failure::Failed(Error::Write { what, source: error }),
    }
}
