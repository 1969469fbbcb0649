//! Names, labels and ports. What is derived from a Cluster's name is derived here only.

use std::collections::BTreeMap;

/// The port of the application's API, on loopback.
pub const API_PORT: u16 = 7300;
/// The port of peers and of the admin service.
pub const PEER_PORT: u16 = 7301;
/// The port of probes and metrics.
pub const HEALTH_PORT: u16 = 7302;

/// The folder of the application API's socket, in every container of a pod.
pub const RUN_DIRECTORY: &str = "/run/coterie";
/// The application API's socket.
pub const SOCKET: &str = "/run/coterie/coterie.sock";
/// The folder of a member's data.
pub const DATA_DIRECTORY: &str = "/var/lib/coterie";
/// The folder of the sidecar's file.
pub const CONFIGURATION_DIRECTORY: &str = "/etc/coterie/config";
/// The sidecar's file.
pub const CONFIGURATION_FILE: &str = "cluster.yaml";
/// The folder of the sidecar's certificates.
pub const CERTIFICATES_DIRECTORY: &str = "/etc/coterie/tls";

/// The sidecar's container.
pub const CONTAINER: &str = "coterie";
/// The user and group of the sidecar: `nonroot` of the images.
pub const USER: i64 = 65532;

/// The label that says which Cluster a pod belongs to.
pub const CLUSTER_LABEL: &str = "coterie.dev/cluster";
/// The label that says what a pod is in its Cluster: [`MEMBER_ROLE`], or `client` on the pods of other workloads.
pub const ROLE_LABEL: &str = "coterie.dev/role";
/// The role of the Cluster's own pods.
pub const MEMBER_ROLE: &str = "member";
/// The annotation of a pod with the hash of the file that it was started with.
pub const CONFIGURATION_ANNOTATION: &str = "coterie.dev/configuration-hash";
/// The finalizer of a PartitionGroup.
pub const FINALIZER: &str = "coterie.dev/partition-group";
/// The labels of the operator's own pod, as the chart sets them.
pub const OPERATOR_LABELS: [(&str, &str); 2] =
    [("app.kubernetes.io/name", "coterie"), ("app.kubernetes.io/component", "operator")];
/// The field manager of everything that the operator applies.
pub const MANAGER: &str = "coterie-operator";
/// The volume of the data, and the prefix of its claims.
pub const DATA_VOLUME: &str = "coterie-data";
/// The volume of the socket.
pub const RUN_VOLUME: &str = "coterie-run";
/// The volume of the sidecar's file.
pub const CONFIGURATION_VOLUME: &str = "coterie-configuration";
/// The volume of the certificates.
pub const CERTIFICATES_VOLUME: &str = "coterie-certificates";

/// The DNS name in a member's certificate: everybody verifies a server as this.
pub const MEMBER_ROLE_NAME: &str = "member.coterie.internal";
/// The DNS name in a client sidecar's certificate.
pub const CLIENT_ROLE_NAME: &str = "client.coterie.internal";
/// The DNS name in the operator's certificate.
pub const OPERATOR_ROLE_NAME: &str = "operator.coterie.internal";

/// The pod of member `index`, which is the member's name too.
pub fn pod(cluster: &str, index: u32) -> String {
    format!("{cluster}-{index}")
}

/// The index of a pod of this Cluster; `None` for another's.
pub fn index(cluster: &str, pod: &str) -> Option<u32> {
    let digits = pod.strip_prefix(cluster)?.strip_prefix('-')?;
    digits.parse().ok().filter(|index: &u32| index.to_string() == digits)
}

/// The headless Service of the members.
pub fn service(cluster: &str) -> String {
    format!("{cluster}-members")
}

/// The pods' identity in Kubernetes. Not the Cluster's bare name: an application of that name may have one of its own.
pub fn service_account(cluster: &str) -> String {
    format!("{cluster}-member")
}

/// The ConfigMap with the sidecars' file.
pub fn configuration(cluster: &str) -> String {
    format!("{cluster}-configuration")
}

/// The Secret with the authority's key. Nothing mounts it.
pub fn authority_secret(cluster: &str) -> String {
    format!("{cluster}-ca")
}

/// The Secret with the members' certificate.
pub fn member_secret(cluster: &str) -> String {
    format!("{cluster}-member-tls")
}

/// The Secret with the client sidecars' certificate.
pub fn client_secret(cluster: &str) -> String {
    format!("{cluster}-client-tls")
}

/// The claim of a pod's data.
pub fn claim(pod: &str) -> String {
    format!("{DATA_VOLUME}-{pod}")
}

/// Whether a claim is that of a pod of this Cluster.
pub fn is_claim(cluster: &str, claim: &str) -> bool {
    let pod = claim.strip_prefix(DATA_VOLUME).and_then(|rest| rest.strip_prefix('-'));
    pod.is_some_and(|pod| index(cluster, pod).is_some())
}

/// Where others reach a member: its pod's name below the headless Service.
pub fn address(cluster: &str, namespace: &str, pod: &str) -> String {
    format!("{pod}.{}.{namespace}.svc:{PEER_PORT}", service(cluster))
}

/// What selects the Cluster's own pods. Its own prefix, so that an application's labels stay what they are.
pub fn selector(cluster: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(CLUSTER_LABEL.to_owned(), cluster.to_owned()), (ROLE_LABEL.to_owned(), MEMBER_ROLE.to_owned())])
}

/// [`selector`] as text.
pub fn selector_text(cluster: &str) -> String {
    let pairs: Vec<String> = selector(cluster).into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(",")
}

/// The recommended labels. The version is not among them: it would restart pods with each operator.
pub fn common_labels(cluster: &str) -> BTreeMap<String, String> {
    [
        ("app.kubernetes.io/name", "coterie"),
        ("app.kubernetes.io/instance", cluster),
        ("app.kubernetes.io/component", "member"),
        ("app.kubernetes.io/part-of", "coterie"),
        ("app.kubernetes.io/managed-by", MANAGER),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}

/// The labels of every object that the operator makes for a Cluster.
pub fn labels(cluster: &str) -> BTreeMap<String, String> {
    let mut labels = common_labels(cluster);
    labels.insert(CLUSTER_LABEL.to_owned(), cluster.to_owned());
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pods_of_the_cluster_have_an_index() {
        assert_eq!(index("orders", "orders-12"), Some(12));
        for other in ["orders", "orders-", "orders-1-0", "orders-x", "orders-01", "other-1", "orders-members"] {
            assert_eq!(index("orders", other), None, "{other}");
        }
        assert!(is_claim("orders", &claim("orders-12")));
        assert!(!is_claim("orders", &claim("other-1")) && !is_claim("orders", "orders-1"));
    }
}
