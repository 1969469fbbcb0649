//! The chart's life: upgrade, uninstall, install again.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::context::Context;
use crate::manifests::CLUSTER;
use crate::poll::{self, seconds};
use crate::world::{CLUSTERS, PARTITION_GROUPS, World};

/// A log level that the pods do not have yet.
const LOG_LEVEL: &str = "info,openraft=info";
const CRDS: [&str; 2] = ["clusters.coterie.dev", "partitiongroups.coterie.dev"];

/// Upgrade changes the CRDs; uninstall keeps CRDs, resources and running pods; a new install goes on.
pub(super) fn helm_upgrade_and_uninstall_keep_crds(context: &Context<'_>) -> Result<()> {
    let world = World::apply(context)?;
    let pods = world.pods()?;

    // A definition that lacks what the chart has stands for an older version's.
    for crd in CRDS {
        context
            .kube
            .patch("crd", crd, &json!({"spec": {"names": {"shortNames": ["old"]}}}))
            .with_context(|| format!("change {crd}"))?;
    }
    context.installation.install(&["resources.requests.cpu=11m"])?;
    for crd in CRDS {
        let names = context.kube.get("crd", crd)?["spec"]["names"]["shortNames"].to_string();
        ensure!(!names.contains("old"), "helm upgrade left {crd} as it was: {names}");
    }
    context.step("helm upgrade brought the CRDs up to date");

    context.installation.uninstall()?;
    for crd in CRDS {
        context.kube.get("crd", crd).context("helm uninstall must keep the CRDs")?;
    }
    context.kube.get(CLUSTERS, CLUSTER).context("helm uninstall must keep the Clusters")?;
    let kept = world.pods()?;
    ensure!(kept == pods, "helm uninstall touched the pods: {pods:?} became {kept:?}");
    world.wait_complete(0)?;
    context.step("helm uninstall kept CRDs, resources and pods; the group goes on");

    context.installation.install(&[])?;
    context.kube.patch(CLUSTERS, CLUSTER, &json!({"spec": {"sidecar": {"logLevel": LOG_LEVEL}}}))?;
    poll::until("the new operator to roll out a change", seconds(180), || {
        let pods = context.kube.list("pods", &format!("coterie.dev/cluster={CLUSTER}"))?;
        let outdated = pods.iter().filter(|pod| !pod["spec"]["initContainers"].to_string().contains(LOG_LEVEL)).count();
        ensure!(pods.len() == 3 && outdated == 0, "{outdated} of {} pods have the earlier log level", pods.len());
        Ok(())
    })?;
    context.step("the new operator rolled out a change");
    context.kube.wait_condition((CLUSTERS, CLUSTER), "Ready", "True", seconds(180))?;
    context.kube.wait_condition((PARTITION_GROUPS, "data"), "Ready", "True", seconds(60)).map(drop)
}
