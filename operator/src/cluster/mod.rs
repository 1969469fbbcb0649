//! The Cluster's controller.

mod apply;
pub(crate) mod observe;
mod report;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use coterie_crds::Cluster;
use coterie_operator_core::cluster::status::{self, Report};
use coterie_operator_core::cluster::{Observed, Owner, plan, validate};
use coterie_operator_core::condition;
use jiff::Timestamp;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;

use self::apply::Done;
use crate::certificates;
use crate::context::Context;

/// How soon to look again at a Cluster that is not ready.
const SOON: Duration = Duration::from_secs(5);
/// How soon to look again at one that is: members are asked, not watched.
const LATER: Duration = Duration::from_secs(15);

/// Which step failed. All of these are tried again; what a person must mend is a condition instead.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Reading failed.
    #[error("observe")]
    Observe(#[from] observe::Error),
    /// Writing failed.
    #[error("apply")]
    Apply(#[from] apply::Error),
    /// Writing the status failed.
    #[error("report")]
    Report(#[source] kube::Error),
}

/// Makes the world like the spec, one step nearer.
pub(crate) async fn reconcile(object: Arc<DeserializeGuard<Cluster>>, context: Arc<Context>) -> Result<Action, Error> {
    let cluster = match &object.0 {
        Ok(cluster) => cluster,
        Err(invalid) => {
            crate::run::report_unreadable::<Cluster>(&context, invalid).await.map_err(Error::Report)?;
            if invalid.metadata.deletion_timestamp.is_some() {
                return Ok(Action::await_change());
            }
            keep_certified(&context, &Owner::from(&invalid.metadata)).await?;
            return Ok(Action::requeue(LATER));
        }
    };
    if cluster.metadata.deletion_timestamp.is_some() {
        // What it owns goes with it.
        return Ok(Action::await_change());
    }
    let generation = cluster.metadata.generation;
    let previous = cluster.status.clone().unwrap_or_default();
    let owner = Owner::from(cluster);
    let validated = match validate(cluster, &context.defaults) {
        Ok(validated) => validated,
        Err(error) => {
            let observed = keep_certified(&context, &owner).await?;
            let next = status::invalid(&error, generation, &observed, &previous, Timestamp::now());
            report::report(&context, cluster, &previous, next, &observed).await.map_err(Error::Report)?;
            return Ok(Action::requeue(LATER));
        }
    };
    let (mut observed, certified) = observe::observe(&context, &owner).await?;
    let desired = plan(&validated, &observed);
    let Done { applied, stateful_set } = match certified {
        Ok(certificates) => apply::apply(&context, &validated, &observed, &desired, certificates).await?,
        Err(applied) => applied.into(),
    };
    // What was applied just now is what is reported on: the earlier one would look settled.
    observed.stateful_set = stateful_set.or(observed.stateful_set);
    let report = Report {
        cluster: &validated,
        generation,
        observed: &observed,
        desired: &desired,
        applied: &applied,
        previous: &previous,
    };
    let next = status::status(report, Timestamp::now());
    let is_settled = condition::is_true(&next.conditions, status::READY) && desired.evict.is_empty();
    report::report(&context, cluster, &previous, next, &observed).await.map_err(Error::Report)?;
    Ok(Action::requeue(if is_settled { LATER } else { SOON }))
}

/// What goes on whatever the spec says: members that run get their certificates renewed. Gives what runs.
async fn keep_certified(context: &Context, owner: &Owner) -> Result<Observed, Error> {
    let (observed, certified) = observe::running(context, owner).await?;
    let renewed = match certified {
        Ok(certificates) => certificates::renew(context, owner, certificates).await,
        Err(applied) => Err(certificates::Error::Stopped(applied)),
    };
    // The condition that is there already says what to mend first.
    if let Err(error) = renewed {
        tracing::warn!(cluster = owner.name, namespace = owner.namespace, %error, "renew certificates");
    }
    Ok(observed)
}
