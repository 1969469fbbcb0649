//! What is done for a PartitionGroup, and what is reported of it.

use crate::fixtures::{self, cluster, healthy, partition, time};
use coterie_crds::partition_group::{PartitionGroup, PartitionGroupStatus};
use coterie_operator_core::group::decide::Group;
use coterie_operator_core::group::status::{self, Outcome};
use coterie_operator_core::group::{Decision, decide, decide_unread};
use coterie_operator_core::members::View;
use serde_json::{Value, json};

fn group(name: &str, second: u32, patch: Value) -> PartitionGroup {
    let mut object = json!({
        "apiVersion": "coterie.dev/v1alpha1", "kind": "PartitionGroup",
        "metadata": {
            "name": name, "namespace": "shop", "uid": format!("uid-{name}"), "generation": 7,
            "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z"),
        },
        "spec": {"clusterRef": {"name": "orders"}, "type": "Raft"},
    });
    for part in ["metadata", "spec"] {
        for (key, value) in patch.get(part).and_then(Value::as_object).into_iter().flatten() {
            object[part][key] = value.clone();
        }
    }
    serde_json::from_value(object).unwrap()
}

fn deleted() -> Value {
    json!({"metadata": {"deletionTimestamp": "2026-01-02T00:00:00Z"}})
}

fn with_data(primitives: u64) -> View {
    let mut data = fixtures::group(
        "data",
        vec![partition(Some("orders-0"), 5), partition(Some("orders-2"), 6), partition(Some("orders-0"), 7)],
    );
    data.primitives = primitives;
    fixtures::view(vec![fixtures::group("system", vec![partition(Some("orders-1"), 2)]), data])
}

fn condition(status: &PartitionGroupStatus, kind: &str) -> (String, String) {
    let condition = status.conditions.iter().find(|condition| condition.type_ == kind).unwrap();
    assert_eq!(condition.observed_generation, Some(7));
    (condition.status.clone(), condition.reason.clone())
}

