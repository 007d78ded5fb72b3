//! DPM-Solver++ of order 2, multistep, midpoint (`DPMSolverMultistepScheduler`; Lu et al. 2022,
//! algorithm 2). The sample is `alpha * x0 + sigma * noise` with `alpha^2 + sigma^2 = 1`.

use crate::{
    config::FinalSigmasType,
    schedule::{Plan, StepCoeffs},
};

pub(crate) fn steps(plan: &Plan) -> Vec<StepCoeffs> {
    (0..plan.timesteps.len()).map(|i| step(plan, i)).collect()
}

fn step(plan: &Plan, i: usize) -> StepCoeffs {
    let (alpha, sigma) = alpha_sigma(plan.sigmas[i]);
    let (alpha_next, sigma_next) = alpha_sigma(plan.sigmas[i + 1]);
    let (p, q) = plan.prediction.denoised_vp(alpha, sigma);
    // e^-h = (sigma_next / alpha_next) / (sigma / alpha): lambda is minus the logarithm of plan.sigmas.
    let gain = alpha_next * (1.0 - plan.sigmas[i + 1] / plan.sigmas[i]);
    let previous = if is_first_order(plan, i) {
        0.0
    } else {
        -0.5 * gain / step_ratio(plan, i)
    };
    let current = gain - previous;
    StepCoeffs {
        timestep: plan.timesteps[i],
        input_scale: 1.0,
        sample: sigma_next / sigma + current * p,
        model_output: current * q,
        noise: 0.0,
        previous_denoised: previous,
        denoised: (p, q),
        add_noise: (alpha, sigma),
    }
}

fn alpha_sigma(sigma: f64) -> (f64, f64) {
    let alpha = 1.0 / (sigma * sigma + 1.0).sqrt();
    (alpha, sigma * alpha)
}

/// r, the last step's length in lambda over this one's.
fn step_ratio(plan: &Plan, i: usize) -> f64 {
    let length = |i: usize| (plan.sigmas[i] / plan.sigmas[i + 1]).ln();
    length(i - 1) / length(i)
}

fn is_first_order(plan: &Plan, i: usize) -> bool {
    let config = plan.config;
    let n = plan.timesteps.len();
    let first_at_end = config.euler_at_final == Some(true)
        || (config.lower_order_final.unwrap_or(true) && n < 15)
        || config.final_sigmas_type != Some(FinalSigmasType::SigmaMin);
    i == 0 || config.solver_order == Some(1) || (i + 1 == n && first_at_end)
}
