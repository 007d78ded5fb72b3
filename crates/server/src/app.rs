//! What all handlers share.

use crate::jobs::Watch;
use crate::metrics::Metrics;
use crate::refusal::Refusal;
use crate::{Error, guard};
use prima_pipeline::Pipeline;
use prima_pipeline::engine::{Engine, Stage};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

/// How the server is run.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Wanted as `Authorization: Bearer TOKEN` or `?token=TOKEN` by everything but the page's files
    /// and the health checks.
    pub token: Option<String>,
    /// Origins of other sites that may use the server from a browser.
    pub cors: Vec<String>,
    /// Live sessions at once.
    pub max_sessions: usize,
    /// API requests that wait or are painted at once; further ones get a 503.
    pub max_jobs: usize,
    pub limits: Limits,
    /// Serve the page from this folder instead of the binary's copy.
    pub web_dir: Option<PathBuf>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            token: None,
            cors: Vec::new(),
            max_sessions: 64,
            max_jobs: 16,
            limits: Limits::default(),
            web_dir: None,
        }
    }
}

impl ServerOptions {
    /// Refuses what would let strangers in.
    pub fn check(&self, address: SocketAddr) -> Result<(), Error> {
        if !address.ip().is_loopback() && self.token.as_deref().unwrap_or("").is_empty() {
            return Err(Error::TokenNeeded { address });
        }
        let wrong = self.cors.iter().find(|origin| !guard::is_origin(origin));
        match wrong {
            Some(origin) => Err(Error::Origin { origin: origin.clone() }),
            None => Ok(()),
        }
    }
}

/// What a client may ask for. Each bounds memory or time.
#[derive(Clone, Debug)]
pub struct Limits {
    pub prompt_chars: usize,
    /// An encoded picture.
    pub image_bytes: usize,
    /// A decoded one.
    pub image_pixels: usize,
    pub max_steps: usize,
    pub max_side_px: usize,
    /// Pictures of one request.
    pub variants: usize,
    /// An HTTP body: a picture in base64 and the rest.
    pub body_bytes: usize,
    /// The header of a binary message, or a whole text message.
    pub message_bytes: usize,
    /// Live messages a second that a session may send on average, and at once.
    pub messages_per_second: f64,
    pub message_burst: f64,
    /// A client that takes no bytes for this long is cut off.
    pub stall: Duration,
    /// A body that is not there after this long is given up.
    pub body_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            prompt_chars: 2000,
            image_bytes: 10 << 20,
            image_pixels: 16 << 20,
            max_steps: 100,
            max_side_px: 1024,
            variants: 16,
            body_bytes: 16 << 20,
            message_bytes: 64 << 10,
            messages_per_second: 60.0,
            message_burst: 240.0,
            stall: Duration::from_secs(20),
            body_time: Duration::from_secs(30),
        }
    }
}

/// The handlers' state; clones share it.
#[derive(Clone)]
pub(crate) struct App {
    pub engine: Engine,
    pub options: Arc<ServerOptions>,
    pub address: SocketAddr,
    pub metrics: Arc<Metrics>,
    /// One permit a live session.
    pub sessions: Arc<Semaphore>,
    /// One permit a request body in memory.
    pub bodies: Arc<Semaphore>,
    /// One permit a picture that is being unpacked.
    pub decoders: Arc<Semaphore>,
    /// Requests of the A1111 API, oldest first.
    pub tasks: Arc<Mutex<Vec<Arc<Watch>>>>,
    /// Turns true at shutdown.
    pub closing: Arc<watch::Sender<bool>>,
}

impl App {
    pub fn new(engine: Engine, options: ServerOptions, address: SocketAddr) -> Self {
        Self {
            metrics: Arc::new(Metrics::new()),
            sessions: Arc::new(Semaphore::new(options.max_sessions)),
            bodies: Arc::new(Semaphore::new(2 * options.max_jobs)),
            decoders: Arc::new(Semaphore::new(2)),
            tasks: Arc::default(),
            closing: Arc::new(watch::channel(false).0),
            engine,
            options: Arc::new(options),
            address,
        }
    }

    pub fn limits(&self) -> &Limits {
        &self.options.limits
    }

    /// The model, or a 503 that says how far loading is.
    pub fn pipeline(&self) -> Result<&Pipeline, Refusal> {
        match (self.engine.pipeline(), self.engine.stage()) {
            (Some(pipeline), _) => Ok(pipeline),
            (None, Stage::Failed(reason)) => Err(Refusal::unavailable(format!("the model cannot be used: {reason}"))),
            (None, stage) => Err(Refusal::unavailable(format!("the model is not there yet: {stage}"))),
        }
    }
}
