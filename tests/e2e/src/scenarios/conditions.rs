//! What the operator cannot do, it says: a condition on the resource, and an event.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::context::Context;
use crate::kube::Told;
use crate::manifests::{CLUSTER, PARTITION_GROUP, cluster, partition_group, sidecars_alone};
use crate::poll::seconds;
use crate::world::{CLUSTER_KIND, CLUSTERS, PARTITION_GROUP_KIND, PARTITION_GROUPS, READY, World};

const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// A condition and an event say it; with a default class the Cluster becomes ready by itself.
pub(super) fn no_default_storage_class(context: &Context<'_>) -> Result<()> {
    let classes = context.kube.list("storageclasses", "")?;
    let is_default = |class: &&serde_json::Value| class["metadata"]["annotations"][DEFAULT_CLASS] == "true";
    let defaults: Vec<_> =
        classes.iter().filter(is_default).map(|c| c["metadata"]["name"].as_str().unwrap_or_default()).collect();
    let set = |value: &str| -> Result<()> {
        defaults.iter().try_for_each(|class| {
            context.kube.patch("storageclass", class, &json!({"metadata": {"annotations": {DEFAULT_CLASS: value}}}))
        })
    };
    set("false")?;
    let told = (|| {
        context.kube.apply(&sidecars_alone(CLUSTER).to_string())?;
        let told = Told { condition: "Ready", status: "False", reason: "NoDefaultStorageClass" };
        let message = context.kube.wait_told(CLUSTER_KIND, CLUSTER, told, seconds(60))?;
        ensure!(message.contains("storageClassName"), "the condition does not say what to do: {message}");
        Ok(message)
    })();
    // The class becomes the default again, whatever came.
    set("true")?;
    context.step(&format!("the condition says: {}", told?));
    context.kube.wait_condition((CLUSTERS, CLUSTER), "Ready", "True", READY).map(drop)
}

/// What the API server cannot see is wrong gets a condition and an event; the operator goes on, and follows the mended spec.
pub(super) fn bad_spec_that_slips_through(context: &Context<'_>) -> Result<()> {
    let restarts = operator_restarts(context)?;
    let right = cluster(CLUSTER, context.installation.image());
    let told = |reason| Told { condition: "Ready", status: "False", reason };

    let mut wrong = right.clone();
    wrong["spec"]["template"]["metadata"]["labels"] = json!(["no", "map"]);
    context.kube.apply(&wrong.to_string())?;
    let message = context.kube.wait_told(CLUSTER_KIND, CLUSTER, told("InvalidSpec"), seconds(30))?;
    ensure!(message.contains("spec.template.metadata.labels"), "the condition does not name the field: {message}");
    context.step(&format!("the condition says: {message}"));

    let mut refused = right.clone();
    refused["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"] = json!("Sometimes");
    context.kube.apply(&refused.to_string())?;
    let message = context.kube.wait_told(CLUSTER_KIND, CLUSTER, told("ApplyRefused"), seconds(30))?;
    ensure!(message.contains("imagePullPolicy"), "the condition does not name the field: {message}");
    context.step(&format!("the condition says: {message}"));

    let mut large = partition_group(PARTITION_GROUP, CLUSTER);
    large["spec"]["replicas"] = json!(5);
    context.kube.apply(&large.to_string())?;
    context.kube.apply(&right.to_string())?;
    context.kube.wait_condition((CLUSTERS, CLUSTER), "Ready", "True", READY)?;
    let said = context.kube.wait_condition((PARTITION_GROUPS, PARTITION_GROUP), "Ready", "False", seconds(30))?;
    ensure!(said["message"].to_string().contains("replicas"), "the condition does not name the field: {said}");
    context.step(&format!("the condition says: {}", said["message"]));

    ensure!(operator_restarts(context)? == restarts, "the operator restarted");
    Ok(())
}

fn operator_restarts(context: &Context<'_>) -> Result<u64> {
    let pods = context.installation.kubectl().list("pods", context.installation.operator_labels())?;
    Ok(pods.iter().filter_map(|pod| pod["status"]["containerStatuses"][0]["restartCount"].as_u64()).sum())
}

/// A condition and an event say it; once the Cluster is there the PartitionGroup becomes ready.
pub(super) fn partition_group_without_cluster(context: &Context<'_>) -> Result<()> {
    context.kube.apply(&partition_group(PARTITION_GROUP, CLUSTER).to_string())?;
    let told = Told { condition: "Ready", status: "False", reason: "ClusterNotFound" };
    let message = context.kube.wait_told(PARTITION_GROUP_KIND, PARTITION_GROUP, told, seconds(30))?;
    ensure!(message.contains(CLUSTER), "the condition does not name the Cluster: {message}");
    context.step(&format!("the condition says: {message}"));
    context.kube.apply(&cluster(CLUSTER, context.installation.image()).to_string())?;
    context.kube.wait_condition((PARTITION_GROUPS, PARTITION_GROUP), "Ready", "True", READY).map(drop)
}

/// The second of two with one name gets a condition and an event and changes nothing.
pub(super) fn two_partition_groups_one_name(context: &Context<'_>) -> Result<()> {
    let world = World::apply(context)?;
    let mut second = partition_group("second", CLUSTER);
    second["spec"]["name"] = json!(PARTITION_GROUP);
    second["spec"]["partitions"] = json!(2);
    context.kube.apply(&second.to_string())?;
    let told = Told { condition: "NameConflict", status: "True", reason: "NameConflict" };
    let message = context.kube.wait_told(PARTITION_GROUP_KIND, "second", told, seconds(30))?;
    ensure!(message.contains(PARTITION_GROUP), "the condition does not name the first: {message}");
    context.step(&format!("the condition says: {message}"));
    // Deleting the one that was refused must not touch the other's data.
    context.kube.run(&["delete", PARTITION_GROUPS, "second", "--timeout=30s"]).context("delete the second")?;
    world.wait_ready()?;
    world.wait_complete(0).map(drop)
}

/// Fewer replicas than voters: the pods stay, a condition and an event say why.
pub(super) fn scale_down_blocked(context: &Context<'_>) -> Result<()> {
    let world = World::apply(context)?;
    context.kube.run(&["scale", CLUSTERS, CLUSTER, "--replicas=1"])?;
    let told = Told { condition: "ScaleDownBlocked", status: "True", reason: "VotersCannotBeRemoved" };
    let message = context.kube.wait_told(CLUSTER_KIND, CLUSTER, told, seconds(30))?;
    context.step(&format!("the condition says: {message}"));
    let sets = context.kube.list("statefulsets", &format!("coterie.dev/cluster={CLUSTER}"))?;
    ensure!(
        sets.iter().all(|set| set["spec"]["replicas"] == 3),
        "the StatefulSet was scaled: {:?}",
        sets.iter().map(|s| &s["spec"]["replicas"]).collect::<Vec<_>>()
    );
    ensure!(world.pods()?.iter().filter(|pod| pod.ready).count() == 3, "a pod went: {:?}", world.pods()?);
    context.kube.run(&["scale", CLUSTERS, CLUSTER, "--replicas=3"])?;
    context.kube.wait_condition((CLUSTERS, CLUSTER), "ScaleDownBlocked", "False", seconds(30)).map(drop)
}
