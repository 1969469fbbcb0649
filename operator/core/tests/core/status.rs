//! What is reported of a Cluster.

use crate::fixtures::{self, cluster, condition, defaults, nothing, observed, time, validated};
use coterie_crds::cluster::ClusterStatus;
use coterie_operator_core::cluster::status::{self, Applied, Report};
use coterie_operator_core::cluster::{Observed, plan, validate};
use coterie_operator_core::condition::{Event, Severity};
use coterie_operator_core::members::View;
use serde_json::{Value, json};

fn report(spec: Value, observed: &Observed, applied: &Applied, previous: &ClusterStatus) -> ClusterStatus {
    let cluster = validated(spec);
    let desired = plan(&cluster, observed);
    let report = Report { cluster: &cluster, generation: Some(7), observed, desired: &desired, applied, previous };
    status::status(report, time(100))
}

fn settled() -> ClusterStatus {
    report(json!({}), &observed(), &Applied::All, &ClusterStatus::default())
}

fn reasons(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.reason.as_str()).collect()
}

#[test]
fn a_healthy_cluster_is_ready_and_says_who_leads_in_which_term() {
    let status = settled();
    assert_eq!((status.phase.as_str(), status.ready.as_str()), ("Running", "3/3"));
    assert_eq!((status.leader.as_deref(), status.term), (Some("orders-1"), Some(2)));
    assert_eq!(status.cluster_id.as_deref(), Some("c1"));
    assert_eq!(status.observed_generation, Some(7));
    assert_eq!(status.selector, "coterie.dev/cluster=orders,coterie.dev/role=member");
    assert_eq!(condition(&status, "Ready"), ("True", "Ready"));
    assert_eq!(condition(&status, "Available"), ("True", "PartitionsServe"));
    assert_eq!(condition(&status, "Progressing"), ("False", "Settled"));
    assert_eq!(condition(&status, "Degraded"), ("False", "AsWanted"));
    assert_eq!(condition(&status, "ScaleDownBlocked"), ("False", "NotAsked"));
    assert_eq!(status.members.len(), 3);
    assert_eq!(status.members[0].node_id.as_deref(), Some("5"));
}

#[test]
fn a_new_cluster_is_pending_then_forming_without_warnings() {
    let status = report(json!({}), &nothing(), &Applied::All, &ClusterStatus::default());
    assert_eq!(status.phase, "Pending");
    assert_eq!(condition(&status, "Progressing"), ("True", "Creating"));
    assert_eq!(condition(&status, "Available"), ("Unknown", "NoMemberAnswers"));
    assert!(status::events(&ClusterStatus::default(), &status).is_empty());
    let mut forming = observed();
    forming.view = View::new([("orders-0".to_owned(), Ok(Default::default()))].into());
    let status = report(json!({}), &forming, &Applied::All, &status);
    assert_eq!(status.phase, "Forming");
    assert_eq!(condition(&status, "Available"), ("False", "Forming"));
}

#[test]
fn readiness_is_one_event() {
    let first = report(json!({}), &nothing(), &Applied::All, &ClusterStatus::default());
    let ready = report(json!({}), &observed(), &Applied::All, &first);
    let events = status::events(&first, &ready);
    assert_eq!(reasons(&events).iter().filter(|reason| **reason == "Ready").count(), 1, "{events:?}");
    assert!(events.iter().all(|event| event.severity == Severity::Normal), "{events:?}");
    assert_eq!(status::events(&ready, &ready), []);
}

#[test]
fn a_claim_without_a_default_storage_class_says_what_to_do() {
    let mut pending = observed();
    pending.claims.get_mut("coterie-data-orders-1").unwrap().is_bound = false;
    let status = report(json!({}), &pending, &Applied::All, &ClusterStatus::default());
    assert_eq!(condition(&status, "Degraded"), ("True", "VolumePending"));
    pending.has_default_storage_class = Some(false);
    let next = report(json!({}), &pending, &Applied::All, &ClusterStatus::default());
    assert_eq!(condition(&next, "Ready"), ("False", "NoDefaultStorageClass"));
    assert!(reasons(&status::events(&status, &next)).contains(&"NoDefaultStorageClass"));
    let message = &next.conditions[0].message;
    assert!(message.contains("coterie-data-orders-1") && message.contains("storageClassName"), "{message}");
}

#[test]
fn d14_a_refused_or_mixed_volume_is_named() {
    let mut mixed = observed();
    mixed.view = View::new(fixtures::refused("orders-2", "the volume belongs to cluster c2"));
    let status = report(json!({}), &mixed, &Applied::All, &settled());
    assert_eq!(condition(&status, "Degraded"), ("True", "MembersRefused"));
    assert_eq!(condition(&status, "Ready"), ("False", "MembersRefused"));
    let message = &status.conditions.iter().find(|condition| condition.type_ == "Degraded").unwrap().message;
    assert!(
        message.contains("orders-2: the volume belongs to cluster c2") && message.contains("c1: orders-0, orders-1"),
        "{message}"
    );
    assert!(reasons(&status::events(&settled(), &status)).contains(&"MembersRefused"));
}

