use crate::Tensor;

/// `a + b`, equal shapes.
pub fn add(a: &Tensor, b: &Tensor) -> Tensor {
    let _ = (a, b);
    todo!()
}

/// `a - b`, equal shapes.
pub fn sub(a: &Tensor, b: &Tensor) -> Tensor {
    let _ = (a, b);
    todo!()
}

/// `a * b`, equal shapes.
pub fn mul(a: &Tensor, b: &Tensor) -> Tensor {
    let _ = (a, b);
    todo!()
}

/// `scale * x + shift`.
pub fn affine(x: &Tensor, scale: f32, shift: f32) -> Tensor {
    let _ = (x, scale, shift);
    todo!()
}

/// `a[b]·x + c[b]·y` for each sample `b` of the first axis: noising, preconditioning, scheduler steps.
pub fn combine_per_sample(a: &[f32], x: &Tensor, c: &[f32], y: &Tensor) -> Tensor {
    let _ = (a, x, c, y);
    todo!()
}

/// `x[b, ..., c] + v[b, c]`: `x` `[B, ..., C]`, `v` `[B, C]` (time embeddings).
pub fn add_per_sample_channel(x: &Tensor, v: &Tensor) -> Tensor {
    let _ = (x, v);
    todo!()
}
