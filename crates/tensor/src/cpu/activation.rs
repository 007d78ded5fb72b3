//! Pointwise non-linearities over slices.

use super::math::{dispatch, normal_cdf_pdf, sigmoid, tanh};
use super::parallel;
use crate::Activation;

#[inline(always)]
fn map(values: &mut [f32], f: impl Fn(f32) -> f32) {
    for v in values {
        *v = f(*v);
    }
}

#[inline(always)]
fn forward_body<const FMA: bool>(kind: Activation, values: &mut [f32]) {
    match kind {
        Activation::None => {}
        Activation::Relu => map(values, |x| if x < 0.0 { 0.0 } else { x }),
        Activation::Relu6 => map(values, |x| {
            let low = if x < 0.0 { 0.0 } else { x };
            if low > 6.0 { 6.0 } else { low }
        }),
        Activation::Silu => map(values, |x| x * sigmoid::<FMA>(x)),
        Activation::Gelu => map(values, |x| x * normal_cdf_pdf::<FMA>(x).0),
        Activation::QuickGelu => map(values, |x| x * sigmoid::<FMA>(1.702 * x)),
        Activation::Tanh => map(values, tanh::<FMA>),
        Activation::Softplus => map(values, |x| (if x > 0.0 { x } else { 0.0 }) + (-x.abs()).exp().ln_1p()),
    }
}

#[inline(always)]
fn scale(grad: &mut [f32], x: &[f32], derivative: impl Fn(f32) -> f32) {
    assert_eq!(grad.len(), x.len());
    for (g, &x) in grad.iter_mut().zip(x) {
        *g *= derivative(x);
    }
}

#[inline(always)]
fn backward_body<const FMA: bool>(kind: Activation, x: &[f32], grad: &mut [f32]) {
    match kind {
        Activation::None => {}
        Activation::Relu => scale(grad, x, |x| if x > 0.0 { 1.0 } else { 0.0 }),
        Activation::Relu6 => scale(grad, x, |x| if x > 0.0 && x < 6.0 { 1.0 } else { 0.0 }),
        Activation::Silu => scale(grad, x, silu_derivative::<FMA>),
        Activation::Gelu => scale(grad, x, |x| {
            let (cdf, pdf) = normal_cdf_pdf::<FMA>(x);
            cdf + x * pdf
        }),
        Activation::QuickGelu => scale(grad, x, |x| silu_derivative::<FMA>(1.702 * x)),
        Activation::Tanh => scale(grad, x, |x| {
            let y = tanh::<FMA>(x);
            1.0 - y * y
        }),
        Activation::Softplus => scale(grad, x, sigmoid::<FMA>),
    }
}

/// `d/dx x·sigmoid(x)`; `quick_gelu'(x)` is the same function of `1.702 x`.
#[inline(always)]
pub(crate) fn silu_derivative<const FMA: bool>(x: f32) -> f32 {
    let s = sigmoid::<FMA>(x);
    s + x * s * (1.0 - s)
}

dispatch! {
    /// `x = act(x)` on one thread: the epilogue of linear and convolution.
    pub(crate) fn apply(kind: Activation, values: &mut [f32]) = forward_body
}

dispatch! {
    /// `grad *= act'(x)` on one thread, `x` being the values before the activation.
    fn apply_backward(kind: Activation, x: &[f32], grad: &mut [f32]) = backward_body
}

/// `act(x)`
pub(crate) fn forward(kind: Activation, x: &[f32]) -> Vec<f32> {
    let mut out = x.to_vec();
    parallel::for_chunks(&mut out, |_, part| apply(kind, part));
    out
}

/// `grad · act'(x)`
pub(crate) fn backward(kind: Activation, x: &[f32], mut grad: Vec<f32>) -> Vec<f32> {
    parallel::for_chunks(&mut grad, |at, part| {
        apply_backward(kind, &x[at..at + part.len()], part);
    });
    grad
}

/// Rows of a value for each of `slope`: what is below zero times its slope.
pub(crate) fn prelu(mut x: Vec<f32>, slope: &[f32]) -> Vec<f32> {
    parallel::for_rows(&mut x, slope.len(), |_, part| {
        for row in part.chunks_exact_mut(slope.len()) {
            for (v, slope) in row.iter_mut().zip(slope) {
                *v = if *v < 0.0 { *v * slope } else { *v };
            }
        }
    });
    x
}

#[inline(always)]
fn geglu_body<const FMA: bool>(x: &[f32], out: &mut [f32], half: usize) {
    for (x, out) in x.chunks_exact(2 * half).zip(out.chunks_exact_mut(half)) {
        let (value, gate) = x.split_at(half);
        for ((o, &v), &g) in out.iter_mut().zip(value).zip(gate) {
            *o = v * g * normal_cdf_pdf::<FMA>(g).0;
        }
    }
}

dispatch! {
    fn geglu_rows(x: &[f32], out: &mut [f32], half: usize) = geglu_body
}

/// Rows of `2 half` values to rows of `half`: first half times `gelu(second half)`.
pub(crate) fn geglu(x: &[f32], half: usize) -> Vec<f32> {
    let mut out = vec![0.0; x.len() / 2];
    parallel::for_rows(&mut out, half, |at, part| {
        geglu_rows(&x[2 * at..2 * (at + part.len())], part, half);
    });
    out
}

#[inline(always)]
fn geglu_backward_body<const FMA: bool>(x: &[f32], grad: &[f32], dx: &mut [f32], half: usize) {
    for ((x, grad), dx) in x
        .chunks_exact(2 * half)
        .zip(grad.chunks_exact(half))
        .zip(dx.chunks_exact_mut(2 * half))
    {
        let (value, gate) = x.split_at(half);
        let (d_value, d_gate) = dx.split_at_mut(half);
        for ((((dv, dg), &v), &g), &grad) in d_value.iter_mut().zip(d_gate).zip(value).zip(gate).zip(grad) {
            let (cdf, pdf) = normal_cdf_pdf::<FMA>(g);
            *dv = grad * g * cdf;
            *dg = grad * v * (cdf + g * pdf);
        }
    }
}

dispatch! {
    fn geglu_backward_rows(x: &[f32], grad: &[f32], dx: &mut [f32], half: usize) = geglu_backward_body
}

/// Gradient of [`geglu`] with respect to its input.
pub(crate) fn geglu_backward(x: &[f32], grad: &[f32], half: usize) -> Vec<f32> {
    let mut dx = vec![0.0; x.len()];
    parallel::for_rows(&mut dx, 2 * half, |at, part| {
        let (x, grad) = (&x[at..at + part.len()], &grad[at / 2..at / 2 + part.len() / 2]);
        geglu_backward_rows(x, grad, part, half);
    });
    dx
}
