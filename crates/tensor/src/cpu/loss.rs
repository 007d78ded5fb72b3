//! Losses that are a mean over all values, weighted by sample.

use super::{parallel, sums};

/// `mean_b weight[b] · mean_i value(x - target)`
pub(crate) fn mean(x: &[f32], target: &[f32], weight: &[f32], value: impl Fn(f32) -> f32 + Sync) -> f32 {
    let sample = x.len() / weight.len();
    let mut total = 0.0;
    for (b, &weight) in weight.iter().enumerate() {
        let (x, target) = (&x[b * sample..(b + 1) * sample], &target[b * sample..(b + 1) * sample]);
        total += f64::from(weight) * sums::of(sample, |i| f64::from(value(x[i] - target[i])));
    }
    (total / x.len() as f64) as f32
}

/// `scale · weight[b] · slope(x - target)`
pub(crate) fn gradient(
    x: &[f32],
    target: &[f32],
    weight: &[f32],
    scale: f32,
    slope: impl Fn(f32) -> f32 + Sync,
) -> Vec<f32> {
    let sample = x.len() / weight.len();
    let mut dx = x.to_vec();
    for (b, values) in dx.chunks_exact_mut(sample).enumerate() {
        let factor = scale * weight[b];
        parallel::for_chunks(values, |at, part| {
            for (d, &t) in part.iter_mut().zip(&target[b * sample + at..]) {
                *d = factor * slope(*d - t);
            }
        });
    }
    dx
}
