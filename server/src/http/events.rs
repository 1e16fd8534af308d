//! The stream of events.

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response, Sse, sse},
};
use berth_api as api;
use futures_util::StreamExt;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Api,
    error::{Error, Failure},
    extract::Query,
};
use crate::{
    domain::{Caller, EventKind, Refusal},
    service::Told,
};

/// A comment goes out so often, so that nobody on the way takes the stream for dead.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// A stream ends after this, and its client comes again: who he is and what he may see is looked at anew.
const LONGEST: Duration = Duration::from_secs(600);
/// How soon a client comes again.
const RETRY: Duration = Duration::from_secs(1);
const LONGEST_SUBJECT: usize = 256;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    /// Only what is about this user, profile or image.
    subject: Option<String>,
    /// Go on after this event; where the header `Last-Event-ID` cannot be set. The header counts when both are there.
    #[param(minimum = 0)]
    last_event_id: Option<i64>,
}

/// Tells what changes, as server-sent events: name `kind`, id `id`, data an `Event`. The first one is `ready`, or `reset` when events after
/// `Last-Event-ID` are no longer kept (they are for 24 hours, and the last 20,000): then read again what you show. Who reads too slowly gets
/// `reset` too, and the stream ends. It ends after ten minutes in any case: come again with the last id, as browsers do. A user without a role
/// sees what is his.
#[utoipa::path(get, path = "/events", tag = "events",
    params(EventsQuery, ("Last-Event-ID" = Option<i64>, Header, description = "Go on after this event")),
    responses((status = 200, body = api::Event, content_type = "text/event-stream"), Failure))]
pub(super) async fn follow_events(
    State(api): State<Api>,
    caller: Caller,
    headers: HeaderMap,
    Query(query): Query<EventsQuery>,
) -> Result<Response, Error> {
    let last = last_event_id(&headers)?.or(query.last_event_id);
    if query.subject.as_ref().is_some_and(|name| name.len() > LONGEST_SUBJECT || name.contains('\0')) {
        return Err(invalid("invalid_query", "subject has at most 256 bytes, and no zero byte"));
    }
    let told = api.service.events(&caller, query.subject, last).await?;
    let until = async move {
        let _ = tokio::time::timeout(LONGEST, api.soft.cancelled()).await;
    };
    let events = told.map(|told| Ok::<_, Infallible>(event(told))).take_until(Box::pin(until));
    let stream = Sse::new(events).keep_alive(sse::KeepAlive::new().interval(HEARTBEAT));
    // Proxies that buffer would hold events back.
    Ok(([(header::CACHE_CONTROL, "no-store"), (header::HeaderName::from_static("x-accel-buffering"), "no")], stream).into_response())
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<i64>, Error> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    // What a browser sends before it has seen an id.
    if value.is_empty() {
        return Ok(None);
    }
    let number = value.to_str().ok().and_then(|text| text.parse::<u64>().ok()).and_then(|number| i64::try_from(number).ok());
    number.map(Some).ok_or_else(|| invalid("invalid_event_id", "Last-Event-ID is not the id of an event"))
}

fn event(told: Told) -> sse::Event {
    let marker = |id, kind| api::Event { id, kind, at: 0, subject: String::new(), state: None, operation: None };
    let event = match told {
        Told::Ready(id) => marker(id, api::EventKind::Ready),
        Told::Reset(id) => marker(id, api::EventKind::Reset),
        Told::Event(event) => api::Event {
            id: event.seq,
            kind: kind(event.kind),
            at: event.at,
            subject: event.subject.clone(),
            state: event.state.clone(),
            operation: event.operation.map(|id| id.0),
        },
    };
    // Strings and numbers: serialising them cannot fail, and their JSON holds no line break.
    let data = serde_json::to_string(&event).unwrap_or_default();
    sse::Event::default().id(event.id.to_string()).event(event.kind.as_str()).retry(RETRY).data(data)
}

fn kind(kind: EventKind) -> api::EventKind {
    match kind {
        EventKind::BerthChanged => api::EventKind::BerthChanged,
        EventKind::BerthRemoved => api::EventKind::BerthRemoved,
        EventKind::OperationChanged => api::EventKind::OperationChanged,
        EventKind::ProfileChanged => api::EventKind::ProfileChanged,
        EventKind::ProfileRemoved => api::EventKind::ProfileRemoved,
        EventKind::ImageChanged => api::EventKind::ImageChanged,
        EventKind::RequestChanged => api::EventKind::RequestChanged,
        EventKind::RuleChanged => api::EventKind::RuleChanged,
        EventKind::AccountChanged => api::EventKind::AccountChanged,
    }
}

fn invalid(code: &str, detail: &str) -> Error {
    Error::new(StatusCode::BAD_REQUEST, Refusal::Invalid, code, detail)
}
