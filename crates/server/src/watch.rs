//! How far a job is, for those who ask or interrupt.

use prima_pipeline::Picture;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// How far a job is; shared with those who ask or interrupt.
pub(crate) struct Watch {
    /// What the client calls it.
    pub id: String,
    pub began: Instant,
    pub units: usize,
    state: Mutex<WatchState>,
    interrupted: AtomicBool,
    skipped: AtomicBool,
    wants_preview: AtomicBool,
    /// Units of passes that are over.
    done: AtomicUsize,
}

/// A snapshot of [`Watch`].
#[derive(Clone, Default)]
pub(crate) struct WatchState {
    /// Unit being painted, from 0.
    pub unit: usize,
    pub begun: bool,
    pub step: usize,
    pub steps: usize,
    pub preview: Option<Picture>,
}

/// Watches by the names that clients gave.
#[derive(Default)]
pub(crate) struct Named(Mutex<HashMap<String, Arc<Watch>>>);

/// A name that leads to a watch until it is dropped.
pub(crate) struct NamedTask {
    named: Arc<Named>,
    name: String,
    watch: Arc<Watch>,
}

impl Named {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Watch>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of two requests of one name the later one is meant.
    pub fn put(self: Arc<Self>, name: String, watch: Arc<Watch>) -> NamedTask {
        self.lock().insert(name.clone(), watch.clone());
        NamedTask {
            named: self,
            name,
            watch,
        }
    }

    pub fn get(&self, name: &str) -> Option<Arc<Watch>> {
        self.lock().get(name).cloned()
    }
}

impl Drop for NamedTask {
    fn drop(&mut self) {
        let mut named = self.named.lock();
        if named
            .get(&self.name)
            .is_some_and(|watch| Arc::ptr_eq(watch, &self.watch))
        {
            named.remove(&self.name);
        }
    }
}

impl Watch {
    pub fn new(id: String, units: usize) -> Arc<Self> {
        Arc::new(Self {
            id,
            began: Instant::now(),
            units,
            state: Mutex::default(),
            interrupted: AtomicBool::new(false),
            skipped: AtomicBool::new(false),
            wants_preview: AtomicBool::new(false),
            done: AtomicUsize::new(0),
        })
    }

    fn lock(&self) -> MutexGuard<'_, WatchState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn snapshot(&self) -> WatchState {
        self.lock().clone()
    }

    /// Unit number `unit` begins; to skip is to skip one unit.
    pub fn begin(&self, unit: usize) {
        *self.lock() = WatchState {
            unit: self.done.load(Ordering::Relaxed) + unit,
            begun: true,
            ..WatchState::default()
        };
        self.skipped.store(false, Ordering::Relaxed);
    }

    /// Another job of the same request follows one of `units`.
    pub fn next_pass(&self, units: usize) {
        self.done.fetch_add(units, Ordering::Relaxed);
    }

    pub fn step(&self, step: usize, steps: usize) {
        let mut state = self.lock();
        (state.step, state.steps) = (step, steps);
    }

    pub fn show(&self, preview: Option<Picture>) {
        self.lock().preview = preview;
    }

    /// From the next step on there is a preview in the snapshot.
    pub fn want_preview(&self) {
        self.wants_preview.store(true, Ordering::Relaxed);
    }

    /// Whether someone wanted a preview since this was last asked.
    pub fn take_want(&self) -> bool {
        self.wants_preview.swap(false, Ordering::Relaxed)
    }

    /// Ends the job; what is done is kept.
    pub fn interrupt(&self) {
        self.interrupted.store(true, Ordering::Relaxed);
    }

    /// Goes on to the next picture.
    pub fn skip(&self) {
        self.skipped.store(true, Ordering::Relaxed);
    }

    pub fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    pub fn is_skipped(&self) -> bool {
        self.skipped.load(Ordering::Relaxed)
    }

    /// From 0 to 1.
    pub fn progress(&self) -> f64 {
        let state = self.snapshot();
        let within = state.step as f64 / state.steps.max(1) as f64;
        ((state.unit as f64 + within) / self.units.max(1) as f64).min(1.0)
    }
}