#[test]
fn a_pod_whose_address_changed_is_an_event() {
    let mut moved = observed();
    moved.pods.get_mut("orders-1").unwrap().ip = Some("10.0.9.9".to_owned());
    let next = report(json!({}), &moved, &Applied::All, &settled());
    let events = status::events(&settled(), &next);
    assert_eq!(reasons(&events), ["MemberAddressChanged"]);
    assert!(events[0].note.contains("10.0.0.1") && events[0].note.contains("10.0.9.9"), "{}", events[0].note);
}

#[test]
fn an_address_that_changed_while_there_was_none_is_an_event_too() {
    for is_gone in [true, false] {
        let mut without = observed();
        if is_gone {
            without.pods.remove("orders-1");
        } else {
            without.pods.get_mut("orders-1").unwrap().ip = None;
        }
        let between = report(json!({}), &without, &Applied::All, &settled());
        assert_eq!(between.members[1].address.as_deref(), Some("10.0.0.1"));
        let mut moved = observed();
        moved.pods.get_mut("orders-1").unwrap().ip = Some("10.0.9.9".to_owned());
        let next = report(json!({}), &moved, &Applied::All, &between);
        assert!(reasons(&status::events(&between, &next)).contains(&"MemberAddressChanged"));
    }
}

#[test]
fn scaling_below_the_voters_is_answered_with_scale_down_blocked() {
    let next = report(json!({"replicas": 1}), &observed(), &Applied::All, &settled());
    assert_eq!(condition(&next, "ScaleDownBlocked"), ("True", "VotersCannotBeRemoved"));
    assert_eq!(next.ready, "3/3");
    assert_eq!(condition(&next, "Ready"), ("True", "Ready"));
    assert_eq!(reasons(&status::events(&settled(), &next)), ["VotersCannotBeRemoved"]);
}

#[test]
fn extra_replicas_are_clients() {
    let mut five = observed();
    five.stateful_set.as_mut().unwrap().replicas = 5;
    let status = report(json!({"replicas": 5}), &five, &Applied::All, &settled());
    let roles: Vec<&str> = status.members.iter().map(|member| member.role.as_str()).collect();
    assert_eq!(roles, ["Voter", "Voter", "Voter", "Client", "Client"]);
    assert_eq!((status.ready.as_str(), status.phase.as_str()), ("3/5", "Degraded"));
    assert_eq!(condition(&status, "Progressing"), ("True", "Scaling"));
}

#[test]
fn a_lost_pod_degrades_and_a_lost_quorum_makes_it_unavailable() {
    let mut lost = observed();
    lost.pods.remove("orders-2");
    let next = report(json!({}), &lost, &Applied::All, &settled());
    assert_eq!((next.phase.as_str(), next.ready.as_str()), ("Degraded", "2/3"));
    assert_eq!(condition(&next, "Degraded"), ("True", "PodsNotReady"));
    lost.view = fixtures::view(vec![fixtures::group("system", vec![fixtures::partition(None, 2)])]);
    let next = report(json!({}), &lost, &Applied::All, &settled());
    assert_eq!(next.phase, "Unavailable");
    assert_eq!(condition(&next, "Available"), ("False", "PartitionsWithoutQuorum"));
    assert_eq!(next.cluster_id.as_deref(), Some("c1"));
    assert!(reasons(&status::events(&settled(), &next)).contains(&"PartitionsWithoutQuorum"));
}

#[test]
fn what_kubernetes_refuses_is_said_in_its_words() {
    let refused =
        Applied::Refused("StatefulSet orders: spec.template.spec.restartPolicy: Unsupported value".to_owned());
    let status = report(json!({}), &observed(), &refused, &settled());
    assert_eq!(condition(&status, "Ready"), ("False", "ApplyRefused"));
    assert!(status.conditions[0].message.contains("restartPolicy"));
}

#[test]
fn an_invalid_spec_is_a_condition_and_one_event_and_keeps_what_was_seen() {
    let error = validate(&cluster(json!({"managementVoters": 2})), &defaults()).unwrap_err();
    let status = status::invalid(&error, Some(7), &observed(), &settled(), time(5));
    assert_eq!((status.phase.as_str(), status.ready.as_str()), ("Invalid", "3/3"));
    assert_eq!(condition(&status, "Ready"), ("False", "InvalidSpec"));
    assert_eq!(reasons(&status::events(&settled(), &status)), ["InvalidSpec"]);
    assert_eq!(status.members, settled().members);
    let never = status::invalid(&error, Some(7), &nothing(), &ClusterStatus::default(), time(5));
    assert_eq!(reasons(&status::events(&ClusterStatus::default(), &never)), ["InvalidSpec"]);
}

