//! What users copy from examples/manifests can be followed.

use coterie_core::command::MemberKind;
use coterie_core::config::{Config, Overrides};
use coterie_crds::{Cluster, PartitionGroup};
use coterie_operator_core::cluster::validate;
use coterie_operator_core::group::{Decision, decide};
use coterie_operator_core::names;
use serde_json::Value;

use crate::fixtures::{defaults, healthy};

const CLUSTER: &str = include_str!("../../../../examples/manifests/cluster.yaml");
const ALONE: &str = include_str!("../../../../examples/manifests/cluster-sidecars-alone.yaml");
const CLIENT: &str = include_str!("../../../../examples/manifests/deployment-client-sidecar.yaml");

fn documents(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

#[test]
fn every_cluster_and_partition_group_is_valid() {
    for text in [CLUSTER, ALONE] {
        let documents = documents(text);
        let cluster: Cluster = serde_json::from_value(documents[0].clone()).unwrap();
        assert_eq!(validate(&cluster, &defaults()).map(|cluster| cluster.voters), Ok(3), "{text}");
        for document in &documents[1..] {
            let group: PartitionGroup = serde_json::from_value(document.clone()).unwrap();
            assert!(matches!(decide(&group, &[], Some(&cluster), &healthy()), Decision::Apply(_)), "{text}");
        }
    }
}

#[test]
fn s127_the_hand_written_sidecar_is_a_client_of_the_sample_cluster() {
    let documents = documents(CLIENT);
    let file = documents[0]["data"]["client.yaml"].as_str().unwrap();
    let overrides = Overrides { local_member: Some("orders-client-x".to_owned()), ..Overrides::default() };
    let config = Config::from_yaml(file, &overrides).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((config.local.kind, config.cluster.as_str()), (MemberKind::Ephemeral, "orders"));
    for (index, (name, member)) in config.members.iter().enumerate() {
        let pod = names::pod("orders", u32::try_from(index).unwrap());
        assert_eq!(name.as_str(), pod);
        let address = member.address.as_ref().unwrap().to_string();
        assert!(names::address("orders", "shop", &pod).starts_with(address.trim_end_matches(":7301")), "{address}");
    }
    let pod = &documents[1]["spec"]["template"]["spec"];
    assert_eq!(pod["initContainers"][0]["restartPolicy"], "Always");
    assert_eq!(pod["volumes"][3]["secret"]["secretName"], names::client_secret("orders"));
}
