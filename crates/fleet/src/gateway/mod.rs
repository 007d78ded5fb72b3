//! The gateway: every API of `prima serve` on one address, with workers behind it.

mod client;
mod jobs;
mod live;
mod proxy;

use crate::bus::Bus;
use crate::error::Result;
use crate::registry::Registry;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use client::Client;
use jobs::Waiters;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

/// How a gateway is run.
#[derive(Clone, Debug)]
pub struct GatewayOptions {
    /// Wanted from clients as `prima serve` wants it.
    pub token: Option<String>,
    /// Bytes of a request's body.
    pub body_bytes: usize,
}

impl Default for GatewayOptions {
    fn default() -> Self {
        Self {
            token: None,
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
    tokio::spawn(registry.clone().follow(bus.clone()));
    tokio::spawn(waiters.clone().follow(bus.clone()));
    let app = App {
        bus,
        registry,
        waiters,
        http: reqwest::Client::builder().no_proxy().build().unwrap_or_default(),
        options: Arc::new(options),
    };
    let router = Router::new()
        .route("/live", any(live::connect))
        .route("/ws", any(live::connect))
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/jobs", get(jobs::list))
        .route("/jobs/{id}", get(jobs::one).delete(jobs::cancel))
        .route("/jobs/{id}/answer", get(jobs::answer))
        .fallback(all_else)
        .with_state(app)
        .into_make_service_with_connect_info::<SocketAddr>();
    Ok(axum::serve(listener, router).with_graceful_shutdown(shutdown).await?)
}

async fn ready(State(app): State<App>) -> Response {
    if app.registry.for_session(None, &[]).is_some() {
        "ready".into_response()
    } else {
        client::unavailable("no worker is ready").into_response()
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
