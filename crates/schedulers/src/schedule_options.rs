//! What a request may choose.

use crate::{
    names::{SchedulerKind, TimestepSpacing},
    prediction::PredictionType,
};

/// What a request may override in the model's `scheduler_config.json`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ScheduleOptions {
    /// May be left out when `timesteps` are given; otherwise must agree with them.
    pub num_inference_steps: Option<usize>,
    pub scheduler: Option<SchedulerKind>,
    pub spacing: Option<TimestepSpacing>,
    /// Explicit timesteps, strictly descending, instead of a spacing.
    pub timesteps: Option<Vec<f64>>,
    pub prediction_type: Option<PredictionType>,
    /// Stochasticity, 0 to 1. Defaults: DDIM 0, TCD 0.3, Euler ancestral 1. The others have none.
    pub eta: Option<f64>,
}

impl ScheduleOptions {
    /// `num_inference_steps` steps, everything else as the config says.
    pub fn steps(num_inference_steps: usize) -> Self {
        Self {
            num_inference_steps: Some(num_inference_steps),
            ..Self::default()
        }
    }
}
