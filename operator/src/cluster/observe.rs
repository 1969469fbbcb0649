//! Step "observe" of the Cluster's controller: reads Kubernetes and asks the members. Shared with the PartitionGroup's.

use std::collections::BTreeMap;

use coterie_operator_core::cluster::observed::{Claim, Pod, StatefulSet};
use coterie_operator_core::cluster::{Observed, Validated};
use coterie_operator_core::members::View;
use coterie_operator_core::names;
use k8s_openapi::api::apps::v1::StatefulSet as StatefulSetObject;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod as PodObject};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use kube::api::ListParams;

use crate::admin::{self, Caller};
use crate::certificates::{self, Authority};
use crate::context::Context;

/// Which part could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The StatefulSet.
    #[error("read the StatefulSet")]
    StatefulSet(#[source] kube::Error),
    /// The pods.
    #[error("list the pods")]
    Pods(#[source] kube::Error),
    /// The claims.
    #[error("list the claims")]
    Claims(#[source] kube::Error),
    /// The NetworkPolicy.
    #[error("read the NetworkPolicy")]
    NetworkPolicy(#[source] kube::Error),
    /// The certificates.
    #[error("read the certificates")]
    Certificates(#[from] certificates::Error),
    /// What calls the members.
    #[error("prepare to ask the members")]
    Caller(#[from] admin::Error),
}

/// The annotation of the default storage class.
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// Everything that the later steps look at, and the Cluster's authority if it has one.
pub(crate) async fn observe(context: &Context, cluster: &Validated) -> Result<(Observed, Option<Authority>), Error> {
    let set = context
        .api::<StatefulSetObject>(&cluster.namespace)
        .get_opt(&cluster.name)
        .await
        .map_err(Error::StatefulSet)?;
    let selected = ListParams::default().labels(&names::selector_text(&cluster.name));
    let claims =
        context.api::<PersistentVolumeClaim>(&cluster.namespace).list(&selected).await.map_err(Error::Claims)?;
    let policy =
        context.api::<NetworkPolicy>(&cluster.namespace).get_opt(&cluster.name).await.map_err(Error::NetworkPolicy)?;
    let claims: BTreeMap<String, Claim> =
        claims.items.iter().filter_map(|claim| Some((claim.metadata.name.clone()?, Claim::from(claim)))).collect();
    let has_unclassed = claims.values().any(|claim| !claim.is_bound && claim.storage_class.is_none());
    let mut observed = Observed {
        stateful_set: set.as_ref().map(StatefulSet::from),
        pods: pods(context, cluster).await?,
        has_default_storage_class: if has_unclassed { has_default_class(context).await } else { None },
        claims,
        has_network_policy: policy.is_some(),
        view: View::default(),
    };
    let authority = certificates::read(context, cluster).await?;
    if let Some(authority) = &authority {
        observed.view = Caller::new(authority)?.poll(&observed).await;
    }
    Ok((observed, authority))
}

/// What is needed to ask the members something: their pods, and what they say. No caller before there are certificates.
pub(crate) async fn members(context: &Context, cluster: &Validated) -> Result<(Observed, Option<Caller>), Error> {
    let mut observed = Observed { pods: pods(context, cluster).await?, ..Observed::default() };
    let Some(authority) = certificates::read(context, cluster).await? else { return Ok((observed, None)) };
    let caller = Caller::new(&authority)?;
    observed.view = caller.poll(&observed).await;
    Ok((observed, Some(caller)))
}

async fn pods(context: &Context, cluster: &Validated) -> Result<BTreeMap<String, Pod>, Error> {
    let selected = ListParams::default().labels(&names::selector_text(&cluster.name));
    let pods = context.api::<PodObject>(&cluster.namespace).list(&selected).await.map_err(Error::Pods)?;
    let own = pods.items.iter().filter_map(|pod| Some((pod.metadata.name.clone()?, Pod::from(pod))));
    Ok(own.filter(|(name, _)| names::index(&cluster.name, name).is_some()).collect())
}

/// `None` when the operator may not look, as when it is bound to one namespace.
async fn has_default_class(context: &Context) -> Option<bool> {
    let classes = Api::<StorageClass>::all(context.client.clone()).list(&ListParams::default()).await.ok()?;
    let is_default = |class: &StorageClass| {
        class
            .metadata
            .annotations
            .as_ref()
            .and_then(|annotations| annotations.get(DEFAULT_CLASS))
            .is_some_and(|value| value == "true")
    };
    Some(classes.items.iter().any(is_default))
}
