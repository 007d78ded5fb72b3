use crate::autograd::{is_recording, record, record_owning};
use crate::cpu::activation as kernel;
use crate::device::gpu;
use crate::ops::{Conv2d, depthwise_conv2d, sub};
use crate::{Param, Tensor};

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

/// `max(x, 0) + slope[c] · min(x, 0)` of `[B, H, W, C]`, where `slope` is `[C]`: torch's `PReLU`, and with equal slopes its
/// `LeakyReLU`. For inference: neither `x` nor `slope` has a gradient.
pub fn prelu(x: Tensor, slope: &Param) -> Tensor {
    let slope = slope.tensor();
    assert_eq!(slope.shape(), [x.dim(-1)], "prelu wants a slope for each channel");
    assert!(
        !is_recording(&[&x, &slope]),
        "prelu has no gradient: freeze what goes in"
    );
    if gpu().is_some() {
        let taps = Param::new(slope.reshape(&[slope.numel(), 1, 1, 1]));
        let below = activation(&super::affine(&x, -1.0, 0.0), Activation::Relu);
        let below = depthwise_conv2d(&below, &taps, None, Conv2d::padded(0), Activation::None);
        return sub(&activation(&x, Activation::Relu), &below);
    }
    let shape = x.shape().to_vec();
    Tensor::from_vec(kernel::prelu(x.into_vec(), slope.data()), &shape)
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
