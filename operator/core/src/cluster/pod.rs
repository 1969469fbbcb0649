//! The pod template: the application's, carried through as JSON, and what is added to it. Where the application says
//! something about the pod as a whole (spread, service account, `fsGroup`), it stays.

use serde_json::{Map, Value, json};

use super::validate::Template;
use super::{Validated, configuration};
use crate::names;

/// The pod template of the StatefulSet.
pub fn template(cluster: &Validated) -> Value {
    let (metadata, spec) = match &cluster.template {
        Some(template) => (template.metadata.clone(), with_application(cluster, template)),
        None => (Map::new(), alone(cluster)),
    };
    json!({"metadata": self::metadata(cluster, metadata), "spec": spec})
}

fn metadata(cluster: &Validated, mut metadata: Map<String, Value>) -> Value {
    let labels = object(&mut metadata, "labels");
    for (key, value) in names::common_labels(&cluster.name) {
        labels.entry(key).or_insert(Value::String(value));
    }
    for (key, value) in names::selector(&cluster.name) {
        labels.insert(key, Value::String(value));
    }
    let annotations = object(&mut metadata, "annotations");
    annotations
        .insert(names::CONFIGURATION_ANNOTATION.to_owned(), configuration::hash(&configuration::file(cluster)).into());
    annotations.entry("kubectl.kubernetes.io/default-container").or_insert_with(|| match &cluster.template {
        Some(template) => template.containers[0].get("name").cloned().unwrap_or(Value::Null),
        None => names::CONTAINER.into(),
    });
    Value::Object(metadata)
}

fn with_application(cluster: &Validated, template: &Template) -> Value {
    let Template { metadata: _, spec, containers, init_containers } = template;
    let mut spec = spec.clone();
    let mut sidecar = sidecar(cluster);
    // A native sidecar: it starts before everything else of the pod and ends after it.
    sidecar.insert("restartPolicy".to_owned(), "Always".into());
    let mut init = vec![Value::Object(sidecar)];
    init.extend(init_containers.iter().map(connected));
    spec.insert("initContainers".to_owned(), Value::Array(init));
    spec.insert("containers".to_owned(), containers.iter().map(connected).collect());
    pod(cluster, &mut spec);
    Value::Object(spec)
}

