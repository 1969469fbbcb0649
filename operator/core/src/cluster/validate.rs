//! Step "validate" of the Cluster's controller: a [`Validated`] is the only thing that the later steps read of a spec.

use coterie_core::config;
use coterie_crds::cluster::{
    Cluster, ClusterSpec, Profile, Resources, Retention, STORAGE_SIZE_MIN, Security, Sidecar, Storage, Timing,
};
use coterie_crds::opaque::{Amounts, PodTemplate};
use serde_json::{Map, Value};

use super::Owner;
use crate::names;
use crate::quantity;

/// What the operator was started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// The sidecar's image where a spec names none.
    pub sidecar_image: String,
}

/// Why a spec is not followed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{}", .problems.join("; "))]
pub struct Error {
    /// Each wrong thing: the field, the rule and the fix.
    pub problems: Vec<String>,
}

/// A Cluster whose spec can be followed.
#[derive(Clone, Debug, PartialEq)]
pub struct Validated {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its identity in Kubernetes.
    pub uid: String,
    /// The pods that it asks for.
    pub replicas: u32,
    /// The members that vote and keep data: the pods with the lowest numbers.
    pub voters: u32,
    /// Whether it has the partition group `raft` from the start.
    pub consensus: bool,
    /// The application's pod template.
    pub template: Option<Template>,
    /// The volumes.
    pub storage: Storage,
    /// The sidecar's container.
    pub sidecar: Container,
    /// The timers of its members.
    pub timing: config::Timing,
    /// Whether there is a NetworkPolicy.
    pub network_policy: bool,
    /// Whether nothing is to be changed but certificates that run out.
    pub paused: bool,
}

/// The application's pod template, with the fields that the operator adds to in their places.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    /// `metadata`.
    pub metadata: Map<String, Value>,
    /// `spec`, without `containers` and `initContainers`.
    pub spec: Map<String, Value>,
    /// `spec.containers`: at least one.
    pub containers: Vec<Map<String, Value>>,
    /// `spec.initContainers`.
    pub init_containers: Vec<Map<String, Value>>,
}

/// The sidecar's container.
#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    /// Its image.
    pub image: String,
    /// When the image is pulled.
    pub image_pull_policy: Option<String>,
    /// Its requests and limits.
    pub resources: Value,
    /// What it logs.
    pub log_level: String,
}

impl Validated {
    /// What its objects refer to.
    pub fn owner(&self) -> Owner {
        Owner { name: self.name.clone(), namespace: self.namespace.clone(), uid: self.uid.clone() }
    }

    /// The voters' pods, which are the persistent members.
    pub fn voter_pods(&self) -> Vec<String> {
        (0..self.voters).map(|index| names::pod(&self.name, index)).collect()
    }

    /// Whether it asks for fewer pods than must stay.
    pub fn asks_for_too_few(&self) -> bool {
        self.replicas < self.voters
    }
}

/// Checks a Cluster whole. What the API server checked already is checked again: a definition of another version may have
/// let it through.
///
/// # Errors
/// Every problem at once.
pub fn validate(cluster: &Cluster, defaults: &Defaults) -> Result<Validated, Error> {
    let mut problems = Vec::new();
    // Destructured without `..`: a new field cannot be forgotten here.
    let ClusterSpec { replicas, profiles, management_voters, template, storage, sidecar, security, paused } =
        &cluster.spec;
    let Security { network_policy } = security;
    let name = cluster.metadata.name.clone().unwrap_or_default();
    if name.is_empty() || name.len() > 48 || name.contains('.') {
        problems.push("metadata.name must have 1 to 48 characters and no `.`: choose such a name".to_owned());
    }
    let positive = |number: i32| u32::try_from(number).ok().filter(|number| (1..=1000).contains(number));
    if positive(*replicas).is_none() {
        problems.push(format!("spec.replicas is {replicas}: it must be from 1 to 1000"));
    }
    if ![1, 3, 5].contains(management_voters) {
        problems.push(format!("spec.managementVoters is {management_voters}: it must be 1, 3 or 5"));
    }
    for profile in profiles {
        match profile {
            Profile::Consensus => {}
            Profile::DataGrid => {
                problems.push("spec.profiles: DataGrid is not in this version; use Consensus".to_owned())
            }
            Profile::Client => problems.push("spec.profiles: Client is not for a Cluster; use Consensus".to_owned()),
        }
    }
    check_storage(storage, &mut problems);
    let template = template.as_ref().and_then(|template| split(template, &mut problems));
    let timing = timing(sidecar.timing);
    let sidecar = container(sidecar, defaults);
    if !problems.is_empty() {
        return Err(Error { problems });
    }
    Ok(Validated {
        name,
        namespace: cluster.metadata.namespace.clone().unwrap_or_default(),
        uid: cluster.metadata.uid.clone().unwrap_or_default(),
        replicas: positive(*replicas).unwrap_or(1),
        voters: positive(*management_voters).unwrap_or(1),
        consensus: profiles.contains(&Profile::Consensus),
        template,
        storage: storage.clone(),
        sidecar,
        timing,
        network_policy: *network_policy,
        paused: *paused,
    })
}

