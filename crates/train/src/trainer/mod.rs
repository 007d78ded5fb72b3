//! The loop that every objective shares: turns, batches, losses, gradients, AdamW, averages, and from time to time a log
//! line, a grid of samples and a saved state.

mod batches;
mod ema;
mod learner;
mod log;
mod muon;
mod optimizer;
mod options;
pub(crate) mod state;
pub(crate) mod states;
mod tensorboard;

#[cfg(test)]
pub(crate) use optimizer::LrScheduler;
pub use optimizer::{AdamW, AdamWConfig};
pub(crate) use options::LoopConfig;
pub use options::{Budget, RunOptions, Summary};

use crate::error::{Error, Result};
use crate::group::Group;
use crate::objective::{Batch, Objective, Turn};
use crate::params::NamedParams;
use crate::stage_folder::StageFolder;
use batches::{Batches, Sum};
use learner::{Learner, with_averages};
use log::{Log, Report};
use state::Position;
use states::States;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Trains until the budget is spent or the run is asked to stop; the parameters end as their averages. A state in `dir` is
/// resumed, refused or removed, as the options say.
pub(crate) fn run(
    objective: &mut dyn Objective,
    config: &LoopConfig,
    dir: &Path,
    options: &mut RunOptions,
) -> Result<Summary> {
    Trainer::new(objective, config, dir, options)?.run()
}

struct Trainer<'a> {
    objective: &'a mut dyn Objective,
    config: &'a LoopConfig,
    states: States,
    budget: Budget,
    /// Was this process asked to stop, and was any of the group?
    stop: Arc<AtomicBool>,
    stopping: bool,
    group: &'a mut Group,
    learners: Vec<Learner>,
    buffers: NamedParams,
    batches: Batches,
    position: Position,
    started: Instant,
    /// Rank 0 has one.
    log: Option<Log>,
    /// Rank 0 alone writes.
    _folder: Option<StageFolder>,
}

/// What comes after a step.
enum Next {
    /// Another one, with this fraction of the budget spent.
    Step(f32),
    Finished,
    Stopped,
}

impl<'a> Trainer<'a> {
    fn new(
        objective: &'a mut dyn Objective,
        config: &'a LoopConfig,
        dir: &'a Path,
        options: &'a mut RunOptions,
    ) -> Result<Self> {
        if config.keep == 0 {
            let message = "keep is 0, and there is no going on without a state: keep 1 or more";
            return Err(Error::Config(message.into()));
        }
        let name = objective.name();
        let is_first = options.group.is_first();
        let folder = is_first.then(|| StageFolder::hold(dir)).transpose()?;
        let mut states = states_to_go_on_from(dir, options, folder.as_ref())?;
        let buffers = objective.buffers();
        let mut learners = Learner::all(name, objective.players(), &buffers)?;
        for (_, param) in learners.iter().flat_map(Learner::params) {
            param.set_bf16_products(config.bf16_products);
        }
        let position = match states.newest_whole()? {
            Some(path) => {
                let position = state::load(&path, &mut learners, &buffers)?;
                tracing::info!("{name}: resuming at step {}", position.step);
                position
            }
            None => Position::default(),
        };
        learners[0].set_trainable(true);
        let group = &mut options.group;
        let batches = Batches::new(config.batches_per_step, config.recompute)?;
        check_same_start(group, objective, config, &learners, &buffers, position.step)?;
        for learner in &learners {
            let count: usize = learner.params().iter().map(|(_, p)| p.numel()).sum();
            let who = who(name, learner.name, learners.len());
            let samples = batches.count() * group.world();
            tracing::info!(
                "{who}: {count} parameters, {samples} x {} samples a step",
                objective.batch_size()
            );
        }
        let log = is_first.then(|| Log::new(name, dir, position.step));
        Ok(Self {
            log: log.transpose()?,
            objective,
            config,
            states,
            budget: options.budget,
            stop: options.stop.clone(),
            stopping: false,
            group,
            learners,
            buffers,
            batches,
            position,
            started: Instant::now(),
            _folder: folder,
        })
    }

