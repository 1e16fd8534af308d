//! The dashboard: its files are in the program. Everything it does goes through the API, so there is nothing here to authorise.

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use rust_embed::{EmbeddedFile, RustEmbed};

use super::error;

/// What `web/` was built to, or one page that says that it was not.
#[derive(RustEmbed)]
#[folder = "../web/dist"]
struct Files;

/// Nothing inline, nothing from elsewhere; no page of another may hold ours. The hash is that of nothing: the terminal makes an empty style
/// sheet, and writes into it by script.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='; img-src 'self' data:; font-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
/// Files below have a hash of their content in their name.
const HASHED: &str = "assets/";
/// First segments of the paths that are pages; the program in the browser knows the rest.
const PAGES: &[&str] =
    &["", "activity", "audit", "berths", "groups", "images", "link", "profiles", "requests", "settings", "sign-in", "terminal", "users"];

/// A file, a page, or nothing.
pub(super) async fn serve(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    if method != Method::GET && method != Method::HEAD {
        return error::no_such_path(uri).await.into_response();
    }
    let path = uri.path().trim_start_matches('/');
    let name = if is_page(path) { "index.html" } else { path };
    match (Files::get(name), name) {
        (Some(file), name) if !is_encoded(name) => answer(name, &file, &headers),
        _ => error::no_such_path(uri).await.into_response(),
    }
}

fn is_page(path: &str) -> bool {
    let mut segments = path.split('/');
    PAGES.contains(&segments.next().unwrap_or_default()) && segments.clone().count() <= 2
}

fn is_encoded(name: &str) -> bool {
    ENCODINGS.iter().any(|(_, suffix)| name.ends_with(suffix))
}

/// What a file may lie beside, and how that is named.
const ENCODINGS: [(&str, &str); 2] = [("br", ".br"), ("gzip", ".gz")];

fn answer(name: &str, plain: &EmbeddedFile, asked: &HeaderMap) -> Response {
    let accepted = asked.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let encoded = ENCODINGS.iter().filter(|(encoding, _)| accepts(accepted, encoding));
    let encoded = encoded.filter_map(|(encoding, suffix)| Some((*encoding, Files::get(&format!("{name}{suffix}"))?))).next();
    let (encoding, file) = match &encoded {
        Some((encoding, file)) => (Some(*encoding), file),
        None => (None, plain),
    };
    let hash: String = file.metadata.sha256_hash()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    let tag = format!("\"{hash}\"");
    let known = asked.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let known = known.is_some_and(|list| list.split(',').any(|one| one.trim().trim_start_matches("W/") == tag));
    let mut response = if known { StatusCode::NOT_MODIFIED.into_response() } else { file.data.clone().into_owned().into_response() };
    let caching = if name.starts_with(HASHED) { "public, max-age=31536000, immutable" } else { "no-cache" };
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    set(header::CONTENT_TYPE, content_type(name));
    set(header::CACHE_CONTROL, caching);
    set(header::ETAG, &tag);
    set(header::VARY, "accept-encoding");
    set(header::CONTENT_SECURITY_POLICY, POLICY);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::REFERRER_POLICY, "no-referrer");
    set(header::X_FRAME_OPTIONS, "DENY");
    set(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    if let Some(encoding) = encoding {
        set(header::CONTENT_ENCODING, encoding);
    }
    response
}

/// Whether a list like `gzip, br;q=0` has it.
fn accepts(list: &str, encoding: &str) -> bool {
    list.split(',').any(|one| {
        let mut parts = one.split(';').map(str::trim);
        parts.next().is_some_and(|name| name.eq_ignore_ascii_case(encoding)) && !parts.any(|q| matches!(q, "q=0" | "q=0.0" | "q=0.000"))
    })
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" => "application/json",
        "svg" => "image/svg+xml",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn get(path: &str, headers: &[(HeaderName, &str)]) -> Response {
        let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect();
        serve(Method::GET, path.parse().unwrap(), headers).await
    }

    #[tokio::test]
    async fn pages_get_the_program_and_other_paths_nothing() {
        for path in ["/", "/berths", "/berths/alice", "/berths/alice/logs", "/sign-in", "/berths/%3Cb%3E"] {
            let response = get(path, &[]).await;
            assert_eq!(response.status(), 200, "{path}");
            assert_eq!(response.headers()[header::CONTENT_TYPE], "text/html; charset=utf-8", "{path}");
            assert_eq!(response.headers()[header::CACHE_CONTROL], "no-cache", "{path}");
        }
        for path in ["/x", "/api/v1/x", "/assets", "/assets/x.js", "/berths/a/b/c", "/../Cargo.toml", "/index.html.br", "/berthsx"] {
            let response = get(path, &[]).await;
            assert_eq!(response.status(), 404, "{path}");
            assert_eq!(response.headers()[header::CONTENT_TYPE], berth_api::PROBLEM_JSON, "{path}");
        }
        assert_eq!(serve(Method::POST, "/".parse().unwrap(), HeaderMap::new()).await.status(), 404);
    }

    #[tokio::test]
    async fn a_page_that_is_known_is_not_sent_again_and_none_may_run_what_stands_in_it() {
        let response = get("/", &[]).await;
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        let tag = response.headers()[header::ETAG].to_str().unwrap().to_owned();
        let again = get("/berths", &[(header::IF_NONE_MATCH, &format!("\"x\", {tag}"))]).await;
        assert_eq!(again.status(), 304);
        assert_eq!(again.headers()[header::CONTENT_SECURITY_POLICY], policy.as_str());
        assert_eq!(get("/", &[(header::IF_NONE_MATCH, "\"x\"")]).await.status(), 200);
    }

    #[test]
    fn encodings_that_are_refused_are_not_sent() {
        assert!(accepts("gzip, deflate, br", "br") && accepts("GZIP;q=0.5", "gzip"));
        assert!(!accepts("br;q=0, gzip", "br") && !accepts("", "br") && !accepts("brotli", "br"));
    }
}
