//! UniPC: each network evaluation first corrects the step that led to it, then predicts the next
//! (`UniPCMultistepScheduler`; Zhao et al. 2023, algorithms 1 and 2, with B(h) of either kind).
//! The corrector and the predictor of a row are one combination here.

use crate::{
    dpm_solver::distance,
    plan::Plan,
    rows::{Combination, HISTORY, Row},
};

pub(crate) fn rows(plan: &Plan) -> Vec<Row> {
    plan.steps().map(|i| row(plan, i)).collect()
}

/// Weights of what a row has, with the denoised image of its own evaluation still whole.
#[derive(Default)]
struct Sum {
    sample: f64,
    kept: f64,
    current: f64,
    history: [f64; HISTORY],
}

fn row(plan: &Plan, i: usize) -> Row {
    let level = plan.level(i);
    let (p, q) = plan.denoised_level(level);
    let combination = |sum: &Sum| Combination {
        sample: sum.sample + sum.current * p,
        model_output: sum.current * q,
        noise: 0.0,
        history: sum.history,
        kept: sum.kept,
    };
    let corrected = corrected(plan, i);
    let keep = combination(&corrected);
    let next = combination(&predicted(plan, i, corrected));
    Row {
        next,
        keep: Some(keep),
        input_scale: plan.level_scale(level),
        ..Row::first_order(plan.timesteps[i], (0.0, 0.0), 0.0, (p, q), (level.alpha, level.sigma))
    }
}

/// The sample at step `i` once the network has been asked there.
fn corrected(plan: &Plan, i: usize) -> Sum {
    let disabled = plan.config.disable_corrector.as_deref().unwrap_or(&[]);
    if i == plan.begin || disabled.contains(&(i - 1)) {
        return Sum {
            sample: 1.0,
            ..Sum::default()
        };
    }
    let order = order(plan, i - 1);
    let step = Step::new(plan, i - 1, order);
    let rhos = if order == 1 { vec![0.5] } else { step.solve(order) };
    // The last difference is that to the new image, at a distance of 1.
    let mut history = [0.0; HISTORY];
    let (past, new) = step.weights(&rhos[..order - 1], rhos[order - 1]);
    history[..order].copy_from_slice(&past);
    Sum {
        kept: step.base,
        current: new,
        history,
        ..Sum::default()
    }
}

/// The next sample, from the corrected one.
fn predicted(plan: &Plan, i: usize, from: Sum) -> Sum {
    let order = order(plan, i);
    let step = Step::new(plan, i, order);
    let rhos = match order {
        1 => Vec::new(),
        2 => vec![0.5],
        _ => step.solve(order - 1),
    };
    let (past, _) = step.weights(&rhos, 0.0);
    let mut next = Sum {
        sample: step.base * from.sample,
        kept: step.base * from.kept,
        current: step.base * from.current + past[0],
        history: from.history.map(|weight| step.base * weight),
    };
    for (weight, past) in next.history.iter_mut().zip(&past[1..]) {
        *weight += past;
    }
    next
}

fn order(plan: &Plan, i: usize) -> usize {
    let order = plan.config.solver_order.unwrap_or(2);
    let most = if plan.config.lower_order_final.unwrap_or(true) {
        plan.len() - i
    } else {
        order
    };
    // No polynomial reaches the end of lambda, or goes nowhere.
    let (from, to) = (plan.sigmas[i], plan.sigmas[i + 1]);
    if to == 0.0 || to == from {
        return 1;
    }
    order.min(most).min(i - plan.begin + 1)
}

/// From level `i` to the next.
struct Step {
    h: f64,
    /// Weight of the sample.
    base: f64,
    alpha: f64,
    /// Places of the earlier denoised images, in steps from level `i`: below 0, the latest first.
    rks: Vec<f64>,
    /// B(h), an approximation of h that is free up to its first order.
    b_h: f64,
}

impl Step {
    fn new(plan: &Plan, i: usize, order: usize) -> Self {
        let (from, to) = (plan.level(i), plan.level(i + 1));
        let h = distance(from, to);
        let is_bh1 = plan.config.solver_type.as_deref() == Some("bh1");
        Self {
            h,
            base: to.sigma / from.sigma,
            alpha: to.alpha,
            rks: (1..order).map(|j| -distance(plan.level(i - j), from) / h).collect(),
            b_h: if is_bh1 { -h } else { (-h).exp_m1() },
        }
    }

    /// Weights of the denoised images at level `i` and before, and of the one at the next level, for
    /// given weights of the differences to the first.
    fn weights(&self, rhos: &[f64], rho_new: f64) -> (Vec<f64>, f64) {
        let scale = -self.alpha * self.b_h;
        let mut past = vec![-self.alpha * (-self.h).exp_m1()];
        for (rho, rk) in rhos.iter().zip(&self.rks) {
            let weight = scale * rho / rk;
            past[0] -= weight;
            past.push(weight);
        }
        let new = if rho_new == 0.0 { 0.0 } else { scale * rho_new };
        past[0] -= new;
        (past, new)
    }

    /// The `n` weights that integrate polynomials exactly: `sum_j rho_j * rk_j^k = b_k`, with the places
    /// `rks` and 1 (equation 9).
    fn solve(&self, n: usize) -> Vec<f64> {
        let places: Vec<f64> = self.rks.iter().copied().chain([1.0]).take(n).collect();
        let (mut phi, mut factorial) = ((-self.h).exp_m1() / -self.h - 1.0, 1.0);
        let mut rows: Vec<Vec<f64>> = Vec::with_capacity(n);
        for k in 0..n {
            let mut row: Vec<f64> = places.iter().map(|r| r.powi(k as i32)).collect();
            row.push(phi * factorial / self.b_h);
            rows.push(row);
            factorial *= (k + 2) as f64;
            phi = phi / -self.h - 1.0 / factorial;
        }
        eliminate(rows)
    }
}

/// Gauss-Jordan elimination of `n` rows of `n + 1`. A Vandermonde matrix of distinct places needs no
/// pivoting.
fn eliminate(mut rows: Vec<Vec<f64>>) -> Vec<f64> {
    let n = rows.len();
    for k in 0..n {
        let pivot: Vec<f64> = rows[k].iter().map(|v| v / rows[k][k]).collect();
        for (j, row) in rows.iter_mut().enumerate() {
            let factor = row[k];
            for (value, p) in row.iter_mut().zip(&pivot) {
                *value = if j == k { *p } else { *value - factor * p };
            }
        }
    }
    rows.iter().map(|row| row[n]).collect()
}
