//! What there should be, given a spec and what there is.

use crate::fixtures::{self, cluster, defaults, nothing, observed, validated};
use coterie_core::command::MemberKind;
use coterie_core::config::{Config, Timing};
use coterie_operator_core::cluster::{Observed, configuration, plan, validate};
use coterie_operator_core::names;
use serde_json::{Value, json};

fn with_application() -> Value {
    json!({"template": {
        "metadata": {"labels": {"app.kubernetes.io/name": "shop", "team": "blue"}, "annotations": {"a": "b"}},
        "spec": {
            "aFieldOfTomorrow": {"kept": [1, 2]},
            "containers": [
                {"name": "app", "image": "app:1", "env": [{"name": "COTERIE_SOCKET", "value": "mine"}], "alsoNew": true},
                {"name": "proxy", "image": "proxy:1"},
            ],
            "initContainers": [{"name": "migrate", "image": "app:1"}],
            "volumes": [{"name": "data", "emptyDir": {}}],
        },
    }})
}

fn pod_of(spec: Value) -> Value {
    let set = plan(&validated(spec), &nothing()).stateful_set;
    set["spec"]["template"].clone()
}

#[test]
fn the_applications_template_is_carried_through_with_fields_nobody_knows() {
    let pod = pod_of(with_application());
    assert_eq!(pod["spec"]["aFieldOfTomorrow"], json!({"kept": [1, 2]}));
    assert_eq!(pod["spec"]["containers"][0]["alsoNew"], json!(true));
    assert_eq!(pod["metadata"]["labels"]["app.kubernetes.io/name"], json!("shop"));
    assert_eq!(pod["metadata"]["labels"]["team"], json!("blue"));
    assert_eq!(pod["metadata"]["annotations"]["a"], json!("b"));
    assert_eq!(pod["spec"]["volumes"][0], json!({"name": "data", "emptyDir": {}}));
    for (key, value) in names::selector("orders") {
        assert_eq!(pod["metadata"]["labels"][&key], json!(value));
    }
}

#[test]
fn the_sidecar_is_the_first_init_container_and_restarts_always() {
    let pod = pod_of(with_application());
    let init = pod["spec"]["initContainers"].as_array().unwrap();
    assert_eq!(init[0]["name"], json!("coterie"));
    assert_eq!(init[0]["restartPolicy"], json!("Always"));
    assert_eq!(init[1]["name"], json!("migrate"));
    assert_eq!(
        init[0]["lifecycle"]["preStop"]["exec"]["command"],
        json!(["/coterie-sidecar", "drain", "--socket", "/run/coterie/coterie.sock"])
    );
    for (probe, path) in [("startupProbe", "/startupz"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
        assert_eq!(init[0][probe]["httpGet"], json!({"path": path, "port": "health"}));
    }
}

#[test]
fn every_container_of_the_application_finds_the_sidecar_and_none_sees_its_data_or_key() {
    let pod = pod_of(with_application());
    let application = pod["spec"]["containers"]
        .as_array()
        .unwrap()
        .iter()
        .chain(&pod["spec"]["initContainers"].as_array().unwrap()[1..]);
    for container in application {
        assert_eq!(container["volumeMounts"], json!([{"name": "coterie-run", "mountPath": "/run/coterie"}]));
        let env = container["env"].as_array().unwrap();
        let value = |name: &str| env.iter().find(|variable| variable["name"] == name).unwrap()["value"].clone();
        assert_eq!(value("COTERIE_ENDPOINT"), json!("http://127.0.0.1:7300"));
        assert_eq!(
            value("COTERIE_SOCKET"),
            if container["name"] == "app" { json!("mine") } else { json!("/run/coterie/coterie.sock") }
        );
    }
}

#[test]
fn the_sidecar_fits_the_restricted_level_with_and_without_an_application() {
    for (spec, list) in [(with_application(), "initContainers"), (json!({}), "containers")] {
        let context = pod_of(spec)["spec"][list][0]["securityContext"].clone();
        assert_eq!(context["runAsNonRoot"], json!(true));
        assert_eq!(context["readOnlyRootFilesystem"], json!(true));
        assert_eq!(context["allowPrivilegeEscalation"], json!(false));
        assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}));
        assert_eq!(context["seccompProfile"], json!({"type": "RuntimeDefault"}));
    }
}

