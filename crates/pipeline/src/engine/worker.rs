//! The threads that hold units in progress; one of them computes at a time.

use super::state::{Granted, RunId, Tick};
use super::{Event, Outcome, Shared, Unit, lock};
use crate::{Error, Pipeline, Progress, Response};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

impl Shared {
    /// Takes units until the engine stops.
    pub(super) fn work(&self) {
        let Some(pipeline) = self.pipeline.get() else { return };
        while let Some(granted) = self.next() {
            let (run, shown) = self.perform(pipeline, granted);
            lock(&self.state).finish(run, shown, Instant::now());
            self.changed.notify_all();
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
    fn perform(&self, pipeline: &Pipeline, granted: Granted) -> (RunId, bool) {
        let Granted { run, unit, queued } = granted;
        let Unit {
            request, mut on_event, ..
        } = unit;
        let result = catch_unwind(AssertUnwindSafe(|| {
            if on_event(Event::Begun { queued }).is_break() {
                return Err(Error::Cancelled);
            }
            pipeline.paint(&request, &mut |progress| {
                self.checkpoint(run, &progress)?;
                match progress {
                    Progress::Tick => ControlFlow::Continue(()),
                    _ => on_event(Event::Progress { progress, pipeline }),
                }
            })
        }));
        let result: Result<Response, Error> = result.unwrap_or_else(|panic| {
            Err(Error::Defect {
                message: panic_message(panic.as_ref()),
            })
        });
        let shown = result.is_ok();
        let cold = result.as_ref().is_ok_and(|response| self.is_cold(response));
        let outcome = Outcome {
            pipeline,
            request: &request,
            result,
            queued,
            cold,
        };
        // A callback's own panic ends its unit, not the engine.
        let _ = catch_unwind(AssertUnwindSafe(|| on_event(Event::Done(outcome))));
        (run, shown)
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

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
