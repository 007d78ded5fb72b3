//! What all handlers share.

use crate::Error;
use crate::attempts::Attempts;
use crate::body::Bodies;
use crate::comfy::{events::Events, prompts::Prompts, shelf::Shelf};
use crate::metrics::Metrics;
use crate::options::{Limits, ServerOptions};
use crate::refusal::Refusal;
use crate::upscalers::Upscalers;
use crate::watch::Watch;
use crate::workshop::Workshop;
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
    /// Request bodies in memory.
    pub bodies: Arc<Bodies>,
    /// What unpacking, resizing and packing of clients' pictures may take.
    pub workshop: Arc<Workshop>,
    /// What enlarges pictures.
    pub upscalers: Arc<Upscalers>,
    /// Wrong tokens.
    pub attempts: Arc<Attempts>,
    /// Requests of the A1111 API, oldest first.
    pub tasks: Arc<Mutex<Vec<Arc<Watch>>>>,
    /// Prompts that came as graphs, what is told of them, and their pictures.
    pub comfy: Arc<Prompts>,
    pub comfy_events: Arc<Events>,
    pub comfy_shelf: Arc<Shelf>,
    /// Turns true at shutdown.
    pub closing: Arc<watch::Sender<bool>>,
    /// Turns true when the farewell is over.
    pub cut_off: Arc<watch::Sender<bool>>,
}

impl App {
    pub fn new(engine: Engine, options: ServerOptions, address: SocketAddr) -> Result<Self, Error> {
        Ok(Self {
            metrics: Arc::new(Metrics::new()?),
            sessions: Arc::new(Semaphore::new(options.max_sessions)),
            bodies: Bodies::new(options.limits.bodies_bytes),
            workshop: Arc::new(Workshop::new(options.limits.pictures_bytes).map_err(Error::Threads)?),
            upscalers: Arc::new(Upscalers::new(&options.upscalers)),
            attempts: Arc::default(),
            tasks: Arc::default(),
            comfy: Arc::default(),
            comfy_events: Arc::default(),
            comfy_shelf: Arc::default(),
            closing: Arc::new(watch::channel(false).0),
            cut_off: Arc::new(watch::channel(false).0),
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
            // Also after it was loaded: the engine may break later.
            (_, Readiness::Failed(reason)) => Err(Refusal::unavailable(format!("the model cannot be used: {reason}"))),
            (Some(pipeline), _) => Ok(pipeline),
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
