//! Which pod is replaced next.

use crate::fixtures::{observed, pod, validated};
use coterie_operator_core::cluster::{Observed, rollout};
use coterie_operator_core::members::View;
use serde_json::json;

fn next(bend: impl FnOnce(&mut Observed)) -> Vec<String> {
    let mut observed = observed();
    bend(&mut observed);
    rollout::next(&validated(json!({})), &observed)
}

fn outdate(observed: &mut Observed, indexes: &[u32]) {
    for index in indexes {
        observed.pods.insert(format!("orders-{index}"), pod(*index, "old"));
    }
}

fn bend(observed: &mut Observed, index: u32, is_sidecar_ready: bool) {
    let pod = observed.pods.get_mut(&format!("orders-{index}")).unwrap();
    pod.is_ready = false;
    pod.is_sidecar_ready = is_sidecar_ready;
}

#[test]
fn nothing_is_replaced_when_nothing_is_outdated() {
    assert_eq!(next(|_| ()), Vec::<String>::new());
}

#[test]
fn followers_go_first_and_the_management_leader_last() {
    assert_eq!(next(|observed| outdate(observed, &[0, 1, 2])), ["orders-2"]);
    assert_eq!(next(|observed| outdate(observed, &[0, 1])), ["orders-0"]);
    assert_eq!(next(|observed| outdate(observed, &[1])), ["orders-1"]);
}

#[test]
fn the_next_waits_until_the_last_one_has_caught_up() {
    assert_eq!(
        next(|observed| {
            outdate(observed, &[0, 1]);
            bend(observed, 2, false);
        }),
        Vec::<String>::new()
    );
    assert_eq!(
        next(|observed| {
            outdate(observed, &[0, 1]);
            observed.pods.remove("orders-2");
        }),
        Vec::<String>::new()
    );
    assert_eq!(
        next(|observed| {
            outdate(observed, &[0, 1]);
            observed.pods.get_mut("orders-2").unwrap().is_terminating = true;
        }),
        Vec::<String>::new()
    );
}

#[test]
fn a_new_template_whose_application_does_not_become_ready_goes_no_further() {
    assert_eq!(
        next(|observed| {
            outdate(observed, &[0, 1]);
            bend(observed, 2, true);
        }),
        Vec::<String>::new()
    );
}

#[test]
fn an_outdated_pod_that_is_down_is_replaced_before_any_that_serves() {
    assert_eq!(
        next(|observed| {
            outdate(observed, &[0, 1, 2]);
            bend(observed, 1, false);
        }),
        ["orders-1"]
    );
}

#[test]
fn an_outdated_pod_whose_application_is_not_ready_goes_before_those_that_are() {
    assert_eq!(
        next(|observed| {
            outdate(observed, &[0, 1, 2]);
            bend(observed, 1, true);
        }),
        ["orders-1"]
    );
}

#[test]
fn without_a_quorum_every_outdated_pod_that_is_down_is_replaced_and_no_other() {
    let pods = next(|observed| {
        outdate(observed, &[0, 1, 2]);
        bend(observed, 0, false);
        bend(observed, 2, false);
        observed.view = View::default();
    });
    assert_eq!(pods, ["orders-0", "orders-2"]);
}

#[test]
fn nothing_is_replaced_before_kubernetes_has_seen_the_template() {
    assert_eq!(
        next(|observed| {
            outdate(observed, &[0]);
            observed.stateful_set.as_mut().unwrap().is_observed = false;
        }),
        Vec::<String>::new()
    );
}

#[test]
fn a_current_pod_down_and_another_outdated_pod_down_nothing_is_evicted() {
    for is_available in [true, false] {
        let pods = next(|observed| {
            outdate(observed, &[0, 1]);
            bend(observed, 1, false);
            bend(observed, 2, false);
            if !is_available {
                observed.view = View::default();
            }
        });
        assert_eq!(pods, Vec::<String>::new(), "available: {is_available}");
    }
}

#[test]
fn with_a_quorum_an_outdated_pod_that_is_down_waits_for_every_other_voter() {
    let both = next(|observed| {
        outdate(observed, &[0, 1, 2]);
        bend(observed, 1, false);
        bend(observed, 2, false);
    });
    assert_eq!(both, Vec::<String>::new());
}
