//! The OpenAPI document is whole, and speaks of the same operations as the table of who may do what.

#![forbid(unsafe_code)]

use std::{collections::BTreeSet, fs, path::Path};

use berth_server::{
    authz::{Operation, PUBLIC},
    http::{codes, openapi},
};
use serde_json::Value;

#[test]
fn every_operation_of_the_document_has_an_entry_in_authz_and_back() {
    let document = openapi();
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
    let document = openapi();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let responses = operation["responses"].as_object().unwrap();
            assert!(PUBLIC.contains(&operation["operationId"].as_str().unwrap()) || responses.contains_key("default"), "{method} {path}");
        }
    }
}

#[test]
fn every_reference_in_the_document_resolves() {
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(|target| target.as_str()).map(str::to_owned));
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let document = openapi();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.contains("#/components/schemas/Problem"), "{found:?}");
    for target in found {
        assert!(document.pointer(target.trim_start_matches('#')).is_some(), "{target} points nowhere");
    }
}

/// What a handler can answer is written where it is refused: every code of the sources stands in the registry, with its status, and back.
#[test]
fn every_code_of_the_sources_is_documented_with_its_status() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = Vec::new();
    for directory in [root.join("src"), root.join("../runtime/node/src/daemon")] {
        sources(&directory, &mut texts);
    }
    let mut missing = BTreeSet::new();
    for text in &texts {
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        for (refusal, status) in REFUSALS {
            for (at, _) in text.match_indices(&format!("Refusal::{refusal}, \"")) {
                let code = text[at..].split('"').nth(1).unwrap();
                let known = codes::CODES.iter().any(|one| one.code == code && one.status == *status);
                // Some are answered with a status of their own, which is told right before.
                let own = codes::CODES.iter().any(|one| one.code == code) && text[..at].trim_end().ends_with(',');
                if !known && !own {
                    missing.insert(format!("{code} {status}"));
                }
            }
        }
        for start in ["Refusal::conflict(\"", "Refusal::failed(\""] {
            for (at, _) in text.match_indices(start) {
                let code = text[at..].split('"').nth(1).unwrap();
                if !codes::CODES.iter().any(|one| one.code == code) {
                    missing.insert(code.to_owned());
                }
            }
        }
    }
    assert!(missing.is_empty(), "not in http/codes.rs: {missing:#?}");
    let all = texts.concat();
    // These are put together from parts.
    let composed = |code: &str| (code.starts_with("invalid_") && code.ends_with("_name")) || code.ends_with("_not_found");
    for code in codes::CODES {
        let used = all.matches(&format!("\"{}\"", code.code)).count();
        assert!(used >= 2 || composed(code.code), "{} is answered by nobody", code.code);
        assert!(!code.meaning.is_empty() && (400..600).contains(&code.status), "{code:?}");
    }
    let names: BTreeSet<_> = codes::CODES.iter().map(|one| one.code).collect();
    assert_eq!(names.len(), codes::CODES.len(), "a code stands there twice");
}

const REFUSALS: &[(&str, u16)] = &[
    ("Invalid", 400),
    ("NotAuthenticated", 401),
    ("NotPermitted", 403),
    ("NotFound", 404),
    ("Conflict", 409),
    ("Outdated", 412),
    ("Limit", 422),
    ("TooMany", 429),
    ("Failed", 502),
    ("Unavailable", 503),
    ("TimedOut", 504),
];

fn sources(directory: &Path, texts: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, texts);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            texts.push(fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn every_code_names_operations_that_there_are() {
    let known: BTreeSet<&str> = Operation::ALL.iter().map(|operation| operation.id()).chain(PUBLIC.iter().copied()).collect();
    for code in codes::CODES {
        if let codes::By::Ops(operations) = code.by {
            assert!(operations.iter().all(|id| known.contains(id)), "{} names an operation that there is not", code.code);
        }
    }
    assert!(codes::ASK_NODE.iter().all(|id| known.contains(id)));
}

#[test]
fn every_operation_has_a_summary_and_every_json_body_an_example() {
    let document = openapi();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let name = format!("{method} {path}");
            let summary = operation["summary"].as_str().unwrap();
            assert!(!summary.is_empty() && summary.len() < 120 && !summary.ends_with('.'), "{name}: {summary}");
            let mut bodies: Vec<&Value> = vec![&operation["requestBody"]];
            bodies.extend(
                operation["responses"].as_object().unwrap().iter().filter(|(status, _)| status.starts_with('2')).map(|(_, body)| body),
            );
            for content in bodies.iter().filter_map(|body| body["content"].get("application/json")) {
                assert!(content["example"].is_object(), "{name} has a body without an example: {}", content["schema"]);
            }
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                assert!(parameter["description"].is_string(), "{name}: {} has no description", parameter["name"]);
            }
        }
    }
}

/// An example that its own type does not take says something that is not so.
#[test]
fn examples_are_what_they_are_examples_of() {
    macro_rules! taken {
        ($examples:ident: $($kind:ident),* $(,)?) => {
            $(
                let example = $examples.remove(stringify!($kind)).unwrap_or_else(|| panic!("{} has no example", stringify!($kind)));
                serde_json::from_value::<berth_api::$kind>(example).unwrap_or_else(|error| panic!("{}: {error}", stringify!($kind)));
            )*
        };
    }
    let mut found = std::collections::BTreeMap::new();
    examples(&openapi(), &mut found);
    let mut examples = found;
    taken!(examples: BerthList, Berth, NewBerth, BerthChange, RebuildBerth, SuspendBerth, ExecBerth, ChangePreview, Operation, OperationList, Accepted);
    taken!(examples: AllAccepted, UsageList, UsageChart, Profile, ProfileList, NewProfile, ProfileChange, Image, ImageList, BuildImage, PullImage);
    taken!(examples: AuditList, Node, Doctor, User, Health, Event, AccountList, ArchiveList, RestoreBerth);
    taken!(examples: Inside, PruneBerth, Pruned);
    taken!(examples: Me, SignIn, Session, SessionList, SessionsEnded, SignInLink, Admin, AdminList, NewAdmin, AdminChange, NewPassword);
    taken!(examples: TokenList, NewToken, TokenCreated, AccessToken, SigningKeys);
    taken!(examples: Rule, RuleList, NewRule, RuleChange, ApplyRules, NewBerths, BerthsChange, EntryReport, BerthClaim);
    taken!(examples: Request, RequestList, NewRequest, ApproveRequest, DenyRequest, ApprovedRequest);
    assert!(examples.is_empty(), "not tried: {:?}", examples.keys());
}

/// Examples of bodies by the names of their schemas.
fn examples(value: &Value, found: &mut std::collections::BTreeMap<String, Value>) {
    match value {
        Value::Object(map) => {
            if let (Some(example), Some(target)) = (map.get("example"), value["schema"]["$ref"].as_str()) {
                found.insert(target.rsplit('/').next().unwrap().to_owned(), example.clone());
            }
            map.values().for_each(|value| examples(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| examples(value, found)),
        _ => {}
    }
}
