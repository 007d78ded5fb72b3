//! Euler's method on the probability-flow ODE (`EulerDiscreteScheduler`; Karras et al. 2022, algorithm 2
//! without churn). The sample is `x0 + sigma * noise`.

use crate::{names::TimestepSpacing, plan::Plan, rows::Row};

pub(crate) fn rows(plan: &Plan) -> Vec<Row> {
    plan.steps().map(|i| row(plan, i, plan.sigmas[i + 1], 0.0)).collect()
}

/// `next = x + (x - x0) / sigma * (sigma_down - sigma) + noise * sigma_up`.
pub(crate) fn row(plan: &Plan, i: usize, sigma_down: f64, sigma_up: f64) -> Row {
    let sigma = plan.sigmas[i];
    let (p, q) = plan.denoised_ve(sigma);
    let k = (sigma_down - sigma) / sigma;
    let next = (1.0 + (1.0 - p) * k, -q * k);
    Row {
        input_scale: plan.input_scale(sigma),
        ..Row::first_order(plan.timesteps[i], next, sigma_up, (p, q), (1.0, sigma))
    }
}

/// diffusers: the largest sigma where the spacing reaches pure noise, else (and in the tools that the
/// other spacings come from) `sqrt(sigma^2 + 1)`, the deviation of image and noise together.
pub(crate) fn init_noise_sigma(plan: &Plan) -> f64 {
    let sigma = plan.sigmas.iter().copied().fold(0.0, f64::max);
    let rule = match plan.rule {
        // Asked for by name, these span all noise.
        rule if rule.chooses_sigmas() && plan.requested => return sigma,
        // They choose sigmas or timesteps only; the rule stays that of the config's timestep_spacing.
        rule if rule.chooses_sigmas() || rule == TimestepSpacing::Lcm => plan.config.timestep_spacing(plan.kind),
        rule => rule,
    };
    if matches!(rule, TimestepSpacing::Linspace | TimestepSpacing::Trailing) {
        sigma
    } else {
        sigma.hypot(1.0)
    }
}
