//! Strategic stochastic sampling (`TCDScheduler`; Zheng et al. 2024, algorithm 4): jump to a timestep
//! `s` below the next one, then add noise up to it. `eta` is the paper's gamma.

use crate::{error::Result, plan::Plan, prediction::combine, rows::Row};

pub(crate) fn rows(plan: &Plan) -> Result<Vec<Row>> {
    plan.steps().map(|i| row(plan, i)).collect()
}

fn row(plan: &Plan, i: usize) -> Result<Row> {
    let eta = plan.eta.unwrap_or(0.3);
    let is_last = i + 1 == plan.len();
    let next = if is_last { 0 } else { plan.index(i + 1) };
    // torch multiplies in f32; a different product could fall on the other side of a whole number.
    let jump = ((1.0 - eta) as f32 * next as f32).floor() as usize;
    let alphas_cumprod = plan.noise.alphas_cumprod();
    let (alpha, sigma) = plan.noise.alpha_sigma(plan.index(i));
    let (alpha_jump, sigma_jump) = plan.noise.alpha_sigma(jump);

    let denoised = plan.denoised_vp(i)?;
    let jumped = combine(
        alpha_jump,
        denoised,
        sigma_jump,
        plan.prediction.epsilon_vp(alpha, sigma),
    );
    let ratio = if is_last {
        1.0
    } else {
        alphas_cumprod[next] / alphas_cumprod[jump]
    };
    Ok(Row::first_order(
        plan.timesteps[i],
        (ratio.sqrt() * jumped.0, ratio.sqrt() * jumped.1),
        (1.0 - ratio).max(0.0).sqrt(),
        denoised,
        (alpha, sigma),
    ))
}
