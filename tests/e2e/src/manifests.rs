//! The resources that scenarios apply, as JSON. What users copy is in examples/manifests, which `main_job` applies as it is.

use serde_json::{Value, json};

/// The Cluster of most scenarios, and the prefix of its pods.
pub(crate) const CLUSTER: &str = "orders";
/// Their PartitionGroup, as object and as name.
pub(crate) const PARTITION_GROUP: &str = "data";
/// The group that the example application joins.
pub(crate) const GROUP: &str = "workers";
/// The application's container.
pub(crate) const CONTAINER: &str = "app";

/// A Cluster of three members beside the example application, spread over the nodes.
pub(crate) fn cluster(name: &str, image: &str) -> Value {
    let spread = json!([{
        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": name}},
    }]);
    let container = json!({
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/worker"],
    "env": [{"name": "GROUP", "value": GROUP}, {"name": "HTTP_PORT", "value": "8080"}],
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 1},
        "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}},
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
    });
    json!({
        "apiVersion": "coterie.dev/v1alpha1",
        "kind": "Cluster",
        "metadata": {"name": name},
        "spec": {
            "replicas": 3,
            "profiles": [],
            "storage": {"size": "1Gi"},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
                    "terminationGracePeriodSeconds": 20,
                    "topologySpreadConstraints": spread,
                    "containers": [container],
                },
            },
        },
    })
}

/// A Cluster of sidecars alone.
pub(crate) fn sidecars_alone(name: &str) -> Value {
    json!({
        "apiVersion": "coterie.dev/v1alpha1",
        "kind": "Cluster",
        "metadata": {"name": name},
        "spec": {"replicas": 3, "profiles": [], "storage": {"size": "1Gi"}},
    })
}

/// A PartitionGroup with one partition, so that its leader is everybody's.
pub(crate) fn partition_group(name: &str, cluster: &str) -> Value {
    json!({
        "apiVersion": "coterie.dev/v1alpha1",
        "kind": "PartitionGroup",
        "metadata": {"name": name},
        "spec": {"clusterRef": {"name": cluster}, "type": "Raft", "partitions": 1, "replicas": 3},
    })
}
