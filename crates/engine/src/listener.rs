//! From the pipeline's progress, which borrows tensors, to events, which own pictures.

use crate::{Event, OnEvent, Reply};
use prima_pipeline::{Pipeline, Progress};
use prima_tensor::Tensor;
use std::ops::ControlFlow;

/// The one who hears of a unit, and what they may ask to see of it.
pub(crate) struct Listener<'a> {
    pipeline: &'a Pipeline,
    on_event: &'a mut OnEvent,
    last: Option<Taken>,
    /// They ended the unit, and want to see what it had come to.
    wants_last: bool,
}

/// A step that was taken.
struct Taken {
    step: usize,
    of: usize,
    denoised: Tensor,
}

impl<'a> Listener<'a> {
    pub fn new(pipeline: &'a Pipeline, on_event: &'a mut OnEvent) -> Self {
        Self {
            pipeline,
            on_event,
            last: None,
            wants_last: false,
        }
    }

    /// Passes on what is new.
    pub fn hear(&mut self, progress: &Progress) -> ControlFlow<()> {
        match *progress {
            Progress::Tick => ControlFlow::Continue(()),
            Progress::Text => self.tell(Event::Text),
            Progress::Step {
                done, total, denoised, ..
            } => {
                self.last = Some(Taken {
                    step: done,
                    of: total,
                    denoised: denoised.clone(),
                });
                self.tell(Event::Step { step: done, of: total })
            }
            Progress::Decode { done, total } => self.tell(Event::Decode {
                picture: done,
                of: total,
            }),
        }
    }

    /// Tells of `event` and does what is replied, until that is to go on or to end.
    pub fn tell(&mut self, event: Event) -> ControlFlow<()> {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            match (self.on_event)(event) {
                Reply::GoOn => {}
                Reply::Preview => next = self.preview(),
                Reply::Stop => return ControlFlow::Break(()),
                Reply::StopWithPreview => {
                    self.wants_last = true;
                    return ControlFlow::Break(());
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// The unit has been painted or given up.
    pub fn leave(mut self) {
        if self.wants_last
            && let Some(event) = self.preview()
        {
            (self.on_event)(event);
        }
    }

    /// The pictures of the last step, decoded once: the same step is not asked for again.
    fn preview(&mut self) -> Option<Event> {
        let Taken { step, of, denoised } = self.last.take()?;
        // A picture that cannot be shown early is no reason to give it up.
        let pictures = self.pipeline.preview(&denoised).ok()?;
        Some(Event::Preview { step, of, pictures })
    }
}
