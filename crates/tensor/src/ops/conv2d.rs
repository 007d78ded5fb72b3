use crate::{Activation, Param, Tensor};

/// Geometry of a convolution. `padding` is `[top, bottom, left, right]` zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2d {
    pub stride: usize,
    pub padding: [usize; 4],
}

impl Conv2d {
    /// Stride 1, the same padding `p` on each side.
    pub fn padded(p: usize) -> Self {
        Self { stride: 1, padding: [p; 4] }
    }

    pub fn strided(stride: usize, p: usize) -> Self {
        Self { stride, padding: [p; 4] }
    }
}

/// `act(conv(x, weight) + bias) + residual`. `x` is `[B, H, W, in]`, `weight` `[out, in, kh, kw]`,
/// the result `[B, H', W', out]`.
pub fn conv2d(x: &Tensor, weight: &Param, bias: Option<&Param>, geometry: Conv2d, act: Activation, residual: Option<&Tensor>) -> Tensor {
    let _ = (x, weight, bias, geometry, act, residual);
    todo!()
}

/// Depthwise convolution, inference only: `weight` `[C, 1, kh, kw]`.
pub fn depthwise_conv2d(x: &Tensor, weight: &Param, bias: Option<&Param>, geometry: Conv2d, act: Activation) -> Tensor {
    let _ = (x, weight, bias, geometry, act);
    todo!()
}
