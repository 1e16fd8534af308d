//! `/docs`: the OpenAPI document as one page, written by the server. No script, nothing from elsewhere.

use std::fmt::Write;

use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value};

const POLICY: &str = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const STYLE: &str = include_str!("docs.css");

/// The page.
pub(super) fn page(document: &Value) -> String {
    let mut out = String::with_capacity(256 * 1024);
    let info = &document["info"];
    let _ = write!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title} API</title><link rel=\"stylesheet\" href=\"/docs/style.css\"></head><body><main><h1>{title} API</h1><p>{about}</p>\
         <p><a href=\"/openapi.json\">openapi.json</a> (OpenAPI {version})</p>",
        title = text(&info["title"]),
        about = text(&info["description"]),
        version = text(&document["openapi"]),
    );
    let mut tags: Vec<(String, Vec<Entry<'_>>)> = Vec::new();
    for (path, methods) in object(&document["paths"]) {
        for (method, operation) in object(methods).filter(|(_, value)| value.is_object()) {
            let tag = operation["tags"][0].as_str().unwrap_or("other").to_owned();
            let entry = Entry { path, method, operation };
            match tags.iter_mut().find(|(name, _)| *name == tag) {
                Some((_, entries)) => entries.push(entry),
                None => tags.push((tag, vec![entry])),
            }
        }
    }
    let _ = write!(out, "<nav aria-label=\"Operations\">");
    for (tag, entries) in &tags {
        let _ = write!(out, "<h2>{}</h2><ul>", escaped(tag));
        for Entry { path, method, operation } in entries {
            let (id, summary) = (text(&operation["operationId"]), text(&operation["summary"]));
            let _ = write!(out, "<li><a href=\"#{id}\"><code>{} {}</code></a> {summary}</li>", method.to_uppercase(), escaped(path));
        }
        let _ = write!(out, "</ul>");
    }
    let _ = write!(out, "</nav>");
    for entry in tags.iter().flat_map(|(_, entries)| entries) {
        operation(&mut out, entry);
    }
    let _ = write!(out, "<h2>Schemas</h2>");
    for (name, schema) in object(&document["components"]["schemas"]) {
        let name = escaped(name);
        let _ = write!(
            out,
            "<section id=\"schema-{name}\"><h3>{name}</h3><p>{}</p><pre>{}</pre></section>",
            text(&schema["description"]),
            pretty(schema)
        );
    }
    let _ = write!(out, "</main></body></html>");
    out
}

struct Entry<'d> {
    path: &'d str,
    method: &'d str,
    operation: &'d Value,
}

fn operation(out: &mut String, Entry { path, method, operation }: &Entry<'_>) {
    let id = text(&operation["operationId"]);
    let _ = write!(
        out,
        "<section id=\"{id}\"><h3><code>{} {}</code></h3><p>{}</p>",
        method.to_uppercase(),
        escaped(path),
        text(&operation["description"])
    );
    let parameters: Vec<&Value> = operation["parameters"].as_array().into_iter().flatten().collect();
    if !parameters.is_empty() {
        let _ = write!(out, "<table><caption>Parameters</caption><tr><th>Name</th><th>In</th><th>Type</th><th>Meaning</th></tr>");
        for one in parameters {
            let required = if one["required"] == true { " (required)" } else { "" };
            let _ = write!(
                out,
                "<tr><td><code>{}</code>{required}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                text(&one["name"]),
                text(&one["in"]),
                kind(&one["schema"]),
                text(&one["description"])
            );
        }
        let _ = write!(out, "</table>");
    }
    for (media, content) in object(&operation["requestBody"]["content"]) {
        let _ = write!(out, "<h4>Request: {} {}</h4>", escaped(media), kind(&content["schema"]));
        example(out, content);
    }
    let _ = write!(out, "<table><caption>Answers</caption><tr><th>Status</th><th>Meaning</th><th>Body</th></tr>");
    for (status, response) in object(&operation["responses"]) {
        let bodies: Vec<_> =
            object(&response["content"]).map(|(media, content)| format!("{} {}", escaped(media), kind(&content["schema"]))).collect();
        let meaning = text(&response["description"]).replace("; `", "<br>`");
        let _ = write!(out, "<tr><td>{}</td><td>{meaning}</td><td>{}</td></tr>", escaped(status), bodies.join(", "));
    }
    let _ = write!(out, "</table>");
    for (status, response) in object(&operation["responses"]).filter(|(status, _)| status.starts_with('2')) {
        for content in object(&response["content"]).map(|(_, content)| content).filter(|content| content.get("example").is_some()) {
            let _ = write!(out, "<h4>Example of {}</h4>", escaped(status));
            example(out, content);
        }
    }
    let _ = write!(out, "</section>");
}

fn example(out: &mut String, content: &Value) {
    if let Some(example) = content.get("example") {
        let _ = write!(out, "<pre>{}</pre>", pretty(example));
    }
}

/// The name of a schema with a link to it, or its type.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|target| target.rsplit('/').next()) {
        let name = escaped(name);
        return format!("<a href=\"#schema-{name}\">{name}</a>");
    }
    let words: Vec<_> = schema["enum"].as_array().into_iter().flatten().map(text).collect();
    match &schema["type"] {
        _ if !words.is_empty() => words.join(" | "),
        Value::Array(kinds) => kinds.iter().map(text).collect::<Vec<_>>().join(" | "),
        kind => text(kind),
    }
}

fn object(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter).map(|(name, value)| (name.as_str(), value))
}

fn text(value: &Value) -> String {
    value.as_str().map(escaped).unwrap_or_default()
}

fn pretty(value: &Value) -> String {
    escaped(&serde_json::to_string_pretty(value).unwrap_or_default())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

pub(super) fn html(page: String) -> Response {
    let headers = [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, POLICY)];
    (headers, [(header::X_CONTENT_TYPE_OPTIONS, "nosniff"), (header::REFERRER_POLICY, "no-referrer")], page).into_response()
}

pub(super) async fn style() -> Response {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")], STYLE).into_response()
}
