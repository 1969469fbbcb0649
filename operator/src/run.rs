//! `coterie-operator run`: the controllers and the health port.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use coterie_crds::{Cluster, PartitionGroup};
use coterie_operator_core::cluster::Defaults;
use coterie_operator_core::condition::{self, Claim, Event};
use coterie_operator_core::names;
use futures_util::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::{DeserializeGuard, error_boundary::InvalidObject};
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::events::Recorder;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde_json::{Value, json};

use crate::context::Context;
use crate::health::{self, Readiness};
use crate::{cluster, group};

/// How `run` is told what to do.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The only namespace to look at. Without it all of them.
    #[arg(long, env = "COTERIE_NAMESPACE")]
    namespace: Option<String>,
    /// The sidecar's image where a Cluster names none.
    #[arg(long, env = "COTERIE_SIDECAR_IMAGE")]
    sidecar_image: String,
    /// Where `/livez` and `/readyz` are served. `[::]` is IPv4 as well, and IPv4 alone where there is no IPv6.
    #[arg(long, env = "COTERIE_HEALTH_ADDRESS", default_value = "[::]:8080")]
    health_address: SocketAddr,
    /// What is logged: a level or a filter.
    #[arg(long, env = "COTERIE_LOG", default_value = "info")]
    log: String,
}

/// Reconciliations of one kind that may run at once: one that waits for dead members must not hold up the others.
const CONCURRENCY: u16 = 16;
/// How soon a reconciliation that failed is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Runs until a signal tells it to stop.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let Options { namespace, sidecar_image, health_address, log } = options;
    let namespace = namespace.filter(|namespace| !namespace.is_empty());
    let filter = tracing_subscriber::EnvFilter::try_new(&log).context("read the log filter")?;
    tracing_subscriber::fmt().json().with_env_filter(filter).init();
    // Installed once for the process: the Kubernetes client asks for it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::try_default().await.context("find the API server")?;
    let context = Arc::new(Context {
        client: client.clone(),
        recorder: Recorder::new(client, names::MANAGER.into()),
        defaults: Defaults { sidecar_image },
    });
    let readiness = Readiness::default();
    let health = tokio::spawn(health::serve(health_address, readiness.clone()));
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        namespace = namespace.as_deref().unwrap_or("all"),
        "operator started"
    );
    let namespace = namespace.as_deref();
    tokio::select! {
        () = async { tokio::join!(clusters(&context, namespace, readiness), groups(&context, namespace)); } => Ok(()),
        served = health => {
            served.context("run the health port")?.with_context(|| format!("serve the health port {health_address}"))
        }
    }
}

fn api<K>(context: &Context, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(context.client.clone(), namespace),
        None => Api::all(context.client.clone()),
    }
}

async fn clusters(context: &Arc<Context>, namespace: Option<&str>, readiness: Readiness) {
    let all = watcher::Config::default;
    let own = || watcher::Config::default().labels(&format!("app.kubernetes.io/managed-by={}", names::MANAGER));
    let controller = Controller::new(api::<DeserializeGuard<Cluster>>(context, namespace), all())
        .owns(api::<StatefulSet>(context, namespace), own())
        .owns(api::<Service>(context, namespace), own())
        .owns(api::<PodDisruptionBudget>(context, namespace), own())
        .with_config(Config::default().concurrency(CONCURRENCY))
        .shutdown_on_signal();
    let store = controller.store();
    let stream =
        controller.run(cluster::reconcile, |object, error, _| retry(object.as_ref(), error), Arc::clone(context));
    let ready = async {
        if store.wait_until_ready().await.is_ok() {
            readiness.set();
        }
    };
    tokio::join!(ready, drain(stream));
}

async fn groups(context: &Arc<Context>, namespace: Option<&str>) {
    let all = watcher::Config::default;
    let controller = Controller::new(api::<DeserializeGuard<PartitionGroup>>(context, namespace), all());
    let groups = controller.store();
    let known = groups.clone();
    // A Cluster that comes, goes or changes concerns the groups that refer to it.
    let referring = move |cluster: DeserializeGuard<Cluster>| -> Vec<ObjectRef<DeserializeGuard<PartitionGroup>>> {
        let refers = |group: &PartitionGroup| {
            group.namespace() == cluster.namespace() && group.spec.cluster_ref.name == cluster.name_any()
        };
        known
            .state()
            .iter()
            .filter(|group| group.0.as_ref().is_ok_and(refers))
            .map(|group| ObjectRef::from_obj(group.as_ref()))
            .collect()
    };
    let stream = controller
        .watches(api::<DeserializeGuard<Cluster>>(context, namespace), all(), referring)
        .with_config(Config::default().concurrency(CONCURRENCY))
        .shutdown_on_signal()
        .run(
            group::reconcile,
            |object, error, _| retry(object.as_ref(), error),
            Arc::new(group::Shared { context: Arc::clone(context), groups }),
        );
    drain(stream).await;
}

