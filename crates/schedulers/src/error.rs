//! What can be wrong with a scheduler config or with what is asked of it.

/// An error of this crate. Every variant names the field or option at fault.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("scheduler config is not a JSON object: {0}")]
    Json(#[from] serde_json::Error),
    #[error("scheduler config field `{field}`: {reason}, got {value}")]
    BadField {
        field: String,
        reason: String,
        value: String,
    },
    #[error("{class} field `{field}` = {value} is not supported (supported: {supported})")]
    UnsupportedField {
        class: &'static str,
        field: &'static str,
        value: String,
        supported: String,
    },
    #[error("scheduler config field `{field}` = {value} belongs to no scheduler known here")]
    UnknownField { field: String, value: String },
    #[error("scheduler config has no `_class_name`, and no scheduler was chosen")]
    MissingClassName,
    #[error("unknown scheduler {name:?}; known: {known}")]
    UnknownScheduler { name: String, known: String },
    #[error(
        "DPMSolverSDEScheduler draws its noise from a Brownian tree with a seed of its own, which cannot be reproduced; use dpm++_sde (DPMSolverSinglestepScheduler with algorithm_type sde-dpmsolver++)"
    )]
    BrownianTree,
    #[error("the sampler {name:?} is not one of prima's; the nearest is {nearest}")]
    SamplerElsewhere { name: String, nearest: &'static str },
    #[error("unknown timestep spacing {name:?}; known: {known}")]
    UnknownSpacing { name: String, known: String },
    #[error("unknown prediction type {name:?}; known: epsilon, v_prediction, sample, flow_prediction")]
    UnknownPredictionType { name: String },
    #[error("of {steps} steps none lies between denoising_start {start} and denoising_end {end}: take more steps")]
    NothingBetween { start: f64, end: f64, steps: usize },
    #[error("num_inference_steps must be at least 1, got 0")]
    ZeroSteps,
    #[error("either num_inference_steps or timesteps must be given")]
    MissingSteps,
    #[error("num_inference_steps is {steps}, but {limit_name} allows at most {limit}")]
    TooManySteps {
        steps: usize,
        limit: usize,
        limit_name: &'static str,
    },
    #[error("num_inference_steps is {steps}, but {given} explicit timesteps were given")]
    StepsMismatch { steps: usize, given: usize },
    #[error(
        "timesteps must descend strictly from at most {max} to at least 0, got {got:?} (models of EDM noise take none)"
    )]
    BadTimesteps { max: usize, got: Vec<f64> },
    #[error("{class} needs whole timesteps, got {timestep} (spacing {spacing})")]
    FractionalTimestep {
        class: &'static str,
        timestep: f64,
        spacing: &'static str,
    },
    #[error("{class} does not support the spacing {spacing}")]
    SpacingForClass { class: &'static str, spacing: &'static str },
    #[error(
        "{class}: epsilon prediction has no denoised image at timestep {timestep}, where rescale_betas_zero_snr leaves no signal; use v_prediction or another spacing"
    )]
    NoSignal { class: &'static str, timestep: f64 },
    #[error("{class} cannot run a model of {prediction}; {fix}")]
    PredictionForClass {
        class: &'static str,
        prediction: &'static str,
        fix: &'static str,
    },
    #[error("eta must be between 0 and 1, got {0}")]
    BadEta(f64),
    #[error("strength must be between 0 and 1, got {0}")]
    BadStrength(f64),
}

pub type Result<T> = std::result::Result<T, Error>;
