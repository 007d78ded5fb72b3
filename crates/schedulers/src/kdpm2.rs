//! DPM-Solver-2 in sigma (`KDPM2DiscreteScheduler`, `KDPM2AncestralDiscreteScheduler`; k-diffusion's `sample_dpm_2` without
//! churn): a step by the slope halfway, in the logarithm of sigma. The sample is `x0 + sigma * noise`.

use crate::{
    euler,
    names::SchedulerKind,
    plan::Plan,
    rows::{Combination, Row},
};

pub(crate) fn rows(plan: &Plan) -> Vec<Row> {
    plan.steps()
        .flat_map(|i| {
            let (from, to) = (plan.sigmas[i], plan.sigmas[i + 1]);
            // Nothing lies halfway to no noise: the last step is Euler's.
            if i + 1 == plan.len() {
                return vec![euler::row(plan, i, to, 0.0)];
            }
            let (down, up) = match plan.kind {
                SchedulerKind::Kdpm2Ancestral => ancestral(from as f32, to as f32),
                _ => (to, 0.0),
            };
            let halfway = (from * down).sqrt();
            let first = Row {
                keep: Some(Combination {
                    sample: 1.0,
                    ..Combination::default()
                }),
                ends_step: false,
                ..euler::row(plan, i, halfway, 0.0)
            };
            vec![first, second(plan, halfway, down - from, up)]
        })
        .collect()
}

/// `(sigma_down, sigma_up)` of k-diffusion's `get_ancestral_step`, in f32 as in diffusers: where almost all is noise again, little
/// of the digits of the first is left.
fn ancestral(from: f32, to: f32) -> (f64, f64) {
    let up = (to * to * (from * from - to * to) / (from * from)).sqrt();
    let down = (to * to - up * up).sqrt();
    (f64::from(down), f64::from(up))
}

/// `next = kept + (x - x0) / halfway * step + noise * up`.
fn second(plan: &Plan, halfway: f64, step: f64, up: f64) -> Row {
    let (p, q) = plan.denoised_ve(halfway);
    let slope = step / halfway;
    let mut row = Row {
        input_scale: plan.input_scale(halfway),
        ..Row::first_order(
            plan.timestep_of_sigma(halfway),
            ((1.0 - p) * slope, -q * slope),
            up,
            (p, q),
            (1.0, halfway),
        )
    };
    row.next.kept = 1.0;
    row
}
