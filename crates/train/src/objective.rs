//! What an objective is: players, whose turn it is, and that player's loss.

use crate::error::Result;
use crate::params::NamedParams;
use crate::trainer::{AdamWConfig, LoopConfig};
use prima_picture::Picture;
use prima_tensor::Tensor;

/// What is trained together: its parameters, with an optimizer, a learning rate and an average of their own.
pub(crate) struct Player {
    pub(crate) name: &'static str,
    /// Their names are those in the saved state, and differ from every other player's.
    pub(crate) params: NamedParams,
    pub(crate) optimizer: AdamWConfig,
    /// Decay of the average that is sampled from and exported; none is kept where absent.
    pub(crate) ema_decay: Option<f32>,
}

impl Player {
    /// The player that a run is for, trained as the stage's `loop` says.
    pub(crate) fn main(name: &'static str, params: NamedParams, training: &LoopConfig) -> Self {
        Self {
            name,
            params,
            optimizer: training.optimizer.clone(),
            ema_decay: Some(training.ema_decay),
        }
    }

    /// One that learns along and is not shipped: no average, `learning_rate` times the rate of the `loop`.
    pub(crate) fn beside(name: &'static str, params: NamedParams, training: &LoopConfig, learning_rate: f32) -> Self {
        let mut optimizer = training.optimizer.clone();
        optimizer.learning_rate *= learning_rate;
        Self {
            name,
            params,
            optimizer,
            ema_decay: None,
        }
    }
}

/// One update of one player.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Turn {
    /// Index in [`Objective::players`]. Only this player's parameters are on the tape, so that the others cost no gradient.
    pub(crate) player: usize,
    /// The fraction of the learning rate's schedule that is spent, where it is not the run's: for phases.
    pub(crate) lr_progress: Option<f32>,
    /// The player begins anew (its parameters were replaced): moments at 0, the average at the parameters, warm-up again.
    pub(crate) restart: bool,
}

impl Turn {
    pub(crate) fn of(player: usize) -> Self {
        Self {
            player,
            lr_progress: None,
            restart: false,
        }
    }
}

/// What a loss is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch {
    pub(crate) player: usize,
    /// No two batches of a run have the same number, whoever's turn it is: draws are keyed by it.
    pub(crate) number: u64,
    /// The fraction of the budget that is spent.
    pub(crate) progress: f32,
}

/// A loss on the tape, and what is to be known of it.
pub(crate) struct Loss {
    pub(crate) total: Tensor,
    /// Numbers worth a chart.
    pub(crate) metrics: Vec<(&'static str, f32)>,
    /// Numbers for [`Objective::updated`], as many in every batch of a player: running scales, adaptive probabilities.
    pub(crate) observed: Vec<f32>,
}

impl Loss {
    pub(crate) fn new(total: Tensor, metrics: Vec<(&'static str, f32)>) -> Self {
        Self {
            total,
            metrics,
            observed: Vec::new(),
        }
    }
}

/// What is trained: networks, data and losses. A step is a function of the parameters, the [buffers](Self::buffers), the seed
/// and the batches' numbers only, so that a resumed run repeats an uninterrupted one.
pub(crate) trait Objective: Sync {
    fn name(&self) -> &'static str;

    /// Who is trained; the first is the one that the run is for. Asked once, before training.
    fn players(&self) -> Vec<Player>;

    /// What else a resumed run needs, and no optimizer moves: a target's average, a running scale, the phase.
    fn buffers(&self) -> NamedParams {
        Vec::new()
    }

    /// Samples of one batch.
    fn batch_size(&self) -> usize;

    /// The turns of step `step`, in order. Called once before each step, in every process alike: here a phase may begin, with
    /// parameters replaced and players [restarted](Turn::restart).
    fn turns(&mut self, _step: u64, _progress: f32) -> Result<Vec<Turn>> {
        Ok(vec![Turn::of(0)])
    }

    /// The loss of `batch.player`.
    fn loss(&self, batch: Batch) -> Result<Loss>;

    /// Called after each update, with the means of [`Loss::observed`] over all batches of the turn, on all processes.
    fn updated(&mut self, _player: usize, _observed: &[f32]) {}

    /// A grid of samples from the current weights (the averaged ones, when the trainer calls).
    fn samples(&self) -> Result<Option<Picture>>;
}
