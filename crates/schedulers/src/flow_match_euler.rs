//! Euler's method on the straight paths of flow matching (`FlowMatchEulerDiscreteScheduler`; Liu et al.
//! 2022, "Flow Straight and Fast"; Esser et al. 2024). The network predicts `noise - x0`.

use crate::{plan::Plan, prediction::combine, rows::Row};

pub(crate) fn rows(plan: &Plan) -> Vec<Row> {
    plan.steps().map(|i| row(plan, i)).collect()
}

fn row(plan: &Plan, i: usize) -> Row {
    let (sigma, next) = (plan.sigmas[i], plan.sigmas[i + 1]);
    let denoised = plan.prediction.denoised_vp(1.0 - sigma, sigma);
    // To the denoised image, and fresh noise down to the next level.
    let stochastic = plan.config.stochastic_sampling == Some(true);
    let (update, noise) = if stochastic {
        (combine(1.0 - next, denoised, 0.0, denoised), next)
    } else {
        ((1.0, next - sigma), 0.0)
    };
    Row::first_order(plan.timesteps[i], update, noise, denoised, (1.0 - sigma, sigma))
}
