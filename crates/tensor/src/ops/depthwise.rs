use crate::autograd::is_recording;
use crate::cpu::depthwise::{self as kernel, Shape};
use crate::cuda::ConvolutionSizes;
use crate::device::gpu;
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
    let &[batch, height, width, channels] = x.shape() else {
        panic!("depthwise_conv2d wants x [B, H, W, C], shape is {:?}", x.shape());
    };
    let shape = weight.shape();
    let &[filters, 1, kh, kw] = shape.as_slice() else {
        panic!("depthwise_conv2d wants weight [C, 1, kh, kw], shape is {shape:?}");
    };
    assert_eq!(
        filters,
        channels,
        "depthwise_conv2d: weight {shape:?} does not fit x of shape {:?}",
        x.shape()
    );
    assert!(
        bias.as_ref().is_none_or(|b| b.shape() == [channels]),
        "depthwise_conv2d wants a bias of [{channels}]"
    );
    let [top, bottom, left, right] = geometry.padding;
    let (padded_height, padded_width) = (height + top + bottom, width + left + right);
    assert!(
        padded_height >= kh && padded_width >= kw,
        "kernel {kh}x{kw} is larger than the padded picture"
    );
    let s = Shape {
        height,
        width,
        channels,
        kh,
        kw,
        out_height: (padded_height - kh) / geometry.stride + 1,
        out_width: (padded_width - kw) / geometry.stride + 1,
        stride: geometry.stride,
        top,
        left,
    };
    if let Some(gpu) = gpu() {
        let sizes = ConvolutionSizes {
            batch,
            height,
            width,
            inputs: channels,
            outputs: channels,
            kh,
            kw,
            out_height: s.out_height,
            out_width: s.out_width,
            stride: s.stride,
            padding: geometry.padding,
        };
        return gpu.depthwise(&sizes, x, weight, bias_param, act);
    }
    let packed = weight.packed(FORWARD, |w, _| kernel::pack(w.data(), channels));
    let zeros = vec![0.0; if bias.is_none() { channels } else { 0 }];
    let bias = bias.as_ref().map_or(zeros.as_slice(), Tensor::data);
    let out = kernel::forward(s, batch, x.data(), &packed, bias, act);
    Tensor::from_vec(out, &[batch, s.out_height, s.out_width, channels])
}
