//! Specs of any shape: what is not understood is refused with a sentence, what is accepted can be followed.

use coterie_core::config::{Config, Overrides};
use coterie_crds::{Cluster, PartitionGroup};
use coterie_operator_core::cluster::{Observed, configuration, plan, validate};
use coterie_operator_core::group::decide;
use coterie_operator_core::{names, quantity};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::fixtures::{defaults, healthy};

/// JSON of any shape, with the names that mean something.
fn value() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec!["spec", "metadata", "labels", "containers", "volumes", "env", "name", "x"]);
    let text = prop::sample::select(vec!["", "coterie", "coterie-x", "COTERIE_SOCKET", "1Gi", "ä"]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        let map = btree_map(name.clone(), inner.clone(), 0..4);
        let map = map.prop_map(|map| map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect());
        prop_oneof![vec(inner, 0..4).prop_map(Value::Array), map.prop_map(Value::Object)]
    })
}

/// A pod template that is nearly right: of each part either what it should be or anything.
fn template() -> impl Strategy<Value = Value> {
    let or_any = |right: Value| prop_oneof![3 => Just(right), 1 => value()];
    let container = || or_any(json!({"name": "c", "env": [], "volumeMounts": []}));
    let spec = (vec(container(), 0..3), vec(container(), 0..2), or_any(json!([{"name": "v"}])), value(), value());
    let spec = spec.prop_map(|(containers, initial, volumes, context, spread)| {
        json!({"containers": containers, "initContainers": initial, "volumes": volumes, "securityContext": context,
            "topologySpreadConstraints": spread})
    });
    (prop_oneof![4 => spec, 1 => value()], or_any(json!({"labels": {"a": "b"}})))
        .prop_map(|(spec, metadata)| json!({"metadata": metadata, "spec": spec}))
}

fn spec() -> impl Strategy<Value = Value> {
    let size = prop_oneof![Just("1Gi".to_owned()), "[0-9.]{0,12}[a-zA-Z]{0,3}[0-9]{0,4}", any::<String>()];
    let replicas = prop_oneof![1..9_i32, any::<i32>()];
    let voters = prop::sample::select(vec![1, 3, 5, 0, 2, -1]);
    (template(), size, replicas, voters).prop_map(|(template, size, replicas, voters)| {
        json!({"template": template, "storage": {"size": size}, "replicas": replicas, "managementVoters": voters})
    })
}

/// As the API server has it: its names are those of Kubernetes.
fn cluster(spec: &Value, name: &str) -> Option<Cluster> {
    let metadata = json!({"name": name, "namespace": "shop", "uid": "u-1", "generation": 7});
    let whole = json!({"apiVersion": "coterie.dev/v1alpha1", "kind": "Cluster", "metadata": metadata, "spec": spec});
    serde_json::from_value(whole).ok()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_cluster_of_any_shape_is_refused_with_sentences_or_planned_so_that_its_members_read_their_file(
        spec in spec(), name in "[a-z][a-z0-9-]{0,50}[a-z0-9]",
    ) {
        let Some(cluster) = cluster(&spec, &name) else { return Ok(()) };
        match validate(&cluster, &defaults()) {
            Err(error) => prop_assert!(!error.problems.is_empty() && !error.to_string().is_empty()),
            Ok(validated) => {
                plan(&validated, &Observed::default());
                let file = configuration::file(&validated);
                for pod in validated.voter_pods() {
                    let overrides = Overrides { local_member: Some(pod), ..Overrides::default() };
                    prop_assert!(Config::from_yaml(&file, &overrides).is_ok(), "{}", file);
                }
            }
        }
    }

    #[test]
    fn no_json_makes_the_operator_panic(spec in value(), status in value()) {
        let whole = |kind: &str| json!({"apiVersion": "coterie.dev/v1alpha1", "kind": kind, "metadata": {}, "spec": spec, "status": status});
        if let Ok(cluster) = serde_json::from_value::<Cluster>(whole("Cluster")) {
            let _ = validate(&cluster, &defaults());
        }
        if let Ok(group) = serde_json::from_value::<PartitionGroup>(whole("PartitionGroup")) {
            decide(&group, &[], None, &healthy());
        }
    }

    #[test]
    fn a_quantity_is_a_number_or_none(text in "[0-9.]{0,20}[a-zA-Z+-]{0,3}[0-9]{0,12}", any in any::<String>(), whole in 0..1_u64 << 50) {
        quantity::thousandths(&text);
        quantity::thousandths(&any);
        prop_assert_eq!(quantity::thousandths(&format!("{whole}")), Some(u128::from(whole) * 1_000));
        prop_assert_eq!(quantity::thousandths(&format!("{whole}Ki")), Some(u128::from(whole) * 1_024_000));
        prop_assert_eq!(quantity::thousandths(&format!("{whole}.5k")), Some(u128::from(whole) * 1_000_000 + 500_000));
    }

    #[test]
    fn only_what_a_pod_is_called_has_an_index(cluster in "[a-z-]{0,9}", index in any::<u32>(), text in any::<String>()) {
        prop_assert_eq!(names::index(&cluster, &names::pod(&cluster, index)), Some(index));
        for text in [text.clone(), format!("{cluster}-{text}")] {
            if let Some(index) = names::index(&cluster, &text) {
                prop_assert_eq!(names::pod(&cluster, index), text);
            }
        }
    }
}
