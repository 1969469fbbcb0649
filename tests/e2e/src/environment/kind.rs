//! kind: nodes are containers of Docker.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process;

const NAME: &str = "coterie-e2e";
const CONFIG: &str = r#"{"kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4", "nodes": [
  {"role": "control-plane"},
  {"role": "worker", "labels": {"topology.kubernetes.io/zone": "zone-0"}},
  {"role": "worker", "labels": {"topology.kubernetes.io/zone": "zone-1"}},
  {"role": "worker", "labels": {"topology.kubernetes.io/zone": "zone-2"}}]}"#;

/// Makes the cluster, or uses the one that is there; gives its KUBECONFIG.
pub(super) fn up() -> Result<PathBuf> {
    let kubeconfig = std::env::temp_dir().join(format!("{NAME}.kubeconfig"));
    let path = kubeconfig.to_string_lossy().into_owned();
    let clusters = process::run(Command::new("kind").args(["get", "clusters"]), None)?;
    if clusters.lines().any(|line| line == NAME) {
        process::run(Command::new("kind").args(["export", "kubeconfig", "--name", NAME, "--kubeconfig", &path]), None)?;
    } else {
        let args = ["create", "cluster", "--name", NAME, "--kubeconfig", &path, "--wait", "3m", "--config", "-"];
        process::run(Command::new("kind").args(args), Some(CONFIG)).context("make a cluster with kind")?;
    }
    Ok(kubeconfig)
}

/// What removes it.
pub(super) fn down_command() -> Vec<String> {
    ["kind", "delete", "cluster", "--name", NAME].map(str::to_owned).to_vec()
}

/// Brings an image to every node.
pub(super) fn load(archive: &Path) -> Result<()> {
    process::run(Command::new("kind").args(["load", "image-archive", "--name", NAME]).arg(archive), None).map(drop)
}

/// Kills the node's container and, with it, all that runs in it.
pub(super) fn kill_node(node: &str) -> Result<()> {
    process::run(Command::new("docker").args(["kill", node]), None).map(drop)
}

/// Starts the node's container again.
pub(super) fn start_node(node: &str) -> Result<()> {
    process::run(Command::new("docker").args(["start", node]), None).map(drop)
}

/// What kills a container's first process.
pub(super) fn kill_container(node: &str, container: &str) -> Result<Command> {
    let inspect = ["exec", node, "crictl", "inspect", "-o", "go-template", "--template", "{{.info.pid}}", container];
    let pid = process::run(Command::new("docker").args(inspect), None)?;
    if pid.trim().parse::<u32>().is_err() {
        bail!("crictl gave no process id for {container}: {pid}");
    }
    let mut kill = Command::new("docker");
    kill.args(["exec", node, "kill", "-9", pid.trim()]);
    Ok(kill)
}
