//! The studio's page and live protocol, and the HTTP APIs that other programs speak: OpenAI's,
//! A1111's, ComfyUI's and the hosted models' prediction request. One engine paints for all of them.
//!
//! ```no_run
//! # use prima_server::*;
//! # use prima_engine::Engine;
//! # use prima_pipeline::{LoadOptions, ModelSource};
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let options = ServerOptions::default();
//! let engine = Engine::start(ModelSource::open("model")?, LoadOptions::default(), options.max_jobs);
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:7860").await?;
//! serve(listener, engine, options, std::future::pending()).await?;
//! # Ok(())
//! # }
//! ```

mod a1111;
mod app;
mod attempts;
mod body;
mod comfy;
mod connections;
mod controls;
mod files;
mod guard;
mod health;
mod jobs;
mod join;
mod listen;
mod live;
mod loras;
mod masks;
mod metrics;
mod numbers;
mod openai;
mod options;
mod pictures;
mod predictions;
mod readers;
mod refusal;
mod screen;
mod stream;
mod studio;
mod upscalers;
mod watch;
mod workshop;

pub use join::page_url;
pub use listen::{asked_to_stop, bind};
pub use options::{Limits, ServerOptions};
#[doc(hidden)]
pub use readers::{BOUNDARY, Readers};

use app::App;
use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};
use prima_engine::Engine;
use refusal::Refusal;
use std::future::Future;
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::trace::TraceLayer;

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "{address} is reachable from other machines, so a token is needed: add --token SECRET, or use --host 127.0.0.1"
    )]
    TokenNeeded { address: SocketAddr },
    #[error(
        "--token has {chars} characters, and fewer than {least} can be guessed: make one with `openssl rand -hex 16`"
    )]
    TokenShort { chars: usize, least: usize },
    #[error("--cors {origin} is not an origin such as http://localhost:3000")]
    Origin { origin: String },
    #[error("cannot listen on {host} port {port}")]
    Listen {
        host: String,
        port: u16,
        source: std::io::Error,
    },
    #[error("the server's socket failed: {0}")]
    Socket(#[from] std::io::Error),
    #[error("the server's threads cannot be started: {0}")]
    Threads(std::io::Error),
    #[error("the metrics cannot be counted: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Serves on `listener` until `shutdown`; then open requests are answered, sessions are closed and
/// the engine is stopped.
pub async fn serve(
    listener: TcpListener,
    engine: Engine,
    options: ServerOptions,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let address = listener.local_addr()?;
    options.check(address)?;
    let app = App::new(engine, options, address)?;
    let all_sessions = app.options.max_sessions as u32;
    listen::accept(listener, router(app.clone()), &app, shutdown).await?;
    // Sessions say goodbye.
    let _ = tokio::time::timeout(
        std::time::Duration::from_secs(5),
        app.sessions.acquire_many(all_sessions),
    )
    .await;
    Ok(())
}

/// All routes.
fn router(app: App) -> Router {
    let api = Router::new()
        .route("/v1/models", get(openai::models))
        .route("/v1/models/{*id}", get(openai::model))
        .route("/v1/images/generations", post(openai::generations))
        .route("/v1/images/edits", post(openai::edits))
        .route("/v1/predictions", post(predictions::predict))
        .route("/predictions", post(predictions::predict))
        .route("/studio/read-png", post(studio::read_png))
        .route("/studio/animation", post(studio::animation))
        .route("/studio/stream", get(stream::stream))
        .route("/studio/join", get(join::join))
        .route("/metrics", get(health::metrics))
        .merge(a1111::routes())
        .merge(comfy::routes())
        .layer(from_fn_with_state(app.clone(), guard::admit))
        .layer(from_fn_with_state(app.clone(), guard::authorize));
    let router = Router::new()
        .merge(api)
        .route("/live", get(live::connect))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/openapi.json", get(health::openapi))
        .fallback(files::serve)
        .method_not_allowed_fallback(|| async { Refusal::wrong_method() })
        .layer(CatchPanicLayer::custom(|_: Box<dyn std::any::Any + Send>| {
            axum::response::IntoResponse::into_response(Refusal::defect())
        }))
        .layer(from_fn_with_state(app.clone(), guard::own_origin));
    // Outermost last: a refusal by any layer gets its API's shape, its headers and its line in the log.
    let router = match guard::cors(&app.options.cors) {
        Some(cors) => router.layer(cors),
        None => router,
    };
    router
        .layer(from_fn_with_state(app.clone(), guard::leave_in_time))
        .layer(from_fn(refusal::shape))
        .layer(from_fn(guard::headers))
        .layer(from_fn_with_state(app.metrics.clone(), metrics::count))
        .layer(TraceLayer::new_for_http().make_span_with(metrics::span))
        .with_state(app)
}
