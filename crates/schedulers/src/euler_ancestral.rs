//! Euler steps past the next noise level, and fresh noise back up to it
//! (`EulerAncestralDiscreteScheduler`; k-diffusion's `get_ancestral_step`).

use crate::{euler, plan::Plan, rows::Row};

pub(crate) fn rows(plan: &Plan) -> Vec<Row> {
    let eta = plan.eta.unwrap_or(1.0);
    plan.steps()
        .map(|i| {
            let (down, up) = ancestral(plan.sigmas[i], plan.sigmas[i + 1], eta);
            euler::row(plan, i, down, up)
        })
        .collect()
}

/// `(sigma_down, sigma_up)` with `down^2 + up^2 = to^2`; `eta` = 0 is plain Euler.
pub(crate) fn ancestral(from: f64, to: f64, eta: f64) -> (f64, f64) {
    let up = (eta * to * ((from * from - to * to).max(0.0)).sqrt() / from).min(to);
    ((to * to - up * up).max(0.0).sqrt(), up)
}
