//! The loop that every objective shares: batch, loss, gradients, AdamW, EMA, and from time to
//! time a log line, a grid of samples and a saved state.

use crate::ema::Ema;
use crate::error::{Error, Result};
use crate::optimizer::{AdamW, AdamWConfig};
use crate::sample_grid::png_bytes;
use crate::state::{self, Position};
use crate::tensorboard::EventWriter;
use image::RgbImage;
use indicatif::{ProgressBar, ProgressStyle};
use prima_tensor::{Gradients, Param, Tensor};
use rayon::{ThreadPool, ThreadPoolBuilder};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A loss on the tape, and numbers worth a chart.
pub struct Loss {
    pub total: Tensor,
    pub metrics: Vec<(&'static str, f32)>,
}

/// What is trained: networks, data and a loss.
pub trait Objective: Sync {
    fn name(&self) -> &'static str;

    /// The parameters to train.
    fn params(&self) -> &[(String, Param)];

    fn batch_size(&self) -> usize;

    /// The loss of batch number `batch`, which depends on the parameters, the seed and `batch` only.
    /// `progress` is the fraction of the budget that is spent.
    fn loss(&self, batch: u64, progress: f32) -> Result<Loss>;

    /// Called after each update of the parameters.
    fn updated(&mut self) {}

    /// A grid of samples from the current weights (the averaged ones, when the trainer calls).
    fn samples(&self) -> Result<Option<RgbImage>>;
}

/// How long to train: a number of steps, a time, or whichever ends first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget {
    pub max_steps: Option<u64>,
    pub deadline: Option<Instant>,
}

impl Budget {
    pub fn steps(n: u64) -> Self {
        Self {
            max_steps: Some(n),
            deadline: None,
        }
    }

    /// Time from now on.
    pub fn time(duration: Duration) -> Self {
        Self {
            max_steps: None,
            deadline: Some(Instant::now() + duration),
        }
    }
}

/// What the loop needs to know besides the objective.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoopConfig {
    pub optimizer: AdamWConfig,
    /// Batches of one update, whose gradients are averaged. They are computed side by side, one thread each: for
    /// small networks that uses the cores better than splitting every operation.
    pub batches_per_step: usize,
    pub ema_decay: f32,
    pub log_every: u64,
    pub sample_every: u64,
    pub save_every_s: u64,
}

impl Default for LoopConfig {
    fn default() -> Self {
        Self {
            optimizer: AdamWConfig::default(),
            batches_per_step: 1,
            ema_decay: 0.999,
            log_every: 20,
            sample_every: 250,
            save_every_s: 120,
        }
    }
}

/// What a run amounts to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Summary {
    pub steps: u64,
    pub samples: u64,
    pub seconds: f64,
    /// Mean loss of the last 200 steps.
    pub loss: f32,
}

/// The state file of a stage.
pub fn state_path(dir: &Path) -> PathBuf {
    dir.join("state.safetensors")
}

/// Trains until the budget is spent; the parameters end as their averages. A state in `dir` is
/// resumed when `resume` is set, and ignored otherwise.
pub fn run(
    objective: &mut dyn Objective,
    config: &LoopConfig,
    budget: Budget,
    dir: &Path,
    resume: bool,
) -> Result<Summary> {
    Trainer::new(objective, config, budget, dir, resume)?.run()
}

struct Trainer<'a> {
    objective: &'a mut dyn Objective,
    config: &'a LoopConfig,
    budget: Budget,
    dir: &'a Path,
    optimizer: AdamW,
    ema: Ema,
    /// One for each batch of a step; empty where there is one batch, which has all threads.
    pools: Vec<ThreadPool>,
    step: u64,
    samples: u64,
    elapsed_before_s: f64,
    started: Instant,
    log: Log,
}

impl<'a> Trainer<'a> {
    fn new(
        objective: &'a mut dyn Objective,
        config: &'a LoopConfig,
        budget: Budget,
        dir: &'a Path,
        resume: bool,
    ) -> Result<Self> {
        std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
        let params = objective.params().to_vec();
        for (_, param) in &params {
            param.set_trainable(true);
        }
        let mut optimizer = AdamW::new(config.optimizer.clone(), &params);
        let mut ema = Ema::new(&params, config.ema_decay);
        let path = state_path(dir);
        let position = if resume && path.exists() {
            let position = state::load(&path, &mut optimizer, &mut ema)?;
            tracing::info!("{}: resuming at step {}", objective.name(), position.step);
            position
        } else {
            Position::default()
        };
        let count: usize = params.iter().map(|(_, p)| p.numel()).sum();
        tracing::info!(
            "{}: {count} parameters, {} x {} samples a step",
            objective.name(),
            config.batches_per_step.max(1),
            objective.batch_size()
        );
        Ok(Self {
            log: Log::new(objective.name(), dir, position.step)?,
            objective,
            config,
            budget,
            dir,
            optimizer,
            ema,
            pools: single_threads(config.batches_per_step)?,
            step: position.step,
            samples: position.samples,
            elapsed_before_s: position.elapsed_s,
            started: Instant::now(),
        })
    }

