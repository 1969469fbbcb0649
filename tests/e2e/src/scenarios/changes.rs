//! A Cluster's spec changes, and the operator follows: no faster than the members can, nothing that is not its own.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde_json::{Value, json};

use crate::api::{Api, Readers, Reads};
use crate::context::Context;
use crate::kube::{Kubectl, Told};
use crate::manifests::{CLUSTER, CONTAINER, GROUP, PARTITION_GROUP, sidecars_alone};
use crate::poll::{self, seconds};
use crate::world::{CLUSTER_KIND, CLUSTERS, READY, World};

/// The longest time without a successful read while pods are replaced.
const GAP_MAX: Duration = Duration::from_secs(1);
/// From the beginning of a rollout until all three pods are replaced and ready.
const ROLLED_OUT: Duration = seconds(150);

/// What has a name that the operator uses stays as it is, a condition and an event name it; deleting it heals.
pub(super) fn foreign_objects_untouched(context: &Context<'_>) -> Result<()> {
    let set = json!({"serviceName": "mine", "replicas": 0, "selector": {"matchLabels": {"app": "mine"}}, "template": {
        "metadata": {"labels": {"app": "mine"}}, "spec": {"containers": [{"name": "mine", "image": "mine"}]},
    }});
    let foreign = [
        ("v1", "Secret", format!("{CLUSTER}-member-tls"), json!({"stringData": {"mine": "1"}})),
        ("v1", "ConfigMap", format!("{CLUSTER}-configuration"), json!({"data": {"mine": "1"}})),
        (
            "v1",
            "Service",
            format!("{CLUSTER}-members"),
            json!({"spec": {"clusterIP": "None", "selector": {"app": "mine"}}}),
        ),
        ("apps/v1", "StatefulSet", CLUSTER.to_owned(), json!({"spec": set})),
    ];
    for (version, kind, name, content) in &foreign {
        let mut object = content.clone();
        object["apiVersion"] = json!(version);
        object["kind"] = json!(kind);
        object["metadata"] = json!({"name": name});
        context.kube.apply(&object.to_string())?;
    }
    let before =
        foreign.iter().map(|(_, kind, name, _)| written(&context.kube, kind, name)).collect::<Result<Vec<_>>>()?;
    context.kube.apply(&sidecars_alone(CLUSTER).to_string())?;
    for ((_, kind, name, _), before) in foreign.iter().zip(before) {
        let told = Told { condition: "Ready", status: "False", reason: "NameTaken" };
        let message = poll::until(&format!("the condition to name {kind} {name}"), seconds(30), || {
            let message = context.kube.wait_told(CLUSTER_KIND, CLUSTER, told, seconds(30))?;
            ensure!(message.contains(&format!("{kind} {name} exists")) && message.contains("delete it"), "{message}");
            Ok(message)
        })?;
        context.step(&format!("the condition says: {message}"));
        let after = written(&context.kube, kind, name)?;
        ensure!(after == before, "{kind} {name} was changed from {before} to {after}");
        context.kube.run(&["delete", kind, name, "--timeout=30s"])?;
    }
    context.kube.wait_condition((CLUSTERS, CLUSTER), "Ready", "True", READY).map(drop)
}

/// What somebody wrote of an object: without what Kubernetes keeps of it.
fn written(kube: &Kubectl, kind: &str, name: &str) -> Result<Value> {
    let mut object = kube.get(kind, name)?;
    let mut metadata = object["metadata"].take();
    let kept = ["uid", "labels", "annotations", "ownerReferences"].map(|key| (key, metadata[key].take()));
    Ok(json!({"metadata": kept.map(|(_, value)| value), "spec": object["spec"], "data": object["data"]}))
}

/// Another template goes from pod to pod, leaders last; a wrong image stops at the first and is put right; reads go on.
pub(super) fn template_rolled_out_under_reads(context: &Context<'_>) -> Result<()> {
    let world = World::apply(context)?;
    let names: Vec<_> = world.pods()?.into_iter().map(|pod| pod.name).collect();
    let reads = Readers::start(&context.kube, &names, GROUP);
    let done =
        reads.wait_each(seconds(30)).and_then(|()| roll_out(context, &world)).and_then(|()| mend(context, &world));
    let reads = reads.stop()?;
    done?;
    context.measured(format!(
        "two changes under reads: {} succeeded, {} failed on pods that were replaced, longest gap {} ms",
        reads.succeeded,
        reads.failed,
        reads.longest_gap.as_millis()
    ));
    let Reads { longest_gap, last_failure, .. } = reads;
    ensure!(longest_gap <= GAP_MAX, "no read succeeded for {longest_gap:?}; the last failure: {last_failure}");
    world.wait_complete(0).map(drop)
}