#[test]
fn a_cluster_without_a_template_runs_the_sidecar_as_its_only_container() {
    let pod = pod_of(json!({}));
    assert_eq!(pod["spec"]["containers"].as_array().unwrap().len(), 1);
    assert_eq!(pod["spec"]["containers"][0]["name"], json!("coterie"));
    assert_eq!(pod["spec"]["containers"][0].get("restartPolicy"), None);
    assert_eq!(pod["spec"].get("initContainers"), None);
    assert_eq!(pod["spec"]["automountServiceAccountToken"], json!(false));
    assert_eq!(pod["spec"]["securityContext"]["runAsNonRoot"], json!(true));
}

#[test]
fn what_the_application_says_of_its_pod_stays() {
    let mut spec = with_application();
    spec["template"]["spec"]["securityContext"] = json!({"fsGroup": 1});
    spec["template"]["spec"]["serviceAccountName"] = json!("shop");
    spec["template"]["spec"]["topologySpreadConstraints"] = json!([{"topologyKey": "rack"}]);
    let pod = pod_of(spec);
    assert_eq!(pod["spec"]["securityContext"]["fsGroup"], json!(1));
    assert_eq!(pod["spec"]["serviceAccountName"], json!("shop"));
    assert_eq!(pod["spec"]["topologySpreadConstraints"], json!([{"topologyKey": "rack"}]));
    let pod = pod_of(with_application());
    assert_eq!(pod["spec"]["securityContext"]["fsGroup"], json!(65532));
    assert_eq!(pod["spec"]["serviceAccountName"], json!("orders-member"));
    let account = plan(&validated(with_application()), &nothing()).service_account;
    assert_eq!(account.metadata.name.as_deref(), Some("orders-member"));
    assert_eq!(pod["spec"]["topologySpreadConstraints"].as_array().unwrap().len(), 2);
}

#[test]
fn the_file_is_valid_for_every_voter_and_makes_every_other_pod_a_client() {
    for (spec, voters, groups) in [
        (json!({"replicas": 5}), 3, 1),
        (json!({"replicas": 5, "managementVoters": 5, "profiles": []}), 5, 0),
        (json!({"replicas": 2, "managementVoters": 1}), 1, 1),
    ] {
        let cluster = validated(spec);
        let file = configuration::file(&cluster);
        for index in 0..cluster.replicas {
            let pod = names::pod("orders", index);
            let config = configuration::builder(&cluster).local_member(&pod).build().unwrap();
            let kind = if index < voters { MemberKind::Persistent } else { MemberKind::Ephemeral };
            assert_eq!(config.local.kind, kind, "{pod}");
            assert_eq!(config.members.len(), voters as usize);
            assert_eq!(config.management.as_ref().unwrap().members.len(), voters as usize);
            assert_eq!(config.partition_groups.len(), groups);
        }
        let text = format!("{file}\n");
        let again = Config::from_yaml(
            &text.replace("cluster:", "cluster:\n  local-member: {name: orders-0}"),
            &Default::default(),
        )
        .unwrap();
        assert_eq!(again, configuration::builder(&cluster).local_member("orders-0").build().unwrap());
        assert_eq!(again.api_socket.unwrap().to_str(), Some(names::SOCKET));
    }
    // The address is the pod's name below the headless Service, with the peers' port.
    let file = configuration::file(&validated(json!({})));
    assert!(file.contains("orders-2.orders-members.shop.svc:7301"), "{file}");
}

#[test]
fn the_file_says_how_members_are_timed_unless_it_is_as_ever() {
    let file = |spec: Value| configuration::file(&validated(spec));
    assert_eq!(file(json!({"sidecar": {"timing": "normal"}})), file(json!({})));
    for (word, timing) in [("fast", Timing::Fast), ("slow", Timing::Slow)] {
        let cluster = validated(json!({"sidecar": {"timing": word}}));
        let config = configuration::builder(&cluster).local_member("orders-0").build().unwrap();
        assert_eq!(config.timing, timing);
        assert!(configuration::file(&cluster).contains(&format!("\ntiming: {word}\n")));
    }
}

#[test]
fn pods_are_replaced_when_the_file_changes_and_not_when_clients_come_and_go() {
    let hash = |spec: Value| pod_of(spec)["metadata"]["annotations"][names::CONFIGURATION_ANNOTATION].clone();
    assert_eq!(hash(json!({})), hash(json!({"replicas": 9})));
    let file = configuration::file(&validated(json!({})));
    assert_eq!(hash(json!({})), configuration::hash(&file));
    assert_ne!(hash(json!({})), configuration::hash(&format!("{file}\n")));
}

