//! The Kubernetes that the scenarios run on.
//!
//! | which | when | nodes can be killed |
//! |---|---|---|
//! | given | `KUBECONFIG` is set | no (yes, if it is the one of tests/kube) |
//! | kind | `kind` and `docker` are there | yes |
//! | own | else: tests/kube, which needs root | yes |
//!
//! What is started here is stopped at the end, however the end comes: see [`watchdog`].

mod kind;
mod own;
mod watchdog;

pub(crate) use own::network;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::context::LABEL;
use crate::install::{NAMESPACE, OPERATOR, RELEASE};
use crate::kube::Kubectl;
use crate::process;
use watchdog::Watchdog;

/// Nodes that the scenarios need.
const NODES: usize = 3;
/// Free volumes that a scenario may use up.
const VOLUMES_MIN: usize = 9;

/// A running Kubernetes.
pub(crate) struct Environment {
    kubeconfig: PathBuf,
    kubectl: PathBuf,
    helm: PathBuf,
    machines: Machines,
    watchdog: Option<Watchdog>,
}

/// How the nodes are reached from below.
enum Machines {
    /// They are not.
    Given,
    /// Containers of Docker.
    Kind,
    /// Network namespaces of this machine.
    Own,
}

impl Environment {
    /// The Kubernetes that there is, or else a new one.
    ///
    /// # Errors
    /// When something is missing: what, and how to get it.
    pub(crate) fn start(keep: bool) -> Result<Self> {
        let given = std::env::var_os("KUBECONFIG").filter(|value| !value.is_empty()).map(PathBuf::from);
        let own = own::kubeconfig()?;
        match given {
            Some(kubeconfig) if kubeconfig == own => Self::own(kubeconfig, None),
            Some(kubeconfig) => Self::given(kubeconfig, keep),
            None if process::is_there("kind") && process::is_there("docker") => {
                let kubeconfig = kind::up()?;
                let watchdog = if keep { None } else { Some(Watchdog::start(&kind::down_command())?) };
                Ok(Self {
                    kubeconfig,
                    kubectl: needed("kubectl")?,
                    helm: needed("helm")?,
                    machines: Machines::Kind,
                    watchdog,
                })
            }
            None => {
                let watchdog = if keep { None } else { Some(Watchdog::start(&own::down_command())?) };
                own::up(NODES)?;
                Self::own(own, watchdog)
            }
        }
    }

    fn own(kubeconfig: PathBuf, watchdog: Option<Watchdog>) -> Result<Self> {
        let bin = own::bin()?;
        Ok(Self { kubeconfig, kubectl: bin.join("kubectl"), helm: bin.join("helm"), machines: Machines::Own, watchdog })
    }

    fn given(kubeconfig: PathBuf, keep: bool) -> Result<Self> {
        let (kubectl, helm) = (needed("kubectl")?, needed("helm")?);
        let watchdog = if keep { None } else { Some(Watchdog::start(&remove_from(&kubeconfig))?) };
        Ok(Self { kubeconfig, kubectl, helm, machines: Machines::Given, watchdog })
    }

    /// One line about it.
    pub(crate) fn describe(&self) -> String {
        let kind = match self.machines {
            Machines::Given => "the given Kubernetes",
            Machines::Kind => "kind",
            Machines::Own => "tests/kube",
        };
        format!("{kind}, KUBECONFIG={}", self.kubeconfig.display())
    }

    /// kubectl for it.
    pub(crate) fn kubectl(&self) -> Kubectl {
        Kubectl::new(&self.kubectl, &self.kubeconfig)
    }

    /// helm for it.
    pub(crate) fn helm(&self) -> Command {
        let mut command = Command::new(&self.helm);
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        command
    }

    /// Whether nodes and containers can be killed.
    pub(crate) fn controls_nodes(&self) -> bool {
        !matches!(self.machines, Machines::Given)
    }

    /// Brings an image (a docker-archive) to every node.
    ///
    /// # Errors
    /// When the nodes take images from a registry only, or when the import fails.
    pub(crate) fn load(&self, archive: &Path) -> Result<()> {
        match self.machines {
            Machines::Given => {
                bail!("a given Kubernetes pulls its images: push the image and name it with COTERIE_E2E_IMAGE")
            }
            Machines::Kind => kind::load(archive),
            Machines::Own => own::run(&["load", &archive.to_string_lossy()]),
        }
    }