fn alone(cluster: &Validated) -> Value {
    let mut spec = Map::new();
    spec.insert("automountServiceAccountToken".to_owned(), false.into());
    spec.insert("enableServiceLinks".to_owned(), false.into());
    let context = json!({
        "runAsNonRoot": true, "runAsUser": names::USER, "runAsGroup": names::USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    spec.insert("securityContext".to_owned(), context);
    spec.insert("containers".to_owned(), json!([sidecar(cluster)]));
    pod(cluster, &mut spec);
    Value::Object(spec)
}

/// What is said once per pod.
fn pod(cluster: &Validated, spec: &mut Map<String, Value>) {
    if !spec.contains_key("serviceAccountName") && !spec.contains_key("serviceAccount") {
        spec.insert("serviceAccountName".to_owned(), names::service_account(&cluster.name).into());
    }
    let context = object(spec, "securityContext");
    // The sidecar writes to its volume and reads its key through this group.
    context.entry("fsGroup").or_insert(names::USER.into());
    context.entry("fsGroupChangePolicy").or_insert("OnRootMismatch".into());
    let spread = |key: &str| {
        json!({
            "maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": names::selector(&cluster.name)},
        })
    };
    if spec.get("topologySpreadConstraints").is_none_or(Value::is_null) {
        let constraints = json!([spread("topology.kubernetes.io/zone"), spread("kubernetes.io/hostname")]);
        spec.insert("topologySpreadConstraints".to_owned(), constraints);
    }
    let volumes = array(spec, "volumes");
    volumes.push(json!({"name": names::RUN_VOLUME, "emptyDir": {}}));
    volumes.push(json!({
        "name": names::CONFIGURATION_VOLUME,
        "configMap": {"name": names::configuration(&cluster.name)},
    }));
    volumes.push(json!({
        "name": names::CERTIFICATES_VOLUME,
        "secret": {"secretName": names::member_secret(&cluster.name), "defaultMode": 0o440},
    }));
}

/// An application's container, told where its sidecar is.
fn connected(container: &Map<String, Value>) -> Value {
    let mut container = container.clone();
    let env = array(&mut container, "env");
    let endpoint = format!("http://127.0.0.1:{}", names::API_PORT);
    for (name, value) in [("COTERIE_ENDPOINT", endpoint.as_str()), ("COTERIE_SOCKET", names::SOCKET)] {
        if !env.iter().any(|variable| variable.get("name").and_then(Value::as_str) == Some(name)) {
            env.push(json!({"name": name, "value": value}));
        }
    }
    array(&mut container, "volumeMounts").push(json!({"name": names::RUN_VOLUME, "mountPath": names::RUN_DIRECTORY}));
    Value::Object(container)
}

/// The sidecar's container. It fits the `restricted` level by itself, whatever the pod says.
fn sidecar(cluster: &Validated) -> Map<String, Value> {
    let configuration = format!("{}/{}", names::CONFIGURATION_DIRECTORY, names::CONFIGURATION_FILE);
    let zone = "metadata.labels['topology.kubernetes.io/zone']";
    let probe = |path: &str, period: u32, failures: u32| {
        json!({
            "httpGet": {"path": path, "port": "health"},
            "periodSeconds": period, "failureThreshold": failures, "timeoutSeconds": 5,
        })
    };
    let container = json!({
        "name": names::CONTAINER,
        "image": cluster.sidecar.image,
        "args": ["run", "--config", configuration, "--local-member", "$(POD_NAME)"],
        "command": ["/coterie-sidecar"],
        "env": [
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            // Kubernetes copies it from the node from 1.35 on; before that it is empty.
            {"name": "COTERIE_ZONE", "valueFrom": {"fieldRef": {"fieldPath": zone}}},
            {"name": "COTERIE_LOG", "value": cluster.sidecar.log_level},
            {"name": "COTERIE_LOG_FORMAT", "value": "json"},
        ],
        "ports": [
            {"name": "peer", "containerPort": names::PEER_PORT},
            {"name": "health", "containerPort": names::HEALTH_PORT},
        ],
        "resources": cluster.sidecar.resources,
        // The API answers and the file is valid; no quorum is waited for, else a pod would wait for others to start.
        "startupProbe": probe("/startupz", 1, 120),
        "livenessProbe": probe("/livez", 10, 3),
        "readinessProbe": probe("/readyz", 2, 3),
        // Runs when the termination begins, beside the application's: leadership goes before the application does.
        "lifecycle": {"preStop": {"exec": {"command": ["/coterie-sidecar", "drain", "--socket", names::SOCKET]}}},
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": names::USER, "runAsGroup": names::USER,
            "allowPrivilegeEscalation": false, "privileged": false, "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            {"name": names::RUN_VOLUME, "mountPath": names::RUN_DIRECTORY},
            {"name": names::DATA_VOLUME, "mountPath": names::DATA_DIRECTORY},
            {"name": names::CONFIGURATION_VOLUME, "mountPath": names::CONFIGURATION_DIRECTORY, "readOnly": true},
            {"name": names::CERTIFICATES_VOLUME, "mountPath": names::CERTIFICATES_DIRECTORY, "readOnly": true},
        ],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    });
    let Value::Object(mut container) = container else { unreachable!("it is written as an object above") };
    if let Some(policy) = &cluster.sidecar.image_pull_policy {
        container.insert("imagePullPolicy".to_owned(), policy.clone().into());
    }
    container
}

fn object<'a>(map: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let value = map.entry(key).or_insert(Value::Null);
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("it was made an object in the line above")
}

fn array<'a>(map: &'a mut Map<String, Value>, key: &str) -> &'a mut Vec<Value> {
    let value = map.entry(key).or_insert(Value::Null);
    if !value.is_array() {
        *value = Value::Array(Vec::new());
    }
    value.as_array_mut().expect("it was made an array in the line above")
}
