//! kubectl, with JSON in and out.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde_json::Value;

use crate::poll;
use crate::process;

/// kubectl for one Kubernetes and, mostly, one namespace.
#[derive(Clone, Debug)]
pub(crate) struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    namespace: String,
}

/// One pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pod {
    /// Its name; a member of the Cluster has the same.
    pub(crate) name: String,
    /// Its identity: a pod made again under the same name has another.
    pub(crate) uid: String,
    /// Its node.
    pub(crate) node: String,
    /// Its address.
    pub(crate) ip: String,
    /// Whether it is ready and not being deleted.
    pub(crate) ready: bool,
}

impl Kubectl {
    /// kubectl at `program`, for the Kubernetes of `kubeconfig`.
    pub(crate) fn new(program: &Path, kubeconfig: &Path) -> Self {
        Self { program: program.to_owned(), kubeconfig: kubeconfig.to_owned(), namespace: "default".to_owned() }
    }

    /// The same, for another namespace.
    pub(crate) fn namespaced(&self, namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), ..self.clone() }
    }

    /// The namespace.
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The command, to be started by the caller.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(["--namespace", &self.namespace]).args(args);
        command
    }

    /// Runs it and gives what it prints.
    ///
    /// # Errors
    /// When it fails: what it says.
    pub(crate) fn run(&self, args: &[&str]) -> Result<String> {
        process::run(&mut self.command(args), None)
    }

    /// Runs it with `-o json`.
    ///
    /// # Errors
    /// When it fails or prints no JSON.
    pub(crate) fn json(&self, args: &[&str]) -> Result<Value> {
        let text = process::run(self.command(args).args(["-o", "json"]), None)?;
        serde_json::from_str(&text).with_context(|| format!("read what kubectl {} printed", args.join(" ")))
    }

    /// Applies manifests (YAML or JSON) on the server's side.
    ///
    /// # Errors
    /// When the API server refuses: its message.
    pub(crate) fn apply(&self, manifests: &str) -> Result<String> {
        process::run(&mut self.command(&["apply", "--server-side", "--field-manager=e2e", "-f", "-"]), Some(manifests))
    }

    /// Applies a change to one object.
    ///
    /// # Errors
    /// When the API server refuses: its message.
    pub(crate) fn patch(&self, kind: &str, name: &str, change: &Value) -> Result<()> {
        self.run(&["patch", kind, name, "--type=merge", "-p", &change.to_string()]).map(drop)
    }

    /// One object.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn get(&self, kind: &str, name: &str) -> Result<Value> {
        self.json(&["get", kind, name])
    }

    /// The objects of a kind with these labels (`a=b,c=d`; empty: all).
    ///
    /// # Errors
    /// When the kind is unknown or the API server does not answer.
    pub(crate) fn list(&self, kind: &str, labels: &str) -> Result<Vec<Value>> {
        let mut list = self.json(&["get", kind, "-l", labels])?;
        match list["items"].take() {
            Value::Array(items) => Ok(items),
            other => bail!("kubectl get {kind} gave no list: {other}"),
        }
    }

    /// The pods with these labels.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub(crate) fn pods(&self, labels: &str) -> Result<Vec<Pod>> {
        Ok(self.list("pods", labels)?.iter().map(Pod::read).collect())
    }

    /// Waits until the object's condition has this status, and gives the condition.
    ///
    /// # Errors
    /// When it does not within the time: the conditions that it has.
    pub(crate) fn wait_condition(
        &self,
        object: (&str, &str),
        kind: &str,
        status: &str,
        timeout: Duration,
    ) -> Result<Value> {
        poll::until(&format!("{} {}: condition {kind}={status}", object.0, object.1), timeout, || {
            let seen = self.get(object.0, object.1)?;
            let current = condition(&seen, kind).filter(|c| c["status"] == status);
            let generation = &seen["metadata"]["generation"];
            match current {
                Some(found) if found["observedGeneration"].is_null() || &found["observedGeneration"] == generation => {
                    Ok(found.clone())
                }
                _ => Err(anyhow!("conditions: {}", seen["status"]["conditions"])),
            }
        })
    }

    /// Waits until the object's condition has this status for this reason, and an event says so too; gives the message.
    ///
    /// # Errors
    /// When one of them does not come within the time.
    pub(crate) fn wait_told(
        &self,
        kind: (&str, &str),
        name: &str,
        told: Told<'_>,
        timeout: Duration,
    ) -> Result<String> {
        let (plural, singular) = kind;
        let Told { condition, status, reason } = told;
        let message = poll::until(
            &format!("{plural} {name}: condition {condition}={status} because of {reason}"),
            timeout,
            || {
                let found = self.wait_condition((plural, name), condition, status, Duration::ZERO)?;
                ensure!(found["reason"] == reason, "the condition is {found}");
                Ok(found["message"].as_str().unwrap_or_default().to_owned())
            },
        )?;
        self.wait_event((singular, name), reason, timeout)?;
        Ok(message)
    }

    /// Waits until there is an event of this reason about the object, and gives its message.
    ///
    /// # Errors
    /// When there is none within the time: the reasons that there are.
    pub(crate) fn wait_event(&self, object: (&str, &str), reason: &str, timeout: Duration) -> Result<String> {
        let (kind, name) = object;
        poll::until(&format!("event {reason} about {kind} {name}"), timeout, || {
            let about = format!("involvedObject.kind={kind},involvedObject.name={name}");
            let events = self.json(&["get", "events", "--field-selector", &about])?;
            let events = events["items"].as_array().cloned().unwrap_or_default();
            let found = events
                .iter()
                .find(|e| e["reason"] == reason)
                .map(|e| e["message"].as_str().unwrap_or_default().to_owned());
            found.ok_or_else(|| {
                anyhow!("reasons: {:?}", events.iter().map(|e| e["reason"].to_string()).collect::<Vec<_>>())
            })
        })
    }

    /// Waits until the object is gone.
    ///
    /// # Errors
    /// When it is still there after the time.
    pub(crate) fn wait_gone(&self, kind: &str, name: &str, timeout: Duration) -> Result<()> {
        poll::until(&format!("{kind} {name} to be gone"), timeout, || {
            match self.run(&["get", kind, name, "--ignore-not-found", "-o", "name"])?.trim() {
                "" => Ok(()),
                _ => Err(anyhow!(
                    "it is still there: {}",
                    self.get(kind, name).map_or(Value::Null, |o| o["metadata"]["finalizers"].clone())
                )),
            }
        })
    }
}

/// A condition that an event tells too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told<'a> {
    /// The condition's type.
    pub(crate) condition: &'a str,
    /// Its status.
    pub(crate) status: &'a str,
    /// Its reason, and the event's.
    pub(crate) reason: &'a str,
}

/// The condition of this type.
pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == kind)
}

impl Pod {
    fn read(object: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let alive = object["metadata"]["deletionTimestamp"].is_null();
        Self {
            name: text(&object["metadata"]["name"]),
            uid: text(&object["metadata"]["uid"]),
            node: text(&object["spec"]["nodeName"]),
            ip: text(&object["status"]["podIP"]),
            ready: alive && condition(object, "Ready").is_some_and(|c| c["status"] == "True"),
        }
    }
}
