//! Prometheus metrics, the request log and its spans.

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use prima_engine::Occupancy;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder, core::Collector,
};
use std::sync::Arc;
use std::time::Instant;

/// Everything that is counted.
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    seconds: HistogramVec,
    pub pictures: IntCounterVec,
    pub frames_sent: IntCounter,
    pub frames_replaced: IntCounter,
    pub revisions_dropped: IntCounter,
    pub revisions_cancelled: IntCounter,
    pub closed: IntCounterVec,
    pub paint_seconds: HistogramVec,
    sessions: IntGauge,
    jobs: IntGauge,
    units_waiting: IntGauge,
    resident_bytes: IntGauge,
}

impl Metrics {
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let r = &registry;
        let counters = |name, help, labels: &[&str]| registered(r, IntCounterVec::new(Opts::new(name, help), labels));
        let counter = |name, help| registered(r, IntCounter::new(name, help));
        let gauge = |name, help| registered(r, IntGauge::new(name, help));
        let buckets = vec![0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
        let histogram = |name, help, labels: &[&str]| {
            let options = HistogramOpts::new(name, help).buckets(buckets.clone());
            registered(r, HistogramVec::new(options, labels))
        };
        Ok(Self {
            requests: counters(
                "prima_http_requests_total",
                "HTTP requests by route and status.",
                &["route", "status"],
            )?,
            seconds: histogram(
                "prima_http_request_seconds",
                "Time to an HTTP response's head.",
                &["route"],
            )?,
            pictures: counters(
                "prima_pictures_total",
                "Pictures painted, by the API that asked.",
                &["api"],
            )?,
            frames_sent: counter("prima_live_frames_total", "Frames sent to live sessions.")?,
            frames_replaced: counter(
                "prima_live_frames_replaced_total",
                "Frames replaced by newer ones before they were sent.",
            )?,
            revisions_dropped: counter("prima_live_revisions_dropped_total", "Revisions that were never begun.")?,
            revisions_cancelled: counter("prima_live_revisions_cancelled_total", "Revisions begun and given up.")?,
            closed: counters(
                "prima_live_closed_total",
                "Live sessions closed by the server, by close code.",
                &["code"],
            )?,
            paint_seconds: histogram("prima_paint_seconds", "Time of one unit in the engine.", &["api"])?,
            sessions: gauge("prima_live_sessions", "Live sessions open.")?,
            jobs: gauge("prima_jobs", "API requests waiting or being painted.")?,
            units_waiting: gauge("prima_units_waiting", "Units of work not begun.")?,
            resident_bytes: gauge("prima_resident_memory_bytes", "Resident memory of the process.")?,
            registry,
        })
    }

    /// All of them, in Prometheus' text format.
    pub fn text(&self, occupancy: Occupancy) -> String {
        self.sessions.set(occupancy.sessions as i64);
        self.jobs.set(occupancy.jobs as i64);
        self.units_waiting.set(occupancy.waiting as i64);
        self.resident_bytes.set(resident_bytes().unwrap_or(0) as i64);
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap_or_default()
    }
}

fn registered<M: Collector + Clone + 'static>(
    registry: &Registry,
    metric: prometheus::Result<M>,
) -> prometheus::Result<M> {
    let metric = metric?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// From `/proc` where there is one.
pub(crate) fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}

/// Counts requests by their route, not their path: strangers cannot make up labels.
pub(crate) async fn count(State(metrics): State<Arc<Metrics>>, request: Request, next: Next) -> Response {
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("page", |p| p.as_str())
        .to_owned();
    let began = Instant::now();
    let response = next.run(request).await;
    let status = response.status();
    metrics
        .requests
        .with_label_values(&[route.as_str(), status.as_str()])
        .inc();
    metrics
        .seconds
        .with_label_values(&[route.as_str()])
        .observe(began.elapsed().as_secs_f64());
    tracing::debug!(
        route,
        status = status.as_u16(),
        ms = began.elapsed().as_millis() as u64,
        "request"
    );
    response
}

/// Without the query, which may hold the token.
pub(crate) fn span(request: &Request) -> tracing::Span {
    tracing::debug_span!("http", method = %request.method(), path = request.uri().path())
}
