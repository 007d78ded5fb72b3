//! DEIS, multistep of orders 1 to 3 (`DEISMultistepScheduler`; Zhang and Chen 2022, section 4, in the logarithm of rho): a
//! polynomial through predicted noises, integrated over rho. The sample is `alpha * x0 + sigma * noise`.

use crate::{
    plan::Plan,
    rows::{Remember, Row},
};

pub(crate) fn rows(plan: &Plan) -> Vec<Row> {
    plan.steps().map(|i| row(plan, i)).collect()
}

fn row(plan: &Plan, i: usize) -> Row {
    let (from, to) = (plan.level(i), plan.level(i + 1));
    let (p, q) = plan.denoised_level(from);
    let epsilon = ((1.0 - from.alpha * p) / from.sigma, -from.alpha * q / from.sigma);
    let weights = weights(plan, i).map(|weight| to.alpha * weight);
    let mut row = Row {
        input_scale: plan.level_scale(from),
        remember: Remember::Line(epsilon),
        ..Row::first_order(
            plan.timesteps[i],
            (to.alpha / from.alpha + weights[0] * epsilon.0, weights[0] * epsilon.1),
            0.0,
            (p, q),
            (from.alpha, from.sigma),
        )
    };
    row.next.history[..2].copy_from_slice(&weights[1..]);
    row
}

/// Weights of this predicted noise, the one before and the one before that.
fn weights(plan: &Plan, i: usize) -> [f64; 3] {
    let rho = |j: usize| plan.level(j).ratio;
    let (to, now) = (rho(i + 1), rho(i));
    match order(plan, i) {
        1 => [to - now, 0.0, 0.0],
        2 => {
            let before = rho(i - 1);
            let weight = |own, other| linear(to, own, other) - linear(now, own, other);
            [weight(now, before), weight(before, now), 0.0]
        }
        _ => {
            let (before, first) = (rho(i - 1), rho(i - 2));
            let weight = |own, a, b| quadratic(to, own, a, b) - quadratic(now, own, a, b);
            [
                weight(now, before, first),
                weight(before, first, now),
                weight(first, now, before),
            ]
        }
    }
}

/// Integral to `t` of the polynomial in the logarithm that is 1 at `own` and 0 at `other`.
fn linear(t: f64, own: f64, other: f64) -> f64 {
    t * (t.ln() - other.ln() - 1.0) / (own.ln() - other.ln())
}

/// The same that is 0 at two others.
fn quadratic(t: f64, own: f64, a: f64, b: f64) -> f64 {
    let (t_log, a_log, b_log) = (t.ln(), a.ln(), b.ln());
    let integral = t_log * t_log - t_log * (a_log + b_log + 2.0) + a_log * b_log + a_log + b_log + 2.0;
    t * integral / ((own.ln() - a_log) * (own.ln() - b_log))
}

fn order(plan: &Plan, i: usize) -> usize {
    let few = plan.config.lower_order_final.unwrap_or(true) && plan.len() < 15;
    let most = match plan.len() - i {
        1 if few => 1,
        2 if few => 2,
        _ => 3,
    };
    plan.config.solver_order.unwrap_or(2).min(i - plan.begin + 1).min(most)
}
