//! Wrong resources are refused by the API server itself.

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

use crate::context::Context;
use crate::manifests::{cluster, partition_group, sidecars_alone};

/// A wrong resource, and what the refusal says.
struct Wrong {
    what: &'static str,
    resource: Value,
    /// Field, rule and fix, as parts of the message.
    said: &'static [&'static str],
}

/// Wrong resources are refused by the API server with field, rule and fix.
pub(super) fn bad_specs_refused(context: &Context<'_>) -> Result<()> {
    let mut accepted = Vec::new();
    for wrong in at_creation() {
        accepted.extend(check(context, &wrong));
    }
    context.kube.apply(&sidecars_alone("right").to_string())?;
    context.kube.apply(&partition_group("right", "right").to_string())?;
    for wrong in at_change() {
        accepted.extend(check(context, &wrong));
    }
    ensure!(accepted.is_empty(), "{}", accepted.join("\n"));
    context.measured(format!("{} wrong resources refused", at_creation().len() + at_change().len()));
    Ok(())
}

/// What is wrong with the answer, if anything.
fn check(context: &Context<'_>, wrong: &Wrong) -> Option<String> {
    match refusal(context, &wrong.resource) {
        Ok(message) => {
            let missing: Vec<_> = wrong.said.iter().filter(|part| !message.contains(**part)).collect();
            (!missing.is_empty()).then(|| format!("{}: the message lacks {missing:?}: {message}", wrong.what))
        }
        Err(reason) => Some(format!("{}: {reason}", wrong.what)),
    }
}