fn is(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

#[test]
fn a_group_is_made_once_and_then_left() {
    let data = group("data", 1, json!({}));
    let wanted = Group { name: "data".to_owned(), partitions: 3, replicas: 3, members: Vec::new() };
    assert_eq!(decide(&data, &[], Some(&cluster(json!({}))), &healthy()), Decision::Apply(wanted.clone()));
    assert_eq!(decide(&data, &[], Some(&cluster(json!({}))), &with_data(0)), Decision::Settled(wanted));
}

#[test]
fn a_group_reports_leader_and_term_of_each_partition() {
    let data = group("data", 1, json!({}));
    let view = with_data(2);
    let decision = decide(&data, &[], Some(&cluster(json!({}))), &view);
    let status = status::status(&data, &decision, &Outcome::Done, &view, time(1));
    assert_eq!(
        (status.phase.as_str(), status.ready.as_str(), status.leaders.as_str()),
        ("Running", "3/3", "orders-0,orders-2")
    );
    assert_eq!((status.partitions[2].leader.as_deref(), status.partitions[2].term), (Some("orders-0"), 7));
    assert_eq!(status.primitives, 2);
    assert_eq!(condition(&status, "Ready"), is("True", "Ready"));
    let events = status::events(&PartitionGroupStatus::default(), &status);
    assert!(
        events
            .iter()
            .any(|event| event.reason == "LeaderChanged" && event.note.contains("partition 3: orders-0 in term 7")),
        "{events:?}"
    );
    assert_eq!(status::events(&status, &status), []);
}

#[test]
fn a_missing_cluster_and_one_that_is_not_there_yet_are_told_apart() {
    let data = group("data", 1, json!({}));
    for (found, view, reason) in
        [(None, View::default(), "ClusterNotFound"), (Some(cluster(json!({}))), View::default(), "ClusterNotReady")]
    {
        let decision = decide(&data, &[], found.as_ref(), &view);
        let status = status::status(&data, &decision, &Outcome::Done, &view, time(1));
        assert_eq!(condition(&status, "Ready"), is("False", reason));
        assert_eq!(status.ready, "0/3");
        let events = status::events(&PartitionGroupStatus::default(), &status);
        assert_eq!(events.iter().map(|event| event.reason.as_str()).collect::<Vec<_>>(), [reason]);
    }
}

#[test]
fn the_younger_of_two_with_one_name_is_in_conflict_and_never_deletes_the_elders_data() {
    let elder = group("data", 1, json!({}));
    let younger = group("more", 2, json!({"spec": {"name": "data", "deletionPolicy": "Delete"}}));
    let siblings = [younger.clone(), elder.clone()];
    let orders = cluster(json!({}));
    assert!(matches!(decide(&elder, &siblings, Some(&orders), &healthy()), Decision::Apply(_)));
    let decision = decide(&younger, &siblings, Some(&orders), &with_data(1));
    let status = status::status(&younger, &decision, &Outcome::Done, &with_data(1), time(1));
    assert_eq!(condition(&status, "NameConflict"), is("True", "NameConflict"));
    assert_eq!(condition(&status, "Ready"), is("False", "NameConflict"));
    assert!(status.partitions.is_empty());
    let events = status::events(&PartitionGroupStatus::default(), &status);
    assert_eq!(events.iter().map(|event| event.reason.as_str()).collect::<Vec<_>>(), ["NameConflict"]);
    let mut leaving = younger;
    leaving.metadata.deletion_timestamp = elder.metadata.creation_timestamp.clone();
    assert_eq!(decide(&leaving, &siblings, Some(&orders), &with_data(1)), Decision::Release);
}

#[test]
fn the_same_name_in_another_cluster_is_no_conflict() {
    let other = group("other", 1, json!({"spec": {"name": "data", "clusterRef": {"name": "stock"}}}));
    let data = group("data", 2, json!({}));
    assert!(matches!(decide(&data, &[other], Some(&cluster(json!({}))), &healthy()), Decision::Apply(_)));
}

#[test]
fn the_name_that_the_profile_consensus_makes_is_taken() {
    let raft = group("raft", 1, json!({}));
    assert!(matches!(decide(&raft, &[], Some(&cluster(json!({}))), &healthy()), Decision::NameConflict(_)));
    let without = cluster(json!({"profiles": []}));
    assert!(matches!(decide(&raft, &[], Some(&without), &healthy()), Decision::Apply(_) | Decision::Settled(_)));
}

#[test]
fn what_the_cluster_cannot_hold_is_refused_with_the_fix() {
    let orders = cluster(json!({}));
    for (patch, says) in [
        (json!({"spec": {"replicas": 5}}), "make the PartitionGroup again with at most 3"),
        (json!({"spec": {"replicas": 1, "raft": {"members": ["orders-3"]}}}), "its voters are orders-0 to orders-2"),
        (json!({"spec": {"type": "PrimaryBackup"}}), "not in this version"),
        (json!({"spec": {"name": "system"}}), "management group"),
        (json!({"spec": {"partitions": 0}}), "from 1 to 128"),
    ] {
        match decide(&group("data", 1, patch), &[], Some(&orders), &healthy()) {
            Decision::Invalid(why) => assert!(why.contains(says), "{why}"),
            other => panic!("{says}: {other:?}"),
        }
    }
}

#[test]
fn deleting_a_group_that_holds_data_is_refused_and_says_what_to_do() {
    let orders = cluster(json!({}));
    let data = group("data", 1, deleted());
    let decision = decide(&data, &[], Some(&orders), &with_data(4));
    assert_eq!(decision, Decision::Delete { name: "data".to_owned(), force: false });
    let status =
        status::status(&data, &decision, &Outcome::Refused("it holds primitives".to_owned()), &with_data(4), time(1));
    assert_eq!(condition(&status, "DeletionBlocked"), is("True", "HoldsData"));
    assert_eq!(status.phase, "Deleting");
    let events = status::events(&PartitionGroupStatus::default(), &status);
    assert!(
        events
            .iter()
            .any(|event| event.reason == "HoldsData" && event.note.contains("set spec.deletionPolicy to Delete")),
        "{events:?}"
    );
    let mut patch = deleted();
    patch["spec"] = json!({"deletionPolicy": "Delete"});
    assert_eq!(
        decide(&group("data", 1, patch), &[], Some(&orders), &with_data(4)),
        Decision::Delete { name: "data".to_owned(), force: true }
    );
}

#[test]
fn a_deletion_never_waits_for_a_cluster_that_is_gone() {
    let data = group("data", 1, deleted());
    assert_eq!(decide(&data, &[], None, &View::default()), Decision::Release);
    assert!(matches!(decide(&data, &[], Some(&cluster(json!({}))), &View::default()), Decision::DeleteLater(_)));
    assert_eq!(decide(&data, &[], Some(&cluster(json!({}))), &healthy()), Decision::Release);
    let mut going = cluster(json!({}));
    going.metadata.deletion_timestamp = data.metadata.creation_timestamp.clone();
    assert_eq!(decide(&data, &[], Some(&going), &View::default()), Decision::Release);
}

#[test]
fn a_cluster_that_cannot_be_read_is_not_taken_for_one_that_is_gone() {
    let decision = decide_unread(&group("data", 1, deleted()), "unknown variant `Fast`");
    assert!(matches!(&decision, Decision::DeleteLater(why) if why.contains("`Fast`")), "{decision:?}");
    let decision = decide_unread(&group("data", 1, json!({})), "unknown variant `Fast`");
    assert!(matches!(&decision, Decision::ClusterNotReady(why) if why.contains("`Fast`")), "{decision:?}");
}

#[test]
fn lost_quorum_and_lagging_replicas_are_told_apart() {
    let data = group("data", 1, json!({}));
    let orders = cluster(json!({}));
    let report = |states| {
        let view = fixtures::view(vec![
            fixtures::group("system", vec![partition(Some("orders-1"), 2)]),
            fixtures::group("data", states),
        ]);
        let decision = decide(&data, &[], Some(&orders), &view);
        status::status(&data, &decision, &Outcome::Done, &view, time(1))
    };
    let mut lagging = partition(Some("orders-0"), 5);
    lagging.lagging = vec!["orders-2".to_owned()];
    let ok = || partition(Some("orders-1"), 5);
    let status = report(vec![lagging, ok(), ok()]);
    assert_eq!((status.phase.as_str(), status.ready.as_str()), ("Degraded", "2/3"));
    assert_eq!(condition(&status, "Available"), is("True", "PartitionsServe"));
    let status = report(vec![partition(None, 5), ok(), ok()]);
    assert_eq!((status.phase.as_str(), status.ready.as_str()), ("Unavailable", "2/3"));
    assert_eq!(condition(&status, "Ready"), is("False", "PartitionsWithoutQuorum"));
}

#[test]
fn what_the_members_refuse_is_said_in_their_words() {
    let data = group("data", 1, json!({}));
    let decision = decide(&data, &[], Some(&cluster(json!({}))), &healthy());
    let status = status::status(
        &data,
        &decision,
        &Outcome::Refused("too many partition groups".to_owned()),
        &healthy(),
        time(1),
    );
    assert_eq!(condition(&status, "Ready"), is("False", "Refused"));
    let status = status::status(&data, &decision, &Outcome::Later("no quorum".to_owned()), &healthy(), time(1));
    assert_eq!(condition(&status, "Ready"), is("False", "ClusterNotReady"));
}
