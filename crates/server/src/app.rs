//! What all handlers share.

use crate::metrics::Metrics;
use crate::options::{Limits, ServerOptions};
use crate::refusal::Refusal;
use crate::watch::Watch;
use prima_engine::{Engine, Readiness};
use prima_pipeline::{Pipeline, RequestBuilder, Spelling};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::sync::{Semaphore, watch};

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
    pub fn new(engine: Engine, options: ServerOptions, address: SocketAddr) -> Result<Self, prometheus::Error> {
        Ok(Self {
            metrics: Arc::new(Metrics::new()?),
            sessions: Arc::new(Semaphore::new(options.max_sessions)),
            bodies: Arc::new(Semaphore::new(2 * options.max_jobs)),
            decoders: Arc::new(Semaphore::new(2)),
            tasks: Arc::default(),
            closing: Arc::new(watch::channel(false).0),
            engine,
            options: Arc::new(options),
            address,
        })
    }

    pub fn limits(&self) -> &Limits {
        &self.options.limits
    }

    /// The model, or a 503 that says how far loading is.
    pub fn pipeline(&self) -> Result<&Pipeline, Refusal> {
        match (self.engine.pipeline(), self.engine.readiness()) {
            (Some(pipeline), _) => Ok(pipeline),
            (None, Readiness::Failed(reason)) => {
                Err(Refusal::unavailable(format!("the model cannot be used: {reason}")))
            }
            (None, stage) => Err(Refusal::unavailable(format!("the model is not there yet: {stage}"))),
        }
    }

    /// An empty request of a program that calls fields as `spelling` says, within this server's limits.
    pub fn request(&self, spelling: Spelling) -> RequestBuilder {
        RequestBuilder {
            spelling,
            limits: self.limits().of_requests(),
            blank_is_none: true,
            ..RequestBuilder::default()
        }
    }
}
