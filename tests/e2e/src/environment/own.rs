//! tests/kube: three nodes as network namespaces of this machine.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::process;

fn script() -> Result<PathBuf> {
    Ok(super::repository()?.join("tests/kube/kube.sh"))
}

/// Runs one of its commands; what it says goes to this process's standard error.
pub(super) fn run(args: &[&str]) -> Result<()> {
    let mut command = Command::new(script()?);
    let status =
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).status().context("start tests/kube/kube.sh")?;
    if !status.success() {
        bail!("tests/kube/kube.sh {} ended with {status}", args.join(" "));
    }
    Ok(())
}

/// Starts it, after building it if need be.
pub(super) fn up(nodes: usize) -> Result<()> {
    run(&["up", &nodes.to_string()])
}

/// What kills a container's first process.
pub(super) fn kill_container(container: &str) -> Result<Command> {
    let pid = process::run(Command::new(script()?).args(["pid", container]), None)?;
    let mut kill = Command::new("kill");
    kill.args(["-9", pid.trim()]);
    Ok(kill)
}

/// The network of a container, as it is now.
///
/// # Errors
/// When there is no such container on this machine.
pub(crate) fn network(container: &str) -> Result<File> {
    let pid = process::run(Command::new(script()?).args(["pid", container]), None)?;
    let path = format!("/proc/{}/ns/net", pid.trim());
    File::open(&path).with_context(|| format!("open {path}"))
}

/// What stops it.
pub(super) fn down_command() -> Vec<String> {
    let script = script().map_or_else(|_| "true".to_owned(), |path| path.to_string_lossy().into_owned());
    vec![script, "down".to_owned()]
}

/// Its KUBECONFIG, there or not.
pub(super) fn kubeconfig() -> Result<PathBuf> {
    said("kubeconfig")
}

/// The folder of its kubectl and helm.
pub(super) fn bin() -> Result<PathBuf> {
    said("bin")
}

fn said(what: &str) -> Result<PathBuf> {
    Ok(PathBuf::from(process::run(Command::new(script()?).arg(what), None)?.trim()))
}
