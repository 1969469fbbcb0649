//! What a person needs to see why a scenario failed.

use crate::install::Installation;
use crate::kube::Kubectl;

/// The last lines of each container's log.
const LOG_LINES: &str = "--tail=60";

/// Prints objects, events and logs of the namespace and of the operator.
pub(crate) fn print(kube: &Kubectl, installation: &Installation<'_>) {
    let kinds = "clusters.coterie.dev,partitiongroups.coterie.dev,statefulsets,pods,persistentvolumeclaims,services";
    show(kube, &["get", kinds, "-o", "wide"]);
    show(kube, &["describe", "clusters.coterie.dev,partitiongroups.coterie.dev"]);
    show(kube, &["events"]);
    for pod in kube.pods("").unwrap_or_default() {
        if !pod.ready {
            show(kube, &["describe", "pod", &pod.name]);
        }
        show(kube, &["logs", &pod.name, "--all-containers", "--prefix", LOG_LINES]);
        show(kube, &["logs", &pod.name, "--all-containers", "--prefix", "--previous", LOG_LINES]);
    }
    let operator = kube.namespaced(installation.namespace());
    show(&operator, &["get", "pods", "-o", "wide"]);
    show(&operator, &["logs", "-l", installation.operator_labels(), "--prefix", LOG_LINES]);
    show(kube, &["get", "nodes"]);
}

fn show(kube: &Kubectl, args: &[&str]) {
    match kube.run(args) {
        Ok(text) if text.trim().is_empty() => {}
        Ok(text) => println!("--- kubectl {}\n{}", args.join(" "), text.trim_end()),
        // Most often: there is no previous container.
        Err(_) => {}
    }
}
