use crate::Tensor;
use crate::autograd::{is_recording, record};
use crate::cpu::{activation as kernel, parallel};
use crate::device::gpu;

/// Pointwise non-linearities. `Gelu` is the exact (erf) one; `QuickGelu` is `x·sigmoid(1.702x)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    None,
    Relu,
    Relu6,
    Silu,
    Gelu,
    QuickGelu,
    Tanh,
}

impl Activation {
    /// `x = act(x)` on one thread: the epilogue of linear and convolution.
    pub(crate) fn apply_slice(self, values: &mut [f32]) {
        kernel::forward(self, values);
    }

    /// `grad *= act'(x)` on one thread, `x` being the values before the activation.
    pub(crate) fn backward_slice(self, x: &[f32], grad: &mut [f32]) {
        kernel::backward(self, x, grad);
    }
}

/// `act(x)` for each value. Backward: `dx = grad · act'(x)`.
pub fn activation(x: &Tensor, kind: Activation) -> Tensor {
    if kind == Activation::None {
        return x.clone();
    }
    let out = if let Some(gpu) = gpu() {
        gpu.activation(x, kind)
    } else {
        let mut out = x.data().to_vec();
        parallel::for_chunks(&mut out, |_, part| kind.apply_slice(part));
        Tensor::from_vec(out, x.shape())
    };
    if !is_recording(&[x]) {
        return out;
    }
    let saved = x.detach();
    record(out, &[x], move |grad| {
        vec![Some(activation_backward(&saved, kind, grad))]
    })
}

/// `grad · act'(x)`.
pub(crate) fn activation_backward(x: &Tensor, kind: Activation, grad: &Tensor) -> Tensor {
    if let Some(gpu) = gpu() {
        return gpu.activation_backward(x, kind, grad);
    }
    let mut dx = grad.data().to_vec();
    parallel::for_chunks(&mut dx, |at, part| {
        kind.backward_slice(&x.data()[at..at + part.len()], part);
    });
    Tensor::from_vec(dx, grad.shape())
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
        let mut out = vec![0.0; x.numel() / 2];
        parallel::for_rows(&mut out, half, |at, part| {
            kernel::geglu(&x.data()[2 * at..2 * (at + part.len())], part, half);
        });
        Tensor::from_vec(out, &shape)
    };
    if !is_recording(&[x]) {
        return out;
    }
    let saved = x.detach();
    record(out, &[x], move |grad| {
        if let Some(gpu) = gpu() {
            return vec![Some(gpu.geglu_backward(&saved, grad))];
        }
        let mut dx = vec![0.0; saved.numel()];
        parallel::for_rows(&mut dx, 2 * half, |at, part| {
            let (x, grad) = (
                &saved.data()[at..at + part.len()],
                &grad.data()[at / 2..at / 2 + part.len() / 2],
            );
            kernel::geglu_backward(x, grad, part, half);
        });
        vec![Some(Tensor::from_vec(dx, saved.shape()))]
    })
}
