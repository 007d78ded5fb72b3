//! The engine: a model or several, many clients, one computation at a time.
//!
//! Work comes in *units*, each one call of [`Pipeline::paint`]. A client has a *lane*:
//!
//! - a [`Session`] (someone typing) has one slot. A new revision replaces what has not begun, and
//!   ends what has, unless that is nearly done or nothing was shown for [`SHOW_AT_LEAST`]; the last
//!   revision is always painted;
//! - a [`Job`] (a program's request) runs through, in a bounded queue.
//!
//! Lanes share the machine by the time they have used. First come the units of people who are
//! typing ([`Class::Preview`]), then the rest, which is never starved either. A few worker threads
//! exist only so that a long unit can stand still between two layers while a short one of another
//! client is painted: the *baton* says which of them computes.

//!
//! What the engine says of a unit ([`Event`]) and is told in return ([`Reply`]) is owned and serialisable.

mod event;
mod listener;
mod models;
mod state;
mod worker;

pub use event::{Event, Failure, Outcome, Painted, Reply};
pub use models::{Found, Listed, LoadProgress};
pub use prima_pipeline::Library;

use models::{Models, Sources};
use prima_pipeline::{Error, LoadOptions, ModelSource, Pipeline, Request, Response};
use state::{LaneId, State};
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A session in which nothing was shown for this long gets its next picture even if it is stale.
pub const SHOW_AT_LEAST: Duration = Duration::from_millis(150);
/// Units that can be begun and not finished; a bound on memory.
const WORKERS: usize = 3;
/// Workers that broke and began anew before the engine gives up: beyond, something is wrong that will not pass.
const RESTARTS: usize = 100;

/// How urgent a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Someone has pressed a key and waits for this.
    Preview,
    /// Everything else: refinement, variants, programs.
    Work,
}

/// One picture, or several of one request.
pub struct Unit {
    pub request: Request,
    /// What paints it: a model that [`Engine::model`] gave, for which the request was built. `None`: the one that the engine
    /// started with.
    pub model: Option<Arc<Pipeline>>,
    pub class: Class,
    /// Whether its pictures are to say how they were made: the first look at what will be painted better need not.
    pub recipe: bool,
    /// Not to be begun before: refinement waits for a pause.
    pub ready_at: Option<Instant>,
    /// Hears of the unit on the engine's thread: be quick. A unit that is never begun is dropped with its callback.
    pub on_event: OnEvent,
}

/// See [`Unit::on_event`].
pub type OnEvent = Box<dyn FnMut(Event) -> Reply + Send>;

/// How far the engine is with its model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Reads this part of the model.
    Loading(&'static str),
    /// Paints its first picture, for nobody: weights are packed at first use.
    WarmingUp,
    Ready,
    /// The model cannot be used; a sentence.
    Failed(String),
}

impl std::fmt::Display for Readiness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Loading(part) => write!(f, "loading {part}"),
            Self::WarmingUp => f.write_str("warming up"),
            Self::Ready => f.write_str("ready"),
            Self::Failed(reason) => write!(f, "failed: {reason}"),
        }
    }
}

/// Revisions of a session of which no picture was shown: never begun, or begun and given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub dropped: u64,
    pub cancelled: u64,
}

/// How busy the engine is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Occupancy {
    pub sessions: usize,
    pub jobs: usize,
    /// Units that wait, and units begun.
    pub waiting: usize,
    pub begun: usize,
}

/// As many jobs wait as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the queue is full")]
pub struct QueueFull;

/// A handle; clones are handles to the same engine.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    readiness: Mutex<Readiness>,
    models: Mutex<Models>,
    sources: Sources,
    /// Held by who reads a model.
    reading: Mutex<()>,
    /// Sizes painted so far.
    sizes: Mutex<HashSet<(usize, usize)>>,
    max_jobs: usize,
    /// Times that a worker had to begin anew.
    restarts: AtomicUsize,
}

