//! Step "apply" of the PartitionGroup's controller: asks the members, and keeps the finalizer.

use coterie_crds::PartitionGroup;
use coterie_operator_core::cluster::Observed;
use coterie_operator_core::group::Decision;
use coterie_operator_core::group::status::Outcome;
use coterie_operator_core::names;
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::admin::Caller;
use crate::context::Context;

/// Does what was decided. Says what came of it, and whether the object is gone with it.
pub(super) async fn act(
    context: &Context,
    group: &PartitionGroup,
    decision: &Decision,
    observed: &Observed,
    caller: Option<&Caller>,
) -> Result<(Outcome, bool), kube::Error> {
    let nobody = || Outcome::Later("the Cluster has no certificates yet".to_owned());
    match decision {
        Decision::Invalid(_)
        | Decision::NameConflict(_)
        | Decision::ClusterNotFound(_)
        | Decision::ClusterNotReady(_)
        | Decision::DeleteLater(_) => Ok((Outcome::Done, false)),
        Decision::Settled(_) => {
            set_finalizer(context, group, true).await?;
            Ok((Outcome::Done, false))
        }
        Decision::Apply(wanted) => {
            // Before it is made: from then on there may be data.
            set_finalizer(context, group, true).await?;
            let Some(caller) = caller else { return Ok((nobody(), false)) };
            Ok((caller.apply(observed, wanted).await, false))
        }
        Decision::Delete { name, force } => {
            let Some(caller) = caller else { return Ok((nobody(), false)) };
            let outcome = caller.delete(observed, name, *force).await;
            let is_gone = outcome == Outcome::Done;
            if is_gone {
                set_finalizer(context, group, false).await?;
            }
            Ok((outcome, is_gone))
        }
        Decision::Release => {
            set_finalizer(context, group, false).await?;
            Ok((Outcome::Done, true))
        }
    }
}

/// Whether the object waits for the operator when it is deleted.
pub(super) fn has_finalizer(group: &PartitionGroup) -> bool {
    group.finalizers().iter().any(|finalizer| finalizer == names::FINALIZER)
}

/// Sets or removes the finalizer. The version makes it fail when somebody else changed the list meanwhile.
async fn set_finalizer(context: &Context, group: &PartitionGroup, wanted: bool) -> Result<(), kube::Error> {
    if has_finalizer(group) == wanted {
        return Ok(());
    }
    let mut finalizers: Vec<&str> =
        group.finalizers().iter().map(String::as_str).filter(|name| *name != names::FINALIZER).collect();
    if wanted {
        finalizers.push(names::FINALIZER);
    }
    let patch = json!({"metadata": {"resourceVersion": group.resource_version(), "finalizers": finalizers}});
    let api = context.api::<PartitionGroup>(&group.namespace().unwrap_or_default());
    api.patch(&group.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
}