fn roll_out(context: &Context<'_>, world: &World<'_>) -> Result<()> {
    let before = world.pods()?;
    let api = Api::open(&context.kube, &before[0].name)?;
    let (manages, leads) = (api.partition_leader("system", 1)?, api.partition_leader(PARTITION_GROUP, 1)?);
    drop(api);
    let started = Instant::now();
    let mut containers = context.kube.get(CLUSTERS, CLUSTER)?["spec"]["template"]["spec"]["containers"].take();
    containers[0]["env"]
        .as_array_mut()
        .ok_or_else(|| anyhow!("no env"))?
        .push(json!({"name": "CHANGED", "value": "1"}));
    let template = json!({"spec": {"containers": containers}});
    context.kube.patch(CLUSTERS, CLUSTER, &json!({"spec": {"template": template}}))?;

    let mut order: Vec<String> = Vec::new();
    poll::until("every pod to be replaced and ready", ROLLED_OUT, || {
        let pods = world.pods()?;
        let is_old = |name: &str| pods.iter().any(|pod| pod.name == *name && before.iter().any(|b| b.uid == pod.uid));
        let gone: Vec<_> = before.iter().filter(|pod| !is_old(&pod.name) && !order.contains(&pod.name)).collect();
        order.extend(gone.into_iter().map(|pod| pod.name.clone()));
        let unready = pods.iter().filter(|pod| !pod.ready).count();
        if pods.len() < 2 || unready > 1 {
            // Not an answer to wait for, but one that must never come.
            order.push("more than one at a time".to_owned());
        }
        ensure!(order.len() >= before.len() && unready == 0 && pods.len() == before.len(), "replaced: {order:?}");
        Ok(())
    })?;
    context.measured(format!(
        "another template: replaced {} in {:.0} s; {manages} led the management group, {leads} the partition",
        order.join(", "),
        started.elapsed().as_secs_f64()
    ));
    ensure!(order.len() == before.len(), "pods went together: {order:?}");
    ensure!(order.last() == Some(&manages), "{manages}, the management group's leader, was not the last: {order:?}");
    ensure!(leads == manages || order[0] != leads, "{leads}, the partition's leader, was the first: {order:?}");
    for pod in world.pods()? {
        let object = context.kube.get("pod", &pod.name)?;
        let containers = object["spec"]["containers"].as_array().cloned().unwrap_or_default();
        let container = containers.iter().find(|c| c["name"] == CONTAINER).cloned().unwrap_or_default();
        ensure!(container["env"].to_string().contains("CHANGED"), "{} has the old template: {container}", pod.name);
    }
    context.kube.wait_condition((CLUSTERS, CLUSTER), "Ready", "True", READY).map(drop)
}

/// A tag that does not exist takes one pod, which does not start; the others stay, and only that one is made again.
fn mend(context: &Context<'_>, world: &World<'_>) -> Result<()> {
    let before = world.pods()?;
    let image = |image: Value| context.kube.patch(CLUSTERS, CLUSTER, &json!({"spec": {"sidecar": {"image": image}}}));
    image(json!("localhost/coterie:no-such-tag"))?;
    let message = poll::until("the condition to name the image", seconds(60), || {
        let degraded = context.kube.wait_condition((CLUSTERS, CLUSTER), "Degraded", "True", seconds(30))?;
        let message = degraded["message"].as_str().unwrap_or_default().to_owned();
        ensure!(message.contains("no-such-tag"), "it says: {message}");
        Ok(message)
    })?;
    context.step(&format!("the condition says: {message}"));
    image(Value::Null)?;
    let replaced = poll::until("all pods to be ready again", READY, || {
        context.kube.wait_condition((CLUSTERS, CLUSTER), "Ready", "True", Duration::ZERO)?;
        let pods = world.pods()?;
        ensure!(pods.len() == before.len() && pods.iter().all(|pod| pod.ready), "pods: {pods:?}");
        Ok(pods.into_iter().filter(|pod| before.iter().all(|before| before.uid != pod.uid)).collect::<Vec<_>>())
    })?;
    let names: Vec<_> = replaced.iter().map(|pod| pod.name.as_str()).collect();
    ensure!(names.len() == 1, "a wrong image replaced {names:?}");
    context.step(&format!("the wrong image took {} alone", names[0]));
    Ok(())
}

