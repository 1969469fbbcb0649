//! Whole reconciliations against an API server in memory.

use coterie_operator_core::certificate::{NOT_AFTER, NOT_BEFORE};
use serde_json::{Value, json};

use super::*;
use crate::fake::Server;

const CLUSTER: &str = "/apis/coterie.dev/v1alpha1/namespaces/shop/clusters/orders";
const AUTHORITY: &str = "/api/v1/namespaces/shop/secrets/orders-ca";
const LEAVES: [&str; 2] =
    ["/api/v1/namespaces/shop/secrets/orders-member-tls", "/api/v1/namespaces/shop/secrets/orders-client-tls"];
const CONFIGURATION: &str = "/api/v1/namespaces/shop/configmaps/orders-configuration";
const POLICY: &str = "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies/orders";
/// Every object that the operator makes, with its kind.
const OBJECTS: [(&str, &str); 9] = [
    (AUTHORITY, "Secret orders-ca"),
    (LEAVES[0], "Secret orders-member-tls"),
    (LEAVES[1], "Secret orders-client-tls"),
    ("/api/v1/namespaces/shop/serviceaccounts/orders-member", "ServiceAccount orders-member"),
    (CONFIGURATION, "ConfigMap orders-configuration"),
    ("/api/v1/namespaces/shop/services/orders-members", "Service orders-members"),
    (POLICY, "NetworkPolicy orders"),
    ("/apis/policy/v1/namespaces/shop/poddisruptionbudgets/orders", "PodDisruptionBudget orders"),
    ("/apis/apps/v1/namespaces/shop/statefulsets/orders", "StatefulSet orders"),
];

/// One reconciliation; the reason of the condition Ready, and its message.
async fn reconcile(server: &Server, spec: Value) -> (String, String) {
    let status = server.get(CLUSTER).unwrap_or_default()["status"].clone();
    let object = json!({
        "apiVersion": "coterie.dev/v1alpha1", "kind": "Cluster", "spec": spec, "status": status,
        "metadata": {"name": "orders", "namespace": "shop", "uid": "u-1", "generation": 1},
    });
    server.put(CLUSTER, object.clone());
    let object = serde_json::from_value(object).expect("a guard takes anything");
    super::reconcile(Arc::new(object), Arc::new(server.context())).await.expect("nothing fails on the way");
    let ready = server.get(CLUSTER).unwrap_or_default()["status"]["conditions"][0].clone();
    let text = |key: &str| ready[key].as_str().unwrap_or_default().to_owned();
    (text("reason"), text("message"))
}

/// An object of this kind that another controls, if anybody.
fn object(kind: &str, uid: Option<&str>) -> Value {
    let (kind, name) = kind.split_once(' ').expect("kind and name");
    let api_version = match kind {
        "NetworkPolicy" => "networking.k8s.io/v1",
        "PodDisruptionBudget" => "policy/v1",
        "StatefulSet" => "apps/v1",
        _ => "v1",
    };
    let owner = |uid| json!([{"apiVersion": "coterie.dev/v1alpha1", "kind": "Cluster", "name": "orders", "uid": uid, "controller": true}]);
    json!({
        "apiVersion": api_version, "kind": kind,
        "metadata": {"name": name, "namespace": "shop", "ownerReferences": uid.map(owner)},
    })
}

fn all() -> Value {
    json!({"security": {"networkPolicy": true}})
}

#[tokio::test]
async fn everything_is_made_and_changed_again() {
    let server = Server::default();
    for _ in 0..2 {
        let (reason, _) = reconcile(&server, all()).await;
        assert_eq!(reason, "PodsNotReady");
    }
    let mut expected: Vec<_> = OBJECTS.iter().map(|(path, _)| *path).chain([CLUSTER]).collect();
    expected.sort_unstable();
    assert_eq!(server.paths(), expected);
}