    fn run(mut self) -> Result<Summary> {
        let mut saved = Instant::now();
        while !self.finished() {
            self.train_step()?;
            if self.step.is_multiple_of(self.config.sample_every.max(1)) {
                self.draw_samples()?;
            }
            if saved.elapsed().as_secs() >= self.config.save_every_s {
                self.save()?;
                saved = Instant::now();
            }
        }
        self.save()?;
        self.draw_samples()?;
        self.ema.copy_to_params();
        for (_, param) in self.optimizer.params() {
            param.set_trainable(false);
        }
        Ok(Summary {
            steps: self.step,
            samples: self.samples,
            seconds: self.elapsed_s(),
            loss: self.log.recent_loss(),
        })
    }

    fn train_step(&mut self) -> Result<()> {
        let progress = self.progress();
        let mut batches = self.batches(progress)?;
        let loss = batches.iter().map(|b| b.loss).sum::<f32>() / batches.len() as f32;
        if !loss.is_finite() {
            return Err(Error::Diverged {
                objective: self.objective.name().into(),
                step: self.step,
                loss,
            });
        }
        let gradients = Gradients::mean(batches.iter_mut().map(|b| std::mem::take(&mut b.gradients)).collect());
        let learning_rate = self.config.optimizer.learning_rate_at(self.step, progress);
        let norm = self.optimizer.update(&gradients, learning_rate);
        if !norm.is_finite() {
            tracing::warn!(
                "{}: step {} skipped, its gradient is not finite",
                self.objective.name(),
                self.step
            );
        }
        self.objective.updated();
        self.ema.update(self.step);
        self.step += 1;
        self.samples += self.samples_per_step() as u64;
        self.log.push(loss, &batches, norm);
        if self.step.is_multiple_of(self.config.log_every.max(1)) {
            self.log
                .write(self.step, self.samples_per_step(), learning_rate, progress)?;
        }
        Ok(())
    }

    fn samples_per_step(&self) -> usize {
        self.objective.batch_size() * self.config.batches_per_step.max(1)
    }

    /// Loss and gradients of this step's batches.
    fn batches(&self, progress: f32) -> Result<Vec<Batch>> {
        let objective: &dyn Objective = &*self.objective;
        if self.pools.is_empty() {
            return Ok(vec![Batch::compute(objective, self.step, progress)?]);
        }
        let first = self.step * self.pools.len() as u64;
        std::thread::scope(|scope| {
            let running: Vec<_> = (first..)
                .zip(&self.pools)
                .map(|(number, pool)| scope.spawn(move || pool.install(|| Batch::compute(objective, number, progress))))
                .collect();
            running
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        })
    }

    fn elapsed_s(&self) -> f64 {
        self.elapsed_before_s + self.started.elapsed().as_secs_f64()
    }

    fn finished(&self) -> bool {
        self.budget.max_steps.is_some_and(|n| self.step >= n)
            || self.budget.deadline.is_some_and(|d| Instant::now() >= d)
    }

    /// Fraction of the budget spent, over all sessions.
    fn progress(&self) -> f32 {
        let by_steps = self
            .budget
            .max_steps
            .map_or(0.0, |n| self.step as f64 / n.max(1) as f64);
        let by_time = self.budget.deadline.map_or(0.0, |deadline| {
            let total = deadline.saturating_duration_since(self.started).as_secs_f64() + self.elapsed_before_s;
            self.elapsed_s() / total.max(1e-3)
        });
        by_steps.max(by_time).min(1.0) as f32
    }

    fn save(&self) -> Result<()> {
        let position = Position {
            step: self.step,
            samples: self.samples,
            elapsed_s: self.elapsed_s(),
        };
        state::save(&state_path(self.dir), &self.optimizer, &self.ema, position)
    }

    fn draw_samples(&mut self) -> Result<()> {
        let Some(grid) = self.ema.with_average(|| self.objective.samples())? else {
            return Ok(());
        };
        let png = png_bytes(&grid)?;
        let path = self.dir.join(format!("samples-{:06}.png", self.step));
        std::fs::write(&path, &png).map_err(Error::io(&path))?;
        self.log
            .events
            .image("samples", self.step, grid.width(), grid.height(), &png)
    }
}

