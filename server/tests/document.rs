//! The OpenAPI document is whole, and speaks of the same operations as the table of who may do what.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use berth_server::{
    authz::{Operation, PUBLIC},
    http::openapi,
};

#[test]
fn every_operation_of_the_document_has_an_entry_in_authz_and_back() {
    let document = serde_json::to_value(openapi()).unwrap();
    let documented: BTreeSet<String> = document["paths"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|path| path.as_object().unwrap().values())
        .filter_map(|operation| operation["operationId"].as_str().map(str::to_owned))
        .filter(|id| !PUBLIC.contains(&id.as_str()))
        .collect();
    let ruled: BTreeSet<String> = Operation::ALL.iter().map(|operation| operation.id().to_owned()).collect();
    assert_eq!(documented, ruled);
}

#[test]
fn every_operation_documents_its_errors() {
    let document = serde_json::to_value(openapi()).unwrap();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let responses = operation["responses"].as_object().unwrap();
            assert!(PUBLIC.contains(&operation["operationId"].as_str().unwrap()) || responses.contains_key("default"), "{method} {path}");
        }
    }
}

#[test]
fn every_reference_in_the_document_resolves() {
    fn references(value: &serde_json::Value, found: &mut BTreeSet<String>) {
        match value {
            serde_json::Value::Object(map) => {
                found.extend(map.get("$ref").and_then(|target| target.as_str()).map(str::to_owned));
                map.values().for_each(|value| references(value, found));
            }
            serde_json::Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let document = serde_json::to_value(openapi()).unwrap();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.contains("#/components/schemas/Problem"), "{found:?}");
    for target in found {
        assert!(document.pointer(target.trim_start_matches('#')).is_some(), "{target} points nowhere");
    }
}
