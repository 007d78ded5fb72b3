//! The models of an engine: the one it starts with, and those of a library, which are read when somebody wants them. Where
//! memory does not hold them all, the one that was wanted longest ago goes; whoever still paints with it finishes first.

use crate::{Readiness, Shared, lock, panic_message, spawn};
use prima_pipeline::{
    EmbeddingOptions, Error, Library, LoadOptions, LoraOptions, ModelSource, Pipeline, Request, ScheduleOptions,
    check_room, weight_bytes, without_ending,
};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// A model that cannot be used is tried anew after this long: its file may have been copied just then.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// How long a model that goes is waited for. What is painted with it then goes on beside the next one.
const LEAVES_WITHIN: Duration = Duration::from_mins(1);

/// How far a model is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadProgress {
    /// A part of it, or empty before the first.
    pub part: &'static str,
    /// Of that part.
    pub bytes: usize,
    pub total: usize,
}

/// A model as it is now.
#[derive(Clone)]
pub enum Found {
    Ready(Arc<Pipeline>),
    /// It is being read, because of this question or of an earlier one.
    Loading(LoadProgress),
    /// It cannot be used; a sentence.
    Failed(String),
    /// There is none of this name.
    Unknown,
}

/// A model in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub name: String,
    /// Whether it is in memory.
    pub loaded: bool,
    /// Whether requests that name none get it.
    pub current: bool,
}

/// By its name in the library; `None`, the one that the engine started with.
type Key = Option<String>;

#[derive(Default)]
pub(crate) struct Models {
    slots: Vec<Slot>,
    current: Key,
    clock: u64,
    /// What the first is called, once it was read.
    first_name: Option<String>,
}

struct Slot {
    key: Key,
    stage: Stage,
    /// When it was wanted last.
    used: u64,
}

enum Stage {
    Loading(LoadProgress),
    Ready { pipeline: Arc<Pipeline>, bytes: usize },
    Failed { reason: String, at: Instant },
}

/// What the first model is read from, and the others.
pub(crate) struct Sources {
    pub first: ModelSource,
    pub options: LoadOptions,
    pub library: Library,
}

impl Models {
    fn slot(&mut self, key: &Key) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.key == *key)
    }

    fn set(&mut self, key: &Key, stage: Stage) {
        self.clock += 1;
        let used = self.clock;
        match self.slot(key) {
            Some(slot) => slot.stage = stage,
            None => self.slots.push(Slot {
                key: key.clone(),
                stage,
                used,
            }),
        }
    }

    /// What is there, as wanted now; `None` if it has to be read.
    fn look(&mut self, key: &Key) -> Option<Found> {
        self.clock += 1;
        let used = self.clock;
        let slot = self.slot(key)?;
        slot.used = used;
        match &slot.stage {
            Stage::Ready { pipeline, .. } => Some(Found::Ready(pipeline.clone())),
            Stage::Loading(progress) => Some(Found::Loading(*progress)),
            Stage::Failed { reason, at } => (at.elapsed() < TRY_AGAIN).then(|| Found::Failed(reason.clone())),
        }
    }

    /// Bytes of all that are there.
    fn bytes(&self) -> usize {
        let of = |slot: &Slot| match slot.stage {
            Stage::Ready { bytes, .. } => bytes,
            _ => 0,
        };
        self.slots.iter().map(of).sum()
    }

    /// Takes out the one that was wanted longest ago.
    fn take_oldest(&mut self) -> Option<Weak<Pipeline>> {
        let ready = |slot: &Slot| matches!(slot.stage, Stage::Ready { .. });
        let oldest = (0..self.slots.len()).filter(|&at| ready(&self.slots[at]));
        let oldest = oldest.min_by_key(|&at| self.slots[at].used)?;
        match self.slots.swap_remove(oldest).stage {
            Stage::Ready { pipeline, .. } => Some(Arc::downgrade(&pipeline)),
            _ => None,
        }
    }
}

fn is_same(a: &str, b: &str) -> bool {
    a == b || without_ending(a) == without_ending(b)
}

impl Shared {
    /// The model that the engine started with, if it is there.
    pub(crate) fn first(&self) -> Option<Arc<Pipeline>> {
        let mut models = lock(&self.models);
        match &models.slot(&None)?.stage {
            Stage::Ready { pipeline, .. } => Some(pipeline.clone()),
            _ => None,
        }
    }

    /// Which model a name means. The web UI's titles end in a hash.
    fn key(&self, name: &str) -> Option<Key> {
        // Not while the lists are looked through, which reads files.
        let first = lock(&self.models).first_name.clone();
        let plain = name.split(" [").next().unwrap_or(name);
        [name, plain].into_iter().find_map(|name| {
            if first.as_deref().is_some_and(|first| is_same(first, name)) {
                return Some(None);
            }
            self.sources.library.find(name).map(|entry| Some(entry.name))
        })
    }

    /// Puts the first model in its place.
    pub(crate) fn begin_with(&self, pipeline: Pipeline) {
        let bytes = weight_bytes(&self.sources.first, self.sources.options.dtype).unwrap_or(0);
        let mut models = lock(&self.models);
        models.first_name = Some(pipeline.name().to_owned());
        let pipeline = Arc::new(pipeline);
        models.set(&None, Stage::Ready { pipeline, bytes });
    }

