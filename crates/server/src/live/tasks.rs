//! From a message to the units that the engine paints for it.

use super::messages::{FrameTimings, Paint, Variants, WordChange};
use super::outbox::{Frame, Outbox, ms};
use super::words::{self, words};
use crate::app::App;
use crate::jobs::check;
use crate::metrics::Metrics;
use crate::refusal::Refusal;
use prima_picture::Format;
use prima_pipeline::engine::{Class, Event, OnEvent, Outcome, Unit};
use prima_pipeline::{Error, InitImage, Parameters, Picture, Pipeline, Request, ScheduleOptions};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A revision that is not followed by another one for this long is refined.
const PAUSE: Duration = Duration::from_millis(150);
/// Models that take more steps than this are not few-step models: one step of theirs shows nothing.
const FEW_STEPS: usize = 8;
/// Words whose absence is tried.
const WORDS: usize = 32;

/// What a revision asks for.
pub(super) struct Task {
    paint: Paint,
    kind: Kind,
}

enum Kind {
    Paint,
    Variants { seeds: Vec<u64>, prompts: Vec<String> },
    Sensitivity,
}

impl Task {
    pub fn paint(paint: Paint) -> Self {
        Self {
            paint,
            kind: Kind::Paint,
        }
    }

    pub fn variants(variants: Variants) -> Self {
        let Variants { paint, seeds, prompts } = variants;
        let kind = Kind::Variants {
            seeds: seeds.unwrap_or_default(),
            prompts: prompts.unwrap_or_default(),
        };
        Self { paint, kind }
    }

    pub fn sensitivity(paint: Paint) -> Self {
        Self {
            paint,
            kind: Kind::Sensitivity,
        }
    }

    /// The size to paint, where the message says it.
    pub fn size(&self) -> (Option<usize>, Option<usize>) {
        (self.paint.width, self.paint.height)
    }

    /// The work, or why it cannot be done.
    pub fn units(self, app: &App, picture: Option<Arc<Picture>>, outbox: &Arc<Outbox>) -> Result<Vec<Unit>, Refusal> {
        let pipeline = app.pipeline()?;
        let request = request(&self.paint, picture.as_deref())?;
        check(app, pipeline, &request)?;
        let make = Make {
            app,
            pipeline,
            paint: &self.paint,
            outbox,
        };
        match &self.kind {
            Kind::Paint => Ok(make.tiers(request)),
            Kind::Variants { seeds, prompts } => make.variants(&request, seeds, prompts),
            Kind::Sensitivity => make.sensitivity(&request),
        }
    }
}

fn request(paint: &Paint, picture: Option<&Picture>) -> Result<Request, Refusal> {
    let scheduler = match &paint.scheduler {
        Some(name) => Some(name.parse().map_err(Error::Schedule)?),
        None => None,
    };
    Ok(Request {
        prompt: paint.prompt.clone(),
        negative_prompt: paint.negative_prompt.clone().filter(|text| !text.trim().is_empty()),
        guidance_scale: paint.guidance_scale,
        seed: paint.seed.unwrap_or(0),
        width: paint.width,
        height: paint.height,
        schedule: ScheduleOptions {
            num_inference_steps: paint.steps,
            scheduler,
            ..ScheduleOptions::default()
        },
        init_image: picture.map(|picture| InitImage {
            picture: picture.clone(),
            strength: paint.strength,
        }),
        ..Request::default()
    })
}

/// Steps of the tier that is painted at once, if that is not the asked-for number: one, or as many
/// as leave one after `strength`.
fn preview_steps(steps: usize, strength: Option<f64>) -> Option<usize> {
    if steps > FEW_STEPS {
        return None;
    }
    let least = match strength {
        Some(strength) if strength > 0.0 => (1.0 / strength).ceil() as usize,
        _ => 1,
    };
    (least < steps).then_some(least)
}

/// What the units of one task have in common.
struct Make<'a> {
    app: &'a App,
    pipeline: &'a Pipeline,
    paint: &'a Paint,
    outbox: &'a Arc<Outbox>,
}

