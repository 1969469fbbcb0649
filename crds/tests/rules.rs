//! Every CEL rule, evaluated as the API server does, without one.

use coterie_crds::cluster::STORAGE_SIZE_MIN;
use coterie_crds::definitions;
use kube_cel::Validator;
use serde_json::{Value, json};

const CLUSTER: &str = "cluster.yaml";
const GROUP: &str = "partitiongroup.yaml";

fn schema(file: &str) -> Value {
    let definition = definitions().into_iter().find(|definition| definition.file == file).expect("it is generated");
    let crd = serde_json::to_value(definition.crd).expect("a definition has a JSON form");
    let mut schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
    // The API server shows `metadata.name` to root rules without it being in the schema.
    schema["properties"]["metadata"] = json!({"type": "object", "properties": {"name": {"type": "string"}}});
    schema
}

fn valid(file: &str) -> Value {
    match file {
        CLUSTER => json!({"metadata": {"name": "orders"}, "spec": {}}),
        _ => json!({"metadata": {"name": "data"}, "spec": {"clusterRef": {"name": "orders"}, "type": "Raft"}}),
    }
}

fn merge(target: &mut Value, patch: &Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(target.entry(key).or_insert(Value::Null), value);
            }
        }
        (target, patch) => *target = patch.clone(),
    }
}

fn object(file: &str, patch: &Value) -> Value {
    let mut object = valid(file);
    merge(&mut object, patch);
    object
}

fn check(file: &str, object: &Value, old: Option<&Value>) -> Vec<String> {
    match Validator::new().validate(&schema(file), object, old) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.into_vec().into_iter().map(|error| error.message).collect(),
    }
}

/// (file, the old object or none on creation, the new one, what the message says).
fn refused() -> Vec<(&'static str, Option<Value>, Value, &'static str)> {
    let long = "a".repeat(49);
    vec![
        (CLUSTER, None, json!({"metadata": {"name": long}}), "metadata.name becomes part of host names"),
        (CLUSTER, None, json!({"metadata": {"name": "1st"}}), "metadata.name becomes part of host names"),
        (CLUSTER, None, json!({"metadata": {"name": "a.b"}}), "metadata.name becomes part of host names"),
        (CLUSTER, None, json!({"spec": {"replicas": 1}}), "must not be more than spec.replicas"),
        (CLUSTER, None, json!({"spec": {"managementVoters": 5}}), "must not be more than spec.replicas"),
        (CLUSTER, None, json!({"spec": {"managementVoters": 2}}), "must be 1, 3 or 5"),
        (CLUSTER, Some(json!({})), json!({"spec": {"managementVoters": 1}}), "spec.managementVoters is immutable"),
        (CLUSTER, Some(json!({})), json!({"spec": {"profiles": []}}), "spec.profiles is immutable"),
        (CLUSTER, Some(json!({"spec": {"profiles": []}})), json!({}), "spec.profiles is immutable"),
        (
            CLUSTER,
            None,
            json!({"spec": {"profiles": ["DataGrid"]}}),
            "DataGrid (primary-backup) is not in this version",
        ),
        (CLUSTER, None, json!({"spec": {"profiles": ["Client"]}}), "Client is for the sidecars of other workloads"),
        (CLUSTER, None, json!({"spec": {"profiles": ["Consensus", "Consensus"]}}), "names a profile twice"),
        (CLUSTER, None, json!({"spec": {"storage": {"size": "much"}}}), "must be a quantity of at least 256Mi"),
        (CLUSTER, None, json!({"spec": {"storage": {"size": "16Mi"}}}), "must be a quantity of at least 256Mi"),
        (CLUSTER, None, json!({"spec": {"storage": {"size": "255.5Mi"}}}), "must be a quantity of at least 256Mi"),
        (CLUSTER, None, json!({"spec": {"storage": {"size": "256M"}}}), "must be a quantity of at least 256Mi"),
        (
            CLUSTER,
            Some(json!({"spec": {"storage": {"size": "2Gi"}}})),
            json!({"spec": {"storage": {"size": "1Gi"}}}),
            "must not shrink",
        ),
        (
            CLUSTER,
            Some(json!({})),
            json!({"spec": {"storage": {"storageClassName": "fast"}}}),
            "storageClassName is immutable",
        ),
        (
            CLUSTER,
            Some(json!({"spec": {"storage": {"storageClassName": "fast"}}})),
            json!({}),
            "storageClassName is immutable",
        ),
        (
            CLUSTER,
            Some(json!({"spec": {"storage": {"storageClassName": "fast"}}})),
            json!({"spec": {"storage": {"storageClassName": "slow"}}}),
            "storageClassName is immutable",
        ),
        (
            CLUSTER,
            None,
            json!({"spec": {"sidecar": {"imagePullPolicy": "Sometimes"}}}),
            "imagePullPolicy must be Always, IfNotPresent or Never",
        ),
        (
            CLUSTER,
            Some(json!({})),
            json!({"spec": {"sidecar": {"timing": "fast"}}}),
            "spec.sidecar.timing is immutable",
        ),
        (
            CLUSTER,
            Some(json!({"spec": {"sidecar": {"timing": "fast"}}})),
            json!({"spec": {"sidecar": {}}}),
            "spec.sidecar.timing is immutable",
        ),
        (
            CLUSTER,
            Some(json!({"spec": {"sidecar": {"timing": "fast"}}})),
            json!({"spec": {"sidecar": {"timing": "slow"}}}),
            "spec.sidecar.timing is immutable",
        ),
        (
            CLUSTER,
            None,
            json!({"spec": {"template": {"spec": {"containers": [{"name": "coterie"}]}}}}),
            "the container name `coterie`",
        ),
        (
            CLUSTER,
            None,
            json!({"spec": {"template": {"spec": {"containers": [{"name": "app"}], "initContainers": [{"name": "coterie"}]}}}}),
            "the container name `coterie`",
        ),
        (
            CLUSTER,
            None,
            json!({"spec": {"template": {"spec": {"containers": [{"name": "app"}], "volumes": [{"name": "coterie-run"}]}}}}),
            "volume names that begin with `coterie-`",
        ),
        (GROUP, None, json!({"metadata": {"name": "system"}}), "the name `system` is the management group's"),
        (GROUP, None, json!({"spec": {"name": "system"}}), "the name `system` is the management group's"),
        (GROUP, Some(json!({})), json!({"spec": {"name": "other"}}), "spec.name is immutable"),
        (GROUP, Some(json!({"spec": {"name": "one"}})), json!({"spec": {"name": "other"}}), "spec.name is immutable"),
        (GROUP, None, json!({"spec": {"type": "PrimaryBackup"}}), "PrimaryBackup is not in this version"),
        (GROUP, None, json!({"spec": {"type": "PrimaryBackup", "raft": {}}}), "spec.raft is only for spec.type Raft"),
        (GROUP, Some(json!({})), json!({"spec": {"type": "PrimaryBackup"}}), "spec.type is immutable"),
        (GROUP, Some(json!({})), json!({"spec": {"partitions": 4}}), "spec.partitions is immutable"),
        (GROUP, None, json!({"spec": {"replicas": 2}}), "spec.replicas must be 1, 3 or 5"),
        (GROUP, Some(json!({})), json!({"spec": {"replicas": 1}}), "spec.replicas is immutable"),
        (GROUP, Some(json!({})), json!({"spec": {"clusterRef": {"name": "other"}}}), "spec.clusterRef is immutable"),
        (GROUP, None, json!({"spec": {"raft": {"members": ["orders-0"]}}}), "must name at least spec.replicas members"),
        (
            GROUP,
            Some(json!({})),
            json!({"spec": {"raft": {"members": ["orders-0", "orders-1", "orders-2"]}}}),
            "spec.raft.members is immutable",
        ),
    ]
}