/// One batch, done.
struct Batch {
    loss: f32,
    metrics: Vec<(&'static str, f32)>,
    gradients: Gradients,
}

impl Batch {
    fn compute(objective: &dyn Objective, number: u64, progress: f32) -> Result<Self> {
        let Loss { total, metrics } = objective.loss(number, progress)?;
        // The tape, which shares the weights' storage, ends here: the optimizer can work in place.
        Ok(Self {
            loss: total.item(),
            metrics,
            gradients: total.backward(),
        })
    }
}

/// A pool of one thread for each of several batches.
fn single_threads(batches: usize) -> Result<Vec<ThreadPool>> {
    if batches < 2 {
        return Ok(Vec::new());
    }
    (0..batches)
        .map(|_| ThreadPoolBuilder::new().num_threads(1).build())
        .collect::<std::result::Result<_, _>>()
        .map_err(|e| Error::Config(format!("cannot start a thread for each of {batches} batches: {e}")))
}

/// Running means to the terminal, to `metrics.jsonl` and to TensorBoard.
struct Log {
    name: &'static str,
    events: EventWriter,
    jsonl: std::fs::File,
    bar: ProgressBar,
    losses: Vec<f32>,
    metrics: Vec<(&'static str, f32)>,
    norms: f32,
    pending: u64,
    since: Instant,
}

impl Log {
    fn new(name: &'static str, dir: &Path, step: u64) -> Result<Self> {
        let path = dir.join("metrics.jsonl");
        let jsonl = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(Error::io(&path))?;
        let style = ProgressStyle::with_template("{prefix} {bar:30} {msg} {elapsed_precise}");
        let bar = ProgressBar::new(1000)
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
            .with_prefix(name)
            .with_position(step);
        Ok(Self {
            name,
            events: EventWriter::create(dir)?,
            jsonl,
            bar,
            losses: Vec::new(),
            metrics: Vec::new(),
            norms: 0.0,
            pending: 0,
            since: Instant::now(),
        })
    }

    fn push(&mut self, loss: f32, batches: &[Batch], norm: f32) {
        self.losses.push(loss);
        self.norms += norm;
        self.pending += 1;
        for (name, value) in batches.iter().flat_map(|b| &b.metrics) {
            let value = value / batches.len() as f32;
            match self.metrics.iter_mut().find(|(known, _)| known == name) {
                Some((_, sum)) => *sum += value,
                None => self.metrics.push((name, value)),
            }
        }
    }

    fn write(&mut self, step: u64, samples_per_step: usize, learning_rate: f32, progress: f32) -> Result<()> {
        let n = self.pending.max(1) as f32;
        let recent = &self.losses[self.losses.len().saturating_sub(self.pending as usize)..];
        let loss = recent.iter().sum::<f32>() / n;
        let per_second =
            (self.pending as f64 * samples_per_step as f64 / self.since.elapsed().as_secs_f64().max(1e-6)) as f32;
        let mut numbers = vec![("loss", loss), ("lr", learning_rate), ("grad_norm", self.norms / n)];
        numbers.push(("samples_per_s", per_second));
        numbers.extend(self.metrics.drain(..).map(|(name, sum)| (name, sum / n)));
        for (tag, value) in &numbers {
            self.events.scalar(tag, step, *value)?;
        }
        let mut line = serde_json::json!({ "stage": self.name, "step": step, "progress": progress });
        for (tag, value) in &numbers {
            line[*tag] = serde_json::json!(value);
        }
        writeln!(self.jsonl, "{line}").map_err(Error::io("metrics.jsonl"))?;
        self.bar.set_position((progress * 1000.0) as u64);
        self.bar
            .set_message(format!("step {step} loss {loss:.4} {per_second:.1}/s"));
        if self.bar.is_hidden() {
            let text: Vec<String> = numbers.iter().map(|(tag, value)| format!("{tag} {value:.4}")).collect();
            tracing::info!(
                "{} step {step} ({:.0} %): {}",
                self.name,
                progress * 100.0,
                text.join(", ")
            );
        }
        self.norms = 0.0;
        self.pending = 0;
        self.since = Instant::now();
        Ok(())
    }

    fn recent_loss(&self) -> f32 {
        let recent = &self.losses[self.losses.len().saturating_sub(200)..];
        recent.iter().sum::<f32>() / recent.len().max(1) as f32
    }
}
