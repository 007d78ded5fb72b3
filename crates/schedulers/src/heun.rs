//! Heun's method on the probability-flow ODE (`HeunDiscreteScheduler`; Karras et al. 2022, algorithm 1):
//! an Euler step, then once more from where it began with the mean of the slopes at both ends. The
//! sample is `x0 + sigma * noise`.

use crate::{
    euler,
    plan::Plan,
    rows::{Combination, Row},
};

pub(crate) fn rows(plan: &Plan) -> Vec<Row> {
    plan.steps()
        .flat_map(|i| {
            let euler = euler::row(plan, i, plan.sigmas[i + 1], 0.0);
            // At no noise there is no slope: the last step is Euler's.
            if i + 1 == plan.len() {
                vec![euler]
            } else {
                vec![first(euler), second(plan, i)]
            }
        })
        .collect()
}

fn first(euler: Row) -> Row {
    Row {
        keep: Some(Combination {
            sample: 1.0,
            ..Combination::default()
        }),
        ends_step: false,
        ..euler
    }
}

/// `next = kept + (sigma_next - sigma) / 2 * ((kept - x0) / sigma + (x - x0_next) / sigma_next)`.
fn second(plan: &Plan, i: usize) -> Row {
    let (sigma, sigma_next) = (plan.sigmas[i], plan.sigmas[i + 1]);
    let (p, q) = plan.denoised_ve(sigma_next);
    let half = 0.5 * (sigma_next - sigma);
    let (begin, end) = (half / sigma, half / sigma_next);
    let mut row = Row {
        input_scale: plan.input_scale(sigma_next),
        ..Row::first_order(
            plan.timesteps[i + 1],
            ((1.0 - p) * end, -q * end),
            0.0,
            (p, q),
            (1.0, sigma_next),
        )
    };
    row.next.kept = 1.0 + begin;
    row.next.history[0] = -begin;
    row
}