#[test]
fn a_cluster_with_an_invalid_spec_is_still_reported_on() {
    let error = validate(&cluster(json!({"managementVoters": 2})), &defaults()).unwrap_err();
    let mut lost = observed();
    lost.pods.remove("orders-1");
    lost.view = fixtures::view(vec![fixtures::group("system", vec![fixtures::partition(Some("orders-2"), 9)])]);
    let next = status::invalid(&error, Some(7), &lost, &settled(), time(5));
    assert_eq!((next.ready.as_str(), next.replicas), ("2/3", 2));
    assert_eq!((next.leader.as_deref(), next.term), (Some("orders-2"), Some(9)));
    assert!(!next.members[1].ready && next.members[2].ready);
    lost.view = fixtures::view(vec![fixtures::group("system", vec![fixtures::partition(None, 9)])]);
    let next = status::invalid(&error, Some(7), &lost, &settled(), time(5));
    assert_eq!(condition(&next, "Available"), ("False", "PartitionsWithoutQuorum"));
}

#[test]
fn a_name_that_is_taken_is_a_condition_and_an_event_and_one_that_is_soon_free_is_no_warning() {
    let taken = Applied::Taken("ConfigMap orders-configuration exists".to_owned());
    let status = report(json!({}), &nothing(), &taken, &ClusterStatus::default());
    assert_eq!(condition(&status, "Ready"), ("False", "NameTaken"));
    assert!(status.conditions[0].message.contains("ConfigMap orders-configuration"));
    assert_eq!(reasons(&status::events(&ClusterStatus::default(), &status)), ["NameTaken"]);
    let leaving = Applied::Leaving("StatefulSet orders".to_owned());
    let status = report(json!({}), &nothing(), &leaving, &ClusterStatus::default());
    assert_eq!(condition(&status, "Ready"), ("False", "NameNotFreeYet"));
    assert_eq!(status::events(&ClusterStatus::default(), &status), []);
}

#[test]
fn a_paused_cluster_says_so() {
    let status = report(json!({"paused": true}), &observed(), &Applied::Paused, &settled());
    assert_eq!(status.phase, "Paused");
    assert_eq!(condition(&status, "ReconciliationPaused"), ("True", "Paused"));
}

#[test]
fn d14_a_cluster_made_anew_on_older_volumes_says_that_it_adopted_them_once() {
    let at = |second| k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(time(second));
    let mut observed = observed();
    for (number, claim) in (0..).zip(observed.claims.values_mut()) {
        claim.made = Some(at(50 + number * 100));
    }
    let told = status::adopted(&ClusterStatus::default(), &settled(), &observed, Some(&at(100))).unwrap();
    assert_eq!(told.reason, "VolumesAdopted");
    let first = observed.claims.keys().next().unwrap();
    assert!(told.note.contains(first.as_str()) && told.note.contains("c1"), "{}", told.note);
    assert_eq!(status::adopted(&settled(), &settled(), &observed, Some(&at(100))), None);
    assert_eq!(status::adopted(&ClusterStatus::default(), &settled(), &observed, Some(&at(50))), None);
}

#[test]
fn a_change_that_kubernetes_has_not_looked_at_is_under_way() {
    let mut changed = observed();
    changed.stateful_set.as_mut().unwrap().is_observed = false;
    let status = report(json!({}), &changed, &Applied::All, &settled());
    assert_eq!(condition(&status, "Progressing"), ("True", "RollingOut"));
    assert_eq!(status::events(&settled(), &status), []);
    changed.pods.clear();
    let status = report(json!({}), &changed, &Applied::All, &ClusterStatus::default());
    assert_eq!(condition(&status, "Progressing"), ("True", "Creating"));
}

#[test]
fn another_authority_is_said_once_whatever_the_spec_says_and_the_cluster_stays_ready() {
    let mut replaced = observed();
    replaced.handover = Some(1200);
    let status = report(json!({}), &replaced, &Applied::All, &settled());
    assert_eq!(condition(&status, "Progressing"), ("True", "AuthorityReplaced"));
    assert_eq!((status.phase.as_str(), condition(&status, "Ready")), ("Running", ("True", "Ready")));
    let told = status::events(&settled(), &status);
    assert_eq!((reasons(&told), told[0].severity), (vec!["AuthorityReplaced"], Severity::Warning));
    assert!(told[0].note.contains("1970-01-01T00:20:00Z"), "{}", told[0].note);
    assert_eq!(status::events(&status, &status), []);
    assert_eq!(status::events(&status, &settled()), []);
    let error = validate(&cluster(json!({"managementVoters": 2})), &defaults()).unwrap_err();
    let status = status::invalid(&error, Some(7), &replaced, &settled(), time(5));
    assert_eq!(condition(&status, "Progressing"), ("True", "AuthorityReplaced"));
}
