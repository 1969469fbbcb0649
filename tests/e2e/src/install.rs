//! Bringing Coterie into the Kubernetes: the image on its nodes, the chart installed.

use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::context::LABEL;
use crate::environment::{Environment, repository};
use crate::kube::Kubectl;
use crate::poll::{self, seconds};
use crate::process;

/// The namespace of the operator.
pub(crate) const NAMESPACE: &str = "coterie-system";
/// The name of its Helm release.
pub(crate) const RELEASE: &str = "coterie";
/// The label's value on the operator's namespace.
pub(crate) const OPERATOR: &str = "operator";
/// What is built when no image is given.
const IMAGE: &str = "localhost/coterie:dev";

/// Coterie as it is installed.
pub(crate) struct Installation<'a> {
    environment: &'a Environment,
    image: String,
}

impl<'a> Installation<'a> {
    /// Builds the image and brings it to the nodes, unless `COTERIE_E2E_IMAGE` names one that they can pull.
    ///
    /// # Errors
    /// When the image cannot be built or brought.
    pub(crate) fn prepare(environment: &'a Environment) -> Result<Self> {
        if let Some(image) = std::env::var("COTERIE_E2E_IMAGE").ok().filter(|image| !image.is_empty()) {
            return Ok(Self { environment, image });
        }
        let script = repository()?.join("tests/e2e/image.sh");
        let archive = process::run(Command::new(&script).arg(IMAGE), None).context("build the image")?;
        environment.load(std::path::Path::new(archive.trim())).context("bring the image to the nodes")?;
        Ok(Self { environment, image: IMAGE.to_owned() })
    }

    /// The Kubernetes.
    pub(crate) fn environment(&self) -> &'a Environment {
        self.environment
    }

    /// The image of sidecar, operator, CLI and worker.
    pub(crate) fn image(&self) -> &str {
        &self.image
    }

    /// The operator's namespace.
    pub(crate) fn namespace(&self) -> &'static str {
        NAMESPACE
    }

    /// The operator's labels.
    pub(crate) fn operator_labels(&self) -> &'static str {
        "app.kubernetes.io/name=coterie,app.kubernetes.io/component=operator"
    }

    /// kubectl in the operator's namespace.
    pub(crate) fn kubectl(&self) -> Kubectl {
        self.environment.kubectl().namespaced(NAMESPACE)
    }

    /// Installs the chart, or upgrades it to what is in the repository, and waits for the operator.
    ///
    /// # Errors
    /// When helm fails or the operator does not become ready.
    pub(crate) fn install(&self, settings: &[&str]) -> Result<String> {
        let chart = repository()?.join("charts/coterie");
        let (repository, tag) = self.image.rsplit_once(':').unwrap_or((&self.image, "latest"));
        // The operator must run under the strictest level too.
        let labels = json!({LABEL: OPERATOR, "pod-security.kubernetes.io/enforce": "restricted"});
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}});
        self.kubectl().apply(&namespace.to_string())?;
        let mut helm = self.environment.helm();
        helm.args(["upgrade", "--install", RELEASE]).arg(chart).args(["--namespace", NAMESPACE]);
        helm.args(["--set", &format!("image.repository={repository},image.tag={tag},image.pullPolicy=IfNotPresent")]);
        for setting in settings {
            helm.args(["--set", setting]);
        }
        let said = process::run(helm.args(["--wait", "--timeout", "2m"]), None)?;
        poll::until("the operator to be ready", seconds(60), || {
            let pods = self.kubectl().pods(self.operator_labels())?;
            anyhow::ensure!(!pods.is_empty() && pods.iter().all(|pod| pod.ready), "pods: {pods:?}");
            Ok(())
        })?;
        Ok(said)
    }

    /// Installs it unless the release is there already.
    ///
    /// # Errors
    /// See [`Self::install`].
    pub(crate) fn ensure(&self) -> Result<()> {
        if self.status().is_ok_and(|status| status["info"]["status"] == "deployed") {
            Ok(())
        } else {
            self.install(&[]).map(drop)
        }
    }

    /// What helm says about the release.
    ///
    /// # Errors
    /// When it is not installed.
    pub(crate) fn status(&self) -> Result<serde_json::Value> {
        let said = process::run(
            self.environment.helm().args(["status", RELEASE, "--namespace", NAMESPACE, "-o", "json"]),
            None,
        )?;
        serde_json::from_str(&said).context("read helm's status")
    }

    /// Removes the release.
    ///
    /// # Errors
    /// When helm fails.
    pub(crate) fn uninstall(&self) -> Result<()> {
        process::run(self.environment.helm().args(["uninstall", RELEASE, "--namespace", NAMESPACE, "--wait"]), None)
            .map(drop)
    }
}
