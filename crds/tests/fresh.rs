//! What is generated from the types lies in the tree, and is fresh.
//! `make generate` writes it.

use std::path::Path;

use coterie_crds::{FOLDERS, definitions, to_yaml};

#[test]
fn definitions_in_the_tree_and_in_the_chart_are_the_generated_ones() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies below the root");
    for definition in definitions() {
        let yaml = to_yaml(&definition.crd).expect("a definition has a YAML form");
        for folder in FOLDERS {
            let path = root.join(folder).join(definition.file);
            let found = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(found == yaml, "{} is not fresh: run `make generate`", path.display());
        }
    }
}

#[test]
fn definitions_are_small_enough_for_a_client_side_kubectl_apply() {
    for definition in definitions() {
        let bytes = to_yaml(&definition.crd).expect("a definition has a YAML form").len();
        assert!(bytes < 200_000, "{} has {bytes} bytes", definition.file);
    }
}

#[test]
fn short_names_collide_with_none_of_kubernetes() {
    // `kubectl api-resources` of Kubernetes 1.37 with every built-in group, and of what is often beside it.
    let taken = "cm ep ev limits no ns po pv pvc quota rc sa svc cs crd crds ds deploy rs sts cj hpa csr ing netpol pdb pc sc ip vac cert certs cr crs k rmq zk gtw hr sm pm";
    for definition in definitions() {
        for name in definition.crd.spec.names.short_names.expect("each kind has a short name") {
            assert!(!taken.split(' ').any(|other| other == name), "{name} is taken");
        }
        assert_eq!(definition.crd.spec.names.categories, Some(vec!["coterie".to_owned()]));
    }
}

#[test]
fn every_field_of_a_spec_is_explained() {
    fn walk(path: &str, schema: &serde_json::Value, missing: &mut Vec<String>) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            if field["description"].as_str().is_none_or(str::is_empty) {
                missing.push(path.clone());
            }
            walk(&path, field, missing);
        }
    }
    for definition in definitions() {
        let crd = serde_json::to_value(&definition.crd).expect("a definition has a JSON form");
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
        let mut missing = Vec::new();
        let mut spec = schema["spec"].clone();
        // What lies below is Kubernetes' own.
        if let Some(template) = spec["properties"].get_mut("template") {
            template["properties"] = serde_json::Value::Null;
        }
        walk(".spec", &spec, &mut missing);
        assert!(missing.is_empty(), "{}: no description: {missing:?}", definition.file);
    }
}
