//! What becomes of the units' ends: frames, and the changes that words make.

use super::messages::{FrameTimings, WordChange};
use super::outbox::{Frame, Outbox, ms};
use crate::metrics::Metrics;
use crate::refusal::Refusal;
use crate::screen::Screen;
use prima_engine::{Event, Failure, OnEvent, Outcome, Painted, Reply};
use prima_picture::Format;
use prima_pipeline::Picture;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Which frame of its revision a unit gives.
#[derive(Clone, Copy)]
pub(super) struct FrameSpec {
    pub rev: u64,
    pub index: usize,
    pub count: usize,
    pub tier: usize,
    pub last: bool,
    pub steps: usize,
    pub format: Format,
}

/// Shows the picture as a frame.
pub(super) fn shows(spec: FrameSpec, outbox: Arc<Outbox>, metrics: Arc<Metrics>, screen: Arc<Screen>) -> OnEvent {
    Box::new(move |event| {
        if let Event::Done(Outcome { result, queued, cold }) = event {
            match result {
                Ok(painted) => {
                    let seconds = painted.response.timings.total.as_secs_f64();
                    metrics.pictures.with_label_values(&["live"]).inc();
                    metrics.paint_seconds.with_label_values(&["live"]).observe(seconds);
                    if let Some(frame) = frame(spec, painted, queued, cold) {
                        screen.show(&frame.picture);
                        outbox.frame(frame);
                    }
                }
                Err(Failure::Cancelled) => {}
                Err(failure) => outbox.error(Some(spec.rev), &Refusal::from(failure).message, ""),
            }
        }
        Reply::GoOn
    })
}

fn frame(spec: FrameSpec, painted: Painted, queued: Duration, cold: bool) -> Option<Frame> {
    let Painted { response, recipes } = painted;
    let t = &response.timings;
    Some(Frame {
        rev: spec.rev,
        index: spec.index,
        count: spec.count,
        tier: spec.tier,
        last: spec.last,
        step: response.num_inference_steps,
        steps: spec.steps,
        seed: response.seed,
        format: spec.format,
        timings: FrameTimings {
            queue_ms: ms(queued),
            text_ms: ms(t.text),
            init_image_ms: ms(t.init_image),
            steps_ms: t.steps.iter().copied().map(ms).collect(),
            decode_ms: ms(t.decode),
            encode_ms: 0.0,
        },
        cold,
        text_cached: t.text_cached,
        parameters: recipes.into_iter().next().filter(|_| spec.last),
        warnings: if spec.last { response.warnings } else { Vec::new() },
        picture: response.pictures.into_iter().next()?,
    })
}

/// The pictures of a sensitivity task, in order: the whole prompt's, then what each word changes.
#[derive(Default)]
pub(super) struct Comparison {
    base: Option<Picture>,
    changes: Vec<f64>,
}

/// Compares the picture with that of the whole prompt; after the last of `words`, tells all their changes.
pub(super) fn compares(
    rev: u64,
    shared: Arc<Mutex<Comparison>>,
    words: Arc<[WordChange]>,
    outbox: Arc<Outbox>,
) -> OnEvent {
    Box::new(move |event| {
        if let Event::Done(outcome) = event {
            match outcome.result {
                Ok(painted) => {
                    let mut comparison = shared.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(picture) = painted.response.pictures.into_iter().next() {
                        comparison.add(picture);
                    }
                    if comparison.changes.len() == words.len() {
                        let changes = words.iter().cloned().zip(&comparison.changes);
                        let changed: Vec<WordChange> =
                            changes.map(|(word, &change)| WordChange { change, ..word }).collect();
                        outbox.sensitivity(rev, &changed);
                    }
                }
                Err(Failure::Cancelled) => {}
                Err(failure) => outbox.error(Some(rev), &Refusal::from(failure).message, ""),
            }
        }
        Reply::GoOn
    })
}

impl Comparison {
    fn add(&mut self, picture: Picture) {
        match &self.base {
            None => self.base = Some(picture),
            Some(base) => {
                let change = mean_change(base, &picture);
                self.changes.push(change);
            }
        }
    }
}

/// Mean absolute difference, 0 to 1.
fn mean_change(a: &Picture, b: &Picture) -> f64 {
    let sum: u64 = a.rgb.iter().zip(&b.rgb).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    sum as f64 / (255.0 * a.rgb.len().max(1) as f64)
}
