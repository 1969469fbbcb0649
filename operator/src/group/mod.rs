//! The PartitionGroup's controller.

mod act;

use std::sync::Arc;
use std::time::Duration;

use coterie_crds::{Cluster, PartitionGroup};
use coterie_operator_core::cluster::{Observed, validate};
use coterie_operator_core::condition;
use coterie_operator_core::group::status::{self, Outcome};
use coterie_operator_core::group::{Decision, decide, decide_unread};
use jiff::Timestamp;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::runtime::reflector::Store;
use kube::{Resource as _, ResourceExt as _};

use crate::admin::Caller;
use crate::cluster::observe;
use crate::context::Context;
use crate::run;

/// How soon to look again at a group that was just made: its first leaders are elected in a moment.
const AT_ONCE: Duration = Duration::from_secs(1);
/// How soon to look again at a group that is not ready.
const SOON: Duration = Duration::from_secs(5);
/// How soon to look again at one that is: members are asked, not watched.
const LATER: Duration = Duration::from_secs(15);

/// Which step failed. All of these are tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Reading the Cluster failed.
    #[error("read the Cluster")]
    Cluster(#[source] kube::Error),
    /// Asking its members failed before any was asked.
    #[error("observe")]
    Observe(#[from] observe::Error),
    /// Setting or removing the finalizer failed.
    #[error("write the finalizer")]
    Finalizer(#[source] kube::Error),
    /// Writing the status failed.
    #[error("report")]
    Report(#[source] kube::Error),
}

/// What the PartitionGroup's reconciliations share.
pub(crate) struct Shared {
    /// What all reconciliations share.
    pub(crate) context: Arc<Context>,
    /// The PartitionGroups that there are, for finding two of one name.
    pub(crate) groups: Store<DeserializeGuard<PartitionGroup>>,
}

/// Makes the members' partition groups like the spec, one step nearer.
pub(crate) async fn reconcile(
    object: Arc<DeserializeGuard<PartitionGroup>>,
    shared: Arc<Shared>,
) -> Result<Action, Error> {
    let Shared { context, groups } = shared.as_ref();
    let group = match &object.0 {
        Ok(group) => group,
        Err(invalid) => {
            run::report_unreadable::<PartitionGroup>(context, invalid).await.map_err(Error::Report)?;
            return Ok(Action::await_change());
        }
    };
    if group.metadata.deletion_timestamp.is_some() && !act::has_finalizer(group) {
        return Ok(Action::await_change());
    }
    let namespace = group.namespace().unwrap_or_default();
    let (cluster, observed, caller) = observe(context, group, &namespace).await?;
    let siblings: Vec<PartitionGroup> = groups
        .state()
        .into_iter()
        .filter_map(|other| other.0.as_ref().ok().filter(|other| other.namespace() == group.namespace()).cloned())
        .collect();
    let decision = match &cluster {
        Referred::Missing => decide(group, &siblings, None, &observed.view),
        Referred::Unreadable(why) => decide_unread(group, why),
        Referred::Found(cluster) => decide(group, &siblings, Some(cluster), &observed.view),
    };
    let (outcome, is_gone) =
        act::act(context, group, &decision, &observed, caller.as_ref()).await.map_err(Error::Finalizer)?;
    if is_gone {
        return Ok(Action::await_change());
    }
    let previous = group.status.clone().unwrap_or_default();
    let next = status::status(group, &decision, &outcome, &observed.view, Timestamp::now());
    let is_settled = condition::is_true(&next.conditions, status::READY);
    if previous != next || group.status.is_none() {
        context.publish(status::events(&previous, &next), &group.object_ref(&())).await;
        run::write_status::<PartitionGroup>(context, &namespace, &group.name_any(), &next)
            .await
            .map_err(Error::Report)?;
    }
    let is_new = matches!(decision, Decision::Apply(_)) && outcome == Outcome::Done;
    Ok(Action::requeue(match (is_settled, is_new) {
        (true, _) => LATER,
        (false, true) => AT_ONCE,
        (false, false) => SOON,
    }))
}

/// The Cluster that a group refers to.
enum Referred {
    /// There is none of this name.
    Missing,
    /// There is one that this version cannot read: why.
    Unreadable(String),
    /// This one.
    Found(Box<Cluster>),
}

/// The Cluster, its pods, and what they say. A Cluster whose spec cannot be followed has nobody to ask.
async fn observe(
    context: &Context,
    group: &PartitionGroup,
    namespace: &str,
) -> Result<(Referred, Observed, Option<Caller>), Error> {
    let name = &group.spec.cluster_ref.name;
    let found = context.api::<DeserializeGuard<Cluster>>(namespace).get_opt(name).await.map_err(Error::Cluster)?;
    let cluster = match found {
        None => return Ok((Referred::Missing, Observed::default(), None)),
        Some(DeserializeGuard(Err(invalid))) => {
            return Ok((Referred::Unreadable(invalid.error), Observed::default(), None));
        }
        Some(DeserializeGuard(Ok(cluster))) => Box::new(cluster),
    };
    let Ok(validated) = validate(&cluster, &context.defaults) else {
        return Ok((Referred::Found(cluster), Observed::default(), None));
    };
    let (observed, caller) = observe::members(context, &validated.owner()).await?;
    Ok((Referred::Found(cluster), observed, caller))
}
