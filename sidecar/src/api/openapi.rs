//! The OpenAPI 3.1 document, written by hand and committed.

/// `sidecar/openapi.json`.
pub const DOCUMENT: &str = include_str!("../../openapi.json");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::DOCUMENT;
    use crate::api::http::ROUTES;

    fn document() -> Value {
        serde_json::from_str(DOCUMENT).unwrap()
    }

    #[test]
    fn every_route_is_in_the_document_and_the_reverse() {
        let routed: BTreeSet<(String, String)> = ROUTES
            .iter()
            .flat_map(|(path, methods)| methods.iter().map(|method| ((*path).to_owned(), method.to_lowercase())))
            .collect();
        let mut documented = BTreeSet::new();
        for (path, operations) in document()["paths"].as_object().unwrap() {
            for method in operations.as_object().unwrap().keys().filter(|key| *key != "parameters") {
                documented.insert((path.clone(), method.clone()));
            }
        }
        assert_eq!(routed, documented);
    }

    #[test]
    fn every_parameter_of_a_path_is_declared() {
        for (path, operations) in document()["paths"].as_object().unwrap() {
            let declared: BTreeSet<&str> = operations["parameters"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|parameter| parameter["$ref"].as_str().unwrap().rsplit('/').next().unwrap())
                .collect();
            for name in path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
                assert!(declared.contains(name), "{path} does not declare {name}");
            }
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(fields) => {
                    found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                    fields.values().for_each(|value| references(value, found));
                }
                Value::Array(values) => values.iter().for_each(|value| references(value, found)),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(!found.is_empty());
        for reference in found {
            assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        }
    }

    #[test]
    fn every_code_is_in_the_document() {
        let codes: BTreeSet<&str> = coterie_core::ErrorCode::ALL.iter().map(|code| code.label()).collect();
        let document = document();
        let documented = document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"].as_array().unwrap();
        assert_eq!(codes, documented.iter().map(|code| code.as_str().unwrap()).collect());
    }

    #[test]
    fn every_operation_has_an_id_and_a_summary() {
        for operations in document()["paths"].as_object().unwrap().values() {
            for (method, operation) in operations.as_object().unwrap().iter().filter(|(key, _)| *key != "parameters") {
                assert!(operation["operationId"].is_string() && operation["summary"].is_string(), "{method}");
            }
        }
    }
}
