use crate::Tensor;
use crate::autograd::{is_recording, record};
use crate::cpu::loss as kernel;
use crate::device::gpu;

/// What a difference costs. In the order of the GPU's kernel.
#[derive(Clone, Copy, Debug)]
pub enum Loss {
    Squared,
    PseudoHuber { c: f32 },
    Absolute,
}

/// `mean_b weight[b] · mean_i value(x - target)`; backward multiplies by `slope(x - target)`.
fn weighted_loss(
    op: &str,
    kind: Loss,
    x: &Tensor,
    target: &Tensor,
    weight: &[f32],
    value: impl Fn(f32) -> f32 + Sync,
    slope: impl Fn(f32) -> f32 + Send + Sync + 'static,
) -> Tensor {
    assert_eq!(x.shape(), target.shape(), "{op}: x and target differ in shape");
    assert!(x.numel() > 0, "{op} of no values");
    assert_eq!(weight.len(), x.dim(0), "{op} wants one weight per sample");
    let out = if let Some(gpu) = gpu() {
        gpu.loss(kind, x, target, weight)
    } else {
        Tensor::scalar(kernel::mean(x.data(), target.data(), weight, value))
    };
    if !is_recording(&[x]) {
        return out;
    }
    let (x_saved, target, weight) = (x.detach(), target.detach(), weight.to_vec());
    record(out, &[x], move |grad| {
        if let Some(gpu) = gpu() {
            return vec![Some(gpu.loss_backward(kind, &x_saved, &target, &weight, grad))];
        }
        let scale = grad.item() / x_saved.numel() as f32;
        let dx = kernel::gradient(x_saved.data(), target.data(), &weight, scale, &slope);
        vec![Some(Tensor::from_vec(dx, x_saved.shape()))]
    })
}

/// `mean_b weight[b] · mean((x - target)²)`; `target` gets no gradient.
pub fn weighted_mse(x: &Tensor, target: &Tensor, weight: &[f32]) -> Tensor {
    let (value, slope) = (|d| d * d, |d| 2.0 * d);
    weighted_loss("weighted_mse", Loss::Squared, x, target, weight, value, slope)
}

/// `mean_b weight[b] · mean(sqrt((x - target)² + c²) - c)`; `target` gets no gradient.
pub fn weighted_pseudo_huber(x: &Tensor, target: &Tensor, weight: &[f32], c: f32) -> Tensor {
    // d² / (sqrt(d² + c²) + c): the same value without the cancellation near zero.
    let value = move |d: f32| {
        let root = (d * d + c * c).sqrt();
        if root + c > 0.0 { d * d / (root + c) } else { 0.0 }
    };
    let slope = move |d: f32| {
        let root = (d * d + c * c).sqrt();
        if root > 0.0 { d / root } else { 0.0 }
    };
    let kind = Loss::PseudoHuber { c };
    weighted_loss("weighted_pseudo_huber", kind, x, target, weight, value, slope)
}

/// `mean |x - target|`; `target` gets no gradient (and `x` none where they are equal).
pub fn mean_absolute_error(x: &Tensor, target: &Tensor) -> Tensor {
    let slope = |d: f32| if d == 0.0 { 0.0 } else { d.signum() };
    let weight = vec![1.0; x.dim(0)];
    weighted_loss(
        "mean_absolute_error",
        Loss::Absolute,
        x,
        target,
        &weight,
        f32::abs,
        slope,
    )
}
