//! The loop that every objective shares: batch, loss, gradients, AdamW, EMA, and from time to
//! time a log line, a grid of samples and a saved state.

use crate::ema::Ema;
use crate::error::{Error, Result};
use crate::group::Group;
use crate::log::Log;
use crate::optimizer::{AdamW, AdamWConfig};
use crate::state::{self, Position};
use image::RgbImage;
use prima_tensor::{Device, Gradients, Param, Tensor, recomputing};
use rayon::{ThreadPool, ThreadPoolBuilder};
use serde::{Deserialize, Serialize};
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
    /// Batches of one update (of each process), whose gradients are averaged. On a CPU they are computed side by side, one
    /// thread each: for small networks that uses the cores better than splitting every operation. On a GPU one after the
    /// other, which makes a large batch of several that fit.
    pub batches_per_step: usize,
    /// Keep the inputs of the residual and transformer blocks only, and compute the rest again in the backward pass: about a
    /// third more time for much less memory.
    pub recompute: bool,
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
            recompute: false,
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

/// How a run is started.
pub struct Session {
    pub budget: Budget,
    /// Go on from the saved state, if there is one.
    pub resume: bool,
    /// The processes that train together.
    pub group: Group,
}

impl Session {
    /// In this process alone.
    pub fn alone(budget: Budget, resume: bool) -> Self {
        Self {
            budget,
            resume,
            group: Group::alone(),
        }
    }
}

/// Trains until the budget is spent; the parameters end as their averages. A state in `dir` is
/// resumed when the session says so, and ignored otherwise.
pub fn run(objective: &mut dyn Objective, config: &LoopConfig, dir: &Path, session: &mut Session) -> Result<Summary> {
    Trainer::new(objective, config, dir, session)?.run()
}

struct Trainer<'a> {
    objective: &'a mut dyn Objective,
    config: &'a LoopConfig,
    dir: &'a Path,
    budget: Budget,
    group: &'a mut Group,
    optimizer: AdamW,
    ema: Ema,
    /// One for each batch of a step; empty where they are computed one after the other.
    pools: Vec<ThreadPool>,
    step: u64,
    samples: u64,
    elapsed_before_s: f64,
    started: Instant,
    /// Of each step.
    losses: Vec<f32>,
    /// Rank 0 has one.
    log: Option<Log>,
}

impl<'a> Trainer<'a> {
    fn new(
        objective: &'a mut dyn Objective,
        config: &'a LoopConfig,
        dir: &'a Path,
        session: &'a mut Session,
    ) -> Result<Self> {
        std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
        let params = objective.params().to_vec();
        for (_, param) in &params {
            param.set_trainable(true);
        }
        let mut optimizer = AdamW::new(config.optimizer.clone(), &params);
        let mut ema = Ema::new(&params, config.ema_decay);
        let path = state_path(dir);
        let position = if session.resume && path.exists() {
            let position = state::load(&path, &mut optimizer, &mut ema)?;
            tracing::info!("{}: resuming at step {}", objective.name(), position.step);
            position
        } else {
            Position::default()
        };
        let group = &mut session.group;
        check_same_start(group, objective, config, &params, position.step)?;
        let count: usize = params.iter().map(|(_, p)| p.numel()).sum();
        tracing::info!(
            "{}: {count} parameters, {} x {} samples a step",
            objective.name(),
            config.batches_per_step.max(1) * group.world(),
            objective.batch_size()
        );
        let is_first = group.is_first();
        let log = is_first.then(|| Log::new(objective.name(), dir, position.step));
        Ok(Self {
            log: log.transpose()?,
            objective,
            config,
            dir,
            budget: session.budget,
            group,
            optimizer,
            ema,
            pools: single_threads(config.batches_per_step)?,
            step: position.step,
            samples: position.samples,
            elapsed_before_s: position.elapsed_s,
            started: Instant::now(),
            losses: Vec::new(),
        })
    }

    fn run(mut self) -> Result<Summary> {
        let mut saved = Instant::now();
        while let Some(progress) = self.next_step()? {
            self.train_step(progress)?;
            if self.step.is_multiple_of(self.config.sample_every.max(1)) {
                self.draw_samples()?;
            }
            if saved.elapsed().as_secs() >= self.config.save_every_s {
                self.save()?;
                saved = Instant::now();
            }
        }
        // No process goes while another may still read from its memory.
        self.group.sum(0.0)?;
        self.save()?;
        self.draw_samples()?;
        self.ema.copy_to_params();
        for (_, param) in self.optimizer.params() {
            param.set_trainable(false);
        }
        let recent = &self.losses[self.losses.len().saturating_sub(200)..];
        Ok(Summary {
            steps: self.step,
            samples: self.samples,
            seconds: self.elapsed_s(),
            loss: recent.iter().sum::<f32>() / recent.len().max(1) as f32,
        })
    }

    /// The fraction of the budget that is spent; `None` at its end. All processes go by rank 0's clock.
    fn next_step(&mut self) -> Result<Option<f32>> {
        let mine = [u64::from(self.progress().to_bits()), u64::from(self.finished())];
        let [progress, finished] = self.group.follow_first(mine)?;
        Ok((finished == 0).then_some(f32::from_bits(progress as u32)))
    }

