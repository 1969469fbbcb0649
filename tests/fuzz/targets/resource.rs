//! Clusters and PartitionGroups, as the API server gives them: `coterie_crds`, and what the operator makes of them.
//!
//! ```text
//! which u8 | JSON
//! ```
#![no_main]

use coterie_core::config::{Config, Overrides};
use coterie_crds::{Cluster, PartitionGroup};
use coterie_fuzz::Input;
use coterie_operator_core::cluster::{Defaults, Observed, configuration, plan, validate};
use coterie_operator_core::group::{Decision, decide, group_name};
use coterie_operator_core::members::View;
use serde_json::{Value, json};

libfuzzer_sys::fuzz_target!(init: coterie_fuzz::seeds(seeds), |bytes: &[u8]| {
    let mut input = Input(bytes);
    match input.byte() & 1 {
        0 => cluster(input.0),
        _ => partition_group(input.0),
    }
});

fn cluster(json: &[u8]) {
    let Ok(cluster) = serde_json::from_slice::<Cluster>(json) else { return };
    let defaults = Defaults { sidecar_image: "coterie:test".to_owned() };
    let validated = match validate(&cluster, &defaults) {
        Ok(validated) => validated,
        Err(error) => return assert!(!error.problems.is_empty()),
    };
    let desired = plan(&validated, &Observed::default());
    drop(desired);
    // What is accepted is followed: its members can read the file that is made for them.
    let text = configuration::file(&validated);
    for local_member in validated.voter_pods() {
        let overrides = Overrides { local_member: Some(local_member), ..Overrides::default() };
        if let Err(error) = Config::from_yaml(&text, &overrides) {
            // The API server has refused such names, so the operator is never given one.
            let is_named = is_label(&validated.name) && is_label(&validated.namespace);
            assert!(!is_named, "{error}\n{text}");
        }
    }
}

/// Whether the API server takes this as the name of a Cluster or a namespace (RFC 1123).
fn is_label(name: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    name.chars().all(is_inner) && !name.starts_with('-') && !name.ends_with('-')
}

fn partition_group(json: &[u8]) {
    let Ok(group) = serde_json::from_slice::<PartitionGroup>(json) else { return };
    let cluster: Cluster = serde_json::from_value(sample()).expect("it is one");
    let view = View::new(Default::default());
    for cluster in [None, Some(&cluster)] {
        if let Decision::Apply(asked) = decide(&group, std::slice::from_ref(&group), cluster, &view) {
            assert_eq!(asked.name, group_name(&group));
        }
    }
}

fn sample() -> Value {
    let metadata = json!({"name": "orders", "namespace": "shop", "uid": "u-1"});
    json!({"apiVersion": "coterie.dev/v1alpha1", "kind": "Cluster", "metadata": metadata, "spec": {}})
}

fn seeds() -> Vec<Vec<u8>> {
    let mut full = sample();
    full["spec"] = json!({
        "replicas": 5, "profiles": ["Consensus"], "managementVoters": 3, "paused": false,
        "storage": {"size": "1Gi", "storageClassName": "fast", "retention": "Delete"},
        "sidecar": {"image": "i", "logLevel": "debug", "timing": "Slow", "resources": {"requests": {"cpu": "1"}}},
        "security": {"networkPolicy": true},
        "template": {
            "metadata": {"labels": {"a": "b"}, "annotations": null},
            "spec": {
                "containers": [{"name": "c", "env": [{"name": "COTERIE_SOCKET", "value": ""}], "volumeMounts": null}],
                "initContainers": [{"name": "i"}], "volumes": [{"name": "v"}], "securityContext": {"fsGroup": 1},
                "topologySpreadConstraints": null, "serviceAccountName": "s",
            },
        },
    });
    let group = json!({
        "apiVersion": "coterie.dev/v1alpha1", "kind": "PartitionGroup",
        "metadata": {"name": "data", "namespace": "shop", "uid": "u-2"},
        "spec": {"clusterRef": {"name": "orders"}, "partitions": 3, "name": "other"},
    });
    [(0, sample()), (0, full), (1, group)]
        .into_iter()
        .map(|(which, value)| [vec![which], value.to_string().into_bytes()].concat())
        .collect()
}