fn check_storage(storage: &Storage, problems: &mut Vec<String>) {
    let Storage { size, storage_class_name: _, retention } = storage;
    match retention {
        Retention::Retain | Retention::Delete => {}
    }
    if quantity::thousandths(size) < quantity::thousandths(STORAGE_SIZE_MIN) {
        let rule = format!("it must be a quantity of at least {STORAGE_SIZE_MIN}, for example 1Gi");
        problems.push(format!("spec.storage.size is `{size}`: {rule}"));
    }
}

fn timing(said: Option<Timing>) -> config::Timing {
    match said.unwrap_or_default() {
        Timing::Normal => config::Timing::Normal,
        Timing::Fast => config::Timing::Fast,
        Timing::Slow => config::Timing::Slow,
    }
}

fn container(sidecar: &Sidecar, defaults: &Defaults) -> Container {
    // How it is timed is in its file.
    let Sidecar { image, image_pull_policy, resources, log_level, timing: _ } = sidecar;
    let Resources { requests: Amounts(requests), limits: Amounts(limits) } = resources;
    Container {
        image: image.clone().unwrap_or_else(|| defaults.sidecar_image.clone()),
        image_pull_policy: image_pull_policy.clone(),
        resources: serde_json::json!({"requests": requests, "limits": limits}),
        log_level: log_level.clone(),
    }
}

fn split(PodTemplate(template): &PodTemplate, problems: &mut Vec<String>) -> Option<Template> {
    let before = problems.len();
    let mut wrong = |what: &str| problems.push(what.to_owned());
    let metadata = match template.get("metadata") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(metadata)) => metadata.clone(),
        Some(_) => {
            wrong("spec.template.metadata is not an object: give labels and annotations");
            Map::new()
        }
    };
    for key in ["labels", "annotations"] {
        if metadata.get(key).is_some_and(|value| !value.is_object() && !value.is_null()) {
            wrong(&format!("spec.template.metadata.{key} is not an object: give keys and values"));
        }
    }
    let Some(Value::Object(spec)) = template.get("spec") else {
        wrong("spec.template.spec is missing: give a pod's spec, or leave spec.template out to run the sidecars alone");
        return None;
    };
    let mut spec = spec.clone();
    let containers = take_containers(&mut spec, "containers", &mut wrong);
    let init_containers = take_containers(&mut spec, "initContainers", &mut wrong);
    if containers.is_empty() {
        wrong("spec.template.spec.containers is empty: name at least the application's container");
    }
    for volume in spec.get("volumes").and_then(Value::as_array).into_iter().flatten() {
        let name = volume.get("name").and_then(Value::as_str).unwrap_or_default();
        if name.starts_with("coterie-") {
            wrong(&format!(
                "spec.template.spec.volumes: `{name}` begins with `coterie-`, which the sidecar's volumes do: give it another name"
            ));
        }
    }
    for key in ["volumes", "topologySpreadConstraints"] {
        if spec.get(key).is_some_and(|value| !value.is_array() && !value.is_null()) {
            wrong(&format!("spec.template.spec.{key} is not a list"));
        }
    }
    (problems.len() == before).then_some(Template { metadata, spec, containers, init_containers })
}

fn take_containers(spec: &mut Map<String, Value>, key: &str, wrong: &mut impl FnMut(&str)) -> Vec<Map<String, Value>> {
    let list = match spec.remove(key) {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(list)) => list,
        Some(_) => {
            wrong(&format!("spec.template.spec.{key} is not a list"));
            Vec::new()
        }
    };
    let mut containers = Vec::new();
    for container in list {
        let Value::Object(container) = container else {
            wrong(&format!("spec.template.spec.{key} has an entry that is not an object"));
            continue;
        };
        if container.get("name").and_then(Value::as_str) == Some(names::CONTAINER) {
            wrong(&format!(
                "spec.template.spec.{key}: the name `coterie` is the sidecar's: give the container another name"
            ));
        }
        for list in ["env", "volumeMounts"] {
            if container.get(list).is_some_and(|value| !value.is_array() && !value.is_null()) {
                wrong(&format!("spec.template.spec.{key}[].{list} is not a list"));
            }
        }
        containers.push(container);
    }
    containers
}
