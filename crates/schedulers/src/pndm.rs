//! Pseudo linear multistep (`PNDMScheduler` with `skip_prk_steps`; Liu et al. 2022, equations 11 and 12): a polynomial through up
//! to four answers of the network. The first step is taken twice, the second time with the mean of the answers at both ends, so
//! that `n` steps are `n + 1` evaluations. The sample is `alpha * x0 + sigma * noise` with `alpha^2 + sigma^2 = 1`.

use crate::{
    error::Result,
    names::TimestepSpacing,
    plan::Plan,
    rows::{Combination, HISTORY, Remember, Row},
};

/// Weights of this answer and of those before it (Adams-Bashforth).
const ADAMS: [[f64; HISTORY + 1]; 4] = [
    [1.0, 0.0, 0.0, 0.0],
    [1.5, -0.5, 0.0, 0.0],
    [23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0, 0.0],
    [55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
];

/// The rows and the noise level after the last.
pub(crate) fn rows(plan: &Plan) -> Result<(Vec<Row>, f64)> {
    let mut rows = Vec::new();
    for i in plan.steps() {
        let (from, to) = (plan.index(i), previous(plan, plan.index(i), i));
        let order = (i - plan.begin + 1).min(ADAMS.len());
        let mut row = Row {
            next: step(plan, from, to, &ADAMS[order - 1], false),
            remember: Remember::Line((0.0, 1.0)),
            ..evaluation(plan, i)?
        };
        let is_repeated = i == plan.begin && i + 1 < plan.len();
        if is_repeated {
            row.ends_step = false;
            row.keep = Some(Combination {
                sample: 1.0,
                ..Combination::default()
            });
        }
        rows.push(row);
        if is_repeated {
            let to = plan.index(i + 1);
            let from = if is_strided(plan) { to + stride(plan) } else { from };
            let last = plan.noise.num_train_timesteps() - 1;
            rows.push(Row {
                next: step(plan, from.min(last), Some(to), &[0.5, 0.5, 0.0, 0.0], true),
                remember: Remember::Nothing,
                ..evaluation(plan, i + 1)?
            });
        }
    }
    let last = plan.len() - 1;
    let end = alphas_cumprod(plan, previous(plan, plan.index(last), last));
    Ok((rows, ((1.0 - end) / end).sqrt()))
}

/// A row of step `i` whose next sample is not said yet.
fn evaluation(plan: &Plan, i: usize) -> Result<Row> {
    Ok(Row::first_order(
        plan.timesteps[i],
        (0.0, 0.0),
        0.0,
        plan.denoised_vp(i)?,
        plan.noise.alpha_sigma(plan.index(i)),
    ))
}

/// The next sample from that of this row, or from the kept one, by `weights` of this answer and of earlier ones.
fn step(plan: &Plan, from: usize, to: Option<usize>, weights: &[f64; HISTORY + 1], from_kept: bool) -> Combination {
    let (a, b) = (plan.noise.alphas_cumprod()[from], alphas_cumprod(plan, to));
    let denominator = a * (1.0 - b).sqrt() + (a * (1.0 - a) * b).sqrt();
    let epsilon = -(b - a) / denominator;
    // What the network says is turned into noise with the sample that the step begins at.
    let (sample, output) = plan.prediction.epsilon_vp(a.sqrt(), (1.0 - a).sqrt());
    let begin = (b / a).sqrt() + epsilon * sample;
    Combination {
        sample: if from_kept { 0.0 } else { begin },
        kept: if from_kept { begin } else { 0.0 },
        model_output: epsilon * output * weights[0],
        history: std::array::from_fn(|j| epsilon * output * weights[j + 1]),
        noise: 0.0,
    }
}

/// diffusers goes down by `T / n` whatever its timesteps are; of other spacings the next timestep is meant. `None`: to the end.
fn previous(plan: &Plan, timestep: usize, i: usize) -> Option<usize> {
    if is_strided(plan) {
        return timestep.checked_sub(stride(plan));
    }
    (i + 1 < plan.len()).then(|| plan.index(i + 1))
}

fn is_strided(plan: &Plan) -> bool {
    use TimestepSpacing::{Leading, Linspace, Trailing};
    matches!(plan.spacing(), Some(Linspace | Leading | Trailing))
}

fn stride(plan: &Plan) -> usize {
    plan.noise.num_train_timesteps() / plan.len()
}

fn alphas_cumprod(plan: &Plan, timestep: Option<usize>) -> f64 {
    match timestep {
        Some(timestep) => plan.noise.alphas_cumprod()[timestep],
        None if plan.config.set_alpha_to_one == Some(true) => 1.0,
        None => plan.noise.alphas_cumprod()[0],
    }
}
