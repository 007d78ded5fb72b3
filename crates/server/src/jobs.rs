//! Requests of programs on the engine: queued, watched, and ended when the client goes away.

use crate::app::App;
use crate::metrics::Metrics;
use crate::refusal::Refusal;
use crate::watch::{NamedTask, Watch};
use prima_engine::{Class, Event, Failure, Job, OnEvent, Reply, Unit};
use prima_pipeline::{Parameters, Picture, Request, Response};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

/// The pictures of one unit, with the recipe of each.
pub(crate) struct Painted {
    pub pictures: Vec<(Picture, Parameters)>,
    /// `None` when it was interrupted.
    pub response: Option<Response>,
}

/// What a running job tells its handler.
#[expect(clippy::large_enum_variant, reason = "made once a unit")]
pub(crate) enum JobEvent {
    /// A unit has taken `step` of its steps.
    Step {
        step: usize,
        of: usize,
    },
    /// How a unit looks after a step.
    Preview(Vec<Picture>),
    Painted(Painted),
    Failed(Refusal),
}

/// A job in the engine; dropping it ends the work.
pub(crate) struct Running {
    _job: Job,
    _named: Option<NamedTask>,
    units: usize,
    events: mpsc::UnboundedReceiver<JobEvent>,
}

impl Running {
    pub async fn next(&mut self) -> Option<JobEvent> {
        self.events.recv().await
    }

    /// All pictures, one `Painted` a unit. An interrupted job gives what it has; units that the engine dropped on its end are
    /// an error.
    pub async fn all(mut self) -> Result<Vec<Painted>, Refusal> {
        let mut all = Vec::new();
        while let Some(event) = self.next().await {
            match event {
                JobEvent::Step { .. } | JobEvent::Preview(_) => {}
                JobEvent::Painted(painted) => all.push(painted),
                JobEvent::Failed(refusal) => return Err(refusal),
            }
        }
        if all.len() < self.units {
            return Err(Failure::Cancelled.into());
        }
        Ok(all)
    }
}

/// Queues `requests`, which were built for this model, one unit each. `previews`: how many of each picture are sent before it.
pub(crate) fn start(
    app: &App,
    api: &'static str,
    requests: Vec<Request>,
    watch: &Arc<Watch>,
    previews: usize,
) -> Result<Running, Refusal> {
    let count = requests.len();
    let model = app.model()?;
    let (sender, events) = mpsc::unbounded_channel();
    let units = requests.into_iter().enumerate().map(|(index, request)| Unit {
        on_event: Reporter {
            index,
            api,
            prompt: request.prompt.clone(),
            watch: watch.clone(),
            metrics: app.metrics.clone(),
            sender: sender.clone(),
            previews,
            sent: 0,
            sends: false,
            began: Instant::now(),
            came_to: Vec::new(),
        }
        .into_callback(),
        request,
        model: Some(model.clone()),
        recipe: true,
        class: Class::Work,
        ready_at: None,
    });
    let job = app.engine.submit(units.collect()).map_err(|_| Refusal::queue_full())?;
    Ok(Running {
        _job: job,
        _named: app.name(watch),
        units: count,
        events,
    })
}

/// Tells the handler, the watch and the metrics of one unit.
struct Reporter {
    index: usize,
    api: &'static str,
    prompt: String,
    watch: Arc<Watch>,
    metrics: Arc<Metrics>,
    sender: mpsc::UnboundedSender<JobEvent>,
    /// Previews to send, and those sent.
    previews: usize,
    sent: usize,
    /// Whether the next preview is one to send, and not for the watch only.
    sends: bool,
    began: Instant,
    /// The last preview.
    came_to: Vec<Picture>,
}

impl Reporter {
    fn into_callback(mut self) -> OnEvent {
        Box::new(move |event| self.hear(event))
    }

    fn hear(&mut self, event: Event) -> Reply {
        let mut wanted = false;
        match event {
            Event::Begun { .. } => {
                self.began = Instant::now();
                self.watch.begin(self.index);
            }
            Event::Step { step, of } => {
                self.watch.step(step, of);
                let _ = self.sender.send(JobEvent::Step { step, of });
                self.sends =
                    step < of && self.sent < self.previews && step * (self.previews + 1) >= of * (self.sent + 1);
                wanted = (step < of && self.watch.take_want()) || self.sends;
            }
            Event::Preview { pictures, .. } => self.show(pictures),
            Event::Text | Event::Decode { .. } => {}
            Event::Done(outcome) => {
                let event = self.finished(outcome.result);
                self.count(&event);
                let _ = self.sender.send(event);
                return Reply::GoOn;
            }
        }
        if self.watch.is_interrupted() || self.watch.is_skipped() {
            Reply::StopWithPreview
        } else if self.sender.is_closed() {
            // Nobody listens any more.
            Reply::Stop
        } else if wanted {
            Reply::Preview
        } else {
            Reply::GoOn
        }
    }

    fn show(&mut self, pictures: Vec<Picture>) {
        self.watch.show(pictures.first().cloned());
        self.came_to.clone_from(&pictures);
        if std::mem::take(&mut self.sends) {
            self.sent += 1;
            let _ = self.sender.send(JobEvent::Preview(pictures));
        }
    }

    /// A unit's end as its handler hears of it. Interrupted by request, it still gives what it had come to.
    fn finished(&mut self, result: Result<prima_engine::Painted, Failure>) -> JobEvent {
        match result {
            Ok(painted) => {
                let mut response = painted.response;
                let pictures = std::mem::take(&mut response.pictures);
                JobEvent::Painted(Painted {
                    pictures: pictures.into_iter().zip(painted.recipes).collect(),
                    response: Some(response),
                })
            }
            Err(Failure::Cancelled) if self.watch.is_interrupted() || self.watch.is_skipped() => {
                let recipe = Parameters {
                    prompt: self.prompt.clone(),
                    ..Parameters::default()
                };
                let pictures = std::mem::take(&mut self.came_to);
                JobEvent::Painted(Painted {
                    pictures: pictures.into_iter().map(|p| (p, recipe.clone())).collect(),
                    response: None,
                })
            }
            Err(failure) => JobEvent::Failed(failure.into()),
        }
    }

    fn count(&self, event: &JobEvent) {
        let seconds = self.began.elapsed().as_secs_f64();
        self.metrics
            .paint_seconds
            .with_label_values(&[self.api])
            .observe(seconds);
        if let JobEvent::Painted(painted) = event {
            let pictures = painted.pictures.len() as u64;
            self.metrics.pictures.with_label_values(&[self.api]).inc_by(pictures);
        }
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs())
}
