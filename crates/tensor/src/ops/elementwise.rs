use crate::Tensor;
use crate::autograd::{is_recording, record};
use crate::cpu::elementwise as kernel;
use crate::cpu::sums;
use crate::device::gpu;

/// In the order of the GPU's kernel.
#[derive(Clone, Copy, Debug)]
pub enum Binary {
    Add,
    Sub,
    Mul,
}

fn assert_same_shape(op: &str, a: &Tensor, b: &Tensor) {
    assert_eq!(a.shape(), b.shape(), "{op}: the two shapes differ");
}

/// Does a gradient have to reach `x`?
pub(crate) fn on_tape(x: &Tensor) -> bool {
    x.node.is_some()
}

fn binary(op: Binary, a: &Tensor, b: &Tensor) -> Tensor {
    if let Some(gpu) = gpu() {
        return gpu.binary(op, a, b);
    }
    let (x, y) = (a.data(), b.data());
    let out = match op {
        Binary::Add => kernel::binary(x, y, |a, b| a + b),
        Binary::Sub => kernel::binary(x, y, |a, b| a - b),
        Binary::Mul => kernel::binary(x, y, |a, b| a * b),
    };
    Tensor::from_vec(out, a.shape())
}

/// `a + b`, equal shapes. Backward: `grad` to both.
pub fn add(a: &Tensor, b: &Tensor) -> Tensor {
    assert_same_shape("add", a, b);
    let out = binary(Binary::Add, a, b);
    record(out, &[a, b], |grad| vec![Some(grad.clone()), Some(grad.clone())])
}

/// `a - b`, equal shapes. Backward: `grad` to `a`, `-grad` to `b`.
pub fn sub(a: &Tensor, b: &Tensor) -> Tensor {
    assert_same_shape("sub", a, b);
    let out = binary(Binary::Sub, a, b);
    let needs_b = on_tape(b);
    record(out, &[a, b], move |grad| {
        vec![Some(grad.clone()), needs_b.then(|| affine(grad, -1.0, 0.0))]
    })
}

/// `a * b`, equal shapes. Backward: `grad · b` to `a`, `grad · a` to `b`.
pub fn mul(a: &Tensor, b: &Tensor) -> Tensor {
    assert_same_shape("mul", a, b);
    let out = binary(Binary::Mul, a, b);
    if !is_recording(&[a, b]) {
        return out;
    }
    let for_a = on_tape(a).then(|| b.detach());
    let for_b = on_tape(b).then(|| a.detach());
    record(out, &[a, b], move |grad| {
        vec![
            for_a.as_ref().map(|other| mul(grad, other)),
            for_b.as_ref().map(|other| mul(grad, other)),
        ]
    })
}

/// `scale * x + shift`. Backward: `scale · grad`.
pub fn affine(x: &Tensor, scale: f32, shift: f32) -> Tensor {
    let out = match gpu() {
        Some(gpu) => gpu.affine(x, scale, shift),
        None => Tensor::from_vec(kernel::unary(x.data(), |v| scale * v + shift), x.shape()),
    };
    record(out, &[x], move |grad| vec![Some(affine(grad, scale, 0.0))])
}

/// `a[b]·x + c[b]·y` for each sample `b` of the first axis: noising, preconditioning, scheduler steps.
/// Backward: `a[b] · grad` to `x`, `c[b] · grad` to `y`.
pub fn combine_per_sample(a: &[f32], x: &Tensor, c: &[f32], y: &Tensor) -> Tensor {
    assert_same_shape("combine_per_sample", x, y);
    let batch = x.dim(0);
    assert_eq!(a.len(), batch, "combine_per_sample wants one factor of x per sample");
    assert_eq!(c.len(), batch, "combine_per_sample wants one factor of y per sample");
    let out = if let Some(gpu) = gpu() {
        gpu.combine_per_sample(a, x, Some((c, y)))
    } else {
        Tensor::from_vec(kernel::combine_samples(a, x.data(), c, y.data()), x.shape())
    };
    if !is_recording(&[x, y]) {
        return out;
    }
    let (for_x, for_y) = (on_tape(x).then(|| a.to_vec()), on_tape(y).then(|| c.to_vec()));
    record(out, &[x, y], move |grad| {
        vec![
            for_x.as_ref().map(|a| scale_samples(grad, a)),
            for_y.as_ref().map(|c| scale_samples(grad, c)),
        ]
    })
}

/// `sum of weight · tensor` over up to four terms of one shape: a sampler's step. Not recorded: samplers are not trained through.
pub fn weighted_sum(terms: &[(f64, &Tensor)]) -> Tensor {
    assert!(
        (1..=4).contains(&terms.len()),
        "weighted_sum takes one to four terms, not {}",
        terms.len()
    );
    let shape = terms[0].1.shape();
    for (_, tensor) in terms {
        assert_eq!(tensor.shape(), shape, "weighted_sum: the shapes differ");
    }
    let used = terms.iter().filter(|(weight, _)| *weight != 0.0);
    let used: Vec<(f32, &Tensor)> = used.map(|(weight, tensor)| (*weight as f32, *tensor)).collect();
    if let Some(gpu) = gpu().filter(|_| !used.is_empty()) {
        return gpu.weighted_sum(&used);
    }
    let used: Vec<(f32, &[f32])> = used.iter().map(|(weight, tensor)| (*weight, tensor.data())).collect();
    Tensor::from_vec(kernel::weighted_sum(&used, terms[0].1.numel()), shape)
}

/// `factor[b] · x[b]`.
pub(crate) fn scale_samples(x: &Tensor, factor: &[f32]) -> Tensor {
    if let Some(gpu) = gpu() {
        return gpu.combine_per_sample(factor, x, None);
    }
    Tensor::from_vec(kernel::scale_samples(x.data(), factor), x.shape())
}

/// `x[b, ..., c] + v[b, c]`: `x` `[B, ..., C]`, `v` `[B, C]` (time embeddings).
/// Backward: `grad` to `x`, its sum over the middle axes to `v`.
pub fn add_per_sample_channel(x: &Tensor, v: &Tensor) -> Tensor {
    let (batch, channels) = (x.dim(0), x.dim(-1));
    assert_eq!(
        v.shape(),
        [batch, channels],
        "add_per_sample_channel: v does not fit x of shape {:?}",
        x.shape()
    );
    let sample = x.numel() / batch.max(1);
    let out = if let Some(gpu) = gpu() {
        gpu.add_per_sample_channel(x, v)
    } else {
        Tensor::from_vec(kernel::add_to_rows(x.data(), v.data(), sample, channels), x.shape())
    };
    let needs_v = on_tape(v);
    record(out, &[x, v], move |grad| {
        let dv = needs_v.then(|| {
            if let Some(gpu) = gpu() {
                return gpu.sum_samples(grad, 1.0);
            }
            Tensor::from_vec(sums::of_samples(grad.data(), sample, channels), &[batch, channels])
        });
        vec![Some(grad.clone()), dv]
    })
}