    /// A model by its name; without one, the current one. What is not there begins to be read.
    pub(crate) fn model(self: &Arc<Self>, name: Option<&str>) -> Found {
        match &*lock(&self.readiness) {
            Readiness::Ready => {}
            Readiness::Failed(reason) => return Found::Failed(reason.clone()),
            _ => return Found::Loading(LoadProgress::default()),
        }
        let named = match name {
            None => None,
            Some(name) => match self.key(name) {
                Some(key) => Some(key),
                None => return Found::Unknown,
            },
        };
        let mut models = lock(&self.models);
        let key = named.unwrap_or_else(|| models.current.clone());
        if let Some(found) = models.look(&key) {
            return found;
        }
        models.set(&key, Stage::Loading(LoadProgress::default()));
        drop(models);
        let shared = self.clone();
        let started = spawn(move || shared.read(&key));
        match started {
            Ok(()) => Found::Loading(LoadProgress::default()),
            Err(error) => Found::Failed(format!("the engine's thread cannot be started: {error}")),
        }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.key(name).is_some()
    }

    /// Lets requests that name no model get this one; `false` if there is none of this name.
    pub(crate) fn choose(&self, name: &str) -> bool {
        let key = self.key(name);
        key.is_some_and(|key| {
            lock(&self.models).current = key;
            true
        })
    }

    /// All models: the first, then the library's.
    pub(crate) fn listed(&self) -> Vec<Listed> {
        let entries = self.sources.library.entries();
        let models = lock(&self.models);
        let loaded = |key: &Key| {
            let mut slots = models.slots.iter();
            slots.any(|slot| slot.key == *key && matches!(slot.stage, Stage::Ready { .. }))
        };
        let listed = |name: String, key: Key| Listed {
            name,
            loaded: loaded(&key),
            current: models.current == key,
        };
        let first = models.first_name.clone().map(|name| listed(name, None));
        let is_first = |name: &str| models.first_name.as_deref().is_some_and(|first| is_same(first, name));
        let others = entries.into_iter().filter(|entry| !is_first(&entry.name));
        first
            .into_iter()
            .chain(others.map(|entry| listed(entry.name.clone(), Some(entry.name))))
            .collect()
    }

    /// Reads a model, and says what came of it.
    fn read(&self, key: &Key) {
        let loaded = {
            // One at a time: two would count on the same memory.
            let _one = lock(&self.reading);
            let loaded = catch_unwind(AssertUnwindSafe(|| self.load_one(key)));
            loaded.unwrap_or_else(|panic| {
                let message = panic_message(panic.as_ref());
                Err(format!("loading it met a defect of prima: {message}"))
            })
        };
        let name = key.as_deref().unwrap_or("the first model");
        let stage = match loaded {
            Ok((pipeline, bytes)) => {
                tracing::info!("{name} is ready");
                Stage::Ready { pipeline, bytes }
            }
            Err(reason) => {
                tracing::warn!("{name} cannot be used: {reason}");
                let at = Instant::now();
                Stage::Failed { reason, at }
            }
        };
        lock(&self.models).set(key, stage);
    }

    fn load_one(&self, key: &Key) -> Result<(Arc<Pipeline>, usize), String> {
        let sources = &self.sources;
        let (source, options) = match key {
            None => (sources.first.clone(), sources.options.clone()),
            Some(name) => {
                let entry = sources.library.find(name).ok_or("its files are gone")?;
                (entry.open().map_err(|e| e.to_string())?, for_any(&sources.options))
            }
        };
        let options = self.make_room(&source, &options).map_err(|e| e.to_string())?;
        let bytes = weight_bytes(&source, options.dtype).map_err(|e| e.to_string())?;
        let pipeline = Pipeline::load_telling(&source, &options, &|loaded| {
            let progress = LoadProgress {
                part: loaded.component,
                bytes: loaded.bytes,
                total: loaded.total,
            };
            lock(&self.models).set(key, Stage::Loading(progress));
        });
        let pipeline = pipeline.map_err(|e| e.to_string())?;
        warm_up(&pipeline);
        if let Err(error) = pipeline.store_packed() {
            tracing::warn!("the packed weights are not kept for the next start: {error}");
        }
        Ok((Arc::new(pipeline), bytes.min(options.resident.unwrap_or(usize::MAX))))
    }

    /// Unloads models, the one wanted longest ago first, until this one fits whole or is the only one.
    fn make_room(&self, source: &ModelSource, options: &LoadOptions) -> Result<LoadOptions, Error> {
        loop {
            let taken = lock(&self.models).bytes();
            let left = LoadOptions {
                max_memory: options.max_memory.map(|most| most.saturating_sub(taken)),
                ..options.clone()
            };
            let checked = check_room(source, &left, &Request::default());
            if checked.as_ref().is_ok_and(|options| options.resident.is_none()) || !self.unload_oldest() {
                return checked;
            }
        }
    }

    /// `false` where there is none to unload.
    fn unload_oldest(&self) -> bool {
        let Some(leaving) = lock(&self.models).take_oldest() else {
            return false;
        };
        let began = Instant::now();
        while leaving.strong_count() > 0 && began.elapsed() < LEAVES_WITHIN {
            std::thread::sleep(Duration::from_millis(10));
        }
        prima_tensor::give_back_memory();
        true
    }
}

/// What was said of the first model's own files is true of no other.
fn for_any(options: &LoadOptions) -> LoadOptions {
    LoadOptions {
        resident: None,
        loras: LoraOptions {
            standing: Vec::new(),
            ..options.loras.clone()
        },
        embeddings: EmbeddingOptions {
            files: Vec::new(),
            ..options.embeddings.clone()
        },
        prediction_type: None,
        zero_snr: false,
        ..options.clone()
    }
}

/// A first picture, for nobody: weights are packed at first use. What it says of its size is `None` where it was not painted.
pub(crate) fn warm_up(pipeline: &Pipeline) -> Option<prima_pipeline::Response> {
    let request = Request {
        prompt: "a".to_owned(),
        schedule: ScheduleOptions::steps(1),
        ..Request::default()
    };
    pipeline.paint(&request, &mut |_| ControlFlow::Continue(())).ok()
}
