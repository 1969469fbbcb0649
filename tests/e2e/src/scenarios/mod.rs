//! The one list of scenarios, and what each does.

mod changes;
mod conditions;
mod data;
mod failover;
mod histories;
mod main_job;
mod nodes;
mod refused;
mod release;

use anyhow::Result;

use crate::context::Context;

/// One scenario.
pub(crate) struct Scenario {
    /// Its name, and the name of its namespace.
    pub(crate) name: &'static str,
    /// What it shows, in a line.
    pub(crate) summary: &'static str,
    /// Whether it is in the core set.
    pub(crate) core: bool,
    /// How long it takes on two cores, in seconds.
    pub(crate) expected_s: u64,
    /// What it cannot do without.
    pub(crate) needs: Needs,
    /// The scenario itself.
    pub(crate) run: fn(&Context<'_>) -> Result<()>,
}

/// What a scenario cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// The operator, installed.
    Operator,
    /// The operator, and nodes or processes that can be killed.
    Nodes,
    /// The same, and pods that can be reached from this machine while their node is cut off.
    Networks,
    /// A Kubernetes that has no operator.
    NoOperator,
}

const fn scenario(
    name: &'static str,
    core: bool,
    expected_s: u64,
    needs: Needs,
    run: fn(&Context<'_>) -> Result<()>,
    summary: &'static str,
) -> Scenario {
    Scenario { name, summary, core, expected_s, needs, run }
}

/// Every scenario, in the order in which they run.
pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario(
        "helm_install_apply_elect",
        true,
        50,
        Needs::NoOperator,
        main_job::helm_install_apply_elect,
        "helm install, kubectl apply of the samples, one application leads, columns and status tell it",
    ),
    scenario(
        "sidecars_alone",
        true,
        30,
        Needs::Operator,
        main_job::sidecars_alone,
        "a Cluster without a template: the sample becomes ready",
    ),
    scenario(
        "client_sidecar_deployment",
        true,
        50,
        Needs::Operator,
        main_job::client_sidecar_deployment,
        "a Deployment with a hand-written native sidecar in client mode sees the Cluster's groups",
    ),
    scenario(
        "delete_leader_pod",
        true,
        45,
        Needs::Operator,
        failover::delete_leader_pod,
        "kubectl delete pod: the next leader is known within 1 s of the release, no read fails for longer than 1 s",
    ),
    scenario(
        "kill_leader_application",
        true,
        45,
        Needs::Nodes,
        failover::kill_leader_application,
        "kill -9 of the leader's application: its place is given up within 100 ms",
    ),
    scenario(
        "pod_address_changed",
        true,
        60,
        Needs::Operator,
        failover::pod_address_changed,
        "every pod gets another address, one after the other; all are ready again",
    ),
    scenario(
        "node_killed",
        true,
        60,
        Needs::Nodes,
        nodes::node_killed,
        "a node dies, also the one that leads the partition: a leader within 7 s; after start the pod rejoins by itself",
    ),
    scenario(
        "all_nodes_killed",
        true,
        50,
        Needs::Nodes,
        nodes::all_nodes_killed,
        "all nodes die at once: everything acknowledged is there after start, terms went on rising",
    ),
    scenario(
        "histories_while_nodes_fail",
        true,
        110,
        Needs::Networks,
        histories::histories_while_nodes_fail,
        "nodes are cut off, killed and drained: what clients in all pods saw of locks, leaders, watches and keys is right",
    ),
    scenario(
        "bad_specs_refused",
        true,
        20,
        Needs::Operator,
        refused::bad_specs_refused,
        "wrong resources are refused by the API server with field, rule and fix",
    ),
    scenario(
        "bad_spec_that_slips_through",
        true,
        35,
        Needs::Operator,
        conditions::bad_spec_that_slips_through,
        "what the API server cannot see gets a condition and an event; the operator follows the mended spec",
    ),
    scenario(
        "no_default_storage_class",
        true,
        35,
        Needs::Operator,
        conditions::no_default_storage_class,
        "a condition and an event say it; with a default class the Cluster becomes ready by itself",
    ),
    scenario(
        "foreign_objects_untouched",
        true,
        55,
        Needs::Operator,
        changes::foreign_objects_untouched,
        "what has a name that the operator uses stays as it is, a condition and an event name it; deleting it heals",
    ),
    scenario(
        "template_rolled_out_under_reads",
        true,
        100,
        Needs::Operator,
        changes::template_rolled_out_under_reads,
        "another template goes from pod to pod, leaders last; a wrong image stops at the first and is put right; reads go on",
    ),
    scenario(
        "changes_followed",
        true,
        55,
        Needs::Operator,
        changes::changes_followed,
        "NetworkPolicy on and off; paused, only certificates are renewed; volumes grow where their class allows it",
    ),
    scenario(
        "partition_group_without_cluster",
        true,
        40,
        Needs::Operator,
        conditions::partition_group_without_cluster,
        "a condition and an event say it; once the Cluster is there the PartitionGroup becomes ready",
    ),
    scenario(
        "two_partition_groups_one_name",
        true,
        35,
        Needs::Operator,
        conditions::two_partition_groups_one_name,
        "the second of two with one name gets a condition and an event and changes nothing",
    ),
    scenario(
        "scale_down_blocked",
        true,
        35,
        Needs::Operator,
        conditions::scale_down_blocked,
        "fewer replicas than voters: the pods stay, a condition and an event say why",
    ),
    scenario(
        "delete_partition_group_with_data",
        true,
        50,
        Needs::Operator,
        data::delete_partition_group_with_data,
        "refused with a condition and an event; with deletionPolicy Delete it goes",
    ),
    scenario(
        "cluster_recreated_with_retained_volumes",
        true,
        40,
        Needs::Operator,
        data::cluster_recreated_with_retained_volumes,
        "a Cluster deleted and made again keeps its identity and data, terms go on rising",
    ),
    scenario(
        "helm_upgrade_and_uninstall_keep_crds",
        true,
        90,
        Needs::Operator,
        release::helm_upgrade_and_uninstall_keep_crds,
        "upgrade changes the CRDs; uninstall keeps CRDs, resources and running pods; a new install goes on",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// `make e2e` is stopped after 1200 s; the rest is for a slow day.
    const CORE_SECONDS_MAX: u64 = 1100;

    #[test]
    fn core_set_has_the_charts_life_and_fits_into_its_time() {
        let core: Vec<_> = SCENARIOS.iter().filter(|scenario| scenario.core).collect();
        assert!(core.iter().any(|scenario| scenario.name == "helm_upgrade_and_uninstall_keep_crds"));
        let sum: u64 = core.iter().map(|scenario| scenario.expected_s).sum();
        assert!(sum <= CORE_SECONDS_MAX, "{sum} s");
    }
}