/// Logs a failure once, here, with its causes.
fn retry<K: Resource<DynamicType = ()>>(object: &K, error: &dyn std::error::Error) -> Action {
    let mut causes = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        // Some errors already end with their cause.
        let text = cause.to_string();
        if !causes.last().is_some_and(|last| last.contains(text.trim_end_matches([' ', ':']))) {
            causes.push(text);
        }
        next = cause.source();
    }
    let (kind, name) = (K::kind(&()), object.name_any());
    tracing::warn!(%kind, name, namespace = object.namespace(), error = causes.join(": "), "reconciliation failed; it is tried again");
    Action::requeue(RETRY)
}

async fn drain<T, E: std::error::Error>(stream: impl futures_util::Stream<Item = Result<T, E>>) {
    // Failed reconciliations are logged by `retry`; what else comes is a watch that breaks and is made again.
    stream
        .for_each(|item| async {
            if let Err(error) = item {
                tracing::debug!(%error, "controller");
            }
        })
        .await;
}

/// Writes a status by server-side apply.
pub(crate) async fn write_status<K>(
    context: &Context,
    namespace: &str,
    name: &str,
    status: &impl Serialize,
) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + serde::de::DeserializeOwned,
{
    let object = json!({
        "apiVersion": K::api_version(&()), "kind": K::kind(&()), "metadata": {"name": name}, "status": status,
    });
    let params = PatchParams::apply(names::MANAGER).force();
    let written = context.api::<K>(namespace).patch_status(name, &params, &Patch::Apply(object)).await;
    match written {
        // Deleted meanwhile.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        written => written.map(drop),
    }
}

/// Answers an object that this version cannot read with a condition and an event, once per generation. The rest of its
/// status stays.
pub(crate) async fn report_unreadable<K>(context: &Context, invalid: &InvalidObject) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug,
{
    let InvalidObject { error, metadata } = invalid;
    let (namespace, name) = (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default());
    let resource = ApiResource::erase::<K>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), &namespace, &resource);
    let Some(object) = api.get_opt(&name).await? else { return Ok(()) };
    let status = object.data.get("status");
    let is_told = status.and_then(|status| status.get("phase")).is_some_and(|phase| phase == "Invalid")
        && status.and_then(|status| status.get("observedGeneration")?.as_i64()) == metadata.generation;
    if is_told {
        return Ok(());
    }
    let message =
        format!("this version of the operator cannot read the object: {error}; correct the field that it names");
    let claims = vec![Claim::new("Ready", false, "InvalidSpec", &message)];
    // What was known stays: the scale subresource reads it, and an identity is not forgotten.
    let mut next = status.and_then(Value::as_object).cloned().unwrap_or_default();
    let before = next.get("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let before: Vec<Condition> = before.into_iter().filter_map(|one| serde_json::from_value(one).ok()).collect();
    let mut conditions = condition::conditions(claims, &before, metadata.generation, Timestamp::now());
    let is_told = |kind: &str| conditions.iter().any(|condition| condition.type_ == kind);
    let kept: Vec<Condition> = before.into_iter().filter(|condition| !is_told(&condition.type_)).collect();
    conditions.extend(kept);
    next.insert("observedGeneration".to_owned(), json!(metadata.generation));
    next.insert("phase".to_owned(), json!("Invalid"));
    next.insert("conditions".to_owned(), json!(conditions));
    context.publish(vec![Event::warning("InvalidSpec", message)], &object.object_ref(&resource)).await;
    let body = json!({
        "apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": name},
        "status": next,
    });
    let params = PatchParams::apply(names::MANAGER).force();
    api.patch_status(&name, &params, &Patch::Apply(body)).await.map(drop)
}
