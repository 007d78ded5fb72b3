//! Requests of programs on the engine: queued, watched, and ended when the client goes away.

use crate::app::App;
use crate::refusal::{Refusal, short};
use prima_pipeline::engine::{Class, Event, Job, OnEvent, Outcome, Unit};
use prima_pipeline::{Error, MAX_IMAGES, Parameters, Picture, Pipeline, Progress, Request};
use prima_tensor::Tensor;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::mpsc;

/// The pictures of one unit, with the recipe of each.
pub(crate) struct Painted {
    pub pictures: Vec<(Picture, Parameters)>,
    /// `None` when it was interrupted.
    pub response: Option<prima_pipeline::Response>,
}

/// What a running job tells its handler.
#[expect(clippy::large_enum_variant, reason = "made once a unit")]
pub(crate) enum JobEvent {
    /// How a unit looks after a step.
    Preview(Vec<Picture>),
    Painted(Painted),
    Failed(Refusal),
}

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
        })
    }

    fn lock(&self) -> MutexGuard<'_, WatchState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn snapshot(&self) -> WatchState {
        self.lock().clone()
    }

    /// From the next step on there is a preview in the snapshot.
    pub fn want_preview(&self) {
        self.wants_preview.store(true, Ordering::Relaxed);
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

/// A job in the engine; dropping it ends the work.
pub(crate) struct Running {
    _job: Job,
    events: mpsc::UnboundedReceiver<JobEvent>,
}

impl Running {
    pub async fn next(&mut self) -> Option<JobEvent> {
        self.events.recv().await
    }

    /// All pictures, one `Painted` a unit. An interrupted job gives what it has.
    pub async fn all(mut self) -> Result<Vec<Painted>, Refusal> {
        let mut all = Vec::new();
        while let Some(event) = self.next().await {
            match event {
                JobEvent::Preview(_) => {}
                JobEvent::Painted(painted) => all.push(painted),
                JobEvent::Failed(refusal) => return Err(refusal),
            }
        }
        Ok(all)
    }
}

/// Queues `requests`, one unit each. `previews`: after how many steps of each a preview is sent.
pub(crate) fn start(
    app: &App,
    api: &'static str,
    requests: Vec<Request>,
    watch: &Arc<Watch>,
    previews: usize,
) -> Result<Running, Refusal> {
    let pipeline = app.pipeline()?;
    for request in &requests {
        check(app, pipeline, request)?;
    }
    let (sender, events) = mpsc::unbounded_channel();
    let units = requests
        .into_iter()
        .enumerate()
        .map(|(index, request)| Unit {
            request,
            class: Class::Work,
            ready_at: None,
            on_event: on_event(app, api, index, watch.clone(), previews, sender.clone()),
        })
        .collect();
    let job = app.engine.submit(units).map_err(|_| Refusal::queue_full())?;
    Ok(Running { _job: job, events })
}

fn on_event(
    app: &App,
    api: &'static str,
    index: usize,
    watch: Arc<Watch>,
    previews: usize,
    sender: mpsc::UnboundedSender<JobEvent>,
) -> OnEvent {
    let metrics = app.metrics.clone();
    let mut sent = 0;
    let mut began = Instant::now();
    let mut denoised: Option<Tensor> = None;
    Box::new(move |event| {
        match event {
            Event::Begun { .. } => {
                began = Instant::now();
                *watch.lock() = WatchState {
                    unit: index,
                    begun: true,
                    ..WatchState::default()
                };
                watch.skipped.store(false, Ordering::Relaxed);
            }
            Event::Progress { progress, pipeline } => {
                if let Progress::Step {
                    done,
                    total,
                    denoised: latents,
                    ..
                } = progress
                {
                    denoised = Some(latents.clone());
                    {
                        let mut state = watch.lock();
                        (state.step, state.steps) = (done, total);
                    }
                    let due = done < total && sent < previews && done * (previews + 1) >= total * (sent + 1);
                    let asked = done < total && watch.wants_preview.swap(false, Ordering::Relaxed);
                    if (due || asked)
                        && let Ok(pictures) = pipeline.preview(latents)
                    {
                        watch.lock().preview = pictures.first().cloned();
                        if due {
                            sent += 1;
                            let _ = sender.send(JobEvent::Preview(pictures));
                        }
                    }
                }
            }
            Event::Done(outcome) => {
                metrics
                    .paint_seconds
                    .with_label_values(&[api])
                    .observe(began.elapsed().as_secs_f64());
                let event = finished(outcome, &watch, denoised.take());
                if let JobEvent::Painted(painted) = &event {
                    metrics
                        .pictures
                        .with_label_values(&[api])
                        .inc_by(painted.pictures.len() as u64);
                }
                let _ = sender.send(event);
                return ControlFlow::Continue(());
            }
        }
        // Nobody listens any more, or someone said stop.
        if sender.is_closed() || watch.is_interrupted() || watch.is_skipped() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })
}

/// A unit's end as its handler hears of it. Interrupted by request, it still gives what it had come to.
fn finished(outcome: Outcome, watch: &Watch, denoised: Option<Tensor>) -> JobEvent {
    let Outcome {
        pipeline,
        request,
        result,
        ..
    } = outcome;
    let painted = match result {
        Ok(mut response) => {
            let recipes: Vec<Parameters> = (0..response.pictures.len())
                .map(|i| response.parameters(request, pipeline.name(), i))
                .collect();
            Painted {
                pictures: std::mem::take(&mut response.pictures)
                    .into_iter()
                    .zip(recipes)
                    .collect(),
                response: Some(response),
            }
        }
        Err(Error::Cancelled) if watch.is_interrupted() || watch.is_skipped() => {
            let pictures = denoised
                .and_then(|latents| pipeline.preview(&latents).ok())
                .unwrap_or_default();
            let recipe = Parameters {
                prompt: request.prompt.clone(),
                ..Parameters::default()
            };
            Painted {
                pictures: pictures.into_iter().map(|p| (p, recipe.clone())).collect(),
                response: None,
            }
        }
        Err(error) => return JobEvent::Failed(error.into()),
    };
    JobEvent::Painted(painted)
}

/// The server's limits, and everything that the model itself would refuse.
pub(crate) fn check(app: &App, pipeline: &Pipeline, request: &Request) -> Result<(), Refusal> {
    let limits = app.limits();
    let negative = request.negative_prompt.as_deref().unwrap_or("");
    for (param, text) in [("prompt", request.prompt.as_str()), ("negative_prompt", negative)] {
        let chars = text.chars().count();
        if chars > limits.prompt_chars {
            let message = format!(
                "{param} has {chars} characters, more than the {} allowed",
                limits.prompt_chars
            );
            return Err(Refusal::field(param, message));
        }
    }
    for (param, side) in [("width", request.width), ("height", request.height)] {
        if let Some(side) = side.filter(|&s| s > limits.max_side_px) {
            let message = format!(
                "{param} {side} is more than the {} pixels that this server paints",
                limits.max_side_px
            );
            return Err(Refusal::field(param, message));
        }
    }
    let steps = request.schedule.num_inference_steps;
    if let Some(steps) = steps.filter(|&s| s > limits.max_steps) {
        let message = format!(
            "steps {steps} is more than the {} that this server takes",
            limits.max_steps
        );
        return Err(Refusal::field("steps", message));
    }
    if request.num_images > limits.variants.min(MAX_IMAGES) {
        let message = format!(
            "{} pictures are more than the {} of one request",
            request.num_images, limits.variants
        );
        return Err(Refusal::field("n", message));
    }
    Ok(pipeline.check(request)?)
}

/// `512x768` as width and height in pixels.
pub(crate) fn parse_size(param: &'static str, text: &str) -> Result<(usize, usize), Refusal> {
    let sides = text
        .split_once(['x', 'X', '\u{d7}'])
        .and_then(|(w, h)| Some((w.trim().parse().ok()?, h.trim().parse().ok()?)));
    sides.ok_or_else(|| {
        let text = short(text, 40);
        Refusal::field(param, format!("{param} {text:?} is not a size such as 512x512"))
    })
}

/// A seed where the client gave none.
pub(crate) fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish() & u64::from(u32::MAX)
}
