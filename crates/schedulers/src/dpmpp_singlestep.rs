//! DPM-Solver++, singlestep: every second or third step goes again, at higher order, from where the
//! group of steps began (`DPMSolverSinglestepScheduler`; Lu et al. 2022, algorithm 1), and its SDE form.
//! diffusers counts the network evaluations of a group as steps, and so does the table.

use crate::{
    config::FinalSigmasType,
    dpm_solver::{Update, distance, is_heun},
    plan::Plan,
    rows::{Combination, Row},
};

pub(crate) fn rows(plan: &Plan) -> Vec<Row> {
    let orders = orders(plan);
    plan.steps()
        .map(|i| row(plan, i, orders[i].min(i - plan.begin + 1)))
        .collect()
}

fn row(plan: &Plan, i: usize, order: usize) -> Row {
    let level = plan.level(i);
    // Where the group began.
    let from = plan.level(i + 1 - order);
    let update = Update::new(plan.kind, from, plan.level(i + 1));
    let [current, before, before_that] = weights(plan, i, order, &update);
    let (p, q) = plan.denoised_level(level);
    let mut row = Row::first_order(
        plan.timesteps[i],
        (current * p, current * q),
        update.noise,
        (p, q),
        (level.alpha, level.sigma),
    );
    row.input_scale = plan.level_scale(level);
    row.next.history[..2].copy_from_slice(&[before, before_that]);
    if order == 1 {
        row.next.sample += update.base;
        row.keep = Some(Combination {
            sample: 1.0,
            ..Combination::default()
        });
    } else {
        row.next.kept = update.base;
    }
    row
}

/// Weights of the denoised images of this step, the one before and the one before that.
fn weights(plan: &Plan, i: usize, order: usize, update: &Update) -> [f64; 3] {
    if order == 1 {
        return [update.d0, 0.0, 0.0];
    }
    let r0 = distance(plan.level(i + 1 - order), plan.level(i)) / update.h;
    if order == 2 {
        let d1 = update.d1(&plan.config) / r0;
        return [d1, update.d0 - d1, 0.0];
    }
    let r1 = distance(plan.level(i - 2), plan.level(i - 1)) / update.h;
    // Of the differences from the beginning, (m1 - m2) / r1 and (m0 - m2) / r0.
    let (near, far) = if is_heun(&plan.config) {
        let (d1, d2) = (update.d1_heun / (r0 - r1), 2.0 * update.d2 / (r0 - r1));
        ((d1 * r0 - d2) / r1, (d2 - d1 * r1) / r0)
    } else {
        (0.0, update.d1_heun / r0)
    };
    [far, near, update.d0 - near - far]
}

/// The order of each step of a whole run. A group that would end with the run gives up its last order
/// where the config says so; to zero noise it must.
fn orders(plan: &Plan) -> Vec<usize> {
    let config = &plan.config;
    let n = plan.len();
    let order = config.solver_order.unwrap_or(2);
    let to_zero = config.final_sigmas_type != Some(FinalSigmasType::SigmaMin);
    let mut orders: Vec<usize> = (0..n).map(|i| i % order + 1).collect();
    if to_zero || (config.lower_order_final == Some(true) && n.is_multiple_of(order)) {
        orders[n - 1] = 1;
    }
    orders
}
