//! Writing one object of a Cluster's, and only if it is the Cluster's.

use std::fmt::Debug;

use coterie_operator_core::cluster::status::Applied;
use coterie_operator_core::cluster::{Owner, ownership};
use coterie_operator_core::names;
use k8s_openapi::NamespaceResourceScope;
use kube::Resource;
use kube::api::{Patch, PatchParams};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::context::Context;

/// How often an object is read again because it changed before it was written.
const TRIES: u32 = 3;

/// What could not be written for now.
#[derive(Debug, thiserror::Error)]
#[error("write {what}")]
pub(crate) struct Error {
    what: String,
    #[source]
    source: kube::Error,
}

/// How a write ended that did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Another try changes nothing: what to report.
    Stopped(Applied),
    /// Another try may succeed.
    Failed(Error),
}

/// Applies an object, and gives it as it is since. By force where fields are concerned, never where another's object is: it
/// is read first, and the apply holds only for the version that was read, or if there still is none. (Without force would
/// not do: what is not in conflict would be written. Creating it would not do either: an apply later removes only what an
/// apply wrote.)
pub(crate) async fn write<K>(
    context: &Context,
    owner: &Owner,
    name: &str,
    object: &(impl Serialize + Debug),
) -> Result<K, Failure>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let api = context.api::<K>(&owner.namespace);
    let failed = |error| failure(format!("{} {name}", K::kind(&())), error);
    let mut object = serde_json::to_value(object).expect("objects of Kubernetes are JSON");
    let params = PatchParams::apply(names::MANAGER).force();
    let mut tries = 0;
    loop {
        tries += 1;
        let there = api.get_metadata_opt(name).await.map_err(failed)?;
        let there = there.as_ref().map(|there| &there.metadata);
        let version = ownership::version(owner, &K::kind(&()), name, there).map_err(Failure::Stopped)?;
        object["metadata"]["resourceVersion"] = version.into();
        match api.patch(name, &params, &Patch::Apply(&object)).await {
            Err(error) if is_status(&error, &[409]) && tries < TRIES => {}
            written => return written.map_err(failed),
        }
    }
}

/// Whether the API server answered with one of these.
pub(crate) fn is_status(error: &kube::Error, codes: &[u16]) -> bool {
    matches!(error, kube::Error::Api(status) if codes.contains(&status.code))
}

/// What a refusal means.
pub(crate) fn failure(what: String, error: kube::Error) -> Failure {
    match &error {
        // Not valid, or not allowed (a quota, a policy): only a person can mend it. The API server says 500 for a field that it
        // does not know in a server-side apply.
        kube::Error::Api(status)
            if [400, 403, 422].contains(&status.code)
                || status.message.starts_with("failed to create typed patch object") =>
        {
            Failure::Stopped(Applied::Refused(format!("{what}: {}", status.message)))
        }
        _ => Failure::Failed(Error { what, source: error }),
    }
}