    fn train_step(&mut self, progress: f32) -> Result<()> {
        let Batch {
            loss,
            metrics,
            mut gradients,
        } = self.batches(progress)?;
        let batches = self.config.batches_per_step.max(1) * self.group.world();
        let loss = self.group.sum(loss)? / batches as f32;
        if !loss.is_finite() {
            return Err(Error::Diverged {
                objective: self.objective.name().into(),
                step: self.step,
                loss,
            });
        }
        self.group.sum_gradients(&mut gradients, self.optimizer.params())?;
        gradients.scale(1.0 / batches as f32);
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
        let samples = self.objective.batch_size() * batches;
        self.samples += samples as u64;
        self.losses.push(loss);
        if let Some(log) = &mut self.log {
            log.push(loss, &metrics, self.config.batches_per_step.max(1), norm);
            if self.step.is_multiple_of(self.config.log_every.max(1)) {
                log.write(self.step, samples, learning_rate, progress)?;
            }
        }
        Ok(())
    }

    /// The sum of this process's batches of this step.
    fn batches(&self, progress: f32) -> Result<Batch> {
        let objective: &dyn Objective = &*self.objective;
        let recompute = self.config.recompute;
        let count = self.config.batches_per_step.max(1) as u64;
        let first = (self.step * self.group.world() as u64 + self.group.rank() as u64) * count;
        let compute = move |number| Batch::compute(objective, number, progress, recompute);
        let mut sum = Batch::default();
        if self.pools.is_empty() {
            for number in first..first + count {
                sum.add(compute(number)?);
            }
            return Ok(sum);
        }
        let batches: Vec<Result<Batch>> = std::thread::scope(|scope| {
            let running: Vec<_> = (first..)
                .zip(&self.pools)
                .map(|(number, pool)| scope.spawn(move || pool.install(|| compute(number))))
                .collect();
            running
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        for batch in batches {
            sum.add(batch?);
        }
        Ok(sum)
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
        if !self.group.is_first() {
            return Ok(());
        }
        let position = Position {
            step: self.step,
            samples: self.samples,
            elapsed_s: self.elapsed_s(),
        };
        state::save(&state_path(self.dir), &self.optimizer, &self.ema, position)
    }

    fn draw_samples(&mut self) -> Result<()> {
        let Some(log) = &mut self.log else { return Ok(()) };
        match self.ema.with_average(|| self.objective.samples())? {
            Some(grid) => log.samples(self.step, &grid),
            None => Ok(()),
        }
    }
}

/// Processes that start apart would drift on unnoticed.
fn check_same_start(
    group: &mut Group,
    objective: &dyn Objective,
    config: &LoopConfig,
    params: &[(String, Param)],
    step: u64,
) -> Result<()> {
    if group.world() == 1 {
        return Ok(());
    }
    let mix = |hash: u64, value: u64| (hash ^ value).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    let mut hash = mix(0, objective.batch_size() as u64);
    hash = format!("{config:?}")
        .bytes()
        .fold(hash, |h, byte| mix(h, u64::from(byte)));
    for (_, param) in params {
        let bits = param
            .tensor()
            .data()
            .iter()
            .fold(hash, |h, v| mix(h, u64::from(v.to_bits())));
        hash = bits;
    }
    let [first_step, first_hash] = group.follow_first([step, hash])?;
    if (first_step, first_hash) == (step, hash) {
        return Ok(());
    }
    let message = format!(
        "rank {} is not where rank 0 is (step {step} and {first_step}): all need the same configuration and the same run folder",
        group.rank()
    );
    Err(Error::Launch(message))
}

/// Batches, done: sums of their losses and gradients.
#[derive(Default)]
struct Batch {
    loss: f32,
    metrics: Vec<(&'static str, f32)>,
    gradients: Gradients,
}

impl Batch {
    fn compute(objective: &dyn Objective, number: u64, progress: f32, recompute: bool) -> Result<Self> {
        let Loss { total, metrics } = recomputing(recompute, || objective.loss(number, progress))?;
        let gradients = total.backward();
        // The tape, which shares the weights' storage, ends here: the optimizer can work in place. The loss is read last, so
        // that a device has all its work by then.
        Ok(Self {
            loss: total.item(),
            metrics,
            gradients,
        })
    }

    fn add(&mut self, other: Self) {
        self.loss += other.loss;
        self.metrics.extend(other.metrics);
        self.gradients.add(other.gradients);
    }
}

/// A pool of one thread for each of several batches, where they are computed side by side.
fn single_threads(batches: usize) -> Result<Vec<ThreadPool>> {
    if batches < 2 || Device::current().is_gpu() {
        return Ok(Vec::new());
    }
    (0..batches)
        .map(|_| ThreadPoolBuilder::new().num_threads(1).build())
        .collect::<std::result::Result<_, _>>()
        .map_err(|e| Error::Config(format!("cannot start a thread for each of {batches} batches: {e}")))
}
