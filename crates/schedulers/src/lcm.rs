//! Multistep consistency sampling (`LCMScheduler`; Luo et al. 2023, algorithm 3): jump to the denoised
//! image, add noise down to the next timestep, repeat.

use crate::{
    error::Result,
    names::SchedulerKind,
    prediction::{Linear, combine},
    schedule::{Plan, StepCoeffs},
};

/// Deviation of the data in the boundary condition.
const SIGMA_DATA: f64 = 0.5;

pub(crate) fn steps(plan: &Plan) -> Result<Vec<StepCoeffs>> {
    (0..plan.timesteps.len()).map(|i| step(plan, i)).collect()
}

fn step(plan: &Plan, i: usize) -> Result<StepCoeffs> {
    let x0 = plan.denoised_vp(SchedulerKind::Lcm, i)?;
    let (c_skip, c_out) = boundary_condition(plan, plan.timesteps[i]);
    const SAMPLE: Linear = (1.0, 0.0);
    let denoised = combine(c_out, x0, c_skip, SAMPLE);
    let next = (i + 1 < plan.timesteps.len()).then(|| plan.noise.alpha_sigma(plan.index(i + 1)));
    let (alpha, noise) = next.unwrap_or((1.0, 0.0));
    Ok(StepCoeffs {
        timestep: plan.timesteps[i],
        input_scale: 1.0,
        sample: alpha * denoised.0,
        model_output: alpha * denoised.1,
        noise,
        previous_denoised: 0.0,
        denoised,
        add_noise: plan.noise.alpha_sigma(plan.index(i)),
    })
}

/// `(c_skip, c_out)`, which make the consistency function the identity at timestep 0.
fn boundary_condition(plan: &Plan, timestep: f64) -> (f64, f64) {
    let t = timestep * plan.config.timestep_scaling.unwrap_or(10.0);
    let total = t * t + SIGMA_DATA * SIGMA_DATA;
    (SIGMA_DATA * SIGMA_DATA / total, t / total.sqrt())
}
