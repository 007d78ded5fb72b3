//! Strategic stochastic sampling (`TCDScheduler`; Zheng et al. 2024, algorithm 4): jump to a timestep
//! `s` below the next one, then add noise up to it. `eta` is the paper's gamma.

use crate::{
    error::Result,
    names::SchedulerKind,
    prediction::combine,
    schedule::{Plan, StepCoeffs},
};

pub(crate) fn steps(plan: &Plan) -> Result<Vec<StepCoeffs>> {
    (0..plan.timesteps.len()).map(|i| step(plan, i)).collect()
}

fn step(plan: &Plan, i: usize) -> Result<StepCoeffs> {
    let eta = plan.eta.unwrap_or(0.3);
    let is_last = i + 1 == plan.timesteps.len();
    let next = if is_last { 0 } else { plan.index(i + 1) };
    // torch multiplies in f32; a different product could fall on the other side of a whole number.
    let jump = ((1.0 - eta) as f32 * next as f32).floor() as usize;
    let alphas_cumprod = plan.noise.alphas_cumprod();
    let (alpha, sigma) = plan.noise.alpha_sigma(plan.index(i));
    let (alpha_jump, sigma_jump) = plan.noise.alpha_sigma(jump);

    let denoised = plan.denoised_vp(SchedulerKind::Tcd, i)?;
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
    Ok(StepCoeffs {
        timestep: plan.timesteps[i],
        input_scale: 1.0,
        sample: ratio.sqrt() * jumped.0,
        model_output: ratio.sqrt() * jumped.1,
        noise: (1.0 - ratio).max(0.0).sqrt(),
        previous_denoised: 0.0,
        denoised,
        add_noise: (alpha, sigma),
    })
}
