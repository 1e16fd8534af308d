//! The API: extract, call one service function, map. No SQL and no rule of who may do what.

#![allow(unused_qualifications, reason = "utoipa's macros write them")]

mod accounts;
mod admins;
mod archives;
mod audit;
mod berths;
mod caller;
pub mod codes;
mod convert;
mod docs;
mod document;
mod error;
mod etag;
mod events;
mod extract;
mod host;
mod identity;
mod images;
mod inside;
mod keyed;
mod limits;
mod listener;
mod listing;
mod local;
mod many;
mod metrics;
mod middleware;
mod operations;
mod policy;
mod profiles;
mod requests;
mod rules;
mod security;
mod sessions;
mod streams;
mod suspension;
mod tcp;
mod terminal;
mod tls;
mod tokens;
mod usage;
mod web;

use std::sync::Arc;

use axum::{
    Router,
    http::{StatusCode, header},
    routing::get,
};
use berth_api::PREFIX;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_http::{catch_panic::CatchPanicLayer, csrf::CsrfLayer};
use utoipa::{
    Modify, OpenApi,
    openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
};
use utoipa_axum::{router::OpenApiRouter, routes};

pub use listener::{PeerUid, Remote, listen, serve};
pub use metrics::open_metrics;
pub use tcp::{Front, serve_tcp};
pub use tls::{Certificate, Error as TlsError, watch};

use crate::{config::Listen, service::Service};
use identity::Identity;
use metrics::Metrics;

/// What handlers hold.
#[derive(Clone)]
pub struct Api {
    service: Arc<Service>,
    identity: Arc<Identity>,
    clients: Arc<security::Clients>,
    /// Exec streams live here after their request has been answered.
    tasks: TaskTracker,
    hard: CancellationToken,
    /// Ends long polls.
    soft: CancellationToken,
    metrics: Arc<Metrics>,
}

impl Api {
    pub fn new(service: Arc<Service>, tasks: TaskTracker, soft: CancellationToken, hard: CancellationToken) -> Self {
        let clients = Arc::new(security::Clients::new(&Listen::default()));
        Self { service, identity: Arc::default(), clients, tasks, hard, soft, metrics: Arc::default() }
    }

    /// With the names and proxies of the configuration.
    pub fn listening(self, listen: &Listen) -> Self {
        Self { clients: Arc::new(security::Clients::new(listen)), ..self }
    }
}

/// How a caller says who he is; the unix socket needs none of these.
struct Schemes;

impl Modify for Schemes {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let bearer = |format: &str, what: &str| {
            SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format(format).description(Some(what)).build())
        };
        let cookie = ApiKeyValue::with_description(caller::COOKIE, "The session of a browser");
        components.add_security_scheme("session", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
        components.add_security_scheme("token", bearer("berth_…", "An API token"));
        components.add_security_scheme("access_token", bearer("JWT", "What POST /tokens/exchange gives for an API token"));
    }
}

#[derive(OpenApi)]
#[openapi(modifiers(&Schemes), security(("session" = []), ("token" = []), ("access_token" = [])), info(
    title = "Berth",
    description = "A Docker of his own for every user of a shared host. Errors are application/problem+json with a stable code; lists page by cursor; long work answers 202 with an operation."
))]
struct Document;