/// Which frame of its revision a unit gives.
#[derive(Clone, Copy)]
struct Place {
    rev: u64,
    index: usize,
    count: usize,
    tier: usize,
    last: bool,
    steps: usize,
    format: Format,
}

impl Make<'_> {
    fn steps(&self) -> usize {
        self.paint.steps.unwrap_or(self.pipeline.defaults().num_inference_steps)
    }

    fn preview_steps(&self, request: &Request) -> Option<usize> {
        let strength = request
            .init_image
            .as_ref()
            .map(|image| image.strength.unwrap_or(self.pipeline.defaults().strength));
        preview_steps(self.steps(), strength)
    }

    fn place(&self) -> Place {
        Place {
            rev: self.paint.rev,
            index: 0,
            count: 1,
            tier: 0,
            last: true,
            steps: self.steps(),
            format: self.paint.format.unwrap_or_default(),
        }
    }

    fn on_event(&self, place: Place) -> OnEvent {
        shows(place, self.outbox.clone(), self.app.metrics.clone())
    }

    /// A quick picture, and after a pause the one that was asked for.
    fn tiers(&self, request: Request) -> Vec<Unit> {
        let preview = self
            .preview_steps(&request)
            .filter(|_| self.paint.preview.unwrap_or(true));
        let Some(steps) = preview else {
            return vec![Unit {
                request,
                class: Class::Preview,
                ready_at: None,
                on_event: self.on_event(self.place()),
            }];
        };
        let mut first = request.clone();
        first.schedule.num_inference_steps = Some(steps);
        let place = self.place();
        vec![
            Unit {
                request: first,
                class: Class::Preview,
                ready_at: None,
                on_event: self.on_event(Place { last: false, ..place }),
            },
            Unit {
                request,
                class: Class::Work,
                ready_at: Some(Instant::now() + PAUSE),
                on_event: self.on_event(Place { tier: 1, ..place }),
            },
        ]
    }

    fn variants(&self, request: &Request, seeds: &[u64], prompts: &[String]) -> Result<Vec<Unit>, Refusal> {
        let most = self.app.limits().variants;
        let count = seeds.len().max(prompts.len());
        let right = (seeds.is_empty() != prompts.is_empty()) && count <= most;
        if !right {
            let message = format!("variants take either seeds or prompts, 1 to {most} of them");
            return Err(Refusal::field("seeds", message));
        }
        (0..count)
            .map(|index| {
                let mut request = request.clone();
                if let Some(&seed) = seeds.get(index) {
                    request.seed = seed;
                }
                if let Some(prompt) = prompts.get(index) {
                    request.prompt.clone_from(prompt);
                }
                check(self.app, self.pipeline, &request)?;
                let place = Place {
                    index,
                    count,
                    ..self.place()
                };
                Ok(Unit {
                    request,
                    class: Class::Work,
                    ready_at: None,
                    on_event: self.on_event(place),
                })
            })
            .collect()
    }

    /// The picture, then once more without each word; the changes are told at the end.
    fn sensitivity(&self, request: &Request) -> Result<Vec<Unit>, Refusal> {
        let prompt = &request.prompt;
        let found: Vec<_> = words(prompt).into_iter().take(WORDS).collect();
        if found.is_empty() {
            return Err(Refusal::field(
                "prompt",
                "the prompt has no words whose absence could be tried",
            ));
        }
        let mut base = request.clone();
        if let Some(steps) = self.preview_steps(request) {
            base.schedule.num_inference_steps = Some(steps);
        }
        let shared = Arc::new(Mutex::new(Comparison {
            base: None,
            changes: Vec::with_capacity(found.len()),
        }));
        let places: Vec<WordChange> = found
            .iter()
            .map(|word| {
                let (start, end) = words::characters(prompt, word);
                WordChange {
                    word: word.text.to_owned(),
                    start,
                    end,
                    change: 0.0,
                }
            })
            .collect();
        let mut requests = vec![base.clone()];
        requests.extend(found.iter().map(|word| Request {
            prompt: words::without(prompt, word),
            ..base.clone()
        }));
        let unit = |request| Unit {
            request,
            class: Class::Work,
            ready_at: None,
            on_event: compares(self.paint.rev, shared.clone(), places.clone(), self.outbox.clone()),
        };
        Ok(requests.into_iter().map(unit).collect())
    }
}

