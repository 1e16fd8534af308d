//! The OpenAPI document: what utoipa reads off the handlers, completed by what holds for all of them: codes of problems, headers, examples.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    codes::{self, Takes},
    keyed, middleware,
};
use crate::service::PUBLIC;

/// One example for each schema that a body has; `"$Name"` stands for that of another.
const EXAMPLES: &str = include_str!("examples.json");
/// Operations whose answer tells the revision, and those that heed `If-Match`.
const TAGGED: &[&str] = &["show_berth", "show_profile", "change_profile"];
const REVISED: &[&str] = &["change_berth", "delete_berth", "change_profile", "delete_profile"];
/// Its connection is upgraded: nothing of it can be given a second time.
const NOT_KEYED: &[&str] = &["exec_berth", "create_session", "exchange_token"];
const PROBLEM: &str = "#/components/schemas/Problem";

/// Completes the document.
pub(super) fn complete(mut document: Value) -> Value {
    let examples = examples();
    let operations = document["paths"].as_object_mut().into_iter().flat_map(|paths| paths.values_mut());
    for path in operations.filter_map(Value::as_object_mut) {
        for (method, operation) in path.iter_mut().filter(|(_, value)| value.is_object()) {
            let Some(id) = operation["operationId"].as_str().map(str::to_owned) else { continue };
            describe(operation);
            let takes = takes(&id, method, operation);
            headers(&id, method, operation, takes);
            errors(&id, operation, takes);
            bodies(operation, &examples);
        }
    }
    document["x-problem-codes"] = codes::CODES
        .iter()
        .map(|code| (code.code.to_owned(), json!({ "status": code.status, "meaning": code.meaning })))
        .collect::<Map<_, _>>()
        .into();
    document
}

/// The first sentence, or what of it can stand alone, is the summary.
fn describe(operation: &mut Value) {
    let text = ["summary", "description"].map(|part| operation[part].as_str().unwrap_or_default().trim().replace('\n', " ")).join(" ");
    let text = text.trim();
    let end = [". ", "; ", ": "].iter().filter_map(|end| text.find(end)).min().unwrap_or(text.trim_end_matches('.').len());
    operation["summary"] = text[..end].into();
    operation["description"] = text.into();
}

fn takes(id: &str, method: &str, operation: &Value) -> Takes {
    let parameters = || operation["parameters"].as_array().into_iter().flatten();
    Takes {
        public: PUBLIC.contains(&id),
        body: operation["requestBody"]["content"]["application/json"].is_object(),
        path: parameters().any(|one| one["in"] == "path"),
        query: parameters().any(|one| one["in"] == "query"),
        cursor: parameters().any(|one| one["name"] == "cursor"),
        key: matches!(method, "post" | "patch" | "delete") && !NOT_KEYED.contains(&id),
    }
}

fn headers(id: &str, method: &str, operation: &mut Value, takes: Takes) {
    let json = operation["responses"]["200"]["content"]["application/json"].is_object();
    let mut parameters = Vec::new();
    let mut header = |name: &str, description: &str| {
        let schema = json!({ "type": "string" });
        parameters.push(json!({ "name": name, "in": "header", "required": false, "description": description, "schema": schema }));
    };
    if takes.key {
        header(
            "Idempotency-Key",
            "1 to 255 visible characters. For 24 hours (and the last 2,000 of a caller) the same request with the same key is answered as it was and not done again",
        );
    }
    if REVISED.contains(&id) {
        header("If-Match", "ETags, one of which must be the thing's, or *");
    }
    let weak = method == "get" && json && !TAGGED.contains(&id) && !takes.public;
    if weak {
        header("If-None-Match", "ETags of answers that the client has");
        operation["responses"]["304"] = json!({ "description": "The client has this answer already" });
    }
    if let (Some(list), false) = (operation["parameters"].as_array_mut(), parameters.is_empty()) {
        list.append(&mut parameters);
    } else if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    let told = |description: &str| json!({ "description": description, "schema": { "type": "string" } });
    for (status, response) in operation["responses"].as_object_mut().into_iter().flatten() {
        response["headers"][middleware::HEADER.as_str()] = told("Ties the answer to the server's log");
        if status.starts_with('2') && takes.key {
            response["headers"][keyed::REPLAYED.as_str()] = told("`true` when the request was done before");
        }
        if status.starts_with('2') && (TAGGED.contains(&id) || weak) {
            response["headers"]["etag"] = told("For If-Match or If-None-Match");
        }
    }
}

/// The problems that it answers, by status.
fn errors(id: &str, operation: &mut Value, takes: Takes) {
    let mut by_status: BTreeMap<u16, Vec<&codes::Code>> = BTreeMap::new();
    for code in codes::of(id, takes) {
        by_status.entry(code.status).or_default().push(code);
    }
    for (status, codes) in by_status {
        let description = codes.iter().map(|code| format!("`{}`: {}", code.code, code.meaning)).collect::<Vec<_>>().join("; ");
        let examples: Map<_, _> = codes
            .iter()
            .map(|code| {
                let value = json!({ "status": code.status, "code": code.code, "detail": code.meaning });
                (code.code.to_owned(), json!({ "summary": code.meaning, "value": value }))
            })
            .collect();
        operation["responses"][status.to_string()] = json!({
            "description": description,
            "content": { (berth_api::PROBLEM_JSON): { "schema": { "$ref": PROBLEM }, "examples": examples } },
        });
    }
}

/// Examples of what is sent and of what comes back.
fn bodies(operation: &mut Value, examples: &Map<String, Value>) {
    let example = |content: &mut Value| {
        let name = content["schema"]["$ref"].as_str().and_then(|target| target.rsplit('/').next());
        if let (Some(example), None) = (name.and_then(|name| examples.get(name)), content.get("examples")) {
            content["example"] = example.clone();
        }
    };
    let responses = operation["responses"].as_object_mut().into_iter().flat_map(|responses| responses.values_mut());
    for content in responses.filter_map(|response| response["content"].as_object_mut()).flat_map(|content| content.values_mut()) {
        example(content);
    }
    if let Some(content) = operation["requestBody"]["content"].as_object_mut() {
        content.values_mut().for_each(example);
    }
    // Indexing has made what was not there.
    if let Some(fields) = operation.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
        if fields.get("requestBody").is_some_and(|body| body["content"].is_null()) {
            fields.remove("requestBody");
        }
        for response in fields.get_mut("responses").and_then(Value::as_object_mut).into_iter().flat_map(|all| all.values_mut()) {
            if let Some(response) = response.as_object_mut() {
                response.retain(|_, value| !value.is_null());
            }
        }
    }
}

/// All examples, those of others put in.
pub(super) fn examples() -> Map<String, Value> {
    // A test reads all of it.
    let all: Map<String, Value> = serde_json::from_str(EXAMPLES).unwrap_or_default();
    all.iter().map(|(name, value)| (name.clone(), filled(value, &all))).collect()
}

fn filled(value: &Value, all: &Map<String, Value>) -> Value {
    match value {
        Value::String(text) => match text.strip_prefix('$').and_then(|name| all.get(name)) {
            Some(other) => filled(other, all),
            None => value.clone(),
        },
        Value::Array(items) => items.iter().map(|item| filled(item, all)).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), filled(value, all))).collect::<Map<_, _>>().into(),
        _ => value.clone(),
    }
}