#[test]
fn pods_start_in_parallel_and_volumes_are_kept() {
    let set =
        plan(&validated(json!({"storage": {"size": "2Gi", "storageClassName": "fast"}})), &nothing()).stateful_set;
    assert_eq!(set["spec"]["podManagementPolicy"], json!("Parallel"));
    assert_eq!(set["spec"]["updateStrategy"], json!({"type": "OnDelete"}));
    assert_eq!(
        set["spec"]["persistentVolumeClaimRetentionPolicy"],
        json!({"whenDeleted": "Retain", "whenScaled": "Retain"})
    );
    let claim = &set["spec"]["volumeClaimTemplates"][0]["spec"];
    assert_eq!(claim["storageClassName"], json!("fast"));
    assert_eq!(claim["resources"]["requests"]["storage"], json!("2Gi"));
}

#[test]
fn no_pod_may_go_until_every_partition_has_all_of_its_replicas() {
    let budget = |observed| plan(&validated(json!({})), &observed).disruption_budget.spec.unwrap();
    assert_eq!(serde_json::to_value(budget(nothing()).max_unavailable).unwrap(), json!(0));
    assert_eq!(serde_json::to_value(budget(observed()).max_unavailable).unwrap(), json!(1));
    let mut lagging = observed();
    let mut raft = fixtures::partition(Some("orders-0"), 3);
    raft.lagging = vec!["orders-2".to_owned()];
    lagging.view = fixtures::view(vec![fixtures::group("system", vec![raft])]);
    assert_eq!(serde_json::to_value(budget(lagging).max_unavailable).unwrap(), json!(0));
}

#[test]
fn a_pod_that_is_not_ready_may_always_go_only_if_it_takes_no_vote_or_is_being_mended() {
    let policy = |bend: &dyn Fn(&mut Observed)| {
        let mut observed = observed();
        bend(&mut observed);
        let budget = plan(&validated(json!({})), &observed).disruption_budget;
        budget.spec.unwrap().unhealthy_pod_eviction_policy.unwrap()
    };
    let unready = |observed: &mut Observed, index: u32, is_sidecar_up: bool| {
        let pod = observed.pods.get_mut(&names::pod("orders", index)).unwrap();
        pod.is_ready = false;
        (pod.is_sidecar_running, pod.is_sidecar_ready) = (is_sidecar_up, is_sidecar_up);
    };
    assert_eq!(policy(&|_| ()), "IfHealthyBudget");
    assert_eq!(policy(&|observed| unready(observed, 1, true)), "IfHealthyBudget");
    assert_eq!(policy(&|observed| unready(observed, 1, false)), "AlwaysAllow");
    let both = |observed: &mut Observed| {
        unready(observed, 1, false);
        unready(observed, 2, true);
    };
    assert_eq!(policy(&both), "IfHealthyBudget");
    // All applications fail, and a mended template is rolled out.
    let mended = |observed: &mut Observed| {
        for index in 0..3 {
            unready(observed, index, true);
            observed.pods.get_mut(&names::pod("orders", index)).unwrap().revision = "old".to_owned();
        }
    };
    assert_eq!(policy(&mended), "AlwaysAllow");
}

#[test]
fn members_are_reached_over_ipv6_too() {
    let config = configuration::builder(&validated(json!({}))).local_member("orders-0").build().unwrap();
    assert_eq!(config.health.sockets(), ["[::]:7302".parse().unwrap()]);
    assert_eq!(config.peer.unwrap().sockets(), ["[::]:7301".parse().unwrap()]);
}

#[test]
fn scaling_below_the_voters_leaves_the_stateful_set_as_it_is() {
    let replicas = |spec, observed: &_| plan(&validated(spec), observed).stateful_set["spec"]["replicas"].clone();
    assert_eq!(replicas(json!({"replicas": 1}), &observed()), json!(3));
    assert_eq!(replicas(json!({"replicas": 1}), &nothing()), json!(3));
    let mut five = observed();
    five.stateful_set.as_mut().unwrap().replicas = 5;
    assert_eq!(replicas(json!({"replicas": 1}), &five), json!(5));
    assert_eq!(replicas(json!({"replicas": 4}), &five), json!(4));
}

#[test]
fn larger_volumes_are_asked_for_and_the_same_size_in_other_words_is_not() {
    let resize = |size: &str| plan(&validated(json!({"storage": {"size": size}})), &observed()).resize;
    assert_eq!(resize("1Gi"), None);
    assert_eq!(resize("1024Mi"), None);
    let larger = resize("2Gi").unwrap();
    assert_eq!((larger.claims.len(), larger.size.as_str(), larger.is_set_outdated), (3, "2Gi", true));
}

