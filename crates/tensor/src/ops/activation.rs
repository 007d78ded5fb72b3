use crate::Tensor;
use crate::autograd::{is_recording, record, record_owning};
use crate::cpu::activation as kernel;
use crate::device::gpu;

/// Pointwise non-linearities. `Gelu` is the exact (erf) one; `QuickGelu` is `x·sigmoid(1.702x)`; `Softplus` is `ln(1 + e^x)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    None,
    Relu,
    Relu6,
    Silu,
    Gelu,
    QuickGelu,
    Tanh,
    Softplus,
}

/// `act(x)` for each value. Backward: `dx = grad · act'(x)`.
pub fn activation(x: &Tensor, kind: Activation) -> Tensor {
    if kind == Activation::None {
        return x.clone();
    }
    let out = if let Some(gpu) = gpu() {
        gpu.activation(x, kind)
    } else {
        Tensor::from_vec(kernel::forward(kind, x.data()), x.shape())
    };
    if !is_recording(&[x]) {
        return out;
    }
    let saved = x.detach();
    record_owning(out, &[x], move |grad| {
        vec![Some(activation_backward(&saved, kind, grad))]
    })
}

/// `grad · act'(x)`.
pub(crate) fn activation_backward(x: &Tensor, kind: Activation, grad: Tensor) -> Tensor {
    if let Some(gpu) = gpu() {
        return gpu.activation_backward(x, kind, &grad);
    }
    Tensor::from_vec(kernel::backward(kind, x.data(), grad.into_vec()), x.shape())
}

/// `[..., 2D] -> [..., D]`: first half times `gelu` of the second half (diffusers' GEGLU).
pub fn geglu(x: &Tensor) -> Tensor {
    let width = x.dim(-1);
    assert_eq!(width % 2, 0, "geglu halves the last axis, which is {width}");
    let half = width / 2;
    let mut shape = x.shape().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = half;
    }
    let out = if let Some(gpu) = gpu() {
        gpu.geglu(x, &shape)
    } else {
        Tensor::from_vec(kernel::geglu(x.data(), half), &shape)
    };
    if !is_recording(&[x]) {
        return out;
    }
    let saved = x.detach();
    record(out, &[x], move |grad| {
        if let Some(gpu) = gpu() {
            return vec![Some(gpu.geglu_backward(&saved, grad))];
        }
        let dx = kernel::geglu_backward(saved.data(), grad.data(), half);
        vec![Some(Tensor::from_vec(dx, saved.shape()))]
    })
}
