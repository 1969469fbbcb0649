//! Step "observe" of the Cluster's controller: reads Kubernetes and asks the members. Shared with the PartitionGroup's.

use std::collections::BTreeMap;

use coterie_operator_core::cluster::observed::{Claim, Pod, StatefulSet};
use coterie_operator_core::cluster::ownership::{self, Standing};
use coterie_operator_core::cluster::status::Applied;
use coterie_operator_core::cluster::{Observed, Owner};
use coterie_operator_core::names;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet as StatefulSetObject;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod as PodObject};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use kube::api::{ListParams, ObjectMeta};

use crate::admin::{self, Caller};
use crate::certificates::{self, Certificates};
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

/// The Cluster's certificates, or what to report because of its authority.
pub(crate) type Certified = Result<Certificates, Applied>;

/// Everything that the later steps look at.
pub(crate) async fn observe(context: &Context, owner: &Owner) -> Result<(Observed, Certified), Error> {
    let Owner { name, namespace, uid: _ } = owner;
    let is_own = |metadata: &ObjectMeta| ownership::standing(owner, Some(metadata)) == Standing::Own;
    let set = context.api::<StatefulSetObject>(namespace).get_opt(name).await.map_err(Error::StatefulSet)?;
    let selected = ListParams::default().labels(&names::selector_text(name));
    let claims = context.api::<PersistentVolumeClaim>(namespace).list(&selected).await.map_err(Error::Claims)?;
    let policy = context.api::<NetworkPolicy>(namespace).get_opt(name).await.map_err(Error::NetworkPolicy)?;
    let claims: BTreeMap<String, Claim> =
        claims.items.iter().filter_map(|claim| Some((claim.metadata.name.clone()?, Claim::from(claim)))).collect();
    let has_unclassed = claims.values().any(|claim| !claim.is_bound && claim.storage_class.is_none());
    let (running, certified) = running(context, owner).await?;
    let observed = Observed {
        stateful_set: set.filter(|set| is_own(&set.metadata)).as_ref().map(StatefulSet::from),
        has_default_storage_class: if has_unclassed { has_default_class(context).await } else { None },
        claims: claims.into_iter().filter(|(claim, _)| names::is_claim(name, claim)).collect(),
        network_policy: policy.filter(|policy| is_own(&policy.metadata)).and_then(|policy| policy.metadata.uid),
        ..running
    };
    Ok((observed, certified))
}

/// What runs, whatever the spec is: the pods, and what the members say.
pub(crate) async fn running(context: &Context, owner: &Owner) -> Result<(Observed, Certified), Error> {
    let mut observed = Observed { pods: pods(context, owner).await?, ..Observed::default() };
    let certified = match certificates::read(context, owner).await {
        Err(certificates::Error::Stopped(applied)) => Err(applied),
        read => Ok(read?),
    };
    if let Ok(certificates) = &certified {
        observed.handover = certificates.handover(Timestamp::now().as_second());
    }
    if let Some(caller) = caller(&certified)? {
        observed.view = caller.poll(&observed).await;
    }
    Ok((observed, certified))
}

/// What is needed to ask the members something: their pods, and what they say. No caller before there are certificates.
pub(crate) async fn members(context: &Context, owner: &Owner) -> Result<(Observed, Option<Caller>), Error> {
    let (observed, certified) = running(context, owner).await?;
    let caller = caller(&certified)?;
    Ok((observed, caller))
}

fn caller(certified: &Certified) -> Result<Option<Caller>, admin::Error> {
    let Ok(certificates) = certified else { return Ok(None) };
    let authority = certificates.authority.as_ref();
    authority.map(|authority| Caller::new(authority, &certificates.trusted())).transpose()
}

async fn pods(context: &Context, owner: &Owner) -> Result<BTreeMap<String, Pod>, Error> {
    let selected = ListParams::default().labels(&names::selector_text(&owner.name));
    let pods = context.api::<PodObject>(&owner.namespace).list(&selected).await.map_err(Error::Pods)?;
    let own = pods.items.iter().filter_map(|pod| Some((pod.metadata.name.clone()?, Pod::from(pod))));
    Ok(own.filter(|(name, _)| names::index(&owner.name, name).is_some()).collect())
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
