//! Linear multistep (`LMSDiscreteScheduler`; Adams-Bashforth in sigma, as k-diffusion's `sample_lms`): a polynomial through the
//! slopes of up to four steps, integrated to the next sigma. The sample is `x0 + sigma * noise`.

use crate::{
    plan::Plan,
    rows::{HISTORY, Remember, Row},
};

pub(crate) fn rows(plan: &Plan) -> Vec<Row> {
    plan.steps().map(|i| row(plan, i)).collect()
}

fn row(plan: &Plan, i: usize) -> Row {
    let sigma = plan.sigmas[i];
    let (p, q) = plan.denoised_ve(sigma);
    let slope = ((1.0 - p) / sigma, -q / sigma);
    let order = (i - plan.begin + 1).min(HISTORY + 1);
    let weights: Vec<f64> = (0..order).map(|j| weight(plan, i, order, j)).collect();
    let mut row = Row {
        input_scale: plan.input_scale(sigma),
        remember: Remember::Line(slope),
        ..Row::first_order(
            plan.timesteps[i],
            (1.0 + weights[0] * slope.0, weights[0] * slope.1),
            0.0,
            (p, q),
            (1.0, sigma),
        )
    };
    row.next.history[..order - 1].copy_from_slice(&weights[1..]);
    row
}

/// The integral over the step of the polynomial that is 1 at the sigma of `j` steps before and 0 at the others'.
fn weight(plan: &Plan, i: usize, order: usize, j: usize) -> f64 {
    let sigma = |k: usize| plan.sigmas[i - k];
    let basis = |at: f64| -> f64 {
        let others = (0..order).filter(|&k| k != j);
        others.map(|k| (at - sigma(k)) / (sigma(j) - sigma(k))).product()
    };
    // Gauss's rule of two points, exact for cubic polynomials.
    let (from, to) = (plan.sigmas[i], plan.sigmas[i + 1]);
    let (middle, half) = (0.5 * (from + to), 0.5 * (to - from));
    let offset = half / 3.0_f64.sqrt();
    half * (basis(middle - offset) + basis(middle + offset))
}