/// The NetworkPolicy comes and goes; paused, only certificates are renewed; volumes grow where their class allows it.
pub(super) fn changes_followed(context: &Context<'_>) -> Result<()> {
    context.kube.apply(&sidecars_alone(CLUSTER).to_string())?;
    context.kube.wait_condition((CLUSTERS, CLUSTER), "Ready", "True", READY)?;
    let pods = || context.kube.pods(&format!("coterie.dev/cluster={CLUSTER},coterie.dev/role=member"));
    let before = pods()?;
    network_policy(context)?;
    paused(context)?;
    volumes(context)?;
    context.kube.wait_condition((CLUSTERS, CLUSTER), "Ready", "True", READY)?;
    let after = pods()?;
    ensure!(after == before, "pods went: {before:?} became {after:?}");
    Ok(())
}

fn change(context: &Context<'_>, spec: Value) -> Result<()> {
    context.kube.patch(CLUSTERS, CLUSTER, &json!({"spec": spec}))
}

fn is_policy_there(context: &Context<'_>) -> Result<bool> {
    let found = context.kube.run(&["get", "networkpolicy", CLUSTER, "--ignore-not-found", "-o", "name"])?;
    Ok(!found.trim().is_empty())
}

fn network_policy(context: &Context<'_>) -> Result<()> {
    for wanted in [true, false] {
        change(context, json!({"security": {"networkPolicy": wanted}}))?;
        poll::until(&format!("the NetworkPolicy to be there: {wanted}"), seconds(30), || {
            ensure!(is_policy_there(context)? == wanted, "it is not so");
            Ok(())
        })?;
    }
    context.step("the NetworkPolicy came and went");
    Ok(())
}

fn paused(context: &Context<'_>) -> Result<()> {
    change(context, json!({"paused": true, "security": {"networkPolicy": true}}))?;
    // It is reported after what was to be done is done.
    context.kube.wait_condition((CLUSTERS, CLUSTER), "ReconciliationPaused", "True", seconds(30))?;
    ensure!(!is_policy_there(context)?, "a paused Cluster was changed");
    let secret = format!("{CLUSTER}-member-tls");
    let certificate = || context.kube.get("secret", &secret).map(|secret| secret["data"]["tls.crt"].clone());
    let before = certificate()?;
    let old =
        json!({"coterie.dev/not-before": "2020-01-01T00:00:00Z", "coterie.dev/not-after": "2020-03-31T00:00:00Z"});
    context.kube.patch("secret", &secret, &json!({"metadata": {"annotations": old}}))?;
    poll::until("a certificate that runs out to be renewed", seconds(40), || {
        ensure!(certificate()? != before, "it is the old one");
        Ok(())
    })?;
    ensure!(!is_policy_there(context)?, "a paused Cluster was changed");
    change(context, json!({"paused": false}))?;
    poll::until("the NetworkPolicy to be there", seconds(30), || {
        ensure!(is_policy_there(context)?, "it is not there");
        Ok(())
    })?;
    context.step("paused, a certificate was renewed and nothing else changed; then the change was followed");
    Ok(())
}

fn volumes(context: &Context<'_>) -> Result<()> {
    let claims = || context.kube.list("persistentvolumeclaims", "");
    let class = claims()?.first().map(|claim| claim["spec"]["storageClassName"].clone()).unwrap_or_default();
    let class = class.as_str().ok_or_else(|| anyhow!("a claim has no class"))?.to_owned();
    let was = context.kube.get("storageclass", &class)?["allowVolumeExpansion"].clone();
    let allow = |allowed: Value| context.kube.patch("storageclass", &class, &json!({"allowVolumeExpansion": allowed}));
    allow(json!(false))?;
    let grown = (|| {
        change(context, json!({"storage": {"size": "2Gi"}}))?;
        let told = Told { condition: "Ready", status: "False", reason: "VolumeResizeRefused" };
        let message = context.kube.wait_told(CLUSTER_KIND, CLUSTER, told, seconds(30))?;
        context.step(&format!("the condition says: {message}"));
        allow(json!(true))?;
        poll::until("claims and StatefulSet to ask for 2Gi", seconds(60), || {
            let requested = |claim: &Value| claim["spec"]["resources"]["requests"]["storage"].clone();
            let mut sizes: Vec<_> = claims()?.iter().map(requested).collect();
            let set = context.kube.get("statefulset", CLUSTER)?;
            sizes.push(requested(&set["spec"]["volumeClaimTemplates"][0]));
            if sizes.iter().any(|size| size != "2Gi") {
                bail!("they ask for {sizes:?}");
            }
            Ok(())
        })
        .context("grow the volumes")
    })();
    // The class becomes what it was, whatever came.
    allow(was)?;
    grown?;
    context.step("the claims grew, and the StatefulSet was made again around its pods");
    Ok(())
}
