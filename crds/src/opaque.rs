//! Parts of a spec that Kubernetes owns. They are carried as JSON, so that a field that this build has never heard of
//! is kept, and so that the definitions stay small (a typed pod template alone is 320 kB of schema).

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A pod template, as in a StatefulSet: `metadata` (labels, annotations) and `spec`. Unknown fields are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PodTemplate(pub Value);

impl JsonSchema for PodTemplate {
    fn schema_name() -> Cow<'static, str> {
        "PodTemplate".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let container = json_schema!({
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": true,
            "required": ["name"],
            "properties": {"name": {"type": "string", "minLength": 1, "maxLength": 63}},
        });
        let containers = |minimum: u32| {
            json_schema!({
                "type": "array",
                "minItems": minimum,
                "maxItems": 32,
                "items": container,
                "x-kubernetes-validations": [{
                    "rule": "self.all(c, c.name != 'coterie')",
                    "message": "the container name `coterie` is the sidecar's, which the operator adds: give the application's container another name",
                }],
            })
        };
        json_schema!({
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": true,
            "required": ["spec"],
            "properties": {
                "metadata": {
                    "type": "object",
                    "description": "Labels and annotations of the pods.",
                    "x-kubernetes-preserve-unknown-fields": true,
                },
                "spec": {
                    "type": "object",
                    "description": "The application's pod spec. Everything in it is kept as it is; the sidecar, its volumes and what only an empty field allows (spread, fsGroup, service account) are added.",
                    "x-kubernetes-preserve-unknown-fields": true,
                    "required": ["containers"],
                    "properties": {
                        "containers": containers(1),
                        "initContainers": containers(0),
                        "volumes": {
                            "type": "array",
                            "maxItems": 128,
                            "items": {
                                "type": "object",
                                "x-kubernetes-preserve-unknown-fields": true,
                                "required": ["name"],
                                "properties": {"name": {"type": "string", "minLength": 1, "maxLength": 63}},
                            },
                            "x-kubernetes-validations": [{
                                "rule": "self.all(v, !v.name.startsWith('coterie-'))",
                                "message": "volume names that begin with `coterie-` are the sidecar's, which the operator adds: give the volume another name",
                            }],
                        },
                    },
                },
            },
        })
    }
}

/// Amounts of resources by name, as Kubernetes writes them: `{cpu: 100m, memory: 128Mi}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Amounts(pub serde_json::Map<String, Value>);

impl JsonSchema for Amounts {
    fn schema_name() -> Cow<'static, str> {
        "Amounts".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "maxProperties": 16,
            "additionalProperties": {"x-kubernetes-int-or-string": true},
        })
    }
}

/// The schema of a list of `metav1.Condition`, merged by type.
pub(crate) fn conditions(generator: &mut SchemaGenerator) -> Schema {
    let item = <k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition as JsonSchema>::json_schema(generator);
    json_schema!({
        "type": "array",
        "items": item,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    })
}
