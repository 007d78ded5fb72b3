//! DDIM (`DDIMScheduler`; Song et al. 2020, equations 12 and 16).
//! The sample is `alpha * x0 + sigma * noise` with `alpha^2 + sigma^2 = 1`.

use crate::{
    error::Result,
    names::SchedulerKind,
    prediction::combine,
    schedule::{Plan, StepCoeffs},
    spacing::TimestepSpacing,
};

/// The steps and the noise level after the last.
pub(crate) fn steps(plan: &Plan) -> Result<(Vec<StepCoeffs>, f64)> {
    let n = plan.timesteps.len();
    let steps = (0..n)
        .map(|i| step(plan, i, previous_alphas_cumprod(plan, i)))
        .collect::<Result<_>>()?;
    let last = previous_alphas_cumprod(plan, n - 1);
    Ok((steps, ((1.0 - last) / last).sqrt()))
}

/// alphas_cumprod after step `i`. diffusers goes down by `T / n` whatever the timesteps are; for
/// timesteps that are none of its spacings, the next of them is meant.
fn previous_alphas_cumprod(plan: &Plan, i: usize) -> f64 {
    let alphas_cumprod = plan.noise.alphas_cumprod();
    let strided = matches!(
        plan.spacing,
        Some(TimestepSpacing::Linspace | TimestepSpacing::Leading | TimestepSpacing::Trailing)
    );
    let previous = if strided {
        plan.index(i)
            .checked_sub(plan.noise.num_train_timesteps() / plan.timesteps.len())
    } else {
        (i + 1 < plan.timesteps.len()).then(|| plan.index(i + 1))
    };
    match previous {
        Some(t) => alphas_cumprod[t],
        None if plan.config.set_alpha_to_one.unwrap_or(true) => 1.0,
        None => alphas_cumprod[0],
    }
}

fn step(plan: &Plan, i: usize, previous: f64) -> Result<StepCoeffs> {
    let current = plan.noise.alphas_cumprod()[plan.index(i)];
    let (alpha, sigma) = plan.noise.alpha_sigma(plan.index(i));
    let denoised = plan.denoised_vp(SchedulerKind::Ddim, i)?;
    let epsilon = plan.prediction.epsilon_vp(alpha, sigma);
    let variance = (1.0 - previous) / (1.0 - current) * (1.0 - current / previous);
    let noise = plan.eta.unwrap_or(0.0) * variance.max(0.0).sqrt();
    let direction = (1.0 - previous - noise * noise).max(0.0).sqrt();
    let (sample, model_output) = combine(previous.sqrt(), denoised, direction, epsilon);
    Ok(StepCoeffs {
        timestep: plan.timesteps[i],
        input_scale: 1.0,
        sample,
        model_output,
        noise,
        previous_denoised: 0.0,
        denoised,
        add_noise: (alpha, sigma),
    })
}