impl Engine {
    /// Loads `source` on a thread of its own and goes on to serve; `max_jobs` jobs may wait or run.
    pub fn start(source: ModelSource, options: LoadOptions, max_jobs: usize) -> Self {
        Self::start_with(source, options, max_jobs, Library::default())
    }

    /// The same with further models, which are read with the same options when somebody wants them.
    pub fn start_with(source: ModelSource, options: LoadOptions, max_jobs: usize, library: Library) -> Self {
        let engine = Self {
            shared: Arc::new(Shared {
                state: Mutex::new(State::new(WORKERS, Instant::now())),
                changed: Condvar::new(),
                readiness: Mutex::new(Readiness::Loading("configuration")),
                models: Mutex::default(),
                sources: Sources {
                    first: source,
                    options,
                    library,
                },
                reading: Mutex::default(),
                sizes: Mutex::default(),
                max_jobs,
                restarts: AtomicUsize::new(0),
            }),
        };
        let shared = engine.shared.clone();
        let started = spawn(move || {
            let loaded = catch_unwind(AssertUnwindSafe(|| shared.load()));
            match loaded {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return shared.fail(error.to_string()),
                Err(panic) => {
                    let message = panic_message(panic.as_ref());
                    return shared.fail(format!("loading it met a defect of prima: {message}"));
                }
            }
            let keeper = shared.clone();
            // A start without a cache is only slower.
            let _ = spawn(move || keeper.store_packed());
            for _ in 1..WORKERS {
                let worker = shared.clone();
                if let Err(error) = spawn(move || worker.work_on()) {
                    shared.fail(format!("a thread of the engine cannot be started: {error}"));
                }
            }
            shared.work_on();
        });
        if let Err(error) = started {
            engine
                .shared
                .fail(format!("the engine's thread cannot be started: {error}"));
        }
        engine
    }

    pub fn readiness(&self) -> Readiness {
        lock(&self.shared.readiness).clone()
    }

    /// The model that the engine started with, while it is in memory.
    pub fn pipeline(&self) -> Option<Arc<Pipeline>> {
        self.shared.first()
    }

    /// A model by its name; without one, the one that was chosen for all who name none. One that is not in memory begins to be
    /// read: ask again.
    pub fn model(&self, name: Option<&str>) -> Found {
        self.shared.model(name)
    }

    /// Whether there is a model of this name.
    pub fn has_model(&self, name: &str) -> bool {
        self.shared.has(name)
    }

    /// Lets requests that name no model get this one; `false` if there is none of this name.
    pub fn choose_model(&self, name: &str) -> bool {
        self.shared.choose(name)
    }

    /// All models by name, the one that the engine started with first.
    pub fn models(&self) -> Vec<Listed> {
        self.shared.listed()
    }

    /// A lane for someone who types.
    pub fn session(&self) -> Session {
        let lane = lock(&self.shared.state).add_lane(true, Instant::now());
        Session {
            lane: Lane {
                shared: self.shared.clone(),
                id: lane,
            },
        }
    }

    /// Queues `units`, to be painted in order. An engine that has stopped drops them.
    pub fn submit(&self, units: Vec<Unit>) -> Result<Job, QueueFull> {
        let now = Instant::now();
        let mut state = lock(&self.shared.state);
        if state.occupancy().jobs >= self.shared.max_jobs {
            return Err(QueueFull);
        }
        let id = state.add_lane(false, now);
        let dropped = if state.stopping {
            Some(units)
        } else {
            state.replace(id, 0, units, now)
        };
        drop(state);
        drop(dropped);
        self.shared.changed.notify_all();
        Ok(Job {
            lane: Lane {
                shared: self.shared.clone(),
                id,
            },
        })
    }

    pub fn occupancy(&self) -> Occupancy {
        lock(&self.shared.state).occupancy()
    }

    /// Ends all work and the engine's threads; what is in flight hears [`Failure::Cancelled`], what is not begun is dropped.
    pub fn stop(&self) {
        self.shared.stop();
    }
}

