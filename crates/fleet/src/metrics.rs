//! What operators watch, in Prometheus' text format, each thing counted where it happens: sums over gateways and workers are right.
//!
//! They lie on an address of their own, which clients do not reach.

use crate::error::Result;
use crate::job::Class;
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse as _;
use axum::routing::get;
use prometheus::core::Collector;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use tokio::net::TcpListener;

/// From a picture in a twentieth of a second to an hour in a queue.
const BUCKETS_S: [f64; 14] = [
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 1800.0, 3600.0,
];

pub(crate) struct GatewayMetrics {
    registry: Registry,
    pub accepted: IntCounterVec,
    pub refused: IntCounterVec,
    pub answer_seconds: HistogramVec,
    pub sessions: IntGauge,
    pub sessions_moved: IntCounter,
    queued: IntGaugeVec,
    lanes: IntGauge,
    dead: IntGauge,
    workers: IntGaugeVec,
}

impl GatewayMetrics {
    pub fn new() -> Result<Self> {
        let r = Registry::new();
        Ok(Self {
            accepted: counters(&r, "prima_gateway_jobs_accepted_total", "Jobs accepted.", &["class"])?,
            refused: counters(
                &r,
                "prima_gateway_refused_total",
                "Requests refused because of their key, its limits or their words.",
                &["reason"],
            )?,
            answer_seconds: histogram(
                &r,
                "prima_gateway_answer_seconds",
                "From a job that is waited for to its answer.",
                &["class"],
            )?,
            sessions: registered(&r, IntGauge::new("prima_gateway_live_sessions", "Live sessions open."))?,
            sessions_moved: registered(
                &r,
                IntCounter::new(
                    "prima_gateway_live_sessions_moved_total",
                    "Live sessions that lost their worker.",
                ),
            )?,
            queued: gauges(
                &r,
                "prima_queue_jobs",
                "Jobs in the queue, those that are being painted among them; the same at each gateway.",
                &["class"],
            )?,
            lanes: registered(
                &r,
                IntGauge::new(
                    "prima_queue_clients",
                    "Clients that have jobs in the queue; the same at each gateway.",
                ),
            )?,
            dead: registered(
                &r,
                IntGauge::new(
                    "prima_queue_dead_letters",
                    "Jobs given up and still kept; the same at each gateway.",
                ),
            )?,
            workers: gauges(
                &r,
                "prima_fleet_workers",
                "Workers as this gateway sees them.",
                &["state"],
            )?,
            registry: r,
        })
    }

    /// `queued`: jobs of each class; `clients`: those whose they are.
    pub fn set_queue(&self, queued: &[(Class, usize)], clients: usize, dead: u64) {
        for (class, jobs) in queued {
            self.queued.with_label_values(&[class.name()]).set(*jobs as i64);
        }
        self.lanes.set(clients as i64);
        self.dead.set(dead as i64);
    }

    /// Of each state.
    pub fn set_workers(&self, counts: &[(&str, usize)]) {
        for (state, workers) in counts {
            self.workers.with_label_values(&[*state]).set(*workers as i64);
        }
    }

    pub fn text(&self) -> String {
        text(&self.registry)
    }
}

pub(crate) struct WorkerMetrics {
    registry: Registry,
    pub ended: IntCounterVec,
    pub wait_seconds: HistogramVec,
    pub work_seconds: HistogramVec,
    pub redelivered: IntCounter,
    pub given_back: IntCounter,
    pub dead: IntCounter,
    pub at_work: IntGauge,
}

impl WorkerMetrics {
    pub fn new() -> Result<Self> {
        let r = Registry::new();
        Ok(Self {
            ended: counters(
                &r,
                "prima_worker_jobs_ended_total",
                "Jobs that this worker brought to their end.",
                &["class", "state"],
            )?,
            wait_seconds: histogram(
                &r,
                "prima_worker_job_wait_seconds",
                "From a job's acceptance to its begin.",
                &["class"],
            )?,
            work_seconds: histogram(
                &r,
                "prima_worker_job_seconds",
                "From a job's begin to its end.",
                &["class"],
            )?,
            redelivered: registered(
                &r,
                IntCounter::new(
                    "prima_worker_jobs_redelivered_total",
                    "Jobs taken that another worker had begun.",
                ),
            )?,
            given_back: registered(
                &r,
                IntCounter::new(
                    "prima_worker_jobs_given_back_total",
                    "Jobs that went back to the queue.",
                ),
            )?,
            dead: registered(
                &r,
                IntCounter::new("prima_worker_dead_letters_total", "Jobs given up after too many tries."),
            )?,
            at_work: registered(&r, IntGauge::new("prima_worker_jobs", "Jobs that this worker is at."))?,
            registry: r,
        })
    }

    pub fn text(&self) -> String {
        text(&self.registry)
    }
}

fn text(registry: &Registry) -> String {
    TextEncoder::new()
        .encode_to_string(&registry.gather())
        .unwrap_or_default()
}

fn counters(r: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec> {
    registered(r, IntCounterVec::new(Opts::new(name, help), labels))
}

fn gauges(r: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec> {
    registered(r, IntGaugeVec::new(Opts::new(name, help), labels))
}

fn histogram(r: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<HistogramVec> {
    let options = HistogramOpts::new(name, help).buckets(BUCKETS_S.to_vec());
    registered(r, HistogramVec::new(options, labels))
}

fn registered<M: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<M>) -> Result<M> {
    let metric = metric?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// Answers `GET /metrics` with what `text` says, until the task is dropped.
pub(crate) async fn serve<F>(listener: TcpListener, text: impl Fn() -> F + Clone + Send + Sync + 'static) -> Result<()>
where
    F: Future<Output = String> + Send + 'static,
{
    let answer = move || {
        let text = text();
        async { ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text.await).into_response() }
    };
    Ok(axum::serve(listener, Router::new().route("/metrics", get(answer))).await?)
}
