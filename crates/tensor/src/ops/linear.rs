use crate::{Activation, Param, Tensor};

/// `act(x · weightᵀ + bias) + residual`. `x` is `[..., in]`, `weight` `[out, in]`, `bias` `[out]`,
/// `residual` `[..., out]`.
pub fn linear(x: &Tensor, weight: &Param, bias: Option<&Param>, act: Activation, residual: Option<&Tensor>) -> Tensor {
    let _ = (x, weight, bias, act, residual);
    todo!()
}