/// Someone's slot; ends their work when dropped.
pub struct Session {
    lane: Lane,
}

impl Session {
    /// `units` of revision `rev` take the place of everything older. `false`: `rev` is not newer than
    /// what is there, and nothing changed.
    pub fn replace(&self, rev: u64, units: Vec<Unit>) -> bool {
        let replaced = {
            let mut state = lock(&self.lane.shared.state);
            let replaced = state.replace(self.lane.id, rev, units, Instant::now());
            if state.stopping {
                replaced.map(|mut old| {
                    old.extend(state.drop_waiting());
                    old
                })
            } else {
                replaced
            }
        };
        self.lane.shared.changed.notify_all();
        replaced.is_some()
    }

    /// Ends the work on revisions up to `rev`.
    pub fn cancel(&self, rev: u64) {
        let dropped = lock(&self.lane.shared.state).cancel(self.lane.id, rev);
        self.lane.shared.changed.notify_all();
        drop(dropped);
    }

    pub fn counts(&self) -> Counts {
        self.lane.shared.counts(self.lane.id)
    }

    /// Reads [`counts`](Self::counts) where the session itself is not at hand.
    pub fn counter(&self) -> impl Fn() -> Counts + Send + Sync + 'static {
        let (shared, id) = (self.lane.shared.clone(), self.lane.id);
        move || shared.counts(id)
    }
}

/// A queued request; ends its work when dropped.
pub struct Job {
    #[expect(dead_code, reason = "held for its Drop")]
    lane: Lane,
}

struct Lane {
    shared: Arc<Shared>,
    id: LaneId,
}

impl Drop for Lane {
    fn drop(&mut self) {
        let removed = lock(&self.shared.state).remove(self.id);
        self.shared.changed.notify_all();
        // Callbacks are dropped without the lock.
        drop(removed);
    }
}

impl Shared {
    /// The first model.
    fn load(&self) -> Result<(), Error> {
        let Sources { first, options, .. } = &self.sources;
        let _one = lock(&self.reading);
        let pipeline = Pipeline::load_telling(first, options, &|loaded| {
            self.set_readiness(Readiness::Loading(match loaded.component {
                "unet" | "vae" => loaded.component,
                _ => "text encoders",
            }));
        })?;
        self.set_readiness(Readiness::WarmingUp);
        if let Some(response) = models::warm_up(&pipeline) {
            self.is_cold(&response);
        }
        self.begin_with(pipeline);
        self.set_readiness(Readiness::Ready);
        Ok(())
    }

    /// Keeps the packed weights for the next start, beside the first pictures.
    fn store_packed(&self) {
        let Some(pipeline) = self.first() else { return };
        match pipeline.store_packed() {
            Ok(0) => {}
            Ok(bytes) => tracing::info!("{bytes} bytes of packed weights are kept for the next start"),
            Err(error) => tracing::warn!("the packed weights are not kept for the next start: {error}"),
        }
    }

    /// Nothing will be painted any more, for this reason.
    fn fail(&self, reason: String) {
        self.set_readiness(Readiness::Failed(reason));
        self.stop();
    }

    fn stop(&self) {
        let dropped = {
            let mut state = lock(&self.state);
            state.stopping = true;
            state.drop_waiting()
        };
        self.changed.notify_all();
        // Callbacks are dropped without the lock.
        drop(dropped);
    }

    fn set_readiness(&self, readiness: Readiness) {
        *lock(&self.readiness) = readiness;
    }

    fn counts(&self, lane: LaneId) -> Counts {
        lock(&self.state).counts(lane)
    }

    fn is_cold(&self, response: &Response) -> bool {
        let size = response.pictures.first().map(|p| (p.width, p.height));
        size.is_some_and(|size| lock(&self.sizes).insert(size))
    }
}

/// A panic elsewhere does not spoil what these locks hold: each change is complete in itself.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn spawn(body: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new()
        .name("prima-engine".to_owned())
        .spawn(body)
        .map(drop)
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
