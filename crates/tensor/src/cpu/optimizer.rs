//! Steps of optimizers.

use crate::AdamWStep;
use rayon::prelude::*;

pub(crate) fn adamw(values: &mut [f32], grad: &[f32], exp_avg: &mut [f32], exp_avg_sq: &mut [f32], step: &AdamWStep) {
    let averages = exp_avg.iter_mut().zip(exp_avg_sq);
    for ((p, g), (m, v)) in values.iter_mut().zip(grad).zip(averages) {
        let g = g * step.grad_scale;
        *m = step.beta1 * *m + (1.0 - step.beta1) * g;
        *v = step.beta2 * *v + (1.0 - step.beta2) * g * g;
        let denominator = v.sqrt() * step.inv_sqrt_correction2 + step.epsilon;
        *p = *p * step.keep - step.step_size * *m / denominator;
    }
}

/// `average += (1 - decay) · (value - average)`
pub(crate) fn ema(average: &mut [f32], value: &[f32], decay: f32) {
    for (a, v) in average.iter_mut().zip(value) {
        *a += (1.0 - decay) * (v - *a);
    }
}

/// Moves `average` towards `scale · grad`: what Muon makes orthogonal, which looks ahead by a step if `nesterov`.
pub(crate) fn momentum(average: &mut [f32], grad: &[f32], scale: f32, momentum: f32, nesterov: bool) -> Vec<f32> {
    let one = |(a, g): (&mut f32, &f32)| {
        let g = scale * g;
        *a += (1.0 - momentum) * (g - *a);
        if nesterov { *a + (1.0 - momentum) * (g - *a) } else { *a }
    };
    average.iter_mut().zip(grad).map(one).collect()
}

/// `value = keep · value - size · direction`
pub(crate) fn descend(values: &mut [f32], direction: &[f32], keep: f32, size: f32) {
    for (value, d) in values.iter_mut().zip(direction) {
        *value = keep * *value - size * d;
    }
}

/// The sum of all squared values, in a fixed order.
pub(crate) fn sum_squares(tensors: &[&[f32]]) -> f64 {
    let squares = |t: &&[f32]| t.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
    let each: Vec<f64> = tensors.par_iter().map(squares).collect();
    each.iter().sum()
}
