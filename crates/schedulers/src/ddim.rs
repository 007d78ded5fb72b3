//! DDIM (`DDIMScheduler`; Song et al. 2020, equations 12 and 16).
//! The sample is `alpha * x0 + sigma * noise` with `alpha^2 + sigma^2 = 1`.

use crate::{error::Result, names::TimestepSpacing, plan::Plan, prediction::combine, rows::Row};

/// The rows and the noise level after the last.
pub(crate) fn rows(plan: &Plan) -> Result<(Vec<Row>, f64)> {
    let rows = plan
        .steps()
        .map(|i| row(plan, i, previous_alphas_cumprod(plan, i)))
        .collect::<Result<_>>()?;
    let last = previous_alphas_cumprod(plan, plan.len() - 1);
    Ok((rows, ((1.0 - last) / last).sqrt()))
}

/// alphas_cumprod after step `i`. diffusers goes down by `T / n` whatever the timesteps are; for
/// timesteps that are none of its spacings, the next of them is meant.
fn previous_alphas_cumprod(plan: &Plan, i: usize) -> f64 {
    let alphas_cumprod = plan.noise.alphas_cumprod();
    let strided = matches!(
        plan.spacing(),
        Some(TimestepSpacing::Linspace | TimestepSpacing::Leading | TimestepSpacing::Trailing)
    );
    let previous = if strided {
        plan.index(i).checked_sub(plan.noise.num_train_timesteps() / plan.len())
    } else {
        (i + 1 < plan.len()).then(|| plan.index(i + 1))
    };
    match previous {
        Some(t) => alphas_cumprod[t],
        None if plan.config.set_alpha_to_one.unwrap_or(true) => 1.0,
        None => alphas_cumprod[0],
    }
}

fn row(plan: &Plan, i: usize, previous: f64) -> Result<Row> {
    let current = plan.noise.alphas_cumprod()[plan.index(i)];
    let (alpha, sigma) = plan.noise.alpha_sigma(plan.index(i));
    let denoised = plan.denoised_vp(i)?;
    let epsilon = plan.prediction.epsilon_vp(alpha, sigma);
    let variance = (1.0 - previous) / (1.0 - current) * (1.0 - current / previous);
    let noise = plan.eta.unwrap_or(0.0) * variance.max(0.0).sqrt();
    let direction = (1.0 - previous - noise * noise).max(0.0).sqrt();
    let next = combine(previous.sqrt(), denoised, direction, epsilon);
    Ok(Row::first_order(
        plan.timesteps[i],
        next,
        noise,
        denoised,
        (alpha, sigma),
    ))
}
