//! What every reconciliation shares.

use coterie_operator_core::cluster::Defaults;
use coterie_operator_core::condition::{self, Severity};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Api, Client, Resource};

/// What every reconciliation shares.
pub(crate) struct Context {
    /// The API server.
    pub(crate) client: Client,
    /// Where events go. One for all, since it joins repeats.
    pub(crate) recorder: Recorder,
    /// What the operator was started with.
    pub(crate) defaults: Defaults,
}

impl Context {
    /// The API of one kind in one namespace.
    pub(crate) fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Publishes events. One that cannot be published is logged and lost: the conditions say the same.
    pub(crate) async fn publish(&self, events: Vec<condition::Event>, object: &ObjectReference) {
        for condition::Event { severity, reason, note } in events {
            let type_ = match severity {
                Severity::Normal => EventType::Normal,
                Severity::Warning => EventType::Warning,
            };
            let event = Event { type_, reason, note: Some(note), action: "Reconcile".to_owned(), secondary: None };
            if let Err(error) = self.recorder.publish(&event, object).await {
                tracing::warn!(%error, reason = event.reason, "publish event");
            }
        }
    }
}
