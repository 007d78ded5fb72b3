use crate::Tensor;

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

pub fn activation(x: &Tensor, kind: Activation) -> Tensor {
    let _ = (x, kind);
    todo!()
}

/// `[..., 2D] -> [..., D]`: first half times `gelu` of the second half (diffusers' GEGLU).
pub fn geglu(x: &Tensor) -> Tensor {
    let _ = x;
    todo!()
}
