//! Which pod is replaced next, when pods run another template than the StatefulSet's.
//!
//! The StatefulSet leaves its pods alone (`OnDelete`): its own rolling update goes by pod number, and would take the second
//! of three members away while the first is down. Here the order is by what a pod is to the Cluster:
//!
//! | state of the Cluster | what is replaced |
//! |---|---|
//! | a pod of the current template is down | nothing: the template may be wrong, and the pod is waited for |
//! | a partition has no quorum, or nobody answers | every outdated pod whose sidecar is down: nothing is lost by it, and waiting could wait for ever |
//! | a member is down or catching up | it, if it is outdated and every other voter is up; else nothing |
//! | all is healthy | one outdated pod: one that is not ready, else the one that leads least, the management leader last |
//!
//! The shell asks for an eviction, so the PodDisruptionBudget has the last word.

use super::{Observed, Validated};
use crate::names;

/// The outdated pods to evict now, by name.
pub fn next(cluster: &Validated, observed: &Observed) -> Vec<String> {
    let Observed { stateful_set, pods, claims: _, has_default_storage_class: _, network_policy: _, handover: _, view } =
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
    if all.iter().any(|pod| !outdated(pod) && down(pod)) {
        return Vec::new();
    }
    let lost: Vec<String> = all.iter().filter(|pod| down(pod)).cloned().collect();
    if !view.is_available() {
        return lost;
    }
    if !lost.is_empty() {
        // One that catches up votes already: it may be what the quorum stands on while another voter is down.
        let voters = cluster.voter_pods();
        let are_others_up = |pod: &String| voters.iter().all(|voter| voter == pod || !down(voter));
        return lost.into_iter().find(are_others_up).into_iter().collect();
    }
    if !view.is_healthy() {
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