/// The API server's message.
fn refusal(context: &Context<'_>, resource: &Value) -> Result<String> {
    let mut apply =
        context.kube.command(&["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-"]);
    let output = crate::process::output(&mut apply, Some(&resource.to_string()))?;
    if output.status.success() {
        bail!("it was accepted");
    }
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A Cluster with one value changed.
fn cluster_with(pointer: &str, value: Value) -> Value {
    with(sidecars_alone("wrong"), pointer, value)
}

/// A PartitionGroup with one value changed.
fn group_with(pointer: &str, value: Value) -> Value {
    with(partition_group("wrong", "right"), pointer, value)
}

/// Sets what `/a/b` names, making the objects on the way.
fn with(mut resource: Value, pointer: &str, value: Value) -> Value {
    let mut place = &mut resource;
    for key in pointer.trim_start_matches('/').split('/') {
        place = &mut place[key];
    }
    *place = value;
    resource
}

fn wrong(what: &'static str, resource: Value, said: &'static [&'static str]) -> Wrong {
    Wrong { what, resource, said }
}

fn at_creation() -> Vec<Wrong> {
    let long = "a".repeat(49);
    let mut both = cluster("wrong", "image");
    both["spec"]["replicas"] = json!(1);
    vec![
        wrong(
            "no replicas",
            cluster_with("/spec/replicas", json!(0)),
            &["spec.replicas", "greater than or equal to 1"],
        ),
        wrong(
            "two voters",
            cluster_with("/spec/managementVoters", json!(2)),
            &["spec.managementVoters", "must be 1, 3 or 5", "use 1, 3 or 5"],
        ),
        wrong(
            "more voters than pods",
            cluster_with("/spec/managementVoters", json!(5)),
            &["spec.managementVoters", "must not be more than spec.replicas", "raise spec.replicas"],
        ),
        wrong("three voters in one pod", both, &["spec.managementVoters", "raise spec.replicas"]),
        wrong(
            "primary-backup profile",
            cluster_with("/spec/profiles", json!(["DataGrid"])),
            &["spec.profiles", "not in this version", "use Consensus"],
        ),
        wrong(
            "client profile",
            cluster_with("/spec/profiles", json!(["Client"])),
            &["spec.profiles", "members that vote", "use Consensus"],
        ),
        wrong(
            "unknown profile",
            cluster_with("/spec/profiles", json!(["Fast"])),
            &["spec.profiles", "Unsupported value", "Consensus"],
        ),
        wrong(
            "profile twice",
            cluster_with("/spec/profiles", json!(["Consensus", "Consensus"])),
            &["spec.profiles", "twice", "once"],
        ),
        wrong(
            "no quantity",
            cluster_with("/spec/storage/size", json!("much")),
            &["spec.storage.size", "quantity", "for example 1Gi"],
        ),
        wrong(
            "tiny volume",
            cluster_with("/spec/storage/size", json!("255Mi")),
            &["spec.storage.size", "at least 256Mi"],
        ),
        wrong(
            "unknown pull policy",
            cluster_with("/spec/sidecar/imagePullPolicy", json!("Sometimes")),
            &["spec.sidecar.imagePullPolicy", "use one of them"],
        ),
        wrong(
            "unknown key",
            cluster_with("/spec/replica", json!(3)),
            &[".spec.replica", "field not declared in schema"],
        ),
        wrong("long name", cluster_with("/metadata/name", json!(long)), &["metadata.name", "at most 48"]),
        wrong(
            "container with the sidecar's name",
            cluster_with("/spec/template/spec/containers", json!([{"name": "coterie"}])),
            &["spec.template.spec.containers", "is the sidecar's", "another name"],
        ),
        wrong(
            "volume with the sidecar's prefix",
            cluster_with(
                "/spec/template/spec",
                json!({"containers": [{"name": "app"}], "volumes": [{"name": "coterie-x"}]}),
            ),
            &["spec.template.spec.volumes", "are the sidecar's", "another name"],
        ),
        wrong(
            "template without a container",
            cluster_with("/spec/template/spec/containers", json!([])),
            &["spec.template.spec.containers", "at least 1"],
        ),
        wrong("unknown type", group_with("/spec/type", json!("Paxos")), &["spec.type", "Unsupported value", "Raft"]),
        wrong(
            "primary-backup group",
            group_with("/spec/type", json!("PrimaryBackup")),
            &["spec.type", "not in this version", "use Raft"],
        ),
        wrong(
            "no partitions",
            group_with("/spec/partitions", json!(0)),
            &["spec.partitions", "greater than or equal to 1"],
        ),
        wrong(
            "too many partitions",
            group_with("/spec/partitions", json!(129)),
            &["spec.partitions", "less than or equal to 128"],
        ),
        wrong("two replicas", group_with("/spec/replicas", json!(2)), &["spec.replicas", "use 1, 3 or 5"]),
        wrong("the management group's name", group_with("/spec/name", json!("system")), &["`system`", "another"]),
        wrong(
            "no name of a Cluster",
            group_with("/spec/clusterRef", json!({})),
            &["spec.clusterRef.name", "Required value"],
        ),
        wrong(
            "fewer members than replicas",
            group_with("/spec/raft/members", json!(["right-0"])),
            &["spec.raft.members", "at least spec.replicas"],
        ),
        wrong(
            "unknown deletion policy",
            group_with("/spec/deletionPolicy", json!("Maybe")),
            &["spec.deletionPolicy", "Unsupported value"],
        ),
    ]
}

fn at_change() -> Vec<Wrong> {
    let cluster = |pointer, value| with(sidecars_alone("right"), pointer, value);
    let group = |pointer, value| with(partition_group("right", "right"), pointer, value);
    vec![
        wrong(
            "other voters",
            cluster("/spec/managementVoters", json!(1)),
            &["spec.managementVoters", "immutable", "make a new Cluster"],
        ),
        wrong(
            "other storage class",
            cluster("/spec/storage/storageClassName", json!("fast")),
            &["storageClassName", "immutable", "make a new Cluster"],
        ),
        wrong(
            "smaller volume",
            cluster("/spec/storage/size", json!("512Mi")),
            &["spec.storage.size", "must not shrink", "keep the size or raise it"],
        ),
        wrong(
            "other partitions",
            group("/spec/partitions", json!(5)),
            &["spec.partitions", "immutable", "make a new PartitionGroup"],
        ),
        wrong(
            "other replicas",
            group("/spec/replicas", json!(1)),
            &["spec.replicas", "immutable", "make a new PartitionGroup"],
        ),
        wrong(
            "other Cluster",
            group("/spec/clusterRef/name", json!("left")),
            &["spec.clusterRef", "immutable", "make a new PartitionGroup"],
        ),
        wrong(
            "other name",
            group("/spec/name", json!("else")),
            &["spec.name", "immutable", "make a new PartitionGroup"],
        ),
    ]
}
