//! How long, how and with whom to train.

use super::optimizer::AdamWConfig;
use crate::group::Group;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

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
}

/// How a run is started.
pub struct RunOptions {
    pub budget: Budget,
    /// Go on from the newest saved state that is whole, if there is one. Without it a folder that has a state is refused ...
    pub resume: bool,
    /// ... unless what is there may go.
    pub overwrite: bool,
    /// Set from outside: finish the step at hand, save, and end. In a group, one process that is asked stops all.
    pub stop: Arc<AtomicBool>,
    /// The processes that train together.
    pub group: Group,
}

impl RunOptions {
    /// In this process alone.
    pub fn alone(budget: Budget, resume: bool) -> Self {
        Self {
            budget,
            resume,
            overwrite: false,
            stop: Arc::default(),
            group: Group::alone(),
        }
    }
}

/// A stage's `loop`: what the trainer needs to know besides the objective.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LoopConfig {
    /// Of the player that the stage is for.
    pub(crate) optimizer: AdamWConfig,
    /// Batches of one update (of each process), whose gradients are averaged. On a CPU they are computed side by side, one
    /// thread each: for small networks that uses the cores better than splitting every operation. On a GPU one after the
    /// other, which makes a large batch of several that fit.
    pub(crate) batches_per_step: usize,
    /// Keep the inputs of the residual and transformer blocks only, and compute the rest again in the backward pass: about a
    /// third more time for much less memory.
    pub(crate) recompute: bool,
    /// Round the factors of products to bf16, forward and backward, where the processor multiplies bf16 faster than f32;
    /// parameters, sums and everything between products stay f32. On a GPU `--dtype` says what is multiplied.
    pub(crate) bf16_products: bool,
    pub(crate) ema_decay: f32,
    pub(crate) log_every: u64,
    /// Steps between two grids of samples, of which the last step draws one too; 0: none are drawn.
    pub(crate) sample_every: u64,
    /// Seconds between two saved states, of which the last step saves one too, and a run that is asked to stop.
    pub(crate) save_every_s: u64,
    /// How many states are kept, the newest ones.
    pub(crate) keep: usize,
}

impl Default for LoopConfig {
    fn default() -> Self {
        Self {
            optimizer: AdamWConfig::default(),
            batches_per_step: 1,
            recompute: false,
            bf16_products: false,
            ema_decay: 0.999,
            log_every: 20,
            sample_every: 250,
            save_every_s: 120,
            keep: 2,
        }
    }
}

/// What a run amounts to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Summary {
    pub steps: u64,
    /// That the first player has seen.
    pub samples: u64,
    pub seconds: f64,
    /// Mean loss of the first player's last 200 turns.
    pub loss: f32,
    /// Was the run asked to stop before its budget was spent?
    #[serde(default)]
    pub stopped: bool,
}