#[test]
fn a_claim_without_a_volume_is_made_larger_when_it_has_one() {
    let wanted = validated(json!({"storage": {"size": "2Gi"}}));
    let mut there = observed();
    there.claims.get_mut("coterie-data-orders-1").unwrap().is_bound = false;
    assert_eq!(plan(&wanted, &there).resize.unwrap().claims, ["coterie-data-orders-0", "coterie-data-orders-2"]);
    for claim in there.claims.values_mut() {
        claim.size = Some(if claim.is_bound { "2Gi" } else { "1Gi" }.to_owned());
        claim.is_bound = true;
    }
    there.stateful_set.as_mut().unwrap().claim_size = Some("2Gi".to_owned());
    let later = plan(&wanted, &there).resize.unwrap();
    assert_eq!((later.claims, later.is_set_outdated), (vec!["coterie-data-orders-1".to_owned()], false));
}

#[test]
fn the_claim_template_of_a_stateful_set_that_is_there_stays() {
    let size = |observed: &_| {
        let set = plan(&validated(json!({"storage": {"size": "2Gi"}})), observed).stateful_set;
        set["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"].clone()
    };
    assert_eq!((size(&observed()), size(&nothing())), (json!("1Gi"), json!("2Gi")));
}

#[test]
fn the_network_policy_closes_the_peers_port_only_in_every_protocol_and_is_there_only_when_asked_for() {
    assert_eq!(plan(&validated(json!({})), &nothing()).network_policy, None);
    let policy = plan(&validated(json!({"security": {"networkPolicy": true}})), &nothing()).network_policy.unwrap();
    let rules = serde_json::to_value(policy.spec.unwrap().ingress).unwrap();
    assert_eq!(rules[0]["ports"], json!([{"port": 7301}]));
    assert_eq!(rules[1].get("from"), None);
    assert_eq!(
        rules[1]["ports"],
        json!([{"port": 1, "endPort": 7300}, {"port": 7302, "endPort": 65535}, {"protocol": "UDP"}, {"protocol": "SCTP"}])
    );
}

#[test]
fn every_object_is_owned_by_its_cluster() {
    let desired = plan(&validated(json!({"security": {"networkPolicy": true}})), &nothing());
    let set: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta =
        serde_json::from_value(desired.stateful_set["metadata"].clone()).unwrap();
    let policy = desired.network_policy.unwrap().metadata;
    for metadata in [
        desired.service_account.metadata,
        desired.configuration.metadata,
        desired.service.metadata,
        desired.disruption_budget.metadata,
        policy,
        set,
    ] {
        let owner = &metadata.owner_references.as_ref().unwrap()[0];
        assert_eq!((owner.kind.as_str(), owner.uid.as_str(), owner.controller), ("Cluster", "u-1", Some(true)));
        assert_eq!(metadata.labels.unwrap()["app.kubernetes.io/managed-by"], "coterie-operator");
    }
    assert_eq!(desired.service.spec.unwrap().publish_not_ready_addresses, Some(true));
    assert_eq!(desired.service_account.automount_service_account_token, Some(false));
}

#[test]
fn the_same_input_gives_the_same_objects() {
    let cluster = validated(with_application());
    assert_eq!(plan(&cluster, &observed()), plan(&cluster, &observed()));
}

#[test]
fn a_volume_that_is_too_small_for_the_log_is_refused_with_the_bound() {
    let problems = |size: &str| {
        let cluster = cluster(json!({"storage": {"size": size}}));
        validate(&cluster, &defaults()).map_or_else(|error| error.problems, |_| Vec::new())
    };
    for size in ["0", "16Mi", "40Mi", "255.5Mi", "256M", "much"] {
        let rule = "it must be a quantity of at least 256Mi, for example 1Gi";
        assert_eq!(problems(size), [format!("spec.storage.size is `{size}`: {rule}")]);
    }
    for size in ["256Mi", "0.25Gi", "268435456", "1Gi"] {
        assert_eq!(problems(size), Vec::<String>::new(), "{size}");
    }
}

#[test]
fn a_wrong_spec_that_slipped_through_is_refused_with_every_problem() {
    let wrong = cluster(json!({
        "replicas": 0, "managementVoters": 2, "profiles": ["DataGrid"], "storage": {"size": "much"},
        "template": {"spec": {"containers": [{"name": "coterie"}], "volumes": [{"name": "coterie-run"}]}},
    }));
    let problems = validate(&wrong, &defaults()).unwrap_err().problems;
    assert_eq!(problems.len(), 6, "{problems:?}");
    for spec in [
        json!({"template": {}}),
        json!({"template": {"spec": 1}}),
        json!({"template": {"spec": {"containers": []}}}),
        json!({"template": 3}),
    ] {
        assert!(validate(&cluster(spec.clone()), &defaults()).is_err(), "{spec}");
    }
}