    /// Takes a node's power away.
    ///
    /// # Errors
    /// When nodes cannot be killed here.
    pub(crate) fn kill_node(&self, node: &str) -> Result<()> {
        match self.machines {
            Machines::Given => bail!("nodes cannot be killed here"),
            Machines::Kind => kind::kill_node(node),
            Machines::Own => own::run(&["kill", node]),
        }
    }

    /// Gives a node its power back. Nothing happens if it has it.
    ///
    /// # Errors
    /// When nodes cannot be started here.
    pub(crate) fn start_node(&self, node: &str) -> Result<()> {
        match self.machines {
            Machines::Given => bail!("nodes cannot be started here"),
            Machines::Kind => kind::start_node(node),
            Machines::Own => own::run(&["start", node]),
        }
    }

    /// Pulls a node's cable: it runs on, and nobody hears it.
    ///
    /// # Errors
    /// When nodes cannot be cut off here.
    pub(crate) fn cut_node(&self, node: &str) -> Result<()> {
        self.cable("cut", node)
    }

    /// Puts it in again.
    ///
    /// # Errors
    /// When nodes cannot be cut off here.
    pub(crate) fn heal_node(&self, node: &str) -> Result<()> {
        self.cable("heal", node)
    }

    fn cable(&self, what: &str, node: &str) -> Result<()> {
        match self.machines {
            Machines::Given | Machines::Kind => bail!("nodes cannot be cut off here"),
            Machines::Own => own::run(&[what, node]),
        }
    }

    /// Whether pods' networks can be entered from here.
    pub(crate) fn has_networks(&self) -> bool {
        matches!(self.machines, Machines::Own)
    }

    /// What sends kill -9 to a container's first process at once: everything slow is done before.
    ///
    /// # Errors
    /// When containers cannot be killed here, or when there is no such container.
    pub(crate) fn kill_container(&self, node: &str, container: &str) -> Result<Command> {
        match self.machines {
            Machines::Given => bail!("processes cannot be killed here"),
            Machines::Kind => kind::kill_container(node, container),
            Machines::Own => own::kill_container(container),
        }
    }

    /// Sees to it that a scenario finds volumes.
    ///
    /// # Errors
    /// When volumes cannot be made.
    pub(crate) fn ensure_volumes(&self) -> Result<()> {
        if !matches!(self.machines, Machines::Own) {
            return Ok(());
        }
        let volumes = self.kubectl().list("persistentvolumes", "")?;
        let mut free = std::collections::BTreeMap::new();
        for volume in volumes.iter().filter(|v| v["status"]["phase"] == "Available") {
            let affinity =
                &volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"][0]["values"][0];
            *free.entry(affinity.to_string()).or_insert(0) += 1;
        }
        if free.len() < NODES || free.values().any(|count| count * NODES < VOLUMES_MIN) {
            own::run(&["volumes"])
        } else {
            Ok(())
        }
    }

    /// Stops what was started, and waits for the end of it.
    ///
    /// # Errors
    /// When something could not be stopped.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.watchdog.take().map_or(Ok(()), Watchdog::stop)
    }
}

/// What removes from a given Kubernetes all that the scenarios made there. The CRDs stay, as after any `helm uninstall`.
fn remove_from(kubeconfig: &Path) -> Vec<String> {
    let text = format!(
        "kubectl delete namespace -l '{LABEL},{LABEL}!={OPERATOR}'; \
         helm uninstall {RELEASE} --namespace {NAMESPACE}; kubectl delete namespace -l {LABEL}"
    );
    ["env", &format!("KUBECONFIG={}", kubeconfig.display()), "sh", "-c", &text].map(str::to_owned).to_vec()
}

fn needed(program: &str) -> Result<PathBuf> {
    if !process::is_there(program) {
        bail!("{program} is missing: install it, or unset KUBECONFIG to use tests/kube, which brings its own");
    }
    Ok(PathBuf::from(program))
}

/// The root of the repository.
pub(crate) fn repository() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    here.canonicalize().with_context(|| format!("find the repository at {}", here.display()))
}
