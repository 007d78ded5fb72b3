//! DPM-Solver++, multistep: orders 1 to 3 from the denoised images of the steps before
//! (`DPMSolverMultistepScheduler`; Lu et al. 2022, algorithm 2), and its SDE form.
//! The sample is `alpha * x0 + sigma * noise` with `alpha^2 + sigma^2 = 1`.

use crate::{
    config::FinalSigmasType,
    dpm_solver::{Update, distance},
    plan::Plan,
    rows::Row,
};

pub(crate) fn rows(plan: &Plan) -> Vec<Row> {
    plan.steps().map(|i| row(plan, i)).collect()
}

fn row(plan: &Plan, i: usize) -> Row {
    let level = plan.level(i);
    let update = Update::new(plan.kind, level, plan.level(i + 1));
    let [current, before, before_that] = weights(plan, i, &update);
    let (p, q) = plan.denoised_level(level);
    let mut row = Row::first_order(
        plan.timesteps[i],
        (update.base + current * p, current * q),
        update.noise,
        (p, q),
        (level.alpha, level.sigma),
    );
    row.input_scale = plan.level_scale(level);
    row.next.history[..2].copy_from_slice(&[before, before_that]);
    row
}

/// Weights of the denoised images of this step, the one before and the one before that.
fn weights(plan: &Plan, i: usize, update: &Update) -> [f64; 3] {
    let order = order(plan, i);
    if order == 1 {
        return [update.d0, 0.0, 0.0];
    }
    let r0 = distance(plan.level(i - 1), plan.level(i)) / update.h;
    if order == 2 {
        let d1 = update.d1(&plan.config) / r0;
        return [update.d0 + d1, -d1, 0.0];
    }
    let r1 = distance(plan.level(i - 2), plan.level(i - 1)) / update.h;
    // Of the differences between neighbours, (m0 - m1) / r0 and (m1 - m2) / r1.
    let d2 = update.d2 / (r0 + r1);
    let slope = update.d1_heun * r0 / (r0 + r1) + d2;
    let (near, far) = ((update.d1_heun + slope) / r0, -slope / r1);
    [update.d0 + near, far - near, -far]
}

fn order(plan: &Plan, i: usize) -> usize {
    let config = &plan.config;
    let n = plan.len();
    let few = config.lower_order_final.unwrap_or(true) && n < 15;
    let first_at_end =
        config.euler_at_final == Some(true) || few || config.final_sigmas_type != Some(FinalSigmasType::SigmaMin);
    let most = match n - i {
        1 if first_at_end => 1,
        2 if few => 2,
        _ => 3,
    };
    config.solver_order.unwrap_or(2).min(i - plan.begin + 1).min(most)
}
