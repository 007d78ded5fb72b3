//! What an optimizer does to parameters. Nothing is recorded; values that lie on a device stay there.

use crate::cpu::optimizer as kernel;
use crate::device::gpu;
use crate::{Param, Tensor, affine, weighted_sum};

/// The averages that AdamW keeps of one parameter's gradients: f32, of its shape.
#[derive(Clone, Debug)]
pub struct Moments {
    pub exp_avg: Tensor,
    pub exp_avg_sq: Tensor,
}

impl Moments {
    pub fn zeros(shape: &[usize]) -> Self {
        Self {
            exp_avg: Tensor::zeros(shape),
            exp_avg_sq: Tensor::zeros(shape),
        }
    }
}

/// The scalars of one update by AdamW (Loshchilov and Hutter 2019), named as torch names them.
#[derive(Clone, Copy, Debug)]
pub struct AdamWStep {
    pub beta1: f32,
    pub beta2: f32,
    pub epsilon: f32,
    /// Multiplies the gradient: clipping.
    pub grad_scale: f32,
    /// Learning rate over `1 - beta1^t`.
    pub step_size: f32,
    /// One over the root of `1 - beta2^t`.
    pub inv_sqrt_correction2: f32,
    /// `1 - learning rate · weight decay`.
    pub keep: f32,
}

/// With `g = grad_scale · grad`: moves the moments towards `g` and `g²`, and sets the parameter to
/// `keep · value - step_size · exp_avg / (sqrt(exp_avg_sq) · inv_sqrt_correction2 + epsilon)`.
pub fn adamw_update(param: &Param, grad: &Tensor, moments: &mut Moments, step: &AdamWStep) {
    param.change(|value| {
        assert_eq!(value.shape(), grad.shape(), "a gradient has its parameter's shape");
        match gpu() {
            Some(gpu) => gpu.adamw(value, grad, moments, step),
            None => value.edit(|values| {
                let Moments { exp_avg, exp_avg_sq } = moments;
                exp_avg.edit(|m| exp_avg_sq.edit(|v| kernel::adamw(values, grad.data(), m, v, step)));
            }),
        }
    });
}

/// With `g = grad_scale · grad`: moves the average towards `g` by `1 - momentum`. Returns the average, or with `nesterov` where
/// it would be after another such step.
pub fn momentum_update(average: &mut Tensor, grad: &Tensor, grad_scale: f32, momentum: f32, nesterov: bool) -> Tensor {
    assert_eq!(average.shape(), grad.shape(), "an average has its parameter's shape");
    if gpu().is_none() {
        let shape = grad.shape();
        let mut direction = Vec::new();
        average.edit(|average| direction = kernel::momentum(average, grad.data(), grad_scale, momentum, nesterov));
        return Tensor::from_vec(direction, shape);
    }
    let gradient = affine(grad, grad_scale, 0.0);
    ema_update(average, &gradient, momentum);
    if !nesterov {
        return average.clone();
    }
    let momentum = f64::from(momentum);
    weighted_sum(&[(1.0 - momentum, &gradient), (momentum, average)])
}

/// Sets the parameter to `keep · value - size · direction`.
pub fn descend(param: &Param, direction: &Tensor, keep: f32, size: f32) {
    param.change(|value| {
        assert_eq!(
            value.shape(),
            direction.shape(),
            "a direction has its parameter's shape"
        );
        if gpu().is_none() {
            return value.edit(|values| kernel::descend(values, direction.data(), keep, size));
        }
        *value = weighted_sum(&[(f64::from(keep), value), (-f64::from(size), direction)]);
    });
}

/// `average += (1 - decay) · (value - average)`.
pub fn ema_update(average: &mut Tensor, value: &Tensor, decay: f32) {
    assert_eq!(average.shape(), value.shape(), "an average has its parameter's shape");
    if let Some(gpu) = gpu() {
        return gpu.ema(average, value, decay);
    }
    average.edit(|average| kernel::ema(average, value.data(), decay));
}

/// Square root of the sum of all squared values, in a fixed order: the global norm of gradients.
pub fn global_norm(tensors: &[&Tensor]) -> f32 {
    if let Some(gpu) = gpu() {
        return gpu.sum_squares(tensors).sqrt();
    }
    let values: Vec<&[f32]> = tensors.iter().map(|t| t.data()).collect();
    kernel::sum_squares(&values).sqrt() as f32
}