#[test]
fn wrong_objects_are_refused_with_field_rule_and_fix() {
    for (file, old, new, says) in refused() {
        let old = old.map(|patch| object(file, &patch));
        let messages = check(file, &object(file, &new), old.as_ref());
        assert!(
            messages.iter().any(|message| message.contains(says)),
            "{file} {new}: expected {says:?}, got {messages:?}"
        );
    }
}

#[test]
fn every_rule_has_a_case_that_it_refuses() {
    fn walk(schema: &Value, messages: &mut Vec<String>) {
        match schema {
            Value::Object(map) => {
                for rule in map.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten() {
                    messages.push(rule["message"].as_str().unwrap_or("a rule without a message").to_owned());
                }
                map.values().for_each(|value| walk(value, messages));
            }
            Value::Array(list) => list.iter().for_each(|value| walk(value, messages)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    for file in [CLUSTER, GROUP] {
        let mut messages = Vec::new();
        walk(&schema(file), &mut messages);
        assert!(messages.len() >= 10, "{file} has its rules");
        for message in messages {
            assert!(refused().iter().any(|(_, _, _, says)| message.contains(says)), "{file}: no case for {message:?}");
        }
    }
}

#[test]
fn right_objects_and_safe_changes_are_accepted() {
    let cases = [
        (CLUSTER, None, json!({})),
        (CLUSTER, None, json!({"spec": {"storage": {"size": STORAGE_SIZE_MIN}}})),
        (CLUSTER, None, json!({"spec": {"replicas": 1, "managementVoters": 1, "profiles": []}})),
        (CLUSTER, None, json!({"spec": {"replicas": 7, "managementVoters": 5}})),
        // A Cluster that has run may be asked for fewer: it is answered with ScaleDownBlocked.
        (
            CLUSTER,
            Some(json!({"status": {"replicas": 3}})),
            json!({"spec": {"replicas": 1}, "status": {"replicas": 3}}),
        ),
        (
            CLUSTER,
            Some(json!({})),
            json!({"spec": {"storage": {"size": "2Gi", "retention": "Delete"}, "replicas": 5, "paused": true}}),
        ),
        (
            CLUSTER,
            None,
            json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "image": "app:1", "anything": {"new": 1}}], "volumes": [{"name": "tmp", "emptyDir": {}}]}}}}),
        ),
        (CLUSTER, None, json!({"spec": {"sidecar": {"timing": "fast"}}})),
        // What holds without it may be said.
        (CLUSTER, Some(json!({"spec": {"sidecar": {}}})), json!({"spec": {"sidecar": {"timing": "normal"}}})),
        (
            CLUSTER,
            Some(json!({"spec": {"sidecar": {"timing": "slow"}}})),
            json!({"spec": {"sidecar": {"timing": "slow", "logLevel": "debug"}}}),
        ),
        (GROUP, None, json!({})),
        (GROUP, Some(json!({})), json!({"spec": {"deletionPolicy": "Delete"}})),
        (
            GROUP,
            None,
            json!({"spec": {"name": "raft", "partitions": 7, "replicas": 1, "raft": {"members": ["orders-1"]}}}),
        ),
    ];
    for (file, old, new) in cases {
        let old = old.map(|patch: Value| object(file, &patch));
        let messages = check(file, &object(file, &new), old.as_ref());
        assert!(messages.is_empty(), "{file} {new}: {messages:?}");
    }
}

#[test]
fn immutables_accept_an_update_that_leaves_them() {
    for file in [CLUSTER, GROUP] {
        let object = valid(file);
        assert_eq!(check(file, &object, Some(&object)), Vec::<String>::new());
    }
}
