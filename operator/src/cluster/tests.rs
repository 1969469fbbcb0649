//! Whole reconciliations against an API server in memory.

use std::collections::BTreeMap;

use coterie_operator_core::certificate::{NOT_AFTER, NOT_BEFORE, SINCE};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use super::*;
use crate::certificates::verify;
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
    run(server, spec).await;
    told(server, "Ready")
}

async fn run(server: &Server, spec: Value) {
    let status = server.get(CLUSTER).unwrap_or_default()["status"].clone();
    let object = json!({
        "apiVersion": "coterie.dev/v1alpha1", "kind": "Cluster", "spec": spec, "status": status,
        "metadata": {"name": "orders", "namespace": "shop", "uid": "u-1", "generation": 1},
    });
    server.put(CLUSTER, object.clone());
    let object = serde_json::from_value(object).expect("a guard takes anything");
    super::reconcile(Arc::new(object), Arc::new(server.context())).await.expect("nothing fails on the way");
}

/// The reason of a condition, and its message.
fn told(server: &Server, kind: &str) -> (String, String) {
    let conditions = server.get(CLUSTER).unwrap_or_default()["status"]["conditions"].clone();
    let all = conditions.as_array().cloned().unwrap_or_default();
    let condition = all.into_iter().find(|condition| condition["type"] == kind).unwrap_or_default();
    let text = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
    (text("reason"), text("message"))
}

/// What a Secret holds.
fn held(server: &Server, path: &str, key: &str) -> String {
    let secret: Secret = serde_json::from_value(server.get(path).expect("it is there")).expect("a Secret");
    let data = secret.data.unwrap_or_default().remove(key).expect("it has the key");
    String::from_utf8(data.0).expect("it is a text")
}

/// A member's files: whom it trusts, and its certificate.
fn files(server: &Server) -> (String, String) {
    (held(server, LEAVES[0], "ca.crt"), held(server, LEAVES[0], "tls.crt"))
}

/// Whether members with these files accept each other.
fn assert_peers(one: &(String, String), other: &(String, String)) {
    let now = Timestamp::now().as_second();
    for ((trusted, _), (_, certificate)) in [(one, other), (other, one)] {
        assert_eq!(verify(trusted, certificate, now), Ok(()));
    }
}

/// Lets the time pass that the certificates are left as they are.
fn pass_overlap(server: &Server) {
    for leaf in LEAVES {
        let mut secret = server.get(leaf).expect("it was issued");
        secret["metadata"]["annotations"][SINCE] = json!("2020-01-01T00:00:00Z");
        server.put(leaf, secret);
    }
}

/// Puts an authority there, as a person would.
fn put_authority(server: &Server, certificate: &str, key: &str) {
    let data = [("ca.crt", certificate), ("ca.key", key)];
    let data = data.map(|(key, text)| (key.to_owned(), ByteString(text.as_bytes().to_vec())));
    let mut secret = object("Secret orders-ca", None);
    secret["data"] = json!(BTreeMap::from(data));
    server.put(AUTHORITY, secret);
}

/// An authority under its own subject: its certificate and its key.
fn made_elsewhere() -> (String, String) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "The company");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    (params.self_signed(&key).expect("a certificate").pem(), key.serialize_pem())
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

#[tokio::test]
async fn an_authority_that_a_person_put_there_is_used_as_it_is() {
    let server = Server::default();
    let (certificate, key) = made_elsewhere();
    put_authority(&server, &certificate, &key);
    let before = server.get(AUTHORITY);
    assert_eq!(reconcile(&server, all()).await.0, "PodsNotReady");
    assert_eq!(server.get(AUTHORITY), before);
    let files = files(&server);
    assert_eq!(files.0, certificate);
    assert_peers(&files, &files);
}

#[tokio::test]
async fn an_authority_that_cannot_work_is_refused_and_the_condition_names_the_secret_and_the_fix() {
    let server = Server::default();
    let ((certificate, _), (_, other_key)) = (made_elsewhere(), made_elsewhere());
    put_authority(&server, &certificate, &other_key);
    let (reason, message) = reconcile(&server, all()).await;
    assert_eq!(reason, "AuthorityUnusable");
    let fix = "Secret orders-ca: ca.key is not the key of ca.crt; put the key there that ca.crt was made with";
    assert!(message.contains(fix), "{message}");
    assert_eq!(server.paths(), [AUTHORITY, CLUSTER]);
    assert_eq!(server.events(), ["AuthorityUnusable"]);
}

