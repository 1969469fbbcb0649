//! A Cluster `orders` and what is observed of it, to be bent by each test.

use std::collections::BTreeMap;

use coterie_crds::cluster::{Cluster, ClusterStatus};
use coterie_operator_core::cluster::observed::{Claim, Pod, StatefulSet};
use coterie_operator_core::cluster::{Defaults, Observed, Validated, validate};
use coterie_operator_core::members::{Answer, Group, Member, Partition, SYSTEM, View};
use jiff::Timestamp;
use serde_json::{Value, json};

pub fn cluster(spec: Value) -> Cluster {
    serde_json::from_value(json!({
        "apiVersion": "coterie.dev/v1alpha1", "kind": "Cluster",
        "metadata": {"name": "orders", "namespace": "shop", "uid": "u-1", "generation": 7},
        "spec": spec,
    }))
    .unwrap()
}

pub fn defaults() -> Defaults {
    Defaults { sidecar_image: "coterie:test".to_owned() }
}

pub fn validated(spec: Value) -> Validated {
    validate(&cluster(spec), &defaults()).unwrap()
}

pub fn time(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

pub fn partition(leader: Option<&str>, term: u64) -> Partition {
    Partition {
        leader: leader.map(str::to_owned),
        term,
        replicas: pods(3),
        has_quorum: leader.is_some(),
        lagging: Vec::new(),
    }
}

pub fn group(name: &str, states: Vec<Partition>) -> Group {
    Group {
        name: name.to_owned(),
        protocol: "raft".to_owned(),
        partitions: u32::try_from(states.len()).unwrap(),
        replicas: 3,
        state: "running".to_owned(),
        primitives: 0,
        states: (1..).zip(states).collect(),
    }
}

pub fn pods(count: u32) -> Vec<String> {
    (0..count).map(|index| format!("orders-{index}")).collect()
}

pub fn answer(groups: Vec<Group>) -> Answer {
    let member = |name: String| Member {
        name,
        zone: "a".to_owned(),
        version: "0.1.0".to_owned(),
        node_id: 5,
        refused: String::new(),
    };
    Answer {
        cluster_id: "c1".to_owned(),
        state: "running".to_owned(),
        reason: String::new(),
        members: pods(3).into_iter().map(member).collect(),
        groups,
    }
}

pub fn view(groups: Vec<Group>) -> View {
    View::new(pods(3).into_iter().map(|pod| (pod, Ok(answer(groups.clone())))).collect())
}

/// `orders-1` leads the management group, `orders-0` and `orders-2` lead one partition of `raft` each.
pub fn healthy() -> View {
    let raft = vec![partition(Some("orders-0"), 3), partition(Some("orders-2"), 4)];
    view(vec![group(SYSTEM, vec![partition(Some("orders-1"), 2)]), group("raft", raft)])
}

pub fn pod(index: u32, revision: &str) -> Pod {
    Pod {
        ip: Some(format!("10.0.0.{index}")),
        uid: format!("p-{index}"),
        is_ready: true,
        is_sidecar_ready: true,
        is_sidecar_running: true,
        is_terminating: false,
        revision: revision.to_owned(),
        trouble: None,
    }
}

pub fn observed() -> Observed {
    let claim = Claim {
        version: "8".to_owned(),
        is_bound: true,
        storage_class: Some("standard".to_owned()),
        size: Some("1Gi".to_owned()),
        made: None,
    };
    Observed {
        stateful_set: Some(StatefulSet {
            uid: "s-1".to_owned(),
            replicas: 3,
            update_revision: "new".to_owned(),
            is_observed: true,
            claim_size: Some("1Gi".to_owned()),
            is_deleted: false,
        }),
        pods: (0..3).map(|index| (format!("orders-{index}"), pod(index, "new"))).collect(),
        claims: pods(3).into_iter().map(|pod| (format!("coterie-data-{pod}"), claim.clone())).collect(),
        has_default_storage_class: None,
        network_policy: None,
        handover: None,
        view: healthy(),
    }
}

/// Nothing of it is there yet.
pub fn nothing() -> Observed {
    Observed::default()
}

pub fn condition<'a>(status: &'a ClusterStatus, kind: &str) -> (&'a str, &'a str) {
    let condition = status.conditions.iter().find(|condition| condition.type_ == kind).unwrap();
    assert_eq!(condition.observed_generation, Some(7));
    (condition.status.as_str(), condition.reason.as_str())
}

pub fn refused(pod: &str, reason: &str) -> BTreeMap<String, Result<Answer, String>> {
    let mut answers: BTreeMap<_, _> = pods(3).into_iter().map(|pod| (pod, Ok(answer(Vec::new())))).collect();
    let own = Answer {
        state: "refused".to_owned(),
        reason: reason.to_owned(),
        cluster_id: "c2".to_owned(),
        ..answer(Vec::new())
    };
    answers.insert(pod.to_owned(), Ok(own));
    answers
}
