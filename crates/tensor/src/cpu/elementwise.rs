//! Loops over values that know nothing of each other. The compiler vectorises them as they stand; they are bound by
//! memory, so wider registers would not help.

use super::parallel;

/// `out[i] = f(a[i], b[i])`.
pub(crate) fn binary(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32 + Sync) -> Vec<f32> {
    assert_eq!(a.len(), b.len());
    let b = &b[..a.len()];
    parallel::built(a.len(), |i| f(a[i], b[i]))
}

/// `out[i] = f(a[i])`.
pub(crate) fn unary(a: &[f32], f: impl Fn(f32) -> f32 + Sync) -> Vec<f32> {
    parallel::built(a.len(), |i| f(a[i]))
}

/// `into += from`
pub(crate) fn add_to(into: &mut [f32], from: &[f32]) {
    parallel::for_chunks(into, |at, part| {
        for (a, b) in part.iter_mut().zip(&from[at..]) {
            *a += b;
        }
    });
}

/// `values *= factor`
pub(crate) fn scale(values: &mut [f32], factor: f32) {
    parallel::for_chunks(values, |_, part| part.iter_mut().for_each(|v| *v *= factor));
}

/// `a[b]·x + c[b]·y` for each sample `b`.
pub(crate) fn combine_samples(a: &[f32], x: &[f32], c: &[f32], y: &[f32]) -> Vec<f32> {
    let mut out = x.to_vec();
    for_samples(&mut out, x.len() / a.len().max(1), |b, at, part| {
        for (o, &y) in part.iter_mut().zip(&y[at..]) {
            *o = a[b] * *o + c[b] * y;
        }
    });
    out
}

/// `factor[b]·x` for each sample `b`.
pub(crate) fn scale_samples(x: &[f32], factor: &[f32]) -> Vec<f32> {
    let mut out = x.to_vec();
    let sample = out.len() / factor.len().max(1);
    for_samples(&mut out, sample, |b, _, part| {
        for v in part {
            *v *= factor[b];
        }
    });
    out
}

/// `f(sample index, offset in the whole, part)` for parts that each lie in one sample.
fn for_samples(out: &mut [f32], sample: usize, f: impl Fn(usize, usize, &mut [f32]) + Sync) {
    if sample == 0 {
        return;
    }
    for (b, values) in out.chunks_exact_mut(sample).enumerate() {
        parallel::for_chunks(values, |at, part| f(b, b * sample + at, part));
    }
}

/// `numel` values, each the sum of `weight · value` over the terms.
pub(crate) fn weighted_sum(terms: &[(f32, &[f32])], numel: usize) -> Vec<f32> {
    let mut out = vec![0.0_f32; numel];
    for (weight, values) in terms {
        for (sum, value) in out.iter_mut().zip(*values) {
            *sum += weight * value;
        }
    }
    out
}

/// Samples of `sample` values in rows of `channels`: sample b's row of `v` added to each.
pub(crate) fn add_to_rows(x: &[f32], v: &[f32], sample: usize, channels: usize) -> Vec<f32> {
    let mut out = x.to_vec();
    for (values, v) in out.chunks_exact_mut(sample.max(1)).zip(v.chunks_exact(channels)) {
        parallel::for_rows(values, channels, |_, part| {
            for row in part.chunks_exact_mut(channels) {
                row.iter_mut().zip(v).for_each(|(o, v)| *o += v);
            }
        });
    }
    out
}

/// Values of `-1..=1` as bytes, halves to even.
pub(crate) fn bytes(x: &[f32]) -> Vec<u8> {
    let byte = |v: &f32| ((v * 0.5 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
    x.iter().map(byte).collect()
}
