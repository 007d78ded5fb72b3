//! The threads that hold units in progress; one of them computes at a time.

use crate::listener::Listener;
use crate::state::{Granted, RunId, Tick};
use crate::{Event, Failure, OnEvent, Outcome, Painted, RESTARTS, Shared, Unit, lock, panic_message};
use prima_pipeline::{Error, Parameters, Pipeline, Progress, Request, Response};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A unit's turn; ends when dropped.
struct Turn<'a> {
    shared: &'a Shared,
    run: RunId,
    /// Whether a picture was shown.
    shown: bool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.shared.state).finish(self.run, self.shown, Instant::now());
        self.shared.changed.notify_all();
    }
}

impl Shared {
    /// Takes units until the engine stops. A panic outside of what a unit is blamed for (a callback that breaks while it is
    /// dropped, a defect of the bookkeeping) ends one unit; the worker begins anew, a bounded number of times.
    pub(crate) fn work_on(&self) {
        while let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.work())) {
            if self.restarts.fetch_add(1, Ordering::Relaxed) >= RESTARTS {
                let message = panic_message(panic.as_ref());
                return self.fail(format!("its workers met defects of prima again and again: {message}"));
            }
        }
    }

    fn work(&self) {
        while let Some(granted) = self.next() {
            // Gives the baton back, whatever happens.
            let mut turn = Turn {
                shared: self,
                run: granted.run,
                shown: false,
            };
            turn.shown = self.perform(granted);
        }
    }

    /// Waits for a unit that is due while the baton is free; `None` when the engine stops.
    fn next(&self) -> Option<Granted> {
        let mut state = lock(&self.state);
        loop {
            if state.stopping {
                return None;
            }
            let now = Instant::now();
            if let Some(granted) = state.grant_fresh(now) {
                return Some(granted);
            }
            if state.grant_parked(now) {
                self.changed.notify_all();
            }
            let until = state.next_due(now).unwrap_or(Duration::from_mins(1));
            let waited = self.changed.wait_timeout(state, until);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Paints a unit; whether it was shown.
    fn perform(&self, granted: Granted) -> bool {
        let Granted { run, unit, queued } = granted;
        let Unit {
            request,
            model,
            recipe,
            mut on_event,
            ..
        } = unit;
        let pipeline = model.or_else(|| self.first());
        let result = catch_unwind(AssertUnwindSafe(|| match &pipeline {
            Some(pipeline) => self.paint(pipeline, run, &request, queued, &mut on_event),
            None => Err(Error::Cancelled),
        }));
        let result = result.unwrap_or_else(|panic| {
            Err(Error::Defect {
                message: panic_message(panic.as_ref()),
            })
        });
        let shown = result.is_ok();
        let cold = result.as_ref().is_ok_and(|response| self.is_cold(response));
        let outcome = Outcome {
            result: result
                .map(|response| painted(&request, response, pipeline.as_deref().filter(|_| recipe)))
                .map_err(Failure::from),
            queued,
            cold,
        };
        // A callback's own panic ends its unit, not the engine.
        let _ = catch_unwind(AssertUnwindSafe(|| on_event(Event::Done(outcome))));
        shown
    }

    /// All events of a unit but the last.
    fn paint(
        &self,
        pipeline: &Pipeline,
        run: RunId,
        request: &Request,
        queued: Duration,
        on_event: &mut OnEvent,
    ) -> Result<Response, Error> {
        let mut listener = Listener::new(pipeline, on_event);
        if listener.tell(Event::Begun { queued }).is_break() {
            return Err(Error::Cancelled);
        }
        let result = pipeline.paint(request, &mut |progress| {
            self.checkpoint(run, &progress)?;
            listener.hear(&progress)
        });
        listener.leave();
        result
    }

    /// Between two layers: is the work still wanted, and is it still this unit's turn?
    fn checkpoint(&self, run: RunId, progress: &Progress) -> ControlFlow<()> {
        let mut state = lock(&self.state);
        match state.tick(run, progress, Instant::now()) {
            Tick::GoOn => return ControlFlow::Continue(()),
            Tick::Stop => return ControlFlow::Break(()),
            Tick::Park => {}
        }
        self.changed.notify_all();
        loop {
            let now = Instant::now();
            if state.stopping {
                return ControlFlow::Break(());
            }
            if state.grant_parked(now) {
                self.changed.notify_all();
            }
            if state.holds_baton(run) {
                return match state.tick(run, progress, now) {
                    Tick::Stop => ControlFlow::Break(()),
                    _ => ControlFlow::Continue(()),
                };
            }
            let until = state.next_due(now).unwrap_or(Duration::from_mins(1));
            let waited = self.changed.wait_timeout(state, until);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// `maker`: the model, where recipes are asked for.
fn painted(request: &Request, response: Response, maker: Option<&Pipeline>) -> Painted {
    let recipes = (0..response.pictures.len()).map(|index| match maker {
        Some(model) => response.parameters(request, model.name(), index),
        None => Parameters::default(),
    });
    Painted {
        recipes: recipes.collect(),
        response,
    }
}
