//! What all handlers share.

use crate::Error;
use crate::attempts::Attempts;
use crate::body::Bodies;
use crate::comfy::{events::Events, prompts::Prompts, shelf::Shelf};
use crate::metrics::Metrics;
use crate::options::{Limits, ServerOptions};
use crate::refusal::{Refusal, short};
use crate::screen::Screen;
use crate::upscalers::Upscalers;
use crate::watch::{Named, NamedTask, Watch};
use crate::workshop::Workshop;
use axum::http::HeaderMap;
use prima_engine::{Engine, Found, Readiness};
use prima_pipeline::{Pipeline, RequestBuilder, Spelling};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

/// The handlers' state; clones share it.
#[derive(Clone)]
pub(crate) struct App {
    pub engine: Engine,
    /// What this request is about, from its first look at a model on: it stays the same, whatever is chosen or unloaded
    /// meanwhile.
    model: OnceLock<Arc<Pipeline>>,
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
    /// The newest picture of the live sessions, where it may be watched.
    pub screen: Arc<Screen>,
    /// Wrong tokens.
    pub attempts: Arc<Attempts>,
    /// Requests of the A1111 API, oldest first.
    pub tasks: Arc<Mutex<Vec<Arc<Watch>>>>,
    /// Requests of all APIs under the names of their `Prima-Task` header.
    pub named: Arc<Named>,
    /// What this request is called there.
    task: Option<String>,
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
            screen: Arc::new(Screen::new(options.stream)),
            attempts: Arc::default(),
            tasks: Arc::default(),
            named: Arc::default(),
            task: None,
            comfy: Arc::default(),
            comfy_events: Arc::default(),
            comfy_shelf: Arc::default(),
            closing: Arc::new(watch::channel(false).0),
            cut_off: Arc::new(watch::channel(false).0),
            engine,
            model: OnceLock::new(),
            options: Arc::new(options),
            address,
        })
    }

    /// For a request with these headers.
    pub fn of(&self, headers: &HeaderMap) -> Self {
        let task = headers.get("prima-task").and_then(|task| task.to_str().ok());
        Self {
            task: task.map(|task| short(task, 80)),
            ..self.clone()
        }
    }

    /// Lets others ask how far this request is, by its name, as long as what is returned is kept.
    pub fn name(&self, watch: &Arc<Watch>) -> Option<NamedTask> {
        let task = self.task.clone()?;
        Some(self.named.clone().put(task, watch.clone()))
    }

    pub fn limits(&self) -> &Limits {
        &self.options.limits
    }

    /// The model, or a 503 that says how far loading is.
    pub fn pipeline(&self) -> Result<&Pipeline, Refusal> {
        self.check_ready()?;
        if self.model.get().is_none() {
            match self.engine.model(None) {
                Found::Ready(model) => drop(self.model.set(model)),
                found => return Err(self.not_there(None, &found)),
            }
        }
        let none = || Refusal::unavailable("the model is not there yet");
        self.model.get().map(|model| &**model).ok_or_else(none)
    }

    /// The same to hold on to.
    pub fn model(&self) -> Result<Arc<Pipeline>, Refusal> {
        self.pipeline()?;
        let none = || Refusal::unavailable("the model is not there yet");
        self.model.get().cloned().ok_or_else(none)
    }

    /// Before the first model is there, and when the engine broke, nobody waits.
    pub fn check_ready(&self) -> Result<(), Refusal> {
        match self.engine.readiness() {
            Readiness::Ready => Ok(()),
            // Also after it was loaded: the engine may break later.
            Readiness::Failed(reason) => Err(Refusal::unavailable(format!("the model cannot be used: {reason}"))),
            stage => Err(Refusal::unavailable(format!("the model is not there yet: {stage}"))),
        }
    }

    /// For a request about this model, or about the current one; waits while it is read.
    pub async fn about(&self, name: Option<&str>) -> Result<Self, Refusal> {
        const LOOK_AGAIN: Duration = Duration::from_millis(30);
        self.check_ready()?;
        let mut closing = self.closing.subscribe();
        loop {
            match self.engine.model(name) {
                Found::Ready(model) => return Ok(self.with(model)),
                Found::Loading(_) => {}
                found => return Err(self.not_there(name, &found)),
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                _ = closing.wait_for(|&closing| closing) => return Err(Refusal::unavailable("the server is shutting down")),
            }
        }
    }

    /// For a request about this model.
    pub fn with(&self, model: Arc<Pipeline>) -> Self {
        Self {
            model: OnceLock::from(model),
            ..self.clone()
        }
    }

    /// For what comes later and may be about any model: a model that is held on to is not unloaded.
    pub fn about_none(&self) -> Self {
        Self {
            model: OnceLock::new(),
            ..self.clone()
        }
    }

    fn not_there(&self, name: Option<&str>, found: &Found) -> Refusal {
        match found {
            Found::Failed(reason) => {
                let name = name.map_or("the model".to_owned(), |name| {
                    format!("the model {:?}", short(name, 60))
                });
                Refusal::unavailable(format!("{name} cannot be used: {reason}"))
            }
            Found::Unknown => Refusal::field("model", self.no_model(name.unwrap_or_default())),
            Found::Ready(_) | Found::Loading(_) => Refusal::unavailable("the model is not there yet: it is being read"),
        }
    }

    /// The names of all models, and that of the current one; a 503 as long as none is there.
    pub fn models(&self) -> Result<(Vec<String>, String), Refusal> {
        self.check_ready()?;
        let models = self.engine.models();
        let current = models.iter().find(|model| model.current).or(models.first());
        let current = current.map_or_else(String::new, |model| model.name.clone());
        Ok((models.into_iter().map(|model| model.name).collect(), current))
    }

    /// What is said where a client names a model that there is not.
    pub fn no_model(&self, name: &str) -> String {
        const SHOWN: usize = 12;
        let names: Vec<String> = self.engine.models().into_iter().map(|model| model.name).collect();
        let more = if names.len() > SHOWN { ", ..." } else { "" };
        let shown = &names[..names.len().min(SHOWN)];
        format!(
            "there is no model {:?} here; this server has {}{more}",
            short(name, 60),
            shown.join(", ")
        )
    }

    /// The client's name of a model where it is one of this server's: programs with a fixed name get the current one.
    pub fn known<'a>(&self, name: Option<&'a str>) -> Option<&'a str> {
        name.filter(|name| self.engine.has_model(name))
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