/// Shows the picture as a frame.
fn shows(place: Place, outbox: Arc<Outbox>, metrics: Arc<Metrics>) -> OnEvent {
    Box::new(move |event| {
        if let Event::Done(outcome) = event {
            let Outcome {
                pipeline,
                request,
                result,
                queued,
                cold,
            } = outcome;
            match result {
                Ok(response) => {
                    metrics.pictures.with_label_values(&["live"]).inc();
                    metrics
                        .paint_seconds
                        .with_label_values(&["live"])
                        .observe(response.timings.total.as_secs_f64());
                    let parameters = place.last.then(|| response.parameters(request, pipeline.name(), 0));
                    if let Some(frame) = frame(place, response, parameters, queued, cold) {
                        outbox.frame(frame);
                    }
                }
                Err(Error::Cancelled) => {}
                Err(error) => outbox.error(Some(place.rev), &Refusal::from(error).message, ""),
            }
        }
        ControlFlow::Continue(())
    })
}

fn frame(
    place: Place,
    response: prima_pipeline::Response,
    parameters: Option<Parameters>,
    queued: Duration,
    cold: bool,
) -> Option<Frame> {
    let t = &response.timings;
    Some(Frame {
        rev: place.rev,
        index: place.index,
        count: place.count,
        tier: place.tier,
        last: place.last,
        step: response.num_inference_steps,
        steps: place.steps,
        seed: response.seed,
        format: place.format,
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
        parameters,
        warnings: if place.last { response.warnings } else { Vec::new() },
        picture: response.pictures.into_iter().next()?,
    })
}

/// The pictures of a sensitivity task, in order: the whole prompt's, then what each word changes.
struct Comparison {
    base: Option<Picture>,
    changes: Vec<f64>,
}

fn compares(rev: u64, shared: Arc<Mutex<Comparison>>, places: Vec<WordChange>, outbox: Arc<Outbox>) -> OnEvent {
    Box::new(move |event| {
        let Event::Done(outcome) = event else {
            return ControlFlow::Continue(());
        };
        match outcome.result {
            Ok(response) => {
                let mut comparison = shared.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(picture) = response.pictures.into_iter().next() else {
                    return ControlFlow::Continue(());
                };
                match &comparison.base {
                    None => comparison.base = Some(picture),
                    Some(base) => {
                        let change = mean_change(base, &picture);
                        comparison.changes.push(change);
                    }
                }
                if comparison.changes.len() == places.len() {
                    let changes = places.iter().cloned().zip(&comparison.changes);
                    let words: Vec<WordChange> = changes.map(|(word, &change)| WordChange { change, ..word }).collect();
                    outbox.sensitivity(rev, &words);
                }
            }
            Err(Error::Cancelled) => {}
            Err(error) => outbox.error(Some(rev), &Refusal::from(error).message, ""),
        }
        ControlFlow::Continue(())
    })
}

/// Mean absolute difference, 0 to 1.
fn mean_change(a: &Picture, b: &Picture) -> f64 {
    let sum: u64 = a.rgb.iter().zip(&b.rgb).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    sum as f64 / (255.0 * a.rgb.len().max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_tier_takes_the_fewest_steps_that_paint_something() {
        assert_eq!(preview_steps(4, None), Some(1));
        assert_eq!(preview_steps(1, None), None);
        assert_eq!(preview_steps(4, Some(0.5)), Some(2));
        assert_eq!(
            preview_steps(4, Some(0.3)),
            None,
            "4 steps of which one is left are those asked for"
        );
        assert_eq!(preview_steps(30, None), None, "one step of a slow model shows nothing");
    }
}
