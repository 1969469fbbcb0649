//! Step "report" of the Cluster's controller: events at edges, then the status if it changed.

use coterie_crds::Cluster;
use coterie_crds::cluster::ClusterStatus;
use coterie_operator_core::cluster::{Observed, status};
use kube::{Resource as _, ResourceExt as _};

use crate::context::Context;
use crate::run;

pub(super) async fn report(
    context: &Context,
    cluster: &Cluster,
    previous: &ClusterStatus,
    next: ClusterStatus,
    observed: &Observed,
) -> Result<(), kube::Error> {
    if *previous == next && cluster.status.is_some() {
        return Ok(());
    }
    let mut events = status::events(previous, &next);
    events.extend(status::adopted(previous, &next, observed, cluster.metadata.creation_timestamp.as_ref()));
    context.publish(events, &cluster.object_ref(&())).await;
    let namespace = cluster.namespace().unwrap_or_default();
    run::write_status::<Cluster>(context, &namespace, &cluster.name_any(), &next).await
}
