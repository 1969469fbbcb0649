//! What a scenario gets: a namespace of its own, a Kubernetes, and a place for what it measured.

use std::cell::RefCell;
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::environment::Environment;
use crate::install::Installation;
use crate::kube::Kubectl;
use crate::poll::seconds;

/// The label of the namespaces that scenarios make.
pub(crate) const LABEL: &str = "e2e.coterie.dev/scenario";

/// The surroundings of one scenario.
pub(crate) struct Context<'a> {
    /// The Kubernetes.
    pub(crate) environment: &'a Environment,
    /// The operator in it.
    pub(crate) installation: &'a Installation<'a>,
    /// kubectl in the scenario's namespace.
    pub(crate) kube: Kubectl,
    started: Instant,
    notes: RefCell<Vec<String>>,
}

impl<'a> Context<'a> {
    /// Makes the namespace, with the Pod Security level `restricted`.
    ///
    /// # Errors
    /// When the API server refuses.
    pub(crate) fn new(installation: &'a Installation<'a>, scenario: &str) -> Result<Self> {
        let environment = installation.environment();
        let namespace = format!("e2e-{}", scenario.replace('_', "-"));
        let kube = environment.kubectl().namespaced(&namespace);
        kube.run(&["delete", "namespace", &namespace, "--ignore-not-found", "--timeout=60s"])
            .context("remove an earlier namespace")?;
        let labels = json!({LABEL: scenario, "pod-security.kubernetes.io/enforce": "restricted"});
        kube.apply(
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}})
                .to_string(),
        )?;
        environment.ensure_volumes().context("make volumes")?;
        Ok(Self { environment, installation, kube, started: Instant::now(), notes: RefCell::default() })
    }

    /// Says what happens, with the time since the beginning.
    pub(crate) fn step(&self, what: &str) {
        println!("  [{:6.1} s] {what}", self.started.elapsed().as_secs_f64());
    }

    /// Says what was measured; it appears below the table at the end too.
    pub(crate) fn measured(&self, what: String) {
        self.step(&what);
        self.notes.borrow_mut().push(what);
    }

    /// What was measured.
    pub(crate) fn notes(&self) -> Vec<String> {
        self.notes.borrow().clone()
    }

    /// Removes the namespace and all that is in it, data too.
    ///
    /// # Errors
    /// When something does not go away.
    pub(crate) fn clean_up(&self) -> Result<()> {
        for group in self.kube.list("partitiongroups.coterie.dev", "").unwrap_or_default() {
            let name = group["metadata"]["name"].as_str().unwrap_or_default();
            self.kube.patch("partitiongroups.coterie.dev", name, &json!({"spec": {"deletionPolicy": "Delete"}}))?;
        }
        self.kube.run(&["delete", "namespace", self.kube.namespace(), "--wait=false"])?;
        // The next scenario gets the processors for itself.
        let gone = self.environment.kubectl().wait_gone("namespace", self.kube.namespace(), seconds(120));
        if gone.is_err() {
            self.drop_finalizers();
        }
        gone
    }

    /// What the operator did not let go, so that at least the other scenarios can run.
    fn drop_finalizers(&self) {
        for group in self.kube.list("partitiongroups.coterie.dev", "").unwrap_or_default() {
            let name = group["metadata"]["name"].as_str().unwrap_or_default();
            let _ = self.kube.patch("partitiongroups.coterie.dev", name, &json!({"metadata": {"finalizers": null}}));
        }
    }
}
