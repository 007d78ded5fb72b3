//! Euler's method on the probability-flow ODE (`EulerDiscreteScheduler`; Karras et al. 2022, algorithm 2
//! without churn). The sample is `x0 + sigma * noise`.

use crate::{
    schedule::{Plan, StepCoeffs},
    spacing::TimestepSpacing,
};

pub(crate) fn steps(plan: &Plan) -> Vec<StepCoeffs> {
    (0..plan.timesteps.len())
        .map(|i| step(plan, i, plan.sigmas[i + 1], 0.0))
        .collect()
}

/// `next = x + (x - x0) / sigma * (sigma_down - sigma) + noise * sigma_up`.
pub(crate) fn step(plan: &Plan, i: usize, sigma_down: f64, sigma_up: f64) -> StepCoeffs {
    let sigma = plan.sigmas[i];
    let (p, q) = plan.prediction.denoised_ve(sigma);
    let k = (sigma_down - sigma) / sigma;
    StepCoeffs {
        timestep: plan.timesteps[i],
        input_scale: 1.0 / (sigma * sigma + 1.0).sqrt(),
        sample: 1.0 + (1.0 - p) * k,
        model_output: -q * k,
        noise: sigma_up,
        previous_denoised: 0.0,
        denoised: (p, q),
        add_noise: (1.0, sigma),
    }
}

/// diffusers: the largest sigma where the spacing reaches pure noise, else (and in the tools that the
/// other spacings come from) `sqrt(sigma^2 + 1)`, the deviation of image and noise together.
pub(crate) fn init_noise_sigma(plan: &Plan, spacing: TimestepSpacing) -> f64 {
    let sigma = plan.sigmas.iter().copied().fold(0.0, f64::max);
    let rule = match spacing {
        // These choose sigmas or timesteps only; the rule stays that of the config's timestep_spacing.
        TimestepSpacing::Karras | TimestepSpacing::Lcm => plan
            .config
            .timestep_spacing
            .map_or(TimestepSpacing::Linspace, Into::into),
        spacing => spacing,
    };
    if matches!(rule, TimestepSpacing::Linspace | TimestepSpacing::Trailing) {
        sigma
    } else {
        sigma.hypot(1.0)
    }
}
