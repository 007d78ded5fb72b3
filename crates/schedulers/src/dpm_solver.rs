//! The update that DPM-Solver++'s algorithms share: from one level of noise to a lower one by a
//! polynomial through denoised images (Lu et al. 2022, "DPM-Solver++", appendix B; its SDE form, section 6).

use crate::{config::SchedulerConfig, names::SchedulerKind, plan::Level};

/// `next = sample * base + D0 * d0 + D1 * d1 + D2 * d2 + noise * noise`, with `D0` the denoised image at
/// the start and `D1`, `D2` its differences of first and second order.
pub(crate) struct Update {
    /// Distance in lambda.
    pub h: f64,
    pub base: f64,
    pub d0: f64,
    /// The midpoint rule's.
    pub d1_midpoint: f64,
    /// The exact integral's, which diffusers calls heun and third orders use.
    pub d1_heun: f64,
    pub d2: f64,
    pub noise: f64,
}

impl Update {
    pub fn new(kind: SchedulerKind, from: Level, to: Level) -> Self {
        let h = distance(from, to);
        // e^-h
        let decay = to.ratio / from.ratio;
        if is_sde(kind) {
            let (h2, phi) = (2.0 * h, 1.0 - decay * decay);
            Self {
                h,
                base: to.sigma / from.sigma * decay,
                d0: to.alpha * phi,
                d1_midpoint: 0.5 * (to.alpha * phi),
                d1_heun: to.alpha * (1.0 - phi / h2),
                d2: to.alpha * ((phi - h2) / (h2 * h2) - 0.5),
                noise: to.sigma * phi.sqrt(),
            }
        } else {
            let phi = 1.0 - decay;
            Self {
                h,
                base: to.sigma / from.sigma,
                d0: to.alpha * phi,
                d1_midpoint: 0.5 * (to.alpha * phi),
                d1_heun: to.alpha * (1.0 - phi / h),
                d2: to.alpha * ((phi - h) / (h * h) + 0.5),
                noise: 0.0,
            }
        }
    }

    /// Weight of `D1` in a step of second order.
    pub fn d1(&self, config: &SchedulerConfig) -> f64 {
        if is_heun(config) {
            self.d1_heun
        } else {
            self.d1_midpoint
        }
    }
}

/// In lambda, the logarithm of signal over noise.
pub(crate) fn distance(from: Level, to: Level) -> f64 {
    (from.ratio / to.ratio).ln()
}

/// diffusers reads the names of other solvers as midpoint.
pub(crate) fn is_heun(config: &SchedulerConfig) -> bool {
    config.solver_type.as_deref() == Some("heun")
}

fn is_sde(kind: SchedulerKind) -> bool {
    matches!(kind, SchedulerKind::DpmPlusPlus2MSde | SchedulerKind::DpmPlusPlusSde)
}