    fn run(mut self) -> Result<Summary> {
        let mut saved = Instant::now();
        let stopped = loop {
            match self.next_step()? {
                Next::Step(progress) => self.train_step(progress)?,
                Next::Finished => break false,
                Next::Stopped => break true,
            }
            if self.config.sample_every > 0 && self.position.step.is_multiple_of(self.config.sample_every) {
                self.draw_samples()?;
            }
            if saved.elapsed().as_secs() >= self.config.save_every_s {
                self.save()?;
                saved = Instant::now();
            }
        };
        // No process goes while another may still read from its memory.
        self.group.sum(&mut [0.0])?;
        // A run that was stopped before its first step has nothing to keep.
        if !stopped || self.position.step > 0 {
            self.save()?;
        }
        // Who asks to stop does not wait long.
        if self.config.sample_every > 0 && !stopped {
            self.draw_samples()?;
        }
        for learner in &self.learners {
            if let Some(ema) = &learner.ema {
                ema.copy_to_params();
            }
            learner.set_trainable(false);
        }
        Ok(Summary {
            steps: self.position.step,
            samples: self.position.samples,
            seconds: self.elapsed_s(),
            loss: self.learners[0].recent_loss(),
            stopped,
        })
    }

    /// All processes go by rank 0's clock.
    fn next_step(&mut self) -> Result<Next> {
        let stopping = self.stopping || self.stop.load(Ordering::Relaxed);
        let flags = [self.finished(), stopping].map(u64::from);
        let [progress, finished, stopping] =
            self.group
                .follow_first([u64::from(self.progress().to_bits()), flags[0], flags[1]])?;
        Ok(match (finished, stopping) {
            (0, 0) => Next::Step(f32::from_bits(progress as u32)),
            (0, _) => Next::Stopped,
            _ => Next::Finished,
        })
    }

    fn train_step(&mut self, progress: f32) -> Result<()> {
        for turn in self.objective.turns(self.position.step, progress)? {
            self.take_turn(&turn, progress)?;
        }
        self.position.step += 1;
        let step = self.position.step;
        if let Some(log) = &mut self.log
            && step.is_multiple_of(self.config.log_every.max(1))
        {
            let samples = self.objective.batch_size() * self.batches.count() * self.group.world();
            log.write(step, samples, progress)?;
        }
        Ok(())
    }

    fn take_turn(&mut self, turn: &Turn, progress: f32) -> Result<()> {
        let several = self.learners.len() > 1;
        for (index, learner) in self.learners.iter_mut().enumerate() {
            let acts = index == turn.player;
            if acts && turn.restart {
                learner.restart();
            }
            if several {
                learner.set_trainable(acts);
            }
        }
        let mut sum = self.sum_of_batches(turn, progress)?;
        let batches = self.batches.count() * self.group.world();
        let mut numbers = [&[sum.loss], &sum.observed[..]].concat();
        // Above zero where any process is asked to stop.
        numbers.push(f32::from(u8::from(self.stop.load(Ordering::Relaxed))));
        self.group.sum(&mut numbers)?;
        self.stopping |= numbers.pop().is_some_and(|asked| asked > 0.0);
        for number in &mut numbers {
            *number /= batches as f32;
        }
        let loss = numbers[0];
        let learner = &mut self.learners[turn.player];
        let (objective, player, players) = (self.objective.name(), learner.name, if several { 2 } else { 1 });
        let who = || who(objective, player, players);
        if !loss.is_finite() {
            return Err(Error::Diverged {
                objective: who(),
                step: self.position.step,
                loss,
            });
        }
        self.group.sum_gradients(&mut sum.gradients, learner.params())?;
        sum.gradients.scale(1.0 / batches as f32);
        let (optimizer, of_schedule) = (&mut learner.optimizer, turn.lr_progress.unwrap_or(progress));
        let learning_rate = optimizer.config.learning_rate_at(optimizer.step, of_schedule);
        let norm = optimizer.update(&sum.gradients, learning_rate);
        if !norm.is_finite() {
            tracing::warn!(
                "{}: step {} skipped, its gradient is not finite",
                who(),
                self.position.step
            );
        }
        self.objective.updated(turn.player, &numbers[1..]);
        learner.average();
        learner.losses.push(loss);
        self.position.turns += 1;
        if turn.player == 0 {
            self.position.samples += (self.objective.batch_size() * batches) as u64;
        }
        if let Some(log) = &mut self.log {
            let player = several.then_some(player);
            let metrics = sum
                .metrics
                .into_iter()
                .map(|(name, value)| (name, value / self.batches.count() as f32));
            log.push(
                Report {
                    player,
                    loss,
                    norm,
                    learning_rate,
                },
                metrics,
            );
        }
        Ok(())
    }

