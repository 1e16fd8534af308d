//! Metrics in the text format of OpenMetrics. Latencies are counted as requests pass; all else is read when somebody scrapes. Labels are few:
//! routes as they are written, classes of statuses, and the names of users whose berths are up.

use std::{sync::atomic::AtomicU64, time::Instant};

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    http::header,
    middleware::Next,
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use super::{
    Api,
    error::{Error, Failure},
};
use crate::{
    domain::{Caller, Sample},
    service::Figures,
};

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Seconds.
const BUCKETS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5, 10.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    method: String,
    route: String,
    status: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UserLabel {
    user: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: String,
}

/// What is counted as it happens.
#[derive(Clone)]
pub(super) struct Metrics {
    requests: Family<RouteLabels, Histogram, fn() -> Histogram>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { requests: Family::new_with_constructor(|| Histogram::new(BUCKETS)) }
    }
}

/// Counts a request: how long until its answer began.
pub(super) async fn measure(State(api): State<Api>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    // Anybody may invent methods.
    let method = match request.method().as_str() {
        known @ ("GET" | "POST" | "PUT" | "PATCH" | "DELETE" | "HEAD") => known,
        _ => "other",
    };
    let method = method.to_owned();
    let response = next.run(request).await;
    let status = format!("{}xx", response.status().as_u16() / 100);
    api.metrics.requests.get_or_create(&RouteLabels { method, route, status }).observe(started.elapsed().as_secs_f64());
    response
}

/// Shows metrics for a monitoring system, in the text format of OpenMetrics.
#[utoipa::path(get, path = "/metrics", tag = "host",
    responses((status = 200, body = String, content_type = "application/openmetrics-text"), Failure))]
pub(super) async fn read_metrics(State(api): State<Api>, caller: Caller) -> Result<Response, Error> {
    let figures = api.service.figures_for(&caller).await?;
    Ok(answer(&api, figures))
}

/// The same for whoever reaches the listener, which the configuration opens on a loopback address.
pub fn open_metrics(api: Api) -> Router {
    let show = |State(api): State<Api>| async move {
        let figures = api.service.figures().await?;
        Ok::<_, Error>(answer(&api, figures))
    };
    Router::new().route("/metrics", get(show)).fallback(super::error::no_such_path).with_state(api)
}

fn answer(api: &Api, figures: Figures) -> Response {
    let mut registry = Registry::default();
    registry.register("berth_http_request_seconds", "Time until the answer to a request began", api.metrics.requests.clone());
    fill(&mut registry, &figures);
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = encode(&mut text, &registry);
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response()
}

fn fill(registry: &mut Registry, figures: &Figures) {
    let now = figures.now;
    let seconds = |since: i64| (now - since).max(0) as f64 / 1000.0;
    let counts = &figures.counts;
    gauge(registry, "berth_node_up", "1 while berth-node answers", f64::from(u8::from(figures.usage.is_some())));
    states(registry, "berth_berths", "Berths by state", &counts.berths);
    states(registry, "berth_operations_open", "Operations that have not ended", &counts.operations);
    gauge(registry, "berth_reconcile_queue", "Berths for which there is something to do", counts.due as f64);
    gauge(registry, "berth_reconcile_lag_seconds", "How long the oldest of them has waited", counts.due_since.map_or(0.0, seconds));
    gauge(registry, "berth_reconcile_retries", "Pieces of work that wait to be tried again", figures.reconciler.waiting as f64);
    gauge(registry, "berth_reconcile_pass_age_seconds", "Time since the reconciler last looked", seconds(figures.reconciler.at));
    counter(registry, "berth_audit_calls", "Calls of users' Dockers that were stored", counts.calls);
    gauge(registry, "berth_audit_calls_bytes", "What the calls that are kept occupy", counts.call_bytes as f64);
    counter(registry, "berth_events", "Events that were told", counts.events);
    gauge(registry, "berth_event_streams", "Open streams of events", f64::from(figures.streams));
    gauge(registry, "berth_database_bytes", "Size of the database", counts.database_bytes as f64);
    for (name, help, of) in USAGE_GAUGES {
        let family = Family::<UserLabel, Gauge<f64, AtomicU64>>::default();
        for sample in figures.usage.iter().flatten() {
            family.get_or_create(&UserLabel { user: sample.user.clone() }).set(of(sample));
        }
        registry.register(*name, *help, family);
    }
    for (name, help, of) in USAGE_COUNTERS {
        let family = Family::<UserLabel, Counter<f64, AtomicU64>>::default();
        for sample in figures.usage.iter().flatten() {
            family.get_or_create(&UserLabel { user: sample.user.clone() }).inc_by(of(sample));
        }
        registry.register(*name, *help, family);
    }
}

type Of = fn(&Sample) -> f64;

const USAGE_GAUGES: &[(&str, &str, Of)] = &[
    ("berth_usage_memory_bytes", "Memory in use", |one| one.usage.memory_bytes as f64),
    ("berth_usage_swap_bytes", "Swap in use", |one| one.usage.swap_bytes as f64),
    ("berth_usage_pids", "Processes and threads", |one| one.usage.pids as f64),
    ("berth_usage_disk_bytes", "Taken on the host by the berth's disk", |one| one.usage.disk_bytes as f64),
];

/// Since the berth's start.
const USAGE_COUNTERS: &[(&str, &str, Of)] = &[
    ("berth_usage_cpu_seconds", "CPU time", |one| one.usage.cpu_usec as f64 / 1e6),
    ("berth_usage_cpu_throttled_seconds", "Time in which the quota of CPU held it back", |one| one.usage.throttled_usec as f64 / 1e6),
    ("berth_usage_oom_kills", "Processes killed because the memory ran out", |one| one.usage.oom_kills as f64),
    ("berth_usage_io_read_bytes", "Read from block devices", |one| one.usage.io.read_bytes as f64),
    ("berth_usage_io_write_bytes", "Written to block devices", |one| one.usage.io.write_bytes as f64),
    ("berth_usage_network_egress_bytes", "Sent", |one| one.usage.network.egress_bytes as f64),
    ("berth_usage_network_ingress_bytes", "Received", |one| one.usage.network.ingress_bytes as f64),
];

fn gauge(registry: &mut Registry, name: &str, help: &str, value: f64) {
    let gauge = Gauge::<f64, AtomicU64>::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}

fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let counter = Counter::<u64>::default();
    counter.inc_by(value);
    registry.register(name, help, counter);
}

fn states(registry: &mut Registry, name: &str, help: &str, counts: &[(String, u64)]) {
    let family = Family::<StateLabel, Gauge<f64, AtomicU64>>::default();
    for (state, count) in counts {
        family.get_or_create(&StateLabel { state: state.clone() }).set(*count as f64);
    }
    registry.register(name, help, family);
}
