//! The gateway: every API of `prima serve` on one address, with workers behind it.

mod client;
mod events;
mod jobs;
mod live;
mod proxy;
mod refusal;
mod wanted;

use crate::accounts::{Accounts, Words};
use crate::bus::Bus;
use crate::error::Result;
use crate::job::Class;
use crate::metrics::{self, GatewayMetrics};
use crate::registry::Registry;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use client::Client;
use jobs::Waiters;
use live::Seats;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

/// How a gateway is run.
#[derive(Clone, Debug)]
pub struct GatewayOptions {
    /// Wanted from clients as `prima serve` wants it.
    pub token: Option<String>,
    /// Whose keys are let in beside the token. Without both, everybody is.
    pub accounts: Option<Accounts>,
    /// What prompts may not have.
    pub words: Words,
    /// Where `GET /metrics` is answered; nowhere else.
    pub metrics: Option<SocketAddr>,
    /// Bytes of a request's body.
    pub body_bytes: usize,
}

impl Default for GatewayOptions {
    fn default() -> Self {
        Self {
            token: None,
            accounts: None,
            words: Words::default(),
            metrics: None,
            body_bytes: 64 << 20,
        }
    }
}

/// What all handlers share; clones share it.
#[derive(Clone)]
struct App {
    bus: Bus,
    registry: Registry,
    waiters: Waiters,
    metrics: Arc<GatewayMetrics>,
    seats: Seats,
    http: reqwest::Client,
    options: Arc<GatewayOptions>,
}

/// Serves on `listener` until `shutdown`. Jobs that were accepted stay in the queue.
pub async fn gateway(
    listener: TcpListener,
    bus: Bus,
    options: GatewayOptions,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let registry = Registry::default();
    let waiters = Waiters::default();
    let app = App {
        bus: bus.clone(),
        registry: registry.clone(),
        waiters: waiters.clone(),
        metrics: Arc::new(GatewayMetrics::new()?),
        seats: Seats::default(),
        http: reqwest::Client::builder().no_proxy().build().unwrap_or_default(),
        options: Arc::new(options),
    };
    tokio::spawn(registry.follow(bus.clone()));
    tokio::spawn(waiters.follow(bus.clone(), app.options.accounts.clone()));
    if let Some(accounts) = app.options.accounts.clone() {
        tokio::spawn(jobs::settle_old(bus, accounts));
    }
    if let Some(address) = app.options.metrics {
        let app = app.clone();
        let listener = TcpListener::bind(address).await?;
        tokio::spawn(metrics::serve(listener, move || measured(app.clone())));
    }
    let router = Router::new()
        .route("/live", any(live::connect))
        .route("/ws", any(live::connect))
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/jobs", get(jobs::list))
        .route("/jobs/{id}", get(jobs::one).delete(jobs::cancel))
        .route("/jobs/{id}/events", get(events::stream))
        .route("/jobs/{id}/answer", get(jobs::answer))
        .fallback(all_else)
        .layer(axum::middleware::from_fn(refusal::shape))
        .with_state(app)
        .into_make_service_with_connect_info::<SocketAddr>();
    Ok(axum::serve(listener, router).with_graceful_shutdown(shutdown).await?)
}

/// What `GET /metrics` says now; where NATS is away, what it said last.
async fn measured(app: App) -> String {
    if let (Ok(places), Ok(dead)) = (app.bus.places().await, app.bus.dead().await) {
        let jobs = |class: Class| {
            places
                .iter()
                .filter(|(place, _)| place.class == class)
                .map(|(_, jobs)| jobs)
                .sum()
        };
        let queued = Class::ALL.map(|class| (class, jobs(class)));
        let clients: HashSet<&String> = places.iter().map(|(place, _)| &place.lane).collect();
        app.metrics.set_queue(&queued, clients.len(), dead);
    }
    let present = app.registry.present();
    let count = |is: fn(&crate::registry::Presence) -> bool| present.iter().filter(|worker| is(worker)).count();
    app.metrics.set_workers(&[
        ("ready", count(|worker| worker.ready && !worker.draining)),
        ("loading", count(|worker| !worker.ready && !worker.draining)),
        ("draining", count(|worker| worker.draining)),
    ]);
    app.metrics.text()
}

async fn ready(State(app): State<App>) -> Response {
    if app.registry.for_session(None, &[]).is_some() {
        "ready".into_response()
    } else {
        refusal::unavailable("no worker is ready").into_response()
    }
}

/// What is painted is queued; the rest a worker answers at once.
async fn all_else(State(app): State<App>, client: Client, request: Request) -> Response {
    let answered = if request.method() == Method::POST && paints(request.uri().path()) {
        jobs::submit(&app, &client, request).await
    } else {
        proxy::pass(&app, &client, request).await
    };
    answered.unwrap_or_else(IntoResponse::into_response)
}

/// Does a POST to this path answer with pictures? A graph of ComfyUI's is answered before it is painted, and its worker is asked
/// for its pictures later.
fn paints(path: &str) -> bool {
    const PATHS: [&str; 8] = [
        "/v1/images/generations",
        "/v1/images/edits",
        "/v1/predictions",
        "/predictions",
        "/sdapi/v1/txt2img",
        "/sdapi/v1/img2img",
        "/sdapi/v1/extra-single-image",
        "/sdapi/v1/extra-batch-images",
    ];
    PATHS.contains(&path)
}
