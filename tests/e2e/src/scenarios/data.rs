//! Data is deleted only when somebody says so, and found again.

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::json;

use crate::api::{Api, number};
use crate::context::Context;
use crate::kube::Told;
use crate::manifests::{CLUSTER, GROUP, PARTITION_GROUP, cluster};
use crate::poll::{self, seconds};
use crate::world::{CLUSTERS, PARTITION_GROUP_KIND, PARTITION_GROUPS, World};

/// Refused with a condition and an event; with deletionPolicy Delete it goes.
pub(super) fn delete_partition_group_with_data(context: &Context<'_>) -> Result<()> {
    let world = World::apply(context)?;
    let before = world.wait_complete(0)?;
    context.kube.run(&["delete", PARTITION_GROUPS, PARTITION_GROUP, "--wait=false"])?;
    let told = Told { condition: "DeletionBlocked", status: "True", reason: "HoldsData" };
    let message = context.kube.wait_told(PARTITION_GROUP_KIND, PARTITION_GROUP, told, seconds(30))?;
    ensure!(message.contains("deletionPolicy"), "the condition does not say what to do: {message}");
    context.step(&format!("the condition says: {message}"));
    let after = world.wait_complete(0)?;
    ensure!(
        after.term == before.term,
        "the refused deletion changed the leader: term {} became {}",
        before.term,
        after.term
    );

    context.kube.patch(PARTITION_GROUPS, PARTITION_GROUP, &json!({"spec": {"deletionPolicy": "Delete"}}))?;
    context.kube.wait_gone(PARTITION_GROUPS, PARTITION_GROUP, seconds(60))?;
    let api = Api::open(&context.kube, &world.pods()?[0].name)?;
    poll::until("the sidecar to know the group no more", seconds(30), || {
        let answer = api.request("GET", &format!("/v1/groups/{GROUP}"), None)?;
        ensure!(answer.status >= 400 && answer.status < 500, "HTTP {}: {}", answer.status, answer.body);
        Ok(())
    })
}

/// A Cluster deleted and made again keeps its identity and data, terms go on rising.
pub(super) fn cluster_recreated_with_retained_volumes(context: &Context<'_>) -> Result<()> {
    let world = World::apply(context)?;
    let before = world.wait_complete(0)?;
    let identity = identity(context)?;
    let api = Api::open(&context.kube, &world.pods()?[0].name)?;
    let config = json!({"config": {"release_timeout_ms": "1234"}});
    api.request("PUT", "/v1/groups/kept", Some(&config))?.ok().context("make a group")?;
    drop(api);

    context.kube.run(&["delete", CLUSTERS, CLUSTER, "--timeout=60s"])?;
    poll::until("the pods to be gone", seconds(60), || {
        let pods = world.pods()?;
        ensure!(pods.is_empty(), "still there: {pods:?}");
        Ok(())
    })?;
    let claims = context.kube.list("persistentvolumeclaims", "")?;
    ensure!(claims.len() == 3, "{} volume claims were retained, not 3", claims.len());
    context.step("the Cluster is deleted, its volumes are retained");

    context.kube.apply(&cluster(CLUSTER, context.installation.image()).to_string())?;
    world.wait_ready()?;
    let after = world.wait_complete(before.term)?;
    let now = self::identity(context)?;
    ensure!(now == identity, "the identity was {identity} and is {now}");
    let kind = (crate::world::CLUSTER_KIND.1, CLUSTER);
    let said = context.kube.wait_event(kind, "VolumesAdopted", seconds(30))?;
    context.step(&format!("the event says: {said}"));
    let api = Api::open(&context.kube, &world.pods()?[1].name)?;
    let kept = api.group("kept")?;
    ensure!(
        number(&kept.raw["config"]["release_timeout_ms"]) == Some(1234),
        "the group's configuration is lost: {}",
        kept.raw
    );
    context.measured(format!("same identity {identity}; the term went from {} to {}", before.term, after.term));
    Ok(())
}

fn identity(context: &Context<'_>) -> Result<String> {
    poll::until("the Cluster's identity in its status", seconds(30), || {
        let status = context.kube.get(CLUSTERS, CLUSTER)?["status"].clone();
        let id = status["clusterId"].as_str().filter(|id| !id.is_empty()).map(str::to_owned);
        id.ok_or_else(|| anyhow!("the status is {status}"))
    })
}
