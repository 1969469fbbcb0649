//! The main job, with the samples that users copy.

use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::api::Api;
use crate::context::Context;
use crate::environment::repository;
use crate::manifests::GROUP;
use crate::poll::{self, seconds};
use crate::world::{CLUSTERS, ELECTED, PARTITION_GROUPS, READY};

/// The image of the samples, for which the tested one is put.
const SAMPLE_IMAGE: &str = "ghcr.io/coterie-dev/coterie:0.1.0";

/// helm install, kubectl apply of the samples, one application leads, columns and status tell it.
pub(super) fn helm_install_apply_elect(context: &Context<'_>) -> Result<()> {
    let started = Instant::now();
    let said = context.installation.install(&[])?;
    ensure!(context.installation.status()?["info"]["status"] == "deployed", "helm says: {said}");
    context.measured(format!("helm install: operator ready after {:.1} s", started.elapsed().as_secs_f64()));

    let applied = Instant::now();
    apply_sample(context, "cluster.yaml")?;
    let (cluster, group) = (only(context, CLUSTERS)?, only(context, PARTITION_GROUPS)?);
    context.kube.wait_condition((CLUSTERS, &cluster), "Ready", "True", READY)?;
    context.kube.wait_condition((PARTITION_GROUPS, &group), "Ready", "True", READY)?;
    context.measured(format!(
        "kubectl apply: Cluster and PartitionGroup ready after {:.1} s",
        applied.elapsed().as_secs_f64()
    ));

    let pods = context.kube.pods(&format!("coterie.dev/cluster={cluster},coterie.dev/role=member"))?;
    let views = poll::until("every sidecar to tell the same leader", ELECTED, || {
        let views =
            pods.iter().map(|pod| Api::open(&context.kube, &pod.name)?.group(GROUP)).collect::<Result<Vec<_>>>()?;
        let first = views.first().and_then(|view| view.leader.clone()).ok_or_else(|| anyhow!("nobody leads"))?;
        ensure!(
            views.iter().all(|v| v.leader.as_ref() == Some(&first) && v.members.len() == pods.len()),
            "they see {views:?}"
        );
        Ok(views)
    })?;
    let leader = views[0].leader.clone().unwrap_or_default();
    context.measured(format!(
        "{leader} leads in term {}, {:.1} s after kubectl apply",
        views[0].term,
        applied.elapsed().as_secs_f64()
    ));

    let cli = context.kube.run(&["exec", &leader, "-c", "coterie", "--", "/coterie", "group", GROUP])?;
    ensure!(cli.contains(&views[0].term.to_string()), "`coterie group {GROUP}` does not tell the term: {cli}");

    let columns = context.kube.run(&["get", "cot,cpg"])?;
    for word in ["READY", "LEADER", "TERM", "LEADERS", "Running", "3/3"] {
        ensure!(columns.contains(word), "`kubectl get cot,cpg` does not show {word}:\n{columns}");
    }
    let status = context.kube.get(PARTITION_GROUPS, &group)?["status"].clone();
    let partitions = status["partitions"].as_array().cloned().unwrap_or_default();
    let told = partitions.iter().all(|p| p["leader"].is_string() && p["term"].as_u64().is_some_and(|term| term > 0));
    ensure!(!partitions.is_empty() && told, "the status does not tell leader and term of each partition: {status}");
    Ok(())
}

/// A Cluster without a template: the sample becomes ready.
pub(super) fn sidecars_alone(context: &Context<'_>) -> Result<()> {
    apply_sample(context, "cluster-sidecars-alone.yaml")?;
    let cluster = only(context, CLUSTERS)?;
    context.kube.wait_condition((CLUSTERS, &cluster), "Ready", "True", READY)?;
    let pods = context.kube.pods(&format!("coterie.dev/cluster={cluster}"))?;
    ensure!(pods.len() == 3 && pods.iter().all(|pod| pod.ready), "the pods are {pods:?}");
    Ok(())
}

/// A Deployment with a hand-written native sidecar in client mode sees the Cluster's groups.
pub(super) fn client_sidecar_deployment(context: &Context<'_>) -> Result<()> {
    apply_sample(context, "cluster.yaml")?;
    let (cluster, group) = (only(context, CLUSTERS)?, only(context, PARTITION_GROUPS)?);
    context.kube.wait_condition((CLUSTERS, &cluster), "Ready", "True", READY)?;
    context.kube.wait_condition((PARTITION_GROUPS, &group), "Ready", "True", READY)?;
    apply_sample(context, "deployment-client-sidecar.yaml")?;
    let deployments = context.kube.list("deployments", "")?;
    let deployment = deployments.first().ok_or_else(|| anyhow!("the sample makes no Deployment"))?;
    let name = deployment["metadata"]["name"].as_str().unwrap_or_default();
    context.kube.run(&["rollout", "status", "deployment", name, "--timeout=90s"])?;
    let labels = deployment["spec"]["selector"]["matchLabels"].as_object().cloned().unwrap_or_default();
    let labels: Vec<_> =
        labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    let client = context
        .kube
        .pods(&labels.join(","))?
        .into_iter()
        .find(|pod| pod.ready)
        .ok_or_else(|| anyhow!("no client is ready"))?;
    let view = poll::until("the client's sidecar to tell the leader", seconds(30), || {
        let view = Api::open(&context.kube, &client.name)?.group(GROUP)?;
        ensure!(view.leader.is_some(), "the group is {}", view.raw);
        Ok(view)
    })?;
    context.step(&format!("{} sees {} in term {}", client.name, view.leader.clone().unwrap_or_default(), view.term));
    let voters = context.kube.get(CLUSTERS, &cluster)?["status"]["members"].clone();
    ensure!(!voters.to_string().contains(&client.name), "the client became a member: {voters}");
    Ok(())
}

/// Applies a file of examples/manifests with the tested image in place of the published ones.
fn apply_sample(context: &Context<'_>, file: &str) -> Result<()> {
    let path = repository()?.join("examples/manifests").join(file);
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let text = text.replace(SAMPLE_IMAGE, context.installation.image());
    context.kube.apply(&text).with_context(|| format!("apply {file}")).map(drop)
}

/// The name of the only object of its kind in the namespace.
fn only(context: &Context<'_>, kind: &str) -> Result<String> {
    let objects = context.kube.list(kind, "")?;
    ensure!(objects.len() == 1, "the sample makes {} {kind}, not one", objects.len());
    Ok(objects[0]["metadata"]["name"].as_str().unwrap_or_default().to_owned())
}
