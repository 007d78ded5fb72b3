use crate::autograd::is_recording;
use crate::cpu::depthwise as kernel;
use crate::device::gpu;
use crate::ops::ConvolutionSizes;
use crate::{Activation, Conv2d, Param, Tensor};

/// Which packed form of the weight this op keeps.
const FORWARD: u8 = 0;

/// Depthwise convolution: `act(conv(x, weight) + bias)` with one filter per channel. `x` is
/// `[B, H, W, C]`, `weight` `[C, 1, kh, kw]`, `bias` `[C]`, the result `[B, H', W', C]`.
///
/// Inference only: the networks trained here have none, so it has no backward, and asserts
/// that none is asked for.
pub fn depthwise_conv2d(x: &Tensor, weight: &Param, bias: Option<&Param>, geometry: Conv2d, act: Activation) -> Tensor {
    let bias_param = bias;
    let bias = bias.map(Param::tensor);
    assert!(
        !is_recording(&[x, &weight.on_tape()]),
        "depthwise_conv2d has no backward: call it under no_grad"
    );
    assert!(
        !bias.as_ref().is_some_and(|b| is_recording(&[b])),
        "depthwise_conv2d has no backward: freeze the bias"
    );
    let s = ConvolutionSizes::depthwise("depthwise_conv2d", x.shape(), &weight.shape(), geometry);
    assert!(
        bias.as_ref().is_none_or(|b| b.shape() == [s.outputs]),
        "depthwise_conv2d wants a bias of [{}]",
        s.outputs
    );
    if let Some(gpu) = gpu() {
        return gpu.depthwise(&s, x, weight, bias_param, act);
    }
    let packed = weight.packed(FORWARD, |w, _| kernel::pack(w.data(), s.outputs));
    let zeros = vec![0.0; if bias.is_none() { s.outputs } else { 0 }];
    let bias = bias.as_ref().map_or(zeros.as_slice(), Tensor::data);
    let out = kernel::forward(&s, x.data(), &packed, bias, act);
    Tensor::from_vec(out, &s.out_shape())
}