fn documented() -> OpenApiRouter<Api> {
    let v1 = OpenApiRouter::new()
        .routes(routes!(berths::list_berths, berths::create_berth))
        .routes(routes!(berths::show_berth, berths::change_berth, berths::delete_berth))
        .routes(routes!(berths::preview_change))
        .routes(routes!(usage::list_usage))
        .routes(routes!(usage::show_usage))
        .routes(routes!(berths::start_berth))
        .routes(routes!(berths::stop_berth))
        .routes(routes!(berths::restart_berth))
        .routes(routes!(berths::rebuild_berth))
        .routes(routes!(suspension::suspend_berth))
        .routes(routes!(suspension::resume_berth))
        .routes(routes!(suspension::suspend_berths))
        .routes(routes!(suspension::resume_berths))
        .routes(routes!(terminal::open_terminal))
        .routes(routes!(streams::exec_berth))
        .routes(routes!(streams::read_logs))
        .routes(routes!(inside::show_inside))
        .routes(routes!(inside::prune_berth))
        .routes(routes!(profiles::list_profiles, profiles::create_profile))
        .routes(routes!(profiles::show_profile, profiles::change_profile, profiles::delete_profile))
        .routes(routes!(images::list_images, images::build_image))
        .routes(routes!(images::import_image, images::remove_image))
        .routes(routes!(images::pull_image))
        .routes(routes!(images::set_default_image))
        .routes(routes!(operations::list_operations))
        .routes(routes!(operations::show_operation))
        .routes(routes!(operations::wait_operation))
        .routes(routes!(operations::cancel_operation))
        .routes(routes!(audit::list_audit))
        .routes(routes!(events::follow_events))
        .routes(routes!(accounts::list_accounts))
        .routes(routes!(archives::list_archives))
        .routes(routes!(archives::remove_archive))
        .routes(routes!(archives::restore_berth))
        .routes(routes!(host::show_node))
        .routes(routes!(host::run_doctor))
        .routes(routes!(host::run_deep_doctor))
        .routes(routes!(host::show_user))
        .routes(routes!(sessions::show_me))
        .routes(routes!(sessions::create_session, sessions::list_sessions, sessions::revoke_sessions))
        .routes(routes!(sessions::create_link))
        .routes(routes!(sessions::revoke_session))
        .routes(routes!(admins::list_admins, admins::create_admin))
        .routes(routes!(admins::show_admin, admins::change_admin, admins::delete_admin))
        .routes(routes!(admins::set_password))
        .routes(routes!(tokens::list_tokens, tokens::create_token))
        .routes(routes!(tokens::exchange_token))
        .routes(routes!(tokens::rotate_keys))
        .routes(routes!(tokens::revoke_token))
        .routes(routes!(many::create_berths))
        .routes(routes!(many::change_berths))
        .routes(routes!(many::claim_berth))
        .routes(routes!(rules::list_rules, rules::create_rule))
        .routes(routes!(rules::change_rule, rules::delete_rule))
        .routes(routes!(rules::apply_rules))
        .routes(routes!(requests::list_requests, requests::create_request))
        .routes(routes!(requests::show_request))
        .routes(routes!(requests::approve_request))
        .routes(routes!(requests::deny_request))
        .routes(routes!(requests::cancel_request));
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(host::healthz))
        .routes(routes!(host::readyz))
        .routes(routes!(metrics::read_metrics))
        .nest(PREFIX, v1)
}

/// The OpenAPI document.
pub fn openapi() -> serde_json::Value {
    complete(documented().into_openapi())
}

fn complete(document: utoipa::openapi::OpenApi) -> serde_json::Value {
    // Strings and maps of them: serialising the document cannot fail.
    document::complete(serde_json::to_value(document).unwrap_or_default())
}

/// All routes.
pub fn router(api: Api) -> Router {
    let (router, document) = documented().split_for_parts();
    let router = router
        .layer(axum::middleware::from_fn(etag::weak))
        .layer(axum::middleware::from_fn_with_state(api.clone(), keyed::keyed))
        .layer(axum::middleware::from_fn_with_state(api.clone(), metrics::measure));
    let document = complete(document);
    let page: Arc<str> = docs::page(&document).into();
    let docs = move || {
        let page = page.to_string();
        async move { docs::html(page) }
    };
    let document: Arc<str> = document.to_string().into();
    let openapi = move || {
        let text = document.to_string();
        async move { ([(header::CONTENT_TYPE, "application/json")], text) }
    };
    router
        .route("/openapi.json", get(openapi.clone()))
        .route(&format!("{PREFIX}/openapi.json"), get(openapi))
        .route("/docs", get(docs))
        .route("/docs/style.css", get(docs::style))
        .fallback(web::serve)
        .method_not_allowed_fallback(error::no_such_method)
        .layer(CatchPanicLayer::custom(error::panicked))
        .layer(CsrfLayer::new().with_rejection_response(security::cross_site))
        .layer(axum::middleware::from_fn_with_state(api.clone(), security::guard))
        .layer(axum::middleware::from_fn(middleware::request))
        .with_state(api)
}

/// A list's page: what came, and where the next one begins.
fn paged<T, D>(mut rows: Vec<T>, limit: u32, key: impl Fn(&T) -> String, map: impl Fn(T) -> D) -> (Vec<D>, Option<String>) {
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = more.then(|| rows.last().map(key)).flatten();
    (rows.into_iter().map(map).collect(), next)
}

/// 202 with the operation.
type AcceptedResponse = (StatusCode, axum::Json<berth_api::Accepted>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_where_the_next_begins() {
        assert_eq!(paged(vec![1, 2, 3], 2, ToString::to_string, |n| n * 10), (vec![10, 20], Some("2".to_owned())));
        assert_eq!(paged(vec![1, 2], 2, ToString::to_string, |n| n), (vec![1, 2], None));
    }
}