#[tokio::test]
async fn an_authority_that_is_lost_is_followed_by_another_without_members_losing_each_other() {
    for spec in [all(), json!({"paused": true}), json!({"managementVoters": 2}), json!({"replicas": "three"})] {
        let server = Server::default();
        reconcile(&server, all()).await;
        let former = files(&server);
        server.delete(AUTHORITY);
        // Each step at its time, and none before.
        let mut steps = vec![former.clone()];
        for _ in 0..3 {
            run(&server, spec.clone()).await;
            let step = files(&server);
            run(&server, spec.clone()).await;
            assert_eq!(files(&server), step, "{spec}");
            // Members get the files at different moments.
            assert_peers(steps.last().expect("one"), &step);
            assert_eq!(held(&server, LEAVES[1], "ca.crt"), step.0, "{spec}");
            steps.push(step);
            pass_overlap(&server);
        }
        let authority = held(&server, AUTHORITY, "ca.crt");
        let both = format!("{authority}{}", former.0);
        assert_eq!(steps[1], (both.clone(), former.1.clone()), "{spec}");
        assert!(steps[2].0 == both && steps[2].1 != former.1, "{spec}");
        assert_eq!(steps[3], (authority.clone(), steps[2].1.clone()), "{spec}");
    }
}

#[tokio::test]
async fn a_lost_authority_is_a_condition_and_one_event() {
    let server = Server::default();
    for _ in 0..2 {
        reconcile(&server, all()).await;
    }
    put_set_observed(&server, "one");
    reconcile(&server, all()).await;
    let before = server.events();
    server.delete(AUTHORITY);
    for _ in 0..2 {
        for _ in 0..2 {
            reconcile(&server, all()).await;
            let (reason, message) = told(&server, "Progressing");
            assert_eq!(reason, "AuthorityReplaced");
            assert!(message.contains("both are trusted until"), "{message}");
        }
        pass_overlap(&server);
    }
    for _ in 0..2 {
        reconcile(&server, all()).await;
    }
    assert_eq!(told(&server, "Progressing").0, "Settled");
    let events = server.events();
    assert_eq!(events.iter().filter(|reason| *reason == "AuthorityReplaced").count(), 1, "{events:?}");
    assert!(!before.contains(&"AuthorityReplaced".to_owned()));
}

/// Three pods that are ready, of a template that Kubernetes has seen.
fn put_set_observed(server: &Server, revision: &str) {
    let path = "/apis/apps/v1/namespaces/shop/statefulsets/orders";
    let mut set = server.get(path).expect("it was made");
    let generation = set["metadata"]["generation"].as_i64().unwrap_or(1);
    set["metadata"]["generation"] = json!(generation);
    set["status"] = json!({"replicas": 3, "observedGeneration": generation, "updateRevision": revision});
    server.put(path, set);
    for index in 0..3 {
        let name = format!("orders-{index}");
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "spec": {"containers": []},
            "metadata": {"name": name, "namespace": "shop", "labels": {"controller-revision-hash": revision}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        });
        server.put(&format!("/api/v1/namespaces/shop/pods/{name}"), pod);
    }
}

#[tokio::test]
async fn a_change_is_never_reported_as_settled_before_kubernetes_has_looked_at_it() {
    let server = Server::default();
    reconcile(&server, all()).await;
    assert_eq!(told(&server, "Progressing").0, "Creating");
    put_set_observed(&server, "one");
    reconcile(&server, all()).await;
    assert_eq!(told(&server, "Progressing").0, "Settled");
    reconcile(&server, json!({"sidecar": {"logLevel": "debug"}})).await;
    assert_eq!(told(&server, "Progressing").0, "RollingOut");
}

#[tokio::test]
async fn a_cluster_that_cannot_be_read_keeps_what_was_known_of_it() {
    let server = Server::default();
    reconcile(&server, all()).await;
    let mut object = server.get(CLUSTER).expect("it is there");
    object["status"]["clusterId"] = json!("c1");
    object["status"]["replicas"] = json!(3);
    for condition in object["status"]["conditions"].as_array_mut().expect("it has conditions") {
        condition["lastTransitionTime"] = json!("2020-01-01T00:00:00Z");
    }
    server.put(CLUSTER, object.clone());
    let (reason, _) = reconcile(&server, json!({"replicas": "three"})).await;
    let status = server.get(CLUSTER).expect("it is there")["status"].clone();
    assert_eq!((reason.as_str(), &status["phase"]), ("InvalidSpec", &json!("Invalid")));
    for kept in ["clusterId", "replicas", "selector", "members", "ready"] {
        assert_eq!(status[kept], object["status"][kept], "{kept}");
    }
    let conditions = status["conditions"].as_array().expect("it has conditions");
    assert_eq!(conditions.len(), 6);
    assert!(conditions.iter().all(|condition| condition["lastTransitionTime"] == "2020-01-01T00:00:00Z"), "{status}");
}