#[tokio::test]
async fn nothing_of_anybody_elses_is_changed_and_the_condition_names_it_until_it_is_gone() {
    for (path, kind) in OBJECTS {
        let server = Server::default();
        let mut foreign = object(kind, None);
        if path == AUTHORITY {
            foreign["metadata"]["ownerReferences"] =
                json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u-9", "controller": true}]);
        }
        server.put(path, foreign);
        let before = server.get(path);
        let (reason, message) = reconcile(&server, all()).await;
        assert_eq!(server.get(path), before, "{kind}");
        assert!(reason == "NameTaken" && message.contains(&format!("{kind} exists")), "{reason}: {message}");
        assert!(message.contains("rename one or delete it"), "{message}");
        server.delete(path);
        assert_eq!(reconcile(&server, all()).await.0, "PodsNotReady", "{kind}");
    }
}

#[tokio::test]
async fn what_an_earlier_cluster_left_is_waited_for() {
    for (path, kind) in OBJECTS {
        let server = Server::default();
        server.put(path, object(kind, Some("u-0")));
        let before = server.get(path);
        let (reason, message) = reconcile(&server, all()).await;
        assert_eq!(server.get(path), before, "{kind}");
        assert!(reason == "NameNotFreeYet" && message.contains(kind), "{reason}: {message}");
    }
}

#[tokio::test]
async fn an_object_that_comes_between_the_look_and_the_write_is_left_alone() {
    let server = Server::default();
    server.put_after_read(CONFIGURATION, object("ConfigMap orders-configuration", None));
    let (reason, _) = reconcile(&server, all()).await;
    assert_eq!(reason, "NameTaken");
    assert_eq!(server.get(CONFIGURATION).unwrap_or_default().get("data"), None);
}

#[tokio::test]
async fn an_own_object_that_somebody_changes_meanwhile_is_put_right() {
    let server = Server::default();
    reconcile(&server, all()).await;
    server.put_after_read(CONFIGURATION, object("ConfigMap orders-configuration", Some("u-1")));
    reconcile(&server, all()).await;
    assert!(server.get(CONFIGURATION).unwrap_or_default()["data"].is_object());
}

#[tokio::test]
async fn only_an_own_network_policy_is_deleted() {
    let server = Server::default();
    reconcile(&server, all()).await;
    assert!(server.get(POLICY).is_some());
    reconcile(&server, json!({})).await;
    assert_eq!(server.get(POLICY), None);
    server.put(POLICY, object("NetworkPolicy orders", None));
    assert_eq!(reconcile(&server, json!({})).await.0, "PodsNotReady");
    assert!(server.get(POLICY).is_some());
}

#[tokio::test]
async fn certificates_are_renewed_whatever_the_spec_says() {
    for spec in [json!({}), json!({"paused": true}), json!({"managementVoters": 2}), json!({"replicas": "three"})] {
        let server = Server::default();
        reconcile(&server, all()).await;
        for leaf in LEAVES {
            let mut due = server.get(leaf).expect("it was issued");
            due["metadata"]["annotations"][NOT_BEFORE] = json!("2020-01-01T00:00:00Z");
            due["metadata"]["annotations"][NOT_AFTER] = json!("2020-03-31T00:00:00Z");
            server.put(leaf, due);
        }
        let read = || OBJECTS.map(|(path, _)| server.get(path).unwrap_or_default());
        let before = read();
        reconcile(&server, spec.clone()).await;
        for ((before, after), (path, kind)) in before.into_iter().zip(read()).zip(OBJECTS) {
            if LEAVES.contains(&path) {
                assert_ne!(before["data"]["tls.crt"], after["data"]["tls.crt"], "{kind}, {spec}");
                assert_eq!(before["data"]["ca.crt"], after["data"]["ca.crt"], "{kind}, {spec}");
            } else if spec != json!({}) {
                assert_eq!(before, after, "{kind}, {spec}");
            }
        }
    }
}

#[tokio::test]
async fn a_cluster_that_was_never_followed_gets_nothing() {
    for spec in [json!({"paused": true}), json!({"managementVoters": 2}), json!({"replicas": "three"})] {
        let server = Server::default();
        reconcile(&server, spec).await;
        let made: Vec<_> = server.paths().into_iter().filter(|path| path != CLUSTER).collect();
        assert_eq!(made, Vec::<String>::new());
    }
}
