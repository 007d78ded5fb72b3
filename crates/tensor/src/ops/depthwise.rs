use crate::autograd::{is_recording, record};
use crate::cpu::depthwise as kernel;
use crate::device::gpu;
use crate::ops::ConvolutionSizes;
use crate::{Activation, Conv2d, Param, Tensor, activation};

/// Which packed form of the weight this op keeps.
const FORWARD: u8 = 0;

/// Depthwise convolution: `act(conv(x, weight) + bias)` with one filter per channel. `x` is
/// `[B, H, W, C]`, `weight` `[C, 1, kh, kw]`, `bias` `[C]`, the result `[B, H', W', C]`.
///
/// Filters are not trained: the only gradient is that of `x`, for losses that a network like this measures.
///
/// # Panics
/// If the weight or the bias is trainable, outside of [`no_grad`](crate::no_grad).
pub fn depthwise_conv2d(x: &Tensor, weight: &Param, bias: Option<&Param>, geometry: Conv2d, act: Activation) -> Tensor {
    let s = ConvolutionSizes::depthwise("depthwise_conv2d", x.shape(), &weight.shape(), geometry);
    let is_trained = is_recording(&[&weight.on_tape()]) || bias.is_some_and(|b| is_recording(&[&b.tensor()]));
    assert!(
        !is_trained,
        "depthwise_conv2d has no gradient of weight and bias: freeze them"
    );
    assert!(
        bias.is_none_or(|b| b.shape() == [s.outputs]),
        "depthwise_conv2d wants a bias of [{}]",
        s.outputs
    );
    if !is_recording(&[x]) {
        return forward(&s, x, weight, bias, act);
    }
    let weight_saved = weight.clone();
    let out = record(forward(&s, x, weight, bias, Activation::None), &[x], move |grad| {
        vec![Some(grad_input(&s, grad, &weight_saved))]
    });
    activation(&out, act)
}

fn forward(s: &ConvolutionSizes, x: &Tensor, weight: &Param, bias: Option<&Param>, act: Activation) -> Tensor {
    if let Some(gpu) = gpu() {
        return gpu.depthwise(s, x, weight, bias, act);
    }
    let packed = weight.packed(FORWARD, |w, _| kernel::pack(w.data(), s.outputs));
    let bias = bias.map(Param::tensor);
    let zeros = vec![0.0; if bias.is_none() { s.outputs } else { 0 }];
    let bias = bias.as_ref().map_or(zeros.as_slice(), Tensor::data);
    let out = kernel::forward(s, x.data(), &packed, bias, act);
    Tensor::from_vec(out, &s.out_shape())
}

fn grad_input(s: &ConvolutionSizes, grad: &Tensor, weight: &Param) -> Tensor {
    if let Some(gpu) = gpu() {
        return gpu.depthwise_grad_input(s, grad, weight);
    }
    let packed = weight.packed(FORWARD, |w, _| kernel::pack(w.data(), s.outputs));
    let shape = [s.batch, s.height, s.width, s.inputs];
    Tensor::from_vec(kernel::grad_input(s, grad.data(), &packed), &shape)
}
