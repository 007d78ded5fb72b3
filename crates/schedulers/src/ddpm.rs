//! Ancestral sampling (`DDPMScheduler` with `fixed_small` variance; Ho et al. 2020, equations 6 and 7).
//! The sample is `alpha * x0 + sigma * noise` with `alpha^2 + sigma^2 = 1`.

use crate::{error::Result, plan::Plan, rows::Row};

pub(crate) fn rows(plan: &Plan) -> Result<Vec<Row>> {
    plan.steps().map(|i| row(plan, i)).collect()
}

fn row(plan: &Plan, i: usize) -> Result<Row> {
    let alphas_cumprod = plan.noise.alphas_cumprod();
    let now = alphas_cumprod[plan.index(i)];
    let next = if i + 1 < plan.len() {
        alphas_cumprod[plan.index(i + 1)]
    } else {
        1.0
    };
    let beta = 1.0 - now / next;
    let (p, q) = plan.denoised_vp(i)?;
    let x0 = next.sqrt() * beta / (1.0 - now);
    let sample = (now / next).sqrt() * (1.0 - next) / (1.0 - now);
    let variance = (1.0 - next) / (1.0 - now) * beta;
    Ok(Row::first_order(
        plan.timesteps[i],
        (x0 * p + sample, x0 * q),
        variance.max(0.0).sqrt(),
        (p, q),
        plan.noise.alpha_sigma(plan.index(i)),
    ))
}
