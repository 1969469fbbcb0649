//! What most scenarios begin with: a Cluster of three pods with the example application, a PartitionGroup, a leader.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::Value;

use crate::api::{Api, View};
use crate::context::Context;
use crate::kube::{Kubectl, Pod};
use crate::manifests::{self, CLUSTER, CONTAINER, GROUP, PARTITION_GROUP};
use crate::poll::{self, seconds};

/// The kinds, by their full names: no other operator's kinds are meant.
pub(crate) const CLUSTERS: &str = "clusters.coterie.dev";
/// See [`CLUSTERS`].
pub(crate) const PARTITION_GROUPS: &str = "partitiongroups.coterie.dev";

/// The Cluster's kind as kubectl takes it, and as events have it.
pub(crate) const CLUSTER_KIND: (&str, &str) = (CLUSTERS, "Cluster");
/// See [`CLUSTER_KIND`].
pub(crate) const PARTITION_GROUP_KIND: (&str, &str) = (PARTITION_GROUPS, "PartitionGroup");

/// From apply to ready.
pub(crate) const READY: Duration = seconds(120);
/// From ready to a leader.
pub(crate) const ELECTED: Duration = seconds(60);

/// A Cluster and a PartitionGroup that are ready.
pub(crate) struct World<'a> {
    context: &'a Context<'a>,
}

impl<'a> World<'a> {
    /// Applies both and waits until they are ready and every application is in the group.
    ///
    /// # Errors
    /// When they do not become so.
    pub(crate) fn apply(context: &'a Context<'a>) -> Result<Self> {
        let cluster = manifests::cluster(CLUSTER, context.installation.image());
        context.kube.apply(&cluster.to_string()).context("apply the Cluster")?;
        let group = manifests::partition_group(PARTITION_GROUP, CLUSTER);
        context.kube.apply(&group.to_string()).context("apply the PartitionGroup")?;
        let world = Self { context };
        world.wait_ready()?;
        world.wait_complete(0)?;
        Ok(world)
    }

    /// Waits for the conditions `Ready` of Cluster and PartitionGroup.
    ///
    /// # Errors
    /// When they do not come.
    pub(crate) fn wait_ready(&self) -> Result<()> {
        let started = Instant::now();
        self.context.kube.wait_condition((CLUSTERS, CLUSTER), "Ready", "True", READY)?;
        self.context.kube.wait_condition((PARTITION_GROUPS, PARTITION_GROUP), "Ready", "True", READY)?;
        self.context.step(&format!("Cluster and PartitionGroup are ready ({:.1} s)", started.elapsed().as_secs_f64()));
        Ok(())
    }

    /// Waits until three applications are in the group and one leads with a term above `term`; gives what all three see.
    ///
    /// # Errors
    /// When that does not come.
    pub(crate) fn wait_complete(&self, above: u64) -> Result<View> {
        let view = poll::until("three members in the group and a leader", ELECTED, || {
            let pod = self.pods()?.into_iter().find(|pod| pod.ready).ok_or_else(|| anyhow!("no pod is ready"))?;
            let view = Api::open(&self.context.kube, &pod.name)?.group(GROUP)?;
            ensure!(view.members.len() == 3 && view.leader.is_some() && view.term > above, "the group is {}", view.raw);
            Ok(view)
        })?;
        self.context.step(&format!("{} leads in term {}", view.leader.as_deref().unwrap_or_default(), view.term));
        Ok(view)
    }

    /// The Cluster's pods.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub(crate) fn pods(&self) -> Result<Vec<Pod>> {
        self.context.kube.pods(&format!("coterie.dev/cluster={CLUSTER},coterie.dev/role=member"))
    }

    /// One of them.
    ///
    /// # Errors
    /// When it does not exist.
    pub(crate) fn pod(&self, name: &str) -> Result<Pod> {
        self.pods()?.into_iter().find(|pod| pod.name == name).ok_or_else(|| anyhow!("there is no pod {name}"))
    }

    /// The API of every pod but one.
    ///
    /// # Errors
    /// When a pod cannot be reached.
    pub(crate) fn others(&self, than: &str) -> Result<Vec<Api>> {
        let others = self.pods()?.into_iter().filter(|pod| pod.name != than);
        others.map(|pod| Api::open(&self.context.kube, &pod.name)).collect()
    }

    /// The id of the application's container in a pod, without the runtime's prefix.
    ///
    /// # Errors
    /// When the container does not run.
    pub(crate) fn application_container(&self, pod: &str) -> Result<String> {
        application_container(&self.context.kube, pod)
    }

    /// Waits until a pod is ready that has another identity than before.
    ///
    /// # Errors
    /// When it does not come.
    pub(crate) fn wait_replaced(&self, before: &Pod) -> Result<Pod> {
        poll::until(&format!("{} to be made again and ready", before.name), READY, || {
            let pod = self.pod(&before.name)?;
            ensure!(pod.uid != before.uid && pod.ready, "it is {pod:?}");
            Ok(pod)
        })
    }

    /// Lets the leadership of the group go round until its leader's pod does, or does not, lead the partition too.
    ///
    /// # Errors
    /// When it does not come to that within a few rounds.
    pub(crate) fn lead_where(&self, place: Place) -> Result<View> {
        for _ in 0..6 {
            let pods = self.pods()?;
            let api = Api::open(&self.context.kube, &pods[0].name)?;
            let leads = api.partition_leader(PARTITION_GROUP, 1)?;
            let view = api.group(GROUP)?;
            let Some(leader) = view.leader.clone() else { continue };
            if (leader == leads) == (place == Place::WithThePartition) {
                self.context.step(&format!("{leader} leads in term {}, {leads} leads the partition", view.term));
                return Ok(view);
            }
            api.request("POST", &format!("/v1/groups/{GROUP}/step-down"), None)?
                .ok()
                .context("ask the leader to step down")?;
            poll::until("the next leader", seconds(15), || {
                let next = api.group(GROUP)?;
                ensure!(next.term > view.term && next.leader.is_some(), "the group is {}", next.raw);
                Ok(())
            })?;
        }
        Err(anyhow!("the leadership did not come to the pod that was wanted ({place:?})"))
    }
}

/// See [`World::application_container`].
pub(crate) fn application_container(kube: &Kubectl, pod: &str) -> Result<String> {
    let object = kube.get("pod", pod)?;
    let containers = object["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
    let container =
        containers.iter().find(|c| c["name"] == CONTAINER).map(|c| c["containerID"].clone()).unwrap_or(Value::Null);
    let id = container.as_str().and_then(|id| id.split("://").nth(1)).map(str::to_owned);
    id.ok_or_else(|| anyhow!("container {CONTAINER} of {pod} does not run: {}", object["status"]))
}

/// Where the group's leader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the pod that leads the partition too.
    WithThePartition,
    /// In another one.
    Elsewhere,
}