    /// The sum of this process's batches of this turn.
    fn sum_of_batches(&self, turn: &Turn, progress: f32) -> Result<Sum> {
        let first = Batch {
            player: turn.player,
            number: self.position.turns,
            progress,
        };
        self.batches
            .sum(&*self.objective, first, [self.group.rank(), self.group.world()])
    }

    fn elapsed_s(&self) -> f64 {
        self.position.elapsed_s + self.started.elapsed().as_secs_f64()
    }

    fn finished(&self) -> bool {
        self.budget.max_steps.is_some_and(|n| self.position.step >= n)
            || self.budget.deadline.is_some_and(|d| Instant::now() >= d)
    }

    /// Fraction of the budget spent, over all runs.
    fn progress(&self) -> f32 {
        let by_steps = self
            .budget
            .max_steps
            .map_or(0.0, |n| self.position.step as f64 / n.max(1) as f64);
        let by_time = self.budget.deadline.map_or(0.0, |deadline| {
            let total = deadline.saturating_duration_since(self.started).as_secs_f64() + self.position.elapsed_s;
            self.elapsed_s() / total.max(1e-3)
        });
        by_steps.max(by_time).min(1.0) as f32
    }

    fn save(&mut self) -> Result<()> {
        if !self.group.is_first() {
            return Ok(());
        }
        let position = Position {
            elapsed_s: self.elapsed_s(),
            ..self.position
        };
        self.states.save(position.step, self.config.keep, |path| {
            state::save(path, &self.learners, &self.buffers, position)
        })
    }

    fn draw_samples(&mut self) -> Result<()> {
        let Some(log) = &mut self.log else { return Ok(()) };
        match with_averages(&self.learners, || self.objective.samples())? {
            Some(grid) => log.samples(self.position.step, &grid),
            None => Ok(()),
        }
    }
}

/// Those in `dir`: none if the run begins anew, which is refused where it would overwrite some.
fn states_to_go_on_from(dir: &Path, options: &RunOptions, folder: Option<&StageFolder>) -> Result<States> {
    if options.overwrite {
        if let Some(folder) = folder {
            folder.clear()?;
        }
        return Ok(States::none(dir));
    }
    let states = States::of(dir)?;
    if !options.resume && !states.is_empty() {
        return Err(Error::WouldOverwrite { dir: dir.to_path_buf() });
    }
    Ok(states)
}

/// What a message calls one of `players` players.
fn who(objective: &str, player: &str, players: usize) -> String {
    if players == 1 {
        objective.to_owned()
    } else {
        format!("{objective}'s {player}")
    }
}

/// Processes that start apart would drift on unnoticed.
fn check_same_start(
    group: &mut Group,
    objective: &dyn Objective,
    config: &LoopConfig,
    learners: &[Learner],
    buffers: &NamedParams,
    step: u64,
) -> Result<()> {
    if group.world() == 1 {
        return Ok(());
    }
    let mix = |hash: u64, value: u64| (hash ^ value).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    let mut hash = mix(0, objective.batch_size() as u64);
    let optimizers: Vec<_> = learners.iter().map(|learner| &learner.optimizer.config).collect();
    hash = format!("{config:?} {optimizers:?}")
        .bytes()
        .fold(hash, |h, byte| mix(h, u64::from(byte)));
    for (_, param) in learners.iter().flat_map(Learner::params).chain(buffers) {
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
