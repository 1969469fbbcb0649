//! Which pod is replaced next, when pods run another template than the StatefulSet's.
//!
//! The StatefulSet leaves its pods alone (`OnDelete`): its own rolling update goes by pod number, and would take the second
//! of three members away while the first is down. Here the order is by what a pod is to the Cluster:
//!
//! | state of the Cluster | what is replaced |
//! |---|---|
//! | a partition has no quorum, or nobody answers | every outdated pod whose sidecar is down: nothing is lost by it, and waiting could wait for ever |
//! | a member is down or catching up | it, if it is outdated; else nothing |
//! | all is healthy | one outdated pod: one that is not ready, else the one that leads least, the management leader last |
//!
//! The shell asks for an eviction, so the PodDisruptionBudget has the last word.

use super::{Observed, Validated};
use crate::names;

/// The outdated pods to evict now, by name.
pub fn next(cluster: &Validated, observed: &Observed) -> Vec<String> {
    let Observed { stateful_set, pods, claims: _, has_default_storage_class: _, has_network_policy: _, view } =
        observed;
    let Some(set) =
        stateful_set.as_ref().filter(|set| set.is_observed && !set.is_deleted && !set.update_revision.is_empty())
    else {
        return Vec::new();
    };
    let outdated =
        |pod: &str| pods.get(pod).is_some_and(|pod| !pod.is_terminating && pod.revision != set.update_revision);
    let down = |pod: &str| pods.get(pod).is_none_or(|pod| pod.is_terminating || !pod.is_sidecar_ready);
    let all: Vec<String> = (0..set.replicas).map(|index| names::pod(&cluster.name, index)).collect();
    if !view.is_available() {
        return all.into_iter().filter(|pod| outdated(pod) && down(pod)).collect();
    }
    if let Some(outdated_and_down) = all.iter().find(|pod| outdated(pod) && down(pod)) {
        return vec![outdated_and_down.clone()];
    }
    if all.iter().any(|pod| down(pod)) || !view.is_healthy() {
        return Vec::new();
    }
    let is_ready = |pod: &str| pods.get(pod).is_some_and(|pod| pod.is_ready);
    // A current pod whose application is not ready: the new template may be wrong, so it goes no further.
    if all.iter().any(|pod| !outdated(pod) && !is_ready(pod)) {
        return all.into_iter().find(|pod| outdated(pod) && !is_ready(pod)).into_iter().collect();
    }
    let order =
        |pod: &String| (is_ready(pod), view.leaderships(pod), std::cmp::Reverse(names::index(&cluster.name, pod)));
    all.into_iter().filter(|pod| outdated(pod)).min_by_key(order).into_iter().collect()
}

/// How many pods run another template than the StatefulSet's.
pub fn outdated(observed: &Observed) -> usize {
    let Some(set) = observed.stateful_set.as_ref().filter(|set| set.is_observed) else { return 0 };
    observed.pods.values().filter(|pod| pod.revision != set.update_revision).count()
}
