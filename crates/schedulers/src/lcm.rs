//! Multistep consistency sampling (`LCMScheduler`; Luo et al. 2023, algorithm 3): jump to the denoised
//! image, add noise down to the next timestep, repeat.

use crate::{
    error::Result,
    plan::Plan,
    prediction::{Linear, combine},
    rows::Row,
};

/// Deviation of the data in the boundary condition.
const SIGMA_DATA: f64 = 0.5;

pub(crate) fn rows(plan: &Plan) -> Result<Vec<Row>> {
    plan.steps().map(|i| row(plan, i)).collect()
}

fn row(plan: &Plan, i: usize) -> Result<Row> {
    // What the network is told and what its answer means; the noise of the next row is that of the timestep itself.
    let told = told(plan, plan.index(i));
    let x0 = plan.denoised_at(told)?;
    let (c_skip, c_out) = boundary_condition(plan, told as f64);
    const SAMPLE: Linear = (1.0, 0.0);
    let denoised = combine(c_out, x0, c_skip, SAMPLE);
    let next = (i + 1 < plan.len()).then(|| plan.noise.alpha_sigma(plan.index(i + 1)));
    let (alpha, noise) = next.unwrap_or((1.0, 0.0));
    Ok(Row::first_order(
        told as f64,
        (alpha * denoised.0, alpha * denoised.1),
        noise,
        denoised,
        plan.noise.alpha_sigma(told),
    ))
}

/// NitroFusion's timestep shift.
fn told(plan: &Plan, timestep: usize) -> usize {
    match plan.config.shifted_timestep {
        Some(shifted) => timestep * shifted / plan.noise.num_train_timesteps(),
        None => timestep,
    }
}

/// `(c_skip, c_out)`, which make the consistency function the identity at timestep 0.
fn boundary_condition(plan: &Plan, timestep: f64) -> (f64, f64) {
    let t = timestep * plan.config.timestep_scaling.unwrap_or(10.0);
    let total = t * t + SIGMA_DATA * SIGMA_DATA;
    (SIGMA_DATA * SIGMA_DATA / total, t / total.sqrt())
}
