//! From a message to the units that the engine paints for it.

use super::layers::Given;
use super::messages::{Paint, Variants, WordChange};
use super::outbox::Outbox;
use super::results::{Comparison, FrameSpec, compares, shows};
use super::words::{self, words};
use crate::app::App;
use crate::loras::choices;
use crate::refusal::Refusal;
use prima_engine::{Class, OnEvent, Unit};
use prima_pipeline::{Pipeline, Request, RequestBuilder, ScheduleOptions, scheduler_named};
use std::sync::{Arc, Mutex};
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

    pub fn asked(&self) -> &Paint {
        &self.paint
    }

    /// The work, or why it cannot be done.
    pub fn units(self, app: &App, given: Given, outbox: &Arc<Outbox>) -> Result<Vec<Unit>, Refusal> {
        let (pipeline, model) = (app.pipeline()?, app.model()?);
        let asked = asked(app, &self.paint, given)?;
        let make = Make {
            app,
            pipeline,
            model,
            paint: &self.paint,
            outbox,
        };
        match &self.kind {
            Kind::Paint => Ok(make.tiers(asked.build_for(pipeline)?)),
            Kind::Variants { seeds, prompts } => make.variants(&asked, seeds, prompts),
            Kind::Sensitivity => make.sensitivity(&asked.build_for(pipeline)?),
        }
    }
}

fn asked(app: &App, paint: &Paint, given: Given) -> Result<RequestBuilder, Refusal> {
    Ok(RequestBuilder {
        prompt: Some(paint.prompt.clone()),
        negative_prompt: paint.negative_prompt.clone(),
        guidance_scale: paint.guidance_scale,
        // While someone types, only the words change.
        seed: Some(paint.seed.unwrap_or(0).into()),
        width: paint.width,
        height: paint.height,
        schedule: ScheduleOptions {
            num_inference_steps: paint.steps,
            scheduler: scheduler_named(paint.scheduler.as_deref())?,
            ..ScheduleOptions::default()
        },
        loras: choices(paint.loras.clone())?,
        blend: paint.blend.clone(),
        regions: paint.regions.clone().unwrap_or_default(),
        image: given.picture,
        strength: paint.strength,
        mask: given.mask,
        controls: given.control.into_iter().collect(),
        ..app.request(&[])
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
    /// The same to hold on to.
    model: Arc<Pipeline>,
    paint: &'a Paint,
    outbox: &'a Arc<Outbox>,
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

    fn frame(&self) -> FrameSpec {
        FrameSpec {
            rev: self.paint.rev,
            index: 0,
            count: 1,
            tier: 0,
            last: true,
            steps: self.steps(),
            format: self.paint.format.unwrap_or_default(),
        }
    }

    fn shows(&self, frame: FrameSpec) -> OnEvent {
        let app = self.app;
        shows(frame, self.outbox.clone(), app.metrics.clone(), app.screen.clone())
    }

    /// A quick picture, and after a pause the one that was asked for.
    fn tiers(&self, request: Request) -> Vec<Unit> {
        let preview = self
            .preview_steps(&request)
            .filter(|_| self.paint.preview.unwrap_or(true));
        let Some(steps) = preview else {
            return vec![Unit {
                request,
                model: Some(self.model.clone()),
                recipe: true,
                class: Class::Preview,
                ready_at: None,
                on_event: self.shows(self.frame()),
            }];
        };
        let mut first = request.clone();
        first.schedule.num_inference_steps = Some(steps);
        let frame = self.frame();
        vec![
            Unit {
                request: first,
                model: Some(self.model.clone()),
                recipe: false,
                class: Class::Preview,
                ready_at: None,
                on_event: self.shows(FrameSpec { last: false, ..frame }),
            },
            Unit {
                request,
                model: Some(self.model.clone()),
                recipe: true,
                class: Class::Work,
                ready_at: Some(Instant::now() + PAUSE),
                on_event: self.shows(FrameSpec { tier: 1, ..frame }),
            },
        ]
    }

    fn variants(&self, asked: &RequestBuilder, seeds: &[u64], prompts: &[String]) -> Result<Vec<Unit>, Refusal> {
        let most = self.app.limits().variants;
        let count = seeds.len().max(prompts.len());
        let right = (seeds.is_empty() != prompts.is_empty()) && count <= most;
        if !right {
            let message = format!("variants take either seeds or prompts, 1 to {most} of them");
            return Err(Refusal::field("seeds", message));
        }
        (0..count)
            .map(|index| {
                let variant = RequestBuilder {
                    prompt: prompts.get(index).or(asked.prompt.as_ref()).cloned(),
                    seed: seeds.get(index).map(|seed| i128::from(*seed)).or(asked.seed),
                    ..asked.clone()
                };
                let frame = FrameSpec {
                    index,
                    count,
                    ..self.frame()
                };
                Ok(Unit {
                    request: variant.build_for(self.pipeline)?,
                    model: Some(self.model.clone()),
                    recipe: true,
                    class: Class::Work,
                    ready_at: None,
                    on_event: self.shows(frame),
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
        let shared: Arc<Mutex<Comparison>> = Arc::default();
        let changes: Arc<[WordChange]> = found
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
            model: Some(self.model.clone()),
            recipe: false,
            class: Class::Work,
            ready_at: None,
            on_event: compares(self.paint.rev, shared.clone(), changes.clone(), self.outbox.clone()),
        };
        Ok(requests.into_iter().map(unit).collect())
    }
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
